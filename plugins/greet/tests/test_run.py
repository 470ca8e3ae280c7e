"""What greet promises; each test runs it as a process, the way a cell does."""

import hashlib
import hmac
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


class Greet(unittest.TestCase):
    def test_a_greeting_carries_the_proof_and_not_the_secret(self):
        request = {
            "protocol": 2, "job_id": "j", "command": "greet", "config": {}, "state": {},
            "secrets": {"demo_key": "key"},
            "payload": {"name": "Ada", "challenge": "The quick brown fox jumps over the lazy dog"},
        }
        response = call(request)
        self.assertEqual(response["status"], "ok")
        self.assertEqual(response["result"], "Hello, Ada!")
        # A published HMAC-SHA256 vector for this key and message.
        proof = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        self.assertEqual(response["events"][0]["payload"]["proof"], proof)
        self.assertEqual(response["events"][0]["type"], "greet.done")

    def test_an_event_is_greeted_too(self):
        event = {"type": "demo.requested", "payload": {"name": "Ada", "challenge": "c"}}
        response = call({"command": "handle", "event": event, "secrets": {"demo_key": "s3cret-value"}})
        expected = hmac.new(b"s3cret-value", b"c", hashlib.sha256).hexdigest()
        self.assertEqual(response["events"][0]["payload"]["proof"], expected)
        self.assertNotIn("s3cret-value", json.dumps(response))

    def test_without_a_challenge_the_job_id_is_the_challenge(self):
        response = call({"command": "greet", "job_id": "j-1", "payload": {"name": "Ada"}, "secrets": {"demo_key": "k"}})
        self.assertEqual(response["events"][0]["payload"]["challenge"], "j-1")

    def test_without_the_secret_it_fails_once(self):
        response = call({"command": "greet", "payload": {"name": "Ada"}})
        self.assertEqual((response["status"], response["retry"]), ("error", False))
        self.assertIn("demo_key was not delivered", response["error"])

    def test_health_says_whether_the_secret_is_there(self):
        self.assertIn("was not delivered", call({"command": "health"})["result"])
        self.assertIn("was delivered", call({"command": "health", "secrets": {"demo_key": "k"}})["result"])

    def test_bad_requests_are_answered(self):
        for request in ("", "[]", "{", {"command": "dance"}, {}):
            self.assertEqual(call(request)["status"], "error")


if __name__ == "__main__":
    unittest.main()
