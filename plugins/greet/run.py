#!/usr/bin/env python3
"""Greets by name, and proves by an HMAC that it holds a secret it never prints."""

import hashlib
import hmac
import json
import sys

SECRET = "demo_key"


def failure(error):
    """An answer that trying again would not change."""
    return {"status": "error", "error": error, "retry": False}


def greet(request, payload):
    """The greeting, with the proof over the challenge."""
    key = (request.get("secrets") or {}).get(SECRET)
    if not isinstance(key, str) or not key:
        return failure(f"the secret {SECRET} was not delivered: set it in the vault and grant it to greet")
    name = payload.get("name", "world")
    challenge = payload.get("challenge", request.get("job_id", ""))
    if not isinstance(name, str) or not isinstance(challenge, str):
        return failure("name and challenge must be strings")
    greeting = f"Hello, {name.strip() or 'world'}!"
    proof = hmac.new(key.encode(), challenge.encode(), hashlib.sha256).hexdigest()
    done = {"name": name, "greeting": greeting, "challenge": challenge, "proof": proof}
    return {
        "status": "ok",
        "result": greeting,
        "events": [{"type": "greet.done", "payload": done}],
        "logs": [{"level": "info", "message": f"HMAC-SHA256 of {challenge} under {SECRET}: {proof}"}],
    }


def respond(request):
    """The response to one request."""
    command = request.get("command")
    if command == "greet":
        return greet(request, request.get("payload") or {})
    if command == "handle":
        return greet(request, (request.get("event") or {}).get("payload") or {})
    if command == "health":
        there = SECRET in (request.get("secrets") or {})
        return {"status": "ok", "result": f"greet is well; {SECRET} was {'' if there else 'not '}delivered"}
    return failure(f"greet has no command {command!r}")


def main():
    """One request from standard input, one response to standard output."""
    try:
        request = json.load(sys.stdin)
    except ValueError as error:
        request = None
        response = failure(f"the request is not JSON: {error}")
    if request is not None:
        response = respond(request) if isinstance(request, dict) else failure("the request is not a JSON object")
    json.dump(response, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
