"""Docs that are overwritten, replaced, truncated or removed between jobs and while one reads them.

The worker keeps docs warm, so this is about two things: no answer comes from docs that the file no longer
holds, and no change of a file takes more than the job with it.

Docs that were changed a moment ago are not kept, because the file system's clock could not tell one more
change. So that tests need not wait, the worker's clock runs ahead here.
"""

import os
import unittest

import numpy as np

import fault_rules
from daemon_harness import DaemonTestCase
from fault_rules import HOLD, WORKER


class ChangedDocs(DaemonTestCase):
    num_queries, num_docs, dim = 20, 3000, 32

    def setUp(self):
        super().setUp()
        self.daemon.faults.set_clock_offset(60)
        self.daemon.start()
        self.client = self.daemon.client()
        self.addCleanup(self.client.close)
        self.array = np.load(self.docs)
        self.number = 0

    def run_job(self, **more):
        self.number += 1
        job = self.submit(self.client, f"{self.number}.pkl", **more)
        return self.client.wait(job)[job]

    def assert_fresh(self, **more):
        """A job now gives what `tiny-knn run` gives now; returns it."""
        self._expected = None
        self.expected()
        job = self.run_job(**more)
        self.assert_done(job)
        return job

    def assert_warm(self):
        job = self.assert_fresh()
        self.assertEqual(job["docs_state"], "warm")

    def test_second_job_on_the_same_docs_is_warm(self):
        self.assertEqual(self.assert_fresh()["docs_state"], "cold")
        self.assert_warm()
        self.assertEqual(self.daemon.faults.workers_started, 1)

    # ---- Between two jobs ----

    def change_between(self, change):
        self.assert_fresh()
        self.assert_warm()
        before = self.expected()
        change()
        self.assertEqual(self.assert_fresh()["docs_state"], "cold")
        self.assertNotEqual(self.expected(), before, "the change changes no answer, so it proves nothing")
        self.assert_warm()

    def overwrite(self, keep_time):
        times = os.stat(self.docs)
        with open(self.docs, "r+b") as file:
            file.seek(-self.array.nbytes, os.SEEK_END)
            file.write(np.ascontiguousarray(self.array[::-1]).tobytes())
        if keep_time:
            os.utime(self.docs, ns=(times.st_atime_ns, times.st_mtime_ns))

    def test_overwritten_in_place_between_jobs(self):
        self.change_between(lambda: self.overwrite(False))

    def test_overwritten_in_place_with_its_time_set_back(self):
        self.change_between(lambda: self.overwrite(True))

    def test_overwritten_through_a_mapping(self):
        def change():
            mapped = np.lib.format.open_memmap(self.docs, "r+")
            mapped[:] = self.array[::-1]
            mapped.flush()

        self.change_between(change)

    def test_replaced_by_another_file_between_jobs(self):
        def change():
            times = os.stat(self.docs)
            self.save("new.npy", self.array[::-1])
            os.utime(self.path("new.npy"), ns=(times.st_atime_ns, times.st_mtime_ns))
            os.replace(self.path("new.npy"), self.docs)

        self.change_between(change)

    def test_replaced_by_a_link_to_another_file(self):
        def change():
            os.rename(self.docs, self.path("old.npy"))
            os.symlink(self.save("new.npy", self.array[::-1]), self.docs)

        self.change_between(change)

    def test_shorter_and_longer_between_jobs(self):
        self.change_between(lambda: self.save("docs.npy", self.array[: self.num_docs // 2]))
        self.change_between(lambda: self.save("docs.npy", np.concatenate([self.array, -self.array])))

    def fail_between(self, change, code, *words):
        self.assert_fresh()
        kept = self.path("kept.npy")
        os.link(self.docs, kept)
        change()
        job = self.run_job()
        self.assertEqual((job["state"], job["error_code"]), ("failed", code), job)
        self.assertNotIn("\n", job["error"])
        for word in ("docs.npy", *words):
            self.assertIn(word, job["error"])
        self.assertEqual(self.leftovers(), [])
        self.save("docs.npy", self.array)
        self.assert_fresh()
        self.assertEqual(self.daemon.faults.workers_started, 1)

    def test_truncated_between_jobs(self):
        self.fail_between(lambda: os.truncate(self.docs, 5000), "invalid_argument")

    def test_truncated_to_nothing_between_jobs(self):
        self.fail_between(lambda: os.truncate(self.docs, 0), "invalid_argument")

    def test_removed_between_jobs(self):
        self.fail_between(lambda: os.unlink(self.docs), "not_found")

    def test_replaced_by_a_folder_between_jobs(self):
        def change():
            os.unlink(self.docs)
            os.mkdir(self.docs)

        self.assert_fresh()
        change()
        self.assertEqual(self.run_job()["state"], "failed")
        os.rmdir(self.docs)
        self.save("docs.npy", self.array)
        self.assert_fresh()

    def test_replaced_by_a_pipe_does_not_hang_the_worker(self):
        self.assert_fresh()
        os.unlink(self.docs)
        os.mkfifo(self.docs)
        job = self.run_job()
        self.assertEqual(job["state"], "failed", job)
        os.unlink(self.docs)
        self.save("docs.npy", self.array)
        self.assert_fresh()

    def test_changed_at_once_after_every_job(self):
        """By the true clock, as fast as jobs go, with the time set back: nothing but the contents tells."""
        self.daemon.faults.set_clock_offset(0)
        times = os.stat(self.docs)
        answers = set()
        for number in range(30):
            changed = np.roll(self.array, number, axis=0)
            with open(self.docs, "r+b") as file:
                file.seek(-self.array.nbytes, os.SEEK_END)
                file.write(changed.tobytes())
            os.utime(self.docs, ns=(times.st_atime_ns, times.st_mtime_ns))
            self.assertEqual(self.run_job()["state"], "done")
            with open(self.path(f"{self.number}.pkl"), "rb") as file:
                answers.add(file.read())
        self.assertEqual(len(answers), 30, "an answer was given again for other docs")

    # ---- While a job reads them ----

    def change_during(self, change, warm):
        """Changes the docs once they are open and before they are searched; returns the job."""
        if warm:
            self.assert_fresh()
            self.assert_warm()
        old = self.expected()
        hold = self.daemon.faults.rule(WORKER, fault_rules.OPEN, HOLD, path="*/docs.npy", after=True)
        self.number += 1
        number = self.submit(self.client, f"{self.number}.pkl")
        hold.wait()
        change()
        hold.remove()
        job = self.client.wait(number)[number]
        self.assertIn(job["state"], ("done", "failed"))
        if job["state"] == "done":
            with open(job["output_path"], "rb") as file:
                found = file.read()
            # The file as it was opened or as it is: nothing in between.
            allowed = [old]
            if os.path.exists(self.docs) and os.path.getsize(self.docs) > 200:
                self._expected = None
                allowed.append(self.expected())
            self.assertIn(found, allowed)
        else:
            self.assertNotIn("\n", job["error"])
            self.assertFalse(os.path.exists(self.path(f"{self.number}.pkl")))
        self.assertEqual(self.leftovers(), [])
        self.assertIsNone(self.daemon.process.poll())
        self.save("docs.npy", self.array[::2])
        self.assert_fresh()
        self.assert_warm()
        return job

    def test_truncated_under_a_job(self):
        for warm in (False, True):
            with self.subTest(warm=warm):
                self.save("docs.npy", self.array)
                self._expected = None
                job = self.change_during(lambda: os.truncate(self.docs, 4096), warm)
                self.assertEqual(job["state"], "failed")

    def test_overwritten_under_a_job(self):
        for warm in (False, True):
            with self.subTest(warm=warm):
                self.save("docs.npy", self.array)
                self._expected = None
                self.change_during(lambda: self.overwrite(True), warm)

    def test_replaced_under_a_job(self):
        def change():
            self.save("new.npy", self.array[::-1])
            os.replace(self.path("new.npy"), self.docs)

        for warm in (False, True):
            with self.subTest(warm=warm):
                self.save("docs.npy", self.array)
                self._expected = None
                self.change_during(change, warm)

    def test_removed_under_a_job(self):
        self.change_during(lambda: os.unlink(self.docs), False)

    def test_changed_after_the_search_and_before_the_next(self):
        """The docs change while the result is being written: whatever is kept warm then is not the file."""
        self.assert_fresh()
        hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
        number = self.submit(self.client, "at-end.pkl")
        hold.wait()
        self.overwrite(True)
        hold.remove()
        self.client.wait(number)
        self.assert_fresh()


if __name__ == "__main__":
    unittest.main()
