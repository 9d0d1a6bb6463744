#!/bin/bash
# Runs one Python test of python_test.bzl: python_test.sh MAIN ARGS...
set -euo pipefail
# The folder of MAIN in the runfiles; Python itself adds the one that the link leads to.
PYTHONPATH=$PWD/${1%/*} PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 "$@"
