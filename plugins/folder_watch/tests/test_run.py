"""What folder_watch promises; each test runs it as a process, the way a cell does."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

RUN = pathlib.Path(__file__).resolve().parent.parent / "run.py"


def call(request):
    text = request if isinstance(request, str) else json.dumps(request)
    done = subprocess.run([sys.executable, str(RUN)], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class FolderWatch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.state = {}

    def poll(self, **watch):
        watch = {"id": "w", "root": str(self.root), **watch}
        response = call({"command": "poll", "config": {"watches": [watch]}, "state": self.state})
        self.assertEqual(response["status"], "ok", response)
        self.state = response["state_updates"]
        return response["events"]

    def test_the_first_poll_only_takes_the_snapshot(self):
        (self.root / "a").write_text("1")
        self.assertEqual(self.poll(), [])
        self.assertEqual(self.poll(), [])

    def test_the_first_poll_tells_everything_where_that_is_wanted(self):
        (self.root / "a").write_text("1")
        events = self.poll(emit_initial=True)
        self.assertEqual(events[0]["payload"]["created"], ["a"])

    def test_one_event_lists_all_changes(self):
        (self.root / "kept").write_text("1")
        (self.root / "gone").write_text("1")
        (self.root / "sub").mkdir()
        (self.root / "sub" / "changed").write_text("1")
        self.poll()
        (self.root / "gone").unlink()
        (self.root / "sub" / "changed").write_text("2")
        (self.root / "new").write_text("1")
        events = self.poll(event_type="inbox.changed")
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["type"], "inbox.changed")
        payload = events[0]["payload"]
        self.assertEqual(payload["created"], ["new"])
        self.assertEqual(payload["modified"], ["sub/changed"])
        self.assertEqual(payload["deleted"], ["gone"])
        self.assertEqual(self.poll(event_type="inbox.changed"), [])

    def test_each_file_has_its_event_and_what_is_too_much_comes_later(self):
        self.poll(emit_mode="per_file")
        for name in "abc":
            (self.root / name).write_text(name)
        first = self.poll(emit_mode="per_file", max_events=2)
        second = self.poll(emit_mode="per_file", max_events=2)
        self.assertEqual([e["payload"]["relative_path"] for e in first + second], ["a", "b", "c"])
        self.assertEqual(first[0]["payload"]["change"], "created")
        self.assertEqual(len({e["dedupe_key"] for e in first + second}), 3)
        self.assertEqual(self.poll(emit_mode="per_file", max_events=2), [])

    def test_the_dedupe_key_depends_on_what_changed(self):
        self.poll()
        before = self.state
        (self.root / "a").write_text("1")
        key = self.poll()[0]["dedupe_key"]
        self.state = before
        self.assertEqual(self.poll()[0]["dedupe_key"], key)
        (self.root / "a").write_text("2")
        self.state = before
        self.assertNotEqual(self.poll()[0]["dedupe_key"], key)

    def test_size_and_time_can_stand_for_the_contents(self):
        (self.root / "a").write_text("1")
        self.poll(strategy="mtime_size")
        (self.root / "a").write_text("22")
        self.assertEqual(self.poll(strategy="mtime_size")[0]["payload"]["modified"], ["a"])

    def test_ignored_names_folders_and_links_are_not_seen(self):
        self.poll(ignore=["*.tmp", ".*"], emit_initial=True)
        (self.root / "a.tmp").write_text("1")
        (self.root / ".git").mkdir()
        (self.root / ".git" / "x").write_text("1")
        (self.root / "link").symlink_to("/etc/passwd")
        self.assertEqual(self.poll(ignore=["*.tmp", ".*"]), [])

    def test_a_missing_folder_fails_and_may_be_tried_again(self):
        config = {"watches": [{"id": "w", "root": "/nowhere/at/all"}]}
        response = call({"command": "poll", "config": config})
        self.assertEqual((response["status"], response["retry"]), ("error", True))
        self.assertNotIn("state_updates", response)

    def test_a_bad_configuration_is_final_and_says_where(self):
        for config, needle in (
            ({}, "config.watches"),
            ({"watches": [{"id": "w"}]}, "config.watches[0].root"),
            ({"watches": [{"id": "w", "root": "relative"}]}, "absolute"),
            ({"watches": [{"id": "w", "root": "/", "strategy": "md5"}]}, "strategy"),
            ({"watches": [{"id": "w", "root": "/", "colour": 1}]}, "colour"),
            ({"watches": [{"id": "w", "root": "/tmp"}, {"id": "w", "root": "/tmp"}]}, "twice"),
        ):
            response = call({"command": "poll", "config": config})
            self.assertEqual((response["status"], response["retry"]), ("error", False))
            self.assertIn(needle, response["error"])

    def test_health_lists_every_root(self):
        watch = {"id": "w", "root": str(self.root)}
        self.assertEqual(call({"command": "health", "config": {"watches": [watch]}})["status"], "ok")


if __name__ == "__main__":
    unittest.main()
