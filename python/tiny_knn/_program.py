"""The `tiny-knn` program of this installation."""

from __future__ import annotations

import shutil

from ._installed import of_distribution


def find_program() -> str:
    """Its path: the one that was installed with this package, else the one on PATH. FileNotFoundError if there is none."""
    program = of_distribution("tiny-knn") or shutil.which("tiny-knn")
    if program is None:
        raise FileNotFoundError("the program tiny-knn was not found: neither beside this package nor on PATH; install it with `pip install .`")
    return program
