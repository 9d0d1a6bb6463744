"""tiny-knn submit against a real daemon: the same results and words as run, and nothing lost on the way."""

import json
import os
import pathlib
import re
import signal

import numpy

import cli_harness
from daemon_cli_harness import DaemonCliTest, wait_until


def notes(err):
    """What is said besides the job's own story and the times."""
    said = [line for line in err.splitlines() if not re.search(r"note: (this key's )?job \d+", line)]
    return [re.sub(r": [\d.]+ s, .*", "", line) for line in said]


def has_socket(pid):
    try:
        return any(os.readlink(link).startswith("socket:") for link in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # one was closed meanwhile
        return False


class SameAsRunTest(DaemonCliTest):
    def test_results_are_the_same_bytes_and_words(self):
        self.start()
        random = numpy.random.default_rng(5)
        docs = random.integers(-3, 4, (60, 8)).astype(numpy.float32)
        docs[7, 3] = numpy.nan
        self.save("docs.npy", docs)
        self.save("half.npy", docs[:20].astype(numpy.float16))
        for flags in (
            [],
            ["-k", 5],
            ["-k", 5, "--metric", "l2", "--dtype", "float64", "--verify", 3],
            ["-k", 5, "--metric", "cosine", "--dtype", "float16", "--batch-size", 7],
            ["-k", 5, "--dtype", "bfloat16", "--exclude-self", "--threads", 1, "--memory-limit", "1G"],
        ):
            with self.subTest(flags=flags):
                run = self.run_ok("run", "half.npy", "docs.npy", "--cpu", "-o", "o.pkl", *flags)
                (self.folder / "o.pkl").rename(self.folder / "run.pkl")
                submit = self.run_ok("submit", "half.npy", "docs.npy", "--cpu", "-o", "o.pkl", "--wait", *flags)
                self.assert_same_bytes("o.pkl", "run.pkl")
                self.assertEqual(submit.stdout, run.stdout)
                self.assertEqual(notes(submit.stderr), notes(run.stderr))
        self.assertIn(", docs cold\n", submit.stderr)

        # Docs are kept once their file has not been written to for a moment.
        def is_warm():
            again = self.run_ok("submit", "half.npy", "docs.npy", "--cpu", "-o", "o.pkl", "--wait", *flags)
            self.assert_same_bytes("o.pkl", "run.pkl")
            return ", docs warm\n" in again.stderr

        wait_until(is_warm, "warm docs")

    def test_the_default_name_lies_in_the_submitters_folder(self):
        self.start()
        self.assertEqual(self.run_ok("submit", "q.npy", "d.npy", "--wait", "-q").stdout, "top5_q_x_d.pkl\n")
        self.assertEqual(self.jobs()[0]["output_path"], str(self.folder / "top5_q_x_d.pkl"))
        self.assertEqual(self.load("top5_q_x_d.pkl")["indices"].shape, (3, 5))

    def test_quiet_says_nothing_and_verbose_more(self):
        self.start()
        self.assertEqual(self.run_ok("submit", "q.npy", "d.npy", "-k", 1, "--wait", "-q").stderr, "")
        same = ("q.npy", "d.npy", "-k", 1, "--cpu", "-v")
        rescored = [
            re.findall(r"\n(tiny-knn: \d+ pairs rescored exactly, \d+\.\d a query), \d+\.\d+ s to write\n", self.run_ok(*verb, *same).stderr)
            for verb in (("submit", "--wait"), ("run",))
        ]
        self.assertEqual(len(rescored[0]), 1)
        self.assertEqual(rescored[0], rescored[1])

    def test_dry_run_prints_the_plan_and_queues_nothing(self):
        self.start()
        same = ("q.npy", "d.npy", "--cpu", "--memory-limit", "1G", "--dry-run")
        plans = [re.sub(r"(?m)^(estimate +)\d.*", r"\1#", self.run_ok(verb, *same).stdout) for verb in ("submit", "run")]
        self.assertRegex(plans[0], "\nestimate +#\n")
        self.assertEqual(plans[0], plans[1])
        self.assertEqual(self.jobs(), [])

    def test_the_submitters_umask_holds(self):
        self.start()
        for mask, mode in ((0o077, 0o600), (0o027, 0o640)):
            self.run_ok("submit", "q.npy", "d.npy", "--wait", preexec_fn=lambda mask=mask: os.umask(mask))
            self.assertEqual(os.stat(self.folder / "top5_q_x_d.pkl").st_mode & 0o777, mode)


class QueueTest(DaemonCliTest):
    def test_what_run_refuses_is_not_queued(self):
        self.start()
        (self.folder / "text").write_text("hello")
        self.save("wide.npy", numpy.zeros((2, 9), numpy.float32))
        for args, says in (
            (["none.npy", "d.npy"], "none.npy"),
            (["text", "d.npy"], "text"),
            (["wide.npy", "d.npy"], "9"),
            (["q.npy", "d.npy", "-k", "6"], "6"),
            (["q.npy", "d.npy", "-o", "nowhere/o.pkl"], "nowhere"),
            (["q.npy", "d.npy", "-o", "q.npy"], "overwrite"),
            (["q.npy", "d.npy", "--device", "gpu"], "--device"),
            (["q.npy", "d.npy", "--priority", "1000"], "--priority"),
            (["q.npy"], "missing DOCS"),
        ):
            with self.subTest(args=args):
                self.assert_refused("submit", *args, says=says)
        self.assertEqual(self.jobs(), [])

    def test_one_key_is_one_job(self):
        self.start()
        first = self.submit("q.npy", "d.npy", "--key", "nightly")
        self.assertEqual(self.submit("q.npy", "d.npy", "--key", "nightly"), first)
        again = self.run_ok("submit", "q.npy", "d.npy", "--key", "nightly", "--wait")
        self.assertIn(f"this key's job {first} is", again.stderr)
        self.assertEqual(len(self.jobs()), 1)
        self.assert_refused("submit", "q.npy", "d.npy", "-k", "2", "--key", "nightly", says="nightly")

    def test_priority_decides_who_is_next(self):
        self.start()
        self.save_big()
        running = self.submit_big()
        low = self.submit("q.npy", "d.npy", "--priority", "-5", "-o", "low.pkl")
        high = self.submit("q.npy", "d.npy", "--priority", "5", "-o", "high.pkl")
        self.assertEqual([job["state"] for job in self.jobs(low, high)], ["queued", "queued"])
        self.assertIn("behind", self.job(low)["reason"])
        self.run_ok("cancel", running)
        self.run_ok("wait", low, high)
        done = {job["id"]: job["started_at"] for job in self.jobs(low, high)}
        self.assertLess(done[int(high)], done[int(low)])

    def test_a_job_beyond_its_timeout_fails(self):
        self.start()
        self.save_big()
        done = self.run_cli("submit", "big_q.npy", "big_d.npy", "--timeout", "1s", "--wait", "-q")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Atiny-knn: error: job 1: [^\n]+\n\Z")
        self.assertEqual(self.job(1)["state"], "failed")
        wait_until(lambda: not self.leftovers(), "the removal of what the killed worker has left")

    def test_a_job_that_fails_later_exits_as_run_does(self):
        self.start()
        self.save_big()
        self.save("gone.npy", self.DOCS)
        running = self.submit_big()
        process = self.popen("submit", "q.npy", "gone.npy", "--wait")
        self.read_until(process.stderr, "job 2 queued")
        (self.folder / "gone.npy").unlink()
        self.run_ok("cancel", running)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (2, ""))
        self.assertIn("job 2: gone.npy", err)

    def test_json_is_the_job(self):
        self.start()
        queued = json.loads(self.run_ok("submit", "q.npy", "d.npy", "-k", 2, "--json").stdout)
        self.assertEqual((queued["id"], queued["k"], queued["error"]), (1, 2, None))
        self.assertIn("user", queued)
        done = json.loads(self.run_ok("submit", "q.npy", "d.npy", "-k", 2, "--json", "--wait").stdout)
        self.assertEqual((done["id"], done["state"], done["progress"]), (2, "done", 1))

    def test_follow_prints_every_change_as_json(self):
        self.start()
        lines = self.run_ok("submit", "q.npy", "d.npy", "--follow", "--json", "-q").stdout.splitlines()
        events = [json.loads(line) for line in lines]
        self.assertEqual({event["event"] for event in events}, {"job"})
        self.assertEqual(events[-1]["job"]["state"], "done")
        self.assertEqual({event["job"]["id"] for event in events}, {1})

    def test_follow_with_json_progress_speaks_as_run_does(self):
        self.start()
        self.save_big(20_000, 50_000)
        done = self.run_ok("submit", "big_q.npy", "big_d.npy", "-k", 3, "--follow", "--progress", "json")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        self.assertIn("progress", [event["event"] for event in events])
        self.assertEqual((events[-1]["event"], events[-1]["queries"]), ("done", 20_000))
        ran = self.run_ok("run", "q.npy", "d.npy", "--progress", "json").stderr.splitlines()
        self.assertEqual(list(events[-1]), list(json.loads(ran[-1])))
        self.assertEqual(done.stdout, "top3_big_q_x_big_d.pkl\n")

    def test_follow_draws_a_line_only_where_asked(self):
        self.start()
        self.assertNotIn("\r", self.run_ok("submit", "q.npy", "d.npy", "--follow").stderr)
        self.save_big(20_000, 100_000)  # runs for longer than the first event takes to come
        asked = self.run_ok("submit", "big_q.npy", "big_d.npy", "-k", 10, "--follow", "--progress", "always")
        self.assertIn("\r", asked.stderr)


