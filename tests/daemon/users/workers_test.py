"""What a worker is: its user and nothing more. What its user may do to it, and to nobody else's."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
import time
import unittest

sys.path.insert(0, "tests/daemon")
import fault_rules
from daemon_harness import exists, wait_for
from fault_rules import ABORT, ALWAYS, HOLD, STOP, WORKER
from users_harness import UsersTestCase, identity

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_DETACH, _PTRACE_SEIZE = 16, 17, 0x4206

SIGNALS = [number for number in range(65) if number not in (32, 33)]  # 0 asks only; those two are the C library's


def _system_call(number, *arguments):
    """The result, or the error as an OSError."""
    ctypes.set_errno(0)
    result = _LIBC.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def socket_of(pid):
    """The worker's own end of its socket, as whoever may trace it can have it."""
    descriptor = os.pidfd_open(pid)
    try:
        return socket.socket(fileno=_system_call(438, descriptor, 3, 0))  # pidfd_getfd
    finally:
        os.close(descriptor)


def attacks_on(pid, all_signals=True):
    """Tries what one process can do to another; returns the names of what worked."""
    word = ctypes.create_string_buffer(8)

    def read_memory_of():
        class Piece(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

        ours = Piece(ctypes.cast(word, ctypes.c_void_p), 8)
        theirs = Piece(ctypes.c_void_p(0x400000), 8)
        return _system_call(310, pid, ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)

    def open_file(name, flags=os.O_RDONLY):
        os.close(os.open(f"/proc/{pid}/{name}", flags))

    def read_maps():
        with open(f"/proc/{pid}/maps") as file:
            file.read()

    attacks = {
        "ptrace attach": lambda: _system_call(101, _PTRACE_ATTACH, pid, 0, 0),
        "ptrace seize": lambda: _system_call(101, _PTRACE_SEIZE, pid, 0, 0),
        "process_vm_readv": read_memory_of,
        "pidfd_getfd": lambda: socket_of(pid).close(),
        "list descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
        "read environ": lambda: open_file("environ"),
        "read memory": lambda: open_file("mem"),
        "read maps": read_maps,
        "write oom_score_adj": lambda: open_file("oom_score_adj", os.O_WRONLY),
        "enter cwd": lambda: os.listdir(f"/proc/{pid}/cwd"),
        "enter root": lambda: os.listdir(f"/proc/{pid}/root"),
        "read exe": lambda: os.readlink(f"/proc/{pid}/exe"),
        "prlimit": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, 4)),
        "renice": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "affinity": lambda: os.sched_setaffinity(pid, {0}),
        "pidfd_send_signal": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT),
    }
    for number in SIGNALS if all_signals else []:
        attacks[f"signal {number}"] = lambda number=number: os.kill(pid, number)
    worked = []
    for name, attack in attacks.items():
        try:
            attack()
            worked.append(name)
        except OSError:
            pass
    return worked


def kill_own_workers(supervisor):
    """Kills every child of the supervisor's that has become this user, again and again, as early as it can."""
    while True:
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):  # others' cannot be signalled
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                if parent == supervisor:
                    os.kill(int(name), signal.SIGKILL)


class WorkersTestCase(UsersTestCase):
    def setUp(self):
        super().setUp()
        self.of_ann = self.connect(self.ann)
        self.of_bea = self.connect(self.bea)

    def assert_failed_alone(self, job, *codes):
        """ann's job has failed, in one line."""
        job = self.of_ann.wait(job)[job]
        self.assertEqual(job["state"], "failed", job)
        self.assertIn(job["error_code"], codes, job)
        self.assertNotIn("\n", job["error"])
        return job


