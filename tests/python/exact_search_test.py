"""exact_search and Corpus: what they find is what `tiny-knn run` finds, bit for bit, of any array."""

import threading
import unittest
import warnings

import numpy as np
from python_harness import PythonTest, random_rows

import tiny_knn
from tiny_knn import Corpus, exact_search


def layouts(array):
    """The same matrix as it may lie in memory."""
    rows, dim = array.shape
    wide = np.zeros((rows * 2, dim * 3), array.dtype)
    wide[::2, ::3] = array
    padded = np.zeros((rows, dim + 5), array.dtype)
    padded[:, :dim] = array
    bytes_ = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = bytes_[1:].view(array.dtype).reshape(array.shape) if array.nbytes else array
    unaligned[...] = array
    frozen = array.copy()
    frozen.setflags(write=False)
    return {
        "C": array.copy(),
        "Fortran": np.asfortranarray(array),
        "every second row, every third column": wide[::2, ::3],
        "columns of a wider one": padded[:, :dim],
        "backwards": array[::-1].copy()[::-1],
        "columns backwards": array[:, ::-1].copy()[:, ::-1],
        "other byte order": array.astype(array.dtype.newbyteorder(">")),
        "unaligned": unaligned,
        "read-only": frozen,
    }


class ExactSearch(PythonTest):
    def test_every_layout_finds_what_the_program_finds(self):
        queries, docs = random_rows(7, 33, 1), random_rows(901, 33, 2)
        np.save("q.npy", queries)
        np.save("d.npy", docs)
        for metric in ("ip", "cosine", "l2"):
            expected = self.run_program("q.npy", "d.npy", "-k", 13, "--metric", metric)
            expected = (expected["indices"], expected["scores"])
            for name, laid_out in layouts(docs).items():
                with self.subTest(metric=metric, docs=name):
                    before = laid_out.tobytes()
                    self.assert_same_bits(exact_search(queries, laid_out, 13, metric), expected)
                    self.assertEqual(laid_out.tobytes(), before)
            for name, laid_out in layouts(queries).items():
                with self.subTest(metric=metric, queries=name):
                    self.assert_same_bits(exact_search(laid_out, docs, 13, metric), expected)

    def test_every_dtype_finds_what_the_program_finds(self):
        queries = random_rows(5, 16, 3)
        np.save("q.npy", queries)
        for stored in ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"):
            docs = random_rows(300, 16, 4, stored)
            np.save("d.npy", docs)
            for compute in ("float32", "float64", "float16", "bfloat16"):
                with self.subTest(stored=stored, compute=compute):
                    expected = self.run_program("q.npy", "d.npy", "-k", 9, "--dtype", compute)
                    found = exact_search(queries, docs, 9, dtype=compute)
                    self.assert_same_bits(found, (expected["indices"], expected["scores"]))
                    self.assertEqual(found.scores.dtype, "float64" if compute == "float64" else "float32")
        integers = random_rows(5, 16, 5, "int8")
        np.save("q.npy", integers)
        np.save("d.npy", random_rows(100, 16, 6, "int8"))
        expected = self.run_program("q.npy", "d.npy", "-k", 9, "--dtype", "int8")
        self.assert_same_bits(exact_search(integers, "d.npy", 9, dtype="int8"), (expected["indices"], expected["scores"]))

    def test_sliding_windows_and_repeated_rows(self):
        series = random_rows(1, 200, 7)[0]
        windows = np.lib.stride_tricks.sliding_window_view(series, 12)
        self.assert_same_bits(exact_search(windows[:5], windows, 4), exact_search(windows[:5].copy(), windows.copy(), 4))
        repeated = np.broadcast_to(series[:12], (50, 12))
        found = exact_search(windows[:2], repeated, 3)
        self.assertEqual(found.indices.tolist(), [[0, 1, 2]] * 2)
        self.assertEqual(found.report["queries_with_tie_at_k"], 2)

    def test_paths_and_memory_maps_are_the_same_as_arrays(self):
        queries, docs = random_rows(4, 20, 8), random_rows(500, 20, 9, "float16")
        np.save("q.npy", queries)
        np.save("d.npy", docs)
        expected = exact_search(queries, docs, 6)
        mapped = np.load("d.npy", mmap_mode="r")
        for q in (queries, "q.npy", b"q.npy", self.folder / "q.npy"):
            for d in (docs, "d.npy", mapped, mapped[:]):
                self.assert_same_bits(exact_search(q, d, 6), expected)

    def test_raw_bfloat16(self):
        values = random_rows(50, 8, 10)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        expected = exact_search(values[:2], (bits.astype(np.uint32) << 16).view(np.float32), 3)
        raw = bits.view("V2")
        self.assert_same_bits(exact_search(values[:2], raw, 3, input_dtype="bfloat16"), expected)
        np.save("d.npy", raw)
        self.assert_same_bits(exact_search(values[:2], "d.npy", 3, input_dtype="bfloat16"), expected)
        np.save("q.npy", values[:2])
        self.assert_same_bits(exact_search("q.npy", raw, 3, input_dtype="bfloat16"), expected)
        with Corpus(raw, input_dtype="bfloat16") as corpus:
            self.assert_same_bits(corpus.search(values[:2], 3), expected)
        for docs in (raw, "d.npy"):
            with self.assertRaisesRegex(ValueError, "bfloat16"):
                exact_search(values[:2], docs, 3)
        with self.assertRaisesRegex(ValueError, "input_dtype='bfloat16' is the type of neither"):
            exact_search(values, values, 3, input_dtype="bfloat16")

    def test_how_it_is_searched_changes_nothing(self):
        queries, docs = random_rows(70, 24, 11), random_rows(5000, 24, 12)
        expected = exact_search(queries, docs, 8)
        for how in ({"threads": 1}, {"threads": 3, "batch_size": 11}, {"memory_limit": 16 << 20, "threads": 1}, {"device": "cpu"}):
            self.assert_same_bits(exact_search(queries, docs, 8, **how), expected)
        np.save("d.npy", docs)
        self.assert_same_bits(exact_search(queries, "d.npy", 8, memory_limit=16 << 20, threads=1), expected)

    def test_lists_and_whatever_numpy_takes(self):
        found = exact_search([[1.0, 0.0]], ((0, 1), (2, 0)), 2)
        self.assertEqual(found.indices.tolist(), [[1, 0]])

        class Tensor:
            def __array__(self, dtype=None, copy=None):
                return np.eye(3, dtype=np.float32)

        indices, scores = exact_search(Tensor(), Tensor(), 1)
        self.assertEqual((indices.ravel().tolist(), scores.ravel().tolist()), ([0, 1, 2], [1, 1, 1]))

    def test_k_of_all_docs_and_no_queries(self):
        docs = random_rows(6, 3, 13)
        self.assertEqual(exact_search(docs, docs, np.int32(6)).indices.shape, (6, 6))
        self.assertEqual(exact_search(docs, docs, 5, exclude_self=True).indices.shape, (6, 5))
        indices, scores = exact_search(docs[:0], docs, 4)
        self.assertEqual((indices.shape, scores.shape), ((0, 4), (0, 4)))

    def test_results_are_plain_arrays_of_the_callers(self):
        docs = random_rows(6, 3, 14)
        found = exact_search(docs, docs, 2)
        indices, scores = found
        self.assertIs(found.indices, indices)
        for array in (indices, scores):
            self.assertTrue(array.flags.c_contiguous and array.flags.owndata and array.flags.writeable)
        self.assertEqual(found.report["nonfinite_doc_rows"], 0)
        self.assertGreater(found.report["rescored_pairs"], 0)

    def test_wrong_use_says_what_and_where(self):
        docs = random_rows(6, 3, 15)
        np.save("d.npy", docs)
        for expected, call in {
            "k=0 must be at least 1": lambda: exact_search(docs, docs, 0),
            "k=7 exceeds the number of docs D=6 in docs": lambda: exact_search(docs, docs, 7),
            "k=9223372036854775807 exceeds": lambda: exact_search(docs, "d.npy", 2**70),
            "with exclude_self k may be at most 5": lambda: exact_search(docs, docs, 6, exclude_self=True),
            "queries has dim=3, docs has dim=2": lambda: exact_search(docs, docs[:, :2], 1),
            r"queries: has shape \(3,\); expected two dimensions \(rows, dim\); for one row pass array\[None, :\]": lambda: exact_search(
                docs[0], docs, 1
            ),
            r"docs: has shape \(1, 6, 3\)": lambda: exact_search(docs, docs[None], 1),
            "docs: has dtype complex64; expected one of float32": lambda: exact_search(docs, docs.astype("complex64"), 1),
            "docs: has dtype uint32": lambda: exact_search(docs, docs.astype("uint32"), 1),
            "docs: has dtype object": lambda: exact_search(docs, docs.astype(object), 1),
            "metric expects one of ip, cosine, l2, found 'dot'": lambda: exact_search(docs, docs, 1, "dot"),
            "dtype expects one of float32, .*, found 'float8'": lambda: exact_search(docs, docs, 1, dtype="float8"),
            "input_dtype expects one of": lambda: exact_search(docs, docs, 1, input_dtype="f4"),
            "device 'gpu' is not known": lambda: exact_search(docs, docs, 1, device="gpu"),
            "threads=0: must be at least 1, or None": lambda: exact_search(docs, docs, 1, threads=0),
            "threads=9999": lambda: exact_search(docs, docs, 1, threads=9999),
            "memory_limit=-5": lambda: exact_search(docs, docs, 1, memory_limit=-5),
            "a memory limit of 0.0 KiB is too little": lambda: exact_search(docs, docs, 1, memory_limit=5),
            "queries: float32 values cannot be searched in dtype int8, .*; use dtype float32": lambda: exact_search(docs, docs, 1, dtype="int8"),
        }.items():
            with self.subTest(expected), self.assertRaisesRegex(ValueError, expected):
                call()
        masked = np.ma.masked_greater(docs, 0)
        with self.assertRaisesRegex(ValueError, "docs: has masked values"):
            exact_search(docs, masked, 1)
        self.assert_same_bits(exact_search(docs, np.ma.masked_array(docs), 2), exact_search(docs, docs, 2))
        for expected, arguments in {
            "k expects a whole number, found 1.5": {"k": 1.5},
            "memory_limit expects a whole number, found '1G'": {"memory_limit": "1G"},
            "device": {"device": None},
        }.items():
            with self.subTest(expected), self.assertRaisesRegex(TypeError, expected):
                exact_search(docs, docs, **{"k": 1, **arguments})
        with self.assertRaises(TypeError):
            exact_search(docs, docs, 1, metrik="ip")
        with self.assertRaisesRegex(RuntimeError, "no CUDA device"):
            exact_search(docs, docs, 1, device="cuda:999")

    def test_files_that_cannot_be_read(self):
        docs = random_rows(6, 3, 16)
        with self.assertRaises(FileNotFoundError) as caught:
            exact_search("none.npy", docs, 1)
        self.assertEqual(caught.exception.errno, 2)
        self.assertIn("none.npy", str(caught.exception))
        (self.folder / "text.npy").write_text("hello")
        with self.assertRaisesRegex(ValueError, "text.npy"):
            exact_search(docs, "text.npy", 1)
        np.save("d.npy", docs)
        with self.assertRaisesRegex(ValueError, "docs: has a null byte"):
            exact_search(docs, "d.npy\0.npy", 1)
        with self.assertRaisesRegex(ValueError, "docs is empty"):
            exact_search(docs, "", 1)
        with self.assertRaisesRegex(ValueError, "differ in more than numbers"):
            exact_search(docs, self.folder, 1)
        np.save("d.npy", docs)
        with open("d.npy", "r+b") as file:
            file.truncate(150)
        with self.assertRaisesRegex(ValueError, "d.npy: is truncated"):
            exact_search(docs, "d.npy", 1)

    def test_what_becomes_infinite_is_warned_of(self):
        docs = np.array([[1e9, 1], [2, 3]], np.float32)
        with self.assertWarnsRegex(RuntimeWarning, "1 values of the docs became infinite") as caught:
            exact_search(docs[1:], docs, 1, dtype="float16")
        self.assertEqual(caught.filename, __file__)
        docs[0, 0] = np.nan
        with self.assertWarnsRegex(RuntimeWarning, "1 rows of the queries have NaN or infinity"):
            exact_search(docs[:1], docs[1:], 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exact_search(docs[1:], docs[1:], 1)


class CorpusTest(PythonTest):
    def test_every_search_equals_exact_search(self):
        docs = random_rows(6000, 40, 20)
        np.save("d.npy", docs)
        for source in (docs, np.asfortranarray(docs), "d.npy"):
            for metric in ("ip", "cosine", "l2"):
                with Corpus(source, metric) as corpus:
                    self.assertEqual((corpus.shape, len(corpus), corpus.kept_bytes), ((6000, 40), 6000, 0))
                    for rows, k in ((1, 1), (70, 5), (2, 300), (1, 1)):
                        queries = random_rows(rows, 40, rows)
                        self.assert_same_bits(corpus.search(queries, k), exact_search(queries, docs, k, metric))
                    self.assert_same_bits(
                        corpus.search(docs[:9], 4, exclude_self=True), exact_search(docs[:9], docs, 4, metric, exclude_self=True)
                    )

    def test_what_is_kept_can_be_seen_and_given_back(self):
        docs = random_rows(5000, 40, 21)
        corpus = Corpus(docs)
        corpus.search(docs[:1], 1)
        self.assertGreaterEqual(corpus.kept_bytes, 5000 * 40)
        corpus.forget()
        self.assertEqual(corpus.kept_bytes, 0)
        corpus.search(docs[:1], 1)
        self.assertGreater(corpus.kept_bytes, 0)
        self.assertIn("5000 x 40", repr(corpus))

    def test_a_closed_corpus_says_so(self):
        corpus = Corpus(np.eye(3))
        corpus.close()
        corpus.close()
        corpus.forget()
        with self.assertRaisesRegex(ValueError, "closed"):
            corpus.search(np.eye(3), 1)

    def test_the_array_is_kept_as_long_as_the_corpus(self):
        corpus = Corpus(random_rows(3000, 40, 22).copy())
        expected = corpus.search(random_rows(2, 40, 23), 5)
        np.ones((3000, 40), np.float32)  # where the array would have been
        self.assert_same_bits(corpus.search(random_rows(2, 40, 23), 5), expected)

    def test_a_file_that_changes_is_noticed(self):
        np.save("d.npy", random_rows(300, 4, 24))
        corpus = Corpus("d.npy")
        corpus.search(random_rows(1, 4, 25), 2)
        with open("d.npy", "r+b") as file:
            file.seek(200)
            file.write(b"changed")
        with self.assertRaisesRegex(OSError, "d.npy: changed while it was read"):
            corpus.search(random_rows(1, 4, 25), 2)

    def test_threads_take_turns(self):
        docs = random_rows(3000, 24, 26)
        corpus = Corpus(docs, "l2")
        wrong = []

        def search(seed):
            queries = random_rows(5, 24, seed)
            for _ in range(5):
                found = corpus.search(queries, 3)
                if found.indices.tobytes() != exact_search(queries, docs, 3, "l2").indices.tobytes():
                    wrong.append(seed)

        threads = [threading.Thread(target=search, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_wrong_docs_are_refused_at_once(self):
        with self.assertRaisesRegex(ValueError, "there are no docs"):
            Corpus(np.zeros((0, 3)))
        with self.assertRaises(FileNotFoundError):
            Corpus("none.npy")
        with self.assertRaisesRegex(ValueError, "int8"):
            Corpus(np.eye(3), dtype="int8")
        corpus = Corpus(np.eye(3))
        with self.assertRaisesRegex(ValueError, "k=4 exceeds"):
            corpus.search(np.eye(3), 4)


class Package(unittest.TestCase):
    def test_all_is_there(self):
        for name in tiny_knn.__all__:
            self.assertTrue(getattr(tiny_knn, name).__doc__, name)
        self.assertRegex(tiny_knn.__version__, r"\A\d+\.\d+\.\d+\Z")


if __name__ == "__main__":
    unittest.main()
