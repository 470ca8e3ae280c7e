#!/usr/bin/env python3
"""Tells what changed below folders since the last poll."""

import fnmatch
import hashlib
import json
import os
import stat
import sys

MAX_FILES = 5000
MAX_EVENTS = 200
# The engine keeps at most 1 MiB of state for a plugin; the rest is its own envelope.
MAX_STATE_BYTES = 1_000_000
STRATEGIES = ("sha256", "mtime_size")
EMIT_MODES = ("aggregate", "per_file")
DEFAULTS = {
    "event_type": "folder_watch.changed", "strategy": "sha256", "emit_mode": "aggregate", "recursive": True,
    "ignore": [], "emit_initial": False, "max_events": MAX_EVENTS,
}


class BadConfig(Exception):
    """The operator has to change the configuration; trying again does not help."""


def read_watches(config):
    """The configured watches, checked, with their defaults."""
    listed = config.get("watches")
    if not isinstance(listed, list) or not listed:
        raise BadConfig("config.watches must be a list of at least one watch")
    watches, seen = [], set()
    for index, given in enumerate(listed):
        where = f"config.watches[{index}]"
        if not isinstance(given, dict):
            raise BadConfig(f"{where} must be a mapping")
        unknown = sorted(set(given) - set(DEFAULTS) - {"id", "root"})
        if unknown:
            raise BadConfig(f"{where} has unknown keys: {', '.join(unknown)}")
        watch = {**DEFAULTS, **given}
        for key in ("id", "root", "event_type"):
            if not isinstance(watch.get(key), str) or not watch[key]:
                raise BadConfig(f"{where}.{key} must be a non-empty string")
        if not os.path.isabs(watch["root"]):
            raise BadConfig(f"{where}.root must be an absolute path")
        if watch["strategy"] not in STRATEGIES:
            raise BadConfig(f"{where}.strategy must be one of {', '.join(STRATEGIES)}")
        if watch["emit_mode"] not in EMIT_MODES:
            raise BadConfig(f"{where}.emit_mode must be one of {', '.join(EMIT_MODES)}")
        if not isinstance(watch["max_events"], int) or not 1 <= watch["max_events"] <= 1000:
            raise BadConfig(f"{where}.max_events must be 1 to 1000")
        if not isinstance(watch["ignore"], list) or not all(isinstance(p, str) for p in watch["ignore"]):
            raise BadConfig(f"{where}.ignore must be a list of patterns")
        if watch["id"] in seen:
            raise BadConfig(f"{where}.id {watch['id']!r} is used twice")
        seen.add(watch["id"])
        watches.append(watch)
    return watches


def file_hash(path):
    """SHA-256 of a file's contents, in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 18):
            digest.update(piece)
    return digest.hexdigest()


def ignored(name, patterns):
    """Whether a file or folder name matches one of the patterns."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def raise_error(error):
    """os.walk swallows errors unless told otherwise; half a listing would look like deletions."""
    raise error


def snapshot(watch, max_files):
    """Signature of every regular file below the root, by relative path."""
    files = {}
    for folder, folders, names in os.walk(watch["root"], onerror=raise_error):
        folders[:] = sorted(f for f in folders if not ignored(f, watch["ignore"])) if watch["recursive"] else []
        for name in sorted(names):
            if ignored(name, watch["ignore"]):
                continue
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if watch["strategy"] == "sha256":
                    signature = file_hash(path)
                else:
                    signature = f"{status.st_mtime_ns}:{status.st_size}"
            except FileNotFoundError:
                continue  # Deleted between the listing and the look: the same as deleted before.
            files[os.path.relpath(path, watch["root"])] = signature
            if len(files) > max_files:
                raise BadConfig(f"watch {watch['id']}: more than {max_files} files; narrow root or ignore, or raise max_files")
    return files


def differences(old, new):
    """Sorted (path, change) pairs."""
    changes = [(path, "created") for path in new.keys() - old.keys()]
    changes += [(path, "deleted") for path in old.keys() - new.keys()]
    changes += [(path, "modified") for path in new.keys() & old.keys() if new[path] != old[path]]
    return sorted(changes)


