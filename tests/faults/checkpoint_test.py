"""Runs that are killed, and go on from their checkpoints; disks that are full, files that change meanwhile."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase


class CheckpointTestCase(TestCase):
    """A search of some seconds: thirty batches, each of several chunks."""

    K = 50

    def setUp(self):
        super().setUp()
        state = np.random.default_rng(51)
        # Of small integers, so that there are ties everywhere; some rows are not finite.
        self.docs_array = state.integers(-3, 4, (60_000, 96)).astype(np.float32)
        self.docs_array[::997] = np.nan
        self.docs = self.save("docs.npy", self.docs_array)
        queries = state.integers(-3, 4, (3000, 96)).astype(np.float32)
        queries[7, 3] = np.inf
        self.queries = self.save("queries.npy", queries)
        self.output = self.path("out.pkl")
        self.checkpoint = self.path("run.ckpt")

    def arguments(self, docs=None, **flags):
        command = ["run", self.queries, docs or self.docs, "--k", str(self.K), "--threads", "1", "--batch-size", "100"]
        command += ["--memory-limit", "35M", "--progress", "json", "--output-path", self.output, "--exclude-self"]
        for flag, value in flags.items():
            command += ["--" + flag.replace("_", "-"), str(value)]
        return command

    def checkpointed(self, docs=None, **flags):
        return self.arguments(docs, checkpoint=self.checkpoint, checkpoint_every=0, **flags)

    def plain(self, docs=None, **flags):
        """The bytes of an uninterrupted run, what it said, and how long it took."""
        start = time.monotonic()
        done = self.program(self.arguments(docs, **flags))
        seconds = time.monotonic() - start
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.output, "rb") as file:
            data = file.read()
        os.unlink(self.output)
        return data, self.counts(done.stderr), seconds

    @staticmethod
    def counts(stderr):
        """What the run noticed in its input, which no plan and no kill may change."""
        import json

        done = [json.loads(line) for line in stderr.splitlines() if '"event":"done"' in line]
        assert len(done) == 1, stderr
        names = ("nonfinite_query_rows", "nonfinite_doc_rows", "infs_made_in_queries", "infs_made_in_docs", "queries_with_tie_at_k")
        return {name: done[0][name] for name in names}

    def start(self, arguments):
        process = subprocess.Popen([BINARY, *arguments], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: process.poll() is None and (process.kill(), process.communicate()))
        return process

    def kill_once_saved(self, arguments, after):
        """Kills a run `after` seconds after it has made a checkpoint; whether it was under way still."""
        process = self.start(arguments)
        while process.poll() is None and not os.path.exists(self.checkpoint):
            time.sleep(0.002)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL

    def others(self):
        return sorted(set(os.listdir(self.folder)) - {"docs.npy", "queries.npy"})


class KilledRun(CheckpointTestCase):
    def test_twenty_kills_at_random_moments_change_no_byte(self):
        expected, counts, seconds = self.plain()
        self.assertGreater(counts["queries_with_tie_at_k"], 100)
        chance = random.Random(17)
        kills = went_on = 0
        while kills < 20:
            # Of each result several runs are killed, and the last one is left in peace.
            for _ in range(chance.randint(1, 5)):
                kills += self.kill_once_saved(self.checkpointed(), chance.uniform(0, seconds * 0.4))
            done = self.program(self.checkpointed())
            self.assertEqual(done.returncode, 0, done.stderr)
            went_on += "went on from the checkpoint" in done.stderr
            with open(self.output, "rb") as file:
                self.assertEqual(file.read(), expected)
            self.assertEqual(self.counts(done.stderr), counts)
            self.assertEqual(self.others(), ["out.pkl"], "neither checkpoints nor temporary files pile up")
            os.unlink(self.output)
        self.assertGreater(went_on, 2)

    def test_killed_before_the_first_saving_is_begun_again(self):
        expected, _, _ = self.plain()
        process = self.start(self.checkpointed())
        time.sleep(0.01)
        process.kill()
        process.communicate()
        done = self.program(self.checkpointed())
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), expected)

    def test_interrupted_says_how_to_go_on(self):
        process = self.start(self.checkpointed())
        while process.poll() is None and not os.path.exists(self.checkpoint):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn("the same command goes on from the checkpoint", err)
        self.assertEqual(self.others(), ["run.ckpt", "run.ckpt.rows"])

    def test_two_runs_do_not_share_a_checkpoint(self):
        process = self.start(self.checkpointed())
        while process.poll() is None and not os.path.exists(self.checkpoint):
            time.sleep(0.002)
        second = self.program(self.checkpointed())
        self.assertEqual(second.returncode, 2, second.stderr)
        self.assertIn("another process is using this checkpoint", second.stderr)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.others(), ["out.pkl"])


class ChangedInput(CheckpointTestCase):
    def refused(self, *words, docs=None, code=2, **flags):
        with open(self.checkpoint, "rb") as file:
            before = file.read()
        done = self.program(self.checkpointed(docs, **flags))
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        with open(self.checkpoint, "rb") as file:
            self.assertEqual(file.read(), before, "nothing is lost")
        self.assertFalse(os.path.exists(self.output))

    def test_docs_that_changed_since_are_refused_until_they_are_back(self):
        expected, _, seconds = self.plain()
        self.assertTrue(self.kill_once_saved(self.checkpointed(), seconds / 3))
        self.refused("run.ckpt: is the checkpoint of another search: k is 50 there, 49 here", k=49)
        self.refused("metric is ip there, l2 here", metric="l2")
        moved = self.path("moved.npy")
        os.rename(self.docs, moved)
        self.refused("docs.npy", code=2)  # there are none
        other = self.docs_array.copy()
        other[5] += 1
        self.save("docs.npy", other)
        self.refused("docs is a file of", "remove it to begin anew")
        os.unlink(self.checkpoint)
        os.unlink(self.docs)
        os.rename(moved, self.docs)
        done = self.program(self.checkpointed())
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), expected)

    def test_shards_that_change_are_named(self):
        os.mkdir(self.path("shards"))
        for i, part in enumerate(np.array_split(self.docs_array, [1000, 25_000, 25_000, 40_000])):
            np.save(self.path(f"shards/docs_{i + 8}.npy"), part)
        shards = self.path("shards")
        expected, _, seconds = self.plain(docs=shards)
        self.assertTrue(self.kill_once_saved(self.checkpointed(shards), seconds / 3))
        third = self.path("shards/docs_10.npy")
        saved = self.path("saved.npy")
        os.rename(third, saved)
        self.refused("number of docs files is 5 there, 4 here", docs=shards)
        np.save(third, np.zeros((0, 95), np.float32))
        self.refused("docs_10.npy: has dim=95, but", "docs_8.npy has dim=96", docs=shards)
        np.save(third, np.zeros((0, 96), np.float16))
        self.refused("docs_10.npy: is float16, but", "docs_8.npy is float32", docs=shards)
        with open(third, "wb") as file:
            file.write(b"no matrix")
        self.refused("docs_10.npy", docs=shards)
        np.save(third, np.zeros((0, 96), np.float32))
        self.refused("docs_10.npy is a file of", docs=shards)
        os.unlink(self.checkpoint)
        done = self.program(self.checkpointed(shards))
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), expected)

    def test_shard_truncated_during_the_search_is_named(self):
        os.mkdir(self.path("shards"))
        for i, part in enumerate(np.array_split(self.docs_array, 6)):
            np.save(self.path(f"shards/{i}.npy"), part)
        process = self.start(self.checkpointed(self.path("shards")))
        while process.poll() is None and not os.path.exists(self.checkpoint):
            time.sleep(0.002)
        os.truncate(self.path("shards/4.npy"), 100_000)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (1, ""), err)
        self.assertIn("shards/4.npy", err)
        self.assertEqual(self.others(), ["run.ckpt", "run.ckpt.rows", "shards"])


class FullDisk(CheckpointTestCase):
    def run_on_small_disk(self, size, then=""):
        """Runs with the checkpoint on a file system of `size`; returns the process, with what is left there as stdout.

        `then` is shell, in which RUN is the same run and DISK where it is.
        """
        disk = self.path("disk")
        os.mkdir(disk)
        self.checkpoint = os.path.join(disk, "run.ckpt")
        run = shlex.join([BINARY, *self.checkpointed(), "--quiet"])
        script = f"mount -t tmpfs -o size={size} none {disk} || exit 99; {run} >/dev/null; code=$?; ls -A {disk}; {then.replace('RUN', run).replace('DISK', disk)} exit $code"
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 99 or "unshare" in done.stderr:
            print(f"NOT RUN: this machine lets no test mount a small disk ({done.stderr.strip()})", flush=True)
            self.skipTest("no user namespaces")
        return done

    def test_disk_without_room_for_a_checkpoint_is_found_at_once(self):
        # 4 KiB for the rows, none for the state.
        done = self.run_on_small_disk("4k")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("run.ckpt", done.stderr)
        self.assertIn("space", done.stderr)
        self.assertFalse(os.path.exists(self.output))

    def test_disk_that_fills_up_leaves_the_last_checkpoint(self):
        expected, _, _ = self.plain()
        # A batch's best docs take 82 kB, and its rows 60 kB: the state is saved, the rows of some later batch do not fit.
        done = self.run_on_small_disk(
            "420k", then="mount -o remount,size=10m DISK; RUN >/dev/null || exit 98; ls -A DISK | grep . && exit 97;"
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("space", done.stderr)
        self.assertEqual(done.stdout.split()[:2], ["run.ckpt", "run.ckpt.rows"])
        # And with more room it went on.
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), expected)


if __name__ == "__main__":
    unittest.main()
