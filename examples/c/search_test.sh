#!/bin/bash
# The example prints what it did when it was written.
set -euo pipefail
diff examples/c/expected.txt <(examples/c/search)
