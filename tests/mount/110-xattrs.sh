#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# user.varve.* and trusted.varve.* are there; nothing else is, and asking does not hurt.
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
must_fail "not supported" setfattr -n user.varve.state -v stored "$snap"
must_fail "not supported" setfattr -n user.varve.note -v x "$disk"
must_fail "not supported" setfattr -n user.other -v x "$disk"
must_fail "not supported" setfattr -n trusted.other -v x "$disk"

getfattr --absolute-names -d -m - "$snap" >"$T/root"
grep -q trusted.varve.levels "$T/root"
grep -q trusted.varve.digest "$T/root"
run chmod 444 "$snap"
setpriv --reuid=1001 --regid=1001 --clear-groups getfattr --absolute-names -d -m - "$snap" >"$T/user"
grep -q user.varve.state "$T/user"
grep -q trusted "$T/user" && fail "trusted attributes are shown to all"

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
n = libc.listxattr(p, None, 0)
assert n > 32
assert libc.listxattr(p, buf, 5) == -1 and ctypes.get_errno() == errno.ERANGE
assert "user.varve.id" in os.listxattr(p)
P

# They survive a remount; unprotected, it can go.
stop_varve
start_varve
equals "$(xattr "$snap" protected)" 1
must_fail "Operation not permitted" rm -f "$snap"
run setfattr -n user.varve.protected -v 0 "$snap"
run rm "$snap"
stop_varve
