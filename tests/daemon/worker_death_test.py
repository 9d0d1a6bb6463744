"""A worker that aborts, is killed, stopped, hangs, runs out of memory or cannot be started.

The job that it ran fails alone and says why; the daemon and the next job are as before.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import time
import unittest

import fault_rules
from daemon_harness import DaemonTestCase, exists, is_sanitized, wait_for
from fault_rules import ABORT, ALWAYS, DELAY, FAIL, FORKED, HOLD, STOP, SUPERVISOR, WORKER


class WorkerDeath(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        self.expected()
        self.daemon.start()
        self.client = self.daemon.client()
        self.addCleanup(self.client.close)

    def assert_failed(self, job, code, *words, output="out.pkl"):
        job = self.client.wait(job)[job]
        self.assertEqual((job["state"], job["error_code"]), ("failed", code), job)
        self.assertNotIn("\n", job["error"])
        for word in words:
            self.assertIn(word, job["error"])
        self.assertFalse(os.path.exists(self.path(output)))
        self.daemon.faults.clear()
        self.assert_works(self.client)
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(len(self.daemon.workers()), 1)
        self.assertEqual(self.client.jobs()[job["id"]]["attempt"], 1)
        return job

    def hold_at_write(self):
        """A job whose worker is held with its temporary file open: (id, pid of the worker)."""
        hold = self.daemon.faults.rule(WORKER, fault_rules.WRITE, HOLD, path="*.tmp")
        job = self.submit(self.client)
        hold.wait()
        self.assertEqual(len(self.leftovers()), 1)
        return job, hold.pid

    def test_worker_that_aborts(self):
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, ABORT, path="*.tmp")
        self.assert_failed(self.submit(self.client), "aborted", "signal 6")

    def test_worker_killed_by_its_user(self):
        numbers = [signal.SIGKILL, signal.SIGTERM]
        if not is_sanitized(self.daemon.pid):  # which would catch these and exit
            numbers += [signal.SIGSEGV, signal.SIGBUS]
        for number in numbers:
            with self.subTest(number=number):
                job, pid = self.hold_at_write()
                os.kill(pid, number)
                self.daemon.faults.clear()
                self.assert_failed(job, "aborted", f"signal {int(number)}")

    def test_worker_killed_while_idle_costs_no_job(self):
        self.assert_works(self.client)
        for _ in range(5):
            worker = self.daemon.workers()[0]
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda gone=worker: not exists(gone), "death of the worker")
            self.assert_works(self.client)

    def test_waiting_jobs_do_not_fail_with_the_one_that_ran(self):
        job, pid = self.hold_at_write()
        waiting = [self.submit(self.client, f"{number}.pkl") for number in range(20)]
        os.kill(pid, signal.SIGKILL)
        self.daemon.faults.clear()
        for done in self.client.wait(*waiting).values():
            self.assert_done(done)
        self.assert_failed(job, "aborted", "signal 9")

    def test_worker_that_keeps_dying_is_started_less_and_less_often(self):
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, ABORT, path="*.tmp", last=ALWAYS)
        began = time.monotonic()
        jobs = [self.submit(self.client, f"{number}.pkl") for number in range(5)]
        for job in self.client.wait(*jobs).values():
            self.assertEqual((job["state"], job["error_code"]), ("failed", "aborted"))
        took = time.monotonic() - began
        self.assertEqual(self.daemon.faults.workers_started, 5)
        self.assertGreater(took, 0.3)
        self.daemon.faults.clear()
        self.assert_works(self.client)

    def test_stopped_worker_ends_with_the_timeout_of_its_job(self):
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, STOP, path="*.tmp")
        spec = self.spec()
        job = self.client.submit("stopped", spec, self.shape(), timeout_seconds=1)["id"]
        began = time.monotonic()
        self.assert_failed(job, "deadline_exceeded", "1 s")
        self.assertLess(time.monotonic() - began, 15)

    def test_search_that_is_too_slow_ends_with_its_timeout(self):
        """The worker answers and gives the job up: it is not killed, and keeps its docs."""
        self.assert_works(self.client)
        self.daemon.faults.rule(WORKER, fault_rules.OPEN, DELAY, path="*/docs.npy", amount=2500)
        job = self.client.submit("slow", self.spec(), self.shape(), timeout_seconds=1)["id"]
        self.assert_failed(job, "deadline_exceeded", "1 s")
        self.assertEqual(self.daemon.faults.workers_started, 1)

    def test_stopped_worker_can_be_cancelled(self):
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, STOP, path="*.tmp")
        job = self.submit(self.client)
        wait_for(self.leftovers, "the worker being stopped")
        self.client.call("cancel", jobs=[job])
        job = self.client.wait(job)[job]
        self.assertEqual(job["state"], "cancelled", job)
        self.assert_works(self.client)
        self.assertEqual(self.leftovers(), [])

    def test_worker_that_cannot_be_started(self):
        for what, rule in (
            ("fork", (SUPERVISOR, fault_rules.FORK, 11)),
            ("exec", (FORKED, fault_rules.EXEC, 13)),
            ("socketpair", (SUPERVISOR, fault_rules.SOCKET_PAIR, 24)),
        ):
            with self.subTest(what=what):
                for worker in self.daemon.workers():
                    os.kill(worker, signal.SIGKILL)
                    wait_for(lambda gone=worker: not exists(gone), "death of the worker")
                processes, calls, error = rule
                # Once: the job is done all the same.
                self.daemon.faults.rule(processes, calls, FAIL, error=error)
                self.assert_works(self.client)
                os.kill(self.daemon.workers()[0], signal.SIGKILL)
                wait_for(lambda: not self.daemon.workers(), "death of the worker")
                self.daemon.faults.rule(processes, calls, FAIL, error=error, last=ALWAYS)
                # Always: it waits, says why, and is done when workers start again.
                job = self.submit(self.client, "later.pkl")

                def waits_and_says_why():
                    view = self.client.call("status", jobs=[job])["jobs"][0]
                    self.assertIn(view["state"], ("queued", "running"), view)
                    return "no worker can be started" in (view["reason"] or "")

                wait_for(waits_and_says_why, "the reason why it waits")
                self.daemon.faults.clear()
                self.assert_done(self.client.wait(job)[job])
                self.assert_works(self.client)

    def test_worker_that_dies_before_its_hello(self):
        self.daemon.faults.rule(WORKER, fault_rules.START, ABORT)
        job = self.submit(self.client)
        self.assert_done(self.client.wait(job)[job])

    def socket_of(self, pid):
        """The worker's own end of its socket, as whoever may trace it can have it."""
        descriptor = os.pidfd_open(pid)
        try:
            copy = _pidfd_getfd(descriptor, 3)
        finally:
            os.close(descriptor)
        if copy < 0:
            self.skipTest("no pidfd_getfd here")
        return socket.socket(fileno=copy)

    def test_worker_that_talks_nonsense_is_killed(self):
        for nonsense, words in (
            (b"\xff\xfe nonsense\n", "no message"),
            (b'{"type":"nonsense"}\n', "no message"),
            (b"[" * 1000 + b"\n", "no message"),
            (b"x" * ((1 << 20) + 1), "1 MiB"),
        ):
            with self.subTest(nonsense=nonsense[:20]):
                job, pid = self.hold_at_write()
                with self.socket_of(pid) as copy:
                    copy.sendall(nonsense)
                self.assert_failed(job, "aborted", words)

    def test_worker_that_lies_about_other_jobs_is_not_believed(self):
        job, pid = self.hold_at_write()
        waiting = self.submit(self.client, "waiting.pkl")
        finished = {
            "type": "finished",
            "error_code": "ok",
            "error": "",
            "output_path": "/etc/passwd",
            "device": "cpu",
            "docs_state": None,
            "report": None,
            "search_seconds": 0,
            "total_seconds": 0,
            "warm_docs": [],
        }
        with self.socket_of(pid) as copy:
            for about in (waiting, 999, 1 << 62):
                lies = [
                    {**finished, "job": about},
                    {"type": "removed", "job": about},
                    {"type": "progress", "job": about, "pairs_done": 9, "pairs_total": 9},
                    {"type": "log", "job": about, "text": "a lie"},
                    {"type": "hello", "build": "another", "pid": 1},
                ]
                for lie in lies:
                    copy.sendall(json.dumps(lie).encode() + b"\n")
            # Of its own job it may say what it likes, once; `removed` was not asked for.
            copy.sendall(json.dumps({"type": "removed", "job": job}).encode() + b"\n")
            began = time.monotonic()
            for number in range(20000):
                lie = {"type": "progress", "job": job, "pairs_done": number % 100, "pairs_total": 100}
                copy.sendall(json.dumps(lie).encode() + b"\n")
            self.assertEqual(self.client.job(waiting)["state"], "queued")
            print(f"20000 reports of progress were taken in {time.monotonic() - began:.2f} s")
        self.assertEqual(self.client.job(job)["state"], "running")
        self.daemon.faults.clear()
        self.assert_done(self.client.wait(job)[job])
        self.assert_done(self.client.wait(waiting)[waiting])
        text = self.client.call("log", job=waiting)["text"]
        self.assertNotIn("a lie", text)

    def test_worker_whose_socket_is_shut_fails_its_job(self):
        for how in (socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR):
            with self.subTest(how=how):
                job, pid = self.hold_at_write()
                with self.socket_of(pid) as copy:
                    copy.shutdown(how)
                wait_for(lambda gone=pid: not exists(gone), "the worker's end", 20)
                self.daemon.faults.clear()
                self.assert_failed(job, "aborted")

    def test_out_of_memory_by_the_daemons_limit(self):
        self.daemon.kill()
        self.daemon.start("--max-memory", 1)
        self.client.close()
        self.client = self.daemon.client()
        job = self.submit(self.client)
        job = self.client.wait(job)[job]
        self.assertEqual(job["state"], "failed", job)
        self.assertIn("memory limit", job["error"])
        self.assertEqual(self.daemon.faults.workers_started, 1)