class Identity(WorkersTestCase):
    def test_worker_is_its_user_for_good(self):
        """All of its ids, no capability, no way back; the supervisor is as it was."""
        for user, client in ((self.ann, self.of_ann), (self.bea, self.of_bea)):
            with self.subTest(user=user.name):
                job, hold, worker = self.hold_at_write(user, client)
                found = identity(worker)
                self.assertEqual(found["Uid"], [user.uid] * 4)
                self.assertEqual(found["Gid"], [user.gid] * 4)
                self.assertEqual(set(found["Groups"]) - {user.gid}, set())
                for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                    self.assertEqual(found[name], 0, name)
                self.assertEqual(found["NoNewPrivs"], [1])
                for task in os.listdir(f"/proc/{worker}/task"):
                    self.assertEqual(identity(f"{worker}/task/{task}")["Uid"], [user.uid] * 4)
                with open(f"/proc/{worker}/stat") as file:
                    _, _, _, session, terminal = file.read().rpartition(")")[2].split()[:5]
                self.assertEqual((int(session), int(terminal)), (worker, 0))
                self.assertEqual(os.readlink(f"/proc/{worker}/cwd"), "/")
                self.assertEqual(os.readlink(f"/proc/{worker}/root"), "/")
                self.assertEqual(identity(self.daemon.pid)["Uid"], [0] * 4)
                hold.remove()
                self.assert_done_as(user, client.wait(job)[job])

    def test_environment_of_the_worker_is_what_is_listed(self):
        _, _, worker = self.hold_at_write(self.ann, self.of_ann)
        with open(f"/proc/{worker}/environ", "rb") as file:
            names = {entry.split(b"=")[0].decode() for entry in file.read().split(b"\0") if entry}
        allowed = {"LD_PRELOAD", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
        allowed |= {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
        allowed |= {f"{name}SAN_OPTIONS" for name in ("A", "L", "T", "UB")}
        self.assertEqual({name for name in names if not name.startswith("TINY_KNN_")} - allowed, set())
        with open(f"/proc/{worker}/cmdline", "rb") as file:
            self.assertNotIn(b"held.pkl", file.read())  # everybody may read that

    def test_descriptors_of_the_worker(self):
        """As its user can list them: no journal, lock, log, listening socket or connection among them."""
        _, _, worker = self.hold_at_write(self.ann, self.of_ann)

        def descriptors():
            folder = f"/proc/{worker}/fd"
            return {int(name): os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}

        try:
            found = self.ann.run(descriptors)
        except PermissionError:
            found = descriptors()  # then nobody but root may
        self.assertEqual([found.pop(number) for number in (0, 1, 2)], ["/dev/null"] * 3)
        self.assertTrue(found.pop(3).startswith("socket:"))
        for number, path in found.items():
            self.assertTrue(path.startswith(self.ann.home), (number, path))
        self.assertGreaterEqual(len(found), 1)  # the temporary file: the list is not empty by accident

    def test_worker_dies_with_the_supervisor(self):
        """Although becoming another user takes back what it asked of the kernel; and stopped as well."""
        for how in (HOLD, STOP):
            with self.subTest(how=how):
                rule = self.daemon.faults.rule(WORKER, fault_rules.WRITE, how, path="*/.out.pkl.*.tmp")
                self.submit_as(self.ann, self.of_ann)
                rule.wait()
                self.assertEqual(identity(rule.pid)["Uid"], [self.ann.uid] * 4)
                self.daemon.kill(signal.SIGKILL)
                wait_for(lambda pid=rule.pid: not exists(pid), "death of the worker", 10)
                rule.remove()
                self.daemon.start()
                self.of_ann = self.connect(self.ann)
                self.of_ann.wait(*self.of_ann.jobs())
                self.assert_works_for(self.bea)

    def test_uid_without_an_entry_in_passwd_fails_alone(self):
        """With a message that says what is missing; it has no groups and no home, so it gets no worker."""
        client = self.connect(self.stranger)
        began = time.monotonic()
        jobs = [self.submit_as(self.stranger, client, f"{number}.pkl") for number in range(5)]
        for user, of_user in ((self.ann, self.of_ann), (self.bea, self.of_bea)):
            self.assert_works_for(user, of_user)
        self.assertLess(time.monotonic() - began, 10)
        for job in client.wait(*jobs).values():
            self.assertEqual(job["state"], "failed", job)
            self.assertEqual(job["error_code"], "permission_denied", job)
            self.assertIn("54321", job["error"])
            self.assertIn("passwd", job["error"])
            self.assertNotIn("\n", job["error"])
            self.assertFalse(os.path.exists(self.stranger.path("0.pkl")))
        self.assert_works_for(self.ann, self.of_ann)


class Signals(WorkersTestCase):
    def test_supervisor_is_out_of_every_users_reach(self):
        for user in (self.ann, self.admin):
            with self.subTest(user=user.name):
                self.assertEqual(user.run(attacks_on, self.daemon.pid), [])
        self.assertEqual(self.daemon.process.poll(), None)
        self.assert_works_for(self.bea)

    def test_worker_of_another_is_out_of_reach(self):
        job, hold, worker = self.hold_at_write(self.bea, self.of_bea)
        for user in (self.ann, self.admin):
            with self.subTest(user=user.name):
                self.assertEqual(user.run(attacks_on, worker), [])
        hold.remove()
        self.assert_done_as(self.bea, self.of_bea.wait(job)[job])
        # Its own user can stop it: the attacks above are none that never work.
        worker = self.daemon.worker_of(self.bea)
        self.assertIn("signal 9", self.bea.run(attacks_on, worker))

    def test_worker_killed_by_its_user_fails_that_job_alone(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGBUS):
            with self.subTest(number=number):
                job, hold, worker = self.hold_at_write(self.ann, self.of_ann)
                began = time.monotonic()
                waiting = self.submit_as(self.bea, self.of_bea)
                self.ann.run(os.kill, worker, number)
                hold.remove()
                self.assert_done_as(self.bea, self.of_bea.wait(waiting, timeout=10)[waiting])
                self.assertLess(time.monotonic() - began, 5)
                self.assert_failed_alone(job, "aborted")
                wait_for(lambda: not self.temporaries(), "removal of the temporary file", 10)

    def test_worker_stopped_by_its_user_holds_up_nobody_beyond_its_jobs_time(self):
        job, hold, worker = self.hold_at_write(self.ann, self.of_ann, timeout=1)
        waiting = self.submit_as(self.bea, self.of_bea)
        self.ann.run(os.kill, worker, signal.SIGSTOP)
        hold.remove()
        began = time.monotonic()
        self.assert_done_as(self.bea, self.of_bea.wait(waiting, timeout=20)[waiting])
        self.assertLess(time.monotonic() - began, 15)
        self.assert_failed_alone(job, "deadline_exceeded")
        # An idle one that was stopped is replaced when another's turn comes.
        self.assert_works_for(self.ann, self.of_ann)
        worker = self.daemon.worker_of(self.ann)
        self.ann.run(os.kill, worker, signal.SIGSTOP)
        self.assert_works_for(self.bea, self.of_bea, within=5)
        self.assertFalse(exists(worker))

    def test_user_who_kills_every_worker_of_his_holds_up_nobody(self):
        """Before their hello and after; his jobs fail, in the end, and say why."""
        with self.ann.running(kill_own_workers, self.daemon.pid):
            jobs = [self.submit_as(self.ann, self.of_ann, f"{number}.pkl") for number in range(8)]
            self.assert_works_for(self.bea, self.of_bea, within=5)
            # Seven deaths in a row: the next worker of ann's has to wait for seconds, nobody else's.
            for job in self.of_ann.wait(*jobs[:7]).values():
                self.assertEqual((job["state"], job["error_code"]), ("failed", "aborted"), job)
            began = time.monotonic()
            for _ in range(3):
                self.assert_works_for(self.bea, self.of_bea)
            took = time.monotonic() - began
            waits = self.of_ann.job(jobs[7])["state"] == "queued"
            print(f"3 jobs beside a user who kills his workers: {took:.2f} s; his next one waits: {waits}")
            self.assertLess(took, 1.5)
            self.assertTrue(waits)
        for job in self.of_ann.wait(*jobs).values():
            self.assertIn(job["state"], ("failed", "done"), job)
        self.assert_works_for(self.ann, self.of_ann, within=40)

    def test_worker_that_dies_before_its_hello_fails_its_users_job_alone(self):
        self.daemon.faults.rule(WORKER, fault_rules.START, ABORT, last=ALWAYS)
        job = self.submit_as(self.ann, self.of_ann)
        job = self.assert_failed_alone(job, "aborted")
        self.assertEqual(self.of_ann.call("stats")["journal"], "ok")
        self.daemon.faults.clear()
        self.assert_works_for(self.bea, self.of_bea, within=5)
        self.assert_works_for(self.ann, self.of_ann)

    def test_signals_to_minus_one_reach_no_other(self):
        """kill(-1) goes to every process that the user may signal."""
        supervisor = self.daemon.pid

        def kill_all():
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)

        job, hold, worker = self.hold_at_write(self.bea, self.of_bea)
        self.ann.run(kill_all)
        self.assertTrue(exists(worker))
        self.assertTrue(exists(supervisor))
        hold.remove()
        self.assert_done_as(self.bea, self.of_bea.wait(job)[job])


class Lies(WorkersTestCase):
    def talk(self, worker, lines):
        """The lines come from the worker, as its user can make them come."""

        def send():
            with socket_of(worker) as copy:
                copy.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

        try:
            self.ann.run(send)
        except PermissionError:
            send()  # then nobody but root may

    def finished(self, job, **more):
        result = {"type": "finished", "job": job, "error_code": "ok", "error": "", "output_path": "", "device": "cpu"}
        result.update(docs_state=None, report=None, search_seconds=0, total_seconds=0, warm_docs=[])
        return {**result, **more}

    def test_worker_that_lies_is_believed_about_its_own_job_only(self):
        job, hold, worker = self.hold_at_write(self.ann, self.of_ann)
        of_bea = self.submit_as(self.bea, self.of_bea, "of-bea.pkl")
        lies = []
        for about in (of_bea, 999, 1 << 62):
            lies += [
                self.finished(about, output_path="/etc/passwd"),
                {"type": "removed", "job": about},
                {"type": "progress", "job": about, "pairs_done": 9, "pairs_total": 9},
                {"type": "log", "job": about, "text": "a lie"},
            ]
        lies += [{"type": "log", "job": job, "text": "of its own"}]
        self.talk(worker, lies)
        wait_for(lambda: "of its own" in self.of_ann.call("log", job=job)["text"], "the lies being heard")
        self.assertEqual(self.of_bea.job(of_bea)["state"], "queued")
        warm = {"docs_path": self.bea.path("docs.npy"), "dtype": "float32", "metric": "ip", "bytes": 1 << 40}
        self.talk(worker, [self.finished(job, output_path=self.bea.path("docs.npy"), warm_docs=[warm])])
        self.assertEqual(self.of_ann.wait(job)[job]["state"], "done")
        hold.remove()
        self.assert_done_as(self.bea, self.of_bea.wait(of_bea)[of_bea])
        self.assertEqual(self.of_bea.job(of_bea)["docs_state"], "cold")
        self.assertNotIn("a lie", self.of_bea.call("log", job=of_bea)["text"])
        self.assertEqual(self.connect(self.admin).call("stats")["warm_docs"], [])
        for docs in self.of_bea.call("stats")["warm_docs"]:
            self.assertLess(docs["bytes"], 1 << 40)
        self.assert_works_for(self.ann, self.of_ann)

    def test_worker_that_lies_about_its_time_pays_for_what_it_took(self):
        """The supervisor's own clock is what users are charged by."""
        job, hold, worker = self.hold_at_write(self.ann, self.of_ann)
        time.sleep(0.3)
        self.talk(worker, [self.finished(job, search_seconds=-1e300, total_seconds=-1e300)])
        job = self.of_ann.wait(job)[job]
        hold.remove()
        if job["state"] == "done":  # else it was no message, and the worker is gone
            self.assertGreaterEqual(job["elapsed_seconds"], 0.3)
        of_ann = self.submit_as(self.ann, self.of_ann)
        self.assert_works_for(self.bea, self.of_bea)
        self.of_ann.wait(of_ann)

    def test_worker_that_floods_its_log_fills_its_own_megabyte_only(self):
        job, hold, worker = self.hold_at_write(self.ann, self.of_ann)
        line = {"type": "log", "job": job, "text": "x" * 10000}
        self.talk(worker, [line] * 500)
        forged = "forged\n2026-01-01 00:00:00.000 info worker 1 started\x1b[2J"
        lies = [{"type": "log", "job": job, "text": forged}, self.finished(job, error_code="internal", error=forged)]
        self.talk(worker, lies)
        job = self.of_ann.wait(job)[job]
        hold.remove()
        self.assertNotIn("\n", job["error"])
        self.assertNotIn("\x1b", job["error"])
        logs = os.path.join(self.daemon.state, "logs")
        self.assertLess(sum(os.path.getsize(os.path.join(logs, name)) for name in os.listdir(logs)), 1200000)
        self.assertNotIn("forged", self.daemon.messages())
        self.assert_works_for(self.bea, self.of_bea)

    def test_worker_program_started_by_hand_is_nothing_but_a_program(self):
        """Its user may run it, with a socket of his own: it says hello to nobody else."""

        def start_one():
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                os.dup2(theirs.fileno(), 3)
                os.execv(binary, [binary, "worker", "--device", "cpu"])
            theirs.close()
            ours.settimeout(20)
            hello = ours.recv(1 << 16)
            ours.close()
            return os.waitpid(pid, 0)[1], hello

        binary = self.daemon.binary
        status, hello = self.ann.run(start_one)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertIn(b"hello", hello)
        self.assertFalse(os.stat(binary).st_mode & (stat.S_ISUID | stat.S_ISGID))


if __name__ == "__main__":
    unittest.main()
