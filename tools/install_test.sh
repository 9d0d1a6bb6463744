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
# shellcheck disable=SC2016  # $0 is the stand-in's own
printf '#!/bin/sh\necho "$0"\n' >"$checkout/tools/tiny-knn"
chmod +x "$checkout/tools/"*
for file in docs.npy queries.npy query_words.txt words.txt LICENSE README.md; do
  echo "$file" >"$checkout/examples/words/$file"
done
install_() { "$checkout/tools/install" --prefix "$prefix" "$@"; }

if install_ --uninstall 2>/dev/null; then fail "uninstalling nothing succeeded"; fi

install_
[[ $("$prefix/bin/tiny-knn") == "$prefix/bin/tiny-knn" ]] || fail "the program does not run"
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
