#!/bin/bash
# tools/install puts down what it lists and takes away just that. The program is a stand-in.
set -euo pipefail
tools=$PWD/tools
work=$(mktemp -d "$TEST_TMPDIR/install.XXXXXX")
fail() {
  echo "failed: $*"
  exit 1
}

checkout=$work/checkout prefix=$work/prefix
mkdir -p "$checkout/tools" "$checkout/examples/words"
cp -L "$tools/install" "$tools/common.sh" "$checkout/tools/"
mkdir -p "$checkout/built/cli" "$checkout/built/daemon"
printf '#!/bin/sh\necho "%s/built/cli/tiny-knn"\n' "$checkout" >"$checkout/tools/tiny-knn"
# shellcheck disable=SC2016  # $* is the stand-in's own
printf '#!/bin/sh\necho "tiny-knn $*"\n' >"$checkout/built/cli/tiny-knn"
printf '#!/bin/sh\necho tiny-knnd\n' >"$checkout/built/daemon/tiny-knnd"
chmod +x "$checkout/tools/"* "$checkout/built/"*/*
for file in docs.npy queries.npy query_words.txt words.txt LICENSE README.md; do
  echo "$file" >"$checkout/examples/words/$file"
done
install_() { "$checkout/tools/install" --prefix "$prefix" "$@"; }

if install_ --uninstall 2>/dev/null; then fail "uninstalling nothing succeeded"; fi

install_
[[ $("$prefix/bin/tiny-knn" help) == 'tiny-knn help' ]] || fail "the program does not run"
[[ $("$prefix/bin/tiny-knnd") == tiny-knnd ]] || fail "the daemon's program does not run"
[[ $(<"$prefix/share/bash-completion/completions/tiny-knn") == 'tiny-knn completion bash' ]] ||
  fail "bash cannot complete it"
[[ $(<"$prefix/share/zsh/site-functions/_tiny-knn") == 'tiny-knn completion zsh' ]] ||
  fail "zsh cannot complete it"
[[ -f $prefix/share/tiny-knn/words/docs.npy ]] || fail "the demo's data is missing"

install_
[[ $(grep -c '^bin/tiny-knn$' "$prefix/share/tiny-knn/installed.txt") == 1 ]] ||
  fail "the second installation is listed beside the first"

echo mine >"$prefix/bin/mine"
install_ --uninstall
[[ $(cd "$prefix" && find . -type f) == ./bin/mine ]] || fail "left: $(find "$prefix")"

rm "$prefix/bin/mine" && rmdir "$prefix/bin"
install_
install_ --uninstall
[[ -z $(ls "$prefix") ]] || fail "folders are left: $(find "$prefix")"
echo passed
