#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot, or a look at a disk that is in use, does not take the disk's pages out of the kernel's cache; and whoever opens it
# reads what was written last, by whichever way, all the same.
set -eu
. "$(dirname "$0")/lib.sh"
need fincore
start_varve
random_file "$T/a" 8388608
random_file "$T/b" 8388608
disk=$MNT/disk.img
run cp "$T/a" "$disk"
# It opens the disk, too.
resident() { fincore --bytes --noheadings -o RES "$disk" | tr -d ' '; }
# Opens it for reading and writing, as a VM does, reads it, and holds it.
hold() {
    exec 7<>"$disk"
    cat <&7 >/dev/null
}
hold
equals "$(resident)" 8388608 "pages of a disk that was read"
run "$VARVE" snapshot "$disk"
run "$VARVE" wait "$disk"
run head -c 100 "$disk" >/dev/null
equals "$(resident)" 8388608 "pages after a snapshot"

# Others write past the cache while it is held, before and after others open it.
for i in 1 2 3 4; do
    if [ $((i % 2)) = 1 ]; then new=$T/b; else new=$T/a; fi
    run dd if="$new" of="$disk" bs=64K skip=$((i * 8)) seek=$((i * 8)) count=8 conv=notrunc status=none
    dd if="$new" of="$T/want" bs=64K skip=$((i * 8)) count=8 status=none
    dd if="$disk" bs=64K skip=$((i * 8)) count=8 status=none | cmp - "$T/want" || fail "part $i is not what was written"
    dd if=/proc/self/fd/7 bs=64K skip=$((i * 8)) count=8 status=none | cmp - "$T/want" || fail "part $i through the held handle"
done
run "$VARVE" snapshot --label before "$disk"
run dd if="$T/b" of="$disk" bs=1M conv=notrunc status=none
same "$T/b" "$disk"
exec 7<&-
run "$VARVE" wait "$disk"

# What was stored through a mapping is in the snapshot. (The one who maps must not fork: that closes, and a close writes it.)
coproc mapper { python3 -c '
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(fd, 8388608)
os.pread(fd, 100, 0)
for line in sys.stdin:
    view[5000000:5000006] = line.strip().encode()
    print("stored", flush=True)
' "$disk"; }
echo text-1 >&"${mapper[1]}"
read -r answer <&"${mapper[0]}"
equals "$answer" stored
run "$VARVE" snapshot --label mapped "$disk"
equals "$(dd if="$MNT/disk@mapped.img" bs=1 skip=5000000 count=6 status=none)" text-1 "what a mapping wrote, in the snapshot"
eval "exec ${mapper[1]}>&-"
wait "${mapper_PID:-}" || true
run "$VARVE" wait "$disk"

# Nobody holds it: then nobody tells the kernel of changes, and pages of before go with the next open.
run cat "$disk" >/dev/null
equals "$(resident)" 0 "pages after an open of a disk that nobody held"
run cat "$disk" >/dev/null
run dd if="$T/a" of="$disk" bs=1M conv=notrunc status=none
hold
same "$T/a" "$disk"
exec 7<&-
# A rollback changes all of it at once.
run "$VARVE" wait "$disk"
run "$VARVE" revert "$MNT/disk@before.img"
hold
same "$disk" "$MNT/disk@before.img"
exec 7<&-
stop_varve
