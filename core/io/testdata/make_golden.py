#!/usr/bin/env python3
"""Writes the golden .npy files beside this script with numpy.

Element (i, j) of every file is the value of f(i, j), rounded by numpy to the file's dtype:

    f(i, j) = ((7 * i + 3 * j) % 11 - 5) * 0.25     floating point
              (7 * i + 3 * j) % 11 - 5              signed ints
              (7 * i + 3 * j) % 11                  unsigned ints
              (7 * i + 3 * j) % 11 > 5              bool

so a reader can compute what it must find. Run it again only to add files: the committed ones stay
as the numpy that wrote them left them. Needs numpy; no other package.
"""

import os
import sys

import numpy as np

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
SHAPES = {"": (5, 3), "_wide": (2, 67), "_one_row": (1, 4), "_one_column": (4, 1)}
DTYPES = ["b1", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8"]


def value(i, j, kind):
    base = (7 * i + 3 * j) % 11
    return {"f": (base - 5) * 0.25, "i": base - 5, "u": base, "b": base > 5}[kind]


def matrix(shape, dtype):
    kind = np.dtype(dtype).kind
    rows = [[value(i, j, kind) for j in range(shape[1])] for i in range(shape[0])]
    return np.array(rows, dtype=dtype).reshape(shape)


def save(name, array, version=None):
    path = os.path.join(HERE, name + ".npy")
    if os.path.exists(path):
        return
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=version)


def save_with_header(name, header, data, version=1):
    """A file whose header numpy no longer writes, but reads."""
    path = os.path.join(HERE, name + ".npy")
    if os.path.exists(path):
        return
    text = header.encode("latin1")
    prefix = b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little")
    with open(path, "wb") as file:
        file.write(prefix + text + data)
    np.load(path)  # or it would prove nothing


def main():
    os.makedirs(HERE, exist_ok=True)
    for dtype in DTYPES:
        for suffix, shape in SHAPES.items():
            save(f"{dtype}{suffix}", matrix(shape, dtype))
        save(f"{dtype}_fortran", np.asfortranarray(matrix((5, 3), dtype)))
        if np.dtype(dtype).itemsize > 1:
            save(f"{dtype}_big", matrix((5, 3), ">" + dtype))
            save(f"{dtype}_big_fortran", np.asfortranarray(matrix((5, 3), ">" + dtype)))
        save(f"{dtype}_no_rows", matrix((0, 3), dtype))
        save(f"{dtype}_no_columns", matrix((3, 0), dtype))
    for version in ((1, 0), (2, 0), (3, 0)):
        save(f"f4_version{version[0]}", matrix((5, 3), "f4"), version)
    # bfloat16 as numpy with ml_dtypes writes it: the upper halves of float32, as two raw bytes.
    bits = (matrix((5, 3), "f4").view("u4") >> 16).astype("u2")
    save("bfloat16_raw", bits.view("V2"))
    save("bfloat16_raw_fortran", np.asfortranarray(bits.view("V2")))
    data = matrix((5, 3), "<f4").tobytes()
    # Python 2: a long in the shape, unicode strings, another order of keys, no padding.
    save_with_header("f4_python2", "{'shape': (5L, 3L), 'fortran_order': False, 'descr': '<f4', }\n",
                     data)
    save_with_header("f4_odd_header",
                     "{ u'descr':\"<f4\" ,\t'fortran_order':False,\n 'shape':(5,3)}  \n", data)
    # What must be refused.
    save("refuse_1d", np.zeros(3, "f4"))
    save("refuse_0d", np.zeros((), "f4"))
    save("refuse_3d", np.zeros((2, 1, 2), "f4"))
    save("refuse_object", np.array([[1, None]], dtype=object))
    save("refuse_structured", np.zeros((2, 2), dtype=[("a", "<f4"), ("b", "<i2")]))
    save("refuse_complex", np.zeros((2, 2), "c8"))
    save("refuse_datetime", np.zeros((2, 2), "M8[ns]"))
    save("refuse_strings", np.zeros((2, 2), "U3"))
    save("refuse_bytes", np.zeros((2, 2), "S3"))
    save("refuse_uint16", np.zeros((2, 2), "u2"))
    save("refuse_uint32", np.zeros((2, 2), "u4"))
    save("refuse_uint64", np.zeros((2, 2), "u8"))
    save("refuse_longdouble", np.zeros((2, 2), "g"))
    save("refuse_void", np.zeros((2, 2), "V3"))


if __name__ == "__main__":
    sys.exit(main())
