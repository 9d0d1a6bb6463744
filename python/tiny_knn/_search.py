"""Searches into arrays: exact_search, and Corpus for many of the same docs."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from typing import NamedTuple, Union

import numpy as np
import numpy.typing

from . import _calls, _capi
from ._calls import Progress
from ._rows import Rows

Matrix = Union[np.typing.ArrayLike, str, bytes, os.PathLike]


class _Pair(NamedTuple):
    indices: np.ndarray
    scores: np.ndarray


class TopK(_Pair):
    """What a search found: `indices, scores = exact_search(...)`.

    indices: int64 [Q, k], C order. Row i has the docs nearest to query i, best first.
    scores: float32 [Q, k], float64 where dtype is "float64". Greater is closer for every metric; "l2" is negated.
    report: a dict of what the search noticed: rows with NaN or infinity (`nonfinite_query_rows`, `nonfinite_doc_rows`),
        values that the dtype made infinite (`infs_made_in_queries`, `infs_made_in_docs`), queries whose rank k is tied with
        a doc that is left out (`queries_with_tie_at_k`), and `rescored_pairs`.
    """

    report: dict[str, int]


def warn_of(report: dict[str, int]) -> None:
    """What a user has to know of a result, as numpy would say it of its own."""
    for what in ("queries", "docs"):
        made = report[f"infs_made_in_{what}"]
        if made:
            warnings.warn(f"{made} values of the {what} became infinite in the compute dtype; a wider dtype keeps them finite", RuntimeWarning, stacklevel=3)
    for what, rows in (("queries", report["nonfinite_query_rows"]), ("docs", report["nonfinite_doc_rows"])):
        if rows and not report[f"infs_made_in_{what}"]:
            warnings.warn(f"{rows} rows of the {what} have NaN or infinity", RuntimeWarning, stacklevel=3)


def _amount(name: str, value: int | None, least: int = 1) -> int:
    """What 0 stands for in the library is None here."""
    if value is None:
        return 0
    number = _capi.number_of(name, value)
    if number < least:
        raise ValueError(f"{name}={number}: must be at least {least}, or None")
    if number >= 2**63:
        raise ValueError(f"{name}={number}: is more than any machine has")
    return number


def params_of(k: int, metric: str, dtype: object, exclude_self: bool, threads: int | None, memory_limit: int | None, batch_size: int | None) -> _capi.SearchParams:
    most_threads = 2**31 - 1
    return _capi.SearchParams(
        k=k,
        metric=_capi.choose("metric", metric, _capi.METRICS),
        compute_dtype=_capi.compute_dtype_of(dtype),
        exclude_self=1 if exclude_self else 0,
        threads=min(_amount("threads", threads), most_threads),
        memory_limit_bytes=_amount("memory_limit", memory_limit),
        batch_size=_amount("batch_size", batch_size),
    )


def checked_k(k: int) -> int:
    number = _capi.number_of("k", k)
    if number < 1:
        raise ValueError(f"k={number} must be at least 1")
    return min(number, 2**63 - 1)


def _search(function, objects, queries: Rows, num_docs: int, params: _capi.SearchParams, progress: Progress) -> TopK:
    """`objects` are what `function` takes before the parameters."""
    # A k that cannot be is refused by the library before it writes anything, and needs no memory.
    shape = (queries.shape[0], params.k) if params.k <= num_docs else (0, 0)
    indices = np.empty(shape, np.int64)
    scores = np.empty(shape, np.float64 if params.compute_dtype == _capi.DTYPES["float64"] else np.float32)
    report = _capi.Report()

    def call(control) -> int:
        return function(*objects, ctypes.byref(params), control, indices.ctypes.data, scores.ctypes.data, ctypes.byref(report))

    _calls.run(call, progress)
    found = TopK(indices, scores)
    found.report = {field[0]: getattr(report, field[0]) for field in report._fields_ if field[0] != "reserved"}
    return found


def _open_engine(device: str, gpu_memory: int | None) -> _capi.Handle:
    return _capi.Handle("tknn_engine_open", _capi.text_of("device", device), _amount("gpu_memory", gpu_memory))


def exact_search(
    queries: Matrix,
    docs: Matrix,
    k: int,
    metric: str = "ip",
    *,
    dtype: str = "float32",
    exclude_self: bool = False,
    input_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory_limit: int | None = None,
    gpu_memory: int | None = None,
    batch_size: int | None = None,
    progress: Progress = None,
) -> TopK:
    """Finds, for every query, the k docs with the greatest scores.

    queries, docs: [Q, dim] and [D, dim]: arrays (numpy, memmap, or whatever numpy.asarray takes) of bool, int8, uint8,
        int16, int32, int64, float16, bfloat16 (ml_dtypes), float32 or float64, of any strides and byte order; or paths of
        .npy files. Arrays are read where they lie; of those whose rows are not contiguous, in native byte order and apart
        from each other, a part at a time goes through a buffer. They must not be written to meanwhile.
    k: docs per query, 1 to D (D - 1 with exclude_self).
    metric: "ip" (inner product), "cosine" (0 where a row is all zeros) or "l2" (negated squared Euclidean distance).
    dtype: compute dtype: every element is rounded to it once, and scores are exact for what comes out. One of float32,
        float64, float16, bfloat16, int8, uint8, int16, int32, int64; integers are computed with as float32.
    exclude_self: leaves out the doc whose index is the query's, for docs searched in themselves.
    input_dtype: "bfloat16" says what raw two-byte data (dtype V2) is.
    device: "auto", "cpu", "cuda" or "cuda:N".

    These never change what is found:
    threads: None is one per CPU that this process may use.
    memory_limit: bytes that the search may take beside the arrays; None is 75% of what is available. A file's docs count.
    gpu_memory: bytes of a CUDA device's; None is what is free.
    batch_size: most queries per pass over the docs; None is as many as fit.
    progress: None shows a bar on a terminal if tqdm is installed and the search takes a while; True shows one, also in a
        notebook; False none; a function is called with (pairs_done, pairs_total) now and then.

    Returns TopK: (indices int64 [Q, k], scores float32 [Q, k], float64 for dtype "float64"), best first; equal scores by the
    lower index, NaN last. A RuntimeWarning says where values became infinite, or NaN and infinity are among them.

    Raises ValueError (shapes, dtypes, k, a memory limit that cannot work), OSError (files; also one that changed during
    the search), MemoryError, RuntimeError (no such device), KeyboardInterrupt.

    >>> import numpy as np
    >>> docs = np.array([[1, 0], [0, 1], [3, 3], [-1, 2]], dtype=np.float32)
    >>> indices, scores = exact_search([[1.0, 0.5]], docs, k=2)
    >>> indices.tolist(), scores.tolist()
    ([[2, 0]], [[4.5, 1.0]])
    >>> exact_search(docs, docs, k=1, metric="l2", exclude_self=True).indices.ravel().tolist()
    [1, 0, 0, 1]
    """
    params = params_of(checked_k(k), metric, dtype, exclude_self, threads, memory_limit, batch_size)
    with _open_engine(device, gpu_memory) as engine, Rows(queries, "queries", input_dtype) as query_rows, Rows(docs, "docs", input_dtype) as doc_rows:
        if not (query_rows.fits or doc_rows.fits):
            raise ValueError(f"input_dtype={input_dtype!r} is the type of neither; leave it out where arrays and files say their own")
        found = _search(_capi.library.tknn_search, (engine, query_rows, doc_rows), query_rows, doc_rows.shape[0], params, progress)
    warn_of(found.report)
    return found


class Corpus:
    """Docs for many searches: what the first one makes of them is kept for the others.

    That takes about a quarter to twice the memory of the docs, within memory_limit, and makes a search of a few queries many
    times faster; where it does not fit, or with a device that keeps nothing, every search prepares the docs again. What is
    found is what exact_search finds, bit for bit.

    docs, metric, dtype, input_dtype, device, threads, memory_limit, gpu_memory: as of exact_search; memory_limit is for a
    search and what is kept. The docs must not change while the corpus lives: of a file that is noticed (OSError), of an
    array it is not.

    May be used by several threads, whose searches take turns, and in forked children. Closed by close(), by `with`, or when
    nothing refers to it.

    >>> import numpy as np
    >>> with Corpus(np.eye(3, dtype=np.float32), metric="cosine") as corpus:
    ...     for query in ([1, 0, 0], [0, 2, 1]):
    ...         print(corpus.search([query], k=1).indices.item())
    0
    1
    """

    def __init__(
        self,
        docs: Matrix,
        metric: str = "ip",
        *,
        dtype: str = "float32",
        input_dtype: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
        gpu_memory: int | None = None,
    ):
        params = params_of(1, metric, dtype, False, threads, memory_limit, None)
        self._how = (metric, dtype)
        self._limits = (threads, memory_limit)
        self._input_dtype = input_dtype
        self._lock = threading.Lock()
        self._engine = _open_engine(device, gpu_memory)
        self._docs = Rows(docs, "docs", input_dtype)  # keeps the array
        self._corpus = _capi.Handle("tknn_corpus_create", self._docs, params.metric, params.compute_dtype)
        self._docs.give_away()
        self._closed = False

    @property
    def shape(self) -> tuple[int, int]:
        """(D, dim) of the docs."""
        return self._docs.shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept for later searches now; 0 before the first."""
        return _capi.library.tknn_corpus_kept_bytes(self._corpus)

    def search(self, queries: Matrix, k: int, *, exclude_self: bool = False, batch_size: int | None = None, progress: Progress = None) -> TopK:
        """As exact_search(queries, docs, k, ...) with what the corpus was made with. Raises ValueError also when it is closed."""
        params = params_of(checked_k(k), *self._how, exclude_self, *self._limits, batch_size)
        with Rows(queries, "queries", self._input_dtype) as query_rows, self._lock:
            if self._closed:
                raise ValueError("the corpus is closed")
            found = _search(_capi.library.tknn_corpus_search, (self._corpus, self._engine, query_rows), query_rows, self.shape[0], params, progress)
        warn_of(found.report)
        return found

    def forget(self) -> None:
        """Gives the kept memory back; a later search prepares the docs again."""
        with self._lock:
            if not self._closed:
                _capi.check(_capi.library.tknn_corpus_forget(self._corpus))

    def close(self) -> None:
        """Gives everything back, when a search that is under way has ended. It cannot be used any more."""
        with self._lock:
            self._closed = True
            self._corpus.close()
            self._engine.close()
            self._docs.forget_array()

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        rows, dim = self.shape
        return f"<tiny_knn.Corpus of {rows} x {dim} docs, metric {self._how[0]}, dtype {self._how[1]}>"
