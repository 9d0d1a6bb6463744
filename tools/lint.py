#!/usr/bin/python3
"""Runs clang-tidy over the C++ sources, two at a time or as many as there are cores.

usage: lint.py --bazel COMMAND [--cache FOLDER] [--only FILE...]

The compile flags that matter (defines, include paths, instruction sets, language) are asked of
Bazel. A source that was clean is not looked at again until it, a header of ours that it includes,
its flags, .clang-tidy or clang-tidy itself change: CACHE holds one empty file for each clean state.
With --only, the sources that are among the FILEs or include one of them.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

CLANG_TIDY = "clang-tidy-14"
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
# Also one that names its header by a macro, which a build defines.
_ANY_INCLUDE = re.compile(r'^\s*#\s*include\s+"?([^"<\s]+)', re.MULTILINE)
_KEPT = re.compile(r"-(D(?!__(DATE|TIME|TIMESTAMP)__)|m|std=c\+\+2|I|iquote|isystem|fopenmp)")


def flags_by_source(bazel):
    """Asks Bazel how it compiles each of our sources: {path: flags}."""
    answer = subprocess.run(
        [bazel, "aquery", "--output=jsonproto", "--noinclude_artifacts", "--keep_going",
         "--noshow_progress", 'mnemonic("CppCompile", //...)'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if not answer.stdout:
        sys.exit(f"lint: bazel aquery failed:\n{answer.stderr}")
    # Headers of other repositories, the CUDA toolkit's say, lie below Bazel's output base.
    output_base = subprocess.run([bazel, "info", "output_base"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, check=True).stdout.strip()
    flags = {}
    for action in json.loads(answer.stdout).get("actions", []):
        arguments = action["arguments"]
        if "-c" not in arguments:
            continue
        source = arguments[arguments.index("-c") + 1]
        if source.startswith(("external/", "bazel-out/")) or source in flags:
            continue
        kept, rest = [], iter(arguments)
        for argument in rest:
            if argument in ("-iquote", "-isystem", "-I"):
                folder = next(rest)
                kept += [argument, f"{output_base}/{folder}" if folder.startswith("external/") else folder]
            elif _KEPT.match(argument):
                kept.append(argument)
        flags[source] = kept
    return flags


def included(source, seen):
    """Adds `source` and the headers of ours that it includes, through any number of steps, to `seen`."""
    if source in seen or not os.path.isfile(source):
        return seen
    seen[source] = pathlib.Path(source).read_bytes()
    for header in _INCLUDE.findall(seen[source].decode("utf-8", "replace")):
        included(header, seen)
    return seen


def missing_headers(files, flags):
    """Headers that only a build makes and none has made: clang-tidy cannot look at what includes them.

    A build's output is among the quoted include paths, below the link that a build leaves here. What such
    a header holds is no part of a source's state: a build id is another one after every commit.
    """
    folders = ["", "/usr/include"]
    folders += [value for flag, value in zip(flags, flags[1:]) if flag in ("-iquote", "-isystem")]
    names = set()
    for data in files.values():
        names.update(_ANY_INCLUDE.findall(data.decode("utf-8", "replace")))
    return sorted(name for name in names
                  if not any(os.path.isfile(os.path.join(folder, name)) for folder in folders))


def tidy(source, flags):
    run = subprocess.run(
        [CLANG_TIDY, "--quiet", source, "--", *flags, "-Wno-everything"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    return source, run.returncode, run.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bazel", required=True)
    parser.add_argument("--cache", type=pathlib.Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()

    common = subprocess.run([CLANG_TIDY, "--version"], stdout=subprocess.PIPE, check=True).stdout
    common += pathlib.Path(".clang-tidy").read_bytes() + pathlib.Path(__file__).read_bytes()
    todo, clean = [], 0
    for source, flags in sorted(flags_by_source(arguments.bazel).items()):
        files = included(source, {})
        if arguments.only is not None and not set(arguments.only) & set(files):
            continue
        missing = missing_headers(files, flags)
        if missing:
            print(f"lint: {source} is left out: it includes {', '.join(missing)}, which no build has made")
            continue
        state = hashlib.sha256(common + repr(flags).encode())
        for name in sorted(files):
            state.update(name.encode() + b"\0" + files[name] + b"\0")
        mark = arguments.cache / state.hexdigest() if arguments.cache else None
        if mark and mark.exists():
            clean += 1
        else:
            todo.append((source, flags, mark))
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(tidy, source, flags) for source, flags, _ in todo]
        for (_, _, mark), run in zip(todo, runs):
            source, status, output = run.result()
            if status or output.strip():
                failed += 1
                print(f"lint: {source}:\n{output}", flush=True)
            elif mark:
                mark.touch()
    print(f"lint: {len(todo)} sources looked at, {clean} unchanged since they were clean, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
