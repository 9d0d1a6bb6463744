"""info, show, demo, help and version, as their user meets them."""

import os
import pickle
import re
import subprocess

import numpy

import cli_harness
from cli_harness import BINARY, CliTest


class InfoTest(CliTest):
    def info(self, name, *args, **kwargs):
        """The lines of info as a dict from label to value."""
        lines = self.run_ok("info", name, *args, **kwargs).stdout.splitlines()
        return {line[:14].strip(): line[14:] for line in lines}

    def test_matrix(self):
        values = numpy.array([[3, 4], [0, 0], [numpy.nan, 1], [numpy.inf, 1]], numpy.float32)
        self.save("m.npy", values)
        info = self.info("m.npy")
        size = os.path.getsize(self.folder / "m.npy")
        self.assertEqual(info["size"], f"{size} B ({size} bytes)")
        self.assertEqual((info["rows"], info["dim"], info["dtype"]), ("4", "2", "float32"))
        self.assertEqual((info["order"], info["byte order"]), ("C", "little endian"))
        self.assertEqual(info["rows with NaN"], "1 (25%)")
        self.assertEqual(info["rows with Inf"], "1 (25%)")
        self.assertEqual(info["zero rows"], "1 (25%)")
        self.assertEqual(info["norms"], "min 0, mean 2.5, max 5")

    def test_order_byte_order_and_trailing_bytes(self):
        self.save("m.npy", numpy.asfortranarray(numpy.ones((3, 4), ">f8")))
        with open(self.folder / "m.npy", "ab") as out:
            out.write(b"tail")
        info = self.info("m.npy")
        self.assertIn("Fortran", info["order"])
        self.assertIn("big endian", info["byte order"])
        self.assertEqual(info["after data"], "4 bytes, ignored")
        self.assertEqual(info["norms"], "min 2, mean 2, max 2")

    def test_no_rows_and_bytes(self):
        self.save("m.npy", numpy.zeros((0, 4), numpy.int8))
        info = self.info("m.npy")
        self.assertEqual(info["byte order"], "none (one byte)")
        self.assertEqual(info["norms"], "none: no finite row")

    def test_raw_bfloat16(self):
        self.save("m.npy", numpy.array([[0x3F80, 0x4000]], numpy.uint16).view("V2"))
        self.assertEqual(self.info("m.npy", "--input-dtype", "bfloat16")["dtype"], "bfloat16")
        self.assert_refused("info", "m.npy", says="--input-dtype bfloat16")

    def test_result(self):
        self.run_ok("run", "q.npy", "d.npy", "-k", 2, "--metric", "l2", "-o", "o.pkl")
        info = self.info("o.pkl")
        self.assertEqual((info["queries"], info["k"], info["metric"]), ("3", "2", "l2"))
        self.assertEqual(info["indices"], "[3, 2] int64")
        self.assertEqual(info["docs file"], "d.npy")

    def test_refusals(self):
        (self.folder / "text").write_text("hello")
        os.mkfifo(self.folder / "fifo")
        with open(self.folder / "other.pkl", "wb") as out:
            pickle.dump({"a": 1}, out)
        self.assert_refused("info", says="missing FILE")
        self.assert_refused("info", "none.npy", says="none.npy")
        self.assert_refused("info", ".", says="directory")
        self.assert_refused("info", "text", says="text")
        self.assert_refused("info", "fifo", says="fifo")
        self.assert_refused("info", "other.pkl", says="other.pkl")
        self.assert_refused("info", "d.npy", "--input-dtype", "f4", says="bfloat16")


