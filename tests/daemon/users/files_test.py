"""Whose files a job can reach: those of the user who submitted it, by the kernel's own rules."""

import contextlib
import os
import signal
import socket
import stat
import sys
import unittest

sys.path.insert(0, "tests/daemon")
import fault_rules
from daemon_harness import wait_for
from fault_rules import HOLD, WORKER
from users_harness import UsersTestCase, load_result

SECRET = b"\x93NUMPY what nobody else may know"
REFUSALS = ("permission_denied", "invalid_argument", "not_found", "failed_precondition")


class FilesTestCase(UsersTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.connect(self.ann)

    def open_folder(self, user, name, mode):
        """A folder of the user's beside the homes."""
        path = os.path.join(self.daemon.folder, name)
        os.mkdir(path)
        os.chown(path, user.uid, user.gid)
        os.chmod(path, mode)
        return path

    def watch(self, path):
        """A context in which the file must stay as it is: contents, owner, mode, inode, times."""
        return _Unchanged(self, path)

    def assert_nothing_new(self, folder, names):
        self.assertEqual(sorted(os.listdir(folder)), sorted(names))

    def assert_says_no_secret(self, job):
        text = self.client.call("log", job=job["id"])["text"] + str(job) + self.daemon.messages()
        for secret in ("what nobody else may know", "SECRET_OF_THE_TEST=1", "root:"):
            self.assertNotIn(secret, text)


class _Unchanged:
    def __init__(self, test, path):
        self._test, self._path = test, path

    def _state(self):
        found = os.lstat(self._path)
        with open(self._path, "rb") as file:
            return file.read(), found.st_uid, found.st_mode, found.st_ino, found.st_mtime_ns

    def __enter__(self):
        self._before = self._state()

    def __exit__(self, kind, *_):
        if kind is None:
            self._test.assertEqual(self._state(), self._before, self._path)


class ReadingOthersFiles(FilesTestCase):
    def test_files_of_another_cannot_be_read(self):
        """Neither in a closed home, nor a closed file in an open folder; root's no more than bea's."""
        shared = self.open_folder(self.bea, "shared", 0o755)
        closed = os.path.join(shared, "closed.npy")
        os.rename(self.bea.save("closed.npy", self.doc_rows), closed)
        roots = os.path.join(self.daemon.folder, "roots.npy")
        os.rename(self.ann.save("roots.npy", self.doc_rows), roots)
        os.chown(roots, 0, 0)
        os.chmod(roots, 0o640)
        for path in (self.bea.path("docs.npy"), closed, roots):
            for role in ("docs", "queries"):
                with self.subTest(path=path, role=role):
                    self.assert_fails(self.ann, self.client, "permission_denied", path, **{role: path})
        self.assertFalse(os.path.exists(self.ann.path("out.pkl")))
        # What may be read is read: it is not a refusal of everything.
        os.chmod(closed, 0o644)
        job = self.submit_as(self.ann, self.client, docs=closed)
        self.assert_done_as(self.ann, self.client.wait(job)[job])

    def test_warm_docs_of_another_are_not_searched(self):
        """bea's docs are in a worker's memory; ann names the same file."""
        self.daemon.faults.set_clock_offset(10)  # files as fresh as these are not kept
        docs = self.bea.path("docs.npy")
        with self.bea.connect(self.daemon.socket_path) as bea:
            for state in ("cold", "warm"):
                job = self.submit_as(self.bea, bea)
                self.assertEqual(bea.wait(job)[job]["docs_state"], state)
            self.assert_fails(self.ann, self.client, "permission_denied", docs=docs)
            # Nor when both may read the file: it is read again, by whoever asks.
            os.chmod(self.bea.home, 0o755)
            os.chmod(docs, 0o644)
            job = self.submit_as(self.bea, bea)
            self.assert_done_as(self.bea, bea.wait(job)[job])
        job = self.submit_as(self.ann, self.client, docs=docs)
        job = self.client.wait(job)[job]
        self.assert_done_as(self.ann, job)
        self.assertEqual(job["docs_state"], "cold")

    def test_groups_of_the_worker_are_those_of_its_user(self):
        """Neither root's, nor those that the client happened to have."""
        folder = self.open_folder(self.bea, "groups", 0o755)
        for gid, allowed in ((0, False), (100, False), (1, False), (self.ann.gid, True)):
            with self.subTest(gid=gid):
                path = os.path.join(folder, f"{gid}.npy")
                os.rename(self.bea.save("docs-of-group.npy", self.doc_rows, 0o640), path)
                os.chown(path, self.bea.uid, gid)
                if allowed:
                    job = self.submit_as(self.ann, self.client, docs=path)
                    self.assert_done_as(self.ann, self.client.wait(job)[job])
                else:
                    self.assert_fails(self.ann, self.client, "permission_denied", docs=path)

    def test_symbolic_link_to_anothers_docs_swapped_in_during_the_job(self):
        for after in (False, True):  # before the worker has opened them, and when it has
            with self.subTest(after=after):
                hold = self.daemon.faults.rule(WORKER, fault_rules.OPEN, HOLD, path="*/ann-docs.npy", after=after)
                docs = self.ann.save("ann-docs.npy", self.doc_rows)
                job = self.submit_as(self.ann, self.client, docs="ann-docs.npy")
                hold.wait()
                with self.ann.acting():
                    os.unlink(docs)
                    os.symlink(self.bea.path("docs.npy"), docs)
                hold.remove()
                job = self.client.wait(job)[job]
                if after and job["state"] == "done":  # ann's own docs were in hand
                    self.assert_done_as(self.ann, job)
                else:
                    self.assertEqual(job["state"], "failed", job)
                    self.assertIn(job["error_code"], (*REFUSALS, "aborted"), job)
                os.unlink(docs)
        self.assert_works_for(self.bea)

    def test_working_folder_of_another_and_paths_that_climb_out(self):
        climb = "../" * 40 + self.bea.path("docs.npy")[1:]
        for more in (
            {"working_folder": self.bea.home, "queries": self.ann.path("queries.npy")},
            {"docs": climb},
            {"docs": "../daemon/docs.npy"},
            {"docs": "./.././daemon//docs.npy"},
            {"working_folder": self.bea.home + "/../daemon", "output": self.ann.path("out.pkl")},
        ):
            with self.subTest(more=more):
                self.assert_fails(self.ann, self.client, "permission_denied", **more)
        for folder in ("relative", "../x", ""):
            with self.subTest(folder=folder), self.assert_refused("bad_request"):
                self.submit_as(self.ann, self.client, working_folder=folder)
        self.assert_nothing_new(self.bea.home, ["docs.npy", "queries.npy"])

    def test_inputs_that_are_no_files(self):
        os.mkfifo(self.ann.path("fifo"))
        os.chmod(self.ann.path("fifo"), 0o666)
        os.mkdir(self.ann.path("folder"))
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(self.ann.path("socket"))
        os.chmod(self.ann.path("socket"), 0o777)
        for path in ("fifo", "folder", "socket", "/dev/null", "/dev/zero", "/dev/random", "/dev/tty", "/dev/full",
                     self.daemon.socket_path):  # fmt: skip
            with self.subTest(path=path):
                job = self.assert_fails(self.ann, self.client, REFUSALS, path, docs=path)
                self.assertLess(job["elapsed_seconds"], 5)
                self.assert_fails(self.ann, self.client, REFUSALS, queries=path)
        self.assert_works_for(self.bea)

    def test_inputs_in_proc(self):
        """The supervisor's and the worker's own memory, environment and descriptors, by name."""
        supervisor = f"/proc/{self.daemon.pid}"
        of_supervisor = [f"{supervisor}/fd/{name}" for name in os.listdir(f"{supervisor}/fd")]
        self.assertGreater(len(of_supervisor), 6)
        paths = [
            *of_supervisor,
            *(f"{supervisor}/{name}" for name in ("mem", "environ", "maps", "root/etc/shadow", "cwd/state/journal.db")),
            *(f"/proc/self/{name}" for name in ("mem", "environ", "maps", "fd/0", "fd/3", "exe", "cmdline")),
            "/proc/kcore",
            "/proc/1/environ",
            "/etc/shadow",
        ]
        for path in paths:
            with self.subTest(path=path):
                job = self.assert_fails(self.ann, self.client, REFUSALS, docs=path)
                self.assertLess(job["elapsed_seconds"], 5)
                self.assert_says_no_secret(job)
                if path.startswith((supervisor, "/proc/1/", "/etc")):
                    self.assertEqual(job["error_code"], "permission_denied", job)
        self.assert_works_for(self.bea)

    def test_state_of_the_daemon_is_neither_input_nor_output(self):
        journal = os.path.join(self.daemon.state, "journal.db")
        before = sorted(os.listdir(self.daemon.state))
        for name in ("journal.db", "journal.db-wal", "reserve", "lock", "logs/1.log"):
            with self.subTest(name=name):
                path = os.path.join(self.daemon.state, name)
                self.assert_fails(self.ann, self.client, "permission_denied", docs=path)
                self.assert_fails(self.ann, self.client, "permission_denied", output=path)
        for path in (self.daemon.socket_path, self.daemon.socket_path + ".lock", self.daemon.binary):
            with self.subTest(path=path):
                self.assert_fails(self.ann, self.client, REFUSALS, output=path)
        self.assertEqual(sorted(os.listdir(self.daemon.state)), before)
        self.assertTrue(os.path.exists(journal))
        self.assert_works_for(self.ann)


class WritingOthersFiles(FilesTestCase):
    def test_output_where_the_user_may_not_write(self):
        roots = os.path.join(self.daemon.folder, "roots")
        os.mkdir(roots, 0o755)
        for folder in (self.bea.home, roots, self.open_folder(self.bea, "open", 0o755), self.daemon.programs):
            before = os.listdir(folder)
            with self.subTest(folder=folder):
                self.assert_fails(self.ann, self.client, "permission_denied", output=os.path.join(folder, "out.pkl"))
                self.assert_nothing_new(folder, before)

    def test_output_over_the_file_of_another(self):
        """In bea's home, in her open folder, in a sticky one that everybody writes to."""
        sticky = self.open_folder(self.bea, "sticky", 0o1777)
        folder = self.open_folder(self.bea, "open", 0o755)
        victims = []
        for where, mode in ((self.bea.home, 0o600), (folder, 0o666), (sticky, 0o600), (sticky, 0o666)):
            victims.append(os.path.join(where, f"victim-{mode:o}.pkl"))
            os.rename(self.bea.write("victim", SECRET, mode), victims[-1])
        for victim in victims:
            with self.subTest(victim=victim), self.watch(victim):
                self.assert_fails(self.ann, self.client, "permission_denied", output=victim)
        self.assertEqual(sorted(os.listdir(sticky)), ["victim-600.pkl", "victim-666.pkl"])

    def test_symbolic_link_as_output_leads_nowhere_that_its_maker_may_not_write(self):
        folder = self.open_folder(self.bea, "open", 0o755)
        victim = os.path.join(folder, "victim.pkl")
        os.rename(self.bea.write("victim", SECRET, 0o666), victim)
        for target in (victim, self.bea.path("docs.npy"), os.path.join(folder, "new.pkl")):
            with self.subTest(target=target), self.watch(victim), self.watch(self.bea.path("docs.npy")):
                with self.ann.acting():
                    os.symlink(target, self.ann.path("link.pkl"))
                self.assert_fails(self.ann, self.client, "permission_denied", output="link.pkl")
                os.unlink(self.ann.path("link.pkl"))
        self.assert_nothing_new(folder, ["victim.pkl"])

    def test_symbolic_link_as_output_swapped_in_during_the_job(self):
        victim = self.bea.write("victim.pkl", SECRET, 0o666)
        os.chmod(self.bea.home, 0o755)
        for calls in (fault_rules.WRITE, fault_rules.RENAME):
            with self.subTest(calls=calls), self.watch(victim):
                path = "*/.out.pkl.*.tmp"
                hold = self.daemon.faults.rule(WORKER, calls, HOLD, path=path)
                job = self.submit_as(self.ann, self.client)
                hold.wait()
                with self.ann.acting():
                    os.symlink(victim, self.ann.path("out.pkl"))
                hold.remove()
                job = self.client.wait(job)[job]
                # The link itself has been replaced, not what it leads to.
                self.assert_done_as(self.ann, job, self.ann.path("out.pkl"))
                os.unlink(self.ann.path("out.pkl"))

    def test_temporary_file_swapped_for_a_link_during_the_job(self):
        """The file that is written stays the one that was made; the link gets no byte and no mode."""
        victim = self.bea.write("victim.pkl", SECRET, 0o666)
        os.chmod(self.bea.home, 0o755)
        for link in (os.symlink, os.link):
            with self.subTest(link=link.__name__), self.watch(victim):
                job, hold, _ = self.hold_at_write(self.ann, self.client)
                temporary = self.temporaries()[0]
                os.unlink(temporary)
                link(victim, temporary)  # by root: the kernel forbids users to link others' files (protected_hardlinks)
                hold.remove()
                self.client.wait(job)
                for left in [self.ann.path("held.pkl"), *self.temporaries()]:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(left)
            os.chmod(victim, 0o666)
        self.assert_works_for(self.ann)

    def test_temporary_file_of_a_killed_job_swapped_for_a_link(self):
        """What removes leftovers goes by ann's names, with ann's rights: hers may lead to bea's file of the same name."""
        os.chmod(self.bea.home, 0o755)
        for swap in ("temporary file", "output"):
            with self.subTest(swap=swap):
                job, hold, worker = self.hold_at_write(self.ann, self.client)
                temporary = self.temporaries()[0]
                bait = self.bea.write(os.path.basename(temporary), SECRET, 0o666)
                link, target = (temporary, bait)
                if swap == "output":
                    link, target = self.ann.path("held.pkl"), self.bea.path("held.pkl")
                with self.ann.acting():
                    os.unlink(temporary)
                    os.symlink(target, link)
                with self.watch(bait):
                    self.daemon.kill_worker(worker)
                    hold.remove()
                    self.assertEqual(self.client.wait(job)[job]["state"], "failed")
                    for _ in range(2):
                        self.assert_works_for(self.ann)
                os.unlink(bait)
                os.unlink(link)

    def test_folder_of_the_output_renamed_during_the_job(self):
        os.chmod(self.bea.home, 0o755)
        with self.ann.acting():
            os.mkdir(self.ann.path("results"))
        hold = self.daemon.faults.rule(WORKER, fault_rules.WRITE, HOLD, path="*/results/*.tmp")
        job = self.submit_as(self.ann, self.client, output="results/out.pkl")
        hold.wait()
        before = os.listdir(self.bea.home)
        with self.ann.acting():
            os.rename(self.ann.path("results"), self.ann.path("moved"))
            os.symlink(self.bea.home, self.ann.path("results"))
        hold.remove()
        self.assertEqual(self.client.wait(job)[job]["state"], "done")
        self.assert_nothing_new(self.bea.home, before)
        self.assert_same_bits(self.expected_result(), load_result(self.ann.path("moved/out.pkl")))

    def test_hard_link_to_the_file_of_another_as_output(self):
        """The name is replaced; the file behind it is nobody's business."""
        victim = self.bea.write("victim.pkl", SECRET, 0o600)
        os.link(victim, self.ann.path("out.pkl"))  # by root; protected_hardlinks keeps users from it
        with self.watch(victim):
            job = self.submit_as(self.ann, self.client)
            self.assert_done_as(self.ann, self.client.wait(job)[job])

    def test_outputs_that_are_no_files(self):
        os.mkfifo(self.ann.path("fifo"))
        os.mkdir(self.ann.path("folder"))
        for name in ("fifo", "folder"):
            os.chown(self.ann.path(name), self.ann.uid, self.ann.gid)
        supervisor = f"/proc/{self.daemon.pid}"
        for path in ("fifo", "folder", "/dev/null", "/dev/full", "/proc/self/mem", "/proc/self/fd/3",
                     "/proc/self/oom_score_adj", f"{supervisor}/oom_score_adj", f"{supervisor}/fd/1",
                     f"{supervisor}/cwd/state/journal.db"):  # fmt: skip
            with self.subTest(path=path):
                self.assert_fails(self.ann, self.client, (*REFUSALS, "internal"), output=path)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))
        self.assertTrue(stat.S_ISFIFO(os.stat(self.ann.path("fifo")).st_mode))
        self.assert_works_for(self.bea)

    def test_umask_that_lies_gives_away_the_users_own_result_only(self):
        for umask in (0, 0o022, 0o077, 0o777):
            with self.subTest(umask=oct(umask)):
                job = self.submit_as(self.ann, self.client, f"{umask}.pkl", umask=umask)
                self.assert_done_as(self.ann, self.client.wait(job)[job])
                self.assertEqual(stat.S_IMODE(os.stat(self.ann.path(f"{umask}.pkl")).st_mode), 0o666 & ~umask)
        for umask in (0o1000, 0o7777, -1, 1 << 40):
            with self.subTest(umask=umask), self.assert_refused("bad_request"):
                self.submit_as(self.ann, self.client, umask=umask)
        # The next job in the same worker has its own.
        self.assert_works_for(self.ann)

    def test_killed_daemon_removes_leftovers_as_their_user_only(self):
        """After kill -9 the journal names the temporary file; by then ann's folder leads into bea's."""
        os.chmod(self.bea.home, 0o755)
        with self.ann.acting():
            os.mkdir(self.ann.path("results"))
        hold = self.daemon.faults.rule(WORKER, fault_rules.WRITE, HOLD, path="*/results/*.tmp")
        job = self.submit_as(self.ann, self.client, output="results/out.pkl")
        hold.wait()
        name = os.path.basename(self.temporaries()[0])
        self.daemon.kill(signal.SIGKILL)
        wait_for(lambda: not self.daemon.workers(), "the worker's end")
        hold.remove()
        bait = self.bea.write(name, SECRET, 0o666)
        with self.ann.acting():
            os.rename(self.ann.path("results"), self.ann.path("moved"))
            os.symlink(self.bea.home, self.ann.path("results"))
        with self.watch(bait):
            self.daemon.start()
            client = self.connect(self.ann)
            client.wait(job)
            self.assertEqual(client.job(job)["error_code"], "permission_denied")
            self.assert_works_for(self.bea)


class Paths(FilesTestCase):
    def test_control_characters_in_paths_forge_no_line(self):
        """Of a log, an error, or the daemon's own messages."""
        forged = "2026-01-01 00:00:00.000 info worker 1 started"
        with self.assert_refused("bad_request"):
            self.submit_as(self.ann, self.client, docs="a\0b")
        for path in (f"x\n{forged}", f"x\r\n{forged}", f"\x1b[2J\x1b]0;{forged}\x07", f"x\u2028{forged}"):
            with self.subTest(path=path):
                before = self.daemon.messages().count("\n")
                job = self.assert_fails(self.ann, self.client, REFUSALS, docs=path)
                text = self.client.call("log", job=job["id"])["text"]
                for where in (job["error"], text, self.daemon.messages()):
                    for line in where.splitlines():
                        self.assertFalse(line.startswith(forged), where)
                    self.assertNotIn("\x1b", where)
                self.assertLessEqual(self.daemon.messages().count("\n") - before, 4)
        self.assert_works_for(self.ann)


if __name__ == "__main__":
    unittest.main()
