"""A result as Python sees it, and Python's own pickles as our reader sees them.

    result_pickle_python_test.py PATH_OF_result_pickle_test_tool
"""

import io
import os
import pickle
import pickletools
import subprocess
import sys
import tempfile
import unittest
import warnings

import numpy as np

TOOL = os.path.abspath(sys.argv.pop(1))
KEYS = ["indices", "scores", "queries_path", "docs_path", "k", "batch_size", "dtype", "device",
        "metric", "tiny_knn_version", "exclude_self"]


class ResultPickleTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "result.pkl")

    def write(self, rows, k, dtype="float32", queries_path=b"q.npy", batch_size=512):
        subprocess.run([TOOL, "write", self.path, str(rows), str(k), dtype, queries_path,
                        str(batch_size)], check=True)
        with open(self.path, "rb") as file:
            return pickle.load(file)

    def read(self):
        return subprocess.run([TOOL, "read", self.path], capture_output=True, check=False)

    def expected(self, rows, k, dtype):
        i = np.arange(rows)[:, None]
        j = np.arange(k)[None, :]
        scores = ((i - j) / 8).astype(dtype)
        scores[(i == 1) & (j == 1)] = np.nan
        return 1000003 * i - j, scores

    def check(self, rows, k, dtype):
        result = self.write(rows, k, dtype)
        indices, scores = self.expected(rows, k, dtype)
        self.assertEqual(list(result), KEYS)
        for name, array, want in (("indices", np.int64, indices), ("scores", dtype, scores)):
            got = result[name]
            self.assertIs(type(got), np.ndarray)
            self.assertEqual(got.dtype, np.dtype(array))
            self.assertTrue(got.dtype.isnative)
            self.assertEqual(got.shape, (rows, k))
            self.assertTrue(got.flags.c_contiguous)
            self.assertTrue(got.flags.writeable)
            self.assertTrue(got.flags.aligned)
            np.testing.assert_array_equal(got, want)
            got += 1  # not only a flag
        for key in ("k", "batch_size"):
            self.assertIs(type(result[key]), int)
        for key in ("queries_path", "docs_path", "dtype", "device", "metric", "tiny_knn_version"):
            self.assertIs(type(result[key]), str)
        self.assertIs(result["exclude_self"], False)
        self.assertEqual(result["k"], k)
        self.assertEqual(result["batch_size"], 512)
        self.assertEqual(result["docs_path"], "docs ü.npy")
        self.assertEqual(result["dtype"], dtype)
        self.assertEqual(result["device"], "cpu")
        self.assertEqual(result["metric"], "ip")

    def test_arrays_of_many_shapes_load_whole_and_writable(self):
        for dtype in ("float32", "float64"):
            for rows, k in ((1, 1), (2, 3), (3, 2), (1, 300), (300, 1), (257, 70), (70000, 2)):
                with self.subTest(rows=rows, k=k, dtype=dtype):
                    self.check(rows, k, dtype)

    def test_zero_size_arrays_keep_their_shape(self):
        for rows, k in ((0, 0), (0, 5), (5, 0)):
            with self.subTest(rows=rows, k=k):
                self.check(rows, k, "float32")

    def test_ints_of_every_size(self):
        for number in (0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1, -1, -2**31, -2**63):
            with self.subTest(number=number):
                self.assertEqual(self.write(1, 1, batch_size=number)["batch_size"], number)

    def test_paths_that_are_no_utf8_come_back_by_fsencode(self):
        for name in (b"plain", "grüße/日本語/😀.npy".encode(), b"latin1-\xfc.npy", b"\xff\xfe\x80",
                     b"cut-\xe2\x82", b"surrogate-\xed\xa0\x80", b"overlong-\xc0\xaf-\xe0\x80\x80",
                     b"beyond-\xf4\x90\x80\x80", b"x" * 255, b"x" * 256, b"\xff" * 300):
            with self.subTest(name=name):
                result = self.write(1, 1, queries_path=name)
                self.assertEqual(os.fsencode(result["queries_path"]), name)
                self.assertEqual(os.fsdecode(name), result["queries_path"])
                line = self.read().stdout.split(b"\n", 1)[0]
                self.assertTrue(line.startswith(b"1 1 float32 " + name + b"|"), line)

    def test_only_the_three_numpy_globals_are_asked_for(self):
        self.write(2, 3)
        with open(self.path, "rb") as file:
            data = file.read()
        seen = set()
        strings = []
        for opcode, argument, _ in pickletools.genops(data):
            self.assertNotIn(opcode.name, ("FRAME", "GLOBAL", "INST", "OBJ", "NEWOBJ"))
            self.assertLessEqual(opcode.proto, 4)
            if "UNICODE" in opcode.name:
                strings.append(argument)
            if opcode.name == "STACK_GLOBAL":
                seen.add(".".join(strings[-2:]))
        self.assertEqual(seen, {"numpy.core.multiarray._reconstruct", "numpy.ndarray",
                                "numpy.dtype"})
        pickletools.dis(data, io.StringIO())  # raises if the stack or the memo is wrong

        class Careful(pickle.Unpickler):
            def find_class(self, module, name):
                if f"{module}.{name}" not in seen:
                    raise pickle.UnpicklingError(f"{module}.{name}")
                return super().find_class(module, name)

        self.assertEqual(list(Careful(io.BytesIO(data)).load()), KEYS)

    def test_pickles_of_python_are_read(self):
        for protocol in (2, 3, 4, 5):
            for dtype in (np.float32, np.float64):
                for rows, k in ((2, 3), (0, 3), (3, 0), (1, 4), (4, 1), (100, 50)):
                    with self.subTest(protocol=protocol, dtype=dtype, rows=rows, k=k):
                        indices, scores = self.expected(rows, k, dtype)
                        # Exactly what the first tool wrote, and things it never did.
                        result = {"indices": indices, "scores": scores, "queries_path": "q ü",
                                  "docs_path": os.fsdecode(b"d\xff"), "k": k, "batch_size": 2**40,
                                  "dtype": "float16", "device": "cuda", "seconds": 1.5,
                                  "notes": [1, "two", None, (True, -3), {"a": b"bytes\xff"}]}
                        with open(self.path, "wb") as file:
                            pickle.dump(result, file, protocol=protocol)
                        read = self.read()
                        self.assertEqual(read.returncode, 0, read.stderr)
                        lines = read.stdout.split(b"\n")
                        self.assertEqual(lines[0],
                                         b"%d %d %s q \xc3\xbc|d\xff|1099511627776 float16 cuda  " %
                                         (rows, k, np.dtype(dtype).name.encode()))
                        got = [line.split() for line in lines[1:-1]]
                        self.assertEqual([int(g[0]) for g in got], indices.ravel().tolist())
                        np.testing.assert_array_equal(
                            np.array([float.fromhex(g[1].decode()) for g in got], dtype),
                            scores.ravel())

    def test_pickles_that_are_no_result_are_refused(self):
        class Evil:
            def __reduce__(self):
                return os.system, ("false",)

        good = {"indices": np.zeros((2, 2), np.int64), "scores": np.zeros((2, 2), np.float32)}
        cases = [
            (Evil(), "system"),
            ([1], "holds a list; expected a dict"),
            ({"scores": good["scores"]}, "has no 'indices'"),
            ({**good, "scores": 3}, "'scores' is an int; expected a numpy array"),
            ({**good, "scores": np.zeros((2, 2), np.int64)}, "'scores' is not float32"),
            ({**good, "scores": np.zeros((2, 2), ">f4")}, "native byte order"),
            ({**good, "indices": np.zeros((2, 2), np.int32)}, "'indices' is not int64"),
            ({**good, "indices": np.zeros(4, np.int64)}, "'indices' is 1-D"),
            ({**good, "scores": np.zeros((2, 3), np.float32)}, "expected the same shape"),
            ({**good, "scores": np.zeros((2, 2), np.float32, order="F")}, "Fortran order"),
            ({**good, "indices": np.zeros((2, 2), object)}, "dtype 'O8'"),
            ({**good, "k": "5"}, "'k' is a string; expected an int"),
            ({**good, "dtype": 5}, "'dtype' is an int; expected a string"),
        ]
        for protocol in (2, 4, 5):
            for value, message in cases:
                with self.subTest(protocol=protocol, message=message):
                    with open(self.path, "wb") as file:
                        pickle.dump(value, file, protocol=protocol)
                    read = self.read()
                    self.assertEqual(read.returncode, 1)
                    self.assertIn(message, read.stderr.decode())
                    self.assertIn(self.path, read.stderr.decode())
                    self.assertEqual(read.stderr.count(b"\n"), 1)

    def test_every_truncation_is_refused(self):
        self.write(2, 3)
        with open(self.path, "rb") as file:
            data = file.read()
        for size in list(range(0, len(data), 7)) + [len(data) - 1]:
            with open(self.path, "wb") as file:
                file.write(data[:size])
            read = self.read()
            self.assertEqual(read.returncode, 1, size)


if __name__ == "__main__":
    warnings.simplefilter("error")
    unittest.main(verbosity=1)