class ShowTest(CliTest):
    def setUp(self):
        super().setUp()
        self.run_ok("run", "q.npy", "d.npy", "-k", 4, "-o", "o.pkl")
        (self.folder / "words.txt").write_text("ant\nbee\nüber\n日本語\nelk\n", encoding="utf-8")

    def test_table_with_labels(self):
        (self.folder / "names.txt").write_text("first\nsecond\nthird\n")
        args = ["o.pkl", "--labels", "words.txt", "--query-labels", "names.txt"]
        lines = self.run_ok("show", *args, "--queries", "0:2", "--top", 2).stdout.splitlines()
        self.assertEqual(lines[0], "o.pkl: 3 queries, k=4, ip, float32, cpu")
        self.assertEqual(lines[1:4], ["queries  q.npy", "docs     d.npy", ""])
        self.assertEqual(lines[4], "query 0  first")
        self.assertEqual(lines[5].split(), ["rank", "score", "index", "label"])
        self.assertEqual(lines[6].split(), ["1", "7.000000", "2", "über"])
        self.assertEqual(lines[7].split(), ["2", "5.000000", "0", "ant"])
        self.assertRegex(lines[8], r"all 4 scores: 1 \|.{10}\| 7")
        self.assertEqual(lines[10], "query 1  second")

    def test_histogram_is_ascii_where_the_locale_is(self):
        done = self.run_ok("show", "o.pkl", env=self.environment(LC_ALL="C"))
        self.assertTrue(done.stdout.isascii())

    def test_labels_shorter_than_an_index(self):
        (self.folder / "few.txt").write_text("ant\nbee\n")
        self.assert_refused("show", "o.pkl", "--labels", "few.txt", says=["few.txt: has 2 lines", "row 4"])

    def test_ranges(self):
        self.assertIn("query 2", self.run_ok("show", "o.pkl", "--queries", "2").stdout)
        self.assertEqual(self.run_ok("show", "o.pkl", "--queries", "1:99").stdout.count("query "), 2)
        self.assert_refused("show", "o.pkl", "--queries", "3", says="there are 3")
        self.assert_refused("show", "o.pkl", "--queries", "2:1", says="empty")
        self.assert_refused("show", "o.pkl", "--top", "0", says="--top expects")

    def test_python_pickles_and_odd_scores(self):
        result = {
            "indices": numpy.array([[0, 1, 2]]),
            "scores": numpy.array([[numpy.inf, 0.5, numpy.nan]], numpy.float32),
        }
        with open(self.folder / "py.pkl", "wb") as out:
            pickle.dump(result, out)
        table = self.run_ok("show", "py.pkl").stdout
        self.assertIn("inf", table)
        self.assertIn("nan", table)

    def test_scores_that_are_neighbouring_numbers(self):
        self.save("q1.npy", numpy.array([[1.0]]))
        self.save("d1.npy", numpy.array([[0.0], [5e-324]]))
        self.run_ok("run", "q1.npy", "d1.npy", "--dtype", "float64", "-o", "h.pkl")
        self.assertIn("all 2 scores: 0 |█        █| 4.941e-324", self.run_ok("show", "h.pkl").stdout)

    def test_labels_on_a_terminal_fit_it(self):
        (self.folder / "long.txt").write_text("x" * 300 + "\n" + ("日本" * 100 + "\n") * 4, encoding="utf-8")
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        subprocess.run(["stty", "cols", "60"], stdin=side, check=True)
        self.run_ok("show", "o.pkl", "--labels", "long.txt", "--queries", "0", stdout=side)
        os.write(side, b"END")
        os.close(side)
        seen = b""
        while not seen.endswith(b"END"):
            seen += os.read(main, 4096)
        rows = [line for line in seen.decode().splitlines() if "…" in line]
        self.assertEqual(len(rows), 4)
        for row in rows:
            width = sum(2 if char in "日本" else 1 for char in row)
            self.assertLessEqual(width, 60, row)

    def test_refusals(self):
        self.assert_refused("show", says="missing RESULT")
        self.assert_refused("show", "none.pkl", says="none.pkl")
        self.assert_refused("show", "d.npy", says="d.npy")
        self.assert_refused("show", ".", says="directory")
        self.assert_refused("show", "o.pkl", "--labels", "none.txt", says="none.txt")
        self.assert_refused("show", "o.pkl", "--labels", "/dev/zero", says="a device")
        self.assert_refused("show", "o.pkl", "--query-labels=", says="--query-labels expects a file name, found ''")
        self.assert_refused("show", "o.pkl", "--label", "words.txt", says="did you mean --labels?")

    def test_a_reader_that_stops_early_is_no_error(self):
        with subprocess.Popen(
            [BINARY, "show", "o.pkl"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(timeout=60), 0)


class DemoTest(CliTest):
    def setUp(self):
        super().setUp()
        words = self.folder / "words"
        words.mkdir()
        vectors = numpy.array([[2, 0], [9, 1], [0, 1], [1, 7], [0, 0]], numpy.float16)
        numpy.save(words / "docs.npy", vectors)
        (words / "words.txt").write_text("east\neastish\nnorth\nnorthish\nnowhere\n")

    def test_neighbours_without_the_word_itself(self):
        done = self.run_ok("demo", "--data", "words", "East", "north", "--top", 2)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0].split(), ["east", "north"])
        self.assertEqual(lines[2].split(), ["eastish", "0.994", "northish", "0.990"])
        self.assertEqual(lines[3].split(), ["northish", "0.141", "eastish", "0.110"])
        self.assertIn("2 words x 5 = 10 pairs, dim 2, cosine, searched in", done.stdout)
        self.assertEqual(lines[-1], "checked against exact arithmetic: 2 of 2 identical")

    def test_a_word_without_direction_and_a_top_beyond_all_words(self):
        lines = self.run_ok("demo", "--data", "words", "nowhere", "--top", 99).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines[2:6]], ["east", "eastish", "north", "northish"])

    def test_unknown_word_names_near_ones(self):
        self.assert_refused(
            *("demo", "--data", "words", "nroth"), says=["'nroth' is not one of", "did you mean north"]
        )

    def test_missing_or_mismatched_data(self):
        self.assert_refused("demo", "--data", "none", says=["none", "--data"])
        (self.folder / "words" / "words.txt").write_text("east\n")
        self.assert_refused("demo", "--data", "words", says="1 word,")


class HelpTest(CliTest):
    def test_nothing_typed_is_a_short_help(self):
        done = self.run_ok()
        self.assertIn("usage: tiny-knn run QUERIES DOCS", done.stdout)
        self.assertLess(done.stdout.count("\n"), 26)
        for args in (["help"], ["--help"], ["-h"]):
            self.assertEqual(self.run_ok(*args).stdout, done.stdout)

    def test_every_command_has_a_page_with_an_example(self):
        listed = re.findall(r"^  (\w+)  +\w", self.run_ok("help").stdout, re.MULTILINE)
        self.assertGreater(len(listed), 15)
        for verb in listed:
            with self.subTest(verb=verb):
                page = self.run_ok(verb, "--help").stdout
                self.assertTrue(page.startswith(f"tiny-knn {verb}: "), page)
                self.assertEqual(self.run_ok("help", verb).stdout, page)
                if verb != "version":
                    self.assertRegex(page, rf"\nexample: (source <\()?tiny-knn {verb}")

    def test_version(self):
        for args in (["--version"], ["version"]):
            self.assertEqual(self.run_ok(*args).stdout, "tiny-knn 0.1.0\n")


if __name__ == "__main__":
    cli_harness.main()
