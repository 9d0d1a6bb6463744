"""SIGTERM, restarts with a long queue, and a wall clock that jumps."""

import contextlib
import os
import signal
import time
import unittest

import fault_rules
from daemon_harness import DaemonTestCase, wait_for
from fault_rules import HOLD, WORKER

DAY = 24 * 3600


class ShutdownTestCase(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def hold_first_job(self, client):
        """A job that is held before its rename: (id, rule)."""
        hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        job = self.submit(client, "first.pkl")
        hold.wait()
        return job, hold


class Terminated(ShutdownTestCase):
    def test_running_job_finishes_within_the_grace(self):
        self.daemon.start("--grace", 60)
        client = self.daemon.client()
        first, hold = self.hold_first_job(client)
        waiting = self.submit(client, "waiting.pkl")
        wait = client.send("wait", jobs=[first])
        self.daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.call("stats")["stopping"], "the daemon stopping")
        # Nothing new in the meantime, and it says so.
        with self.assert_refused("stopping"):
            self.submit(client, "late.pkl")
        hold.remove()
        self.assert_done(client.reply(wait)["jobs"][0])
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assert_no_orphans()
        self.assertEqual(dict(self.daemon.journal("SELECT id, state FROM jobs")), {first: "done", waiting: "queued"})
        self.assertFalse(os.path.exists(self.path("waiting.pkl")))
        client.close()
        self.daemon.start()
        with self.daemon.client() as client:
            self.assert_done(client.wait(waiting)[waiting])
            self.assertEqual(client.job(first)["attempt"], 1)

    def test_job_that_does_not_finish_within_the_grace_is_queued_again(self):
        self.daemon.start("--grace", 1)
        client = self.daemon.client()
        first, _ = self.hold_first_job(client)
        began = time.monotonic()
        self.daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assert_no_orphans()
        client.close()
        self.assertEqual(self.daemon.journal("SELECT state, crashes FROM jobs"), [("queued", 0)])
        self.daemon.faults.clear()
        self.daemon.start()
        with self.daemon.client() as client:
            job = client.wait(first)[first]
            self.assert_done(job)
            self.assertEqual(job["attempt"], 2)
        self.assertEqual(self.leftovers(), [])

    def test_being_stopped_is_not_held_against_a_job(self):
        """However often the daemon is stopped under it: only crashes count."""
        for number in range(6):
            self.daemon.start("--grace", 0)
            client = self.daemon.client()
            if number == 0:
                job, _ = self.hold_first_job(client)
            else:
                hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
                hold.wait()
            client.close()
            self.assertEqual(self.daemon.kill(signal.SIGTERM), 0)
            self.daemon.faults.clear()
            self.assert_no_orphans()
        self.daemon.start()
        with self.daemon.client() as client:
            done = client.wait(job)[job]
            self.assert_done(done)
            self.assertEqual(done["attempt"], 7)

    def test_job_under_which_the_daemon_crashes_again_and_again_is_given_up(self):
        """Queued again three times, then failed, so that it cannot keep the daemon from everything else."""
        for number in range(4):
            hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
            self.daemon.start()
            with self.daemon.client() as client:
                if number == 0:
                    job = self.submit(client)
                hold.wait(timeout=20)
                self.assertEqual(client.job(job)["state"], "running")
                self.daemon.kill()
            self.daemon.faults.clear()
            self.assert_no_orphans()
        self.daemon.start()
        with self.daemon.client() as client:
            poison = client.wait(job)[job]
            self.assertEqual(poison["state"], "failed", poison)
            self.assertIn("the daemon died 4 times", poison["error"])
            self.assert_works(client)
            self.assertEqual(client.job(job)["attempt"], 4)
        self.assertEqual(self.leftovers(), [])
        self.assertFalse(os.path.exists(self.path("out.pkl")))

    def test_interrupt_ends_the_daemon_like_a_termination(self):
        self.daemon.start()
        self.assert_works()
        self.assertEqual(self.daemon.kill(signal.SIGINT), 0)
        self.assert_no_orphans()

    def test_second_termination_does_not_wait_for_the_grace(self):
        self.daemon.start("--grace", 60)
        client = self.daemon.client()
        self.hold_first_job(client)
        self.daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.call("stats")["stopping"], "the daemon stopping")
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assertLess(time.monotonic() - began, 15)
        client.close()
        self.assertEqual(self.daemon.journal("SELECT state FROM jobs"), [("queued",)])

    def test_shutdown_now_queues_the_running_job_again(self):
        self.daemon.start("--grace", 60)
        with self.daemon.client() as client:
            self.hold_first_job(client)
            client.call("shutdown", now=True)
        self.assertEqual(self.daemon.process.wait(30), 0)
        self.assert_no_orphans()
        self.assertEqual(self.daemon.journal("SELECT state, crashes FROM jobs"), [("queued", 0)])

    def test_drain_does_all_that_waits_and_ends(self):
        self.daemon.start()
        with self.daemon.client() as client:
            first, hold = self.hold_first_job(client)
            jobs = [first] + [self.submit(client, f"{number}.pkl") for number in range(10)]
            client.call("drain")
            with self.assert_refused("draining"):
                self.submit(client, "late.pkl")
            hold.remove()
        self.assertEqual(self.daemon.process.wait(60), 0)
        states = dict(self.daemon.journal("SELECT id, state FROM jobs"))
        self.assertEqual(states, dict.fromkeys(jobs, "done"))


