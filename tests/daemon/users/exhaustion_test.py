"""One user who takes all he can get: connections, places in the queue, waits, memory, time."""

import contextlib
import resource
import sys
import time
import unittest

sys.path.insert(0, "tests/daemon")
from daemon_client import Client, Disconnected, Refused
from daemon_harness import is_sanitized, memory_kib, wait_for
from users_harness import UsersTestCase, identity

MIB = 1 << 20


class ExhaustionTestCase(UsersTestCase):
    def setUp(self):
        super().setUp()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, most), most))
        self.of_ann = self.connect(self.ann)
        self.of_bea = self.connect(self.bea)
        self.before = memory_kib(self.daemon.pid)

    def assert_memory_grew_by_less_than(self, mib):
        grown = (memory_kib(self.daemon.pid) - self.before) / 1024
        print(f"{self.id().rpartition('.')[2]}: the daemon has {grown:.1f} MiB more")
        if not is_sanitized(self.daemon.pid):  # there, what was freed is kept for a while
            self.assertLess(grown, mib)

    def assert_serves_bea(self, job=True, within=5):
        """On the connection she has, and on a new one, soon."""
        began = time.monotonic()
        self.assertEqual(self.of_bea.call("stats")["pid"], self.daemon.pid)
        with self.bea.connect(self.daemon.socket_path) as client:
            if job:
                self.assert_works_for(self.bea, client)
            else:
                client.call("stats")
        took = time.monotonic() - began
        print(f"{self.id().rpartition('.')[2]}: bea was served in {took:.2f} s")
        self.assertLess(took, within)

    def many(self, count, **options):
        """ann's connections, as many of `count` as there are to be had."""
        clients = []
        for _ in range(count):
            with contextlib.suppress(Disconnected, Refused):
                clients.append(self.connect(self.ann, **options))
        return clients

    def hold_device(self):
        """ann's job holds the device; nothing queued behind it moves."""
        job, hold, _ = self.hold_at_write(self.ann, self.of_ann)
        self.addCleanup(hold.remove)
        return job, hold


class Connections(ExhaustionTestCase):
    def test_connections_of_one_user_leave_room_for_others(self):
        clients = self.many(400)
        self.assertEqual(len(clients), 127)  # and the one of the beginning
        with self.ann.connect(self.daemon.socket_path, hello=False) as client:
            self.assertEqual(client.read_message(10)["error"]["code"], "too_many_connections")
        silent = self.many(200, hello=False)  # closed by the daemon, or waiting to be
        self.assert_serves_bea()
        self.daemon.client().close()
        for client in [*clients, *silent]:
            client.close()
        wait_for(lambda: self.of_bea.call("stats")["connections"] == 2, "ann's being gone")
        self.assert_works_for(self.ann, self.of_ann)
        self.assert_memory_grew_by_less_than(32)

    def test_connections_that_come_and_go_hold_up_nobody(self):
        def storm():
            while True:
                with contextlib.suppress(Disconnected, Refused):
                    Client(path, hello=False).close()

        path = self.daemon.socket_path
        with self.ann.running(storm):
            began = time.monotonic()
            for _ in range(10):
                self.assert_works_for(self.bea, self.of_bea, within=5)
            print(f"10 jobs beside a storm of connections: {time.monotonic() - began:.2f} s")
        self.assert_serves_bea()


class Queue(ExhaustionTestCase):
    def test_queued_jobs_of_one_user_leave_room_for_others(self):
        """64 MiB of long paths are a full queue for ann, and nothing to bea."""
        _, hold = self.hold_device()
        folder = "/" + "x/" * 2000
        spec = {"queries": folder + "q.npy", "docs": folder + "d.npy", "output": folder + "o.pkl", "k": 1}
        refused = None
        began = time.monotonic()
        for start in range(0, 20000, 4):
            numbers = [self.of_ann.send("submit", key=f"full-{start + i}", spec=spec) for i in range(4)]
            for number in numbers:
                try:
                    self.of_ann.reply(number)
                except Refused as error:
                    refused = error
            if refused is not None:
                break
        self.assertIsNotNone(refused, "64 MiB were never full")
        self.assertEqual(refused.code, "queue_full")
        self.assertNotIn("\n", refused.message)
        print(f"ann's queue was full after {start} jobs and {time.monotonic() - began:.1f} s")
        job = self.submit_as(self.bea, self.of_bea)
        self.assertEqual(self.of_bea.job(job)["state"], "queued")
        hold.remove()
        # ann's next ones fail at once; bea's turn comes after the one that runs, not after thousands.
        self.assert_done_as(self.bea, self.of_bea.wait(job, timeout=10)[job])
        self.assert_serves_bea()
        self.assert_memory_grew_by_less_than(160)


