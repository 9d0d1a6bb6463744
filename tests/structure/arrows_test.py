"""The rooms use each other only along the arrows: in what ships, and the check itself can fail."""

import pathlib
import unittest
import xml.etree.ElementTree

import arrows

_RULE = """<query>
<package-group name="//core/io:left"><list name="packages"><string value="core/matrix/..."/></list></package-group>
<package-group name="//core/io:users"><list name="packages"><string value="core/job/..."/></list></package-group>
<rule class="cc_library" name="{name}">
<list name="visibility"><label value="{visibility}"/></list>
<rule-input name="{used}"/></rule></query>"""


def broken_rules(name, used="//core/matrix:dtype", visibility="//tests:__subpackages__"):
    text = _RULE.format(name=name, used=used, visibility=visibility)
    return arrows.check(xml.etree.ElementTree.fromstring(text))[0]


class ArrowsTest(unittest.TestCase):
    def test_what_ships_keeps_to_the_arrows(self):
        query = pathlib.Path(__file__).with_name("shipped.xml")
        self.assertEqual(arrows.main([str(query)]), 0, "the lines above name the edges")

    def test_what_ships_reaches_every_room_that_it_is_made_of(self):
        text = pathlib.Path(__file__).with_name("shipped.xml").read_text(encoding="utf-8")
        for room in ("core/matrix", "core/io", "core/search", "core/cpu", "core/job", "gpu", "capi", "cli", "daemon", "daemon/worker", "python"):
            self.assertTrue(f'name="//{room}:' in text, f"{room} is not in the query's reach")

    def test_what_ships_has_nothing_of_the_emulated_gpu(self):
        text = pathlib.Path(__file__).with_name("shipped.xml").read_text(encoding="utf-8")
        self.assertNotIn('name="//gpu/emulation', text)

    def test_an_edge_to_the_right_is_refused(self):
        self.assertEqual(
            broken_rules("//core/io:npy", used="//core/search:planner"),
            ["//core/io:npy uses //core/search:planner: there is no arrow core/io -> core/search"],
        )

    def test_the_command_line_names_no_engine(self):
        self.assertEqual(len(broken_rules("//cli:run", used="//core/cpu:cpu_engine")), 1)
        self.assertEqual(len(broken_rules("//cli:run", used="//gpu:cuda_engine")), 1)
        self.assertEqual(broken_rules("//cli:run", used="//gpu:open_engine"), [])

    def test_the_libraries_name_no_engine_and_python_only_the_c_interface(self):
        self.assertEqual(len(broken_rules("//capi:functions", used="//core/cpu:cpu_engine")), 1)
        self.assertEqual(broken_rules("//capi:functions", used="//gpu:open_engine"), [])
        self.assertEqual(len(broken_rules("//python:tiny_knn", used="//core/io:npy")), 1)
        self.assertEqual(broken_rules("//python:tiny_knn", used="//capi:libtiny_knn.so"), [])

    def test_the_supervisor_opens_neither_an_engine_nor_a_users_file(self):
        text = pathlib.Path(__file__).with_name("supervisor.xml").read_text(encoding="utf-8")
        self.assertIn('name="//daemon/supervisor:server"', text)
        for label in ("core/cpu:", "gpu:", "core/io:row_source", "core/io:npy", "core/job:run_job", "core/search:engine"):
            self.assertNotIn(f'name="//{label}', text)

    def test_an_edge_to_the_left_or_from_a_test_is_allowed(self):
        self.assertEqual(broken_rules("//core/cpu:screen", used="//core/matrix:dtype"), [])
        self.assertEqual(broken_rules("//tests/cli:errors", used="//core/cpu:screen"), [])

    def test_a_package_outside_every_room_is_refused(self):
        self.assertEqual(len(broken_rules("//helpers:strings")), 1)

    def test_a_visibility_that_would_let_a_wrong_edge_in_is_refused(self):
        self.assertEqual(len(broken_rules("//core/io:npy", visibility="//visibility:public")), 1)
        # core/matrix lies below core too, and may not use core/io.
        self.assertEqual(len(broken_rules("//core/io:npy", visibility="//core:__subpackages__")), 1)
        self.assertEqual(broken_rules("//core/io:npy", visibility="//core/search:__pkg__"), [])
        self.assertEqual(len(broken_rules("//core/io:npy", visibility="//core/io:left")), 1)
        self.assertEqual(broken_rules("//core/io:npy", visibility="//core/io:users"), [])


if __name__ == "__main__":
    unittest.main()
