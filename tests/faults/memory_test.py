"""Peak memory of runs whose docs are ten times the limit.

The peak is VmHWM of the finished process, which counts its own memory and the pages of files mapped into
it. A run may use its limit and a tenth more, code and libraries included.
"""

import fcntl
import os
import subprocess
import sys
import time
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
from tiny_knn_testing import BINARY, TestCase

MIB = 1 << 20


class PeakMemory(TestCase):
    def peak(self, *arguments):
        """Runs the program to its end, but for the last write of its output; returns VmHWM in bytes."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        filled = os.write(writer, b"x" * 4096)
        output = self.path("out.pkl")
        process = subprocess.Popen(
            [BINARY, "run", *map(str, arguments), "--output-path", output, "--quiet"], stdout=writer, stderr=subprocess.PIPE, text=True
        )
        os.close(writer)
        try:
            # The result is complete once it has its name; then the program waits for room in the pipe.
            deadline = time.monotonic() + 200
            while not os.path.exists(output):
                if process.poll() is not None:
                    self.fail(f"exit code {process.returncode}: {process.stderr.read()}")
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
            while True:
                with open(f"/proc/{process.pid}/status") as file:
                    status = dict(line.split(":", 1) for line in file)
                if "pipe_write" in self.waits_in(process.pid) or status["State"].split()[0] == "S":
                    break
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
        finally:
            with os.fdopen(reader, "rb") as pipe:
                text = pipe.read()
            process.wait()
        self.assertEqual((process.returncode, process.stderr.read()), (0, ""))
        process.stderr.close()
        self.assertEqual(text[filled:].decode(), output + "\n")
        os.unlink(output)
        return int(status["VmHWM"].split()[0]) * 1024

    @staticmethod
    def waits_in(pid):
        try:
            with open(f"/proc/{pid}/wchan") as file:
                return file.read()
        except OSError:
            return ""

    def save_large(self, name, dtype, rows, dim, order="C"):
        """A file of random rows that repeat, written without holding it in memory."""
        block = np.random.default_rng(51).standard_normal((4096, dim)).astype(dtype)
        stored = np.lib.format.open_memmap(self.path(name), "w+", dtype, (rows, dim), fortran_order=order == "F")
        for begin in range(0, rows, len(block)):
            stored[begin : begin + len(block)] = block[: rows - begin]
            block[0, 0] += 1
        del stored
        return self.path(name)

    def check(self, docs, dim, limit_mib, *flags, num_queries=20):
        self.assertGreaterEqual(os.path.getsize(docs), 10 * limit_mib * MIB)
        rng = np.random.default_rng(52)
        few = rng.standard_normal((20, dim)).astype(np.float32)
        queries = self.save("queries.npy", rng.standard_normal((num_queries, dim)).astype(np.float32))
        threads = ("--threads", 2)
        base = self.peak(self.save("few.npy", few), self.path("few.npy"), "--k", 10, *threads)
        # Which is what the plan counts for the program (12 MiB), and what a search of some rows takes.
        self.assertLess(base, 13 * MIB)
        peak = self.peak(queries, docs, "--k", 10, "--memory-limit", f"{limit_mib}M", *threads, *flags)
        most = limit_mib * MIB * 11 // 10
        print(
            f"{' '.join(map(str, flags)) or 'plain'}: docs {os.path.getsize(docs) / MIB:.0f} MiB, limit {limit_mib} MiB: peak "
            f"{peak / MIB:.1f} MiB, of which {base / MIB:.1f} MiB is what a tiny search needs",
            flush=True,
        )
        self.assertLessEqual(peak, most)

    def test_mapped_docs(self):
        self.check(self.save_large("docs.npy", np.float16, 1_500_000, 128), 128, 36)

    def test_docs_read_past_the_page_cache(self):
        docs = self.save_large("docs.npy", np.float16, 1_500_000, 128)
        with open(docs, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.check(docs, 128, 36, num_queries=600)

    def test_mapped_docs_computed_in_float16_with_a_result_for_many_queries(self):
        docs = self.save_large("docs.npy", np.float32, 750_000, 128)
        self.check(docs, 128, 36, "--dtype", "float16", "--metric", "cosine")

    def test_transposed_docs(self):
        self.check(self.save_large("docs.npy", np.float32, 750_000, 128, "F"), 128, 36)


if __name__ == "__main__":
    unittest.main()
