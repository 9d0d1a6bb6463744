"""Copies the engine's sources into a namespace and folder of their own, with one patch applied.

usage: make_mutant.py NAME PATCH|- OUTPUT_FOLDER SOURCE...

The copies lie side by side in OUTPUT_FOLDER, include each other there, and live in
tiny_knn::inline NAME, so that they can be linked beside the originals without sharing a symbol. A
patch is a unified diff; line numbers are ignored, but the old text of each hunk must stand in its file
exactly once, so that a patch which no longer means what it meant stops the build.
"""

import os
import re
import sys


def hunks(patch):
    """(file name, old text, new text) of every hunk."""
    name, old, new = None, None, None
    for line in patch.splitlines():
        if line.startswith(("@@", "--- ", "diff ")) and old is not None:
            yield name, "\n".join(old), "\n".join(new)
            old = new = None
        if line.startswith("+++ "):
            name = line.split("\t")[0].removeprefix("+++ b/")
        elif line.startswith("@@"):
            old, new = [], []
        elif old is not None:
            if line[:1] in (" ", "-", ""):
                old.append(line[1:])
            if line[:1] in (" ", "+", ""):
                new.append(line[1:])
    if old is not None:
        yield name, "\n".join(old), "\n".join(new)


def main():
    name, patch_path, folder, *sources = sys.argv[1:]
    texts = {}
    for source in sources:
        with open(source, encoding="utf-8") as file:
            texts[source] = file.read()
    if patch_path != "-":
        with open(patch_path, encoding="utf-8") as file:
            patch = file.read()
        applied = 0
        for file_name, old, new in hunks(patch):
            if file_name not in texts:
                sys.exit(f"{patch_path}: {file_name} is not among the engine's sources")
            count = texts[file_name].count(old)
            if count != 1:
                sys.exit(
                    f"{patch_path}: the text to change stands {count} times in {file_name}, expected once; "
                    f"bring the patch up to date:\n{old}"
                )
            texts[file_name] = texts[file_name].replace(old, new)
            applied += 1
        if not applied:
            sys.exit(f"{patch_path}: holds no hunk")
    os.makedirs(folder, exist_ok=True)
    package = f"tests/mutation/{name}"
    for source, text in texts.items():
        for other in sources:  # in #include and in HWY_TARGET_INCLUDE
            text = text.replace(f'"{other}"', f'"{package}/{os.path.basename(other)}"')
        text = re.sub(r"^namespace tiny_knn\b", f"namespace tiny_knn::inline {name}", text, flags=re.MULTILINE)
        with open(os.path.join(folder, os.path.basename(source)), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
