"""Exact top-k search over embeddings.

For every query, the k docs with the greatest inner product, cosine or smallest Euclidean distance: all of them, exactly.
Every score is the true real number rounded once; equal scores rank by the lower index; results are the same bits for any
number of threads, any memory limit and any machine.

    exact_search(queries, docs, k)           arrays or .npy files in, arrays out
    Corpus(docs).search(queries, k)          the same docs again and again, kept prepared
    compute_topk(q_path, d_path, k)          .npy files in, a result file out
    merge_results(paths, out_path)           parts, of ranges of the docs, into one result
    load_result(path)                        what such a file holds, read without running anything in it
    submit(q_path, d_path, k)                the same in the queue of `tiny-knn daemon`

Errors are ValueError (wrong use, or a file that is not what it should be), OSError and its kind (files), MemoryError and
RuntimeError, with one line that says what, where and what to do. Ctrl-C ends a search within a moment with
KeyboardInterrupt and leaves no file behind. Searches let other Python threads run; any number may search at once.
"""

from ._capi import version as _version
from ._daemon import Job, submit
from ._files import compute_topk, load_result, merge_results
from ._search import Corpus, TopK, exact_search

__version__ = _version()
__all__ = ["Corpus", "Job", "TopK", "compute_topk", "exact_search", "load_result", "merge_results", "submit"]
