"""libtiny_knn.so as ctypes sees it: what tiny_knn.h declares, and its errors as exceptions.

A test compares every declaration here with the header.
"""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import re
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_void_p
from typing import Optional

from ._installed import beside_package, of_distribution

ABI_VERSION = 1

(OK, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, DATA_LOSS, RESOURCE_EXHAUSTED, CANCELLED, UNAVAILABLE, BUSY, INTERNAL) = range(10)

METRICS = {"ip": 0, "cosine": 1, "l2": 2}

DTYPE_AS_STORED = -1
DTYPES = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "bfloat16": 3,
    "int8": 4,
    "uint8": 5,
    "int16": 6,
    "int32": 7,
    "int64": 8,
    "bool": 9,
}
DTYPE_NAMES = {value: name for name, value in DTYPES.items()}


class Matrix(Structure):
    """tknn_matrix."""

    _fields_ = [
        ("data", c_void_p),
        ("rows", c_int64),
        ("dim", c_int64),
        ("row_stride_bytes", c_int64),
        ("column_stride_bytes", c_int64),
        ("dtype", c_int32),
        ("swap_bytes", c_int32),
    ]


class SearchParams(Structure):
    """tknn_search_params."""

    _fields_ = [
        ("k", c_int64),
        ("metric", c_int32),
        ("compute_dtype", c_int32),
        ("exclude_self", c_int32),
        ("threads", c_int32),
        ("memory_limit_bytes", c_int64),
        ("batch_size", c_int64),
        ("reserved", c_int64 * 4),
    ]


class Report(Structure):
    """tknn_report."""

    _fields_ = [
        ("nonfinite_query_rows", c_int64),
        ("nonfinite_doc_rows", c_int64),
        ("infs_made_in_queries", c_int64),
        ("infs_made_in_docs", c_int64),
        ("queries_with_tie_at_k", c_int64),
        ("rescored_pairs", c_int64),
        ("reserved", c_int64 * 4),
    ]


class JobParams(Structure):
    """tknn_job_params."""

    _fields_ = [
        ("queries_path", c_char_p),
        ("docs_path", c_char_p),
        ("output_path", c_char_p),
        ("device", c_char_p),
        ("search", SearchParams),
        ("stored_dtype", c_int32),
        ("checkpoint_seconds", c_int32),
        ("gpu_memory_bytes", c_int64),
        ("verify_queries", c_int64),
        ("docs_begin", c_int64),
        ("docs_end", c_int64),
        ("checkpoint_path", c_char_p),
        ("reserved", c_int64 * 1),
    ]


# Handles are c_void_p, and so are arrays: addresses that numpy gives.
_INT64_OUT = POINTER(c_int64)
_HANDLE_OUT = POINTER(c_void_p)
FUNCTIONS = {
    "tknn_version": (c_char_p, []),
    "tknn_abi_version": (c_int32, []),
    "tknn_last_error": (c_char_p, []),
    "tknn_last_errno": (c_int32, []),
    "tknn_control_create": (c_int32, [_HANDLE_OUT]),
    "tknn_control_destroy": (None, [c_void_p]),
    "tknn_control_cancel": (None, [c_void_p]),
    "tknn_control_progress": (None, [c_void_p, _INT64_OUT, _INT64_OUT]),
    "tknn_engine_open": (c_int32, [c_char_p, c_int64, _HANDLE_OUT]),
    "tknn_engine_close": (None, [c_void_p]),
    "tknn_engine_device": (c_char_p, [c_void_p]),
    "tknn_engine_note": (c_char_p, [c_void_p]),
    "tknn_rows_from_memory": (c_int32, [c_char_p, POINTER(Matrix), _HANDLE_OUT]),
    "tknn_rows_open": (c_int32, [c_char_p, c_int32, _HANDLE_OUT]),
    "tknn_rows_close": (None, [c_void_p]),
    "tknn_rows_shape": (None, [c_void_p, _INT64_OUT, _INT64_OUT, POINTER(c_int32)]),
    "tknn_search": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(SearchParams), c_void_p, c_void_p, c_void_p, POINTER(Report)]),
    "tknn_corpus_create": (c_int32, [c_void_p, c_int32, c_int32, _HANDLE_OUT]),
    "tknn_corpus_destroy": (None, [c_void_p]),
    "tknn_corpus_search": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(SearchParams), c_void_p, c_void_p, c_void_p, POINTER(Report)]),
    "tknn_corpus_kept_bytes": (c_int64, [c_void_p]),
    "tknn_corpus_forget": (c_int32, [c_void_p]),
    "tknn_job_run": (c_int32, [POINTER(JobParams), c_void_p, _HANDLE_OUT]),
    "tknn_job_destroy": (None, [c_void_p]),
    "tknn_job_output_path": (c_char_p, [c_void_p]),
    "tknn_job_report_json": (c_char_p, [c_void_p]),
    "tknn_job_notes": (c_char_p, [c_void_p]),
    "tknn_result_load": (c_int32, [c_char_p, _HANDLE_OUT]),
    "tknn_result_destroy": (None, [c_void_p]),
    "tknn_result_shape": (None, [c_void_p, _INT64_OUT, _INT64_OUT, POINTER(c_int32)]),
    "tknn_result_copy": (None, [c_void_p, c_void_p, c_void_p]),
    "tknn_result_text": (c_char_p, [c_void_p, c_char_p]),
    "tknn_result_exclude_self": (c_int32, [c_void_p]),
    "tknn_result_part": (None, [c_void_p, _INT64_OUT, _INT64_OUT, _INT64_OUT, _INT64_OUT]),
    "tknn_merge": (c_int32, [POINTER(c_char_p), c_int64, c_char_p, c_int32, c_void_p]),
    "tknn_result_batch_size": (c_int64, [c_void_p]),
}


