"""A daemon for tests: the real tiny-knnd in a folder of its own.

Every process that belongs to a test carries the path of the test's fault file in its environment. That is
how they are found again, orphans included, and how none is ever left behind.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase, runfile

from daemon_client import Client, Disconnected, Refused
from fault_rules import Faults

DAEMON = runfile("daemon/tiny-knnd")
INTERPOSER = runfile("tests/daemon/libfault_interposer.so")

FINISHED = ("done", "failed", "cancelled")


def exists(pid):
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, what, timeout=60):
    """Waits until condition() is true; returns what it returned."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {timeout} s")
        time.sleep(0.002)
    return found


def memory_kib(pid, name="VmRSS"):
    with open(f"/proc/{pid}/status") as file:
        return int(dict(line.split(":", 1) for line in file)[name].split()[0])


def is_sanitized(pid):
    """Whether a sanitizer's library is in the process, which takes memory, time and signals of its own."""
    with open(f"/proc/{pid}/maps") as file:
        maps = file.read()
    return any(library in maps for library in ("libasan", "libtsan", "libubsan"))


class Daemon:
    """tiny-knnd with a folder of its own: started, killed and started again on the same state."""

    def __init__(self, interposed=True):
        self.folder = tempfile.mkdtemp(prefix="tk-", dir="/tmp")
        self.socket_path = os.path.join(self.folder, "run", "daemon.sock")
        self.state = os.path.join(self.folder, "state")
        self.faults = Faults(os.path.join(self.folder, "faults"))
        self.interposed = interposed
        self.process = None
        self.messages_path = os.path.join(self.folder, "messages")
        self.variables = {}
        self.started = 0

    # ---- Life and death ----

    def environment(self):
        # What the supervisor must not pass on to its worker is there to be found.
        passed_on = ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in passed_on if name in os.environ}
        environment.update(HOME=self.folder, SECRET_OF_THE_TEST="1", TINY_KNN_TEST_FAULTS=self.faults.path)
        if self.interposed:
            environment["LD_PRELOAD"] = INTERPOSER
            # AddressSanitizer wants to be first in line; what the interposer calls is still its wrappers.
            environment["ASAN_OPTIONS"] = "verify_asan_link_order=0:" + environment.get("ASAN_OPTIONS", "")
        environment.update(self.variables)
        return environment

    def arguments(self, *flags):
        defaults = {
            "--socket": self.socket_path,
            "--state-dir": self.state,
            "--worker": BINARY,
            "--device": "cpu",
            "--threads": 1,
        }
        given = [word for name, value in defaults.items() if name not in flags for word in (name, value)]
        return list(map(str, (DAEMON, *given, *flags)))

    def spawn(self, *flags, **options):
        """Starts tiny-knnd and does not wait for anything."""
        self.started += 1
        with open(self.messages_path, "ab") as messages:
            self.process = subprocess.Popen(
                self.arguments(*flags),
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                cwd=self.folder,
                env=self.environment(),
                **options,
            )
        return self.process

    def start(self, *flags, **options):
        """Starts tiny-knnd and waits until it answers."""
        process = self.spawn(*flags, **options)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(Disconnected):
                self.client().close()
                return self
            if process.poll() is not None:
                raise AssertionError(f"tiny-knnd ended with {process.returncode}: {self.messages()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"tiny-knnd does not answer: {self.messages()}")
            time.sleep(0.002)

    def messages(self):
        with open(self.messages_path, "rb") as file:
            return file.read().decode(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    def kill(self, number=signal.SIGKILL):
        """Sends the supervisor a signal and waits for its end; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def stop(self):
        """Ends the daemon in peace, which must work."""
        code = self.kill(signal.SIGTERM)
        if code != 0:
            raise AssertionError(f"tiny-knnd ended with {code} after SIGTERM: {self.messages()}")

    def close(self):
        """Kills whatever is left and removes the folder. May be called again."""
        if self.faults.map.closed:
            return
        self.faults.clear()
        for _ in range(100):
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()
            if not left:
                break
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait()
        self.faults.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- What is there ----

    def processes(self):
        """Every living process of this daemon, whoever its parent is now."""
        marker = b"TINY_KNN_TEST_FAULTS=" + self.faults.path.encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/environ", "rb") as file:
                    if marker in file.read().split(b"\0") and exists(int(name)):
                        found.append(int(name))
        return found

    def workers(self):
        """Living processes of this daemon that run tiny-knn."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "tiny-knn":
                    found.append(pid)
        return found

    def client(self, **options):
        return Client(self.socket_path, **options)

    def journal(self, query, *values):
        """Rows of the journal, read from a copy. REQUIRES: no daemon runs."""
        with tempfile.TemporaryDirectory(dir=self.folder) as copy:
            for name in ("journal.db", "journal.db-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(os.path.join(self.state, name), copy)
            with contextlib.closing(sqlite3.connect(os.path.join(copy, "journal.db"))) as connection:
                return connection.execute(query, values).fetchall()


class DaemonTestCase(TestCase):
    """A test with a daemon (not started), small matrices, and what a direct run makes of them."""

    interposed = True
    num_queries, num_docs, dim, k = 40, 500, 16, 10

    def setUp(self):
        super().setUp()
        self.daemon = self.new_daemon()
        state = np.random.default_rng(71)
        self.queries = self.save("queries.npy", state.standard_normal((self.num_queries, self.dim)).astype(np.float32))
        self.docs = self.save("docs.npy", state.standard_normal((self.num_docs, self.dim)).astype(np.float32))
        self._expected = None
        self._key = 0

    def new_daemon(self):
        daemon = Daemon(self.interposed)
        self.addCleanup(daemon.close)
        return daemon

    def new_key(self):
        self._key += 1
        return f"{self.id()[-60:]}-{self._key}"

    def spec(self, output="out.pkl", queries=None, docs=None, **more):
        return {
            "queries": queries or self.queries,
            "docs": docs or self.docs,
            "output": self.path(output),
            "working_folder": self.folder,
            "k": self.k,
            **more,
        }

    def shape(self, **more):
        shape = {"queries": self.num_queries, "docs": self.num_docs, "dim": self.dim, "k": self.k}
        return {**shape, "docs_bytes": self.num_docs * self.dim * 4, **more}

    def submit(self, client, output="out.pkl", key=None, priority=0, **more):
        """Submits a job that writes `output`; returns its id."""
        spec = self.spec(output, **more)
        return client.submit(key or self.new_key(), spec, self.shape(), priority=priority)["id"]

    def expected(self):
        """The bytes that the program itself writes for the same search."""
        if self._expected is None:
            flags = ["--k", self.k, "--output-path", self.path("expected.pkl"), "--quiet", "--device", "cpu"]
            done = self.program(["run", self.queries, self.docs, *flags])
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path("expected.pkl"), "rb") as file:
                self._expected = file.read()
            os.unlink(self.path("expected.pkl"))
        return self._expected

    def assert_output(self, output="out.pkl"):
        with open(self.path(output), "rb") as file:
            self.assertTrue(file.read() == self.expected(), f"{output} is not what `tiny-knn run` writes")

    def assert_done(self, job):
        self.assertEqual(job["state"], "done", job)
        with open(job["output_path"], "rb") as file:
            self.assertTrue(file.read() == self.expected(), f"{job['output_path']} is not what `tiny-knn run` writes")

    def assert_works(self, client=None):
        """A job submitted now is done, and right."""
        with contextlib.ExitStack() as stack:
            client = client or stack.enter_context(self.daemon.client())
            job = self.submit(client, "works.pkl")
            self.assert_done(client.wait(job)[job])

    def leftovers(self):
        """Temporary files in the folder of the outputs."""
        return [name for name in os.listdir(self.folder) if name.endswith(".tmp")]

    def assert_no_orphans(self):
        wait_for(lambda: not self.daemon.workers(), "workers that outlive their supervisor", 20)

    def assert_refused(self, code, *words):
        """A context in which the daemon must answer with this error, in one line with these words."""
        return _Refusal(self, code, words)


class _Refusal:
    def __init__(self, test, code, words):
        self._test, self._code, self._words = test, code, words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is None:
            self._test.fail(f"not refused, expected {self._code}")
        if not issubclass(kind, Refused):
            return False
        self._test.assertEqual(error.code, self._code, error.message)
        self._test.assertNotIn("\n", error.message)
        for word in self._words:
            self._test.assertIn(word, error.message)
        return True
