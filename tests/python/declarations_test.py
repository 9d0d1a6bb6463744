"""What ctypes was told of the library is what its header says; docstrings' examples do what they show."""

import ctypes
import doctest
import importlib
import pathlib
import sys
import unittest

from python_harness import ROOT, PythonTest

sys.path.insert(0, str(ROOT / "capi"))
import c_header  # noqa: E402

from tiny_knn import _capi  # noqa: E402

_TYPES = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64}
_STRUCTS = {
    "tknn_matrix": _capi.Matrix,
    "tknn_search_params": _capi.SearchParams,
    "tknn_report": _capi.Report,
    "tknn_job_params": _capi.JobParams,
}


class Declarations(unittest.TestCase):
    def setUp(self):
        self.header = c_header.parse((ROOT / "capi/tiny_knn.h").read_text(encoding="utf-8"))

    def of(self, kind):
        """ctypes' type for a type of the header."""
        kind = kind.removeprefix("const ").replace("*const*", "**")
        kind = self.header.aliases.get(kind, kind)
        if kind == "void":
            return None
        if kind in _TYPES:
            return _TYPES[kind]
        if kind in _STRUCTS:
            return _STRUCTS[kind]
        if kind == "char*":
            return ctypes.c_char_p
        base = kind.removesuffix("*")
        if kind.endswith("**") and kind[:-2] in self.header.opaque:
            return ctypes.POINTER(ctypes.c_void_p)
        if base == "void" or base in self.header.opaque:
            return ctypes.c_void_p
        return ctypes.POINTER(self.of(base))

    def test_every_function(self):
        self.assertEqual(set(_capi.FUNCTIONS), set(self.header.functions))
        for name, (result, parameters) in self.header.functions.items():
            declared_result, declared = _capi.FUNCTIONS[name]
            self.assertIs(declared_result, self.of(result), name)
            self.assertEqual(len(declared), len(parameters), name)
            for one, (kind, parameter) in zip(declared, parameters):
                # Arrays go as addresses.
                array = name in ("tknn_search", "tknn_corpus_search", "tknn_result_copy") and parameter == "indices"
                self.assertIs(one, ctypes.c_void_p if array else self.of(kind), f"{name}: {parameter}")

    def test_every_struct(self):
        self.assertEqual(set(_STRUCTS), set(self.header.structs))
        for name, fields in self.header.structs.items():
            declared = _STRUCTS[name]._fields_
            self.assertEqual([field for field, _ in declared], [field for _, field, _ in fields], name)
            for (field, kind), (wanted, _, count) in zip(declared, fields):
                base = self.of(wanted)
                self.assertTrue(kind is base * count if count else kind is base, f"{name}.{field}")

    def test_every_value(self):
        values = dict(self.header.values)
        self.assertEqual(values.pop("TKNN_ABI_VERSION"), _capi.ABI_VERSION)
        ours = {"TKNN_DTYPE_AS_STORED": _capi.DTYPE_AS_STORED}
        ours |= {f"TKNN_METRIC_{name.upper()}": value for name, value in _capi.METRICS.items()}
        ours |= {f"TKNN_DTYPE_{name.upper()}": value for name, value in _capi.DTYPES.items()}
        statuses = "OK INVALID_ARGUMENT NOT_FOUND PERMISSION_DENIED DATA_LOSS RESOURCE_EXHAUSTED CANCELLED UNAVAILABLE BUSY INTERNAL"
        ours |= {f"TKNN_{name}": getattr(_capi, name) for name in statuses.split()}
        self.assertEqual(ours, values)


class Examples(PythonTest):
    def test_every_example_does_what_it_shows(self):
        run = 0
        for path in sorted(pathlib.Path(_capi.__file__).parent.glob("_*.py")):
            if path.name == "__main__.py":
                continue
            module = importlib.import_module("tiny_knn" if path.name == "__init__.py" else f"tiny_knn.{path.stem}")
            results = doctest.testmod(module, extraglobs={name: getattr(importlib.import_module("tiny_knn"), name) for name in ("compute_topk", "load_result", "merge_results")})
            self.assertEqual(results.failed, 0, path.name)
            run += results.attempted
        self.assertGreater(run, 8)
        self.assertTrue(pathlib.Path(_capi.__file__).with_name("py.typed").exists())


if __name__ == "__main__":
    unittest.main()
