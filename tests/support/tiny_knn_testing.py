"""What the tests in Python share: running the program, files, and comparing bits."""

import os
import pickle
import subprocess
import tempfile
import unittest

import numpy as np

_RUNFILES = os.getcwd()  # tests are started from the runfiles' root

BINARY = os.path.join(_RUNFILES, "cli", "tiny-knn")


def runfile(path):
    """The full path of a file given from the workspace's root."""
    return os.path.join(_RUNFILES, path)


def bits(array):
    """The bit patterns of an array, so that NaN equals itself and -0 differs from +0."""
    array = np.ascontiguousarray(array)
    return array.view(np.dtype("u%d" % array.dtype.itemsize))


def load_result(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def round_to_bfloat16(values):
    """float64 values rounded once to bfloat16, ties to even, as float64."""
    values = np.asarray(values, dtype=np.float64)
    _, exponent = np.frexp(values)
    ulp = np.ldexp(1.0, np.maximum(exponent - 1, -126) - 7)
    with np.errstate(invalid="ignore"):
        rounded = np.rint(values / ulp) * ulp
    largest = np.ldexp(255.0, 120)
    rounded = np.where(np.abs(rounded) > largest, np.copysign(np.inf, values), rounded)
    return np.where(np.isfinite(values), rounded, values)


def save_bfloat16(path, values):
    """Writes values that are bfloat16 numbers as raw two-byte data, as numpy with ml_dtypes does."""
    narrow = np.ascontiguousarray(values, dtype=np.float32)
    np.save(path, (narrow.view(np.uint32) >> 16).astype(np.uint16).view("V2"))


class TestCase(unittest.TestCase):
    """A test with a folder of its own, in which the program runs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def save(self, name, array):
        np.save(self.path(name), array)
        return self.path(name)

    def program(self, arguments, binary=(BINARY,), **options):
        """Runs the program and returns the finished process, text captured."""
        return subprocess.run(
            [*binary, *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            **options,
        )

    def search(self, queries, docs, *flags, binary=(BINARY,), output="result.pkl"):
        """Searches two files and returns the result's dict."""
        done = self.program(
            ["run", queries, docs, "--output-path", self.path(output), "--quiet", *flags], binary
        )
        self.assertEqual(done.returncode, 0, f"{flags}: {done.stderr}")
        return load_result(self.path(output))

    def assert_same_bits(self, expected, found, what=""):
        """Two results' dicts hold the same indices and scores, bit for bit."""
        for name in ("indices", "scores"):
            self.assertEqual(expected[name].dtype, found[name].dtype, f"{what} {name}")
            self.assertEqual(expected[name].shape, found[name].shape, f"{what} {name}")
            differ = np.argwhere(bits(expected[name]) != bits(found[name]))
            if len(differ):
                query, rank = differ[0]
                self.fail(
                    f"{what}: {len(differ)} {name} differ, first at query {query}, rank {rank}: expected doc "
                    f"{expected['indices'][query, rank]} score {expected['scores'][query, rank]!r}, found doc "
                    f"{found['indices'][query, rank]} score {found['scores'][query, rank]!r}"
                )
