#!/usr/bin/python3
"""Checks of the tree that no other tool makes.

usage: check_tree.py FILE...      from the repository's root; the files that git knows

No source is over 500 lines, links in Markdown files lead to a file (and a heading) that exists,
text files have no trailing blanks and end with one newline, Python files compile.
"""

import pathlib
import re
import sys

MAX_LINES = 500
_SOURCES = {".cc", ".h", ".cu", ".cuh", ".py", ".sh", ".bzl", ".c"}
_TEXTS = _SOURCES | {".md", ".bazel", ".BUILD", ".txt", ""}
_LINK = re.compile(r"\[[^\]\n]*\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)")
_CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)


def anchors(text):
    """The anchors of a Markdown file's headings, as web views make them."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*)$", _CODE_BLOCK.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(slug)
    return found


def broken_links(path, text):
    for target in _LINK.findall(_CODE_BLOCK.sub("", text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = path.parent / name if name else path
        if not goal.exists():
            yield f"{path}: the link to {target} leads nowhere"
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
            yield f"{path}: the link to {target}: no such heading"


def complaints(path):
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix == "" and not data.startswith(b"#!"):
        return
    lines = text.split("\n")
    if path.suffix in _SOURCES and len(lines) - 1 > MAX_LINES:
        yield f"{path}: {len(lines) - 1} lines; a source has at most {MAX_LINES}: split it"
    if "corpus" not in path.parts and "testdata" not in path.parts:
        for number, line in enumerate(lines, 1):
            if line != line.rstrip():
                yield f"{path}:{number}: blanks at the end of the line"
        if text and not text.endswith("\n") or text.endswith("\n\n"):
            yield f"{path}: has to end with one newline"
    if path.suffix == ".md":
        yield from broken_links(path, text)
    if path.suffix == ".py":
        try:
            compile(text, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: {error.msg}"


def main(names):
    found = 0
    for path in map(pathlib.Path, names):
        if path.suffix not in _TEXTS or not path.is_file() or path.is_symlink():
            continue
        for complaint in complaints(path):
            print(complaint)
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
