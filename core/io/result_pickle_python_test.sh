#!/bin/bash
# Runs the Python half of the result file's tests with warnings as errors: with Debian's numpy, and
# with numpy 2 when the environment names a Python that has it.
# Arguments: the script and the tool it needs, as paths in the runfiles.
set -eu
export PYTHONDONTWRITEBYTECODE=1
/usr/bin/python3 -W error "$@"
if [[ -n ${TINY_KNN_NUMPY2_PYTHON:-} ]]; then
  "$TINY_KNN_NUMPY2_PYTHON" -W error "$@"
fi
