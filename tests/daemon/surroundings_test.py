"""What the daemon and its workers have open, see, leave behind, and use while there is nothing to do."""

import os
import pty
import signal
import stat
import subprocess
import time
import unittest

import fault_rules
from daemon_harness import DaemonTestCase, is_sanitized, wait_for
from fault_rules import HOLD, WORKER


def descriptors(pid):
    """{number: what it leads to} of a process."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


class Worker(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        # Descriptors that the daemon inherits and nobody told it about.
        self.inherited = [os.open("/etc/hostname", os.O_RDONLY) for _ in range(3)]
        for number in self.inherited:
            os.set_inheritable(number, True)
            self.addCleanup(os.close, number)
        self.daemon.start(close_fds=False)
        self.clients = [self.daemon.client() for _ in range(5)]
        self.hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        self.job = self.submit(self.clients[0])
        self.hold.wait()
        self.worker = self.hold.pid

    def tearDown(self):
        for client in self.clients:
            client.close()
        super().tearDown()

    def test_worker_has_nothing_open_but_its_socket_and_its_job(self):
        held = descriptors(self.worker)
        self.assertEqual([held.pop(number) for number in (0, 1, 2)], ["/dev/null"] * 3)
        self.assertRegex(held.pop(3), r"^socket:\[\d+\]$")
        # The rest is its own: the job's files, and what its libraries opened.
        own = (self.folder + "/", self.folder, "/proc/", "/sys/", "/dev/", "anon_inode:", "pipe:")
        for number, target in held.items():
            if not target.startswith(own) and target != self.folder:
                self.fail(f"descriptor {number} of the worker is {target}")
            self.assertFalse(target.startswith(self.daemon.folder), f"descriptor {number} of the worker is {target}")
        self.assertNotIn("/etc/hostname", held.values())
        self.hold.remove()
        self.clients[0].wait(self.job)

        def files():
            return [target for number, target in descriptors(self.worker).items() if number > 3 and target.startswith(self.folder)]

        wait_for(lambda: not files(), "files of a job that is over being closed", 20)
        self.assertNotIn("pipe", " ".join(descriptors(self.worker).values()))

    def test_one_socket_is_the_only_one(self):
        """No other client's connection, not the listening socket."""
        sockets = [target for target in descriptors(self.worker).values() if target.startswith("socket:")]
        self.assertEqual(len(sockets), 1)

    def test_worker_sees_the_listed_variables_only(self):
        with open(f"/proc/{self.worker}/environ", "rb") as file:
            names = {entry.partition(b"=")[0].decode() for entry in file.read().split(b"\0") if entry}
        allowed = {"LD_PRELOAD", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "TINY_KNN_TEST_FAULTS"}
        self.assertLessEqual(names, allowed)
        self.assertIn("TINY_KNN_TEST_FAULTS", names)
        with open(f"/proc/{self.daemon.pid}/environ", "rb") as file:
            self.assertIn(b"SECRET_OF_THE_TEST=1", file.read())

    def test_worker_stands_in_the_root_folder_in_a_session_of_its_own(self):
        self.assertEqual(os.readlink(f"/proc/{self.worker}/cwd"), "/")
        self.assertEqual(os.getsid(self.worker), self.worker)
        with open(f"/proc/{self.worker}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        self.assertEqual(int(status["SigBlk"], 16), 0)
        for number in (signal.SIGTERM, signal.SIGQUIT):  # what it inherits from nobody
            self.assertFalse(int(status["SigIgn"], 16) >> (number - 1) & 1, number)

    def test_supervisor_opens_no_file_of_a_user_and_links_no_engine(self):
        for target in descriptors(self.daemon.pid).values():
            self.assertNotIn(".npy", target)
            self.assertNotIn(".pkl", target)
        with open(f"/proc/{self.daemon.pid}/maps") as file:
            maps = file.read()
        self.assertNotIn("libdnnl", maps)
        self.assertNotIn("libcuda", maps)


class Folders(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def test_state_and_socket_are_this_users_alone_whatever_the_umask(self):
        for umask in (0, 0o077, 0o777):
            with self.subTest(umask=oct(umask)):
                daemon = self.daemon = self.new_daemon()
                daemon.start(umask=umask)
                self.assert_works()
                self.assertEqual(mode(daemon.state), 0o700)
                self.assertEqual(mode(os.path.dirname(daemon.socket_path)), 0o700)
                self.assertEqual(mode(daemon.socket_path) & 0o077, 0)
                for folder, folders, files in os.walk(daemon.state):
                    for name in folders:
                        self.assertEqual(mode(os.path.join(folder, name)), 0o700, name)
                    for name in files:
                        self.assertEqual(mode(os.path.join(folder, name)), 0o600, name)
                names = os.listdir(daemon.state)
                self.assertIn("journal.db", names)
                self.assertNotIn("journal.db-shm", names)

    def test_state_folder_that_others_may_read_is_refused(self):
        os.mkdir(self.daemon.state)
        os.chmod(self.daemon.state, 0o755)
        self.assertNotEqual(self.daemon.spawn().wait(30), 0)
        self.assertIn("chmod 700", self.daemon.messages())

    def test_output_has_the_mode_that_the_client_wants(self):
        self.daemon.start(umask=0o077)
        with self.daemon.client() as client:
            for umask, expected in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0, 0o666)):
                with self.subTest(umask=oct(umask)):
                    job = self.submit(client, umask=umask)
                    self.assert_done(client.wait(job)[job])
                    self.assertEqual(mode(self.path("out.pkl")), expected)

    def test_damaged_journal_is_said_and_left_alone(self):
        self.daemon.start()
        self.assert_works()
        self.daemon.stop()
        path = os.path.join(self.daemon.state, "journal.db")
        with open(path, "r+b") as file:
            file.write(b"this is no database, whatever it was before" * 100)
        with open(path, "rb") as file:
            before = file.read()
        self.assertNotEqual(self.daemon.spawn().wait(30), 0)
        self.assertIn("journal.db", self.daemon.messages().strip().splitlines()[-1])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)


