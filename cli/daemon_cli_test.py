"""tiny-knn daemon and the commands about its queue, with real processes on a real socket."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import cli_harness
from cli_harness import BINARY
from daemon_cli_harness import DaemonCliTest, alive, wait_until

_TALKING = [
    *(["submit", "q.npy", "d.npy"], ["submit", "q.npy", "d.npy", "--wait"], ["status"], ["status", "1"]),
    *(["status", "--watch"], ["wait", "1"], ["log", "1"], ["cancel", "1"], ["clean"], ["drain"], ["shutdown"]),
]


class NoDaemonTest(DaemonCliTest):
    def test_every_command_says_how_to_start_one(self):
        for args in _TALKING:
            with self.subTest(args=args):
                self.assert_refused(*args, code=1, says=[str(self.socket), "tiny-knn daemon --background"])

    def test_a_socket_that_is_none(self):
        for args in _TALKING:
            with self.subTest(args=args):
                self.assert_refused(*args, "--socket", "relative", says="--socket relative: ")
        (self.base / "file").touch()
        self.assert_refused("status", "--socket", self.base / "file", code=1, says="regular file")

    def test_wrong_use_is_noticed_without_a_daemon(self):
        for verb in ("wait", "cancel"):
            self.assert_refused(verb, says="missing ID")
        self.assert_refused("log", says="missing ID")
        self.assert_refused("log", "1", "2", says="unexpected argument '2'")
        for verb in ("status", "wait", "log", "cancel"):
            for word in ("abc", "0", "1.5", "99999999999999999999"):
                self.assert_refused(verb, word, says="a job's ID expects a whole number")
        self.assert_refused("clean", "1", says="unexpected argument '1'")
        self.assert_refused("shutdown", "--undo", says="unknown flag --undo")

    def test_the_worker_is_not_for_people(self):
        self.assert_refused("worker", says="started by the daemon")
        self.assertNotIn("worker", self.run_ok("help").stdout)


class StartTest(DaemonCliTest):
    def test_in_the_background_it_is_ready_when_the_command_returns(self):
        done = self.run_ok("daemon", "--background", "--state-dir", self.base / "made", "--device", "cpu")
        pid = int(re.search(r"pid (\d+)", done.stdout)[1])
        try:
            self.assertEqual(self.run_ok("submit", "q.npy", "d.npy", "-k", 2, "--wait").stdout, "top2_q_x_d.pkl\n")
            self.assertIn("ended", self.run_ok("shutdown").stderr)
            wait_until(lambda: not alive(pid), "the end of the daemon")
        finally:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.assertGreater(os.path.getsize(self.base / "made" / "daemon.log"), 0)

    def test_flags_reach_the_daemon(self):
        socket = self.base / "other"
        flags = ["--max-memory", "1.5G", "--threads", "1", "--idle-release", "5m", "--grace", "3s"]
        self.socket = socket
        daemon = self.start("--socket", socket, *flags)
        with open(f"/proc/{daemon.pid}/cmdline", "rb") as file:
            words = file.read().decode().split("\0")[:-1]
        self.assertTrue(words[0].endswith("/tiny-knnd"), words[0])
        given = dict(zip(words[1::2], words[2::2]))
        self.assertEqual(given["--max-memory"], str(3 << 29))
        self.assertEqual((given["--idle-release"], given["--grace"]), ("300", "3"))
        self.assertEqual((given["--socket"], given["--state-dir"]), (str(socket), str(self.state)))
        self.assertTrue(os.path.samefile(given["--worker"], BINARY))
        self.assertIn("memory limit 1.5 GiB", self.run_ok("status", "--socket", socket).stdout)

    def test_a_second_one_is_refused(self):
        self.start()
        done = self.run_cli("daemon", "--state-dir", self.base / "second")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, str(self.socket))
        self.run_ok("status")

    def test_wrong_flags_are_one_line(self):
        self.assert_refused("daemon", "--max-memory", "lots", says="--max-memory expects a size")
        self.assert_refused("daemon", "--grace", "soon", says="--grace expects a duration")
        self.assert_refused("daemon", "--device", "gpu", says="--device expects")
        self.assert_refused("daemon", "--socket", "/" + "x" * 200, says="107")

    def test_a_program_without_its_daemon_says_so(self):
        (self.base / "bin").mkdir()
        shutil.copy(BINARY, self.base / "bin")
        done = subprocess.run(
            [self.base / "bin" / "tiny-knn", "daemon"], stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"\Atiny-knn: error: \S*/bin/tiny-knnd: [^\n]*\n\Z")


class StatusTest(DaemonCliTest):
    def test_the_table(self):
        self.start()
        self.save_big()
        self.run_ok("submit", "q.npy", "d.npy", "-k", 2, "--wait")
        self.submit_big()
        self.submit("q.npy", "d.npy", "--priority", -3)
        title, done, running, queued, device = self.run_ok("status").stdout.splitlines()
        columns = "ID USER STATE PRIO QxDxDIM K PROGRESS ELAPSED ETA REASON"
        self.assertEqual(title.split(), columns.split())
        self.assertRegex(done, r"^ *1 +\S+ +done +0 +3x5x2 +2 +100% +\S+ s +- +\S+/top2_q_x_d.pkl$")
        self.assertRegex(running, r"^ *2 +\S+ +running +0 +100000x100000x64 +10 +\d+% ")
        self.assertRegex(queued, r"^ *3 +\S+ +queued +-3 +3x5x2 +5 +- +- +.*behind 1 job")
        self.assertRegex(device, r"^device: cpu job 2; .*1 queued, 1 running$")

    def test_one_job_in_full(self):
        self.start()
        job = self.submit("q.npy", "d.npy", "-k", 2)
        self.run_ok("wait", job)
        lines = dict(re.findall(r"^(.{14})(.*)$", self.run_ok("status", job).stdout, re.MULTILINE))
        lines = {label.strip(): text for label, text in lines.items()}
        self.assertEqual((lines["job"], lines["state"], lines["queries"]), (job, "done", "q.npy"))
        self.assertEqual(lines["output"], f"{self.folder}/top2_q_x_d.pkl")
        self.assertRegex(lines["finished"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
        self.assert_refused("status", job, "77", says="77")

    def test_json_is_an_array(self):
        self.start()
        self.assertEqual(self.jobs(), [])
        for _ in range(2):
            self.run_ok("submit", "q.npy", "d.npy", "--wait")
        jobs = self.jobs()
        self.assertEqual([job["id"] for job in jobs], [1, 2])
        for job in jobs:
            self.assertLessEqual({"id", "user", "state", "progress", "output_path", "error"}, set(job))
            self.assertEqual((job["state"], job["progress"], job["error"]), ("done", 1, None))
            self.assertIsInstance(job["user"], str)
        self.assertEqual(self.jobs(2), jobs[1:])

    def test_only_the_last_finished_jobs_unless_all(self):
        self.start()
        for _ in range(12):
            last = self.submit("q.npy", "d.npy")
        self.run_ok("wait", last)
        self.assertEqual([job["id"] for job in self.jobs()], list(range(3, 13)))
        self.assertEqual([job["id"] for job in self.jobs("--all")], list(range(1, 13)))

    def test_watching_prints_a_line_for_every_change(self):
        self.start()
        self.save_big()
        self.run_ok("submit", "q.npy", "d.npy", "--wait")
        job = self.submit_big()
        process = self.popen("status", "--watch")
        first = self.read_until(process.stdout, "job")
        self.assertRegex(first[0], rf"^job {job} of \S+: running")  # job 1 is old
        self.run_ok("cancel", job)
        self.read_until(process.stdout, rf"^job {job} of \S+: cancelled")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)

    def test_watching_one_job_ends_with_it(self):
        self.start()
        job = self.submit("q.npy", "d.npy")
        lines = self.run_ok("status", job, "--watch", "--json").stdout.splitlines()
        self.assertEqual(json.loads(lines[-1])["state"], "done")

    def test_watching_on_a_terminal_redraws(self):
        self.start()
        ours, theirs = pty.openpty()
        process = self.popen("status", "--watch", stdout=theirs, variables={"TERM": "xterm"})
        os.close(theirs)
        seen = b""
        deadline = time.monotonic() + 60
        submitted = False
        while not re.search(rb"\x1b\[\d+A\r\x1b\[J.*ID.* done .*device: ", seen, re.DOTALL):
            self.assertLess(time.monotonic(), deadline, seen)
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536)
            if not submitted and b"device: " in seen:
                self.run_ok("submit", "q.npy", "d.npy", "--wait")
                submitted = True
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 0)
        os.close(ours)

    def test_a_reader_that_goes_away_ends_the_watching(self):
        self.start()
        job = self.submit("q.npy", "d.npy")
        process = self.popen("status", "--watch", "--json", "--all")
        process.stdout.readline()
        process.stdout.close()
        for _ in range(3):
            self.submit("q.npy", "d.npy")
        self.assertEqual(process.wait(60), 0)
        self.run_ok("wait", job)


class JobsTest(DaemonCliTest):
    def test_wait_prints_results_in_order(self):
        self.start()
        first = self.submit("q.npy", "d.npy", "-o", "a.pkl")
        second = self.submit("q.npy", "d.npy", "-o", "b.pkl")
        self.assertEqual(self.run_ok("wait", second, first).stdout, f"{self.folder}/b.pkl\n{self.folder}/a.pkl\n")
        both = json.loads(self.run_ok("wait", first, second, "--json").stdout)
        self.assertEqual([job["state"] for job in both], ["done", "done"])
        self.assert_refused("wait", first, "99", says="99")

    def test_wait_exits_as_the_first_that_failed(self):
        self.start()
        self.save_big()
        self.save("gone.npy", self.DOCS)
        running = self.submit_big()
        failing = self.submit("q.npy", "gone.npy")
        fine = self.submit("q.npy", "d.npy")
        (self.folder / "gone.npy").unlink()
        self.run_ok("cancel", running)
        done = self.run_cli("wait", fine, failing, running)
        self.assertEqual((done.returncode, done.stdout), (2, f"{self.folder}/top5_q_x_d.pkl\n"))
        self.assertRegex(done.stderr, rf"error: job {failing}: gone\.npy")
        self.assertRegex(done.stderr, rf"note: job {running}: ")
        self.assertEqual(self.run_cli("wait", running, failing).returncode, 1)
        states = json.loads(self.run_cli("wait", fine, failing, "--json").stdout)
        self.assertEqual([job["state"] for job in states], ["done", "failed"])

    def test_interrupting_wait_leaves_the_job_alone(self):
        self.start()
        self.save_big()
        job = self.submit_big()
        process = self.popen("wait", job)
        time.sleep(0.3)  # it may or may not have connected: both must do
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertIn(process.returncode, (130, -signal.SIGINT), err)
        self.assertEqual(self.job(job)["state"], "running")

    def test_log(self):
        self.start()
        job = self.submit("q.npy", "d.npy", "-k", 2)
        followed = self.run_ok("log", job, "--follow").stdout
        self.assertIn("k=2", followed)
        self.assertEqual(self.run_ok("log", job).stdout, followed)
        self.assert_refused("log", "99", says="99")
        self.assert_refused("log", "99", "--follow", says="99")

    def test_cancel_queued_running_and_finished(self):
        self.start()
        self.save_big()
        done = self.submit("q.npy", "d.npy")
        self.run_ok("wait", done)
        running = self.submit_big()
        queued = self.submit("q.npy", "d.npy", "-o", "never.pkl")
        result = self.run_ok("cancel", done, running, queued)
        self.assertEqual(result.stdout, "")
        self.assertIn(f"job {done}: done\n", result.stderr)
        self.assertIn(f"job {queued}: cancelled\n", result.stderr)
        self.wait_for_state(running, "cancelled")
        after = json.loads(self.run_ok("cancel", queued, running, "--json").stdout)
        self.assertEqual([job["state"] for job in after], ["cancelled", "cancelled"])
        self.assertFalse((self.folder / "never.pkl").exists())
        self.assertEqual(self.leftovers(), [])
        self.assert_refused("cancel", "99", says="99")

    def test_clean_forgets_finished_jobs_and_keeps_results(self):
        self.start()
        self.run_ok("submit", "q.npy", "d.npy", "--wait")
        self.assertIn("forgot 1 finished job\n", self.run_ok("clean").stderr)
        self.assertEqual(self.jobs("--all"), [])
        self.assertTrue((self.folder / "top5_q_x_d.pkl").exists())
        self.assertIn("forgot 0 finished jobs\n", self.run_ok("clean").stderr)


class ControlTest(DaemonCliTest):
    def test_drain_refuses_jobs_until_undone(self):
        self.start()
        self.save_big()
        job = self.submit_big()
        self.run_ok("drain")
        self.assertIn("draining: ", self.run_ok("status").stdout)
        self.assert_refused("submit", "q.npy", "d.npy", code=1, says="drain")
        self.run_ok("drain", "--undo")
        self.assertNotIn("draining: ", self.run_ok("status").stdout)
        self.submit("q.npy", "d.npy")
        self.run_ok("drain")
        self.run_ok("cancel", job)
        self.assertEqual(self.daemon.wait(60), 0)
        self.assertTrue((self.folder / "top5_q_x_d.pkl").exists())

    def test_shutdown_returns_when_the_daemon_has_ended(self):
        self.start()
        self.run_ok("shutdown")
        self.assertEqual(self.daemon.wait(60), 0)
        self.assert_refused("status", code=1, says="tiny-knn daemon")

    def test_shutdown_now_queues_the_running_job_again(self):
        self.start()
        self.save_big(40_000, 100_000)
        job = self.submit_big()
        self.run_ok("shutdown", "--now")
        self.assertEqual(self.daemon.wait(60), 0)
        self.start()
        self.run_ok("wait", job)
        self.assertEqual(self.job(job)["state"], "done")
        self.assertEqual(self.leftovers(), [])

    def test_interrupting_shutdown_does_not_take_it_back(self):
        self.start("--grace", "1h")
        self.save_big()
        job = self.submit_big()
        process = self.popen("shutdown")
        wait_until(lambda: "stopping: " in self.run_ok("status").stdout, "a daemon that stops")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn("still ends", err)
        self.run_ok("cancel", job)
        self.assertEqual(self.daemon.wait(60), 0)


if __name__ == "__main__":
    cli_harness.main()
