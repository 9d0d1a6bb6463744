# shellcheck shell=bash
# What the scripts in tools/ share. Sourced with `root` set to the repository's root.
: "${root:?is set by the script that sources this}"

# Bazel and pip keep their caches under HOME, which a CI runner may not set.
if [[ -z ${HOME:-} ]]; then
  HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
  export HOME
fi
# shellcheck disable=SC2034  # used by the scripts that source this
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/tiny-knn

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# The Bazel that runs the build: one on PATH, whoever installed it, else Bazelisk.
bazel_command() {
  if ! command -v bazel && ! command -v bazelisk; then
    die "neither bazel nor bazelisk is on PATH; run tools/setup"
  fi
}

# run_bazel ARGS...: Bazel in the repository, whatever the caller's folder.
run_bazel() {
  local bazel
  bazel=$(bazel_command) || return
  (cd "$root" && exec "$bazel" "$@")
}

# Sets the array `test_flags`: what every `bazel test` of ours passes on. The tests' sandbox does not
# see this machine's environment, so it is told where the Python with numpy 2 is.
set_test_flags() {
  local numpy2_python
  numpy2_python=$("$root/tools/python_env") || return
  # shellcheck disable=SC2034  # used by the scripts that source this
  test_flags=(--keep_going --test_env=TINY_KNN_NUMPY2_PYTHON="$numpy2_python")
}
