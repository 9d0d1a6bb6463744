"""Result files in Debian's numpy 1.x and in numpy 2.x, element by element, without a warning."""

import json
import os
import subprocess
import sys
import unittest

import numpy as np

sys.path[:0] = ["tests/support", "tests/exact_reference"]
import exact_reference
from tiny_knn_testing import TestCase, runfile

READER = runfile("tests/result_file/read_result.py")
VARIABLE = "TINY_KNN_NUMPY2_PYTHON"


def numpy2_python():
    path = os.environ.get(VARIABLE)
    if not path:
        raise AssertionError(
            f"{VARIABLE} is not set, so numpy 2.x cannot be tested; run this test through tools/test, which makes "
            f"the environment and sets it, or: bazel test --test_env={VARIABLE}=\"$(tools/python_env)\" //tests/result_file/..."
        )
    return path


class ResultFile(TestCase):
    def read(self, python, result):
        """What `python` finds in the result: the JSON of read_result.py, with the arrays."""
        done = subprocess.run(
            [python, "-I", "-W", "error", READER, result, self.folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), f"{python}")
        described = json.loads(done.stdout)
        arrays = {}
        for name in ("indices", "scores"):
            with open(self.path(name), "rb") as file:
                arrays[name] = np.frombuffer(file.read(), described[name]["dtype"]).reshape(described[name]["shape"])
        return described, arrays

    def check(self, python, major, queries, docs, k, metric, dtype, *flags):
        """Runs a search, reads it with `python`, and compares everything."""
        queries_path, docs_path = self.save("queries.npy", queries), self.save("docs.npy", docs)
        result = self.path("out.pkl")
        done = self.program(
            ["run", queries_path, "docs.npy", "--k", k, "--metric", metric, "--dtype", dtype, "--output-path", result, *flags]
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        described, arrays = self.read(python, result)
        self.assertEqual(described["numpy"].split(".")[0], major)
        self.assertEqual(
            described["keys"],
            ["indices", "scores", "queries_path", "docs_path", "k", "batch_size", "dtype", "device", "metric", "tiny_knn_version", "exclude_self"],
        )
        self.assertEqual(described["bytes_after"], 0)
        score_dtype = "<f8" if dtype == "float64" else "<f4"
        for name, expected_dtype in (("indices", "<i8"), ("scores", score_dtype)):
            self.assertEqual(described[name].pop("dtype"), expected_dtype)
            self.assertEqual(described[name].pop("shape"), [len(queries), k])
            self.assertTrue(all(described[name].values()), f"{name}: {described[name]}")
        self.assertEqual(described["queries_path"], ["str", queries_path])
        self.assertEqual(described["docs_path"], ["str", "docs.npy"])
        self.assertEqual(described["k"], ["int", k])
        batch_size = flags[flags.index("--batch-size") + 1] if "--batch-size" in flags else 512
        self.assertEqual(described["batch_size"], ["int", batch_size])
        self.assertEqual(described["dtype"], ["str", dtype])
        self.assertEqual(described["device"], ["str", "cpu"])
        self.assertEqual(described["metric"], ["str", metric])
        self.assertEqual(described["exclude_self"], ["bool", False])
        self.assertEqual(described["tiny_knn_version"][0], "str")
        self.assert_same_bits(exact_reference.top_k(queries, docs, k, metric, dtype), arrays, f"{metric} {dtype}")

    def check_all(self, python, major):
        state = np.random.default_rng(21)
        queries = state.standard_normal((6, 10)).astype(np.float32)
        docs = state.standard_normal((40, 10)).astype(np.float32)
        docs[3, 3], docs[7, 7], docs[20:25] = np.nan, np.inf, 0
        for metric in ("ip", "cosine", "l2"):
            for dtype in ("float32", "float64"):
                with self.subTest(metric=metric, dtype=dtype):
                    self.check(python, major, queries, docs, 40, metric, dtype)
        with self.subTest("one number"):
            self.check(python, major, queries[:1, :1], docs[:1, :1], 1, "ip", "float32", "--batch-size", 7)
        with self.subTest("no queries"):
            self.check(python, major, queries[:0], docs, 5, "ip", "float32")
        with self.subTest("integers"):
            self.check(python, major, (queries * 50).astype(np.int8), (queries * 40).astype(np.int8), 6, "ip", "int8")
        with self.subTest("a result of more than 64 KiB an array"):
            self.check(python, major, queries[:2], np.ones((9000, 10), np.float32), 9000, "ip", "float32")

    def test_numpy_1(self):
        self.check_all("/usr/bin/python3", "1")

    def test_numpy_2(self):
        self.check_all(numpy2_python(), "2")


if __name__ == "__main__":
    unittest.main()
