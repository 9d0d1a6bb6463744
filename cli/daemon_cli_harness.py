"""A daemon for the tests of the command line: started by `tiny-knn daemon` in a short folder of its own."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import numpy

from cli_harness import BINARY, CliTest


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {seconds} s")
        time.sleep(0.01)
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def job_view(number, state="queued", **members):
    """A job as the daemon describes it."""
    absent = ("started_at", "finished_at", "elapsed_seconds", "eta_seconds", "reason")
    later = ("device", "docs_state", "error_code", "error", "report")
    numbers = ("priority", "attempt", "queries", "docs", "dim", "k", "docs_bytes", "progress", "submitted_at")
    paths = {"queries_path": "q.npy", "docs_path": "d.npy", "output_path": f"/out/{number}.pkl"}
    view = {"id": number, "uid": os.getuid(), "state": state, **dict.fromkeys(numbers, 0), **paths}
    return {**view, **dict.fromkeys(absent + later), **members}


class FakeDaemon:
    """Answers as the real one does too seldom to test it: script(connection, request) gives the replies, without their
    ids, and events; connections count from 0. None is the usual answer: to hello a greeting, to all else silence."""

    def __init__(self, path, script):
        self.requests = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._peers = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            threading.Thread(target=self._serve, args=(len(self._peers) - 1, peer), daemon=True).start()

    def _serve(self, number, peer):
        with peer, peer.makefile("r", encoding="utf-8") as lines:
            try:
                for line in lines:
                    request = json.loads(line)
                    self.requests.append(request)
                    hello = {"ok": True, "type": "hello", "protocol": 1, "features": [], "build": "fake", "uid": os.getuid()}
                    messages = self._script(number, request)
                    if messages is None and request["type"] == "hello":
                        messages = [hello]
                    for message in messages or []:
                        reply = message if message.get("event") else {"id": request["id"], **message}
                        peer.sendall((json.dumps(reply) + "\n").encode())
            except OSError:
                return

    def of_type(self, name):
        return [request for request in self.requests if request["type"] == name]

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            peer.close()


class DaemonCliTest(CliTest):
    """start() starts the daemon; run_cli() and the like talk to it. Nothing of it outlives the test."""

    def setUp(self):
        super().setUp()
        # A socket's path has at most 107 bytes, which TEST_TMPDIR alone exceeds.
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="tk-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.socket = self.base / "s"
        self.state = self.base / "state"
        self.daemon = None

    def environment(self, **variables):
        return super().environment(TINY_KNN_SOCKET=str(self.socket), HOME=str(self.base), **variables)

    def start(self, *flags):
        with open(self.base / "messages", "ab") as messages:
            self.daemon = subprocess.Popen(
                [BINARY, "daemon", "--state-dir", self.state, "--device", "cpu", "--threads", "1", *flags],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
            )
        self.addCleanup(self.kill, self.daemon)
        wait_until(lambda: self.daemon.poll() is not None or self.run_cli("status").returncode == 0, "a daemon")
        self.assertIsNone(self.daemon.poll(), (self.base / "messages").read_text())
        return self.daemon

    def fake(self, script):
        daemon = FakeDaemon(self.socket, script)
        self.addCleanup(daemon.close)
        return daemon

    def kill(self, daemon=None):
        """SIGKILL; returns once the daemon's worker has ended with it."""
        daemon = daemon or self.daemon
        workers = children(daemon.pid)
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGCONT)
            daemon.kill()
        daemon.wait()
        wait_until(lambda: not any(map(alive, workers)), "the end of the worker")

    def save_big(self, queries=100_000, docs=100_000):
        """big_q.npy and big_d.npy, which take many seconds to search."""
        random = numpy.random.default_rng(1)
        self.save("big_q.npy", random.standard_normal((queries, 64), numpy.float32))
        self.save("big_d.npy", random.standard_normal((docs, 64), numpy.float32))

    def submit(self, *args):
        """The id that submit prints."""
        out = self.run_ok("submit", *args).stdout
        self.assertRegex(out, r"\A[1-9]\d*\n\Z")
        return out.strip()

    def submit_big(self, *args):
        """A job that runs for many seconds, and runs now."""
        job = self.submit("big_q.npy", "big_d.npy", "-k", "10", *args)
        self.wait_for_state(job, "running")
        return job

    def jobs(self, *args):
        return json.loads(self.run_ok("status", "--json", *args).stdout)

    def job(self, number):
        return self.jobs(number)[0]

    def wait_for_state(self, number, state):
        return wait_until(lambda: (job := self.job(number))["state"] == state and job, f"{state} job {number}")

    def popen(self, *args, **kwargs):
        process = subprocess.Popen(
            [BINARY, *map(str, args)],
            cwd=self.folder,
            env=self.environment(**kwargs.pop("variables", {})),
            **{**dict.fromkeys(("stdout", "stderr"), subprocess.PIPE), "stdin": subprocess.DEVNULL, "encoding": "utf-8", **kwargs},
        )

        def end():
            if process.poll() is None:
                process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def read_until(self, stream, pattern):
        """Lines of a process's stream up to the first that matches."""
        lines = []
        for line in stream:
            lines.append(line)
            if re.search(pattern, line):
                return lines
        self.fail(f"no line matches {pattern!r}: {lines}")

    def leftovers(self):
        return [name for name in self.files() if name.endswith(".tmp")]

    def assert_same_bytes(self, name, other):
        self.assertEqual((self.folder / name).read_bytes(), (self.folder / other).read_bytes())
        self.assertGreater(os.path.getsize(self.folder / name), 0)
