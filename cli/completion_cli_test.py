"""What the Tab key offers: the scripts of `tiny-knn completion`, run by the shells themselves."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
import unittest

import cli_harness
from cli_harness import BINARY, CliTest

# Sets COMP_WORDS as bash would, whose COMP_WORDBREAKS part words at '=', and prints COMPREPLY.
_ASK_BASH = r"""
source "$1" || exit
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_tiny_knn "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0
"""


def commands():
    text = subprocess.run([BINARY, "help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"^  (\w+)  +\S", text, re.MULTILINE)


def flags_of(command):
    text = subprocess.run([BINARY, "help", command], stdout=subprocess.PIPE, text=True, check=True).stdout
    flags = {"--help", "-h"}
    for line in text.splitlines():
        if match := re.match(r"\s+(-\w, +)?--[\w-]+", line):
            flags |= set(re.findall(r"--?[A-Za-z][\w-]*", match.group()))
    return flags


class BashTest(CliTest):
    def setUp(self):
        super().setUp()
        self.script = self.folder / "completion.bash"
        self.script.write_text(self.run_ok("completion", "bash").stdout)
        (self.folder / "results").mkdir()
        (self.folder / "o.pkl").touch()
        (self.folder / "o.npz").touch()
        (self.folder / "a name.npy").touch()
        (self.folder / "notes.txt").touch()

    def offers(self, *words, env=None):
        """What completes the last of `words`; an empty one is a blank before the cursor."""
        done = subprocess.run(
            ["bash", "--norc", "-c", _ASK_BASH, "bash", self.script, *words],
            cwd=self.folder,
            env=env or self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def test_the_script_is_accepted_and_names_its_function(self):
        done = subprocess.run(
            ["bash", "--norc", "-uc", 'source "$1" && complete -p tiny-knn', "bash", self.script],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.assertEqual(done.stdout, "complete -F _tiny_knn tiny-knn\n")

    def test_commands_and_files_come_first(self):
        offered = self.offers("tiny-knn", "")
        for word in [*commands(), "q.npy", "d.npy", "results", "a name.npy"]:
            self.assertIn(word, offered)
        for word in ["worker", "notes.txt", "o.npz", "o.pkl"]:
            self.assertNotIn(word, offered)
        self.assertEqual(self.offers("tiny-knn", "su"), ["submit"])
        self.assertEqual(self.offers("tiny-knn", "--v"), ["--version"])

    def test_every_flag_of_every_command(self):
        self.assertIn("submit", commands())
        for command in commands():
            with self.subTest(command=command):
                self.assertEqual(set(self.offers("tiny-knn", command, "-")), flags_of(command))

    def test_values_of_flags(self):
        self.assertEqual(self.offers("tiny-knn", "run", "--metric", ""), ["ip", "cosine", "l2"])
        self.assertEqual(self.offers("tiny-knn", "submit", "q.npy", "--device", "cu"), ["cuda"])
        self.assertEqual(self.offers("tiny-knn", "daemon", "--device", ""), ["auto", "cpu", "cuda"])
        self.assertEqual(self.offers("tiny-knn", "run", "--progress", "j"), ["json"])
        self.assertIn("bfloat16", self.offers("tiny-knn", "run", "--dtype", ""))
        self.assertNotIn("bool", self.offers("tiny-knn", "run", "--dtype", ""))
        self.assertIn("bool", self.offers("tiny-knn", "info", "--input-dtype", ""))
        self.assertEqual(self.offers("tiny-knn", "run", "--k", ""), [])
        self.assertEqual(self.offers("tiny-knn", "run", "-k", ""), [])
        self.assertEqual(self.offers("tiny-knn", "daemon", "--state-dir", ""), ["results"])
        self.assertIn("notes.txt", self.offers("tiny-knn", "submit", "--spec", ""))

    def test_values_behind_an_equals_sign(self):
        self.assertEqual(self.offers("tiny-knn", "run", "--metric", "="), ["ip", "cosine", "l2"])
        self.assertEqual(self.offers("tiny-knn", "run", "--metric", "=", "c"), ["cosine"])

    def test_arguments_are_the_files_that_the_command_reads(self):
        self.assertEqual(self.offers("tiny-knn", "run", ""), ["a name.npy", "d.npy", "q.npy", "results"])
        self.assertEqual(self.offers("tiny-knn", "submit", "q.npy", "d"), ["d.npy"])
        self.assertEqual(self.offers("tiny-knn", "show", ""), ["o.npz", "o.pkl", "results"])
        self.assertEqual(self.offers("tiny-knn", "eval", "o.npz", ""), ["o.npz", "o.pkl", "results"])
        self.assertIn("--json", self.offers("tiny-knn", "eval", "--j"))
        self.assertEqual(self.offers("tiny-knn", "merge", "o.npz", "o.pkl", ""), ["o.npz", "o.pkl", "results"])
        self.assertIn("--partial", self.offers("tiny-knn", "merge", "--p"))
        self.assertIn("o.npz", self.offers("tiny-knn", "info", ""))
        self.assertIn("o.pkl", self.offers("tiny-knn", "info", ""))
        self.assertEqual(self.offers("tiny-knn", "clean", ""), [])
        self.assertEqual(self.offers("tiny-knn", "completion", ""), ["bash", "zsh"])
        self.assertEqual(self.offers("tiny-knn", "help", "sh"), ["show", "shutdown"])

    def test_the_form_without_a_command_is_run(self):
        self.assertEqual(self.offers("tiny-knn", "q.npy", "d"), ["d.npy"])
        self.assertEqual(self.offers("tiny-knn", "q.npy", "--metr"), ["--metric"])
        self.assertEqual(self.offers("tiny-knn", "q.npy", "d.npy", "--metric", "l"), ["l2"])

    def test_job_ids_come_from_the_daemon(self):
        stand_in = self.folder / "tiny-knn"
        jobs = json.dumps([{"id": 7, "error": 'says "id":5', "user": "a"}, {"id": 12}], separators=(",", ":"))
        (self.folder / "jobs.json").write_text(jobs + "\n")
        stand_in.write_text('#!/bin/sh\n[ "$*" = "status --json" ] && cat jobs.json\n')
        stand_in.chmod(0o755)
        for command in ("status", "wait", "log", "cancel"):
            self.assertEqual(self.offers("./tiny-knn", command, ""), ["7", "12"])
        self.assertEqual(self.offers("./tiny-knn", "wait", "7", "1"), ["12"])
        self.assertEqual(self.offers("./none", "wait", ""), [])


class ZshTest(CliTest):
    def setUp(self):
        super().setUp()
        self.script = self.folder / "_tiny-knn"
        self.script.write_text(self.run_ok("completion", "zsh").stdout)

    def test_every_flag_is_named(self):
        text = self.script.read_text()
        self.assertTrue(text.startswith("#compdef tiny-knn\n"))
        self.assertNotIn("worker)", text)
        for command in commands():
            with self.subTest(command=command):
                part = text.partition(f"\n    {command})\n")[2].partition(";;")[0]
                found = set(re.findall(r"^ +'(?:\([^)]*\))?(--?[A-Za-z][\w-]*)[=+]?\[", part, re.MULTILINE))
                self.assertEqual(found, flags_of(command))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_accepts_the_script(self):
        done = subprocess.run(["zsh", "-fn", self.script], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_completes(self):
        for line, wanted in [
            ("tiny-knn su", "tiny-knn submit "),
            ("tiny-knn run --metric co", "tiny-knn run --metric cosine "),
            ("tiny-knn run --metric=co", "tiny-knn run --metric=cosine "),
            ("tiny-knn run q", "tiny-knn run q.npy "),
            ("tiny-knn q.npy d", "tiny-knn q.npy d.npy "),
            ("tiny-knn status --wa", "tiny-knn status --watch "),
        ]:
            with self.subTest(line=line):
                self.assertEqual(self.completed(line), wanted)

    def completed(self, line):
        """What `line` becomes when the Tab key is pressed in an interactive zsh."""
        answer = self.folder / "answer"
        answer.unlink(missing_ok=True)
        (self.folder / ".zshrc").write_text(
            "PS1='ready> '; unsetopt zle; fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D\n"
            'report() { print -r -- "=$BUFFER=" > answer.part; mv answer.part answer; BUFFER=exit; zle accept-line }\n'
            "zle -N report; bindkey '^X' report; setopt zle\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            variables = self.environment(TERM="vt100", ZDOTDIR=str(self.folder), HOME=str(self.folder))
            os.execvpe("zsh", ["zsh", "-id"], variables)
        seen, deadline = b"", time.monotonic() + 60
        try:
            while not answer.exists():
                self.assertLess(time.monotonic(), deadline, seen)
                if select.select([terminal], [], [], 0.1)[0]:
                    seen += os.read(terminal, 65536)
                if b"ready> " in seen and line:
                    os.write(terminal, (line + "\t\x18").encode())
                    line = ""
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(terminal)
        return answer.read_text().strip("\n")[1:-1]


class VerbTest(CliTest):
    def test_other_shells_are_refused(self):
        self.assert_refused("completion", says="missing SHELL")
        self.assert_refused("completion", "fish", says="bash and zsh, found 'fish'")
        self.assert_refused("completion", "bash", "zsh", says="unexpected argument 'zsh'")

    def test_a_script_of_the_shells_own_checks(self):
        (self.folder / "s").write_text(self.run_ok("completion", "bash").stdout)
        if not shutil.which("shellcheck", path=os.environ.get("PATH", "/usr/bin:/bin")):
            self.skipTest("shellcheck is not installed")
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "--severity=warning", self.folder / "s"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (0, ""))


if __name__ == "__main__":
    cli_harness.main()
