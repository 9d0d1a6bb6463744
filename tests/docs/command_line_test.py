"""docs/command_line.md and README.md name the flags that the program's own pages name, and no others."""

import pathlib
import re
import subprocess
import unittest

BINARY = pathlib.Path("cli/tiny-knn").absolute()
_FLAG = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)")
_EVERYWHERE = {"-h", "--help"}


def program(*arguments):
    return subprocess.run([BINARY, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def commands():
    """What the overview lists under its two headings; its last lines are examples."""
    return re.findall(r"^  (\w+)  +\w", program("help"), re.MULTILINE)


def flags_of_help(command):
    """The flags that lines of a command's page begin with."""
    found = set()
    for line in program("help", command).splitlines():
        if match := re.match(r"\s+(-\w, +)?--[\w-]+", line):
            found |= set(_FLAG.findall(match.group()))
    return found - _EVERYWHERE


def flags_of_tables(text):
    """The flags in the first columns of Markdown tables."""
    found = set()
    for line in text.splitlines():
        if line.startswith("| `-"):
            found |= set(_FLAG.findall(line.split("|")[1]))
    return found - _EVERYWHERE


class DocumentedFlags(unittest.TestCase):
    def setUp(self):
        page = pathlib.Path("docs/command_line.md").read_text(encoding="utf-8")
        parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
        self.sections = dict(zip(parts[1::2], parts[2::2]))

    def test_every_command_has_a_section_with_just_its_flags(self):
        self.assertIn("run", commands())
        self.assertIn("submit", commands())
        for command in commands():
            with self.subTest(command=command):
                self.assertIn(f"tiny-knn {command}", list(self.sections))
                section = self.sections[f"tiny-knn {command}"]
                self.assertEqual(flags_of_help(command), flags_of_tables(section))

    def test_the_pages_do_name_flags(self):
        self.assertIn("-o", flags_of_help("run"))
        self.assertIn("--memory-limit", flags_of_tables(self.sections["tiny-knn run"]))

    def test_the_overview_names_every_command(self):
        page = pathlib.Path("docs/command_line.md").read_text(encoding="utf-8")
        listed = set(re.findall(r"^tiny-knn (\w+)", page.partition("## ")[0], re.MULTILINE))
        self.assertEqual(listed - {"QUERIES"}, set(commands()))

    def test_submit_has_all_flags_of_run(self):
        self.assertLessEqual(flags_of_help("run"), flags_of_help("submit"))

    def test_every_section_about_a_command_is_about_one_that_exists(self):
        named = {name.split()[1] for name in self.sections if name.startswith("tiny-knn ")}
        self.assertEqual(named, set(commands()))

    def test_readme_lists_the_flags_of_run(self):
        readme = pathlib.Path("README.md").read_text(encoding="utf-8")
        self.assertEqual(flags_of_tables(readme), flags_of_help("run"))


if __name__ == "__main__":
    unittest.main()
