"""What the program writes, against the second oracle, bit for bit, on small hard files."""

import fractions
import math
import random
import sys
import unittest

import numpy as np

sys.path.insert(0, "tests/support")
import exact_reference
from tiny_knn_testing import TestCase, save_bfloat16

METRICS = ("ip", "cosine", "l2")
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
MANTISSA_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
TINIEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
LARGEST = {"float64": sys.float_info.max, "float32": (2 - 2.0**-23) * 2.0**127, "float16": 65504.0, "bfloat16": 255 * 2.0**120}


def near_ties(random_state, dtype):
    base = random_state.uniform(0.5, 1, 16)
    docs = np.tile(np.round(base * 2.0 ** MANTISSA_BITS[dtype]) / 2.0 ** MANTISSA_BITS[dtype], (48, 1))
    for i in range(len(docs)):
        docs[i, i % 16] += random_state.integers(-2, 3) * 2.0 ** (-1 - MANTISSA_BITS[dtype])
    return random_state.uniform(0.5, 1, (3, 16)), docs


def subnormals(random_state, dtype):
    docs = random_state.integers(-50, 51, (48, 9)) * TINIEST[dtype]
    return random_state.integers(-3, 4, (4, 9)).astype(float), docs


def largest_values(random_state, dtype):
    docs = random_state.choice([1, -1, 0.5, 0], (40, 5)) * LARGEST[dtype]
    return random_state.choice([1.0, -1.0, 2.0, 0.5], (4, 5)), docs


def wide_range(random_state, dtype):
    low = {"float64": -500, "float32": -60, "float16": -10, "bfloat16": -60}[dtype]
    shape = lambda rows: np.ldexp(random_state.uniform(-1, 1, (rows, 12)), random_state.integers(low, -low, (rows, 12)))
    return shape(3), shape(40)


def cancellation(random_state, dtype):
    docs = random_state.uniform(-100, 100, (40, 11))
    docs[:, 1:10:2] = -docs[:, 0:9:2]
    docs[:, 10] = random_state.integers(-2, 3, 40) * 2.0**-14
    return np.repeat(random_state.uniform(-100, 100, (3, 6)), 2, axis=1)[:, :11], docs


def non_finite(random_state, dtype):
    docs = random_state.uniform(-1, 1, (40, 7))
    docs[::5, 2] = np.nan
    docs[1::5, 3] = np.inf
    docs[2::7, 4] = -np.inf
    queries = random_state.uniform(-1, 1, (5, 7))
    queries[1, 0], queries[2, 3], queries[3, 5] = np.nan, 0, np.inf
    return queries, docs


def zeros_and_ties(random_state, dtype):
    return random_state.choice([0.0, -0.0, 1.0, -1.0], (4, 6)), random_state.choice([0.0, -0.0, 1.0, -1.0], (50, 6))


def midpoints(random_state, dtype):
    docs = np.zeros((48, 3))
    docs[:, 0] = 1 + random_state.integers(0, 4, 48) * 2.0 ** -MANTISSA_BITS[dtype]
    docs[:, 1] = random_state.integers(-1, 2, 48) * 2.0**-12
    docs[:, 2] = random_state.integers(-1, 2, 48) * 2.0**-14
    return np.array([[1, 2.0**-12, 2.0**-14], [-1, 2.0**-12, 0], [0, 0, 0]]), docs


def norms_of_every_size(random_state, dtype):
    directions = random_state.uniform(-1, 1, (6, 8))
    docs = directions[random_state.integers(0, 6, 48)] * np.ldexp(1.0, random_state.integers(-8, 9, (48, 1)))
    return directions[:3], docs


SCENARIOS = (near_ties, subnormals, largest_values, wide_range, cancellation, non_finite, zeros_and_ties, midpoints,
             norms_of_every_size)


class ReferenceItself(unittest.TestCase):
    """The second oracle against arithmetic that it does not use."""

    def test_rounding_to_float64_equals_python_division(self):
        generator = random.Random(1)
        for _ in range(5000):
            top, bottom = generator.getrandbits(300), generator.getrandbits(generator.randrange(1, 400)) + 1
            self.assertEqual(exact_reference.round_fraction(fractions.Fraction(top, bottom), np.float64), top / bottom)

    def test_rounding_to_float32_equals_numpy(self):
        state = np.random.default_rng(2)
        values = np.ldexp(state.uniform(-1, 1, 5000), state.integers(-160, 131, 5000))
        with np.errstate(over="ignore"):
            expected = values.astype(np.float32)
        for value, nearest in zip(values, expected):
            self.assertEqual(exact_reference.round_fraction(fractions.Fraction(value), np.float32), nearest)

    def test_dot_equals_fsum_when_products_are_exact(self):
        state = np.random.default_rng(3)
        for _ in range(500):
            q, d = state.standard_normal((2, 40)).astype(np.float32).astype(np.float64)
            self.assertEqual(exact_reference.score(q, d, "ip", np.float64), math.fsum(q * d))

    def test_square_root_rounds_like_a_correctly_rounded_one(self):
        state = np.random.default_rng(4)
        for value in state.uniform(0, 1e6, 2000):
            self.assertEqual(exact_reference.round_square_root(1, fractions.Fraction(value), np.float64), math.sqrt(value))

    def test_bfloat16_rounds_once(self):
        just_above_midpoint = 1 + 2.0**-8 + 2.0**-40  # through float32 it would be the midpoint
        rounded = exact_reference.round_to_bfloat16(np.array([1 + 2.0**-8, just_above_midpoint, 3.4e38]))
        self.assertEqual(rounded.tolist(), [1.0, 1 + 2.0**-7, math.inf])


