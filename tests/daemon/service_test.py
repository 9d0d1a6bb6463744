"""The daemon as a service: what a service manager hands down, what it hears, and whose log it is.

The manager's part is played here, after sd_listen_fds(3) and sd_notify(3), and by systemd-socket-activate
where that is installed. No test runs under a systemd that has booted.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import unittest

from daemon_harness import Daemon, DaemonTestCase, wait_for

# fd count pid program...: becomes the program as a service manager starts it. An empty pid is its own.
LAUNCH = """
import os, sys
fd, count, pid = sys.argv[1:4]
os.dup2(int(fd), 3)
os.closerange(4, 1024)
os.environ.update(LISTEN_FDS=count, LISTEN_PID=pid or str(os.getpid()), LISTEN_FDNAMES="tiny-knn.socket")
os.execv(sys.argv[4], sys.argv[4:])
"""


class ServiceDaemon(Daemon):
    """A daemon with something in front of its command line."""

    launcher = ()

    def arguments(self, *flags):
        return [*self.launcher, *super().arguments(*flags)]


class Service(DaemonTestCase):
    interposed = False
    num_queries, num_docs, dim = 8, 60, 8

    def new_daemon(self):
        daemon = ServiceDaemon(self.interposed)
        self.addCleanup(daemon.close)
        return daemon

    # ---- The manager's part ----

    def notified(self, name):
        """A socket that hears what the daemon says to its manager."""
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(heard.close)
        heard.bind("\0" + name[1:] if name.startswith("@") else name)
        heard.settimeout(60)
        self.daemon.variables["NOTIFY_SOCKET"] = name
        return heard

    def listener(self, path=None, kind=socket.SOCK_STREAM, listens=True):
        """A socket that is there before the daemon."""
        path = path or self.daemon.socket_path
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        made = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(made.close)
        made.bind(path)
        if listens:
            made.listen(16)
        return made

    def pass_on(self, file, count="1", pid=""):
        """The daemon will be started with `file` as descriptor 3; returns the options for that."""
        self.daemon.launcher = (sys.executable, "-c", LAUNCH, str(file.fileno()), count, pid)
        return {"pass_fds": (file.fileno(),)}

    def assert_does_not_start(self, *words):
        self.assertEqual(self.daemon.process.wait(60), 2, self.daemon.messages())
        message = self.daemon.messages().strip().splitlines()[-1]
        self.assertTrue(message.startswith("tiny-knnd: error: "), message)
        for word in words:
            self.assertIn(word, message)

    # ---- What the manager hears ----

    def test_ready_status_and_stopping_are_told(self):
        for name in (os.path.join(self.daemon.folder, "notify"), f"@tiny-knn-{os.getpid()}"):
            with self.subTest(name=name):
                heard = self.notified(name)
                self.daemon.spawn()
                self.assertEqual(heard.recv(4096), b"READY=1\nSTATUS=idle")
                self.assert_works()  # at once: ready means that clients can connect
                # The start is told at once, the end when a second has gone by.
                self.assertRegex(heard.recv(4096), rb"^STATUS=job \d+ runs$")
                self.assertEqual(heard.recv(4096), b"STATUS=idle")
                self.daemon.stop()
                self.assertEqual(heard.recv(4096), b"STOPPING=1\nSTATUS=stopping; idle")

    def test_status_is_told_at_most_once_a_second(self):
        heard = self.notified(os.path.join(self.daemon.folder, "notify"))
        self.daemon.spawn()
        self.assertIn(b"READY=1", heard.recv(4096))
        begun = time.monotonic()
        with self.daemon.client() as client:
            while time.monotonic() - begun < 3:
                self.assert_works(client)
        told = [heard.recv(4096)]
        heard.settimeout(2)
        with contextlib.suppress(TimeoutError):
            while True:
                told.append(heard.recv(4096))
        elapsed = time.monotonic() - begun
        self.assertLessEqual(len(told), elapsed + 1, told)
        self.assertEqual(told[-1], b"STATUS=idle")
        self.assertEqual(told[-2:].count(b"STATUS=idle"), 1, "the same is not told twice")

    def test_stopping_is_told_by_shutdown_too(self):
        heard = self.notified(os.path.join(self.daemon.folder, "notify"))
        self.daemon.spawn()
        self.assertIn(b"READY=1", heard.recv(4096))
        with self.daemon.client() as client:
            client.call("shutdown")
        self.assertIn(b"STOPPING=1", heard.recv(4096))
        self.assertEqual(self.daemon.process.wait(60), 0)

    def test_address_that_nobody_can_listen_at_is_an_error(self):
        self.daemon.variables["NOTIFY_SOCKET"] = "notify"
        self.daemon.spawn()
        self.assert_does_not_start("NOTIFY_SOCKET=notify")

    # ---- What the manager hands down ----

    def test_inherited_socket_is_served_and_left_as_it_was(self):
        listener = self.listener()
        os.chmod(self.daemon.socket_path, 0o640)
        before = os.stat(self.daemon.socket_path)
        options = self.pass_on(listener)
        for _ in range(2):  # the second daemon takes over what the first has left
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as early:
                early.connect(self.daemon.socket_path)  # before there is a daemon: it waits
                early.settimeout(60)
                early.sendall(b'{"id":1,"type":"hello","protocol":[1,1],"client":"early"}\n')
                self.daemon.start(**options)
                self.assertIn(b'"id":1', early.recv(4096))
            self.assert_works()
            self.daemon.stop()
            after = os.stat(self.daemon.socket_path)
            self.assertEqual((after.st_ino, after.st_mode), (before.st_ino, before.st_mode))

    def test_worker_inherits_nothing_of_it(self):
        listener = self.listener()
        heard = self.notified(os.path.join(self.daemon.folder, "notify"))
        self.daemon.start(**self.pass_on(listener))
        self.assertIn(b"READY=1", heard.recv(4096))
        self.assert_works()
        (worker,) = self.daemon.workers()
        with open(f"/proc/{worker}/environ", "rb") as file:
            environment = file.read()
        self.assertNotIn(b"NOTIFY_SOCKET", environment)
        self.assertNotIn(b"LISTEN_", environment)
        inherited = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
        folder = f"/proc/{self.daemon.pid}/fd"
        self.assertIn(inherited, [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)])
        folder = f"/proc/{worker}/fd"
        self.assertNotIn(inherited, [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)])

    def test_socket_for_another_process_is_left_alone(self):
        other = os.path.join(self.daemon.folder, "other", "daemon.sock")
        listener = self.listener(other)
        self.daemon.start(**self.pass_on(listener, pid="1"))
        self.assertTrue(stat.S_ISSOCK(os.stat(self.daemon.socket_path).st_mode))
        self.assert_works()
        self.daemon.stop()
        self.assertFalse(os.path.exists(self.daemon.socket_path))
        self.assertTrue(os.path.exists(other))

    def test_what_is_no_single_listening_stream_socket_is_refused(self):
        path = os.path.join(self.daemon.folder, "run", "wrong")
        with open(self.queries, "rb") as file:
            cases = [
                (self.listener(), "2", ("passes 2 sockets (tiny-knn.socket)", "expected 1")),
                (self.listener(path + "0"), "0", ("passes 0 sockets",)),
                (self.listener(path + "1", kind=socket.SOCK_DGRAM, listens=False), "1", ("another type",)),
                (self.listener(path + "2", listens=False), "1", ("does not listen",)),
                (file, "1", ("no socket",)),
            ]
            for passed, count, words in cases:
                with self.subTest(words=words):
                    self.daemon.spawn(**self.pass_on(passed, count=count))
                    self.assert_does_not_start(*words)
        self.assertFalse(os.path.exists(os.path.join(self.daemon.state, "journal.db")))

    def test_another_path_than_the_inherited_one_is_refused(self):
        listener = self.listener(os.path.join(self.daemon.folder, "run", "other.sock"))
        self.daemon.spawn(**self.pass_on(listener))
        self.assert_does_not_start("--socket", "other.sock")

    def test_socket_of_a_manager_is_not_displaced(self):
        """As when root types `tiny-knn daemon` while systemd waits for the first client."""
        listener = self.listener()
        before = os.stat(self.daemon.socket_path).st_ino
        self.daemon.spawn()
        self.assert_does_not_start(self.daemon.socket_path, "systemctl stop")
        self.assertEqual(os.stat(self.daemon.socket_path).st_ino, before)
        listener.setblocking(False)
        with self.assertRaises(BlockingIOError, msg="it was connected to, which would start the service"):
            listener.accept()

    @unittest.skipUnless(shutil.which("systemd-socket-activate"), "systemd-socket-activate is not installed")
    def test_systemd_socket_activate_starts_it_at_the_first_connection(self):
        os.makedirs(os.path.dirname(self.daemon.socket_path), 0o700)
        passed = [word for name in self.daemon.environment() for word in ("-E", name)]
        self.daemon.launcher = ("systemd-socket-activate", "-l", self.daemon.socket_path, *passed)
        self.daemon.spawn()
        wait_for(lambda: os.path.exists(self.daemon.socket_path), "the socket of systemd-socket-activate")
        wait_for(lambda: "Listening on" in self.daemon.messages(), "systemd-socket-activate")
        self.assert_works()
        self.daemon.stop()
        self.assertTrue(os.path.exists(self.daemon.socket_path))

    # ---- Whose socket and whose log it is ----

    @unittest.skipUnless(os.geteuid() == 0, "only root may give a socket to any group")
    def test_group_of_a_daemon_of_root_may_reach_the_socket(self):
        self.daemon.start("--group", 100)
        found = os.stat(self.daemon.socket_path)
        self.assertEqual((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), (0, 100, 0o660))
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(self.daemon.socket_path)).st_mode), 0o755)
        self.assertEqual(stat.S_IMODE(os.stat(self.daemon.state).st_mode), 0o700)
        self.assert_works()

    def test_second_background_daemon_leaves_the_log_of_the_first_alone(self):
        log = os.path.join(self.daemon.state, "daemon.log")
        first = subprocess.run(
            self.daemon.arguments("--background"), env=self.daemon.environment(), stdout=subprocess.PIPE, check=True
        )
        self.assertIn(log.encode(), first.stdout)
        with open(log, "rb") as file:
            before = file.read()
        self.assertIn(b"listens on", before)
        for flags in (("--background",), ("--background", "--socket", self.daemon.socket_path + "2")):
            self.daemon.spawn(*flags)
            self.assert_does_not_start("in use")
        with open(log, "rb") as file:
            self.assertEqual(file.read(), before)
        with self.daemon.client() as client:
            pid = client.call("stats")["pid"]
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.daemon.processes(), "the end of the daemon in the background")


if __name__ == "__main__":
    unittest.main()
