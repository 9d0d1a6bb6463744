"""compute_topk and load_result: files in, a result file out, and back."""

import os
import pickle
import unittest

import numpy as np
from python_harness import PythonTest, random_rows

from tiny_knn import compute_topk, exact_search, load_result, merge_results


class ComputeTopk(PythonTest):
    def setUp(self):
        super().setUp()
        self.queries, self.docs = random_rows(9, 12, 1), random_rows(300, 12, 2)
        np.save("q.npy", self.queries)
        np.save("d.npy", self.docs)

    def test_the_file_holds_what_exact_search_finds(self):
        for arguments in ({}, {"metric": "cosine"}, {"metric": "l2", "exclude_self": True, "verify": 9}):
            path = compute_topk("q.npy", "d.npy", 11, out_path="o.pkl", threads=2, memory_limit=64 << 20, **arguments)
            arguments.pop("verify", None)
            result = load_result(path)
            self.assert_same_bits((result["indices"], result["scores"]), exact_search(self.queries, self.docs, 11, **arguments))
        path = compute_topk("q.npy", "d.npy", 3, "float64")
        result = load_result(path)
        self.assert_same_bits((result["indices"], result["scores"]), exact_search(self.queries, self.docs, 3, dtype="float64"))

    def test_paths_of_any_kind_and_any_bytes(self):
        name = os.fsdecode(b"q\xff\xfe.npy")
        np.save(name, self.queries)
        path = compute_topk(os.fsencode(name), self.folder / "d.npy", 2)
        self.assertEqual(path, os.fsdecode(b"top2_q\xff\xfe_x_d.pkl"))
        self.assertEqual(load_result(path)["queries_path"], name)
        self.assertEqual(load_result(os.fsencode(path))["docs_path"], str(self.folder / "d.npy"))

    def test_wrong_use_writes_nothing(self):
        before = self.files()
        for kind, says, arguments in (
            (ValueError, "k=0", {"k": 0}),
            (ValueError, "k=301 exceeds the number of docs D=300 in d.npy", {"k": 301}),
            (ValueError, "dtype expects one of", {"dtype_str": "float8"}),
            (ValueError, "batch_size=0", {"batch_size": 0}),
            (ValueError, "contradicts", {"force_cpu": True, "device": "cuda"}),
            (ValueError, "out_path is empty", {"out_path": ""}),
            (ValueError, "would overwrite the input", {"out_path": "d.npy"}),
            (ValueError, "verify=-1", {"verify": -1}),
            (FileNotFoundError, "none/o.pkl", {"out_path": "none/o.pkl"}),
            (ValueError, "is no file name", {"out_path": "."}),
            (ValueError, "out_path: has a null byte", {"out_path": "o.pkl\0x"}),
            (ValueError, "q_path: has a null byte", {"q_path": "q.npy\0x"}),
            (ValueError, "d_path is empty", {"d_path": b""}),
            (ValueError, "device: has a null byte", {"device": "cpu\0x"}),
            (TypeError, "verify expects a whole number, found '3'", {"verify": "3"}),
            (FileNotFoundError, "none.npy", {"q_path": "none.npy"}),
            (TypeError, "", {"batchsize": 3}),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(kind, says):
                compute_topk(**{"q_path": "q.npy", "d_path": "d.npy", "k": 5, **arguments})
        self.assertEqual(self.files(), before)

    def test_parts_are_merged_into_the_file_of_one_search(self):
        whole = compute_topk("q.npy", "d.npy", 7, metric="l2", exclude_self=True, out_path="whole.pkl")
        parts = [
            compute_topk("q.npy", "d.npy", 7, metric="l2", exclude_self=True, docs_range=part) for part in ((0, 3), (3, 299), (299, None))
        ]
        self.assertEqual(parts[1], "top7_q_x_d_3-299.pkl")
        part = load_result(parts[0])
        self.assertEqual([part[key] for key in ("k", "docs_begin", "docs_end", "num_docs", "k_wanted")], [3, 0, 3, 300, 7])
        self.assertIn("crc32", part["queries_fingerprint"])
        self.assertIs(part["exclude_self"], True)
        self.assertEqual(merge_results(parts[::-1], self.folder / "merged.pkl"), str(self.folder / "merged.pkl"))
        with open(whole, "rb") as a, open("merged.pkl", "rb") as b:
            self.assertEqual(a.read(), b.read())
        with self.assertRaisesRegex(ValueError, "docs 0:3 are missing"):
            merge_results(parts[1:], "refused.pkl")
        merge_results(parts[1:], "later.npz", partial=True)
        self.assertEqual(load_result("later.npz")["docs_begin"], 3)
        with self.assertRaisesRegex(ValueError, "whole.pkl: is no part"):
            merge_results([whole], "refused.pkl")
        with self.assertRaises(FileNotFoundError):
            merge_results(["none.pkl"], "refused.pkl")
        for wrong in ((3, 3), (-1, 4), (0, None), (5, 2)):
            with self.assertRaisesRegex(ValueError, "docs_range"):
                compute_topk("q.npy", "d.npy", 7, docs_range=wrong)
        with self.assertRaisesRegex(ValueError, "docs range 0:301 is not within"):
            compute_topk("q.npy", "d.npy", 7, docs_range=(0, 301))

    def test_docs_in_a_folder(self):
        os.mkdir("docs")
        for i, part in enumerate(np.array_split(self.docs, 12)):
            np.save(f"docs/{i}.npy", part)
        for docs in ("docs", "docs/*.npy"):
            result = load_result(compute_topk("q.npy", docs, 5))
            self.assert_same_bits((result["indices"], result["scores"]), exact_search(self.queries, self.docs, 5))
            self.assertEqual(result["docs_manifest"].splitlines()[10], "250\t275\t10.npy")
            self.assert_same_bits(exact_search(self.queries, docs, 5), exact_search(self.queries, self.docs, 5))

    def test_a_checkpoint_is_gone_when_the_result_is_there(self):
        expected = load_result(compute_topk("q.npy", "d.npy", 5))
        result = load_result(compute_topk("q.npy", "d.npy", 5, batch_size=2, checkpoint="run.ckpt", checkpoint_every=0, out_path="o.pkl"))
        self.assert_same_bits([result["indices"], result["scores"]], [expected["indices"], expected["scores"]])
        self.assertEqual(self.files(), ["d.npy", "o.pkl", "q.npy", "top5_q_x_d.pkl"])
        with open("run.ckpt", "w") as file:
            file.write("none")
        with self.assertRaisesRegex(ValueError, "run.ckpt: is no checkpoint"):
            compute_topk("q.npy", "d.npy", 5, checkpoint="run.ckpt")
        with self.assertRaisesRegex(ValueError, "checkpoint is empty"):
            compute_topk("q.npy", "d.npy", 5, checkpoint="")

    def test_a_full_disk_is_an_oserror(self):
        # A file may not grow beyond this here; the signal that says so is Python's to ignore.
        code = """
import resource, tiny_knn
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    tiny_knn.compute_topk("q.npy", "d.npy", 200)
except OSError as error:
    print(type(error).__name__, error.errno)
"""
        self.assertEqual(self.run_python(code), "OSError 27\n")
        self.assertEqual(self.files(), ["d.npy", "q.npy"])


class LoadResult(PythonTest):
    def test_keys_in_their_order(self):
        np.save("d.npy", np.eye(4, dtype=np.float32))
        result = load_result(compute_topk("d.npy", "d.npy", 2, batch_size=3))
        with open("top2_d_x_d.pkl", "rb") as file:
            expected = pickle.load(file)
        self.assertEqual(list(result), list(expected))
        for key, value in expected.items():
            if isinstance(value, np.ndarray):
                self.assert_same_bits([result[key]], [value])
                self.assertTrue(result[key].flags.owndata and result[key].flags.writeable)
            else:
                self.assertEqual(result[key], value)

    def test_a_result_of_the_original_tool(self):
        original = {
            "indices": np.arange(6).reshape(2, 3),
            "scores": np.ones((2, 3), np.float32),
            "queries_path": "q.npy",
            "docs_path": "d.npy",
            "k": 3,
            "batch_size": 512,
            "dtype": "float16",
            "device": "cuda",
        }
        with open("o.pkl", "wb") as file:
            pickle.dump(original, file)
        result = load_result("o.pkl")
        self.assertEqual(list(result), list(original))
        self.assertEqual(result["indices"].tolist(), [[0, 1, 2], [3, 4, 5]])

    def test_nothing_in_a_file_is_run(self):
        class Bomb:
            def __reduce__(self):
                return os.mkdir, ("owned",)

        with open("bomb.pkl", "wb") as file:
            pickle.dump({"indices": Bomb(), "scores": 1}, file)
        with self.assertRaisesRegex(ValueError, "bomb.pkl"):
            load_result("bomb.pkl")
        self.assertEqual(self.files(), ["bomb.pkl"])

    def test_what_is_no_result(self):
        with self.assertRaises(FileNotFoundError):
            load_result("none.pkl")
        with open("dict.pkl", "wb") as file:
            pickle.dump({"a": 1}, file)
        with self.assertRaisesRegex(ValueError, "indices"):
            load_result("dict.pkl")


if __name__ == "__main__":
    unittest.main()
