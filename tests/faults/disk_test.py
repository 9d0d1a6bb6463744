"""A disk that is full, a file size limit, a standard output that cannot be written."""

import os
import resource
import shlex
import subprocess
import sys
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase


class FullDisk(TestCase):
    def setUp(self):
        super().setUp()
        state = np.random.default_rng(41)
        self.queries = self.save("queries.npy", state.standard_normal((300, 16)).astype(np.float32))
        self.docs = self.save("docs.npy", state.standard_normal((2000, 16)).astype(np.float32))
        # 300 x 1000 x (8 + 4) bytes: 3.6 MB
        self.arguments = [BINARY, "run", self.queries, self.docs, "--k", "1000", "--quiet"]

    def assert_one_line(self, text, *words):
        self.assertEqual(text.count("\n"), 1, text)
        self.assertTrue(text.startswith("tiny-knn: error: "), text)
        for word in words:
            self.assertIn(word, text)

    def run_on_small_disk(self, size):
        """Runs on a file system of `size`; returns the process, with what is left there as stdout."""
        disk = self.path("disk")
        os.mkdir(disk)
        run = shlex.join([*self.arguments, "--output-path", os.path.join(disk, "out.pkl")])
        script = f"mount -t tmpfs -o size={size} none {disk} || exit 99; {run} >/dev/null; code=$?; ls -A {disk}; exit $code"
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 99 or "unshare" in done.stderr:
            print(f"NOT RUN: this machine lets no test mount a small disk ({done.stderr.strip()})", flush=True)
            self.skipTest("no user namespaces")
        return done

    def test_full_disk_is_said_and_leaves_nothing(self):
        done = self.run_on_small_disk("1m")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assert_one_line(done.stderr, "out.pkl", "space")

    def test_disk_that_is_just_large_enough_gets_the_result(self):
        done = self.run_on_small_disk("4m")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "out.pkl\n", ""))

    def test_file_size_limit_is_said_and_leaves_nothing(self):
        output = self.path("out.pkl")
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        done = subprocess.run(
            [*self.arguments, "--output-path", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assert_one_line(done.stderr, "out.pkl")
        self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "queries.npy"])

    def test_full_standard_output_is_an_error(self):
        for arguments in (
            [*self.arguments, "--output-path", self.path("out.pkl")],
            [*self.arguments, "--dry-run"],
            [BINARY, "info", self.docs],
            [BINARY, "--version"],
            [BINARY, "help"],
        ):
            with self.subTest(arguments=arguments[1:]):
                with open("/dev/full", "w") as full:
                    done = subprocess.run(arguments, cwd=self.folder, stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assert_one_line(done.stderr, "standard output")


if __name__ == "__main__":
    unittest.main()
