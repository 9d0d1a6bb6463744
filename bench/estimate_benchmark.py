#!/usr/bin/env python3
"""Compares what `--dry-run` estimates with what the search then takes, for five shapes.

usage: bench/estimate_benchmark.py TINY_KNN [--rounds N] [--folder FOLDER]

Makes the matrices of each shape in FOLDER (default: a fresh one below the current one, removed at the end; 1.6 GB at a
time), and --rounds times (default 3) runs `tiny-knn run --dry-run` and then the same without. Where the shape says cold,
the docs are taken out of the page cache before each of the two. Prints the medians and their ratio, and ends with exit
code 1 if one is off by more than a factor of 2.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import numpy as np

# Name, queries, docs, dim, dtype, cold, flags.
SHAPES = [
    ("one query, hot", 1, 500_000, 768, "<f4", False, ["--k", "10"]),
    ("many queries, hot", 1024, 200_000, 768, "<f4", False, ["--k", "10"]),
    ("many results, hot", 1024, 200_000, 768, "<f4", False, ["--k", "2000"]),
    ("few queries, cold, little memory", 16, 1_000_000, 768, "<f2", True, ["--k", "10", "--memory-limit", "256M"]),
    ("many passes, cosine", 20_000, 500_000, 100, "<f4", False, ["--k", "100", "--metric", "cosine", "--memory-limit", "256M"]),
]


def save(path, rows, dim, dtype, seed):
    block = np.random.default_rng(seed).standard_normal((min(rows, 50_000), dim), dtype=np.float32).astype(dtype)
    stored = np.lib.format.open_memmap(path, "w+", dtype, (rows, dim))
    signs = np.random.default_rng(seed + 1)
    for begin in range(0, rows, len(block)):
        part = block[: rows - begin] * signs.choice([-1, 1], dim).astype(dtype)
        stored[begin : begin + len(part)] = part
    stored.flush()
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def prepare(path, cold):
    if cold:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        return
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiny_knn", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path)
    args = parser.parse_args()
    folder = args.folder or pathlib.Path(tempfile.mkdtemp(dir="."))
    queries, docs, out = folder / "estimate_q.npy", folder / "estimate_d.npy", folder / "estimate_out.pkl"
    worst = 1.0
    try:
        made = None
        for name, num_queries, num_docs, dim, dtype, cold, flags in SHAPES:
            if made != (num_docs, dim, dtype):
                save(docs, num_docs, dim, dtype, 1)
                made = (num_docs, dim, dtype)
            save(queries, num_queries, dim, "<f4", 9)
            command = [args.tiny_knn, "run", queries, docs, "-o", out, "--cpu", *flags]
            estimates, measured = [], []
            for _ in range(args.rounds):
                prepare(docs, cold)
                plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout
                estimates.append(float(re.search(r"^estimate +(\S+) s", plan, re.MULTILINE)[1]))
                prepare(docs, cold)
                events = subprocess.run([*command, "--progress", "json"], capture_output=True, text=True, check=True).stderr
                measured.append(json.loads(events.splitlines()[-1])["search_seconds"])
            estimate, seconds = statistics.median(estimates), statistics.median(measured)
            worst = max(worst, estimate / seconds, seconds / estimate)
            shape = f"{num_queries} x {num_docs} x {dim} {np.dtype(dtype)} {' '.join(flags)}"
            print(f"{name:34}{shape:70} estimated {estimate:6.2f} s, took {seconds:6.2f} s: {estimate / seconds:.2f}", flush=True)
    finally:
        for path in (queries, docs, out):
            path.unlink(missing_ok=True)
        if args.folder is None:
            folder.rmdir()
    print(f"off by a factor of {worst:.2f} at most")
    return 1 if worst > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
