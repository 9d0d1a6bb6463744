"""Clients that send what is no request, too much of it, or nothing; that never read, or go away."""

import contextlib
import json
import os
import random
import resource
import socket
import time
import unittest

import fault_rules
from daemon_client import Disconnected, Refused
from daemon_harness import DaemonTestCase, is_sanitized, memory_kib, wait_for
from fault_rules import HOLD, WORKER

MIB = 1 << 20


class HostileClientTestCase(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        self.daemon.start()
        self.other = self.daemon.client()
        self.addCleanup(self.other.close)

    def assert_memory_below(self, kib, most):
        if not is_sanitized(self.daemon.pid):  # there, what was freed is kept for a while
            self.assertLess(kib, most)

    def assert_serves_others(self):
        self.assertEqual(self.daemon.process.poll(), None, self.daemon.messages())
        began = time.monotonic()
        self.assertEqual(self.other.call("stats")["pid"], self.daemon.pid)
        self.assertLess(time.monotonic() - began, 5)

    def read_error(self, client, *words):
        message = client.read_message()
        self.assertFalse(message["ok"], message)
        self.assertNotIn("\n", message["error"]["message"])
        for word in words:
            self.assertIn(word, message["error"]["message"])
        return message["error"]["code"]

    def assert_closed(self, client, timeout=20):
        with self.assertRaises(Disconnected):
            while True:
                client.read_message(timeout)


class WrongRequests(HostileClientTestCase):
    def test_half_a_line_and_then_silence_is_closed_after_ten_seconds(self):
        silent = [self.daemon.client(hello=False) for _ in range(3)]
        silent[1].send_bytes(b'{"id":1,"type":"hel')
        silent[2].send_bytes(b"{")
        half = self.daemon.client()  # after its hello it may take its time
        half.send_bytes(b'{"id":7,"type":"sta')
        began = time.monotonic()
        self.assert_serves_others()
        for client in silent:
            self.assertEqual(self.read_error(client, "hello"), "bad_request")
            self.assert_closed(client)
        self.assertGreater(time.monotonic() - began, 8)
        self.assertLess(time.monotonic() - began, 20)
        half.send_bytes(b'ts"}\n')
        self.assertEqual(half.reply(7)["pid"], self.daemon.pid)
        for client in [*silent, half]:
            client.close()

    def test_oversized_line_is_refused_and_costs_no_more_than_a_line(self):
        before = memory_kib(self.daemon.pid)
        with self.daemon.client() as client:
            with contextlib.suppress(Disconnected):
                for _ in range(64):
                    client.send_bytes(b"x" * MIB)
            code = self.read_error(client)
            self.assertEqual(code, "bad_request")
            self.assert_closed(client)
        self.assert_serves_others()
        self.assert_memory_below(memory_kib(self.daemon.pid) - before, 16 * 1024)

    def test_line_of_just_one_mebibyte_is_read(self):
        with self.daemon.client() as client:
            line = b'{"id":5,"type":"stats","padding":"'
            line += b"x" * (MIB - len(line) - 2) + b'"}'
            self.assertEqual(len(line), MIB)
            client.send_bytes(line + b"\n")
            client.send_bytes(b'{"id":6,"type":"stats"}\n')
            first = client.read_message()
            self.assertEqual(first["id"], 5)
            self.assertEqual(client.reply(6)["pid"], self.daemon.pid)

    def test_what_is_no_request_is_refused_and_the_next_request_is_answered(self):
        job = {"key": "k", "spec": self.spec(), "shape": self.shape()}
        for line in (
            b"",
            b"\0",
            b'{"id":1,"type":"stats"}\0',
            b"\xff\xfe\xfd",
            b'{"id":1,"type":"sta\xc3ts"}',
            b'{"id":1,"type":"stats\\ud800"}',
            b"[" * 100000,
            b'{"a":' * 100000,
            b'{"id":1,"type":"stats","a":' + b"[" * 17 + b"]" * 17 + b"}",
            b"null",
            b"[]",
            b'"stats"',
            b"1e999",
            b'{"id":1e400,"type":"stats"}',
            b'{"id":-1,"type":"stats"}',
            b'{"id":"1","type":"stats"}',
            b'{"id":1,"type":"stats","id":2}',
            b'{"id":1}',
            b'{"id":1,"type":"nonsense"}',
            b'{"id":1,"type":"stats"} {"id":2,"type":"stats"}',
            b'{"id":1,"type":"status","jobs":[' + b",".join([b"1"] * 100000) + b"]}",
            b'{"id":1,"type":"status","jobs":[99999999999999999999]}',
            json.dumps({"id": 1, "type": "submit", **job, "key": ""}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "key": "a b"}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "key": "k" * 1000}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "spec": self.spec(queries="a\0b")}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "spec": {}}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "spec": {**self.spec(), "output": ""}}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "priority": 101}).encode(),
            json.dumps({"id": 1, "type": "submit", **job, "priority": 0.5}).encode(),
        ):
            with self.subTest(line=line[:80]), self.daemon.client() as client:
                client.last_id = 100
                client.send_bytes(line + b"\n")
                self.assertIn(self.read_error(client), ("bad_request", "too_many_jobs"))
                self.assertEqual(client.call("stats")["pid"], self.daemon.pid)
        self.assert_serves_others()
        self.assertEqual(self.other.jobs(), {})

    def test_every_request_needs_a_hello_first(self):
        for line in (b'{"id":1,"type":"stats"}\n', b"garbage\n"):
            with self.subTest(line=line), self.daemon.client(hello=False) as client:
                client.send_bytes(line)
                self.assertEqual(self.read_error(client), "bad_request")
                self.assert_closed(client)

    def test_protocol_of_the_future_is_refused(self):
        with self.daemon.client(hello=False) as client:
            client.send("hello", protocol=[1000, 2000])
            self.assertEqual(self.read_error(client), "unsupported_protocol")

    def test_random_bytes_and_torn_requests(self):
        state = random.Random(5)
        good = json.dumps({"id": 3, "type": "submit", "key": "k", "spec": self.spec(), "shape": self.shape()}).encode()
        for number in range(300):
            with self.daemon.client(hello=number % 3 != 0) as client:
                if number % 2:
                    data = bytearray(good)
                    for _ in range(state.randrange(1, 8)):
                        data[state.randrange(len(data))] = state.randrange(256)
                    data = bytes(data[: state.randrange(len(data))]) if state.random() < 0.3 else bytes(data)
                else:
                    data = state.randbytes(state.randrange(1, 3000))
                try:
                    client.send_bytes(data + state.choice([b"", b"\n"]))
                    if state.random() < 0.5:
                        client.read_message(0.01)
                except (Disconnected, TimeoutError):
                    pass
        self.assert_serves_others()
        self.assert_works(self.other)