class ProgramEqualsReference(TestCase):
    def store(self, name, values, dtype):
        """Saves float64 values as `dtype`; returns the path and the values as the file holds them."""
        with np.errstate(over="ignore"):
            if dtype == "bfloat16":
                held = exact_reference.round_to_bfloat16(values)
                save_bfloat16(self.path(name), held)
                return self.path(name), held
            if dtype in INTEGERS:
                held = np.clip(np.nan_to_num(np.rint(values)), max(-100, np.iinfo(dtype).min), 100).astype(dtype)
            else:
                held = values.astype(dtype)
        return self.save(name, held), held

    def check(self, what, queries, docs, k, metric, compute, *flags):
        """`queries` and `docs` are pairs of a path and the values there."""
        expected = exact_reference.top_k(queries[1], docs[1], k, metric, compute, "--exclude-self" in flags)
        found = self.search(queries[0], docs[0], "--k", k, "--metric", metric, "--dtype", compute, *flags)
        self.assert_same_bits(expected, found, what)

    def test_every_file_dtype_in_every_compute_dtype(self):
        state = np.random.default_rng(5)
        checked = 0
        for file_dtype in (*FLOATS, *INTEGERS, "bool"):
            for compute in (*FLOATS, *INTEGERS):
                if file_dtype in FLOATS and compute in INTEGERS:
                    continue
                with self.subTest(file=file_dtype, compute=compute):
                    if file_dtype == "bool":
                        make = lambda name, rows: (lambda a: (self.save(name, a), a))(state.integers(0, 2, (rows, 13)).astype(bool))
                    elif file_dtype in INTEGERS:
                        make = lambda name, rows: self.store(name, state.integers(0, 101, (rows, 13)).astype(float), file_dtype)
                    else:
                        make = lambda name, rows: self.store(name, state.standard_normal((rows, 13)), file_dtype)
                    queries, docs = make("q.npy", 3), make("d.npy", 40)
                    flags = ("--input-dtype", "bfloat16") if file_dtype == "bfloat16" else ()
                    self.check(f"{file_dtype} in {compute}", queries, docs, 7, METRICS[checked % 3], compute, *flags)
                    checked += 1
        self.assertEqual(checked, 4 * 4 + 6 * 9)

    def test_hard_floating_point_values(self):
        for scenario in SCENARIOS:
            for dtype in FLOATS:
                state = np.random.default_rng(sum(map(ord, scenario.__name__ + dtype)))
                values = scenario(state, dtype)
                queries, docs = self.store("q.npy", values[0], dtype), self.store("d.npy", values[1], dtype)
                flags = ("--input-dtype", "bfloat16") if dtype == "bfloat16" else ()
                for metric in METRICS:
                    with self.subTest(scenario=scenario.__name__, dtype=dtype, metric=metric):
                        self.check(f"{scenario.__name__} {dtype} {metric}", queries, docs, 12, metric, dtype, *flags)

    def test_wide_files_narrowed_once(self):
        """float64 files whose values lie just beside midpoints of the compute dtype."""
        state = np.random.default_rng(6)
        for compute in ("float32", "float16", "bfloat16"):
            half_ulp = 2.0 ** -(MANTISSA_BITS[compute] + 1)
            shift = state.choice([0, 2.0**-50, -(2.0**-50)], (43, 8))
            values = 1 + state.integers(0, 8, (43, 8)) * half_ulp + shift
            values[::4] *= TINIEST[compute]
            values[1::4] *= LARGEST[compute] / 2
            queries, docs = self.store("q.npy", values[:3], "float64"), self.store("d.npy", values[3:], "float64")
            for metric in METRICS:
                with self.subTest(compute=compute, metric=metric):
                    self.check(f"float64 to {compute} {metric}", queries, docs, 20, metric, compute)

    def test_wide_integers_round_once(self):
        state = np.random.default_rng(7)
        for file_dtype, top in (("int32", 2**31), ("int64", 2**62)):
            values = state.integers(-top, top, (43, 9)).astype(file_dtype)
            values[::3] = 2**24 + 2 * state.integers(0, 4, values[::3].shape) + 1
            queries, docs = (self.save("q.npy", values[:3]), values[:3]), (self.save("d.npy", values[3:]), values[3:])
            for compute in (file_dtype, *FLOATS):
                for metric in METRICS:
                    with self.subTest(file=file_dtype, compute=compute, metric=metric):
                        self.check(f"{file_dtype} in {compute} {metric}", queries, docs, 15, metric, compute)

    def test_sums_of_bytes_beyond_float32(self):
        state = np.random.default_rng(8)
        values = (255 - state.integers(0, 2, (44, 400))).astype(np.uint8)  # dots near 2.6e7
        queries, docs = (self.save("q.npy", values[:4]), values[:4]), (self.save("d.npy", values[4:]), values[4:])
        for metric in METRICS:
            with self.subTest(metric=metric):
                self.check(f"uint8 {metric}", queries, docs, 40, metric, "uint8")

    def test_excluded_self(self):
        state = np.random.default_rng(9)
        rows = state.standard_normal((30, 6)).astype(np.float32)
        rows[10:20] = rows[:10]
        file = (self.save("rows.npy", rows), rows)
        for metric in METRICS:
            for k in (1, 5, 29):
                with self.subTest(metric=metric, k=k):
                    self.check(f"exclude self {metric} k={k}", file, file, k, metric, "float32", "--exclude-self")


if __name__ == "__main__":
    unittest.main()
