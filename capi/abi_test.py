"""The library shows what abi.txt lists: the functions of tiny_knn.h, and nothing else.

A change of the list is a change of what programs rely on: lines may be added; one that is changed or removed needs
another TKNN_ABI_VERSION. To write the list again: python3 capi/abi_test.py --write
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import unittest

import c_header

HEADER = pathlib.Path("capi/tiny_knn.h")
LIST = pathlib.Path("capi/abi.txt")
LIBRARY = pathlib.Path("capi/libtiny_knn.so")


class Abi(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.header = c_header.parse(HEADER.read_text(encoding="utf-8"))

    def test_the_header_declares_what_is_listed(self):
        self.assertEqual(c_header.describe(self.header), LIST.read_text(encoding="utf-8"))

    def test_the_library_shows_the_functions_of_the_header_and_no_other_symbol(self):
        printed = subprocess.run(
            ["nm", "--dynamic", "--defined-only", "--format=posix", LIBRARY], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        symbols = {line.split()[0].partition("@")[0] for line in printed.splitlines() if line.split()[1] != "A"}
        self.assertEqual(symbols, set(self.header.functions))

    def test_every_function_of_the_header_stands_there_once(self):
        text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)
        names = re.findall(r"\b(tknn_\w+)\(", text)
        self.assertEqual(sorted(names), sorted(self.header.functions))
        self.assertGreater(len(names), 20)

    def test_what_the_library_says_of_itself(self):
        library = ctypes.CDLL(str(LIBRARY.absolute()))
        library.tknn_version.restype = ctypes.c_char_p
        self.assertEqual(library.tknn_abi_version(), self.header.values["TKNN_ABI_VERSION"])
        self.assertRegex(library.tknn_version().decode(), r"\A\d+\.\d+\.\d+\Z")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        LIST.write_text(c_header.describe(c_header.parse(HEADER.read_text(encoding="utf-8"))), encoding="utf-8")
    else:
        unittest.main()
