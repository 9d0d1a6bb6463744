"""docs/security.md lists every test of two users, and no other."""

import ast
import glob
import os
import re
import unittest

HERE = "tests/daemon/users"


def tests_in_code():
    found = []
    for path in glob.glob(os.path.join(HERE, "*_test.py")):
        module = os.path.basename(path).removesuffix(".py")
        if module == "security_document_test":
            continue
        with open(path) as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(f"{module}.{node.name}")
    return found


class SecurityDocument(unittest.TestCase):
    def setUp(self):
        with open("docs/security.md") as file:
            self.rows = re.findall(r"^\| (\d+) \|(.*)\|(.*)\|(.*)\|$", file.read(), re.MULTILINE)

    def test_every_attack_has_a_test_and_every_test_an_attack(self):
        listed = [re.fullmatch(r" `(\w+\.test_\w+)` ", row[3]) for row in self.rows]
        self.assertNotIn(None, listed, self.rows)
        names = [match[1] for match in listed]
        self.assertEqual(sorted(names), sorted(tests_in_code()))
        self.assertEqual(len(names), len(set(names)))

    def test_attacks_are_numbered_and_say_what_stops_them(self):
        self.assertEqual([int(row[0]) for row in self.rows], list(range(1, len(self.rows) + 1)))
        self.assertGreaterEqual(len(self.rows), 25)
        for row in self.rows:
            self.assertTrue(row[1].strip() and row[2].strip(), row)


if __name__ == "__main__":
    unittest.main()
