"""From files to files: compute_topk writes a result, load_result reads one."""

from __future__ import annotations

import ctypes
import json
import operator
import os
from typing import Any, Iterable, Optional, Tuple, Union

import numpy as np

from . import _calls, _capi
from ._calls import Progress
from ._search import _amount, checked_k, params_of, warn_of

Path = Union[str, bytes, "os.PathLike[Any]"]
DocsRange = Tuple[int, Optional[int]]


def _part_of(docs_range: DocsRange | None) -> tuple[int, int]:
    """docs_begin and docs_end of tknn_job_params."""
    if docs_range is None:
        return 0, 0
    begin, end = docs_range
    begin, end = operator.index(begin), None if end is None else operator.index(end)
    if begin < 0 or (end is not None and end <= begin):
        raise ValueError(f"docs_range={docs_range!r}: must be (begin, end) with 0 <= begin < end, or (begin, None)")
    if begin == 0 and end is None:
        raise ValueError("docs_range=(0, None) is all docs; pass None, or the end of the first part")
    return begin, 0 if end is None else end


def compute_topk(
    q_path: Path,
    d_path: Path,
    k: int,
    dtype_str: str = "float32",
    batch_size: int | None = None,
    force_cpu: bool = False,
    out_path: Path | None = None,
    *,
    metric: str = "ip",
    exclude_self: bool = False,
    input_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory_limit: int | None = None,
    gpu_memory: int | None = None,
    verify: int = 0,
    progress: Progress = None,
    docs_range: DocsRange | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 30,
) -> str:
    """Finds, for every query of a file, the k nearest docs of another, and writes them to a result file: `tiny-knn run`.

    q_path, d_path: two-dimensional .npy files [Q, dim] and [D, dim]. d_path may also be a folder of such files, or a pattern
        ("docs/part_*.npy"), in natural order of the names: docs/shards.md.
    k: docs per query, 1 to D (D - 1 with exclude_self).
    dtype_str: compute dtype; `dtype` of exact_search.
    batch_size: most queries per pass over the docs; None is as many as fit. The result records it, or 512.
    force_cpu: the same as device="cpu".
    out_path: where the result goes; None is top{k}_{queries}_x_{docs}.pkl in the working folder, the files' names without
        folder and suffix. A name that ends in .npz makes it numpy's own format, any other a pickle.
    verify: so many queries are searched again in exact arithmetic and compared before the result is written.
    metric, exclude_self, input_dtype, device, threads, memory_limit, gpu_memory, progress: as of exact_search.
    docs_range: (begin, end), end None for the last one: only these docs are searched, and the result is a part for
        merge_results. Indices are those of all docs.
    checkpoint: a file that keeps how far the search is. The same call goes on from there after a crash, a kill or Ctrl-C,
        and removes it when the result is written.
    checkpoint_every: the least seconds between two savings; 0 is as often as can be.

    Returns the result's path. The file is there whole or not at all; one of that name is replaced when the new one is
    complete. It holds `indices` int64 [Q, k], `scores` float32 [Q, k] (float64 for "float64"), `queries_path`, `docs_path`,
    `k`, `batch_size`, `dtype`, `device`, `metric`, `tiny_knn_version` and `exclude_self`: docs/result_file.md.

    Raises what exact_search raises; OSError also where the result cannot be written.

    >>> import numpy as np
    >>> np.save("q.npy", np.array([[1, 0]], np.float32))
    >>> np.save("d.npy", np.array([[0, 1], [2, 1], [1, 1]], np.float32))
    >>> path = compute_topk("q.npy", "d.npy", k=2)
    >>> path, load_result(path)["indices"].tolist()
    ('top2_q_x_d.pkl', [[1, 2]])
    """
    if force_cpu:
        if device not in ("auto", "cpu"):
            raise ValueError(f"force_cpu=True contradicts device={device!r}")
        device = "cpu"
    docs_begin, docs_end = _part_of(docs_range)
    params = _capi.JobParams(
        queries_path=_capi.path_of("q_path", q_path),
        docs_path=_capi.path_of("d_path", d_path),
        output_path=None if out_path is None else _capi.path_of("out_path", out_path),
        device=_capi.text_of("device", device),
        search=params_of(checked_k(k), metric, dtype_str, exclude_self, threads, memory_limit, batch_size),
        stored_dtype=_capi.stored_dtype_of(input_dtype),
        gpu_memory_bytes=_amount("gpu_memory", gpu_memory),
        verify_queries=_amount("verify", verify, least=0),
        docs_begin=docs_begin,
        docs_end=docs_end,
        checkpoint_path=None if checkpoint is None else _capi.path_of("checkpoint", checkpoint),
        checkpoint_seconds=_amount("checkpoint_every", checkpoint_every, least=0) or -1,
    )
    job = ctypes.c_void_p()

    def call(control) -> int:
        return _capi.library.tknn_job_run(ctypes.byref(params), control, ctypes.byref(job))

    try:
        _calls.run(call, progress)
        path = os.fsdecode(_capi.library.tknn_job_output_path(job))
        report = json.loads(_capi.library.tknn_job_report_json(job).decode())
    finally:
        _capi.library.tknn_job_destroy(job)
    warn_of(report)
    return path


