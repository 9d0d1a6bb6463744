"""The original tool's own usage, line by line: the call of its README, its command, its arguments, its result's keys and
their types, its default name. A program that was written for it runs as it is."""

import inspect
import os
import pickle
import subprocess
import unittest

import numpy as np
from python_harness import PROGRAM, PythonTest, random_rows

KEYS = ["indices", "scores", "queries_path", "docs_path", "k", "batch_size", "dtype", "device"]


class OriginalUsage(PythonTest):
    def setUp(self):
        super().setUp()
        os.makedirs("path/to/your")
        np.save("path/to/your/queries.npy", random_rows(20, 24, 1))
        np.save("path/to/your/docs.npy", random_rows(2500, 24, 2))

    def check(self, path, k, dtype, batch_size=512, queries="path/to/your/queries.npy", docs="path/to/your/docs.npy"):
        with open(path, "rb") as file:
            result = pickle.load(file)
        self.assertEqual(list(result)[: len(KEYS)], KEYS)
        for key, value in (("queries_path", queries), ("docs_path", docs), ("k", k), ("batch_size", batch_size), ("dtype", dtype), ("device", "cpu")):
            self.assertEqual(result[key], value)
            self.assertIs(type(result[key]), type(value))
        indices, scores = result["indices"], result["scores"]
        self.assertEqual((indices.shape, indices.dtype, scores.shape, scores.dtype), ((20, k), "int64", (20, k), "float32"))
        for array in (indices, scores):
            self.assertTrue(array.flags.writeable and array.flags.c_contiguous)
        self.assertTrue((np.diff(scores, axis=1) <= 0).all())
        return result

    def test_the_library_call_of_its_readme(self):
        from tiny_knn import compute_topk

        # Paths to your memory-mapped numpy arrays
        queries_path = "path/to/your/queries.npy"
        docs_path = "path/to/your/docs.npy"

        # Compute the top 500 nearest neighbors
        results_path = compute_topk(
            q_path=queries_path,
            d_path=docs_path,
            k=500,
            dtype_str="float16",  # Use float16 for faster computation
        )
        self.assertEqual(results_path, "top500_queries_x_docs.pkl")
        self.assertIs(type(results_path), str)
        self.assertEqual(self.files(), ["path", "top500_queries_x_docs.pkl"])
        self.check(results_path, 500, "float16")

    def test_its_arguments_have_their_names_their_order_and_their_defaults(self):
        from tiny_knn import compute_topk

        parameters = [p for p in inspect.signature(compute_topk).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
        empty = inspect.Parameter.empty
        self.assertEqual(
            [(p.name, p.default) for p in parameters],
            [
                ("q_path", empty),
                ("d_path", empty),
                ("k", empty),
                ("dtype_str", "float32"),
                ("batch_size", None),
                ("force_cpu", False),
                ("out_path", None),
            ],
        )
        path = compute_topk("path/to/your/queries.npy", "path/to/your/docs.npy", 7, "bfloat16", 64, True, "mine.pkl")
        self.assertEqual(path, "mine.pkl")
        self.check("mine.pkl", 7, "bfloat16", 64)

    def test_the_command_of_its_readme(self):
        command = "tiny-knn path/to/your/queries.npy path/to/your/docs.npy --k 500 --dtype float16"
        subprocess.run(command.replace("tiny-knn", str(PROGRAM), 1), shell=True, check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(self.files(), ["path", "top500_queries_x_docs.pkl"])
        by_command = self.check("top500_queries_x_docs.pkl", 500, "float16")
        from tiny_knn import compute_topk

        compute_topk("path/to/your/queries.npy", "path/to/your/docs.npy", 500, "float16", out_path="library.pkl")
        with open("library.pkl", "rb") as library, open("top500_queries_x_docs.pkl", "rb") as program:
            self.assertEqual(library.read(), program.read(), "not the same bytes")
        self.assertEqual(by_command["k"], 500)

    def test_the_arguments_of_its_command(self):
        queries_path, docs_path = "path/to/your/queries.npy", "path/to/your/docs.npy"
        arguments = ["--k", "30", "--batch-size", "16", "--dtype", "float32", "--cpu", "--output-path", "out.pkl"]
        subprocess.run([PROGRAM, queries_path, docs_path, *arguments], check=True, stdout=subprocess.DEVNULL)
        self.check("out.pkl", 30, "float32", 16)
        # Its defaults: k 2000, float32.
        subprocess.run([PROGRAM, queries_path, docs_path], check=True, stdout=subprocess.DEVNULL)
        self.check("top2000_queries_x_docs.pkl", 2000, "float32")
        # Integer types are computed with as float32.
        np.save("q8.npy", random_rows(20, 24, 3, "int8"))
        np.save("d8.npy", random_rows(99, 24, 4, "int8"))
        subprocess.run([PROGRAM, "q8.npy", "d8.npy", "--k", "5", "--dtype", "int8"], check=True, stdout=subprocess.DEVNULL)
        result = self.check("top5_q8_x_d8.pkl", 5, "int8", queries="q8.npy", docs="d8.npy")
        expected = np.load("q8.npy").astype("f4") @ np.load("d8.npy").astype("f4").T  # exact: small integers
        self.assertTrue((np.sort(expected, axis=1)[:, ::-1][:, :5] == result["scores"]).all())

    def test_later_versions_search_arrays(self):
        from tiny_knn import exact_search

        queries_np, docs_np = random_rows(20, 24, 1), random_rows(2500, 24, 2)
        indices_np, scores_np = exact_search(queries_np, docs_np, 100, metric="cosine")
        self.assertEqual((indices_np.shape, scores_np.shape), ((20, 100), (20, 100)))
        indices, scores = exact_search("path/to/your/queries.npy", "path/to/your/docs.npy", 100, metric="ip")
        self.assertEqual((indices.dtype, scores.dtype), ("int64", "float32"))


if __name__ == "__main__":
    unittest.main()
