"""A disk that is full or broken, for every call on the journal and on an output in turn.

Rules of the interposer make the n-th matching call fail, n = 1, 2, ... up to as many as a run without faults
makes. Whatever fails: the client hears of it in one line, nothing that was acknowledged is lost, the daemon
still answers, and everything works again when the disk does.
"""

import errno
import os
import time
import unittest

import fault_rules
from daemon_client import Disconnected, Refused
from daemon_harness import FINISHED, DaemonTestCase, wait_for
from fault_rules import ALWAYS, COUNT, SHORT, SKIP, SUPERVISOR, WORKER

_DISK_CALLS = (
    fault_rules.OPEN
    | fault_rules.WRITE
    | fault_rules.SYNC
    | fault_rules.TRUNCATE
    | fault_rules.ALLOCATE
    | fault_rules.RENAME
    | fault_rules.UNLINK
    | fault_rules.MAKE_FOLDER
)


class DiskFaultTestCase(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("out"))
        self.expected()


class JournalFaults(DiskFaultTestCase):
    def submit_and_cancel(self):
        """Three jobs, one of them cancelled. Returns {key: id} of what was acknowledged, and the errors."""
        acknowledged, errors = {}, []
        with self.daemon.client() as client:
            for number in range(3):
                key = f"key-{number}"
                try:
                    acknowledged[key] = self.submit(client, f"out/{number}.pkl", key=key)
                except Refused as refused:
                    self.assertIn(refused.code, ("journal_full", "journal_failed"), refused.message)
                    self.assertNotIn("\n", refused.message)
                    errors.append(refused.code)
                if number == 1 and key in acknowledged:
                    client.call("cancel", jobs=[acknowledged[key]])
            # Whatever the disk does, questions are answered.
            self.assertEqual(client.call("stats")["pid"], self.daemon.pid)
            jobs = client.jobs()
            for key, job in acknowledged.items():
                self.assertIn(job, jobs, key)

            # All run, unless the journal cannot say so: then they wait for a start on a better disk.
            def settled():
                if client.call("stats")["journal"] != "ok":
                    return True
                found = client.jobs()
                return all(found[job]["state"] in FINISHED for job in acknowledged.values())

            wait_for(settled, "the end of three jobs")
        return acknowledged, errors

    def count_calls(self):
        rule = self.daemon.faults.rule(SUPERVISOR, _DISK_CALLS, COUNT, path=self.daemon.state + "/*")
        self.daemon.start()
        at_start = rule.seen
        self.submit_and_cancel()
        self.daemon.stop()
        return at_start, rule.seen

    def fail_in_turn(self, error, alone, with_start):
        """Every call fails in turn: alone, or with all that follow until the disk is better."""
        at_start, count = self.count_calls()
        self.assertGreater(count, at_start + 5)
        outcomes = {"not started": 0, "refused": 0, "unharmed": 0}
        began = time.monotonic()
        for number in range(1 if with_start else at_start + 1, count + 1):
            self.daemon.close()
            self.daemon = self.new_daemon()
            with self.subTest(error=errno.errorcode[error], call=number, of=count):
                outcomes[self.fail_one(error, number, number if alone else ALWAYS)] += 1
        took = time.monotonic() - began
        how = "alone" if alone else "with all that follow"
        print(f"{errno.errorcode[error]} {how}, {count} calls, {at_start} of them at the start: {outcomes} in {took:.1f} s")
        self.assertGreater(outcomes["refused"], 0)

    def fail_one(self, error, number, last):
        daemon = self.daemon
        rule = daemon.faults.fail(SUPERVISOR, _DISK_CALLS, error, path=daemon.state + "/*", first=number, last=last)
        process = daemon.spawn()
        acknowledged, errors = {}, []
        if not self.wait_for_start(process):
            # It says why in its last line, and names the folder.
            last_line = daemon.messages().strip().splitlines()[-1]
            self.assertEqual(process.returncode, 2, last_line)
            self.assertIn(daemon.state, last_line)
            outcome = "not started"
        else:
            acknowledged, errors = self.submit_and_cancel()
            outcome = "refused" if errors else "unharmed"
            if errors and errors[-1] == "journal_full":
                # Space returns: accepted again without a restart.
                rule.remove()
                self.assert_accepts_again(acknowledged)
            daemon.kill()
        rule.remove()
        self.assert_no_orphans()
        daemon.start()
        with daemon.client() as client:
            jobs = client.jobs()
            for key, job in acknowledged.items():
                self.assertIn(job, jobs, f"{key} was acknowledged and is lost")
            for key in ("key-0", "key-1", "key-2"):
                again = client.call("submit", key=key, spec=self.spec(f"out/{key[-1]}.pkl"), shape=self.shape())
                if key in acknowledged:
                    self.assertTrue(again["existed"], key)
                    self.assertEqual(again["job"]["id"], acknowledged[key])
                job = client.wait(again["job"]["id"])[again["job"]["id"]]
                if key != "key-1":
                    self.assert_done(job)
            self.assertEqual(len({job["id"] for job in client.jobs().values()}), len(client.jobs()))
        daemon.kill()
        keys = daemon.journal("SELECT key FROM jobs")
        self.assertEqual(len(keys), len(set(keys)))
        return outcome

    def wait_for_start(self, process):
        """Whether the daemon came up; otherwise it has ended."""
        while process.poll() is None:
            try:
                self.daemon.client().close()
                return True
            except Disconnected:
                time.sleep(0.002)
        return False

    def assert_accepts_again(self, acknowledged):
        def accepted():
            with self.daemon.client() as client:
                try:
                    acknowledged["key-later"] = self.submit(client, "out/later.pkl", key="key-later")
                except Refused as refused:
                    self.assertEqual(refused.code, "journal_full", refused.message)
                    return False
                self.assert_done(client.wait(acknowledged["key-later"])[acknowledged["key-later"]])
                return True

        wait_for(accepted, "a submission after space has returned", 30)

    def test_no_space_from_any_call_on(self):
        self.fail_in_turn(errno.ENOSPC, alone=False, with_start=True)

    def test_broken_disk_at_any_one_call(self):
        self.fail_in_turn(errno.EIO, alone=True, with_start=False)