class LongQueue(ShutdownTestCase):
    def test_thousand_queued_jobs_survive_restarts_and_are_done_once_each(self):
        self.daemon.start("--grace", 0)
        with self.daemon.client() as client:
            first, _ = self.hold_first_job(client)
            began = time.monotonic()
            jobs = [self.submit(client, f"out-{number % 10}.pkl") for number in range(1000)]
            print(f"1000 submissions took {time.monotonic() - began:.2f} s")
            self.assertEqual(len(set(jobs)), 1000)
        self.daemon.kill()
        self.daemon.faults.clear()
        began = time.monotonic()
        self.daemon.start("--grace", 0)
        print(f"start with {len(jobs) + 1} queued jobs: {time.monotonic() - began:.2f} s")
        # Three more ends on the way, two of them without warning.
        for number, share in ((signal.SIGKILL, 150), (signal.SIGTERM, 300), (signal.SIGKILL, 450)):
            with self.daemon.client() as client:
                wait_for(lambda: client.call("stats")["finished"] >= share, "some jobs being done", 120)
            self.daemon.kill(number)
            self.assert_no_orphans()
            self.daemon.start("--grace", 0)
        began = time.monotonic()
        with self.daemon.client() as client:
            client.wait(*jobs[:500], timeout=200)
            client.wait(*jobs[500:], timeout=200)
            found = client.jobs()
        rate = 550 / (time.monotonic() - began)
        # One more is kept than a user may keep, so the oldest may be gone already.
        self.assertGreaterEqual(len(found), 1000)
        states = [job["state"] for job in found.values()]
        self.assertEqual(set(states), {"done"}, states)
        again = [job["id"] for job in found.values() if job["attempt"] > 1]
        # Only who ran when the daemon was ended was begun again.
        self.assertLessEqual(len(again), 4, again)
        order = sorted(found.values(), key=lambda job: job["finished_at"])
        numbers = [job["id"] for job in order if job["attempt"] == 1]
        self.assertEqual(numbers, sorted(numbers), "jobs are done in the order of their submission")
        print(f"1000 jobs, {len(again)} of them begun again, {rate:.0f} jobs/s at the end")
        self.daemon.stop()
        rows = self.daemon.journal("SELECT key, count(*) FROM jobs GROUP BY key HAVING count(*) > 1")
        self.assertEqual(rows, [])
        self.assertEqual(self.leftovers(), [])


class ClockJump(ShutdownTestCase):
    def test_timeouts_do_not_follow_the_wall_clock(self):
        for jump in (10 * DAY, -10 * DAY):
            with self.subTest(jump=jump):
                self.daemon.faults.set_clock_offset(0)
                self.daemon.start()
                with self.daemon.client() as client:
                    hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
                    spec = self.spec("out.pkl")
                    job = client.submit(self.new_key(), spec, self.shape(), timeout_seconds=600)["id"]
                    hold.wait()
                    idle = self.daemon.client(hello=False)  # may take 10 s to say hello
                    before = client.job(job)
                    self.daemon.faults.set_clock_offset(jump)
                    time.sleep(2.5)  # the check for silence comes every 2 s
                    now = client.job(job)
                    self.assertEqual(now["state"], "running", "the jump has ended the job")
                    self.assertLess(abs(now["elapsed_seconds"] - before["elapsed_seconds"]), 60)
                    self.assertGreaterEqual(now["elapsed_seconds"], 0)
                    idle.send("hello", protocol=[1, 1])
                    self.assertEqual(idle.reply(idle.last_id)["protocol"], 1)
                    idle.close()
                    hold.remove()
                    done = client.wait(job)[job]
                    self.assert_done(done)
                    self.assertLess(done["elapsed_seconds"], 60)
                    # And a timeout still comes when it should.
                    self.daemon.faults.rule(WORKER, fault_rules.WRITE, fault_rules.STOP, path="*.tmp")
                    late = client.submit(self.new_key(), self.spec("late.pkl"), self.shape(), timeout_seconds=1)["id"]
                    self.assertEqual(client.wait(late, timeout=30)[late]["error_code"], "deadline_exceeded")
                self.daemon.stop()

    def test_clock_set_back_and_forth_loses_no_finished_job(self):
        """A job is kept for 30 days after its end; a clock that was wrong for a while must not cost it."""
        self.daemon.start()
        with self.daemon.client() as client:
            job = self.submit(client)
            client.wait(job)
        for jump in (-365 * DAY, 0, 20 * DAY, 0):
            with self.subTest(jump=jump):
                self.daemon.kill()
                self.daemon.faults.set_clock_offset(jump)
                self.daemon.start()
                with self.daemon.client() as client:
                    self.assertEqual(client.jobs()[job]["state"], "done")
                    self.assert_works(client)
        self.daemon.stop()
        self.daemon.faults.set_clock_offset(31 * DAY)
        self.daemon.start()
        with self.daemon.client() as client:
            self.assertNotIn(job, client.jobs(), "kept for more than 30 days: so the test's clock works")


if __name__ == "__main__":
    unittest.main()
