"""Signals in the middle of a run."""

import os
import signal
import time
import unittest

from slow_run import SlowRunTestCase


class InterruptedRun(SlowRunTestCase):
    def interrupt(self, number):
        process = self.start()
        temporary = [name for name in os.listdir(self.folder) if name not in ("docs.npy", "queries.npy")]
        self.assertEqual(len(temporary), 1, "the run should be writing a temporary file here")
        process.send_signal(number)
        sent = time.monotonic()
        self.assert_failed_cleanly(process, 128 + number, "interrupted")
        self.assertLess(time.monotonic() - sent, 5)

    def test_ctrl_c_leaves_nothing_behind(self):
        self.interrupt(signal.SIGINT)

    def test_sigterm_leaves_nothing_behind(self):
        self.interrupt(signal.SIGTERM)

    def test_hangup_leaves_nothing_behind(self):
        self.interrupt(signal.SIGHUP)

    def test_ctrl_c_leaves_an_older_result_alone(self):
        with open(self.output, "w") as file:
            file.write("older")
        process = self.start()
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(process)[0], 130)
        with open(self.output) as file:
            self.assertEqual(file.read(), "older")
        os.unlink(self.output)
        self.assert_only_inputs_left()

    def test_the_same_search_works_after_an_interrupt(self):
        process = self.start()
        process.send_signal(signal.SIGINT)
        self.finish(process)
        done = self.program(["run", self.queries, self.docs, "--k", 1, "--output-path", self.output, "--quiet"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