class JournalFails(DiskFaultTestCase):
    def test_failed_sync_ends_acceptance_but_not_answers(self):
        self.daemon.start()
        with self.daemon.client() as client:
            hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, fault_rules.HOLD, path="*.pkl")
            running = self.submit(client, "out/running.pkl", key="running")
            hold.wait()
            waiting = self.submit(client, "out/waiting.pkl", key="waiting")
            rule = self.daemon.faults.fail(SUPERVISOR, fault_rules.SYNC, errno.EIO, path="*/state/*")
            with self.assert_refused("journal_failed"):
                self.submit(client, "out/refused.pkl", key="refused")
            self.assertEqual(rule.fired, 1)
            # Nothing tries the sync again, and nothing is accepted, though the disk would do it now.
            with self.assert_refused("journal_failed"):
                self.submit(client, "out/refused.pkl", key="refused")
            self.assertEqual(rule.seen, 1, "a failed sync was tried again")
            self.assertNotEqual(client.call("stats")["journal"], "ok")
            self.assertEqual(client.job(running)["state"], "running")
            client.call("cancel", jobs=[waiting])
            hold.remove()
            self.assert_done(client.wait(running)[running])
            self.assertEqual(client.wait(waiting)[waiting]["state"], "cancelled")
            self.assertEqual(rule.seen, 1, "a failed sync was tried again")
        self.daemon.kill()
        self.daemon.start()
        with self.daemon.client() as client:
            self.assert_done(client.wait(running)[running])
            self.assertIn(client.wait(waiting)[waiting]["state"], FINISHED)
            self.assert_works(client)

    def test_every_acknowledgement_and_every_end_comes_after_a_sync(self):
        self.daemon.start()
        rule = self.daemon.faults.rule(SUPERVISOR, fault_rules.SYNC, COUNT, path="*/journal.db-wal", after=True)
        with self.daemon.client() as client:
            hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, fault_rules.HOLD, path="*.pkl")
            jobs = []
            for number in range(5):
                before = rule.seen
                jobs.append(self.submit(client, f"out/{number}.pkl"))
                self.assertGreater(rule.seen, before)
            hold.wait()
            before = rule.seen
            client.call("cancel", jobs=jobs[3:])
            self.assertGreater(rule.seen, before)
            before = rule.seen
            client.send("wait", jobs=jobs[:1])
            hold.remove()
            client.reply(client.last_id)
            self.assertGreater(rule.seen, before)
            client.wait(*jobs)

    def test_short_writes_are_completed(self):
        self.daemon.faults.rule(SUPERVISOR, fault_rules.WRITE, SHORT, path="*/state/*", amount=7, last=ALWAYS)
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, SHORT, path="*.tmp", amount=7, last=ALWAYS)
        self.daemon.start()
        self.assert_works()
        self.daemon.kill()
        self.daemon.faults.clear()
        self.daemon.start()
        with self.daemon.client() as client:
            self.assertEqual([job["state"] for job in client.jobs().values()], ["done"])

    def test_this_test_notices_a_commit_that_is_not_written(self):
        """With writes to the journal left out, an acknowledged job must be missing: so it would be seen."""
        self.daemon.start()
        self.daemon.faults.rule(SUPERVISOR, fault_rules.WRITE, SKIP, path="*/journal.db-wal", last=ALWAYS)
        with self.daemon.client() as client:
            try:
                job = self.submit(client, "out/lost.pkl")
            except Refused:
                return  # even better
        self.daemon.kill()
        self.daemon.faults.clear()
        self.daemon.start()
        with self.daemon.client() as client:
            self.assertNotIn(job, client.jobs())


