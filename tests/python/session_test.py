"""What happens around a search in a notebook: Ctrl-C, threads, forks, progress."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest

import numpy as np
from python_harness import SEARCH_PATH, PythonTest, random_rows

import tiny_knn
from tiny_knn import exact_search

# A search that goes on for long after the second that a test waits, unless somebody ends it.
_LONG = """
import numpy as np, tiny_knn, os, sys, threading, time
docs = np.random.default_rng(0).standard_normal((200_000, 256), dtype=np.float32)
"""


class Interrupt(PythonTest):
    def interrupt(self, code):
        """Runs `code`, sends SIGINT once it has said "now", and gives what it printed after that."""
        process = self.start_python(_LONG + code)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "now\n")
        time.sleep(1)
        self.assertIsNone(process.poll(), "the search has ended by itself: the test proves nothing")
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertLess(time.monotonic() - started, 20)
        self.assertEqual(process.returncode, 0, out)
        return out.splitlines()

    def test_ctrl_c_ends_a_search_and_the_session_goes_on(self):
        lines = self.interrupt(
            """
threads = threading.active_count()
try:
    print("now")
    tiny_knn.exact_search(docs, docs, 100)
except KeyboardInterrupt:
    print("interrupted", threading.active_count() - threads)
print(tiny_knn.exact_search(docs[:2], docs[:9], 1, metric="l2").indices.ravel().tolist())
"""
        )
        self.assertEqual(lines, ["interrupted 0", "[0, 1]"])

    def test_ctrl_c_leaves_no_file(self):
        lines = self.interrupt(
            """
np.save("d.npy", docs)
try:
    print("now")
    tiny_knn.compute_topk("d.npy", "d.npy", 100)
except KeyboardInterrupt:
    print(sorted(os.listdir(".")))
"""
        )
        self.assertEqual(lines, ["['d.npy']"])

    def test_ctrl_c_ends_a_search_of_a_corpus_which_goes_on(self):
        lines = self.interrupt(
            """
corpus = tiny_knn.Corpus(docs, "l2")
try:
    print("now")
    corpus.search(docs, 100)
except KeyboardInterrupt:
    print(corpus.search(docs[7:8], 1).indices.item())
"""
        )
        self.assertEqual(lines, ["7"])

    def test_an_exception_of_a_progress_function_ends_the_search(self):
        docs = random_rows(100_000, 64, 1)

        def refuse(done, total):
            raise LookupError("enough")

        with self.assertRaisesRegex(LookupError, "enough"):
            exact_search(docs, docs, 10, progress=refuse)


class Threads(PythonTest):
    def test_a_search_lets_other_threads_run(self):
        docs = random_rows(20_000, 128, 2)
        span = []

        def search(query_count):
            queries = np.resize(docs, (query_count, docs.shape[1]))
            began = time.monotonic()
            exact_search(queries, docs, 10)
            span[:] = [began, time.monotonic()]

        # The thread that waits sees one or two turns of a search that keeps Python to itself,
        # however long it takes: at either end. So the search must last for many more, on any machine.
        query_count = 2_000
        while True:
            turns = []
            searching = threading.Thread(target=search, args=(query_count,))
            searching.start()
            while searching.is_alive():
                turns.append(time.monotonic())
                time.sleep(0.001)
            began, ended = span
            if ended - began > 0.3:
                break
            query_count *= 2
        self.assertGreater(sum(began < turn < ended for turn in turns), 20)

    def test_two_threads_search_at_once(self):
        docs = random_rows(30_000, 128, 3)
        expected = exact_search(docs[:500], docs, 10)
        wrong = []

        def search(start, spans):
            start.wait()
            began = time.monotonic()
            found = exact_search(docs[:500], docs, 10)
            spans.append((began, time.monotonic()))
            if found.indices.tobytes() != expected.indices.tobytes():
                wrong.append(found)

        # A search takes milliseconds: a busy machine may well run one thread after the other once.
        at_once = 0
        for _ in range(20):
            start, spans = threading.Barrier(2), []
            threads = [threading.Thread(target=search, args=(start, spans)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (began_1, ended_1), (began_2, ended_2) = spans
            at_once += max(began_1, began_2) < min(ended_1, ended_2)
        self.assertEqual(wrong, [])
        self.assertGreater(at_once, 0, "one waited for the other")


class Forks(PythonTest):
    def test_a_child_searches_after_import_and_after_a_search(self):
        out = self.run_python(
            """
