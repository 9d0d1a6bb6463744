#!/usr/bin/env python3
"""Measures docs that are larger than --memory-limit: speed beside dd, peak memory, bytes read.

usage: bench/stream_benchmark.py TINY_KNN [--gigabytes N] [--dim N] [--limit S] [--queries Q,Q,...] [--k N]
                                 [--rounds N] [--folder FOLDER] [--keep]

Makes a float16 file of --gigabytes (default 12) of docs in FOLDER (default: a fresh one below the current one), and
removes it at the end unless told to --keep it; a file that is there already is used. For each number of queries
(default 16 and 1024), --rounds times in turn:

  dd       dd of=/dev/null bs=16M, cold: nothing of the file in the page cache
  cold     tiny-knn run --memory-limit S, cold
  hot      the same, with the whole file in the page cache (where it fits)
  ample    the same, hot, without a limit: the docs are one chunk

and prints for each run its seconds (of the search; of the whole command for dd), GB/s of docs, the peak of resident
memory (anonymous and file pages: VmHWM), the bytes that it read by system calls (rchar) and from the disk (read_bytes
of /proc/PID/io), and at the end medians: the share of dd's rate, and of the rate without a limit.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from numpy.lib.format import open_memmap

BLOCK_ROWS = 1 << 16


def make_docs(path, gigabytes, dim):
    """Gaussian float16 rows: a block of them again and again, with the signs of columns drawn anew."""
    rows = int(gigabytes * 1e9) // (2 * dim)
    rng = np.random.default_rng(1)
    block = rng.standard_normal((BLOCK_ROWS, dim), dtype=np.float32).astype("<f2").view("<u2")
    open_memmap(path, "w+", "<f2", (rows, dim)).flush()
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - rows * dim * 2)
        for begin in range(0, rows, BLOCK_ROWS):
            signs = rng.integers(0, 2, dim, dtype=np.uint16) << np.uint16(15)
            (block[: min(BLOCK_ROWS, rows - begin)] ^ signs).tofile(file)
        file.flush()
        os.fdatasync(file.fileno())


def evict(path):
    """Takes the file out of the page cache; the cache of a hypervisor's host is beyond reach."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def run(command):
    """Its standard error, and what /proc says of the process when it has ended."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        peak = 0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            marks = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")]
            peak = max([peak, *marks])
            time.sleep(0.02)
        errors.seek(0)
        text = errors.read()
    io = dict(line.split(": ") for line in pathlib.Path(f"/proc/{process.pid}/io").read_text().splitlines())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}: {text}")
    cpu = usage.ru_utime + usage.ru_stime
    return text, {"peak": peak, "cpu": cpu, **{name: int(value) for name, value in io.items()}}


def measure(kind, args, docs, queries, out):
    if kind in ("dd", "cold"):
        evict(docs)
    else:
        warm(docs)
    if kind == "dd":
        text, use = run(["dd", f"if={docs}", "of=/dev/null", "bs=16M"])
        return float(text.splitlines()[-1].split(", ")[2].split()[0]), use
    limit = [] if kind == "ample" else ["--memory-limit", args.limit]
    command = [args.tiny_knn, "run", queries, docs, "--k", str(args.k), "-o", out, "--cpu", "--progress", "json", *limit]
    text, use = run(command)
    reports = [json.loads(line) for line in text.splitlines() if "search_seconds" in line]
    report = reports[-1].get("report", reports[-1])
    return report["search_seconds"], use


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiny_knn", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=12)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--limit", default="1G")
    parser.add_argument("--queries", default="16,1024")
    parser.add_argument("--kinds", default="dd,cold,hot,ample")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    made = args.folder is None
    folder = args.folder or pathlib.Path(tempfile.mkdtemp(dir="."))
    docs = folder / f"stream_{args.gigabytes:g}GB_{args.dim}.npy"
    queries, out = folder / "stream_queries.npy", folder / "stream_out.pkl"
    try:
        if not docs.exists():
            make_docs(docs, args.gigabytes, args.dim)
        size = docs.stat().st_size
        print(f"{docs}: {size} bytes, k={args.k}, --memory-limit {args.limit}", flush=True)
        for count in map(int, args.queries.split(",")):
            np.save(queries, np.random.default_rng(2).standard_normal((count, args.dim), dtype=np.float32))
            seconds = {kind: [] for kind in args.kinds.split(",")}
            for _ in range(args.rounds):
                for kind, times in seconds.items():
                    taken, use = measure(kind, args, docs, queries, out)
                    times.append(taken)
                    print(
                        f"Q={count:<6}{kind:<6}{taken:8.2f} s {size / taken / 1e9:6.2f} GB/s  cpu {use['cpu']:6.2f} s  "
                        f"peak {use['peak'] / 2**20:7.1f} MiB  rchar {use['rchar'] / size:6.3f}  "
                        f"from disk {use['read_bytes'] / size:6.3f} of the file",
                        flush=True,
                    )
            middle = {kind: statistics.median(times) for kind, times in seconds.items() if times}
            for kind, base in (("cold", "dd"), ("cold", "ample"), ("hot", "ample")):
                if kind in middle and base in middle:
                    print(f"Q={count}: {kind} reaches {middle[base] / middle[kind]:.2f} of the rate of {base}", flush=True)
    finally:
        for path in [queries, out] + ([] if args.keep else [docs]):
            path.unlink(missing_ok=True)
        if made and not args.keep:
            folder.rmdir()


if __name__ == "__main__":
    main()