class ManyConnections(HostileClientTestCase):
    def test_thousands_of_connections_of_one_user(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
        before = memory_kib(self.daemon.pid)
        clients, refused = [], 0
        try:
            for _ in range(3000):
                try:
                    clients.append(self.daemon.client(hello=False))
                except Disconnected:
                    refused += 1
                    continue
                with contextlib.suppress(Disconnected):  # why is read below
                    clients[-1].send("hello", protocol=[1, 1])
            for client in clients:
                try:
                    client.reply(1, timeout=20)
                except Refused as error:
                    self.assertEqual(error.code, "too_many_connections")
                    self.assertNotIn("\n", error.message)
                    refused += 1
                except Disconnected:
                    refused += 1
            self.assert_serves_others()
            self.assert_works(self.other)
            grown = memory_kib(self.daemon.pid) - before
            print(f"3000 connections, {refused} refused, {grown} KiB more")
            self.assertGreater(refused, 0)
            self.assertLess(refused, 3000)
            self.assert_memory_below(grown, 128 * 1024)
        finally:
            for client in clients:
                client.close()
        # There is room again at once.
        wait_for(lambda: self.other.call("stats")["connections"] == 1, "all others being gone")
        with self.daemon.client() as client:
            self.assert_works(client)

    def test_daemon_that_has_no_descriptors_left_goes_on_when_it_has(self):
        self.assert_works(self.other)
        soft, hard = resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{self.daemon.pid}/fd"))
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (used + 2, hard))
        waiting = [self.daemon.client(hello=False) for _ in range(8)]
        for client in waiting:
            client.send("hello", protocol=[1, 1])
        began = os.times().elapsed
        ticks = self.cpu_ticks()
        self.assert_serves_others()
        time.sleep(1)
        used_seconds = (self.cpu_ticks() - ticks) / os.sysconf("SC_CLK_TCK")
        self.assertLess(used_seconds, 0.5 * (os.times().elapsed - began), "it spins while it has no descriptors")
        resource.prlimit(self.daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        answered = 0
        for client in waiting:
            try:
                answered += client.reply(1, timeout=20)["protocol"]
            except (Disconnected, Refused):
                pass
            client.close()
        self.assertGreater(answered, 0)
        with self.daemon.client() as client:
            self.assert_works(client)

    def cpu_ticks(self):
        with open(f"/proc/{self.daemon.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


class DeafClients(HostileClientTestCase):
    def test_subscriber_that_never_reads_costs_bounded_memory_and_nobody_waits(self):
        deaf = [self.daemon.client() for _ in range(4)]
        hears = self.daemon.client()
        for client in [*deaf, hears]:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send("subscribe")
        hears.reply(hears.last_id)
        jobs, slowest = [], 0
        before = memory_kib(self.daemon.pid)
        for number in range(300):
            began = time.monotonic()
            jobs.append(self.submit(self.other, f"{number % 7}.pkl"))
            slowest = max(slowest, time.monotonic() - began)
            self.read_what_is_there(hears)
        self.other.wait(*jobs)
        grown = memory_kib(self.daemon.pid) - before
        print(f"300 jobs with 4 subscribers that do not read: {grown} KiB more, slowest submit {slowest:.3f} s")
        self.assert_memory_below(grown, 32 * 1024)
        self.assertLess(slowest, 5)
        # Who reads late gets the last state of every job, and a sequence that never goes back.
        for client in [deaf[0], hears]:
            states, sequence = {}, 0
            while sum(state == "done" for state in states.values()) < 300:
                event = self.next_event(client)
                self.assertGreater(event["sequence"], sequence)
                sequence = event["sequence"]
                states[event["job"]["id"]] = event["job"]["state"]
            self.assertEqual(set(states), set(jobs))
        for client in [*deaf, hears]:
            client.close()

    @staticmethod
    def read_what_is_there(client):
        try:
            while True:
                client.read_message(0.001)
        except TimeoutError:
            pass

    @staticmethod
    def next_event(client):
        while not client.events:
            client.read_message(20)
        return client.events.pop(0)

    def test_client_that_asks_and_never_reads_is_not_listened_to_for_ever(self):
        # 600 jobs are half a megabyte, asked for in 20 bytes.
        hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        for number in range(600):
            self.submit(self.other, f"{number % 3}.pkl")
        self.other.call("list")
        before = memory_kib(self.daemon.pid)
        with self.daemon.client() as greedy:
            greedy.socket.settimeout(3)
            most = 0
            sent = 0
            try:
                for sent in range(20000):
                    greedy.send("list")
                    if sent % 100 == 0:
                        most = max(most, memory_kib(self.daemon.pid) - before)
            except Disconnected:
                pass
            most = max(most, memory_kib(self.daemon.pid) - before)
            print(f"{sent} requests were taken from a client that does not read: {most} KiB more")
            self.assertLess(sent, 19999, "the daemon reads on, and must keep the replies somewhere")
            self.assert_memory_below(most, 32 * 1024)
            self.assert_serves_others()
        hold.remove()

    def test_clients_that_disconnect_in_the_middle_of_a_wait(self):
        hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        job = self.submit(self.other)
        hold.wait()
        for number in range(50):
            client = self.daemon.client()
            client.send("wait", jobs=[job])
            client.send("subscribe")
            if number % 2:
                client.read_message()
            client.close()
        waiting = self.other.send("wait", jobs=[job])
        with self.daemon.client() as probe:
            wait_for(lambda: probe.call("stats")["connections"] == 2, "the others being gone")
        hold.remove()
        self.assert_done(self.other.reply(waiting)["jobs"][0])
        self.assert_works(self.other)

    def test_thousands_of_waits_on_one_connection(self):
        hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        job = self.submit(self.other)
        hold.wait()
        before = memory_kib(self.daemon.pid)
        with self.daemon.client() as client:
            client.socket.settimeout(3)
            try:
                for _ in range(20000):
                    client.send("wait", jobs=[job])
            except (Disconnected, TimeoutError):
                pass
            self.assert_serves_others()
            self.assert_memory_below(memory_kib(self.daemon.pid) - before, 64 * 1024)
        hold.remove()
        self.assert_done(self.other.wait(job)[job])


if __name__ == "__main__":
    unittest.main()