class Waits(ExhaustionTestCase):
    def test_waits_of_one_user_are_counted_over_all_connections(self):
        _, hold = self.hold_device()
        jobs = [self.submit_as(self.ann, self.of_ann, f"{number}.pkl") for number in range(500)]
        clients = self.many(120)
        refused = 0
        for client in clients:
            with contextlib.suppress(Disconnected):
                for _ in range(10):
                    client.send("wait", jobs=jobs)
        # 600,000 ids were named; an error answers those beyond 20,000.
        beyond = 120 * 10 - 20000 // 500
        deadline = time.monotonic() + 60
        while refused < beyond and time.monotonic() < deadline:
            for client in clients:
                with contextlib.suppress(Disconnected, TimeoutError):
                    while True:
                        message = client.read_message(0.02)
                        self.assertIn("error", message)
                        self.assertNotIn("\n", message["error"]["message"])
                        refused += 1
        self.assertGreaterEqual(refused, beyond)
        self.assert_memory_grew_by_less_than(64)
        job = self.submit_as(self.bea, self.of_bea)
        waiting = self.of_bea.send("wait", jobs=[job])
        self.assert_serves_bea(job=False)
        hold.remove()
        self.assert_done_as(self.bea, self.of_bea.reply(waiting)["jobs"][0])

    def test_waits_that_end_make_room_again(self):
        _, hold = self.hold_device()
        jobs = [self.submit_as(self.ann, self.of_ann, f"{number}.pkl") for number in range(1000)]
        clients = self.many(30)
        for client in clients[:20]:
            client.send("wait", jobs=jobs)
            client.call("stats")
        with self.assertRaises(Refused):
            clients[25].call("wait", jobs=jobs, timeout=10)
        for client in clients[:20]:
            client.close()
        wait_for(lambda: self.of_bea.call("stats")["connections"] == 12, "the others being gone")
        again = clients[26].send("wait", jobs=jobs[:10])
        self.of_ann.call("cancel", jobs=jobs)
        hold.remove()
        self.assertEqual(len(clients[26].reply(again)["jobs"]), 10)


