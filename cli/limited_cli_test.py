"""info and show within little memory and time: files that claim more than any machine has.

Apart from the other tests of these commands, because a sanitizer reserves more address space than the
limits set here.
"""

import pickle
import resource

import numpy

import cli_harness
from cli_harness import CliTest


def short_time():
    """In a child before exec: an end to it where it would count for years."""
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def little_memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


class LimitedTest(CliTest):
    def test_rows_without_elements_are_not_counted_one_by_one(self):
        self.save("m.npy", numpy.zeros((1 << 60, 0), numpy.int8))
        done = self.run_ok("info", "m.npy", preexec_fn=short_time)
        self.assertIn(f"zero rows     {1 << 60} (100%)", done.stdout)
        self.assertIn("norms         min 0, mean 0, max 0", done.stdout)

    def save_long_row(self, descr, elements):
        with open(self.folder / "m.npy", "wb") as out:
            header = {"descr": descr, "fortran_order": False, "shape": (1, elements)}
            numpy.lib.format.write_array_header_1_0(out, header)
            out.truncate(out.tell() + elements * numpy.dtype(descr).itemsize)

    def test_a_row_that_is_longer_than_memory_as_float64(self):
        self.save_long_row("|u1", 1 << 27)

        done = self.run_ok("info", "m.npy", preexec_fn=little_memory)
        self.assertIn("zero rows     1 (100%)", done.stdout)

    def test_a_row_that_cannot_be_read_has_no_advice_about_flags_of_run(self):
        self.save_long_row(">i8", 1 << 31)

        done = self.run_cli("info", "m.npy", preexec_fn=little_memory)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Atiny-knn: error: m.npy: a row of 2147483648 int64 values[^\n]*\n\Z")
        self.assertNotIn("--memory-limit", done.stderr)

    def test_k_of_0_shows_nothing_however_many_queries_there_are(self):
        many = 1 << 59
        result = {"indices": numpy.zeros((many, 0), numpy.int64), "scores": numpy.zeros((many, 0), numpy.float32)}
        with open(self.folder / "none.pkl", "wb") as out:
            pickle.dump(result, out)
        done = self.run_ok("show", "none.pkl", "--queries", "0:", "--query-labels", "none.pkl", preexec_fn=short_time)
        self.assertIn("no docs: k is 0", done.stdout)


if __name__ == "__main__":
    cli_harness.main()
