"""Where the parts of this installation lie that are no Python."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib


def beside_package(name: str) -> str | None:
    """The file `name` in the package's own folder."""
    path = pathlib.Path(__file__).with_name(name)
    return str(path) if path.exists() else None


def of_distribution(name: str) -> str | None:
    """The file `name` that the installed distribution lists: where an editable one keeps its library, and where the
    programs are, whatever pip was told of folders."""
    try:
        files = importlib.metadata.files("tiny-knn") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = os.path.abspath(file.locate())
            if os.path.exists(path):
                return path
    return None