class Buffers(ExhaustionTestCase):
    def test_half_lines_of_one_user_are_bounded_over_all_connections(self):
        clients = self.many(120)
        closed = 0
        for client in clients:
            client.socket.settimeout(5)
            try:
                client.send_bytes(b'{"id":1,"type":"stats","x":"' + b"x" * (MIB - 100))
            except (Disconnected, TimeoutError):
                closed += 1
        self.assert_serves_bea()
        for client in clients:
            try:
                client.send_bytes(b'"}\n')
                if "pid" not in client.read_message(5):
                    closed += 1
            except (Disconnected, TimeoutError):
                closed += 1
        print(f"{len(clients)} half lines of 1 MiB: {closed} connections closed")
        self.assertGreaterEqual(closed, len(clients) - 64)
        self.assertLess(closed, len(clients))
        self.assert_memory_grew_by_less_than(160)

    def test_replies_that_one_user_does_not_read_are_bounded(self):
        _, hold = self.hold_device()
        for number in range(600):
            self.submit_as(self.ann, self.of_ann, f"{number % 5}.pkl")
        began = time.monotonic()
        self.of_ann.call("list")
        alone = time.monotonic() - began
        clients = self.many(120)
        for client in clients:
            client.socket.settimeout(0.05)
            with contextlib.suppress(Disconnected):
                for _ in range(8):
                    client.send("list")
        # Between two of ann's 480 lists of 600 jobs, not after them all.
        began = time.monotonic()
        self.of_bea.call("list")
        took = time.monotonic() - began
        print(f"a list takes {alone * 1e3:.1f} ms; bea's list beside 480 took {took * 1e3:.1f} ms")
        self.assertLess(took, 20 * alone + 0.2)
        self.assert_serves_bea(job=False)
        self.assert_memory_grew_by_less_than(160)
        for client in clients:
            client.close()
        wait_for(lambda: self.of_bea.call("stats")["connections"] <= 2, "ann's being gone")
        hold.remove()
        # Her account is clear again. (One more reply while it was full has cost her that connection, too.)
        with self.ann.connect(self.daemon.socket_path) as client:
            client.call("cancel", jobs=list(client.jobs()))
        self.assert_serves_bea()

    def test_events_that_one_user_does_not_read_are_bounded(self):
        deaf = self.many(100)
        for client in deaf:
            client.send("subscribe")
        for round_number in range(3):
            jobs = [self.submit_as(self.ann, self.of_ann, f"{number % 5}.pkl") for number in range(100)]
            self.of_ann.call("cancel", jobs=jobs)
            self.assert_serves_bea(job=round_number == 0)
        self.assert_memory_grew_by_less_than(160)


class Time(ExhaustionTestCase):
    def test_requests_without_end_hold_up_nobody(self):
        """A user who asks for the whole list again and again, on many connections."""
        for number in range(300):
            self.submit_as(self.ann, self.of_ann, f"{number % 5}.pkl", priority=-100)

        path = self.daemon.socket_path

        def ask():
            clients = [Client(path) for _ in range(8)]
            while True:
                for client in clients:
                    client.send("list", everyone=True)
                for client in clients:
                    client.reply(client.last_id)

        with self.ann.running(ask):
            slowest = 0
            for _ in range(10):
                began = time.monotonic()
                self.assert_works_for(self.bea, self.of_bea, within=10)
                slowest = max(slowest, time.monotonic() - began)
        print(f"slowest of 10 jobs beside lists without end: {slowest:.2f} s")
        self.assertLess(slowest, 5)


class DaemonLimits(ExhaustionTestCase):
    flags = ("--max-memory", 64 * MIB, "--threads", 1, "--max-time", 1)

    def test_job_cannot_have_more_than_the_daemon_gives(self):
        with self.assert_refused("not_allowed"):
            self.submit_as(self.ann, self.of_ann, device="cuda", memory_limit=1 << 50)
        job, hold, worker = self.hold_at_write(self.ann, self.of_ann, threads=4096, memory_limit=1 << 50)
        self.assertLessEqual(identity(worker)["Threads"][0], 4)
        hold.remove()
        self.assert_done_as(self.ann, self.of_ann.wait(job)[job])
        with self.assert_refused("bad_request"):
            self.submit_as(self.ann, self.of_ann, timeout=-1)
        self.daemon.stop()
        self.daemon.start("--max-memory", 1)
        with self.ann.connect(self.daemon.socket_path) as client:
            self.assert_fails(self.ann, client, "invalid_argument", "memory limit", memory_limit=1 << 50)

    def test_job_ends_with_the_daemons_time_whatever_it_asked_for(self):
        for timeout in (None, 100000000):
            with self.subTest(timeout=timeout):
                job, hold, _ = self.hold_at_write(self.ann, self.of_ann, timeout=timeout)
                began = time.monotonic()
                waiting = self.submit_as(self.bea, self.of_bea)
                self.assert_done_as(self.bea, self.of_bea.wait(waiting, timeout=20)[waiting])
                self.assertLess(time.monotonic() - began, 12)
                job = self.of_ann.wait(job)[job]
                self.assertEqual((job["state"], job["error_code"]), ("failed", "deadline_exceeded"), job)
                self.assertIn("1 s", job["error"])
                hold.remove()


if __name__ == "__main__":
    unittest.main()
