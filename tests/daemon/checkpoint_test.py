"""A job with a checkpoint goes on from it when the daemon, or its worker, was killed."""

import os
import signal
import unittest

from daemon_harness import DaemonTestCase, wait_for


class Checkpoints(DaemonTestCase):
    num_queries, num_docs, dim = 3000, 30_000, 64

    def setUp(self):
        super().setUp()
        self.checkpoint = self.path("run.ckpt")
        self.daemon.start()

    def expected(self):
        if self._expected is None:
            flags = ["--k", self.k, "--batch-size", 50, "--output-path", self.path("expected.pkl"), "--quiet", "--device", "cpu"]
            done = self.program(["run", self.queries, self.docs, *flags])
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path("expected.pkl"), "rb") as file:
                self._expected = file.read()
            os.unlink(self.path("expected.pkl"))
        return self._expected

    def submit_with_checkpoint(self, client):
        return self.submit(client, key="one", batch_size=50, checkpoint="run.ckpt", checkpoint_seconds=0)

    def wait_until_under_way(self):
        """Until the rows of some batches are kept."""
        rows = self.checkpoint + ".rows"
        wait_for(lambda: os.path.exists(rows) and os.path.getsize(rows) > 20_000, "rows of a checkpoint", 60)

    def assert_done_from_checkpoint(self, client, number):
        self.assert_done(client.wait(number)[number])
        self.assertIn("went on from the checkpoint run.ckpt", client.call("log", job=number)["text"])
        left = {name for name in os.listdir(self.folder) if "ckpt" in name or name.endswith(".tmp")}
        self.assertEqual(left, set())

    def test_killed_daemon_goes_on_from_the_checkpoint(self):
        self.expected()
        number = self.submit_with_checkpoint(self.daemon.client())
        self.wait_until_under_way()
        self.daemon.kill()
        self.assert_no_orphans()
        self.assertTrue(os.path.exists(self.checkpoint))
        self.assertFalse(os.path.exists(self.path("out.pkl")))
        self.daemon.start()
        self.assert_done_from_checkpoint(self.daemon.client(), number)

    def test_job_whose_worker_was_killed_goes_on_when_it_is_submitted_again(self):
        self.expected()
        client = self.daemon.client()
        number = self.submit_with_checkpoint(client)
        self.wait_until_under_way()
        for pid in self.daemon.workers():
            os.kill(pid, signal.SIGKILL)
        job = client.wait(number)[number]
        if job["state"] != "done":  # the daemon does not try again what may have killed the worker
            self.assertEqual(job["state"], "failed", job)
            number = self.submit(client, key="two", batch_size=50, checkpoint="run.ckpt", checkpoint_seconds=0)
        self.assert_done_from_checkpoint(client, number)

    def test_cancelled_job_leaves_its_checkpoint(self):
        self.expected()
        client = self.daemon.client()
        number = self.submit_with_checkpoint(client)
        self.wait_until_under_way()
        client.call("cancel", jobs=[number])
        self.assertEqual(client.wait(number)[number]["state"], "cancelled")
        self.assertTrue(os.path.exists(self.checkpoint))
        number = self.submit(client, key="two", batch_size=50, checkpoint="run.ckpt", checkpoint_seconds=0)
        self.assert_done_from_checkpoint(client, number)


if __name__ == "__main__":
    unittest.main()
