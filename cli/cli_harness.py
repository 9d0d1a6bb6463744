"""What the tests of the command line share: a scratch folder, inputs, and the real binary in it."""

import ctypes
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy

BINARY = pathlib.Path(__file__).parent.absolute() / "tiny-knn"
if not BINARY.exists():  # the link that the runfiles make, not the file it leads to
    BINARY = pathlib.Path("cli/tiny-knn").absolute()

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def obey_file_modes():
    """In a child before exec: makes root subject to permission bits like everybody else."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_CAPBSET_DROP)")


class CliTest(unittest.TestCase):
    """Runs the binary in a fresh folder that holds q.npy [3, 2] and d.npy [5, 2], float32."""

    QUERIES = numpy.array([[1, 0], [0, 1], [1, 1]], numpy.float32)
    DOCS = numpy.array([[5, 0], [0, 6], [7, 7], [1, 1], [2, 3]], numpy.float32)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.save("q.npy", self.QUERIES)
        self.save("d.npy", self.DOCS)

    def save(self, name, array):
        numpy.save(self.folder / name, array)
        return name

    def files(self):
        return sorted(entry.name for entry in self.folder.iterdir())

    def environment(self, **variables):
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **variables}

    def run_cli(self, *args, env=None, **kwargs):
        """Runs the binary; stdout and stderr come back as text, unless they are given."""
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run(
            [str(BINARY), *map(str, args)],
            cwd=self.folder,
            env=env or self.environment(),
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
            **kwargs,
        )
        # Not by subprocess's text mode, which would make a line's end of every carriage return.
        done.stdout = (done.stdout or b"").decode()
        done.stderr = (done.stderr or b"").decode()
        return done

    def run_ok(self, *args, **kwargs):
        done = self.run_cli(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def assert_refused(self, *args, says=(), code=2, **kwargs):
        """Exit code, exactly one line on stderr, nothing on stdout, no new file."""
        before = self.files()
        done = self.run_cli(*args, **kwargs)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"\Atiny-knn: error: [^\n]+\n\Z")
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, done.stderr)
        self.assertEqual(self.files(), before)
        return done

    def load(self, name):
        with open(self.folder / name, "rb") as source:
            return pickle.load(source)


def main():
    sys.exit(not unittest.main(exit=False, verbosity=2).result.wasSuccessful())
