"""A run that is long enough to do something to it while it is under way."""

import json
import os
import subprocess
import sys

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase


class SlowRunTestCase(TestCase):
    """Starts runs of many passes over 51 MB of docs, and looks at what they leave."""

    def setUp(self):
        super().setUp()
        state = np.random.default_rng(31)
        block = state.standard_normal((20000, 64)).astype(np.float32)
        self.docs_array = np.concatenate([block * (1 + i / 16) for i in range(10)])
        self.docs = self.save("docs.npy", self.docs_array)
        self.queries = self.save("queries.npy", np.tile(block[:1000], (8, 1)))
        self.output = self.path("out.pkl")

    def start(self, *flags):
        """Starts a run; returns it once it has screened some pairs and is far from done."""
        command = [
            *(BINARY, "run", self.queries, self.docs, "--k", "100", "--threads", "1", "--batch-size", "50"),
            *("--progress", "json", "--output-path", self.output, *flags),
        ]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, process)
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "progress" and event["pairs_done"] > 0:
                self.assertLess(event["pairs_done"], event["pairs_total"] / 4, "the run is too fast for this test")
                return process
        self.fail(f"the run ended with {process.wait()} before it reported progress")

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def finish(self, process):
        """Waits for the run; returns its exit code, what it printed, and its error messages."""
        out, err = process.communicate(timeout=120)
        events = [json.loads(line) for line in err.splitlines()]
        errors = [event["text"] for event in events if event["event"] == "error"]
        return process.returncode, out, errors

    def assert_failed_cleanly(self, process, code, *words):
        """The run ended with `code`, one line of error with these words, and left nothing behind."""
        returned, out, errors = self.finish(process)
        self.assertEqual((returned, out), (code, ""), errors)
        self.assertEqual(len(errors), 1, errors)
        self.assertNotIn("\n", errors[0])
        for word in words:
            self.assertIn(word, errors[0])
        self.assert_only_inputs_left()

    def assert_only_inputs_left(self):
        self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "queries.npy"])
