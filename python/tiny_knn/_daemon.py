"""Jobs in the daemon's queue, by the `tiny-knn` program, which finds the daemon, waits while it is restarted and repeats
what may have been lost."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from typing import Any

from ._files import DocsRange, Path, load_result
from ._program import find_program

_UNFINISHED = ("queued", "running")


def _run(arguments: list[str | bytes], timeout: float | None = None) -> str:
    """What the program prints. ValueError where it says that it was used wrongly, else RuntimeError."""
    try:
        done = subprocess.run(
            [find_program(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the job was not finished within {timeout} s") from None
    if done.returncode != 0 and not done.stdout.startswith(b"["):
        lines = os.fsdecode(done.stderr).strip().splitlines()
        message = lines[-1].removeprefix("tiny-knn: error: ") if lines else f"tiny-knn exited with {done.returncode}"
        raise (ValueError if done.returncode == 2 else RuntimeError)(message)
    return os.fsdecode(done.stdout)


class Job:
    """A job of the daemon's, by its id: one that submit returned, or one of before.

    id: its number in the daemon's queue.
    """

    def __init__(self, id: int, *, socket: Path | None = None):
        self.id = int(id)
        self._socket: list[str | bytes] = [] if socket is None else ["--socket", os.fsencode(socket)]

    def status(self) -> dict[str, Any]:
        """What the daemon knows of it now: `state` ("queued", "running", "done", "failed" or "cancelled"), `progress` (0 to
        1), `output_path`, `error` (None or text), `eta_seconds` and more: *job* in docs/protocol.md. ValueError if there is
        no such job, RuntimeError if there is no daemon."""
        return json.loads(_run(["status", str(self.id), "--json", *self._socket]))[0]

    def done(self) -> bool:
        """Whether it is finished, well or not."""
        return self.status()["state"] not in _UNFINISHED

    def wait(self, timeout: float | None = None) -> Job:
        """Returns itself when the job is done. RuntimeError with the daemon's reason when it failed or was cancelled,
        TimeoutError after `timeout` seconds. Neither that nor Ctrl-C ends the job. A daemon that is restarted is waited
        for."""
        jobs = json.loads(_run(["wait", str(self.id), "--json", *self._socket], timeout))
        job = jobs[0]
        if job["state"] != "done":
            raise RuntimeError(f"job {self.id} {job['state']}: {job['error'] or 'no reason was given'}")
        return self

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Waits for it, and returns what load_result reads from its result file."""
        return load_result(self.wait(timeout).status()["output_path"])

    def log(self) -> str:
        """What the job has said."""
        return _run(["log", str(self.id), *self._socket])

    def cancel(self) -> None:
        """Stops it, or takes it from the queue; no file of it is left. One that is finished stays as it is."""
        _run(["cancel", str(self.id), "--json", *self._socket])

    def __repr__(self) -> str:
        return f"<tiny_knn.Job {self.id}>"


def submit(
    q_path: Path,
    d_path: Path,
    k: int | None = None,
    *,
    metric: str = "ip",
    dtype: str = "float32",
    out_path: Path | None = None,
    exclude_self: bool = False,
    input_dtype: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    batch_size: int | None = None,
    verify: int = 0,
    docs_range: DocsRange | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 30,
    priority: int = 0,
    timeout: int | None = None,
    key: str | None = None,
    socket: Path | None = None,
) -> Job:
    """Queues a search of files with `tiny-knn daemon`, and returns its job at once.

    q_path, d_path, k, metric, dtype, out_path, exclude_self, input_dtype, device, threads, memory_limit, batch_size, verify, docs_range,
        checkpoint, checkpoint_every: as of compute_topk; k=None is 2000, or all docs where there are fewer. Files are checked now, searched by the daemon.
    priority: -100 to 100; greater runs earlier.
    timeout: seconds of running after which the job fails; None is no limit.
    key: submitting the same search with the same key again gives the same job; None is a new one.
    socket: the daemon's; None is your own daemon's, else the system's.

    Raises ValueError (what compute_topk would refuse), RuntimeError (no daemon, or it takes no jobs).

        job = submit("queries.npy", "docs.npy", k=100)
        indices = job.result()["indices"]
    """
    arguments: list[str | bytes] = ["submit", "--json", "--metric", metric, "--dtype", dtype, "--priority", str(priority)]
    arguments += ["--key", key or uuid.uuid4().hex]
    for flag, value in (
        ("--k", k),
        ("--threads", threads),
        ("--memory-limit", memory_limit),
        ("--batch-size", batch_size),
        ("--verify", verify or None),
        ("--device", device),
        ("--input-dtype", input_dtype),
        ("--timeout", None if timeout is None else f"{timeout}s"),
    ):
        if value is not None:
            arguments += [flag, str(value)]
    if exclude_self:
        arguments.append("--exclude-self")
    if docs_range is not None:
        begin, end = docs_range
        arguments += ["--docs-range", f"{begin}:{'' if end is None else end}"]
    if checkpoint is not None:
        arguments += ["--checkpoint-every", f"{checkpoint_every}s"]
    for flag, path in (("--output-path", out_path), ("--checkpoint", checkpoint), ("--socket", socket)):
        if path is not None:
            arguments.append(os.fsencode(flag) + b"=" + os.fsencode(path))
    job = json.loads(_run([*arguments, "--", os.fsencode(q_path), os.fsencode(d_path)]))
    return Job(job["id"], socket=socket)
