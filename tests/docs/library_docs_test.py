"""docs/python.md, docs/c.md and docs/cpp.md say what the code says.

Between `<!-- from FILE -->` and `<!-- end -->` stands what is taken from a file: examples and headers as they are, Python's
reference from signatures and docstrings. To take it again, from the checkout, once the library is built:

    tools/library_docs
"""

import importlib
import inspect
import pathlib
import re
import sys
import textwrap
import unittest

sys.path.insert(0, "python")
DOCS = [pathlib.Path("docs/python.md"), pathlib.Path("docs/c.md"), pathlib.Path("docs/cpp.md")]
_BLOCK = re.compile(r"<!-- from (\S+) -->\n.*?<!-- end -->\n", re.DOTALL)
_LANGUAGES = {".h": "cpp", ".cc": "cpp", ".c": "c", ".py": "python"}


def _signature(name, function):
    """As it would be written; annotations are texts, for the package has them unevaluated."""
    signature = inspect.signature(function)
    shown, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind == parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{parameter.name}: {parameter.annotation}{default}")
    result = "" if signature.return_annotation in (signature.empty, "None") else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(shown)}){result}"
    return line if len(line) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in shown), f"){result}"])


def _entry(name, thing, level):
    heading = f"{'#' * level} {name.rpartition('.')[2] if level > 3 else name}\n\n"
    doc = inspect.cleandoc(thing.fget.__doc__ if isinstance(thing, property) else thing.__doc__)
    if isinstance(thing, property):
        shown = f"{name}  # a property"
    elif inspect.isclass(thing) and issubclass(thing, tuple):
        shown = f"class {name}: a named tuple of {', '.join(thing._fields)}"
    elif inspect.isclass(thing):
        shown = "class " + _signature(name, thing)
    else:
        shown = _signature(name, thing)
    return f"{heading}```python\n{shown}\n```\n\n```text\n{doc}\n```\n"


def python_reference():
    """Every public name of the package, with its public methods."""
    tiny_knn = importlib.import_module("tiny_knn")
    parts = []
    for name in ("exact_search", "TopK", "Corpus", "compute_topk", "merge_results", "load_result", "submit", "Job"):
        thing = getattr(tiny_knn, name)
        parts.append(_entry(name, thing, 3))
        if inspect.isclass(thing) and not issubclass(thing, tuple):
            members = [(m, v) for m, v in vars(thing).items() if not m.startswith("_")]
            parts += [_entry(f"{name}.{member}", value, 4) for member, value in members if value.__doc__ or isinstance(value, property)]
    assert {"exact_search", "TopK", "Corpus", "compute_topk", "merge_results", "load_result", "submit", "Job"} == set(tiny_knn.__all__)
    return "\n".join(parts)


def _declarations(text):
    """A header without what surrounds its declarations."""
    if "namespace tiny_knn {" in text:
        text = text.split("namespace tiny_knn {", 1)[1].rsplit("}  // namespace tiny_knn", 1)[0]
    else:
        text = text.split('extern "C" {\n#endif', 1)[1].rsplit("#ifdef __cplusplus", 1)[0]
    return text.strip("\n") + "\n"


def taken_from(source):
    if source == "python/tiny_knn":
        return python_reference()
    path = pathlib.Path(source)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".h":
        text = _declarations(text)
    language = "c" if source.startswith("capi/") else _LANGUAGES[path.suffix]
    return f"```{language}\n{text}```\n"


def filled_in(text):
    return _BLOCK.sub(lambda block: f"<!-- from {block[1]} -->\n{taken_from(block[1])}<!-- end -->\n", text)


class LibraryDocs(unittest.TestCase):
    maxDiff = None

    def test_what_is_taken_from_the_code_is_what_the_code_says(self):
        for path in DOCS:
            with self.subTest(path.name):
                text = path.read_text(encoding="utf-8")
                self.assertEqual(text, filled_in(text), "to take it again: tools/library_docs")

    def test_everything_public_is_taken(self):
        text = "".join(path.read_text(encoding="utf-8") for path in DOCS)
        self.assertEqual(
            set(_BLOCK.findall(text)),
            {"python/tiny_knn", "capi/tiny_knn.h", "examples/c/search.c", "core/job/search_rows.h", "core/job/corpus.h", "examples/cpp/search.cc"},
        )

    def test_examples_of_the_pages_run(self):
        for path in (pathlib.Path("README.md"), pathlib.Path("docs/python.md")):
            blocks = re.findall(r"^```python\n(# runs\n.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
            self.assertTrue(blocks, path)
            for block in blocks:
                with self.subTest(path=path.name, block=block[:60]):
                    exec(compile(textwrap.dedent(block), str(path), "exec"), {})


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for document in DOCS:
            document.write_text(filled_in(document.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        unittest.main()
