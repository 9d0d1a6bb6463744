"""Daemons that do not answer, say nothing of a change or have more to say than fits: what clients make of it."""

import json
import os
import pty
import re
import select
import signal
import time

import cli_harness
from daemon_cli_harness import DaemonCliTest, job_view


class ManyJobsTest(DaemonCliTest):
    IDS = range(1, 1502)

    def start_fake(self):
        def script(_, request):
            jobs = [job_view(number, "done") for number in request.get("jobs", [])]
            if len(jobs) > 1000:
                return [{"ok": False, "error": {"code": "too_many_jobs", "message": "too many"}}]
            if request["type"] == "subscribe":
                return [{"ok": True, "type": "subscribe", "sequence": 0}]
            if request["type"] in ("status", "cancel"):
                return [{"ok": True, "type": "jobs", "more": len(jobs) > 60, "jobs": jobs[:60]}]
            return None

        return self.fake(script)

    def test_more_than_a_request_or_a_reply_holds(self):
        daemon = self.start_fake()
        for verb in ("status", "cancel", "wait"):
            with self.subTest(verb=verb):
                jobs = json.loads(self.run_ok(verb, "--json", *self.IDS, 5).stdout)
                self.assertEqual([job["id"] for job in jobs], [*self.IDS, 5])
        self.assertEqual([request.get("jobs", []) for request in daemon.of_type("subscribe")], [[]])
        self.assertEqual([len(request["jobs"]) for request in daemon.of_type("cancel")], [1000, 501])
        self.assertLessEqual(max(len(request["jobs"]) for request in daemon.of_type("status")), 100)

    def test_none_is_cancelled_where_one_is_unknown(self):
        self.start()
        self.save_big()
        job = self.submit_big()
        done = self.run_cli("cancel", job, *range(2, 1100))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("there is no job 2;", done.stderr)
        self.assertEqual(self.job(job)["state"], "running")


class NoEventsTest(DaemonCliTest):
    """What a client that waits learns only by asking."""

    def test_changes_are_seen_and_a_forgotten_job_ends_the_waiting(self):
        asked = {}

        def script(connection, request):
            if request["type"] == "subscribe":
                event = {"event": "job", "sequence": 1, "job": job_view(7, reason="behind 2 jobs")}
                return [{"ok": True, "type": "subscribe", "sequence": 0}, event]
            if request["type"] != "status":
                return None
            asked[connection] = asked.get(connection, 0) + 1
            if asked[connection] == 1:
                return [{"ok": True, "type": "jobs", "more": False, "jobs": [job_view(7, reason="behind 1 job")]}]
            return [{"ok": False, "error": {"code": "unknown_job", "message": "there is no job 7"}}]

        self.fake(script)
        for process in (self.popen("wait", 7), self.popen("status", 7, "--watch")):
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 2)
            self.assertRegex(err, r"\Atiny-knn: error: .*job.*forgotten by the daemon.*\n\Z")
            self.assertIn("job 7", err)
        self.assertRegex(out, r"behind 2 jobs.*\n.*behind 1 job\b")

    def test_watching_forgets_what_is_gone(self):
        self.start()
        self.run_ok("submit", "q.npy", "d.npy", "--wait")
        ours, theirs = pty.openpty()
        process = self.popen("status", "--watch", "--all", stdout=theirs, variables={"TERM": "xterm"})
        os.close(theirs)
        seen = b""

        def read_until(pattern):
            nonlocal seen
            deadline = time.monotonic() + 60
            while not re.search(pattern, seen, re.DOTALL):
                self.assertLess(time.monotonic(), deadline, seen)
                if select.select([ours], [], [], 0.1)[0]:
                    seen += os.read(ours, 65536)

        read_until(rb" done .*device: ")
        self.run_ok("clean")
        read_until(rb" done .*\x1b\[J(?:(?! done ).)*device: [^\n]*\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 0)
        os.close(ours)

    def test_watching_asks_for_what_is_not_finished_and_names_whose_jobs_are_before(self):
        def script(_, request):
            before = 2 if request["type"] == "subscribe" else 1
            mine = job_view(7, jobs_before=[{"uid": os.getuid(), "jobs": before}])
            if request["type"] == "subscribe":
                events = [job_view(3, "done", finished_at=1.0), mine]
                events = [{"event": "job", "sequence": i + 1, "job": job} for i, job in enumerate(events)]
                return [{"ok": True, "type": "subscribe", "sequence": 0}, *events]
            if request["type"] == "list":
                theirs = job_view(8, uid=4294967294, redacted=True, jobs_before=[{"uid": os.getuid(), "jobs": 2}])
                jobs = [mine, theirs] if request["everyone"] else [mine]
                return [{"ok": True, "type": "jobs", "more": False, "jobs": jobs}]
            return None

        daemon = self.fake(script)
        for more in ([], ["--everyone"]):
            with self.subTest(more=more):
                asked = len(daemon.of_type("list"))
                process = self.popen("status", "--watch", *more)
                text = "".join(self.read_until(process.stdout, r"^job 7 of \S+: queued, behind 1 job of yours$"))
                if more:
                    text += "".join(self.read_until(process.stdout, r"^job 7 of \S+: queued, behind 2 jobs of yours$"))
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
                self.assertNotIn("job 3 ", text)  # was finished before anybody watched
                self.assertEqual("job 8 of 4294967294: queued, behind 2 jobs of yours\n" in text, bool(more), text)
                lists = daemon.of_type("list")[asked:]
                self.assertTrue(lists)
                for request in lists:
                    self.assertEqual((request["finished"], request["everyone"]), (False, bool(more)))


class NoAnswerTest(DaemonCliTest):
    """A daemon that hears a submission, and does not answer for the 10 s that a client gives it."""

    def test_the_job_is_submitted_again_with_its_key(self):
        def script(connection, request):
            if request["type"] != "submit":
                return None
            return [{"ok": True, "type": "submit", "existed": True, "job": job_view(7)}] if connection else []

        daemon = self.fake(script)
        done = self.run_ok("submit", "q.npy", "d.npy")
        self.assertEqual(done.stdout, "7\n")
        self.assertIn("the daemon does not answer", done.stderr)
        first, second = daemon.of_type("submit")
        self.assertEqual({**first, "id": 0}, {**second, "id": 0})

    def test_what_is_safe_to_repeat_is_said(self):
        def script(connection, request):
            if request["type"] == "submit":
                return []
            refusal = {"code": "too_many_connections", "message": "enough"}
            return [{"ok": False, "error": refusal}] if connection else None

        self.fake(script)
        done = self.run_cli("submit", "q.npy", "d.npy", "--key", "nightly")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"error: the daemon may or may not have .* --key nightly is safe: enough\n\Z")


if __name__ == "__main__":
    cli_harness.main()
