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
cp -rL "$tools/systemd" "$checkout/tools/"
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

# ---- --system, below a folder that stands for / ----
below=$work/below
mkdir -p "$below/etc/systemd/system" "$below/usr/local" "$below/opt"
printf 'root:x:0:\nusers:x:100:ada\n' >"$below/etc/group"
printf 'root:*::\nusers:*::ada\n' >"$below/etc/gshadow"
printf 'root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\n' >"$below/etc/passwd"
listing() { (cd "$below" && find . ! -name '*-' -printf '%y %m %p\n' | sort); }
before=$(listing) groups=$(<"$below/etc/group")
system_() { "$checkout/tools/install" --system --root "$below" "$@"; }

if system_ --uninstall 2>/dev/null; then fail "uninstalling no service succeeded"; fi
output=$(system_ 2>&1) || fail "--system: $output"
[[ $output == *'systemctl enable --now tiny-knn.socket tiny-knn.service'* ]] || fail "it does not say how to start: $output"
for unit in service socket; do
  for folder in system user; do
    [[ -f $below/etc/systemd/$folder/tiny-knn.$unit ]] || fail "no $folder/tiny-knn.$unit"
  done
done
grep -qx 'ExecStart=/usr/local/bin/tiny-knn daemon' "$below/etc/systemd/system/tiny-knn.service" ||
  fail "the unit does not name the program by its place when it runs"
if grep -r '@BIN@' "$below/etc"; then fail "a place is not filled in"; fi
[[ -x $below/usr/local/bin/tiny-knnd ]] || fail "the daemon's program is missing"
[[ -f $below/usr/local/share/bash-completion/completions/tiny-knn ]] || fail "bash cannot complete it"
for group in tiny-knn tiny-knn-admin; do
  grep -qE "^$group:[^:]*:[0-9]+:\$" "$below/etc/group" || fail "no group $group"
done

if "$checkout/tools/install" --prefix "$below/usr/local" --uninstall 2>/dev/null; then
  fail "the programs of the service were removed without it"
fi

# Installed twice, it is removed all the same.
output=$(system_ 2>&1) || fail "--system: $output"
system_ --uninstall
[[ $(listing) == "$before" ]] || fail "left: $(diff <(echo "$before") <(listing))"
[[ $(<"$below/etc/group") == "$groups" ]] || fail "groups are left: $(<"$below/etc/group")"

# Groups that were there stay, and so do those that somebody is in.
printf 'tiny-knn:x:500:\n' >>"$below/etc/group"
printf 'tiny-knn:!::\n' >>"$below/etc/gshadow"
output=$(system_ 2>&1) || fail "--system: $output"
sed -i 's/^\(tiny-knn-admin:.*\)/\1ada/' "$below/etc/group"
echo mine >"$below/etc/systemd/user/mine.service"
system_ --uninstall
grep -qx 'tiny-knn:x:500:' "$below/etc/group" || fail "a group that it has not made was removed"
grep -q '^tiny-knn-admin:.*:ada$' "$below/etc/group" || fail "a group with a member was removed"
[[ $(ls "$below/etc/systemd/user") == mine.service ]] || fail "the folder with another's unit: $(ls "$below/etc/systemd/user")"

# Other places; what a unit could not name is refused.
system_ --prefix /opt/tiny-knn --unit-dir /lib/units --user-unit-dir=/lib/user-units 2>/dev/null
grep -qx 'ExecStart=/opt/tiny-knn/bin/tiny-knn daemon' "$below/lib/units/tiny-knn.service" || fail "--prefix in a unit"
[[ -f $below/lib/user-units/tiny-knn.socket ]] || fail "--user-unit-dir"
system_ --prefix /opt/tiny-knn --uninstall
[[ ! -e $below/opt/tiny-knn/bin && ! -e $below/lib ]] || fail "left: $(find "$below/opt" "$below/lib")"
if system_ --prefix '/opt/tiny knn' 2>/dev/null; then fail "a prefix that a unit cannot name"; fi

if command -v systemd-analyze >/dev/null && ((EUID == 0)); then
  units=$work/units
  mkdir -p "$units/system" "$units/user"
  for kind in system user; do
    for unit in service socket; do
      # verify wants the program to exist
      sed 's|@BIN@/tiny-knn|/bin/true|' "$checkout/tools/systemd/$kind/tiny-knn.$unit" >"$units/$kind/tiny-knn.$unit"
    done
  done
  # Short, since sockets will lie in it. What is wrong with other units of this machine is not ours.
  run=$(mktemp -d /tmp/tk.XXXXXX)
  trap 'rm -rf "$run"' EXIT
  for kind in system user; do
    complaints=$(XDG_RUNTIME_DIR=$run systemd-analyze "--$kind" --recursive-errors=no verify \
      "$units/$kind"/tiny-knn.{service,socket} 2>&1) || fail "verify --$kind: $complaints"
    ! grep tiny-knn <<<"$complaints" || fail "verify --$kind: $complaints"
  done
  # 0 is best, 100 worst; without any hardening it is 96.
  systemd-analyze security --offline=yes --threshold=25 --no-pager "$units/system/tiny-knn.service" >"$work/security" ||
    fail "less protected than it was: $(grep '✗' "$work/security")"
  tail -n 1 "$work/security"
else
  echo "NOT RUN: systemd-analyze is not here (package systemd), or this is not root"
fi
echo passed
