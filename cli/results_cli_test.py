"""Results as .npz, and eval: how much of a true result another one has."""

import json
import os
import pickle
import subprocess
import zipfile

import numpy

import cli_harness
from cli_harness import BINARY, CliTest

KEYS = ["indices", "scores", "queries_path", "docs_path", "k", "batch_size", "dtype", "device", "metric", "tiny_knn_version", "exclude_self"]


class NpzTest(CliTest):
    def test_holds_what_the_pickle_holds(self):
        for flags in ([], ["--metric", "l2", "--dtype", "float64"], ["--batch-size", 1]):
            self.run_ok("run", "q.npy", "d.npy", "-k", 4, "-o", "o.pkl", *flags)
            self.assertEqual(self.run_ok("run", "q.npy", "d.npy", "-k", 4, "-o", "o.npz", *flags).stdout, "o.npz\n")
            expected = self.load("o.pkl")
            with numpy.load(self.folder / "o.npz", allow_pickle=False) as found:
                self.assertEqual(found.files, KEYS)
                for key, value in expected.items():
                    array = numpy.asarray(value)
                    self.assertEqual(found[key].tobytes(), array.tobytes(), key)
                    self.assertEqual((found[key].dtype, found[key].shape), (array.dtype, array.shape), key)
            self.assertIsNone(zipfile.ZipFile(self.folder / "o.npz").testzip())

    def test_the_same_search_is_the_same_bytes(self):
        self.run_ok("run", "q.npy", "d.npy", "-k", 2, "-o", "a.npz", "--threads", 1)
        self.run_ok("run", "q.npy", "d.npy", "-k", 2, "-o", "b.npz", "--threads", 2)
        self.assertEqual((self.folder / "a.npz").read_bytes(), (self.folder / "b.npz").read_bytes())

    def test_sizes_and_names_of_every_kind(self):
        self.save("none.npy", numpy.zeros((0, 2), numpy.float32))
        self.run_ok("run", "none.npy", "d.npy", "-k", 3, "-o", "none.npz")
        self.assertEqual(numpy.load(self.folder / "none.npz")["indices"].shape, (0, 3))
        name = b"q\xff \xc3\xbc.npy"
        os.link(self.folder / "q.npy", os.fsencode(self.folder) + b"/" + name)
        subprocess.run([BINARY, "run", name, "d.npy", "-k", "1", "-q", "-o", "odd.npz"], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(os.fsencode(numpy.load(self.folder / "odd.npz")["queries_path"].item()), name)

    def test_show_and_info_read_it(self):
        self.run_ok("run", "q.npy", "d.npy", "-k", 3, "-o", "o.pkl")
        self.run_ok("run", "q.npy", "d.npy", "-k", 3, "-o", "o.npz")
        tables = [self.run_ok("show", name).stdout.replace(name, "NAME") for name in ("o.pkl", "o.npz")]
        self.assertEqual(*tables)
        info = self.run_ok("info", "o.npz").stdout
        self.assertIn("search result (.npz)", info)
        self.assertIn("[3, 3] int64", info)

    def test_of_numpy(self):
        indices, scores = numpy.array([[4, 2]]), numpy.array([[2.0, 1.0]], numpy.float32)
        numpy.savez(self.folder / "n.npz", indices=indices, scores=scores, notes=numpy.zeros(3))
        self.assertIn("4", self.run_ok("show", "n.npz").stdout)
        numpy.savez_compressed(self.folder / "c.npz", indices=indices, scores=scores)
        self.assert_refused("show", "c.npz", says=["c.npz: is a compressed zip", "numpy.savez"])
        numpy.savez(self.folder / "x.npz", indices=indices)
        self.assert_refused("show", "x.npz", says="has no 'scores'")
        numpy.savez(self.folder / "x.npz", indices=indices.astype("i4"), scores=scores)
        self.assert_refused("show", "x.npz", says="'indices' is int32; expected int64")
        numpy.savez(self.folder / "x.npz", indices=numpy.asfortranarray(numpy.ones((2, 2), int)), scores=numpy.ones((2, 2)))
        self.assert_refused("show", "x.npz", says="'indices' is not in C order")
        with zipfile.ZipFile(self.folder / "x.npz", "w") as other:
            other.writestr("readme.txt", "hello")
        self.assert_refused("info", "x.npz", says="has no 'indices'")

    def test_a_search_that_fails_leaves_none(self):
        self.assert_refused("run", "q.npy", "d.npy", "-k", 9, "-o", "o.npz", says="k=9")
        self.assert_refused("run", "q.npy", "d.npy", "-k", 1, "--cpu", "-o", "none/o.npz", says="none/o.npz")


class EvalTest(CliTest):
    def save_result(self, name, indices, scores, **more):
        result = {"indices": numpy.array(indices), "scores": numpy.array(scores, numpy.float32), **more}
        with open(self.folder / name, "wb") as out:
            pickle.dump(result, out)
        return name

    def test_a_result_has_all_of_itself(self):
        self.run_ok("run", "q.npy", "d.npy", "-k", 3, "-o", "o.npz")
        self.run_ok("run", "q.npy", "d.npy", "-k", 4, "-o", "o.pkl")
        done = self.run_ok("eval", "o.npz", "o.pkl")
        self.assertEqual(
            done.stdout,
            "recall@3      1.000000 (9 of 9)\nqueries       3: 3 complete, 3 with the same docs and scores in the same order\n",
        )

    def test_what_is_missing_and_what_is_tied(self):
        truth = self.save_result("t.pkl", [[0, 1], [2, 3]], [[9, 8], [7, 6]])
        found = self.save_result("f.pkl", [[5, 0, 1], [9, 8, 7]], [[8, 7, 6], [1, 1, 1]])
        done = self.run_ok("eval", found, truth)
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "recall@2      0.500000 (2 of 4)",
                "queries       2: 1 complete, 0 with the same docs and scores in the same order",
                "lowest        0.000000 of query 1",
                "ties          1 doc found by its score of TRUTH's rank 2",
            ],
        )
        report = json.loads(self.run_ok("eval", found, truth, "-k", 1, "--json").stdout)
        self.assertEqual(
            report,
            {
                "k": 1,
                "queries": 2,
                "recall": 0.0,
                "found": 0,
                "found_by_tie": 0,
                "complete_queries": 0,
                "identical_queries": 0,
                "lowest_recall": 0.0,
                "lowest_query": 0,
            },
        )

    def test_another_metric_is_noted(self):
        one = self.save_result("1.pkl", [[0]], [[1]], metric="ip")
        two = self.save_result("2.pkl", [[0]], [[1]], metric="l2")
        self.assertIn("note: RESULT is by ip, TRUTH by l2", self.run_ok("eval", one, two).stderr)

    def test_refusals(self):
        one = self.save_result("1.pkl", [[0, 1]], [[2, 1]])
        two = self.save_result("2.pkl", [[0], [1]], [[2], [1]])
        self.assert_refused("eval", one, says="missing TRUTH")
        self.assert_refused("eval", one, two, says="the result has 1 queries and the truth 2")
        self.assert_refused("eval", one, one, "-k", 3, says="k=3: the result has k=2")
        self.assert_refused("eval", one, one, "-k", 0, says="--k expects")
        self.assert_refused("eval", one, "none.pkl", says="none.pkl")
        self.assert_refused("eval", one, "d.npy", says="d.npy")


if __name__ == "__main__":
    cli_harness.main()
