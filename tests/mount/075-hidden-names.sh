#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk whose name begins with a dot is a program's temporary file: whatever happens to it, it gets no snapshot but one that was
# asked for by its name; what it held makes way for a revert or a rename. An image of zeros alone is no backup on any path.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

start_varve
run mkdir "$MNT/vm"
hidden=$MNT/vm/.tmp.img disk=$MNT/vm/disk.img
random_file "$T/a" 5000000
random_file "$T/b" 3000000
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
first=$(newest "$disk")

# Written, written anew, cut, closed: none.
run cp "$T/b" "$hidden"
run cp "$T/a" "$hidden"
run truncate -s 4M "$hidden"
equals "$(snap_count "$hidden")" 0 "after writing"
# Reverted to, with changes that no snapshot has: none of these either.
run "$VARVE" revert --to "$hidden" "$first"
same "$T/a" "$hidden"
equals "$(snap_count "$hidden")" 0 "after a revert"
printf changed | dd of="$hidden" conv=notrunc status=none
run "$VARVE" revert --to "$hidden" "$first"
same "$T/a" "$hidden"
equals "$(snap_count "$hidden")" 0 "after a second revert"

# A rename onto a hidden one that has changes.
run cp "$T/b" "$MNT/vm/.one.img"
run cp "$T/a" "$MNT/vm/.two.img"
run mv -T -f "$MNT/vm/.one.img" "$MNT/vm/.two.img"
same "$T/b" "$MNT/vm/.two.img"
[ ! -e "$MNT/vm/.one.img" ] || fail "the source is still there"
equals "$(snap_count "$MNT/vm/.two.img")" 0 "after a rename"

# The directory's request passes over them; one that names it, or labels it, makes one.
run cp "$T/b" "$hidden"
run python3 - "$VARVE" "$disk" "$MNT/vm" <<'P'
import os, subprocess, sys
fd = os.open(sys.argv[2], os.O_RDWR)
os.pwrite(fd, b"changed", 0)
subprocess.run([sys.argv[1], "snapshot", sys.argv[3]], check=True, pass_fds=[fd])  # nobody closes it before
P
equals "$(snap_count "$disk")" 2 "of the one that is not hidden"
equals "$(snap_count "$hidden")" 0 "after a snapshot of the directory"
run "$VARVE" snapshot "$hidden"
equals "$(snap_count "$hidden")" 1 "after a snapshot of it"
same "$T/b" "$(newest "$hidden")"
run touch "$MNT/vm/.tmp@kept.img"
equals "$(snap_count "$hidden")" 2 "after a label"

# A name without a dot makes it a disk like any other.
run mv "$MNT/vm/.two.img" "$MNT/vm/two.img"
equals "$(snap_count "$MNT/vm/two.img")" 1 "after the dot went"
same "$T/b" "$(newest "$MNT/vm/two.img")"

# The daemon dies with a changed one: none.
printf again | dd of="$hidden" conv=notrunc status=none
kill_varve
start_varve
equals "$(snap_count "$hidden")" 2 "after a kill"
equals "$(head -c 5 "$hidden")" again

# Zeros alone, on the way to something else: as at a close, none.
run "$VARVE" wait "$MNT"
zeros() { truncate -s 0 "$1"; dd if=/dev/zero of="$1" bs=1M count=3 conv=notrunc status=none; }
zeros "$disk"
before=$(snap_count "$disk")
run "$VARVE" revert "$first"
same "$T/a" "$disk"
equals "$(snap_count "$disk")" "$before" "a revert of zeros"
zeros "$disk"
run cp "$T/b" "$MNT/vm/.new.img"
run mv -T -f "$MNT/vm/.new.img" "$disk"
same "$T/b" "$disk"
equals "$(snap_count "$disk")" $((before + 1)) "a rename onto zeros"
zeros "$MNT/vm/two.img"
before=$(snap_count "$MNT/vm/two.img")
run "$VARVE" snapshot "$MNT/vm/two.img"
equals "$(snap_count "$MNT/vm/two.img")" $((before + 1)) "zeros that were asked for"
run "$VARVE" wait "$MNT"
stop_varve
run "$VARVE" verify "$T/store"
