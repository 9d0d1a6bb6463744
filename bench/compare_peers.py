#!/usr/bin/env python3
"""Compares exact searches: tiny-knn, FAISS, PyTorch, numpy and usearch, in turn, on the same files.

usage: bench/compare_peers.py TINY_KNN [--queries N] [--docs N] [--dim N] [--k K,K,...] [--rounds N]
                              [--peers NAME,...] [--threads N] [--folder FOLDER] [--files QUERIES DOCS]

Makes Gaussian float32 matrices in FOLDER (default: a fresh one below the current one, removed at the end), or takes
FILES as they are. Each peer is a process of its own that has imported its library and mapped the files before anything
is timed, uses --threads threads (default: all CPUs this process may use), and runs when it is its turn: all peers once,
then all again, --rounds times. tiny-knn is timed twice: the search that it reports, as the peers are, and the whole
command from start to durable output.

The peers come from the Python package index, into an environment in the cache folder. Prints a table for each k: median
seconds, how many times tiny-knn's search is faster, and recall: the share of tiny-knn's ids that the peer finds, too.
tiny-knn's own answers are checked beforehand with --verify.
"""

import argparse
import json
import os
import pathlib
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PACKAGES = {"faiss": "faiss-cpu", "torch": "torch", "numpy": "numpy", "usearch": "usearch"}


