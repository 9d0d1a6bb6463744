"""A daemon of root and the users who meet in it: real uids, real files, real processes.

A User acts in two ways. `with user.acting():` gives this process the user's effective identity: enough to open
files and to connect. What also looks at the real identity (signals, ptrace, /proc) goes through `user.run(function)`,
which does it in a process that has become the user for good.
"""

import contextlib
import functools
import os
import pickle
import pwd
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback

import numpy as np

sys.path[:0] = ["tests/daemon", "tests/support"]
import daemon_harness
import fault_rules
from daemon_client import Client
from daemon_harness import DaemonTestCase, exists, wait_for
from tiny_knn_testing import load_result

GROUP = 100  # whose members may connect
ADMIN_GROUP = 50


@functools.cache
def why_not():
    """Why daemons of root cannot be tested here; empty: they can."""
    if os.geteuid() != 0:
        return "only root can run jobs as other users; run this test as root"
    for uid in (1, 5, 9):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return f"there is no user with uid {uid} here"
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([GROUP])
            os.setresgid(60, 60, 60)
            os.setresuid(5, 5, 5)
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        return "this process cannot become another user (a namespace with one uid?)"
    return ""


class User:
    """One uid with the groups of its client processes, and a home with mode 0700."""

    def __init__(self, name, uid, gid, groups, home):
        self.name, self.uid, self.gid, self.groups, self.home = name, uid, gid, groups, home
        os.mkdir(home, 0o700)
        os.chown(home, uid, gid)

    def path(self, name):
        return os.path.join(self.home, name)

    @contextlib.contextmanager
    def acting(self):
        """This process opens files and connects as the user."""
        groups = os.getgroups()
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    def become(self):
        """Makes this process the user's for good."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.environ.clear()
        os.environ.update(PATH="/usr/bin:/bin", HOME=self.home)
        os.chdir("/")

    def run(self, function, *arguments, timeout=60):
        """function(*arguments) in a process of the user's; returns its value or raises its exception."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.close(reading)
                signal.alarm(timeout)
                self.become()
                try:
                    result = (True, function(*arguments))
                except BaseException as error:
                    result = (False, error)
                try:
                    data = pickle.dumps(result)
                except Exception:
                    data = pickle.dumps((False, RuntimeError(traceback.format_exc())))
                with os.fdopen(writing, "wb") as file:
                    file.write(data)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            data = file.read()
        os.waitpid(pid, 0)
        if not data:
            raise AssertionError(f"{function.__name__} as {self.name} did not end in {timeout} s")
        good, value = pickle.loads(data)
        if not good:
            raise value
        return value

    @contextlib.contextmanager
    def running(self, function, *arguments):
        """function(*arguments) goes on in a process of the user's until the block ends; gives its pid."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.alarm(120)
                self.become()
                function(*arguments)
            finally:
                os._exit(0)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def connect(self, path, **options):
        with self.acting():
            return Client(path, **options)

    def write(self, name, data, mode=0o600):
        """A file of the user's; returns its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        os.chown(path, self.uid, self.gid)
        return path

    def save(self, name, array, mode=0o600):
        with tempfile.TemporaryFile() as file:
            np.save(file, array)
            file.seek(0)
            return self.write(name, file.read(), mode)


_daemons = []


def _close_all(*_):
    """Even a test that is stopped for its time leaves no daemon of root behind."""
    for daemon in _daemons:
        daemon.close()
    os._exit(1)


class RootDaemon(daemon_harness.Daemon):
    """tiny-knnd of root in a folder that every user can enter, with copies of the binaries."""

    def __init__(self, interposed=True):
        super().__init__(interposed)
        _daemons.append(self)
        signal.signal(signal.SIGTERM, _close_all)
        os.chmod(self.folder, 0o755)
        os.chmod(self.faults.path, 0o666)  # workers of users count what they do there
        self.programs = os.path.join(self.folder, "bin")
        os.mkdir(self.programs)
        os.chmod(self.programs, 0o755)
        for program in (daemon_harness.DAEMON, daemon_harness.BINARY, daemon_harness.INTERPOSER):
            copy = shutil.copy(program, self.programs)
            os.chmod(copy, 0o755)
        self.binary = os.path.join(self.programs, "tiny-knn")
        os.mkdir(os.path.join(self.folder, "home"))
        os.chmod(os.path.join(self.folder, "home"), 0o755)

    def environment(self):
        environment = super().environment()
        if self.interposed:
            environment["LD_PRELOAD"] = os.path.join(self.programs, os.path.basename(daemon_harness.INTERPOSER))
        return environment

    def arguments(self, *flags):
        given = {"--worker": self.binary, "--group": GROUP, "--admin-group": ADMIN_GROUP}
        extra = [word for name, value in given.items() if name not in flags for word in (name, value)]
        arguments = super().arguments(*map(str, extra), *flags)
        return [os.path.join(self.programs, "tiny-knnd"), *arguments[1:]]

    def spawn(self, *flags, **options):
        # A session of its own, as a service has it: within one, everybody may send SIGCONT. And groups that
        # no worker may keep.
        given = {"start_new_session": True, "extra_groups": [0, GROUP, ADMIN_GROUP, 4]}
        return super().spawn(*flags, **{**given, **options})

    def kill_worker(self, pid):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not exists(pid), "death of the worker")

    def worker_of(self, user):
        """The pid of the user's worker, once there is one that answers to its uid."""

        def find():
            for pid in self.workers():
                with contextlib.suppress(OSError):
                    if identity(pid)["Uid"] == [user.uid] * 4:
                        return pid
            return None

        return wait_for(find, f"a worker of {user.name}")


