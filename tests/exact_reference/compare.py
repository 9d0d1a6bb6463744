#!/usr/bin/python3
"""Compares a result file with the correctly rounded answer, bit for bit.

usage: compare.py RESULT.pkl [--queries FIRST:END]

Reads the paths of queries and docs, k, dtype and metric from the result, searches again with numpy in
float64, and settles by exact integers (exact_reference.py) whatever float64 leaves in doubt. Works
through the queries in blocks: memory stays below 2 GB whatever their number. Prints one line and exits
with 1 at the first difference.
"""

import argparse
import pickle
import sys

import numpy as np

import exact_reference

# A pair's score in float64, in any order of summation, is off by at most this many half-ulps of
# |q||d| (ip), of itself (l2), or of 1 (cosine), for rows of n numbers.
_HALF_ULPS = {"ip": lambda n: n + 8, "l2": lambda n: n + 12, "cosine": lambda n: 2 * n + 16}
# The worst that flushed or rounded subnormals of float64 add, per number of a row.
_UNDERFLOW = 2.0**-1060


class _Docs:
    """The docs as working values, and what their screening needs."""

    def __init__(self, rows):
        self.rows = rows
        self.finite = np.isfinite(rows).all(axis=1)
        wide = np.where(self.finite[:, None], rows, 0).astype(np.float64)
        # Squares of float64 numbers may overflow or vanish; such rows are always settled exactly.
        with np.errstate(over="ignore"):
            self.squares = np.einsum("ij,ij->i", wide, wide)
        self.norms = np.sqrt(self.squares) * (1 + 2.0**-40)
        largest = np.abs(wide).max(axis=1)
        self.screened = self.finite & (largest < 2.0**400) & ((self.squares > 2.0**-800) | (largest == 0))
        self.wide = np.where(self.screened[:, None], wide, 0)


def _screen(query, docs, metric, dots):
    """Float64 bounds [low, high] on the real score of one query with every doc."""
    n = len(query)
    wide = query.astype(np.float64)
    square = float(np.dot(wide, wide))
    if metric == "ip":
        value, error = dots, docs.norms * np.sqrt(square) * (1 + 2.0**-40)
    elif metric == "cosine":
        product = square * docs.squares
        value = np.divide(dots, np.sqrt(product), out=np.zeros_like(dots), where=product > 0)
        error = (product > 0).astype(np.float64)
    else:
        difference = docs.wide - wide
        value = -np.einsum("ij,ij->i", difference, difference)
        error = -value
    error = error * (_HALF_ULPS[metric](n) * 2.0**-53 * 1.01) + n * _UNDERFLOW
    unknown = ~docs.screened
    return np.where(unknown, -np.inf, value - error), np.where(unknown, np.inf, value + error)


def _top_of_query(query, docs, k, metric, score_type, dots):
    """The best k of one query: indices and correctly rounded scores."""
    wide = query.astype(np.float64)
    hard = not np.isfinite(wide).all() or (0 < np.abs(wide).max() and not 2.0**-400 < np.abs(wide).max() < 2.0**400)
    if hard:
        low, high = np.full(len(docs.rows), -np.inf), np.full(len(docs.rows), np.inf)
    else:
        low, high = _screen(query, docs, metric, dots)
    with np.errstate(over="ignore"):
        low, high = low.astype(score_type), high.astype(score_type)
    # Rounding is monotone: a doc whose rounded upper bound is below k rounded lower bounds is out.
    threshold = np.partition(low, len(low) - k)[len(low) - k]
    candidates = np.flatnonzero(high >= threshold)
    scores = low[candidates] + score_type(0)  # -0 becomes +0
    for position in np.flatnonzero(low[candidates] != high[candidates]):
        doc = candidates[position]
        scores[position] = exact_reference.score(query, docs.rows[doc], metric, score_type)
    best = exact_reference.rank(scores, candidates, k)
    return candidates[best], exact_reference.quiet_nan(scores[best])


def _read(path, dtype):
    rows = np.load(path, mmap_mode="r")
    if rows.dtype == np.dtype("V2"):  # raw two-byte data is bfloat16 here
        rows = (np.array(rows).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return exact_reference.round_to_dtype(np.asarray(rows), dtype)


def first_difference(result, first=0, end=None, block=64):
    """None if queries [first, end) of the result are right, else a sentence about the first that is not."""
    score_type = exact_reference.score_type_of(result["dtype"])
    metric, k = result.get("metric", "ip"), result["k"]
    queries = _read(result["queries_path"], result["dtype"])
    docs = _Docs(_read(result["docs_path"], result["dtype"]))
    end = len(queries) if end is None else min(end, len(queries))
    if result["scores"].dtype != score_type or result["indices"].dtype != np.int64:
        return f"indices are {result['indices'].dtype} and scores {result['scores'].dtype}"
    if result["scores"].shape != (len(queries), k) or result["indices"].shape != (len(queries), k):
        return f"shapes are {result['indices'].shape} and {result['scores'].shape}, expected {(len(queries), k)}"
    bits = np.uint64 if score_type == np.float64 else np.uint32
    for begin in range(first, end, block):
        rows = queries[begin : min(begin + block, end)]
        with np.errstate(over="ignore", invalid="ignore"):
            dots = np.where(np.isfinite(rows), rows, 0).astype(np.float64) @ docs.wide.T
        for i, query in enumerate(rows):
            indices, scores = _top_of_query(query, docs, k, metric, score_type, dots[i])
            found_indices, found_scores = result["indices"][begin + i], result["scores"][begin + i]
            wrong = np.flatnonzero((indices != found_indices) | (scores.view(bits) != found_scores.view(bits)))
            if len(wrong):
                at = wrong[0]
                return (
                    f"query {begin + i}, rank {at}: expected doc {indices[at]} score {scores[at]!r}, "
                    f"found doc {found_indices[at]} score {found_scores[at]!r}; {len(wrong)} ranks of this query differ"
                )
    return None


def main():
    parser = argparse.ArgumentParser(description="Compare a result file with the correctly rounded answer.")
    parser.add_argument("result")
    parser.add_argument("--queries", default=":", help="FIRST:END, only these (default: all)")
    arguments = parser.parse_args()
    with open(arguments.result, "rb") as file:
        result = pickle.load(file)
    first, end = (int(text) if text else None for text in arguments.queries.split(":"))
    difference = first_difference(result, first or 0, end)
    if difference:
        sys.exit(f"{arguments.result}: {difference}")
    print(f"{arguments.result}: every index and score is right, bit for bit (k={result['k']}, {result['dtype']})")


if __name__ == "__main__":
    main()
