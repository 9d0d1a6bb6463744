"""Parts of real data, searched by the program itself and merged: the bytes of one search, and what is refused."""

import os
import random
import sys
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import TestCase, runfile

WORDS = runfile("examples/words/docs.npy")


class Merge(TestCase):
    K = 25

    def setUp(self):
        super().setUp()
        # Every word twice, far apart: ties across whatever border lies between.
        words = np.load(WORDS)[:3000]
        self.docs_array = np.concatenate([words, words[::-1]])
        self.docs = self.save("docs.npy", self.docs_array)
        self.queries = self.save("queries.npy", words[:200])

    def run_ok(self, *arguments):
        done = self.program([*arguments, "--quiet"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def search(self, *flags, queries=None, docs=None):
        return self.run_ok("run", queries or self.queries, docs or self.docs, "--k", self.K, "--metric", "cosine", *flags)

    def bytes_of(self, path):
        with open(os.path.join(self.folder, path), "rb") as file:
            return file.read()

    def test_any_split_is_the_bytes_of_one_search(self):
        chance = random.Random(23)
        for flags in ([], ["--exclude-self"]):
            whole = self.bytes_of(self.search(*flags, "-o", "whole.pkl"))
            for count in (1, 2, 7, 100):
                ends = sorted(chance.sample(range(1, 6000), count - 1)) + [6000]
                parts = [self.search(*flags, "--docs-range", f"{a}:{b}") for a, b in zip([0, *ends], ends)]
                self.assertEqual(parts[-1], f"top25_queries_x_docs_{([0, *ends])[-2]}-6000.pkl")
                chance.shuffle(parts)
                self.assertEqual(self.run_ok("merge", *parts, "-o", "merged.pkl"), "merged.pkl")
                self.assertEqual(self.bytes_of("merged.pkl"), whole, f"{count} parts {flags}")

    def test_ties_straddle_the_border(self):
        # Docs i and 5999 - i are the same row, so with a border in the middle every tie is of two parts.
        parts = [self.search("--docs-range", ":3000"), self.search("--docs-range", "3000:")]
        self.run_ok("merge", *parts[::-1], "-o", "merged.npz")
        with np.load(os.path.join(self.folder, "merged.npz")) as merged:
            indices, scores = merged["indices"], merged["scores"]
        self.assertTrue(np.all(indices[:, 0] == np.arange(200)))
        self.assertTrue(np.all(indices[:, 1] == 5999 - np.arange(200)))
        self.assertTrue(np.all(scores[:, 0] == scores[:, 1]))
        self.search("-o", "whole.npz")
        self.assertEqual(self.bytes_of("merged.npz"), self.bytes_of("whole.npz"))

    def test_folders_of_shards_are_searched_as_one_file_is(self):
        os.mkdir(self.path("docs"))
        for i, part in enumerate(np.array_split(self.docs_array, [17, 2000, 2000, 5000])):
            np.save(self.path(f"docs/part-{i + 7}.npy"), part)
        self.search("-o", "whole.npz")
        for docs in ("docs", "docs/", "docs/part-*.npy"):
            self.assertEqual(self.search(docs=docs), "top25_queries_x_docs.pkl")
            parts = [self.search("--docs-range", f"{a}:{b}", docs=docs) for a, b in ((0, 18), (18, 4500), (4500, 6000))]
            self.run_ok("merge", *parts, "-o", "merged.pkl")
            self.assertEqual(self.bytes_of("merged.pkl"), self.bytes_of("top25_queries_x_docs.pkl"))
            self.search("-o", "folder.npz", docs=docs)
            with np.load(self.path("folder.npz")) as folder, np.load(self.path("whole.npz")) as whole:
                for name in ("indices", "scores"):
                    self.assertEqual(folder[name].tobytes(), whole[name].tobytes())
                lines = folder["docs_manifest"].item().splitlines()
            self.assertEqual(lines[0], "0\t17\tpart-7.npy")
            self.assertEqual(lines[-1], "5000\t6000\tpart-11.npy")
        shown = self.program(["run", self.queries, "docs", "--k", 5, "--dry-run"]).stdout
        self.assertIn("0:17 part-7.npy", shown)
        note = self.program(["run", self.queries, "docs", "--k", 5]).stderr
        self.assertIn("docs: 5 files, part-7.npy to part-11.npy", note)

    def test_what_does_not_belong_together_is_refused(self):
        first = self.search("--docs-range", ":3000")
        other_queries = self.save("queries2.npy", np.load(self.queries)[::-1].copy())
        other = self.search("--docs-range", "3000:", "-o", "other.pkl", queries=other_queries)
        for arguments, words in (
            ([first], ("docs 3000:6000 are missing", "--partial")),
            ([first, first], ("overlap",)),
            ([first, other], ("other.pkl: does not belong with", "queries 200x100")),
            ([first, self.queries], ("queries.npy",)),
            ([], ("missing PART",)),
        ):
            done = self.program(["merge", *arguments, "-o", "merged.pkl"])
            self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
            self.assertFalse(os.path.exists(self.path("merged.pkl")))
        self.assertEqual(self.program(["merge", first]).returncode, 2)
        done = self.program(["run", self.queries, self.docs, "--docs-range", "0:6001"])
        self.assertEqual(done.returncode, 2)
        self.assertIn("docs range 0:6001 is not within the docs", done.stderr)

    def test_damaged_part_is_refused(self):
        first = self.search("--docs-range", ":3000", "-o", "a.npz")
        second = self.search("--docs-range", "3000:", "-o", "b.pkl")
        data = bytearray(self.bytes_of(second))
        data[400] ^= 0x40
        with open(self.path("b.pkl"), "wb") as file:
            file.write(data)
        done = self.program(["merge", first, second, "-o", "merged.pkl"])
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("b.pkl: is damaged: the row of query", done.stderr)


if __name__ == "__main__":
    unittest.main()
