#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Owner and mode decide, for disks, snapshots, labels and commands.
set -eu
. "$(dirname "$0")/lib.sh"
need setpriv python3

# A program of its own, because `run` and `must_fail` cannot call shell functions.
as=$T/as
# shellcheck disable=SC2016  # that program expands it
printf '#!/bin/sh\nu=$1; shift\nexec setpriv --reuid="$u" --regid="$u" --clear-groups "$@"\n' >"$as"
chmod 755 "$T" "$as"
start_varve
run chmod 777 "$MNT"
run mkdir "$MNT/vm"
run chown 1001:1001 "$MNT/vm"
run chmod 755 "$MNT/vm"
random_file "$T/a" 100000
chmod 644 "$T/a"
disk=$MNT/vm/disk.img

run "$as" 1001 bash -c "umask 027; cp '$T/a' '$disk'"
equals "$(stat -c '%u:%g %a' "$disk")" "1001:1001 640"
snap=$(newest "$disk")
equals "$(stat -c '%u:%g %a' "$snap")" "1001:1001 640"
must_fail "Permission denied" "$as" 1002 cat "$disk"
must_fail "Permission denied" "$as" 1002 cat "$snap"
must_fail "Permission denied" "$as" 1002 touch "$MNT/vm/new.img"
must_fail "Permission denied" "$as" 1002 rm -f "$snap"
run "$as" 1001 cat "$snap" >/dev/null

# A label needs the right to write to the disk, not only to its directory.
run chmod 777 "$MNT/vm"
must_fail "Permission denied" "$as" 1002 touch "$MNT/vm/disk@mine.img"
run "$as" 1001 touch "$MNT/vm/disk@mine.img"
run chmod 755 "$MNT/vm"
run "$as" 1002 "$VARVE" --help >/dev/null                # they can run it: what fails below fails for the right reason
must_fail "" "$as" 1002 "$VARVE" snapshot "$disk"
must_fail "" "$as" 1002 "$VARVE" snapshot "$MNT/vm"
run "$as" 1001 "$VARVE" snapshot "$disk"
run "$as" 1001 "$VARVE" snapshot "$MNT/vm"
must_fail "" "$as" 1002 "$VARVE" revert "$snap"

# No right to write comes to a snapshot, though its owner is shown one for copies of it; the rest does, once it is stored.
run "$VARVE" wait "$MNT"
run chmod 26 "$snap"
equals "$(stat -c %a "$snap")" 4
run chmod 466 "$snap"
equals "$(stat -c %a "$snap")" 644
must_fail "Read-only" "$as" 1001 bash -c "echo x >> '$snap'"
must_fail "Permission denied" "$as" 1002 bash -c "echo x >> '$snap'"
run "$as" 1002 cat "$snap" >/dev/null
run chown 1002 "$snap"
equals "$(stat -c %u "$snap")" 1002
must_fail "Read-only" bash -c "echo x >> '$snap'"

# Reverting by an id is not a way to read what one may not read.
run "$as" 1002 bash -c "umask 077; mkdir '$MNT/v2' && cp '$T/a' '$MNT/v2/secret.img'"
run "$VARVE" wait "$MNT"
secret=$(xattr "$(newest "$MNT/v2/secret.img")" id)
run python3 - "$disk" "$secret" <<'P'
import errno, fcntl, os, struct, sys
SIZE = 40 + 4 + 600
cmd = 3 << 30 | SIZE << 16 | 0xB7 << 8 | 2
buf = bytearray(SIZE)
buf[:32] = sys.argv[2].encode()
os.setgroups([])
os.setgid(1001)
os.setuid(1001)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(fd, cmd, buf)
assert struct.unpack_from("i", buf, 40)[0] == errno.ENOENT, struct.unpack_from("i", buf, 40)
P
same "$T/a" "$disk"

# Groups: a setgid directory hands its group on; sticky protects.
run mkdir "$MNT/grp"
run chown 0:1005 "$MNT/grp"
run chmod 2777 "$MNT/grp"
run "$as" 1001 bash -c "mkdir '$MNT/grp/sub'; cp '$T/a' '$MNT/grp/x.img'"
equals "$(stat -c %g "$MNT/grp/sub" "$MNT/grp/x.img" | sort -u)" 1005
equals "$(stat -c %a "$MNT/grp/sub" | cut -c1)" 2
run chmod 1777 "$MNT/grp"
must_fail "Operation not permitted" "$as" 1002 rm -f "$MNT/grp/x.img"
must_fail "Operation not permitted" "$as" 1002 mv "$MNT/grp/x.img" "$MNT/grp/y.img"
must_fail "Operation not permitted" "$as" 1002 chmod 777 "$MNT/grp/x.img"

# The control folder is root's.
must_fail "Permission denied" "$as" 1001 cat "$MNT/.varve/status.json"
must_fail "" rm -rf "$MNT/.varve"
must_fail "" touch "$MNT/.varve/x"
must_fail "" mkdir "$MNT/.varve/x"

# nosuid, nodev, fuse.varve, and which store.
grep " $MNT fuse.varve " /proc/mounts >"$T/mount"
grep -q nosuid "$T/mount"
grep -q nodev "$T/mount"
grep -q default_permissions "$T/mount"
grep -q "^$T/store " "$T/mount" || fail "fsname is not the store"
stop_varve