def key_of(watch, changes, old, new):
    """A dedupe key that depends on what changed and into what, not on when."""
    digest = hashlib.sha256()
    for path, change in changes:
        digest.update(json.dumps([path, change, old.get(path), new.get(path)]).encode())
    return f"folder_watch:{watch['id']}:{digest.hexdigest()[:32]}"


def aggregate_event(watch, changes, old, new):
    """One event that lists all changes."""
    payload = {"watch_id": watch["id"], "root": watch["root"], "count": len(changes)}
    for kind in ("created", "modified", "deleted"):
        payload[kind] = [path for path, change in changes if change == kind]
    return {"type": watch["event_type"], "payload": payload, "dedupe_key": key_of(watch, changes, old, new)}


def file_event(watch, path, change, old, new):
    """One event for one changed file."""
    full = os.path.join(watch["root"], path)
    payload = {"watch_id": watch["id"], "root": watch["root"], "path": full, "relative_path": path, "change": change}
    if change != "deleted":
        try:
            payload["size"] = os.lstat(full).st_size
        except FileNotFoundError:
            pass  # It was there when it was compared; the next poll tells that it is gone.
    return {"type": watch["event_type"], "payload": payload, "dedupe_key": key_of(watch, [(path, change)], old, new)}


def advance(old, new, told):
    """The snapshot after telling only some changes: what was not told must still differ at the next poll."""
    kept = dict(old)
    for path, change in told:
        if change == "deleted":
            kept.pop(path, None)
        else:
            kept[path] = new[path]
    return kept


def poll_watch(watch, last, max_files):
    """Events of one watch, and its next snapshot."""
    new = snapshot(watch, max_files)
    known = last is not None and last.get("strategy") == watch["strategy"] and last.get("root") == watch["root"]
    if not known and not watch["emit_initial"]:
        return [], new
    old = last["files"] if known else {}
    changes = differences(old, new)
    if not changes:
        return [], new
    if watch["emit_mode"] == "aggregate":
        return [aggregate_event(watch, changes, old, new)], new
    told = changes[: watch["max_events"]]
    return [file_event(watch, path, change, old, new) for path, change in told], advance(old, new, told)


def poll(config, state):
    """Compares every watch with the last snapshot."""
    watches = read_watches(config)
    max_files = config.get("max_files", MAX_FILES)
    if not isinstance(max_files, int) or max_files < 1:
        raise BadConfig("config.max_files must be a positive number")
    last = state.get("watches") or {}
    events, kept, left = [], {}, max_files
    for watch in watches:
        found, files = poll_watch(watch, last.get(watch["id"]), left)
        left -= len(files)
        events += found
        kept[watch["id"]] = {"root": watch["root"], "strategy": watch["strategy"], "files": files}
    if len(json.dumps(kept)) > MAX_STATE_BYTES:
        raise BadConfig("the snapshot is larger than 1 MiB; watch fewer files")
    count = sum(len(watch["files"]) for watch in kept.values())
    return {
        "status": "ok",
        "result": f"{count} files in {len(watches)} watches, {len(events)} events",
        "events": events,
        "state_updates": {"watches": kept},
    }


def health(config):
    """Whether every root can be listed."""
    for watch in read_watches(config):
        os.listdir(watch["root"])
    return {"status": "ok", "result": "every watched folder can be read"}


def respond(request):
    """The response to one request."""
    command, config = request.get("command"), request.get("config") or {}
    try:
        if command == "poll":
            return poll(config, request.get("state") or {})
        if command == "health":
            return health(config)
    except BadConfig as error:
        return {"status": "error", "error": str(error), "retry": False}
    except OSError as error:
        return {"status": "error", "error": f"reading a watched folder: {error}", "retry": True}
    return {"status": "error", "error": f"folder_watch has no command {command!r}", "retry": False}


def main():
    """One request from standard input, one response to standard output."""
    try:
        request = json.load(sys.stdin)
        if not isinstance(request, dict):
            raise ValueError("not an object")
    except ValueError as error:
        response = {"status": "error", "error": f"the request is not a JSON object: {error}", "retry": False}
    else:
        response = respond(request)
    json.dump(response, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
