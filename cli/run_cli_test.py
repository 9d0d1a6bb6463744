"""`tiny-knn run` as its user meets it: results, names, notes, refusals, interrupts."""

import json
import os
import resource
import shutil
import signal
import subprocess

import numpy

import cli_harness
from cli_harness import BINARY, CliTest


class ResultTest(CliTest):
    def test_result_is_the_documented_dict_and_its_path_is_all_of_stdout(self):
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 2, "--batch-size", 3)
        self.assertEqual(done.stdout, "top2_q_x_d.pkl\n")
        self.assertIn("3 queries x 5 docs, dim 2, k=2", done.stderr)
        result = self.load("top2_q_x_d.pkl")
        self.assertEqual(
            list(result)[:8],
            "indices scores queries_path docs_path k batch_size dtype device".split(),
        )
        self.assertEqual(result["indices"].tolist(), [[2, 0], [2, 1], [2, 1]])
        self.assertEqual(result["scores"].tolist(), [[7, 5], [7, 6], [14, 6]])
        self.assertEqual((result["indices"].dtype, result["scores"].dtype), ("int64", "float32"))
        self.assertEqual((result["queries_path"], result["docs_path"]), ("q.npy", "d.npy"))
        self.assertEqual((result["k"], result["batch_size"]), (2, 3))
        self.assertEqual((result["dtype"], result["device"]), ("float32", "cpu"))

    def test_bare_form_is_run(self):
        self.run_ok("q.npy", "d.npy", "--k", 2, "-o", "bare.pkl")
        self.run_ok("--k", 2, "--output-path", "first.pkl", "q.npy", "d.npy")
        self.run_ok("run", "q.npy", "d.npy", "-k2", "-o", "run.pkl")
        contents = {(self.folder / name).read_bytes() for name in ("bare.pkl", "first.pkl", "run.pkl")}
        self.assertEqual(len(contents), 1)

    def test_default_k_is_all_docs_with_a_note_and_batch_size_512(self):
        done = self.run_ok("run", "q.npy", "d.npy")
        self.assertEqual(done.stdout, "top5_q_x_d.pkl\n")
        self.assertIn("note: k=5: fewer docs than the default k=2000", done.stderr)
        self.assertEqual(self.load("top5_q_x_d.pkl")["batch_size"], 512)

    def test_k_of_all_docs_works_and_has_no_note(self):
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 5)
        self.assertNotIn("fewer docs", done.stderr)

    def test_exclude_self_drops_the_doc_of_the_same_row(self):
        self.run_ok("run", "d.npy", "d.npy", "--exclude-self", "-o", "o.pkl")
        indices = self.load("o.pkl")["indices"]
        self.assertEqual(indices.shape, (5, 4))
        for row in range(5):
            self.assertNotIn(row, indices[row])

    def test_metric_and_dtype_reach_the_search(self):
        self.run_ok("run", "q.npy", "d.npy", "-k", 1, "--metric", "l2", "--dtype", "float64", "-o", "o.pkl")
        result = self.load("o.pkl")
        self.assertEqual(result["indices"].ravel().tolist(), [3, 3, 3])
        self.assertEqual(result["scores"].ravel().tolist(), [-1, -1, 0])
        self.assertEqual((result["metric"], result["dtype"]), ("l2", "float64"))

    def test_no_queries_give_an_empty_result(self):
        self.save("none.npy", numpy.zeros((0, 2), numpy.float32))
        self.run_ok("run", "none.npy", "d.npy", "-k", 2, "-o", "o.pkl")
        self.assertEqual(self.load("o.pkl")["indices"].shape, (0, 2))

    def test_an_older_result_is_replaced(self):
        (self.folder / "o.pkl").write_text("old")
        self.run_ok("run", "q.npy", "d.npy", "-k", 1, "-o", "o.pkl")
        self.assertEqual(self.load("o.pkl")["k"], 1)

    def test_a_file_named_like_a_command_is_reachable(self):
        self.save("run.npy", self.QUERIES)
        os.rename(self.folder / "run.npy", self.folder / "run")
        self.run_ok("./run", "d.npy", "-k", 1, "-o", "bare.pkl")
        self.run_ok("run", "run", "d.npy", "-k", 1, "-o", "verb.pkl")

    def test_raw_bfloat16_beside_a_typed_file(self):
        bits = (self.DOCS.view(numpy.uint32) >> 16).astype(numpy.uint16)
        self.save("raw.npy", bits.view("V2"))
        self.run_ok("run", "q.npy", "raw.npy", "-k", 2, "--input-dtype", "bfloat16", "-o", "o.pkl")
        self.assertEqual(self.load("o.pkl")["scores"].tolist(), [[7, 5], [7, 6], [14, 6]])