def environment():
    """The python of an environment that has all peers; made on first use."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tiny-knn" / "peers"
    python = cache / "bin" / "python"
    has_all = [str(python), "-c", "import " + ", ".join(PACKAGES)]
    if not python.exists() or subprocess.run(has_all, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print(f"making a Python environment with {', '.join(PACKAGES.values())} in {cache}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", cache], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.values()], check=True)
    return str(python)


def peer_search(name, queries, docs, threads):
    """A function of k that searches, and the library's version."""
    if name == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
        return lambda k: faiss.knn(queries, docs, k, metric=faiss.METRIC_INNER_PRODUCT)[1], faiss.__version__
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
        docs_t, queries_t = torch.from_numpy(docs), torch.from_numpy(queries)
        # In batches of queries, so that the scores of one fit in memory.
        batch = max(1, (1 << 28) // docs.shape[0])

        def search(k):
            with torch.inference_mode():
                return torch.cat([torch.topk(rows @ docs_t.T, k).indices for rows in queries_t.split(batch)]).numpy()

        return search, torch.__version__
    if name == "numpy":
        import numpy

        batch = max(1, (1 << 28) // docs.shape[0])

        def search(k):
            found = []
            for first in range(0, len(queries), batch):
                scores = queries[first : first + batch] @ docs.T
                best = numpy.argpartition(scores, -k, axis=1)[:, -k:]
                order = numpy.argsort(-numpy.take_along_axis(scores, best, axis=1), axis=1)
                found.append(numpy.take_along_axis(best, order, axis=1))
            return numpy.concatenate(found)

        return search, numpy.__version__
    if name == "usearch":
        import usearch
        from usearch.index import MetricKind
        from usearch.index import search as exact_search

        return (
            lambda k: exact_search(docs, queries, k, MetricKind.IP, exact=True, threads=threads).keys,
            usearch.__version__,
        )
    raise ValueError(name)


def serve(name, queries_path, docs_path, threads, out):
    """In a peer's process: searches for each k that comes on standard input, and says how long it took."""
    import numpy

    # Mapped, not read: all peers share the page cache with tiny-knn. Writable, as PyTorch wants it; nobody writes.
    queries, docs = numpy.load(queries_path, mmap_mode="c"), numpy.load(docs_path, mmap_mode="c")
    search, version = peer_search(name, numpy.asarray(queries), numpy.asarray(docs), threads)
    print(version, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        ids = search(int(line))
        seconds = time.perf_counter() - start
        numpy.save(out, ids)
        print(seconds, flush=True)


class Peer:
    def __init__(self, name, python, queries, docs, threads, folder):
        self.name, self.out = name, folder / f"{name}.npy"
        keep = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        command = [python, __file__, "--serve", name, str(queries), str(docs), str(threads), str(self.out)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=keep | counts)
        self.version = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; its message is above")
        return line.strip()

    def search(self, k):
        self.process.stdin.write(f"{k}\n")
        self.process.stdin.flush()
        return {"search": float(self.read())}

    def ids(self):
        import numpy

        return numpy.load(self.out)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class TinyKnn:
    name = "tiny-knn"

    def __init__(self, program, queries, docs, threads, folder):
        self.program, self.out = program, folder / "tiny_knn.pkl"
        self.arguments = [program, "run", str(queries), str(docs), "--cpu", "--threads", str(threads), "-o", str(self.out), "--progress", "json"]
        self.version = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]

    def search(self, k, *more):
        start = time.perf_counter()
        command = [*self.arguments, "-k", str(k), *more]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        whole = time.perf_counter() - start
        return {"search": json.loads(done.stderr.splitlines()[-1])["search_seconds"], "whole": whole}

    def ids(self):
        return pickle.loads(self.out.read_bytes())["indices"]

    def end(self):
        pass


def recall(truth, found):
    import numpy

    return sum(len(numpy.intersect1d(a, b)) for a, b in zip(truth, found)) / truth.size


def compare(contestants, k, rounds):
    ours = contestants[0]
    ours.search(k, "--verify", "4")
    truth = ours.ids()
    times = {contestant.name: {} for contestant in contestants}
    for contestant in contestants[1:]:
        contestant.search(k)  # warms up
    for _ in range(rounds):
        for contestant in contestants:
            for what, seconds in contestant.search(k).items():
                times[contestant.name].setdefault(what, []).append(seconds)
    base = statistics.median(times[ours.name]["search"])
    print(f"\nk = {k}\n\n| | median s | least s | of tiny-knn's search | recall |\n|---|---|---|---|---|")
    for contestant in contestants:
        share = recall(truth, contestant.ids())
        for what, seconds in times[contestant.name].items():
            median = statistics.median(seconds)
            label = f"{contestant.name} {contestant.version}" + (", whole command" if what == "whole" else "")
            print(f"| {label} | {median:.3f} | {min(seconds):.3f} | {median / base:.2f} | {share:.6f} |", flush=True)


def make_files(folder, arguments):
    import numpy

    random = numpy.random.default_rng(1)
    paths = folder / "queries.npy", folder / "docs.npy"
    for path, rows in zip(paths, (arguments.queries, arguments.docs)):
        matrix = numpy.lib.format.open_memmap(path, "w+", numpy.float32, (rows, arguments.dim))
        for first in range(0, rows, 65536):
            part = matrix[first : first + 65536]
            part[...] = random.standard_normal(part.shape, numpy.float32)
        matrix.flush()
    return paths


def main():
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=lambda text: str(pathlib.Path(text).resolve()))
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--k", type=lambda text: [int(k) for k in text.split(",")], default=[10, 100, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PACKAGES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--files", nargs=2, type=lambda text: pathlib.Path(text).resolve())
    arguments = parser.parse_args()
    unknown = set(arguments.peers) - set(PACKAGES)
    if unknown:
        parser.error(f"--peers: expected some of {', '.join(PACKAGES)}, found {', '.join(sorted(unknown))}")
    python = environment()
    if sys.executable != python:  # for numpy
        os.execv(python, [python, __file__, *sys.argv[1:]])
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="compare_peers_", dir="."))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    contestants = []
    try:
        queries, docs = arguments.files or make_files(folder, arguments)
        contestants.append(TinyKnn(arguments.program, queries, docs, arguments.threads, folder))
        for name in arguments.peers:
            contestants.append(Peer(name, python, queries, docs, arguments.threads, folder))
        for k in arguments.k:
            compare(contestants, k, arguments.rounds)
    finally:
        for contestant in contestants:
            contestant.end()
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
