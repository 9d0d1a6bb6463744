"""Files that are truncated, overwritten or replaced while a run reads them."""

import os
import unittest

import numpy as np
from slow_run import SlowRunTestCase


class ChangingFile(SlowRunTestCase):
    def test_truncated_docs_end_the_run_with_a_message(self):
        process = self.start()
        os.truncate(self.docs, os.path.getsize(self.docs) // 3)
        self.assert_failed_cleanly(process, 1, "docs.npy", "changed while it was read")

    def test_docs_truncated_to_nothing_end_the_run_with_a_message(self):
        process = self.start()
        os.truncate(self.docs, 0)
        self.assert_failed_cleanly(process, 1, "docs.npy", "changed while it was read")

    def test_truncated_queries_end_the_run_with_a_message(self):
        process = self.start()
        os.truncate(self.queries, 4096)
        self.assert_failed_cleanly(process, 1, "queries.npy", "changed while it was read")

    def test_overwritten_docs_end_the_run_with_a_message(self):
        process = self.start()
        with open(self.docs, "r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(b"\0" * 64)
        self.assert_failed_cleanly(process, 1, "docs.npy", "changed while it was read")

    def test_docs_that_grow_end_the_run_with_a_message(self):
        process = self.start()
        with open(self.docs, "ab") as file:
            file.write(b"\0" * 64)
        self.assert_failed_cleanly(process, 1, "docs.npy", "changed while it was read")

    def test_docs_read_through_a_buffer_are_watched_too(self):
        np.save(self.docs, np.asfortranarray(self.docs_array))
        process = self.start()
        os.truncate(self.docs, os.path.getsize(self.docs) // 3)
        self.assert_failed_cleanly(process, 1, "docs.npy")

    def test_truncated_docs_leave_an_older_result_alone(self):
        with open(self.output, "w") as file:
            file.write("older")
        process = self.start()
        os.truncate(self.docs, 1000)
        self.assertEqual(self.finish(process)[0], 1)
        with open(self.output) as file:
            self.assertEqual(file.read(), "older")

    def test_docs_whose_name_another_file_took_end_the_run_with_a_message(self):
        """The old file's change time moves when it loses its name: better a false alarm than a false result."""
        process = self.start()
        np.save(self.path("new.npy"), np.zeros((10, 64), np.float32))
        os.replace(self.path("new.npy"), self.docs)
        self.assert_failed_cleanly(process, 1, "docs.npy", "changed while it was read")


if __name__ == "__main__":
    unittest.main()