def _load() -> ctypes.CDLL:
    name = "libtiny_knn.so"
    path = beside_package(name) or of_distribution(name)
    if path is None:
        raise ImportError(f"tiny_knn: {name} was not found beside the package; install it with `pip install .` from a checkout")
    # CDLL, not PyDLL: its calls let other threads run.
    library = ctypes.CDLL(path)
    for function, (result, arguments) in FUNCTIONS.items():
        declared = getattr(library, function)
        declared.restype, declared.argtypes = result, arguments
    if library.tknn_abi_version() != ABI_VERSION:
        raise ImportError(f"tiny_knn: {path} has ABI {library.tknn_abi_version()}, expected {ABI_VERSION}; install the package again")
    return library


library = _load()


def version() -> str:
    return library.tknn_version().decode()


# The library speaks of what the user may change by the names of the program's flags.
_ARGUMENTS = {"output-path": "out_path"}
_FLAG = re.compile(r"(?<= )--(batch-size|device|dtype|exclude-self|gpu-memory|input-dtype|memory-limit|output-path|threads|verify)\b")


def _in_python(message: str) -> str:
    return _FLAG.sub(lambda flag: _ARGUMENTS.get(flag[1], flag[1].replace("-", "_")), message)


_FILE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE}


def error_of(status: int) -> Exception:
    """The exception of a call of this thread that failed with `status`."""
    message = _in_python(os.fsdecode(library.tknn_last_error()))
    number = library.tknn_last_errno()
    if status == NOT_FOUND:
        return FileNotFoundError(number or errno.ENOENT, message)
    if status == PERMISSION_DENIED:
        return PermissionError(number or errno.EACCES, message)
    if status == RESOURCE_EXHAUSTED:
        return OSError(number, message) if number in _FILE_ERRORS else MemoryError(message)
    if number:
        return OSError(number, message)  # IsADirectoryError and so on, by the number
    if status == INVALID_ARGUMENT:
        return ValueError(message)
    if status == DATA_LOSS:
        return OSError(message)
    return RuntimeError(message)


def check(status: int) -> None:
    if status != OK:
        raise error_of(status)


class Handle:
    """An object of the library, given back when it is closed or forgotten."""

    _as_parameter_: Optional[c_void_p] = None  # nothing to give back where making it failed

    def __init__(self, kind: str, *arguments):
        """`kind` names the function that makes it; its last parameter is `out`."""
        made = c_void_p()
        self._close = getattr(library, _CLOSERS[kind])
        check(getattr(library, kind)(*arguments, ctypes.byref(made)))
        self._as_parameter_ = made

    def close(self) -> None:
        handle, self._as_parameter_ = self._as_parameter_, None
        if handle:
            self._close(handle)

    def give_away(self) -> None:
        """Its owner is another one now."""
        self._as_parameter_ = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


_CLOSERS = {
    "tknn_control_create": "tknn_control_destroy",
    "tknn_engine_open": "tknn_engine_close",
    "tknn_rows_from_memory": "tknn_rows_close",
    "tknn_rows_open": "tknn_rows_close",
    "tknn_corpus_create": "tknn_corpus_destroy",
    "tknn_job_run": "tknn_job_destroy",
    "tknn_result_load": "tknn_result_destroy",
}


def text_of(name: str, value: str | bytes | os.PathLike) -> bytes:
    """For the library, whose strings end where Python's go on after a NUL."""
    try:
        text = os.fsencode(value)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    if b"\0" in text:
        raise ValueError(f"{name}: has a null byte")
    return text


def path_of(name: str, value: str | bytes | os.PathLike) -> bytes:
    path = text_of(name, value)
    if not path:
        raise ValueError(f"{name} is empty; pass a file name")
    return path


def number_of(name: str, value: object) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} expects a whole number, found {value!r}") from None


def choose(what: str, value: object, names: dict[str, int]) -> int:
    """The number of a name; ValueError that lists the names."""
    if isinstance(value, str) and value in names:
        return names[value]
    raise ValueError(f"{what} expects one of {', '.join(names)}, found {value!r}")


def compute_dtype_of(dtype: object) -> int:
    """Of a name, or of what numpy calls a dtype."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)
    return choose("dtype", name, {name: value for name, value in DTYPES.items() if name != "bool"})


def stored_dtype_of(input_dtype: str | None) -> int:
    return DTYPE_AS_STORED if input_dtype is None else choose("input_dtype", input_dtype, DTYPES)
