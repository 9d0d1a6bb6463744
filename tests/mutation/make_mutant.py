"""Copies the engine's sources into a namespace and folder of their own, with one patch applied.

usage: make_mutant.py [--alone] PATCH|- FILES OUTPUT_FOLDER SOURCE...

FILES: those to write, names without folders, in one argument. They lie side by side in OUTPUT_FOLDER; an include
of another source means the one beside it if that is written, too, else the one in the folder `unpatched` beside. All
live in tiny_knn::inline mutant, so that a mutant is linked of few files of its own and the unpatched others, beside
the originals and without sharing a symbol with them.

With --alone they keep their namespace and take the originals' place: a program is linked of FILES and of the original
others.

A patch is a unified diff; line numbers are ignored, but the old text of each hunk must stand in its file exactly once,
so that a patch which no longer means what it meant stops the build. So does one that changes a file that is not
written, and a source that is not written but includes one that is, for it would be compiled as if nothing had changed.
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
    arguments = sys.argv[1:]
    alone = arguments[0] == "--alone"
    patch_path, files, folder, *sources = arguments[alone:]
    files = files.split()
    texts = {}
    for source in sources:
        with open(source, encoding="utf-8") as file:
            texts[source] = file.read()
    if patch_path != "-":
        with open(patch_path, encoding="utf-8") as file:
            patch = file.read()
        changed = set()
        for file_name, old, new in hunks(patch):
            if file_name not in texts:
                sys.exit(f"{patch_path}: {file_name} is not among the engine's sources")
            count = texts[file_name].count(old)
            if count != 1:
                sys.exit(
                    f"{patch_path}: the text to change stands {count} times in {file_name}, expected once; "
                    f"bring the patch up to date:\n{old}"
                )
            if os.path.basename(file_name) not in files:
                sys.exit(f"{patch_path}: {file_name} is not among the files it is said to change")
            texts[file_name] = texts[file_name].replace(old, new)
            changed.add(os.path.basename(file_name))
        if not changed:
            sys.exit(f"{patch_path}: holds no hunk")
        for source, text in texts.items():
            written = [other for other in sources if os.path.basename(other) in files and f'"{other}"' in text]
            if written and os.path.basename(source) not in files:
                sys.exit(f"{patch_path}: {source} includes {written[0]}, so it has to be written, too")
            if not written and os.path.basename(source) in set(files) - changed:
                sys.exit(f"{patch_path}: {source} is neither changed nor includes what is written")
    os.makedirs(folder, exist_ok=True)
    for source, text in texts.items():
        if os.path.basename(source) not in files:
            continue
        for other in sources:  # in #include and in HWY_TARGET_INCLUDE
            name = os.path.basename(other)
            if name in files:
                text = text.replace(f'"{other}"', f'"{folder.partition("/bin/")[2]}/{name}"')
            elif not alone:
                text = text.replace(f'"{other}"', f'"tests/mutation/unpatched/{name}"')
        if not alone:
            text = re.sub(r"^namespace tiny_knn\b", "namespace tiny_knn::inline mutant", text, flags=re.MULTILINE)
        with open(os.path.join(folder, os.path.basename(source)), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
