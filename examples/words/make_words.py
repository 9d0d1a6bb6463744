#!/usr/bin/python3
"""Makes this folder's data from the GloVe vectors of the most frequent words.

usage: make_words.py VECTORS.npy WORDS.txt [--rows 20000] [--out FOLDER]

VECTORS.npy is [words, dim], float32, most frequent word first; WORDS.txt has one word a line in the
same order. Written are, for the first ROWS words: docs.npy (float16, [rows, dim]) and words.txt, and
for the words of query_words.txt, which is kept by hand: queries.npy (float16, the rows of docs.npy).
"""

import argparse
import pathlib
import sys

import numpy


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Makes examples/words from GloVe vectors.")
    parser.add_argument("vectors", help="float32 .npy, most frequent word first")
    parser.add_argument("words", help="one word a line, in the same order")
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--out", type=pathlib.Path, default=here)
    arguments = parser.parse_args()

    vectors = numpy.load(arguments.vectors, mmap_mode="r")
    words = pathlib.Path(arguments.words).read_text(encoding="utf-8").split("\n")[: vectors.shape[0]]
    if vectors.ndim != 2 or len(words) < arguments.rows or vectors.shape[0] < arguments.rows:
        sys.exit(f"{arguments.vectors} and {arguments.words} hold fewer than {arguments.rows} words")

    docs = vectors[: arguments.rows].astype(numpy.float16)
    words = words[: arguments.rows]
    row_of = {word: row for row, word in enumerate(words)}
    query_words = (here / "query_words.txt").read_text(encoding="utf-8").split()
    unknown = [word for word in query_words if word not in row_of]
    if unknown:
        sys.exit(f"query_words.txt: not among the first {arguments.rows} words: {' '.join(unknown)}")

    numpy.save(arguments.out / "docs.npy", docs)
    numpy.save(arguments.out / "queries.npy", docs[[row_of[word] for word in query_words]])
    (arguments.out / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