class SpecTest(DaemonCliTest):
    def test_a_file_and_standard_input(self):
        self.start()
        (self.folder / "job.json").write_text('{"queries": "q.npy", "docs": "d.npy", "k": 2, "metric": "l2"}')
        self.run_ok("run", "q.npy", "d.npy", "-k", 2, "--metric", "l2", "--cpu", "-o", "run.pkl")
        self.assertEqual(self.run_ok("submit", "--spec", "job.json", "--wait", "-q").stdout, "top2_q_x_d.pkl\n")
        self.assert_same_bytes("top2_q_x_d.pkl", "run.pkl")
        with open(self.folder / "job.json", "rb") as spec:
            process = self.popen("submit", "--spec", "-", "--wait", "-q", stdin=spec)
        self.assertEqual(process.communicate(timeout=60), ("top2_q_x_d.pkl\n", ""))

    def test_paths_start_at_its_working_folder(self):
        self.start()
        (self.folder / "sub").mkdir()
        numpy.save(self.folder / "sub" / "x.npy", self.QUERIES)
        spec = {"queries": "x.npy", "docs": "../d.npy", "working_folder": str(self.folder / "sub"), "output": "o.pkl"}
        (self.folder / "job.json").write_text(json.dumps(spec))
        out = self.run_ok("submit", "--spec", "job.json", "--wait").stdout
        self.assertEqual(out, f"{self.folder}/sub/o.pkl\n")
        self.assertEqual(self.load("sub/o.pkl")["indices"].shape, (3, 5))

    def test_what_is_wrong_with_it_is_said_in_one_line(self):
        self.start()
        for text, says in (
            ("", "job.json: "),
            ("[]", "job.json: "),
            ('{"queries": "q.npy"}', "docs"),
            ('{"queries": "q.npy", "docs": "d.npy", "metrik": "ip"}', "metrik"),
            ('{"queries": "q.npy", "docs": "d.npy", "k": 0}', "k"),
            ('{"queries": "q.npy", "docs": "d.npy", "device": "gpu"}', "device"),
            ("[" * 100_000, "job.json: "),
            (" " * (1 << 20) + " ", "1 MiB"),
        ):
            with self.subTest(text=text[:60]):
                (self.folder / "job.json").write_text(text)
                self.assert_refused("submit", "--spec", "job.json", says=says)
        self.assert_refused("submit", "--spec", "none.json", says="none.json")
        self.assert_refused("submit", "--spec", ".", says=".")
        self.assert_refused("submit", "--spec", "job.json", "-k", "2", says="--spec and --k contradict")
        self.assertEqual(self.jobs(), [])


