"""python_test: a test in Python.

Bazel 4.2.3's py_test starts its tests with `/usr/bin/env python`, which Debian does not have.
"""

def python_test(name, main, srcs = [], data = [], args = [], **kwargs):
    """Runs `main` with Debian's python3, from the runfiles' root.

    Args:
      name: the test's name.
      main: the Python file to run.
      srcs: Python files that it imports, from its own package.
      data: files that it reads; beside `main` in the runfiles when they are of the same package.
      args: passed on to `main`.
      **kwargs: as of any test.
    """
    native.sh_test(
        name = name,
        srcs = ["//tools:python_test.sh"],
        args = ["$(rootpath %s)" % main] + args,
        data = [main] + srcs + data,
        **kwargs
    )
