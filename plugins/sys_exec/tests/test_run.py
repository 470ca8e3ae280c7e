"""What sys_exec promises; each test runs it as a process, the way a cell does."""

import json
import pathlib
import subprocess
import sys
import time
import unittest

RUN = pathlib.Path(__file__).resolve().parent.parent / "run.py"


def call(request):
    text = request if isinstance(request, str) else json.dumps(request)
    done = subprocess.run([sys.executable, str(RUN)], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def poll(payload=None, **config):
    return call({"command": "poll", "config": config, "payload": payload or {}})


class SysExec(unittest.TestCase):
    def test_a_command_runs_and_is_told(self):
        response = poll(command=["printf", "one\ntwo"])
        self.assertEqual((response["status"], response["result"]), ("ok", "one"))
        event = response["events"][0]
        self.assertEqual(event["type"], "sys_exec.completed")
        self.assertEqual((event["payload"]["exit_code"], event["payload"]["stdout"]), (0, "one\ntwo"))

    def test_a_string_is_split_but_never_run_by_a_shell(self):
        response = poll(command="printf '%s|' 'a b' $HOME ; x")
        self.assertEqual(response["result"], "a b|$HOME|;|x|")

    def test_the_payload_is_in_the_environment(self):
        payload = {"file name": "a;b", "n": 3, "list": [1]}
        response = poll(payload, command=["env"])
        lines = response["events"][0]["payload"]["stdout"].split("\n")
        self.assertIn("DUCTILE_PAYLOAD_FILE_NAME=a;b", lines)
        self.assertIn("DUCTILE_PAYLOAD_N=3", lines)
        self.assertIn("DUCTILE_PAYLOAD_LIST=[1]", lines)

    def test_an_event_s_payload_is_there_too(self):
        event = {"type": "x.y", "payload": {"k": "v"}}
        response = call({"command": "handle", "config": {"command": ["env"]}, "event": event})
        self.assertIn("DUCTILE_PAYLOAD_K=v", response["events"][0]["payload"]["stdout"])

    def test_exit_codes_are_judged_as_configured(self):
        three = ["sh", "-c", "echo no >&2; exit 3"]
        response = poll(command=three)
        self.assertEqual((response["status"], response["retry"]), ("error", False))
        self.assertIn("exited with 3: no", response["error"])
        self.assertEqual(poll(command=three, retry_on_exit_codes=[3])["retry"], True)
        self.assertEqual(poll(command=three, success_exit_codes=[0, 3])["status"], "ok")
        told = poll(command=three, emit_event_on_exit_codes=[3])
        self.assertEqual((told["status"], told["events"][0]["payload"]["exit_code"]), ("ok", 3))
        self.assertEqual(poll(command=["true"], emit_event_on_exit_codes=[3])["events"], [])

    def test_output_is_cut_and_the_rest_drained(self):
        response = poll(command=["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; head -c 200000 /dev/zero >&2"])
        payload = response["events"][0]["payload"]
        self.assertEqual(len(payload["stdout"]), 16384)
        self.assertTrue(payload["stdout_truncated"] and payload["stderr_truncated"])

    def test_a_command_that_hangs_is_killed_with_its_children(self):
        started = time.monotonic()
        response = poll(command=["sh", "-c", "sleep 600 & sleep 600"], timeout_seconds=0.3)
        self.assertEqual((response["status"], response["retry"]), ("error", True))
        self.assertLess(time.monotonic() - started, 20)

    def test_a_child_left_behind_does_not_hold_the_answer(self):
        started = time.monotonic()
        response = poll(command=["sh", "-c", "sleep 15 & echo done"])
        self.assertEqual(response["result"], "done")
        self.assertLess(time.monotonic() - started, 10)

    def test_a_bad_configuration_is_final(self):
        for config in ({}, {"command": []}, {"command": "'"}, {"command": ["/nowhere"]}, {"command": ["true"], "colour": 1},
                       {"command": ["true"], "timeout_seconds": 0}, {"command": ["true"], "success_exit_codes": [999]}):
            response = poll(**config)
            self.assertEqual((response["status"], response["retry"]), ("error", False), config)

    def test_health_looks_for_the_command(self):
        self.assertEqual(call({"command": "health", "config": {"command": "true"}})["status"], "ok")
        self.assertEqual(call({"command": "health", "config": {"command": "no-such-thing"}})["status"], "error")


if __name__ == "__main__":
    unittest.main()
