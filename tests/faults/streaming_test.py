"""Docs several times larger than the memory limit: the same bytes as without a limit, each byte of the file read once.

What memory they take is memory_test.py's.
"""

import ctypes
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase, runfile

MIB = 1 << 20
READ_FAULT = runfile("tests/faults/libread_fault.so")


class Streaming(TestCase):
    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(61)
        self.docs_array = rng.standard_normal((500_000, 64), dtype=np.float32)
        self.queries = self.save("queries.npy", rng.standard_normal((100, 64), dtype=np.float32))

    @staticmethod
    def files(docs):
        return [os.path.join(docs, name) for name in os.listdir(docs)] if os.path.isdir(docs) else [docs]

    def evict(self, docs):
        for path in self.files(docs):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def save_shards(self, *layouts):
        """The docs as a folder of uneven files of these layouts in turn, most of which a block or a chunk reaches over."""
        folder = self.path("shards")
        os.mkdir(folder)
        borders = [0, 1, 40_000, 40_000, 40_007, 200_000, 350_001, 350_500, len(self.docs_array)]
        for i, (begin, end) in enumerate(zip(borders, borders[1:])):
            np.save(os.path.join(folder, f"{i}_docs.npy"), layouts[i % len(layouts)](self.docs_array[begin:end]))
        return folder

    @staticmethod
    def faulty_from(offset):
        """An environment in which reading behind that offset of a file fails."""
        # A sanitizer's runtime wants to be loaded first, but works behind ours.
        sanitizer = "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")
        return {**os.environ, "ASAN_OPTIONS": sanitizer, "LD_PRELOAD": READ_FAULT, "READ_FAULT_FROM": str(offset)}

    def run_and_count(self, docs, *flags, environment=None):
        """The result's bytes, but for the docs' name, and what /proc says that the process read of the docs' size."""
        output = self.path("out.npz")
        command = [BINARY, "run", self.queries, docs, "--k", "20", "--threads", "2", "-o", output, "--quiet", *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        error = process.stderr.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with open(f"/proc/{process.pid}/io") as file:
            counts = {name: int(value) for name, value in (line.split(": ") for line in file)}
        process.wait()
        process.stderr.close()
        self.assertEqual((process.returncode, error), (0, ""))
        with np.load(output) as result:
            found = {name: result[name].tobytes() for name in ("indices", "scores")}
        os.unlink(output)
        size = sum(os.path.getsize(file) for file in self.files(docs))
        return found, counts["rchar"] / size, counts["read_bytes"] / size

    def test_every_layout_is_read_once_and_gives_the_same(self):
        docs = self.save("docs.npy", self.docs_array)
        self.assertGreater(os.path.getsize(docs), 3 * 36 * MIB)
        expected, _, _ = self.run_and_count(docs)
        layouts = {"plain": self.docs_array, "swapped": self.docs_array.astype(">f4"), "fortran": np.asfortranarray(self.docs_array)}
        for name, array in layouts.items():
            np.save(docs, array)
            for cold in (False, True):
                with self.subTest(layout=name, cold=cold):
                    if cold:
                        self.evict(docs)
                    found, by_calls, from_disk = self.run_and_count(docs, "--memory-limit", "38M")
                    self.assertEqual(found, expected)
                    # Headers, the libraries and the samples of chunks come on top.
                    self.assertGreater(by_calls, 0.999)
                    self.assertLess(by_calls, 1.1)
                    self.assertLess(from_disk, 1.1)

    def test_a_folder_of_files_is_read_once_and_gives_the_same(self):
        expected, _, _ = self.run_and_count(self.save("docs.npy", self.docs_array))
        os.unlink(self.path("docs.npy"))
        mixed = (np.ascontiguousarray, lambda rows: rows.astype(">f4"), np.asfortranarray)
        for name, layouts in {"plain": mixed[:1], "mixed": mixed}.items():
            docs = self.save_shards(*layouts)
            for cold in (False, True):
                with self.subTest(layouts=name, cold=cold):
                    if cold:
                        self.evict(docs)
                    found, by_calls, from_disk = self.run_and_count(docs, "--memory-limit", "38M")
                    self.assertEqual(found, expected)
                    self.assertGreater(by_calls, 0.999)
                    self.assertLess(by_calls, 1.1)
                    self.assertLess(from_disk, 1.1)
            with self.subTest(layouts=name, limit="none"):
                found, by_calls, _ = self.run_and_count(docs)
                self.assertEqual(found, expected)
                self.assertLess(by_calls, 1.1)
            shutil.rmtree(docs)

    def test_a_disk_that_fails_under_one_file_of_a_folder_names_it(self):
        docs = self.save_shards(np.ascontiguousarray)
        done = subprocess.run(
            [BINARY, "run", self.queries, docs, "--k", "20", "--memory-limit", "38M", "-o", self.path("out.pkl")],
            env=self.faulty_from(39 * MIB),
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn("4_docs.npy: cannot read: Input/output error", errors[0])
        self.assertEqual(sorted(os.listdir(self.folder)), ["queries.npy", "shards"])

    def test_each_pass_reads_the_docs_once(self):
        docs = self.save("docs.npy", self.docs_array)
        expected, _, _ = self.run_and_count(docs)
        found, by_calls, _ = self.run_and_count(docs, "--memory-limit", "38M", "--batch-size", "34")
        self.assertEqual(found, expected)
        self.assertGreater(by_calls, 2.999)
        self.assertLess(by_calls, 3.3)

    def test_a_disk_that_fails_ends_the_run_with_a_message(self):
        docs = self.save("docs.npy", self.docs_array)
        half = os.path.getsize(docs) // 2
        for array in (self.docs_array, self.docs_array.astype(">f4"), np.asfortranarray(self.docs_array)):
            np.save(docs, array)
            for fails_from in (half, os.path.getsize(docs) - 100):
                done = subprocess.run(
                    [BINARY, "run", self.queries, docs, "--k", "20", "--memory-limit", "38M", "-o", self.path("out.pkl")],
                    env=self.faulty_from(fails_from),
                    capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
                errors = [line for line in done.stderr.splitlines() if "error:" in line]
                self.assertEqual(len(errors), 1, done.stderr)
                self.assertIn("docs.npy: cannot read: Input/output error", errors[0])
                self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "queries.npy"])

    def save_many_queries(self):
        """As many as make computing take longer than reading: then docs are read past the page cache."""
        return self.save("many.npy", np.random.default_rng(62).standard_normal((600, 64), dtype=np.float32))

    def cached_share(self, path):
        """How much of the file the page cache holds."""
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
            pages = -(-len(mapping) // mmap.PAGESIZE)
            found = (ctypes.c_ubyte * pages)()
            start = ctypes.addressof(ctypes.c_byte.from_buffer(mapping))
            if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(mapping)), found) != 0:
                raise OSError(ctypes.get_errno(), "mincore")
            return sum(page & 1 for page in found) / pages

    def test_docs_of_many_queries_are_read_past_the_page_cache(self):
        docs = self.save("docs.npy", self.docs_array)
        self.queries = self.save_many_queries()
        expected, _, _ = self.run_and_count(docs)
        hot, by_calls, from_disk = self.run_and_count(docs, "--memory-limit", "44M")
        self.assertEqual(hot, expected)
        self.assertLess(by_calls, 1.1)
        self.assertLess(from_disk, 0.1)
        self.evict(docs)
        before = self.cached_share(docs)
        cold, by_calls, from_disk = self.run_and_count(docs, "--memory-limit", "44M")
        self.assertEqual(cold, expected)
        self.assertGreater(by_calls, 0.999)
        self.assertLess(by_calls, 1.1)
        self.assertLess(from_disk, 1.1)
        if before > 0.1:
            self.skipTest("NOT ALL RUN: the rest where files are on a disk (TMPDIR)")
        self.assertLess(self.cached_share(docs), 0.3)
        np.save(docs, self.docs_array)
        self.evict(docs)
        done = subprocess.run(
            [BINARY, "run", self.queries, docs, "--k", "20", "--memory-limit", "44M", "-o", self.path("out.pkl")],
            env=self.faulty_from(os.path.getsize(docs) // 2),
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn("docs.npy: cannot read: Input/output error", errors[0])
        self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "many.npy", "queries.npy"])

    def test_an_interrupt_is_heard_while_the_disk_is_read(self):
        docs = self.save("docs.npy", self.docs_array)
        many = self.save_many_queries()
        for delay, queries, flags in [(0.01, self.queries, ("--batch-size", "1")), (0.03, self.queries, ("--batch-size", "1")),
                                      (0.1, self.queries, ("--batch-size", "1")), (0.02, many, ()), (0.1, many, ())]:
            # A search that was faster than the delay says nothing: it is asked again, sooner.
            for _ in range(6):
                self.evict(docs)
                process = subprocess.Popen(
                    [BINARY, "run", queries, docs, "--k", "20", "--memory-limit", "44M", *flags, "-o", self.path("out.pkl")],
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                while not self.has_caught_signals(process.pid):
                    time.sleep(0.001)
                time.sleep(delay)
                process.send_signal(signal.SIGINT)
                start = time.monotonic()
                _, error = process.communicate(timeout=60)
                self.assertLess(time.monotonic() - start, 5)
                if process.returncode != 0:
                    break
                os.unlink(self.path("out.pkl"))
                delay /= 2
            self.assertEqual(process.returncode, 130, error)
            self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "many.npy", "queries.npy"])

    @staticmethod
    def has_caught_signals(pid):
        """Whether the process has a handler for SIGINT."""
        with open(f"/proc/{pid}/status") as file:
            caught = next(line for line in file if line.startswith("SigCgt:"))
        return int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1

    def test_a_file_truncated_while_it_is_read_ahead_ends_the_run_with_a_message(self):
        docs = self.save("docs.npy", self.docs_array)
        size = os.path.getsize(docs)
        for keep in (size // 2, 0):
            # A search that was faster than the delay says nothing: its file is truncated again, sooner.
            for delay in (0.1, 0.05, 0.025, 0.012):
                np.save(docs, self.docs_array)
                self.evict(docs)
                process = subprocess.Popen(
                    [BINARY, "run", self.queries, docs, "--k", "20", "--memory-limit", "38M", "--batch-size", "1",
                     "-o", self.path("out.pkl")],
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                truncation = threading.Timer(delay, os.truncate, (docs, keep))
                truncation.start()
                _, error = process.communicate(timeout=60)
                truncation.join()
                if process.returncode != 0:
                    break
                os.unlink(self.path("out.pkl"))
            self.assertIn(process.returncode, (1, 2), error)  # 2: it had not been opened yet
            self.assertIn("docs.npy", error)
            self.assertEqual(len([line for line in error.splitlines() if "error:" in line]), 1, error)
            self.assertEqual(sorted(os.listdir(self.folder)), ["docs.npy", "queries.npy"])


if __name__ == "__main__":
    unittest.main()
