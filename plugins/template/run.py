#!/usr/bin/env python3
"""CHANGE: counts the words of a text."""

import json
import sys


def handle(config, payload, state):
    """CHANGE: the work. `payload` is the event's; `state` is what the last call left in `state_updates`."""
    minimum = int(config.get("minimum_length", 1))
    words = [word for word in str(payload.get("text", "")).split() if len(word) >= minimum]
    return {
        "status": "ok",
        "result": f"{len(words)} words",
        "events": [{"type": "template.counted", "payload": {"words": len(words)}}],
        "state_updates": {"calls": int(state.get("calls", 0)) + 1},
    }


def respond(request):
    """The response to one request."""
    command = request.get("command")
    if command == "health":
        return {"status": "ok", "result": "template is well"}
    if command == "handle":
        payload = (request.get("event") or {}).get("payload") or {}
        return handle(request.get("config") or {}, payload, request.get("state") or {})
    return {"status": "error", "error": f"template has no command {command!r}", "retry": False}


if __name__ == "__main__":
    try:
        response = respond(json.load(sys.stdin))
    except Exception as error:  # Whatever happens, the caller gets an answer it can read.
        response = {"status": "error", "error": f"{type(error).__name__}: {error}", "retry": True}
    json.dump(response, sys.stdout)
    sys.stdout.write("\n")
