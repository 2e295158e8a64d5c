#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# user.varve.* and trusted.varve.* are read by name and not listed; nothing else is there, and asking does not hurt.
set -eu
. "$(dirname "$0")/lib.sh"
need getfattr setfattr python3 setpriv

chmod 755 "$T"
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 100000
run cp "$T/a" "$disk"
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
snap=$(newest "$disk")

equals "$(xattr "$snap" state)" stored
equals "$(xattr "$snap" flags)" ""
equals "$(xattr "$snap" host)" testhost
equals "$(xattr "$snap" id | wc -c)" 32
run "$VARVE" wait "$MNT"
run cp "$T/a" "$disk"
equals "$(xattr "$(newest "$disk")" parent)" "$(xattr "$snap" id)"
equals "$(xattr "$snap" protected)" 0
equals "$(xattr "$disk" state)" live
[ "$(xattr "$disk" id)" != "$(xattr "$snap" id)" ] || fail "disk and snapshot have one id"
must_fail "No such attribute" getfattr --absolute-names -n user.varve.note "$snap"
must_fail "No such attribute" getfattr --absolute-names -n user.varve.nonsense "$snap"
must_fail "No such attribute" getfattr --absolute-names -n security.selinux "$snap"
must_fail "No such attribute" getfattr --absolute-names -n user.other "$disk"

run setfattr -n user.varve.note -v "a note" "$snap"
equals "$(xattr "$snap" note)" "a note"
run setfattr -n user.varve.protected -v 1 "$snap"
must_fail "Operation not permitted" rm -f "$snap"
[ -e "$snap" ] || fail "a protected snapshot went"
run setfattr -x user.varve.note "$snap"
must_fail "No such attribute" getfattr --absolute-names -n user.varve.note "$snap"
must_fail "Invalid argument" setfattr -n user.varve.protected -v yes "$snap"
must_fail "not supported" setfattr -n user.varve.state -v failed "$snap"
must_fail "not supported" setfattr -n user.varve.note -v x "$disk"
must_fail "not supported" setfattr -n user.other -v x "$disk"
must_fail "not supported" setfattr -n trusted.other -v x "$disk"

value_of() { getfattr --absolute-names --only-values -n "$@"; }
value_of trusted.varve.levels "$snap" | grep -q stored= || fail "root does not get the levels"
equals "$(value_of trusted.varve.digest "$snap" | wc -c)" 64
run chmod 444 "$snap"
equals "$(setpriv --reuid=1001 --regid=1001 --clear-groups getfattr --absolute-names --only-values -n user.varve.state "$snap")" stored
must_fail "No such attribute" setpriv --reuid=1001 --regid=1001 --clear-groups getfattr --absolute-names -n trusted.varve.levels "$snap"
for f in "$snap" "$disk" "$MNT/vm" "$MNT"; do equals "$(getfattr --absolute-names -d -m - "$f")" "" "the list of $f"; done

# What is so already may be set, and removing does nothing: a tool that copies attributes succeeds.
for f in "$snap" "$disk" "$MNT/vm"; do
    id=$(xattr "$f" id)
    run setfattr -n user.varve.id -v "$id" "$f"
    run setfattr -x user.varve.id "$f"
    equals "$(xattr "$f" id)" "$id" "after its removal"
    must_fail "not supported" setfattr -n user.varve.id -v "0${id#?}x" "$f"
    must_fail "No such attribute" setfattr -x user.other "$f"
    must_fail "No such attribute" setfattr -x user.varve.nonsense "$f"
done
run setfattr -n trusted.varve.levels -v "$(value_of trusted.varve.levels "$snap")" "$snap"

# Sizes: 0 asks, too small is ERANGE.
run python3 - "$snap" <<'P'
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
p = sys.argv[1].encode()
n = libc.getxattr(p, b"user.varve.id", None, 0)
assert n == 32, n
buf = ctypes.create_string_buffer(64)
assert libc.getxattr(p, b"user.varve.id", buf, 31) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.getxattr(p, b"user.varve.id", buf, 32) == 32
assert libc.listxattr(p, None, 0) == 0
assert os.listxattr(p) == []
for flag, error in (os.XATTR_CREATE, errno.EEXIST), (os.XATTR_REPLACE, 0):
    try:
        os.setxattr(p, "user.varve.id", os.getxattr(p, "user.varve.id"), flag)
        got = 0
    except OSError as e:
        got = e.errno
    assert got == error, (flag, got)
P

# They survive a remount; unprotected, it can go.
stop_varve
start_varve
equals "$(xattr "$snap" protected)" 1
must_fail "Operation not permitted" rm -f "$snap"
run setfattr -n user.varve.protected -v 0 "$snap"
run rm "$snap"

# Tools that copy all attributes, in and out.
copies() {
    run "$@" "$T/a" "$MNT/vm/in.img"
    run "$VARVE" wait "$MNT"
    run "$@" "$(newest "$MNT/vm/in.img")" "$T/out"
    run "$@" "$MNT/vm/in.img" "$T/out"
    same "$T/a" "$T/out"
    equals "$(getfattr --absolute-names -d -m 'varve' "$T/out")" "" "a restored file, by $*"
    rm "$T/out"
}
copies cp -a
if command -v rsync >/dev/null; then
    for opts in -aX -aHAX; do
        # rsync tells attributes that it cannot set by exit status 23.
        copies rsync "$opts" --inplace --ignore-times
        run mkdir "$T/tree"
        run rsync "$opts" "$MNT/vm/" "$T/tree/"
        equals "$(getfattr --absolute-names -R -d -m varve "$T/tree")" "" "a restored tree"
        rm -rf "$T/tree"
    done
fi
stop_varve
