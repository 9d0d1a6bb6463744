#!/bin/bash
# Runs the Python half of the result file's tests with warnings as errors.
# Arguments: the script and the tool it needs, as paths in the runfiles.
set -eu
exec "${PYTHON3:-/usr/bin/python3}" -W error "$@"
