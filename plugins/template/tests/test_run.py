"""The template works as it stands; change these tests with it."""

import json
import pathlib
import subprocess
import sys
import unittest

RUN = pathlib.Path(__file__).resolve().parent.parent / "run.py"


def call(request):
    text = request if isinstance(request, str) else json.dumps(request)
    done = subprocess.run([sys.executable, str(RUN)], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Template(unittest.TestCase):
    def test_words_are_counted(self):
        event = {"type": "note.written", "payload": {"text": "a bc def"}}
        response = call({"command": "handle", "event": event, "config": {"minimum_length": 2}, "state": {"calls": 4}})
        self.assertEqual(response["events"][0]["payload"], {"words": 2})
        self.assertEqual(response["state_updates"], {"calls": 5})

    def test_health_is_answered(self):
        self.assertEqual(call({"command": "health"})["status"], "ok")

    def test_bad_requests_are_answered(self):
        for request in ("", "[]", {"command": "dance"}):
            self.assertEqual(call(request)["status"], "error")


if __name__ == "__main__":
    unittest.main()
