"""The terminal session in README.md, run again: the same commands print the same text.

A session is a ```console block. Its lines `$ tiny-knn ...` and `$ tools/tiny-knn ...` are run by a shell, in the
words example's folder, one after the other; `$` lines of other programs are not run. What follows a command is what it
printed, with standard error among it. Times, rates, the number of CPU threads, process ids, user names and where a
daemon keeps its things differ from machine to machine, and the plan's bytes of memory with its tuning: they are not
compared, and neither is the width of a table's columns. A command that printed "tiny-knn: error:" has to exit with 2, every other with 0.
"""

import difflib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

BINARY = pathlib.Path("cli/tiny-knn").absolute()
README = pathlib.Path("README.md")
WORDS = pathlib.Path("examples/words")

_VARYING = re.compile(r"\d[\d.]*(?: [kMG])?(?= ?(?:ms|s|queries/s|GB/s)\b)|\d+(?= CPU threads?)")
_DAEMON = [
    (re.compile(r"\(pid \d+\)"), "(pid #)"),
    (re.compile(r"/\S*/(daemon\.\w+|\w+\.pkl)"), r"\1"),
    # A row of `status`: ID USER ... REASON.
    (re.compile(r"^ *(\d+) +\S+ +(queued|running|done|failed|cancelled) ", re.MULTILINE), r"\1 USER \2 "),
    (re.compile(r"(?<=\S) {2,}(?=\S)"), " "),
    (re.compile(r"(?<=\d%) \S+ s\b"), " #"),
    (re.compile(r"memory limit \S+ \w+"), "memory limit #"),
    # Rows, or codes where the processor multiplies them faster.
    (re.compile(r"warm docs \S+ \w+"), "warm docs #"),
    (re.compile(r" -+(?=[ \n])"), " -"),
]
_MEMORY_LINE = re.compile(r"^memory .*", re.MULTILINE)
_BYTES = re.compile(r"\d[\d.]* [KMG]iB")


def comparable(text):
    for pattern, replacement in _DAEMON:
        text = pattern.sub(replacement, text)
    text = _MEMORY_LINE.sub(lambda line: _BYTES.sub("#", line[0]), _VARYING.sub("#", text.replace("CPU threads", "CPU thread")))
    return [line.rstrip() for line in text.strip().splitlines()]


def session():
    """Pairs of a command and what the README says it prints."""
    for block in re.findall(r"^```console\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            if match := re.match(r"(?:tools/)?tiny-knn (.*)", command):
                yield match.group(1), printed


class ReadmeSession(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for file in WORDS.iterdir():
            shutil.copyfile(file, self.folder / file.name)
        # Docs that have just been written are not kept warm: they might change unseen.
        newest = max(file.stat().st_ctime for file in self.folder.iterdir())
        time.sleep(max(0, newest + 2.1 - time.time()))
        # A socket's path is short, which the test's folder is not.
        daemon = tempfile.TemporaryDirectory(dir="/tmp", prefix="tk")
        self.addCleanup(daemon.cleanup)
        self.daemon_environment = {"TINY_KNN_SOCKET": f"{daemon.name}/s/daemon.sock", "TMPDIR": daemon.name}
        self.state_folder = f"{daemon.name}/state"
        # Whatever happened before it, a daemon that was started ends.
        self.addCleanup(self.run_again, "shutdown --now")

    def run_again(self, arguments):
        words = arguments.split()
        if words[0] == "demo":  # as tools/tiny-knn does
            arguments += f" --data {self.folder}"
        if words[0] == "daemon":
            arguments += f" --state-dir {self.state_folder}"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self.daemon_environment}
        return subprocess.run(
            f"exec {BINARY} {arguments}", shell=True, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)

    def test_every_command_prints_what_the_readme_says(self):
        commands = list(session())
        self.assertGreaterEqual(len(commands), 5, "the session was not found in README.md")
        for arguments, printed in commands:
            with self.subTest(command=arguments):
                done = self.run_again(arguments)
                found = done.stdout.decode()
                self.assertEqual(done.returncode, 2 if "tiny-knn: error:" in printed else 0, found)
                difference = difflib.unified_diff(
                    comparable(printed), comparable(found), "README.md", f"tiny-knn {arguments}", lineterm="")
                self.assertEqual("\n".join(difference), "", "README.md is not what the program prints now")

    def test_the_session_shows_a_search_an_error_and_a_result(self):
        text = "\n".join(f"{arguments}\n{printed}" for arguments, printed in session())
        for part in ("demo", "run ", "info ", "show ", "--dry-run", "tiny-knn: error:", "daemon --background", "submit ", "status"):
            self.assertIn(part, text)


if __name__ == "__main__":
    unittest.main()