class WorkerOutOfMemory(DaemonTestCase):
    """No memory to be had in the middle of a job."""

    num_queries, num_docs, dim = 300, 200000, 32

    def test_worker_without_memory_fails_its_job_alone(self):
        self.daemon.start()
        if is_sanitized(self.daemon.pid):
            self.skipTest("a sanitizer needs the address space")
        with self.daemon.client() as client:
            hold = self.daemon.faults.rule(WORKER, fault_rules.OPEN, HOLD, path="*/queries.npy", after=True)
            job = self.submit(client)
            hold.wait()
            with open(f"/proc/{hold.pid}/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            limits = resource.prlimit(hold.pid, resource.RLIMIT_AS)
            resource.prlimit(hold.pid, resource.RLIMIT_AS, (size + (26 << 20), limits[1]))
            worker = hold.pid
            hold.remove()
            job = client.wait(job)[job]
            self.assertEqual(job["state"], "failed", job)
            self.assertNotIn("\n", job["error"])
            print(f"without memory: {job['error_code']}: {job['error']}")
            self.assertEqual(self.leftovers(), [])
            self.assertIn(job["error_code"], ("resource_exhausted", "aborted"))
            if exists(worker):
                resource.prlimit(worker, resource.RLIMIT_AS, limits)
            self.assert_works(client)


class SilentWorker(DaemonTestCase):
    """The 30 s of silence, waited for once, by three daemons at a time."""

    num_queries, num_docs, dim = 8, 60, 8

    def test_only_a_worker_that_is_silent_for_thirty_seconds_is_killed(self):
        self.daemon.start()
        # Signs of life come from a thread of their own: a slow disk under this one is no reason to kill it.
        busy = self.new_daemon().start()
        # Nor is it the worker that is silent when the supervisor was stopped.
        stopped = self.new_daemon().start()
        with self.daemon.client() as client, busy.client() as client_of_busy, stopped.client() as client_of_stopped:
            hold = busy.faults.rule(WORKER, fault_rules.WRITE, HOLD, path="*.tmp")
            slow = self.submit(client_of_busy, "slow.pkl")
            hold.wait()
            hold_of_stopped = stopped.faults.rule(WORKER, fault_rules.WRITE, HOLD, path="*.tmp")
            unharmed = self.submit(client_of_stopped, "unharmed.pkl")
            hold_of_stopped.wait()
            stopped.process.send_signal(signal.SIGSTOP)
            self.daemon.faults.rule(WORKER, fault_rules.WRITE, STOP, path="*/.out.pkl.*.tmp")
            began = time.monotonic()
            job = self.submit(client)
            waiting = self.submit(client, "next.pkl")
            job = client.wait(job)[job]
            took = time.monotonic() - began
            self.assertEqual((job["state"], job["error_code"]), ("failed", "aborted"), job)
            self.assertIn("silent for 30 s", job["error"])
            self.assertGreater(took, 28)
            self.assertLess(took, 45)
            self.assert_done(client.wait(waiting)[waiting])
            time.sleep(max(0, began + 36 - time.monotonic()))
            self.assertEqual(client_of_busy.job(slow)["state"], "running")
            hold.remove()
            self.assert_done(client_of_busy.wait(slow)[slow])
            self.assertEqual(busy.faults.workers_started, 1)
            stopped.process.send_signal(signal.SIGCONT)
            self.assertEqual(client_of_stopped.job(unharmed)["state"], "running")
            time.sleep(2.5)  # it looks every 2 s
            hold_of_stopped.remove()
            self.assert_done(client_of_stopped.wait(unharmed)[unharmed])
            self.assertEqual(stopped.faults.workers_started, 1)
            self.assertEqual(self.leftovers(), [])


def _pidfd_getfd(pidfd, number):
    return ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)


if __name__ == "__main__":
    unittest.main()