import multiprocessing, os
import numpy as np, tiny_knn
docs = np.eye(50, dtype=np.float32)
context = multiprocessing.get_context("fork")
def search(_):
    return tiny_knn.exact_search(docs, docs, 1, threads=2).indices.ravel().tolist() == list(range(50))
with context.Pool(2) as pool:
    print(all(pool.map(search, range(4))))
print(search(0))
corpus = tiny_knn.Corpus(docs)
expected = corpus.search(docs, 3).indices.tobytes()
def search_corpus(_):
    return corpus.search(docs, 3).indices.tobytes() == expected
with context.Pool(2) as pool:
    print(all(pool.map(search, range(4))), all(pool.map(search_corpus, range(4))))
print(search_corpus(0))
"""
        )
        self.assertEqual(out.split(), ["True"] * 5)

    def test_importing_starts_no_thread(self):
        out = self.run_python("import tiny_knn, os; print(len(os.listdir('/proc/self/task')))")
        with_numpy = self.run_python("import numpy, os; print(len(os.listdir('/proc/self/task')))")
        self.assertEqual(out, with_numpy)


class ProgressTest(PythonTest):
    def test_a_function_hears_how_far_it_is(self):
        docs = random_rows(40_000, 64, 4)
        heard = []
        exact_search(docs[:3000], docs, 10, batch_size=500, progress=lambda done, total: heard.append((done, total)))
        self.assertEqual(heard[-1], (3000 * 40_000, 3000 * 40_000))
        self.assertEqual(heard, sorted(heard))

    def with_tqdm(self, **arguments):
        """The bars that a tqdm of ours was asked for."""
        bars = []

        class Bar:
            def __init__(self, **how):
                self.how, self.n, self.closed = how, 0, False
                bars.append(self)

            def update(self, more):
                self.n += more

            def close(self):
                self.closed = True

        package, auto = types.ModuleType("tqdm"), types.ModuleType("tqdm.auto")
        auto.tqdm = Bar
        sys.modules.update({"tqdm": package, "tqdm.auto": auto})
        try:
            exact_search(np.eye(5), np.eye(5), 1, **arguments)
        finally:
            del sys.modules["tqdm"], sys.modules["tqdm.auto"]
        return bars

    def test_a_bar_of_tqdm(self):
        (bar,) = self.with_tqdm(progress=True)
        self.assertEqual((bar.how["total"], bar.n, bar.closed), (25, 25, True))
        self.assertEqual(self.with_tqdm(progress=False), [])
        self.assertEqual(self.with_tqdm(), [], "standard error is no terminal here")

    def test_no_bar_without_tqdm(self):
        sys.modules["tqdm"] = None
        try:
            exact_search(np.eye(5), np.eye(5), 1)
            with self.assertRaisesRegex(ImportError, "tqdm"):
                exact_search(np.eye(5), np.eye(5), 1, progress=True)
        finally:
            del sys.modules["tqdm"]

    def test_nothing_is_printed(self):
        np.save(self.folder / "d.npy", np.eye(4, dtype=np.float32))
        out = self.run_python("import tiny_knn; tiny_knn.exact_search('d.npy', 'd.npy', 1); tiny_knn.compute_topk('d.npy', 'd.npy', 1)")
        self.assertEqual(out, "")


class Numpy2(unittest.TestCase):
    def test_the_other_numpy(self):
        python = os.environ.get("TINY_KNN_NUMPY2_PYTHON")
        if not python:
            self.skipTest("no Python with numpy 2: tools/test makes one")
        code = (
            "import numpy as np, tiny_knn; a = np.arange(12, dtype='f4').reshape(4, 3)[:, ::-1];"
            "r = tiny_knn.exact_search(a, a, 2, 'l2'); assert r.indices[:, 0].tolist() == [0, 1, 2, 3];"
            "np.save('a.npy', a); p = tiny_knn.compute_topk('a.npy', 'a.npy', 2, metric='l2');"
            "assert (tiny_knn.load_result(p)['indices'] == r.indices).all(); print(np.__version__)"
        )
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as folder:
            done = subprocess.run(
                [python, "-W", "error", "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": SEARCH_PATH}, stdout=subprocess.PIPE, text=True, check=True
            )
        self.assertTrue(done.stdout.startswith("2."), done.stdout)
        self.assertTrue(tiny_knn.__version__)


if __name__ == "__main__":
    unittest.main()
