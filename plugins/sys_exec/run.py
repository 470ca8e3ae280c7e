#!/usr/bin/env python3
"""Runs one configured command, without a shell."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

OUTPUT_LIMIT_BYTES = 16 * 1024
# Together they must fit beside the arguments of one exec call (execve(2), E2BIG).
ENVIRONMENT_LIMIT_BYTES = 96 * 1024
PASSED_ON = ("PATH", "HOME", "TZ", "LANG", "LANGUAGE", "TMPDIR")
KNOWN = {
    "command", "timeout_seconds", "working_dir", "env", "success_exit_codes", "retry_on_exit_codes",
    "emit_event_on_exit_codes", "event_type",
}


class BadConfig(Exception):
    """The operator has to change the configuration; trying again does not help."""


def read_command(config):
    """The command as a list of words."""
    command = config.get("command")
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            raise BadConfig(f"config.command: {error}") from error
    if not isinstance(command, list) or not command or not all(isinstance(w, str) and "\0" not in w for w in command):
        raise BadConfig("config.command must be a string or a list of strings, and not empty")
    return command


def read_codes(config, key, default):
    """A list of exit codes."""
    codes = config.get(key, default)
    if not isinstance(codes, list) or not all(isinstance(c, int) and not isinstance(c, bool) and 0 <= c <= 255 for c in codes):
        raise BadConfig(f"config.{key} must be a list of numbers from 0 to 255")
    return set(codes)


def read_timeout(config):
    """Seconds the command may take."""
    seconds = config.get("timeout_seconds", 60)
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= 86400:
        raise BadConfig("config.timeout_seconds must be more than 0 and at most 86400")
    return seconds


def environment(config, payload):
    """What the command finds in its environment."""
    kept = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith("LC_")}
    extra = config.get("env", {})
    if not isinstance(extra, dict) or not all(isinstance(v, str) for v in extra.values()):
        raise BadConfig("config.env must map names to strings")
    kept.update(extra)
    for key, value in payload.items():
        name = "DUCTILE_PAYLOAD_" + re.sub(r"[^A-Z0-9_]", "_", key.upper())
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        kept[name] = text.replace("\0", "")
    if sum(len(k) + len(v.encode()) + 2 for k, v in kept.items()) > ENVIRONMENT_LIMIT_BYTES:
        raise BadConfig(f"the payload is too large for an environment (at most {ENVIRONMENT_LIMIT_BYTES} bytes)")
    return kept


class Collector(threading.Thread):
    """Keeps the first 16 KiB of a stream and drains the rest, so that the command never blocks on it."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.kept, self.truncated = stream, bytearray(), False
        self.start()

    def run(self):
        while piece := self.stream.read1(65536):
            room = OUTPUT_LIMIT_BYTES - len(self.kept)
            self.kept += piece[:room]
            self.truncated = self.truncated or len(piece) > room

    def text(self):
        """What was kept. A grandchild may hold the stream open longer than the command lives: that is not waited for."""
        self.join(timeout=1)
        return bytes(self.kept).decode(errors="replace")


def kill_group(process):
    """Ends the command and its children: first politely, then surely."""
    for sign, seconds in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def execute(config, payload):
    """Runs the command; answers its exit code (None at the timeout) and what the event tells."""
    command, seconds = read_command(config), read_timeout(config)
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(config, payload), cwd=config.get("working_dir"), start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise BadConfig(f"starting {command[0]}: {error}") from error
    out, err = Collector(process.stdout), Collector(process.stderr)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_group(process)
        code = None
    # A shell's convention: killed by signal n is 128 + n.
    code = 128 - code if code is not None and code < 0 else code
    told = {
        "command": command, "exit_code": code, "stdout": out.text(), "stderr": err.text(),
        "stdout_truncated": out.truncated, "stderr_truncated": err.truncated,
        "duration_ms": round((time.monotonic() - started) * 1000),
    }
    return code, told


def run(config, payload):
    """Runs the command and judges its exit code."""
    unknown = sorted(set(config) - KNOWN)
    if unknown:
        raise BadConfig(f"unknown configuration keys: {', '.join(unknown)}")
    success = read_codes(config, "success_exit_codes", [0])
    retried = read_codes(config, "retry_on_exit_codes", [])
    told_codes = read_codes(config, "emit_event_on_exit_codes", sorted(success))
    code, told = execute(config, payload)
    if code is None:
        return failure(f"the command took longer than {read_timeout(config)} s and was killed", True)
    if code in retried:
        return failure(f"the command exited with {code}, which is to be tried again", True, told)
    if code not in success | told_codes:
        return failure(f"the command exited with {code}", False, told)
    first_line = told["stdout"].strip().split("\n", 1)[0][:200]
    response = {"status": "ok", "result": first_line or f"the command exited with {code}", "events": []}
    if code in told_codes:
        event_type = config.get("event_type", "sys_exec.completed")
        response["events"] = [{"type": event_type, "payload": told}]
    return response


def failure(error, retry, told=None):
    """An error, with the command's last words."""
    words = told["stderr"].strip()[-500:] if told else ""
    return {"status": "error", "error": f"{error}: {words}" if words else error, "retry": retry}


def health(config):
    """Whether the command can be found."""
    command = read_command(config)
    if shutil.which(command[0]) is None:
        return failure(f"{command[0]} is not an executable in this image", False)
    return {"status": "ok", "result": f"{command[0]} is there"}


def respond(request):
    """The response to one request."""
    command, config = request.get("command"), request.get("config") or {}
    try:
        if command == "poll":
            return run(config, request.get("payload") or {})
        if command == "handle":
            return run(config, (request.get("event") or {}).get("payload") or {})
        if command == "health":
            return health(config)
    except BadConfig as error:
        return failure(str(error), False)
    return failure(f"sys_exec has no command {command!r}", False)


def main():
    """One request from standard input, one response to standard output."""
    try:
        request = json.load(sys.stdin)
        if not isinstance(request, dict):
            raise ValueError("not an object")
    except ValueError as error:
        response = failure(f"the request is not a JSON object: {error}", False)
    else:
        response = respond(request)
    json.dump(response, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    # Not a normal exit: a grandchild that still holds a stream must not keep the answer waiting.
    os._exit(0)


if __name__ == "__main__":
    main()