class InterruptTest(DaemonCliTest):
    def setUp(self):
        super().setUp()
        self.start()
        self.save_big()

    def test_ctrl_c_cancels_the_job(self):
        for flag in ("--wait", "--follow"):
            with self.subTest(flag=flag):
                process = self.popen("submit", "big_q.npy", "big_d.npy", "-k", 10, flag)
                job = re.search(r"job (\d+)", self.read_until(process.stderr, r"job \d+")[-1])[1]
                self.wait_for_state(job, "running")
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
                self.assertEqual((process.returncode, out), (130, ""))
                self.assertIn(f"error: interrupted: job {job} was cancelled, no result was written\n", err)
                self.assertEqual(self.job(job)["state"], "cancelled")
                self.assertEqual((self.leftovers(), [name for name in self.files() if name.endswith(".pkl")]), ([], []))

    def test_termination_cancels_too(self):
        process = self.popen("submit", "big_q.npy", "big_d.npy", "-k", 10, "--wait")
        self.read_until(process.stderr, r"job 1 ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual((process.returncode, self.job(1)["state"]), (143, "cancelled"))

    def test_twice_leaves_at_once(self):
        process = self.popen("submit", "big_q.npy", "big_d.npy", "-k", 10, "--wait")
        self.read_until(process.stderr, r"job 1 ")
        self.wait_for_state(1, "running")
        self.daemon.send_signal(signal.SIGSTOP)  # nobody answers
        process.send_signal(signal.SIGINT)
        self.read_until(process.stderr, "once more leaves at once")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=8)  # less than a reply may take
        self.daemon.send_signal(signal.SIGCONT)
        self.assertEqual(process.returncode, 130)
        self.assertIn("interrupted twice", err)