def merge_results(paths: Iterable[Path], out_path: Path, *, partial: bool = False) -> str:
    """Merges parts, results of compute_topk(docs_range=...), into the result of all docs: `tiny-knn merge`.

    paths: the parts, in any order; together they have every doc once.
    out_path: where the result goes, `.npz` or a pickle by its name.
    partial: the parts are neighbours, but others are still to come: makes a larger part.

    Returns out_path. The result is what one search of all docs would have written, bit for bit.

    Raises ValueError for parts of other queries, docs, k, metric or dtype than the first, and for docs that are missing or
    there twice; OSError.

    >>> import numpy as np
    >>> np.save("q.npy", np.array([[1, 0]], np.float32))
    >>> np.save("d.npy", np.array([[0, 1], [2, 1], [1, 1]], np.float32))
    >>> parts = [compute_topk("q.npy", "d.npy", k=2, docs_range=part) for part in ((0, 1), (1, 3))]
    >>> parts, load_result(merge_results(parts, "all.pkl"))["indices"].tolist()
    (['top2_q_x_d_0-1.pkl', 'top2_q_x_d_1-3.pkl'], [[1, 2]])
    """
    encoded = [os.fsencode(path) for path in paths]
    parts = (ctypes.c_char_p * len(encoded))(*encoded)
    out = os.fsencode(out_path)

    def call(control) -> int:
        return _capi.library.tknn_merge(parts, len(encoded), out, 1 if partial else 0, control)

    _calls.run(call, progress=False)
    return os.fsdecode(os.fsencode(out_path))


def load_result(path: Path) -> dict[str, Any]:
    """What a result file of compute_topk, of `tiny-knn run` or of the original tool holds, as a dict.

    `indices` int64 [Q, k] and `scores` float32 or float64 [Q, k], arrays of the caller's own; `k`; and as far as the file has
    them `queries_path`, `docs_path`, `batch_size`, `dtype`, `device`, `metric`, `tiny_knn_version`, `docs_manifest`; and
    `exclude_self`. Of a part also `docs_begin`, `docs_end`, `num_docs`, `k_wanted` and both fingerprints. Nothing in the file is
    run, so that one of a stranger's is safe to load: its pickle is read by a parser that knows such results and refuses all
    else.

    Raises OSError (no such file, or it cannot be read), ValueError (it is no result), MemoryError.

    >>> import numpy as np
    >>> np.save("d.npy", np.eye(3, dtype=np.float32))
    >>> result = load_result(compute_topk("d.npy", "d.npy", k=1, metric="cosine", out_path="nearest.npz"))
    >>> result["indices"].ravel().tolist(), result["metric"], result["docs_path"]
    ([0, 1, 2], 'cosine', 'd.npy')
    """
    with _capi.Handle("tknn_result_load", _capi.path_of("path", path)) as loaded:
        num_queries, k, dtype = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int32()
        _capi.library.tknn_result_shape(loaded, num_queries, k, dtype)
        shape = (num_queries.value, k.value)
        indices = np.empty(shape, np.int64)
        scores = np.empty(shape, _capi.DTYPE_NAMES[dtype.value])
        _capi.library.tknn_result_copy(loaded, indices.ctypes.data, scores.ctypes.data)
        result: dict[str, Any] = {"indices": indices, "scores": scores}

        def text(key: str) -> None:
            value = _capi.library.tknn_result_text(loaded, key.encode())
            if value:
                result[key] = os.fsdecode(value)

        text("queries_path")
        text("docs_path")
        result["k"] = k.value
        batch_size = _capi.library.tknn_result_batch_size(loaded)
        if batch_size:
            result["batch_size"] = batch_size
        for key in ("dtype", "device", "metric", "tiny_knn_version"):
            text(key)
        if "tiny_knn_version" in result:
            result["exclude_self"] = _capi.library.tknn_result_exclude_self(loaded) != 0
        text("docs_manifest")
        part = [ctypes.c_int64() for _ in range(4)]
        _capi.library.tknn_result_part(loaded, *part)
        if part[2].value:
            for key, value in zip(("docs_begin", "docs_end", "num_docs", "k_wanted"), part):
                result[key] = value.value
            text("queries_fingerprint")
            text("docs_fingerprint")
        return result
