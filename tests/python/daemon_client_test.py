"""submit and Job, against a daemon."""

import os
import subprocess
import tempfile
import unittest

import numpy as np
from python_harness import PROGRAM, PythonTest, random_rows

from tiny_knn import Job, exact_search, submit


class DaemonClient(PythonTest):
    def setUp(self):
        super().setUp()
        # A socket's path is short, which the test's folder is not.
        folder = tempfile.TemporaryDirectory(dir="/tmp", prefix="tk")
        self.addCleanup(folder.cleanup)
        self.socket = f"{folder.name}/daemon.sock"
        old = dict(os.environ)
        self.addCleanup(os.environ.update, old)
        os.environ["TINY_KNN_SOCKET"] = self.socket
        # Nothing is installed here: the program is the one on PATH.
        os.environ["PATH"] = f"{PROGRAM.parent}:{os.environ['PATH']}"
        subprocess.run(
            [PROGRAM, "daemon", "--background", "--state-dir", f"{folder.name}/state"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        self.addCleanup(subprocess.run, [PROGRAM, "shutdown", "--now"], stderr=subprocess.DEVNULL, check=False)
        self.queries, self.docs = random_rows(5, 8, 1), random_rows(200, 8, 2)
        np.save("q.npy", self.queries)
        np.save("d.npy", self.docs)

    def test_a_job_from_beginning_to_end(self):
        job = submit("q.npy", "d.npy", k=4, metric="l2", threads=1)
        self.assertIs(job.wait(timeout=60), job)
        self.assertTrue(job.done())
        status = job.status()
        self.assertEqual((status["state"], status["output_path"]), ("done", str(self.folder / "top4_q_x_d.pkl")))
        result = job.result()
        self.assert_same_bits((result["indices"], result["scores"]), exact_search(self.queries, self.docs, 4, "l2"))
        self.assertIn("screen", job.log())
        self.assertEqual(Job(job.id, socket=self.socket).status()["state"], "done")
        self.assertEqual(repr(job), f"<tiny_knn.Job {job.id}>")

    def test_every_argument_arrives(self):
        arguments = {
            "out_path": "o.pkl",
            "dtype": "float64",
            "exclude_self": True,
            "device": "cpu",
            "memory_limit": 256 << 20,
            "batch_size": 3,
            "verify": 2,
            "priority": -5,
            "timeout": 60,
            "key": "once",
            "socket": self.socket,
        }
        job = submit(self.folder / "q.npy", b"d.npy", **arguments)
        self.assertEqual(submit(self.folder / "q.npy", b"d.npy", **arguments).id, job.id)
        result = job.result(timeout=60)
        self.assertEqual((result["k"], result["dtype"], result["batch_size"]), (199, "float64", 3))
        self.assertEqual(job.status()["priority"], -5)
        self.assertIn("verified 2 of 5", job.log())

    def test_what_goes_wrong_says_so(self):
        with self.assertRaisesRegex(ValueError, "k=201 exceeds the number of docs D=200 in d.npy"):
            submit("q.npy", "d.npy", k=201)
        with self.assertRaisesRegex(ValueError, "none.npy"):
            submit("none.npy", "d.npy")
        with self.assertRaisesRegex(ValueError, "999"):
            Job(999).status()
        with self.assertRaisesRegex(RuntimeError, "no daemon|daemon"):
            submit("q.npy", "d.npy", k=1, socket=f"{self.socket}.none")

    def test_a_job_that_fails_or_is_cancelled(self):
        # So long that it is there to be cancelled.
        big = random_rows(120_000, 128, 3)
        np.save("big.npy", big)
        job = submit("big.npy", "big.npy", k=100, threads=1)
        with self.assertRaisesRegex(TimeoutError, "within 0.3 s"):
            job.wait(timeout=0.3)
        waiting = submit("q.npy", "d.npy", k=1)
        os.remove("q.npy")
        job.cancel()
        with self.assertRaisesRegex(RuntimeError, f"job {job.id} cancelled"):
            job.wait(timeout=60)
        with self.assertRaisesRegex(RuntimeError, f"job {waiting.id} failed: .*q.npy"):
            waiting.result(timeout=60)
        self.assertEqual(self.files(), ["big.npy", "d.npy"])


if __name__ == "__main__":
    unittest.main()