class Idle(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def test_idle_daemon_uses_no_time(self):
        self.daemon.start()
        with self.daemon.client() as client:
            client.send("subscribe")
            self.assert_works(client)
            worker = self.daemon.workers()[0]
            before = cpu_seconds(self.daemon.pid), cpu_seconds(worker)
            time.sleep(2)
            after = cpu_seconds(self.daemon.pid), cpu_seconds(worker)
            # One tick of the clock is 10 ms. A sanitizer's own thread wakes up now and then.
            most = 0.2 if is_sanitized(worker) else 0.02
            self.assertLessEqual(after[0] - before[0], most)
            self.assertLessEqual(after[1] - before[1], most)

    def test_idle_worker_is_released_and_comes_back(self):
        self.daemon.start("--idle-release", 1)
        with self.daemon.client() as client:
            self.assert_works(client)
            self.assertEqual(len(self.daemon.workers()), 1)
            wait_for(lambda: not self.daemon.workers(), "the release of the worker", 20)
            # The supervisor hears of it a moment later.
            wait_for(lambda: client.call("stats")["device_state"] == "released", "the worker being reaped")
            self.assertEqual(client.call("stats")["warm_docs"], [])
            self.assert_works(client)
            self.assertEqual(self.daemon.faults.workers_started, 2)

    def test_no_zombies(self):
        self.daemon.start()
        with self.daemon.client() as client:
            for _ in range(3):
                self.assert_works(client)
                os.kill(self.daemon.workers()[0], signal.SIGKILL)
            self.assert_works(client)
        with open(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children") as file:
            self.assertEqual(len(file.read().split()), 1)


class Background(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def start_on_terminal(self):
        """Starts it with --background on a terminal of its own; returns the terminal's other end."""
        ours, theirs = pty.openpty()
        starter = subprocess.Popen(
            self.daemon.arguments("--background"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.folder,
            env=self.daemon.environment(),
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
        )
        os.close(theirs)
        self.assertEqual(starter.wait(30), 0)
        return ours

    def test_background_daemon_outlives_its_terminal(self):
        terminal = self.start_on_terminal()
        # Ready when the starter says so, not some time later.
        with self.daemon.client() as client:
            pid = client.call("stats")["pid"]
            said = os.read(terminal, 4096).decode()
            self.assertIn(str(pid), said)
            self.assertIn(self.daemon.socket_path, said)
            os.close(terminal)
            self.assertNotEqual(os.getsid(pid), os.getsid(0))
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
            self.assertEqual([descriptors(pid)[number] for number in (0, 1, 2)], ["/dev/null"] * 3)
            self.assertFalse(any("pts" in target for target in descriptors(pid).values()))
            self.assert_works(client)
            self.assertEqual(mode(self.daemon.state), 0o700)
            self.assertEqual(mode(os.path.join(self.daemon.state, "daemon.log")), 0o600)
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.daemon.processes(), "the daemon's end", 20)
        self.assertFalse(os.path.exists(self.daemon.socket_path))

    def test_background_daemon_that_cannot_start_says_why(self):
        self.daemon.start()
        other = self.new_daemon()
        other.socket_path, other.state = self.daemon.socket_path, self.daemon.state
        self.assertNotEqual(other.spawn("--background").wait(30), 0)
        self.assertIn("in use", other.messages())
        self.assertEqual(len(other.messages().strip().splitlines()), 1)
        wait_for(lambda: not other.processes(), "nothing being left in the background", 20)
        self.assert_works()

    def test_worker_that_is_no_program_is_said_at_the_start(self):
        os.chmod(self.docs, 0o644)
        for worker in ("/nonexistent/tiny-knn", self.docs, self.folder):
            with self.subTest(worker=worker):
                self.assertNotEqual(self.daemon.spawn("--worker", worker).wait(30), 0)
                self.assertIn(worker, self.daemon.messages().splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
