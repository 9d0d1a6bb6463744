"""Reads a result file as a user would and says what it holds, for another process to compare.

usage: python -W error read_result.py RESULT.pkl FOLDER

Writes FOLDER/indices and FOLDER/scores (raw bytes) and prints a JSON object. Any warning, from
unpickling or from numpy, is an error here.
"""

import json
import pickle
import sys

import numpy as np


class StrictUnpickler(pickle.Unpickler):
    """Allows the three globals that careful loaders allow."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def main():
    result_path, folder = sys.argv[1:]
    with open(result_path, "rb") as file:
        result = pickle.load(file)
        after = file.read()
    with open(result_path, "rb") as file:
        strict = StrictUnpickler(file).load()
    assert list(strict) == list(result)
    described = {"numpy": np.__version__, "keys": list(result), "bytes_after": len(after)}
    for name in ("indices", "scores"):
        array = result[name]
        assert type(array) is np.ndarray
        with open(f"{folder}/{name}", "wb") as file:
            file.write(array.tobytes())
        described[name] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "c_contiguous": array.flags.c_contiguous,
            "writeable": array.flags.writeable,
            "owns_or_holds": array.flags.owndata or array.base is not None,
            "aligned": array.flags.aligned,
        }
        assert np.array_equal(strict[name], array, equal_nan=True)
        array.sort(axis=1)  # writable in fact
        array += array.dtype.type(1)
    for name, value in result.items():
        if name not in ("indices", "scores"):
            described[name] = [type(value).__name__, value]
    json.dump(described, sys.stdout)


if __name__ == "__main__":
    main()
