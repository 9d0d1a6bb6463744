"""What the tests of the Python package share: the package as the runfiles have it, a scratch folder, the program."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path.cwd()
PACKAGE = ROOT / "python"  # where Bazel puts it; tools/wheel_test runs these with an installed one
if (PACKAGE / "tiny_knn").exists():
    PROGRAM = ROOT / "cli" / "tiny-knn"
    SEARCH_PATH = str(PACKAGE)
    sys.path.insert(0, SEARCH_PATH)
else:
    PROGRAM = pathlib.Path(sys.executable).with_name("tiny-knn")
    SEARCH_PATH = ""

import numpy as np  # noqa: E402
import tiny_knn  # noqa: E402


class PythonTest(unittest.TestCase):
    """Runs in a fresh folder."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())

    def run_program(self, *arguments):
        """`tiny-knn run`, into run.pkl, and what that holds."""
        command = [PROGRAM, "run", *map(str, arguments), "-q", "-o", "run.pkl"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        return tiny_knn.load_result("run.pkl")

    def assert_same_bits(self, found, expected):
        """Both are (indices, scores)."""
        for one, other in zip(found, expected):
            self.assertEqual(one.dtype, other.dtype)
            self.assertEqual(one.shape, other.shape)
            self.assertEqual(one.tobytes(), other.tobytes())

    def start_python(self, code, **kwargs):
        """Another interpreter of this kind that runs `code`, with the package on its path."""
        environment = {**os.environ, "PYTHONPATH": SEARCH_PATH, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, **kwargs)

    def run_python(self, code):
        """What it prints."""
        with self.start_python(code) as process:
            out, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, out)
        return out


def random_rows(rows, dim, seed, dtype=np.float32):
    """Rows of small integers where the type is one, else of normal numbers."""
    values = np.random.default_rng(seed).standard_normal((rows, dim))
    if np.dtype(dtype).kind in "iub":
        return np.abs(values * 40).astype(dtype) if np.dtype(dtype).kind == "u" else (values * 40).astype(dtype)
    return values.astype(dtype)