class OutputFaults(DiskFaultTestCase):
    def fail_in_turn(self, error):
        self.daemon.start("--idle-release", 600)
        pattern = self.path("out") + "*"
        rule = self.daemon.faults.rule(WORKER, _DISK_CALLS, COUNT, path=pattern)
        with self.daemon.client() as client:
            job = self.submit(client, "out/0.pkl")
            self.assert_done(client.wait(job)[job])
            rule.remove()
            count = rule.seen
            self.assertGreater(count, 5)
            failed = 0
            for number in range(1, count + 1):
                for last in (number, ALWAYS):
                    output = f"out/{number}-{last}.pkl"
                    with self.subTest(error=errno.errorcode[error], call=number, of=count, last=last):
                        rule = self.daemon.faults.fail(WORKER, _DISK_CALLS, error, path=pattern, first=number, last=last)
                        job = self.submit(client, output)
                        job = client.wait(job)[job]
                        rule.remove()
                        self.assertGreater(rule.fired, 0)
                        failed += self.check_failed(job, output)
                        works = self.submit(client, "out/works.pkl")
                        self.assert_done(client.wait(works)[works])
                        self.assertEqual([name for name in os.listdir(self.path("out")) if name.endswith(".tmp")], [])
        self.assertEqual(self.daemon.faults.workers_started, 1, "a full disk is no reason for a new worker")
        print(f"{errno.errorcode[error]}: {count} calls on an output, {failed} of {2 * count} jobs failed")
        self.assertGreater(failed, count)

    def check_failed(self, job, output):
        """The job is done and right, or failed with a reason that names the output; returns whether it failed."""
        self.assertIn(job["state"], ("done", "failed"))
        if job["state"] == "done":
            self.assert_done(job)
            return False
        self.assertIn(self.path("out"), job["error"])
        self.assertNotIn("\n", job["error"])
        if os.path.exists(self.path(output)):
            self.assert_output(output)  # only its folder could not be synced
        else:
            for name in os.listdir(self.path("out")):
                if name.endswith(".tmp"):
                    os.unlink(self.path("out/" + name))  # its unlink was made to fail
        return True

    def test_no_space_at_any_call(self):
        self.fail_in_turn(errno.ENOSPC)

    def test_broken_disk_at_any_call(self):
        self.fail_in_turn(errno.EIO)

    def test_quota_is_said(self):
        self.daemon.start()
        self.daemon.faults.fail(WORKER, fault_rules.ALLOCATE | fault_rules.WRITE, errno.EDQUOT, path="*.tmp", last=ALWAYS)
        with self.daemon.client() as client:
            job = self.submit(client, "out/0.pkl")
            job = client.wait(job)[job]
        self.assertEqual((job["state"], job["error_code"]), ("failed", "resource_exhausted"), job)
        self.assertIn("quota", job["error"].lower())


if __name__ == "__main__":
    unittest.main()
