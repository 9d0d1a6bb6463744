"""A search of arrays takes what it was allowed and what it gives back, and no copy of what it was given."""

import unittest

from python_harness import PythonTest

_MIB = 1 << 20
_LIMIT = 48 * _MIB
# What the interpreter, threads' stacks and the allocator may take besides.
_SLACK = 16 * _MIB

_MEASURE = """
import re, numpy as np, tiny_knn
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def now(): return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
rng = np.random.default_rng(1)
{inputs}
tiny_knn.exact_search(np.eye(4), np.eye(4), 1)  # what a first search needs once
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = now()
found = {search}
print(peak() - before, sum(a.nbytes for a in found), docs.nbytes)
"""


class Memory(PythonTest):
    def measure(self, inputs, search):
        return map(int, self.run_python(_MEASURE.format(inputs=inputs, search=search)).split())

    def check(self, inputs, search):
        grown, result, docs = self.measure(inputs, search)
        most = _LIMIT + result + _SLACK
        self.assertGreater(docs, most, "a copy of the docs would not be noticed")
        self.assertLess(grown, most)
        return grown

    SEARCH = f"tiny_knn.exact_search(docs[:200], docs, 10, memory_limit={_LIMIT}, threads=2)"

    def test_rows_in_place(self):
        self.check("docs = rng.standard_normal((400_000, 128), dtype=np.float32)", self.SEARCH)

    def test_rows_of_a_wider_matrix(self):
        self.check("docs = rng.standard_normal((400_000, 160), dtype=np.float32)[:, :128]", self.SEARCH)

    def test_rows_to_convert(self):
        self.check("docs = rng.standard_normal((300_000, 256), dtype=np.float32).astype(np.float16)", self.SEARCH)
        self.check("docs = rng.integers(-99, 99, (600_000, 256), dtype=np.int8)", self.SEARCH)

    def test_columns_and_the_other_byte_order(self):
        self.check("docs = np.asfortranarray(rng.standard_normal((400_000, 128), dtype=np.float32))", self.SEARCH)
        self.check("docs = rng.standard_normal((400_000, 128), dtype=np.float32).byteswap().view('>f4')", self.SEARCH)

    def test_cosine_and_float64(self):
        self.check("docs = rng.standard_normal((400_000, 128), dtype=np.float32)", self.SEARCH.replace("10,", "10, 'cosine',"))
        self.check("docs = rng.standard_normal((200_000, 128))", self.SEARCH.replace("10,", "10, dtype='float64',"))

    def test_a_large_result_is_there_once(self):
        search = f"tiny_knn.exact_search(docs[:30_000], docs, 250, memory_limit={_LIMIT}, threads=2)"
        grown, result, _ = self.measure("docs = rng.standard_normal((40_000, 8), dtype=np.float32)", search)
        self.assertGreater(result, _LIMIT + _SLACK, "a second one would not be noticed")
        self.assertLess(grown, _LIMIT + result + _SLACK)

    def test_the_measure_sees_a_copy(self):
        inputs = "docs = rng.standard_normal((400_000, 128), dtype=np.float32)"
        grown, result, docs = self.measure(inputs, self.SEARCH.replace("docs, 10", "docs.copy(), 10"))
        self.assertGreater(grown, docs)


if __name__ == "__main__":
    unittest.main()
