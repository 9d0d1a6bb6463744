"""Arrays and files as the library's rows."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from . import _capi

_BY_NUMPY = {"b1": "bool", "i1": "int8", "u1": "uint8", "i2": "int16", "i4": "int32", "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64"}


def _dtype_name(array: np.ndarray, input_dtype: str | None) -> str | None:
    """What its elements are; None for none that can be searched."""
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        return "bfloat16"
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        return "bfloat16" if input_dtype == "bfloat16" else None
    return _BY_NUMPY.get(f"{array.dtype.kind}{array.dtype.itemsize}")


def _matrix_of(array: np.ndarray, name: str, input_dtype: str | None) -> _capi.Matrix:
    """What the library has to know of an array. ValueError for one that cannot be searched."""
    if array.ndim != 2:
        hint = "; for one row pass array[None, :]" if array.ndim == 1 else ""
        raise ValueError(f"{name}: has shape {array.shape}; expected two dimensions (rows, dim){hint}")
    dtype = _dtype_name(array, input_dtype)
    if dtype is None:
        if array.dtype.kind == "V":
            raise ValueError(f"{name}: has raw data of dtype {array.dtype}; if it is bfloat16, pass input_dtype='bfloat16'")
        raise ValueError(f"{name}: has dtype {array.dtype}; expected one of {', '.join(_capi.DTYPES)}")
    return _capi.Matrix(
        data=array.ctypes.data,
        rows=array.shape[0],
        dim=array.shape[1],
        row_stride_bytes=array.strides[0],
        column_stride_bytes=array.strides[1],
        dtype=_capi.DTYPES[dtype],
        swap_bytes=0 if array.dtype.isnative else 1,
    )


class Rows(_capi.Handle):
    """The rows of an array, which is kept as long as they are, or of a file.

    shape: (rows, dim).
    fits: whether input_dtype is what they are; one of queries and docs may say its own type instead.
    """

    def __init__(self, value: object, name: str, input_dtype: str | None):
        stored = _capi.stored_dtype_of(input_dtype)
        self._array: np.ndarray | None = None
        if isinstance(value, (str, bytes, os.PathLike)):
            self.fits = self._open(_capi.path_of(name, value), stored)
        else:
            if np.ma.is_masked(value):
                raise ValueError(f"{name}: has masked values, which would count as what lies under the mask; pass {name}.filled(0), or what they are to be")
            array = self._array = np.asarray(value)
            super().__init__("tknn_rows_from_memory", name.encode(), ctypes.byref(_matrix_of(array, name, input_dtype)))
            self.fits = input_dtype is None or input_dtype == _dtype_name(array, input_dtype)
        rows, dim = ctypes.c_int64(), ctypes.c_int64()
        _capi.library.tknn_rows_shape(self, rows, dim, None)
        self.shape = (rows.value, dim.value)

    def _open(self, path: bytes, stored: int) -> bool:
        try:
            super().__init__("tknn_rows_open", path, stored)
            return True
        except ValueError:
            if stored == _capi.DTYPE_AS_STORED:
                raise
        super().__init__("tknn_rows_open", path, _capi.DTYPE_AS_STORED)
        return False

    def forget_array(self) -> None:
        """Once nothing of the library's reads it."""
        self._array = None
