#!/usr/bin/env python3
"""Measures the daemon: acknowledged submissions per second, latencies, memory, idle CPU, warm against cold.

usage: bench/daemon_benchmark.py TINY_KNN [QUERIES DOCS]      TINY_KNN: the program, with tiny-knnd beside it

Starts a daemon of its own in a fresh folder under --folder (default: the current one, because a disk is measured, too)
and ends it. With QUERIES and DOCS also measures a warm `submit --wait` against `run`, taken in turn. Prints one line for
each figure. Run it on a quiet machine.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time


class Client:
    """One connection: a request, then its reply."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.id = 0
        self.call("hello", protocol=[1, 1], client="daemon_benchmark")

    def call(self, kind, **members):
        self.id += 1
        self.socket.sendall(json.dumps({"id": self.id, "type": kind, **members}).encode() + b"\n")
        reply = json.loads(self.lines.readline())
        if not reply["ok"]:
            raise RuntimeError(reply["error"]["message"])
        return reply


def spec(folder):
    return {"queries": "queries.npy", "docs": "docs.npy", "k": 10, "output": "out.pkl", "working_folder": str(folder)}


def submit_many(path, folder, prefix, count, barrier, results):
    client = Client(path)
    barrier.wait()
    start = time.perf_counter()
    for i in range(count):
        client.call("submit", key=f"{prefix}-{i}", spec=spec(folder))
    results.put((start, time.perf_counter()))


def rate_of_submissions(path, folder, clients, each, name):
    barrier, results = multiprocessing.Barrier(clients), multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=submit_many, args=(path, folder, f"{name}-{i}", each, barrier, results))
        for i in range(clients)
    ]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return clients * each / (max(end for _, end in spans) - min(start for start, _ in spans))


def sync_milliseconds(folder, count, pause=0.0):
    """What the disk allows: the median of 4 KiB written and synced, again and again with pauses."""
    path = folder / "sync_probe"
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(count):
            time.sleep(pause)
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    return statistics.median(times)


def commit_milliseconds(folder, count, pause):
    """The median of a transaction as the journal makes them: a row and its key, written ahead and synced."""
    path = folder / "commit_probe.db"
    times = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}").fetchall()
        database.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, key TEXT UNIQUE, spec TEXT)")
        for i in range(count):
            time.sleep(pause)
            start = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO jobs (key, spec) VALUES (?, ?)", (f"key-{i}", "x" * 500))
            database.execute("COMMIT")
            times.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    return statistics.median(times)


def milliseconds(call, count):
    """Median and 99th percentile of `count` calls."""
    times = []
    for i in range(count):
        start = time.perf_counter()
        call(i)
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]