class RestartTest(DaemonCliTest):
    def test_waiting_goes_on_over_a_crash_of_the_daemon(self):
        self.start()
        self.save_big(40_000, 100_000)
        process = self.popen("submit", "big_q.npy", "big_d.npy", "-k", 10, "--wait")
        self.read_until(process.stderr, r"job 1 ")
        waiting = self.popen("wait", 1)
        wait_until(lambda: has_socket(waiting.pid), "a wait that has a connection")
        self.wait_for_state(1, "running")
        self.kill()
        self.read_until(process.stderr, "the connection to the daemon broke")
        self.start()
        out, _ = process.communicate(timeout=120)
        self.assertEqual((process.returncode, out), (0, "top10_big_q_x_big_d.pkl\n"))
        out, err = waiting.communicate(timeout=60)
        self.assertEqual(out, f"{self.folder}/top10_big_q_x_big_d.pkl\n", err)
        self.assertEqual([(job["id"], job["attempt"]) for job in self.jobs()], [(1, 2)])
        self.assertEqual(self.leftovers(), [])

    def test_queued_jobs_are_there_after_a_restart(self):
        self.start()
        self.save_big()
        self.submit_big()
        waiting = self.submit("q.npy", "d.npy")
        self.run_ok("cancel", 1)
        self.run_ok("wait", waiting)
        self.kill()
        self.start()
        self.assertEqual([job["state"] for job in self.jobs()], ["cancelled", "done"])


if __name__ == "__main__":
    cli_harness.main()
