"""The closing line counts cases, and a test that left no result counts as a failure."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import test_summary

_TWO_PASS_ONE_SKIPS = """<testsuites><testsuite>
<testcase name="a" status="run" result="completed"/>
<testcase name="b" status="run" result="completed"/>
<testcase name="c" status="run" result="skipped"><skipped message="no AVX"/></testcase>
<testcase name="d" status="notrun" result="suppressed"/></testsuite></testsuites>"""
_ONE_FAILS = """<testsuites><testsuite><testcase name="a" status="run" result="completed"/>
<testcase name="b" status="run" result="completed"><failure message="x"/></testcase></testsuite></testsuites>"""


class TestSummaryTest(unittest.TestCase):
    def summarise(self, tests, bazel_status=0):
        """Returns (exit status, lines) for {label: (status, XML or None)}."""
        with tempfile.TemporaryDirectory() as folder:
            events = []
            for number, (label, (status, xml)) in enumerate(tests.items()):
                events.append({"id": {"targetConfigured": {"label": label}},
                               "configured": {"testSize": "SMALL"}})
                if status == "NOT_BUILT":
                    continue
                outputs = []
                if xml is not None:
                    path = pathlib.Path(folder) / f"{number}.xml"
                    path.write_text(xml, encoding="utf-8")
                    outputs = [{"name": "test.xml", "uri": path.as_uri()}]
                identity = {"label": label, "run": 1, "shard": 1, "attempt": 1}
                events.append({"id": {"testResult": identity},
                               "testResult": {"testActionOutput": outputs, "status": status}})
                events.append({"id": {"testSummary": {"label": label}},
                               "testSummary": {"overallStatus": status}})
            stream = pathlib.Path(folder) / "events.json"
            stream.write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
            output = io.StringIO()
            sys.argv = ["test_summary.py", str(stream), str(bazel_status)]
            with contextlib.redirect_stdout(output):
                status = test_summary.main()
            return status, output.getvalue().splitlines()

    def test_cases_of_all_programs_are_added_and_skipped_ones_are_named(self):
        status, lines = self.summarise({"//a": ("PASSED", _TWO_PASS_ONE_SKIPS),
                                        "//b": ("PASSED", _TWO_PASS_ONE_SKIPS)})
        self.assertEqual(status, 0)
        self.assertEqual(lines[-1], "4 passed, 0 failed, 2 skipped")
        self.assertEqual(lines[0], "skipped cases: //a (1), //b (1)")

    def test_a_failed_case_is_counted_once(self):
        status, lines = self.summarise({"//a": ("FAILED", _ONE_FAILS)}, bazel_status=3)
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed"))

    def test_a_crash_without_a_result_counts_as_one_failure(self):
        status, lines = self.summarise({"//a": ("FAILED", None)}, bazel_status=3)
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))

    def test_a_half_written_result_counts_as_one_failure(self):
        status, lines = self.summarise({"//a": ("TIMEOUT", _ONE_FAILS[:60])}, bazel_status=3)
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))

    def test_a_test_that_was_not_built_counts_as_one_failure(self):
        status, lines = self.summarise({"//a": ("PASSED", _TWO_PASS_ONE_SKIPS),
                                        "//b": ("NOT_BUILT", None)}, bazel_status=1)
        self.assertEqual((status, lines[-1]), (1, "2 passed, 1 failed, 1 skipped"))

    def test_a_build_that_failed_is_not_a_success(self):
        status, lines = self.summarise({"//a": ("PASSED", _TWO_PASS_ONE_SKIPS)}, bazel_status=1)
        self.assertEqual((status, lines[-1]), (1, "2 passed, 1 failed, 1 skipped"))

    def test_no_test_is_not_a_success(self):
        status, lines = self.summarise({})
        self.assertEqual((status, lines[-1]), (1, "0 passed, 0 failed"))


if __name__ == "__main__":
    unittest.main()
