"""A second oracle, in Python integers: the contract of core/search/search.h once more, written
independently of the C++ one. Slow and plain; every number is a ratio of integers until it is
rounded, once, to the score's format."""

import math
from fractions import Fraction

import numpy as np

# significand bits (the hidden one included), least exponent, greatest exponent
_FORMATS = {np.float32: (24, -126, 127), np.float64: (53, -1022, 1023)}


def round_fraction(value, score_type):
    """A Fraction rounded to the nearest number of `score_type`, ties to even; overflow gives an infinity."""
    precision, least, greatest = _FORMATS[score_type]
    if value == 0:
        return score_type(0.0)
    magnitude = abs(value)
    # The exponent e with 2^e <= magnitude < 2^(e+1).
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = max(exponent, least) - (precision - 1)
    scaled = magnitude / Fraction(2) ** unit
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    if twice > scaled.denominator or (twice == scaled.denominator and whole % 2 == 1):
        whole += 1
    if whole.bit_length() + unit - 1 > greatest:
        result = math.inf
    else:
        result = math.ldexp(whole, unit)  # exact: whole has at most `precision` bits
    return score_type(math.copysign(result, 1 if value > 0 else -1)) if result else score_type(0.0)


def round_square_root(sign, square, score_type):
    """sign * sqrt(square), `square` a Fraction, rounded once to `score_type`."""
    if square == 0:
        return score_type(0.0)
    # An integer root of 160 bits or more, and whether anything is left: that decides every midpoint.
    shift = max(0, 320 - (square.numerator.bit_length() - square.denominator.bit_length()))
    shift += shift % 2
    scaled, rest = divmod(square.numerator << shift, square.denominator)
    root = math.isqrt(scaled)
    inexact = rest != 0 or root * root != scaled
    # Twice the root and a sticky last bit stand for the true value: they round alike.
    return round_fraction(sign * Fraction(2 * root + inexact, 1 << (shift // 2 + 1)), score_type)


def _integers(row):
    """A row of finite numbers as integers, and the power of two they all were multiplied by."""
    ratios = [float(value).as_integer_ratio() for value in row]
    scale = max(denominator for _, denominator in ratios)
    return [numerator * (scale // denominator) for numerator, denominator in ratios], scale


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def _infinite_sum(terms):
    """The sum of floating-point terms of which some are not finite."""
    terms = [t for t in terms if not math.isfinite(t)]
    if any(math.isnan(t) for t in terms) or (math.inf in terms and -math.inf in terms):
        return math.nan
    return terms[0]


def score(query, doc, metric, score_type):
    """The score of one pair of rows of working values (float32 or float64 numbers)."""
    if not (np.isfinite(query).all() and np.isfinite(doc).all()):
        if metric == "cosine":
            return score_type(math.nan)
        q, d = [float(x) for x in query], [float(x) for x in doc]
        if metric == "ip":
            # Python's float product of two finite numbers may overflow: those count as finite.
            terms = [a * b if not (math.isfinite(a) and math.isfinite(b)) else 0.0 for a, b in zip(q, d)]
        else:
            terms = [-((a - b) ** 2) if not (math.isfinite(a) and math.isfinite(b)) else 0.0 for a, b in zip(q, d)]
        return score_type(_infinite_sum(terms))
    both, scale = _integers([*query, *doc])
    q, d = both[: len(query)], both[len(query) :]
    if metric == "ip":
        return round_fraction(Fraction(_dot(q, d), scale * scale), score_type)
    if metric == "l2":
        differences = [x - y for x, y in zip(q, d)]
        return round_fraction(Fraction(-_dot(differences, differences), scale * scale), score_type)
    dot, norms = _dot(q, d), _dot(q, q) * _dot(d, d)
    if dot == 0 or norms == 0:
        return score_type(0.0)
    return round_square_root(1 if dot > 0 else -1, Fraction(dot * dot, norms), score_type)


def round_to_dtype(values, dtype):
    """Values of a file as what a search computes with: rounded once to the compute dtype `dtype` (a
    name), then held as float32, or float64 for float64."""
    if dtype == "float64":
        return values.astype(np.float64)
    if dtype in ("int8", "uint8", "int16", "int32", "int64"):
        return values.astype(dtype).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "float32":
            return values.astype(np.float32)
        # int64 beyond 2^53 would be rounded on its way to float64. Both float16 and bfloat16 round
        # it to the same number if the bits below the first 53 only say whether any of them is set.
        if values.dtype == np.int64:
            values = np.where(np.abs(values.astype(np.float64)) < 2.0**53, values, (values & -2048) | (((values & 2047) != 0) << 11))
        wide = values.astype(np.float64)
        if dtype == "float16":
            return wide.astype(np.float16).astype(np.float32)
        return round_to_bfloat16(wide).astype(np.float32)


def round_to_bfloat16(wide):
    """float64 values rounded once to bfloat16, as float64."""
    _, exponent = np.frexp(wide)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, -126) - 7)
    with np.errstate(invalid="ignore"):
        rounded = np.rint(wide / unit) * unit
    rounded = np.where(np.abs(rounded) > np.ldexp(255.0, 120), np.copysign(np.inf, wide), rounded)
    return np.where(np.isfinite(wide), rounded, wide)


def score_type_of(dtype):
    return np.float64 if dtype == "float64" else np.float32


def quiet_nan(scores):
    """Every NaN as the one quiet NaN that results hold."""
    one_nan = np.array([0x7FF8000000000000], np.uint64).view(np.float64)[0]
    if scores.dtype == np.float32:
        one_nan = np.array([0x7FC00000], np.uint32).view(np.float32)[0]
    scores[np.isnan(scores)] = one_nan
    return scores


def rank(scores, indices, k):
    """Positions of the best k: score descending, index ascending, NaN last."""
    worst_last = np.where(np.isnan(scores), 0.0, -scores)
    return np.lexsort((indices, worst_last, np.isnan(scores)))[:k]


def top_k(queries, docs, k, metric, dtype, exclude_self=False):
    """The result for two matrices as their files hold them: a dict of indices and scores."""
    score_type = score_type_of(dtype)
    query_rows, doc_rows = round_to_dtype(queries, dtype), round_to_dtype(docs, dtype)
    indices = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), score_type)
    for i, query in enumerate(query_rows):
        row = np.array([score(query, doc, metric, score_type) for doc in doc_rows], score_type)
        eligible = np.array([j for j in range(len(docs)) if not (exclude_self and i == j)])
        best = eligible[rank(row[eligible], eligible, k)]
        indices[i], scores[i] = best, row[best]
    return {"indices": indices, "scores": quiet_nan(scores)}