def memory_mib(pid, name="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no {name}")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
    """A daemon of its own, ended with it."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.socket = str(folder / "s" / "d.sock")
        self.process = subprocess.Popen(
            [program, "daemon", "--socket", self.socket, "--state-dir", folder / "state"], stderr=open(folder / "log", "wb"))
        for _ in range(1000):
            try:
                self.client = Client(self.socket)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.01)
        raise RuntimeError((folder / "log").read_text())

    def workers(self):
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], stdout=subprocess.PIPE, text=True, check=False)
        return [int(pid) for pid in children.stdout.split()]

    def run(self, *arguments):
        return subprocess.run(
            [self.program, *map(str, arguments), "--socket", self.socket], cwd=self.folder, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def make_words(folder):
    words = pathlib.Path(__file__).resolve().parent.parent / "examples" / "words"
    for name in ("queries.npy", "docs.npy"):
        shutil.copyfile(words / name, folder / name)


def measure_queue(program, folder):
    make_words(folder)
    print(f"disk: a sync of 4 KiB takes {sync_milliseconds(folder, 200):.2f} ms, "
          f"{sync_milliseconds(folder, 30, 0.1):.2f} ms after a pause", flush=True)
    daemon = Daemon(program, folder)
    try:
        first = daemon.client.call("submit", key="first", spec=spec(folder))["job"]["id"]
        daemon.client.call("wait", jobs=[first])
        # The worker is stopped, so that nothing but submissions uses the machine. The daemon kills it after
        # 30 s, and goes on with another one: all of this is over by then.
        blocker = daemon.client.call("submit", key="blocker", spec=spec(folder))["job"]["id"]
        for pid in daemon.workers():
            os.kill(pid, signal.SIGSTOP)
        median, slow = milliseconds(
            lambda i: daemon.client.call("submit", key=f"latency-{i}", spec=spec(folder)), 200)
        print(f"submit on an open connection: median {median:.2f} ms, 99% {slow:.2f} ms", flush=True)
        print(f"acknowledged submissions, 1 client: {rate_of_submissions(daemon.socket, folder, 1, 800, 'one'):.0f}/s")
        print(f"acknowledged submissions, 8 clients: {rate_of_submissions(daemon.socket, folder, 8, 1000, 'eight'):.0f}/s")
        missing = 10000 - daemon.client.call("stats")["queued"]
        if missing > 0:
            rate_of_submissions(daemon.socket, folder, 8, -(-missing // 8), "fill")
        queued = daemon.client.call("stats")["queued"]
        print(f"supervisor's memory with {queued} queued jobs: {memory_mib(daemon.process.pid):.0f} MiB")
        median, slow = milliseconds(lambda i: daemon.client.call("status", jobs=[first]), 200)
        print(f"status of one finished job, {queued} queued: median {median:.2f} ms, 99% {slow:.2f} ms")
        median, slow = milliseconds(lambda i: daemon.client.call("status", jobs=[blocker + 5000]), 50)
        print(f"status of one waiting job, {queued} queued: median {median:.2f} ms, 99% {slow:.2f} ms")
        median, slow = milliseconds(lambda i: daemon.client.call("list", limit=1000), 20)
        print(f"list of 1000 jobs: median {median:.2f} ms, 99% {slow:.2f} ms", flush=True)
    finally:
        daemon.process.kill()
        daemon.process.wait()
        shutil.rmtree(folder / "state")

    daemon = Daemon(program, folder)
    try:
        # What a person waits for: process, connection, hello, reply.
        daemon.run("submit", "queries.npy", "docs.npy", "-k", 10, "--wait", "-q")
        median, slow = milliseconds(lambda i: daemon.run("submit", "queries.npy", "docs.npy", "-k", 10, "-q"), 40)
        print(f"'tiny-knn submit' as a command: median {median:.1f} ms, 99% {slow:.1f} ms")
        median, slow = milliseconds(lambda i: daemon.run("status"), 40)
        print(f"'tiny-knn status' as a command: median {median:.1f} ms, 99% {slow:.1f} ms", flush=True)
        while daemon.client.call("stats")["queued"] + daemon.client.call("stats")["running"]:
            time.sleep(0.05)
        daemon.client.socket.close()
        pids = [daemon.process.pid, *daemon.workers()]
        before = sum(map(cpu_seconds, pids))
        time.sleep(20)
        print(f"CPU time of supervisor and worker in 20 s of idleness: {(sum(map(cpu_seconds, pids)) - before) * 1e3:.0f} ms")
    finally:
        daemon.end()


def drop_from_cache(path):
    """So that the next reader finds the file on the disk, not in memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_warm(program, folder, queries, docs, rounds=9):
    daemon = Daemon(program, folder)
    search = [queries, docs, "-k", 100, "-q", "-o", folder / "out.pkl"]

    def run(_):
        subprocess.run([program, "run", *map(str, search)], check=True, stdout=subprocess.PIPE)

    def submit(_):
        daemon.run("submit", *search, "--wait")

    def start(_):  # with the same pipes
        subprocess.run([program, "--version"], cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    try:
        submit(0)  # fills
        times = {"run": [], "submit": [], "search": [], "output": [], "start": [], "run, docs not in the page cache": []}
        for _ in range(rounds):
            times["run"].append(milliseconds(run, 1)[0])
            times["submit"].append(milliseconds(submit, 1)[0])
            job = json.loads(daemon.run("status", "--json").stdout)[-1]
            if job["docs_state"] != "warm":
                raise RuntimeError(f"the docs were {job['docs_state']}")
            times["search"].append(job["report"]["search_seconds"] * 1e3)
            times["output"].append(job["report"]["write_seconds"] * 1e3)
            times["start"].append(milliseconds(start, 1)[0])
        for _ in range(3):
            drop_from_cache(docs)
            times["run, docs not in the page cache"].append(milliseconds(run, 1)[0])
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"run, docs in the page cache: median {medians['run']:.0f} ms of {rounds}")
        print(f"run, docs on the disk: median {medians['run, docs not in the page cache']:.0f} ms of 3")
        print(f"submit --wait, warm docs: median {medians['submit']:.0f} ms, of which the search {medians['search']:.0f} ms")
        overheads = [whole - search for whole, search in zip(times["submit"], times["search"])]
        # A job meets a disk that rests.
        sync = sync_milliseconds(folder, 30, 0.3)
        commit = commit_milliseconds(folder, 30, 0.3)
        print(f"submit --wait less its search: median {statistics.median(overheads):.1f} ms; a process start takes "
              f"{medians['start']:.1f} ms, the output {medians['output']:.1f} ms, two commits {2 * commit:.1f} ms "
              f"(their syncs {2 * sync:.1f} ms); the rest "
              f"{statistics.median(overheads) - medians['start'] - medians['output'] - 2 * commit:.1f} ms")
        print(f"run / submit --wait: {medians['run'] / medians['submit']:.1f}, "
              f"from the disk {medians['run, docs not in the page cache'] / medians['submit']:.1f}")
    finally:
        daemon.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=lambda text: str(pathlib.Path(text).resolve()))
    parser.add_argument("files", nargs="*", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path.cwd())
    arguments = parser.parse_args()
    if len(arguments.files) not in (0, 2):
        parser.error("give QUERIES and DOCS, or neither")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tkb", dir=arguments.folder.resolve()))
    try:
        if arguments.files:
            measure_warm(arguments.program, folder, *arguments.files)
        else:
            measure_queue(arguments.program, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
