"""The same bits whatever the threads, batches, memory, instruction set, k and storage order."""

import subprocess
import sys
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase, runfile

FORCED = runfile("tests/support/tiny_knn_forced_isa")
METRICS = ("ip", "cosine", "l2")


class SameBits(TestCase):
    def setUp(self):
        super().setUp()
        self.vectors = np.load(runfile("examples/words/docs.npy"))
        self.docs = runfile("examples/words/docs.npy")
        self.queries = self.save("queries.npy", self.vectors[7::300])  # 67 queries
        # Ties by the hundred, NaN, infinity and zero rows.
        state = np.random.default_rng(11)
        tied = state.integers(-3, 4, (5000, 24)).astype(np.float32)
        tied[::50], tied[7::500, 3], tied[9::700, 4] = 0, np.nan, np.inf
        self.tied_docs = self.save("tied_docs.npy", tied)
        self.tied_queries = self.save("tied_queries.npy", tied[1::120])  # 42 queries

    def problems(self):
        for metric in METRICS:
            yield f"words {metric}", self.queries, self.docs, ("--k", 100, "--metric", metric, "--dtype", "float16")
            yield f"ties {metric}", self.tied_queries, self.tied_docs, ("--k", 300, "--metric", metric)

    def check_variants(self, variants, binary=(BINARY,)):
        """Every variant of the flags gives what no flags give."""
        for name, queries, docs, flags in self.problems():
            expected = self.search(queries, docs, *flags)
            for variant in variants:
                with self.subTest(problem=name, variant=variant):
                    found = self.search(queries, docs, *flags, *variant, binary=binary)
                    self.assert_same_bits(expected, found, f"{name} {variant}")

    def test_any_number_of_threads(self):
        self.check_variants([("--threads", n) for n in (1, 2, 5)])

    def test_any_batch_size(self):
        self.check_variants([("--batch-size", n) for n in (1, 7, 64, 100000)])

    def least_memory(self, queries, docs, flags):
        """The least --memory-limit, in MiB, that the planner accepts."""
        done = self.program(["run", queries, docs, *flags, "--dry-run", "--memory-limit", "1K"])
        self.assertEqual(done.returncode, 2, done.stderr)
        return int(done.stderr.rsplit("pass --memory-limit ", 1)[1].split("M")[0])

    def test_any_memory_limit(self):
        for name, queries, docs, flags in self.problems():
            # Batches too small for codes, of which all docs would fit into one block.
            flags = (*flags, "--threads", "2", "--batch-size", "32")
            expected = self.search(queries, docs, *flags)
            least = self.least_memory(queries, docs, flags)
            plan = self.program(["run", queries, docs, *flags, "--dry-run", "--memory-limit", f"{least}M"]).stdout
            if name.startswith("words"):
                self.assertNotIn("chunks        1 per pass", plan, "the limit changes nothing")
            for limit in (least, least + 1, least + 3, 64):
                with self.subTest(problem=name, limit=limit):
                    found = self.search(queries, docs, *flags, "--memory-limit", f"{limit}M")
                    self.assert_same_bits(expected, found, f"{name} {limit}M")

    def test_everything_at_once(self):
        self.check_variants([("--threads", 3, "--batch-size", 5, "--memory-limit", "34M")])

    def test_every_instruction_set_level(self):
        levels = []
        for level in ("portable", "avx2", "avx512", "amx"):
            probe = subprocess.run([FORCED, f"--force-isa={level}", "--version"], stdout=subprocess.PIPE, check=False)
            if probe.returncode == 77:
                print(f"{level}: NOT RUN, this machine lacks it", flush=True)
                continue
            self.assertEqual(probe.returncode, 0)
            levels.append(level)
            self.check_variants([()], binary=(FORCED, f"--force-isa={level}"))
        self.assertIn("portable", levels)

    def test_a_result_is_a_prefix_of_the_result_for_a_greater_k(self):
        for name, queries, docs, flags in self.problems():
            for k in (1, 2, 10, 99, 100, 500):
                with self.subTest(problem=name, k=k):
                    shorter = self.search(queries, docs, *flags, "--k", k)
                    longer = self.search(queries, docs, *flags, "--k", k + 1)
                    prefix = {part: longer[part][:, :k] for part in ("indices", "scores")}
                    self.assert_same_bits(prefix, shorter, f"{name} k={k}")

    def test_any_storage_of_the_same_values(self):
        for name, queries, docs, flags in self.problems():
            rows, columns = np.load(queries), np.load(docs)
            expected = self.search(queries, docs, *flags)
            storages = {
                "fortran order": np.asfortranarray,
                "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
                "fortran order, big endian": lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder(">"))),
                "float64": lambda a: a.astype(np.float64),
            }
            for storage, store in storages.items():
                with self.subTest(problem=name, storage=storage):
                    other_rows = self.save("other_rows.npy", store(rows))
                    other_columns = self.save("other_columns.npy", store(columns))
                    self.assert_same_bits(expected, self.search(other_rows, other_columns, *flags), f"{name} {storage}")

    def test_one_query_alone_gives_its_row(self):
        for name, queries, docs, flags in self.problems():
            expected = self.search(queries, docs, *flags)
            rows = np.load(queries)
            for i in (0, 5, len(rows) - 1):
                with self.subTest(problem=name, query=i):
                    alone = self.search(self.save("one.npy", rows[i : i + 1]), docs, *flags)
                    row = {part: expected[part][i : i + 1] for part in ("indices", "scores")}
                    self.assert_same_bits(row, alone, f"{name} query {i}")

    def test_repeated_runs_write_the_same_file(self):
        self.search(self.queries, self.docs, "--k", 50, output="a.pkl")
        self.search(self.queries, self.docs, "--k", 50, output="b.pkl")
        with open(self.path("a.pkl"), "rb") as a, open(self.path("b.pkl"), "rb") as b:
            self.assertEqual(a.read(), b.read())


if __name__ == "__main__":
    unittest.main()