class OutputTest(CliTest):
    def test_quiet_says_nothing(self):
        self.assertEqual(self.run_ok("run", "q.npy", "d.npy", "-q").stderr, "")

    def test_auto_says_once_that_there_is_no_cuda(self):
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 1)
        self.assertEqual(done.stderr.count("no CUDA device: using the CPU"), 1)
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 1, "--cpu")
        self.assertNotIn("CUDA", done.stderr)

    def test_a_cuda_device_that_is_not_there_is_the_wrong_one_to_ask_for(self):
        # No machine has a device 999; one without a GPU has none at all.
        devices = ["cuda:999"] if shutil.which("nvidia-smi") else ["cuda", "cuda:0", "cuda:999"]
        for device in devices:
            for dry in ([], ["--dry-run"]):
                done = self.assert_refused("run", "q.npy", "d.npy", "-k", 1, "--device", device, *dry)
                self.assertRegex(done.stderr, r"error: no CUDA device[^\n]*; use --device cpu\n")

    def test_nan_inf_overflow_and_ties_are_reported(self):
        docs = numpy.array([[1, 1], [1, 1], [numpy.nan, 0], [numpy.inf, 0], [1e30, 0]])
        self.save("odd.npy", docs)
        done = self.run_ok("run", "q.npy", "odd.npy", "-k", 4, "--dtype", "float16")
        self.assertRegex(done.stderr, r"note: odd.npy: 3 rows with NaN or infinity")
        self.assertRegex(done.stderr, r"note: odd.npy: 1 value was too large for float16")
        done = self.run_ok("run", "q.npy", "odd.npy", "-k", 1, "--dtype", "float64")
        self.assertNotIn("too large", done.stderr)
        self.save("equal.npy", numpy.ones((4, 2), numpy.float32))
        done = self.run_ok("run", "q.npy", "equal.npy", "-k", 2)
        self.assertIn("note: 3 queries have a tie across rank 2", done.stderr)

    def test_verify_reports_how_many(self):
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 1, "--verify", 2)
        self.assertIn("verified 2 of 3 queries (seed 1): identical", done.stderr)

    def test_dry_run_prints_the_plan_and_writes_nothing(self):
        before = self.files()
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 1, "--dry-run")
        for text in ("q.npy [3, 2] float32", "d.npy [5, 2] float32", "top1_q_x_d.pkl", "memory"):
            self.assertIn(text, done.stdout)
        self.assertRegex(done.stdout, r"\nestimate +\d\S* s, limited by (computing|the disk); docs come at \d+\.\d+ GB/s\n")
        self.assertEqual(self.files(), before)

    def test_verbose_shows_the_plan_on_stderr(self):
        done = self.run_ok("run", "q.npy", "d.npy", "-k", 1, "-v")
        self.assertIn("rescored exactly", done.stderr)
        self.assertEqual(done.stdout, "top1_q_x_d.pkl\n")

    def test_json_progress_is_one_object_a_line_to_the_end(self):
        done = self.run_ok("run", "q.npy", "d.npy", "--progress", "json")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        kinds = [event["event"] for event in events]
        self.assertIn("progress", kinds)
        self.assertEqual(kinds[-1], "done")
        self.assertEqual(events[-1]["output_path"], "top5_q_x_d.pkl")
        self.assertIsInstance(events[-1]["rescored_pairs"], int)
        last = [event for event in events if event["event"] == "progress"][-1]
        self.assertEqual((last["pairs_done"], last["pairs_total"]), (15, 15))

    def test_errors_are_json_too_where_json_was_asked_for(self):
        done = self.run_cli("run", "no.npy", "d.npy", "--progress", "json")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(json.loads(done.stderr)["event"], "error")

    def test_no_bar_where_stderr_is_no_terminal(self):
        self.assertNotIn("\r", self.run_ok("run", "q.npy", "d.npy").stderr)
        self.assertIn("\r100%", self.run_ok("run", "q.npy", "d.npy", "--progress", "always").stderr)

    def on_terminal(self, *args, **variables):
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        self.run_ok(
            "run", "q.npy", "d.npy", *args, stderr=side, env=self.environment(**variables)
        )
        os.write(side, b"END")
        os.close(side)
        seen = b""
        while not seen.endswith(b"END"):
            seen += os.read(main, 4096)
        return seen.decode()

    def test_bar_on_a_terminal_that_can_show_it(self):
        self.assertIn("\r100% [", self.on_terminal(TERM="xterm"))
        for variables in ({"TERM": "dumb"}, {}, {"TERM": "xterm", "TQDM_DISABLE": "1"}):
            self.assertNotIn("%", self.on_terminal(**variables))
        self.assertNotIn("%", self.on_terminal("--progress", "never", TERM="xterm"))
        self.assertEqual(self.on_terminal("-q", TERM="xterm"), "END")

    def test_no_colours_anywhere(self):
        self.assertNotIn("\x1b", self.on_terminal(TERM="xterm-256color"))

    def test_the_path_is_raw_for_a_program_and_harmless_on_a_terminal(self):
        name = "a\x1b[31m.pkl"
        self.assertEqual(self.run_ok("run", "q.npy", "d.npy", "-o", name).stdout, name + "\n")
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        self.run_ok("run", "q.npy", "d.npy", "-o", name, stdout=side)
        os.close(side)
        self.assertEqual(os.read(main, 4096), b"a\\x1b[31m.pkl\r\n")

    def test_full_stdout_fails_but_keeps_the_result(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = self.run_cli("run", "q.npy", "d.npy", "-o", "o.pkl", stdout=full)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output: No space left", done.stderr)
        self.assertEqual(self.load("o.pkl")["k"], 5)

    def test_closed_stdout_and_gone_reader_are_quiet(self):
        def close_stdout():
            os.close(1)

        done = self.run_cli("run", "q.npy", "d.npy", "-q", "-o", "o.pkl", preexec_fn=close_stdout)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.load("o.pkl")["k"], 5)
        read_end, write_end = os.pipe()
        os.close(read_end)
        with os.fdopen(write_end, "w") as pipe:
            done = self.run_cli("help", stdout=pipe)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class RefusalTest(CliTest):
    def test_wrong_use(self):
        for args, says in [
            (["run"], "missing QUERIES"),
            (["run", "q.npy"], "missing DOCS"),
            (["run", "q.npy", "d.npy", "x"], "unexpected argument 'x'"),
            (["run", "q.npy", "d.npy", "--metrik", "ip"], "did you mean --metric?"),
            (["q.npy", "d.npy", "--bogus"], "unknown flag --bogus"),
            (["run", "q.npy", "d.npy", "--k"], "--k needs a value"),
            (["run", "q.npy", "d.npy", "--k", "ten"], "found 'ten'"),
            (["run", "q.npy", "d.npy", "--output-path=", "--dry-run"], "--output-path expects a file name, found ''"),
            (["run", "q.npy", "d.npy", "--output-path", "--dry-run"], "--output-path needs a value, found --dry-run"),
            (["run", "q.npy", "d.npy", "--quiet=banana"], "--quiet takes no value"),
            (["run", "q.npy", "d.npy", "--dtype", "float8"], "float16"),
            (["run", "q.npy", "d.npy", "--memory-limit", "much"], "4G"),
            (["run", "q.npy", "d.npy", "--device", "gpu"], "auto, cpu, cuda or cuda:N"),
            (["run", "q.npy", "d.npy", "--cpu", "--device", "cuda"], "contradict"),
            (["rnu", "q.npy", "d.npy"], "did you mean 'run'?"),
            (["frobnicate"], "'frobnicate' is neither a command nor a file"),
            (["help", "shwo"], "did you mean 'show'?"),
        ]:
            with self.subTest(args=args):
                self.assert_refused(*args, says=says)

    def test_k_beyond_the_docs(self):
        self.assert_refused(
            "run", "q.npy", "d.npy", "-k", 6, says="k=6 exceeds the number of docs D=5"
        )
        self.assert_refused("run", "d.npy", "d.npy", "-k", 5, "--exclude-self", says="at most 4")
        self.assert_refused("run", "q.npy", "d.npy", "-k", 2**63 - 1, says="exceeds")
        self.save("one.npy", self.DOCS[:1])
        self.assert_refused("run", "q.npy", "one.npy", "--exclude-self", says="one.npy: has 1 row and --exclude-self")

    def test_memory_limit_too_small_says_what_would_do(self):
        self.assert_refused("run", "q.npy", "d.npy", "--memory-limit", "1K", says="--memory-limit")

    def test_files_that_are_no_matrix(self):
        structured = numpy.zeros(3, dtype=[("a", "f4")])
        numpy.save(self.folder / "object.npy", numpy.array([[{}]]), allow_pickle=True)
        (self.folder / "text.npy").write_text("not an array at all")
        (self.folder / "empty.npy").write_bytes(b"")
        (self.folder / "short.npy").write_bytes((self.folder / "d.npy").read_bytes()[:-4])
        (self.folder / "folder.npy").mkdir()
        os.mkfifo(self.folder / "fifo.npy")
        for name, says in [
            ("missing.npy", "missing.npy"),
            ("folder.npy", "directory"),
            ("fifo.npy", "fifo.npy"),
            ("text.npy", "text.npy"),
            ("empty.npy", "empty.npy"),
            ("short.npy", "short.npy"),
            ("object.npy", "object"),
            (self.save("flat.npy", numpy.zeros(3, numpy.float32)), "2"),
            (self.save("cube.npy", numpy.zeros((2, 2, 2), numpy.float32)), "2"),
            (self.save("complex.npy", numpy.zeros((3, 2), numpy.complex64)), "complex.npy"),
            (self.save("structured.npy", structured), "structured.npy"),
            (self.save("raw.npy", numpy.zeros((3, 2), "V2")), "--input-dtype bfloat16"),
            (self.save("norows.npy", numpy.zeros((0, 2), numpy.float32)), "norows.npy"),
            (self.save("wide.npy", numpy.zeros((3, 9), numpy.float32)), "dim=9"),
        ]:
            with self.subTest(name=name):
                done = self.assert_refused("run", "q.npy", name, "-o", "o.pkl", says=says)
                self.assertIn(name, done.stderr)

    def test_unreadable_file(self):
        os.chmod(self.folder / "d.npy", 0)
        self.assert_refused(
            "run", "q.npy", "d.npy", says="d.npy", preexec_fn=cli_harness.obey_file_modes
        )

    def test_floating_point_to_integer(self):
        self.assert_refused("run", "q.npy", "d.npy", "--dtype", "int8", says="q.npy")

    def test_outputs_that_cannot_be(self):
        (self.folder / "folder").mkdir()
        for output, says in [
            ("no/such/o.pkl", "no/such"),
            ("d.npy", "would overwrite the input d.npy"),
            ("./q.npy", "would overwrite the input q.npy"),
            ("folder", "folder"),
            ("q.npy/o.pkl", "q.npy/o.pkl"),
        ]:
            with self.subTest(output=output):
                self.assert_refused("run", "q.npy", "d.npy", "--cpu", "-o", output, says=says)

    def test_output_folder_that_may_not_be_written(self):
        locked = self.folder / "locked"
        locked.mkdir(mode=0o555)
        self.assert_refused(
            *("run", "q.npy", "d.npy", "--cpu", "-o", "locked/o.pkl"),
            says="locked",
            preexec_fn=cli_harness.obey_file_modes,
        )

    def test_limit_on_file_sizes_leaves_nothing(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

        self.assert_refused("run", "q.npy", "d.npy", "--cpu", code=1, preexec_fn=limit)

    def test_a_name_with_control_characters_stays_one_line(self):
        self.assert_refused("run", "q.npy", "./a\nb\x1b[31m.npy", says="a\\x0ab\\x1b[31m.npy")


class InterruptTest(CliTest):
    def interrupted(self, number):
        """Starts a search of many seconds, sends `number` when it is under way, returns its end."""
        random = numpy.random.default_rng(1)
        for name, rows in (("big_q.npy", 100_000), ("big_d.npy", 100_000)):
            self.save(name, random.standard_normal((rows, 64), numpy.float32))
        before = self.files()
        with subprocess.Popen(
            [BINARY, "run", "big_q.npy", "big_d.npy", "-k", "10", "--progress", "json"],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "progress" and event["pairs_done"] > 0:
                    break
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        self.assertEqual(out, "")
        self.assertEqual(json.loads(err.splitlines()[-1])["text"], "interrupted: no result was written")
        self.assertEqual(self.files(), before)
        return process.returncode

    def test_interrupt_exits_130_and_leaves_nothing(self):
        self.assertEqual(self.interrupted(signal.SIGINT), 130)

    def test_termination_exits_143_and_leaves_nothing(self):
        self.assertEqual(self.interrupted(signal.SIGTERM), 143)

    def test_quit_exits_131_and_leaves_nothing(self):
        self.assertEqual(self.interrupted(signal.SIGQUIT), 131)


if __name__ == "__main__":
    cli_harness.main()
