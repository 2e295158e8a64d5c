#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Roll back and clone: by cp, by copy_file_range, by varve revert; pending and stored snapshots; nothing is lost by it.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

clone() { # FROM TO: copy_file_range from the beginning to the end
    run python3 - "$1" "$2" <<'P'
import os, sys
src = os.open(sys.argv[1], os.O_RDONLY)
dst = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT, 0o640)
left = os.fstat(src).st_size
while left:
    n = os.copy_file_range(src, dst, left)
    assert n > 0, n
    left -= n
os.close(dst)
P
}

start_varve
run mkdir "$MNT/vm" "$MNT/vm2"
disk=$MNT/vm/disk.img
random_file "$T/a" 9000000
truncate -s 30M "$T/a"
random_file "$T/b" 8500000
run cp "$T/a" "$disk"
first=$(newest "$disk")
clone "$first" "$MNT/vm2/early.img"                     # perhaps still pending: bytes are copied
same "$T/a" "$MNT/vm2/early.img"
run cp "$T/b" "$disk"
run "$VARVE" wait "$MNT"

# Back, and what was there before is a snapshot too.
run "$VARVE" revert "$first"
same "$T/a" "$disk"
printf unsaved | dd of="$disk" bs=1 seek=5 conv=notrunc status=none
cp "$disk" "$T/unsaved"
run "$VARVE" wait "$MNT"
run "$VARVE" revert "$first"
same "$T/a" "$disk"
same "$T/unsaved" "$(snaps "$disk" | sort | while read -r s; do cmp -s "$T/unsaved" "$s" && echo "$s"; done | tail -1)"

# By cp: onto the disk, and into another VM.
run cp "$(snaps "$disk" | sed -n 2p)" "$disk"
same "$T/b" "$disk"
run cp "$first" "$MNT/vm2/clone.img"
same "$T/a" "$MNT/vm2/clone.img"
equals "$(snap_count "$MNT/vm2/clone.img")" 1

# By pointers, unaligned pieces included.
clone "$first" "$MNT/vm2/ptr.img"
same "$T/a" "$MNT/vm2/ptr.img"
equals "$(snap_count "$MNT/vm2/ptr.img")" 1
clone "$MNT/vm2/ptr.img" "$MNT/vm2/ptr2.img"            # of a live image
same "$T/a" "$MNT/vm2/ptr2.img"
run python3 - "$first" "$MNT/vm2/odd.img" "$T/a" <<'P'
import os, sys
src = os.open(sys.argv[1], os.O_RDONLY)
dst = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT, 0o640)
want = open(sys.argv[3], "rb").read()
done = 0
while done < 5000000:
    n = os.copy_file_range(src, dst, 5000000 - done, 1001 + done, 77 + done)
    assert n > 0
    done += n
assert os.pread(dst, 6000000, 0) == bytes(77) + want[1001:5001001]
P
# A clone is independent.
printf other | dd of="$MNT/vm2/ptr.img" bs=1 seek=4096 conv=notrunc status=none
same "$T/a" "$MNT/vm2/ptr2.img"
same "$T/a" "$first"
run "$VARVE" wait "$MNT"
run rm "$MNT/vm/disk.img"
for s in $(snaps "$disk"); do run rm "$s"; done
run rmdir "$MNT/vm"
same "$T/a" "$MNT/vm2/ptr2.img"
same "$T/a" "$MNT/vm2/clone.img"

# Blocks reported dense: cp inside the mount goes by pointers.
stop_varve
start_varve blocks=dense
snap=$(snaps "$MNT/vm2/clone.img" | head -1)
equals "$(($(stat -c %b "$snap") * 512))" "$(stat -c %s "$snap")"
run cp "$snap" "$MNT/vm2/dense.img"
same "$T/a" "$MNT/vm2/dense.img"
stop_varve