def identity(pid):
    """The lines of /proc/PID/status that say who it is, as lists of whole numbers."""
    found = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Threads"):
                found[name] = [int(word) for word in value.split()]
            elif name.startswith("Cap") or name == "Umask":
                found[name] = int(value, 16 if name.startswith("Cap") else 8)
    return found


class UsersTestCase(DaemonTestCase):
    """A daemon of root (started), two plain users, an administrator, and their files.

    ann (games) and bea (daemon) are strangers to each other, admin (news) is in the admin group, and the stranger's
    uid has no entry in passwd.
    """

    num_queries, num_docs, dim, k = 8, 60, 8, 5
    flags = ()

    def setUp(self):
        if why_not():
            print(f"NOT RUN: {self.id()}: {why_not()}")
            self.skipTest(why_not())
        umask = os.umask(0o022)
        self.addCleanup(os.umask, umask)
        super().setUp()
        home = os.path.join(self.daemon.folder, "home")
        self.ann = User("games", 5, 60, [GROUP], os.path.join(home, "games"))
        self.bea = User("daemon", 1, 1, [GROUP], os.path.join(home, "daemon"))
        self.admin = User("news", 9, 9, [GROUP, ADMIN_GROUP], os.path.join(home, "news"))
        self.stranger = User("54321", 54321, 54321, [GROUP], os.path.join(home, "54321"))
        self.users = (self.ann, self.bea, self.admin, self.stranger)
        state = np.random.default_rng(71)
        self.query_rows = state.standard_normal((self.num_queries, self.dim)).astype(np.float32)
        self.doc_rows = state.standard_normal((self.num_docs, self.dim)).astype(np.float32)
        for user in self.users:
            user.save("queries.npy", self.query_rows)
            user.save("docs.npy", self.doc_rows)
        self.start()

    def start(self):
        self.daemon.start(*self.flags)

    def new_daemon(self):
        daemon = RootDaemon(self.interposed)
        self.addCleanup(daemon.close)
        return daemon

    def connect(self, user, **options):
        client = user.connect(self.daemon.socket_path, **options)
        self.addCleanup(client.close)
        return client

    def spec_of(self, user, output="out.pkl", **more):
        spec = {"queries": "queries.npy", "docs": "docs.npy", "output": output, "working_folder": user.home, "k": self.k}
        return {**spec, **more}

    def submit_as(self, user, client, output="out.pkl", key=None, priority=0, timeout=None, **more):
        """Submits a job of the user's files, changed by `more`; returns its id."""
        request = {} if timeout is None else {"timeout_seconds": timeout}
        spec = self.spec_of(user, output, **more)
        return client.submit(key or self.new_key(), spec, self.shape(), priority=priority, **request)["id"]

    def hold_at_write(self, user, client, output="held.pkl", **more):
        """A job whose worker is held with its temporary file open: (id, the rule, pid of the worker)."""
        hold = self.daemon.faults.rule(
            fault_rules.WORKER, fault_rules.WRITE, fault_rules.HOLD, path=f"*/.{output}.*.tmp"
        )
        job = self.submit_as(user, client, output, **more)

        def still_to_come():
            state = client.job(job)
            self.assertIn(state["state"], ("queued", "running"), state)

        hold.wait(meanwhile=still_to_come)
        return job, hold, hold.pid

    def expected_result(self):
        if self._expected is None:
            self._expected = self.search(self.queries, self.docs, "--k", self.k, "--device", "cpu")
        return self._expected

    def assert_done_as(self, user, job, output=None):
        """The job is done, its file is the user's own, and right."""
        self.assertEqual(job["state"], "done", job)
        path = output or job["output_path"]
        found = os.lstat(path)
        self.assertTrue(stat.S_ISREG(found.st_mode))
        self.assertEqual((found.st_uid, found.st_gid), (user.uid, user.gid))
        self.assert_same_bits(self.expected_result(), load_result(path))

    def assert_works_for(self, user, client=None, within=20):
        """A job of the user's, submitted now, is done, and right, and soon."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            client = client or stack.enter_context(user.connect(self.daemon.socket_path))
            job = self.submit_as(user, client, "works.pkl")
            self.assert_done_as(user, client.wait(job, timeout=within)[job])
        self.assertLess(time.monotonic() - began, within)
        os.unlink(user.path("works.pkl"))

    def assert_fails(self, user, client, code, *words, output="out.pkl", **more):
        """A job of these files fails with this code (one of them, if it is a tuple), in one line with these words."""
        job = self.submit_as(user, client, output, **more)
        job = client.wait(job, timeout=30)[job]
        codes = code if isinstance(code, tuple) else (code,)
        self.assertEqual(job["state"], "failed", job)
        self.assertIn(job["error_code"], codes, job["error"])
        self.assertNotIn("\n", job["error"])
        for word in words:
            self.assertIn(word, job["error"])
        return job

    def temporaries(self):
        """Temporary files of jobs in all homes."""
        found = []
        for folder, _, names in os.walk(os.path.join(self.daemon.folder, "home")):
            found += [os.path.join(folder, name) for name in names if name.endswith(".tmp")]
        return found
