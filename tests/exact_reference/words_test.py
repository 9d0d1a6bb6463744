"""Real embeddings: hundreds of queries against 20,000 word vectors, against the second oracle."""

import sys
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
import compare
import exact_reference
from tiny_knn_testing import TestCase, runfile


class Words(TestCase):
    def setUp(self):
        super().setUp()
        self.docs = runfile("examples/words/docs.npy")
        self.vectors = np.load(self.docs)
        self.assertEqual(self.vectors.shape, (20000, 100))

    def check(self, step, k, metric, dtype, *flags):
        queries = self.save("queries.npy", self.vectors[::step])
        result = self.search(queries, self.docs, "--k", k, "--metric", metric, "--dtype", dtype, *flags)
        self.assertIsNone(compare.first_difference(result), f"{metric} {dtype} k={k}")

    def test_inner_product_in_float16(self):
        self.check(50, 500, "ip", "float16")

    def test_inner_product_in_bfloat16(self):
        self.check(200, 500, "ip", "bfloat16")

    def test_inner_product_in_float32_with_a_small_memory(self):
        self.check(100, 100, "ip", "float32", "--memory-limit", "32M")

    def test_inner_product_in_float64(self):
        self.check(400, 50, "ip", "float64")

    def test_cosine_in_float16(self):
        self.check(200, 500, "cosine", "float16")

    def test_l2_in_float32(self):
        self.check(400, 2000, "l2", "float32")

    def test_every_doc_is_ranked(self):
        self.check(5000, 20000, "ip", "float16")

    def test_comparison_sees_one_wrong_bit(self):
        queries = self.save("queries.npy", self.vectors[:3])
        result = self.search(queries, self.docs, "--k", 10)
        result["scores"].view(np.uint32)[1, 4] ^= 1
        self.assertIn("query 1, rank 4", compare.first_difference(result))

    def test_comparison_agrees_with_plain_exact_search(self):
        """The fast comparison and the slow oracle are two programs as well."""
        queries = self.save("queries.npy", self.vectors[:2])
        docs = self.save("docs.npy", self.vectors[:150])
        for metric in ("ip", "cosine", "l2"):
            for dtype in ("float32", "float16", "float64"):
                result = exact_reference.top_k(self.vectors[:2], self.vectors[:150], 20, metric, dtype)
                result.update(queries_path=queries, docs_path=docs, k=20, metric=metric, dtype=dtype)
                self.assertIsNone(compare.first_difference(result), f"{metric} {dtype}")


if __name__ == "__main__":
    unittest.main()
