#!/usr/bin/python3
"""Counts the test cases of one `bazel test` and prints "N passed, N failed" as the last line.

usage: test_summary.py BUILD_EVENTS_JSON BAZEL_EXIT_STATUS

The cases come from the test.xml of every run, shard and attempt's last try; a target that did not
pass and whose XML shows no failure (a crash, a time limit, a build error) counts as one failure.
Exits 1 if anything failed or nothing ran.
"""

import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree


def count_cases(path):
    """Returns (passed, failed, skipped, not_run_here) of one test.xml."""
    passed = failed = skipped = 0
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        if case.get("status") == "notrun":
            continue  # Disabled, or the case of another shard.
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    events_path, bazel_status = sys.argv[1], int(sys.argv[2])
    xml_of = {}  # (label, run, shard) -> (attempt, path of test.xml)
    status_of = {}  # label -> PASSED, FAILED, ...
    with open(events_path, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            identity = event.get("id", {})
            if "targetConfigured" in identity and "testSize" in event.get("configured", {}):
                # Stays so for a test that is not built.
                status_of.setdefault(identity["targetConfigured"]["label"], "NOT_BUILT")
            elif "testResult" in identity and "testResult" in event:
                test = identity["testResult"]
                key = (test["label"], test.get("run", 1), test.get("shard", 1))
                attempt = test.get("attempt", 1)
                for output in event["testResult"].get("testActionOutput", []):
                    if output["name"] != "test.xml" or attempt < xml_of.get(key, (0,))[0]:
                        continue
                    uri = urllib.parse.urlparse(output.get("uri", ""))
                    xml_of[key] = (attempt, urllib.parse.unquote(uri.path))
            elif "testSummary" in identity and "testSummary" in event:
                label = identity["testSummary"]["label"]
                status_of[label] = event["testSummary"].get("overallStatus", "NO_STATUS")

    passed = failed = skipped = 0
    skipped_in = []
    for label, status in sorted(status_of.items()):
        label_failed = 0
        for (owner, _, _), (_, path) in sorted(xml_of.items()):
            if owner != label or not os.path.exists(path):
                continue
            try:
                counts = count_cases(path)
            except xml.etree.ElementTree.ParseError:
                counts = (0, 0, 0)  # A test that was killed while it wrote; its status says failed.
            passed += counts[0]
            label_failed += counts[1]
            skipped += counts[2]
            if counts[2]:
                skipped_in.append(f"{label} ({counts[2]})")
        if status not in ("PASSED", "FLAKY") and not label_failed:
            label_failed = 1
        failed += label_failed
        if label_failed:
            print(f"failed: {label} ({status.lower().replace('_', ' ')}; counted as {label_failed})")
    if bazel_status and not failed:
        failed = 1
        print(f"failed: the build (bazel's exit status is {bazel_status}, see above)")
    if skipped_in:
        print("skipped cases: " + ", ".join(skipped_in))
    programs = sum(status != "NOT_BUILT" for status in status_of.values())
    print(f"{programs} test programs ran" if programs else "no test ran")
    closing = f"{passed} passed, {failed} failed"
    print(closing + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
