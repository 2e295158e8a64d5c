#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Holes stay holes: in, in the mount, and out.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

used() { echo $(($(stat -c %b "$1") * 512)); }
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
truncate -s 200M "$T/a"
for at in 0 300 9000 51199; do dd if=/dev/urandom of="$T/a" bs=4096 seek=$at count=1 conv=notrunc status=none; done
run cp --sparse=always "$T/a" "$disk"
same "$T/a" "$disk"
snap=$(newest "$disk")
for f in "$disk" "$snap"; do
    equals "$(stat -c %s "$f")" 209715200
    [ "$(used "$f")" -ge 16384 ] || fail "$f: $(used "$f") bytes used: less than there are data"
    [ "$(used "$f")" -le 16777216 ] || fail "$f: $(used "$f") bytes used of a file with 16 KiB of data"
done
[ "$(du -k "$disk" | cut -f1)" -le 16384 ] || fail "du"

check_holes() {
    run python3 - "$1" "$T/a" <<'P'
import os, sys, errno
fd = os.open(sys.argv[1], os.O_RDONLY)
want = open(sys.argv[2], "rb")
size = os.fstat(fd).st_size
pos, data = 0, 0
covered = []
while pos < size:
    try:
        d = os.lseek(fd, pos, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == errno.ENXIO, e
        break
    h = os.lseek(fd, d, os.SEEK_HOLE)
    assert pos <= d < h <= size, (pos, d, h)
    covered.append((d, h))
    data += h - d
    pos = h
for off in (0, 300, 9000, 51199):
    assert any(d <= off * 4096 and off * 4096 + 4096 <= h for d, h in covered), (off, covered)
assert data <= 16 << 20, data
assert os.lseek(fd, 0, os.SEEK_END) == size
for bad in (size, size + 1):
    try:
        os.lseek(fd, bad, os.SEEK_DATA)
        assert False, "SEEK_DATA at the end"
    except OSError as e:
        assert e.errno == errno.ENXIO
P
}
check_holes "$disk"
check_holes "$snap"
run "$VARVE" wait "$disk"
check_holes "$snap"
equals "$(xattr "$snap" state)" stored
run cp "$snap" "$T/out"
same "$T/a" "$T/out"
[ "$(used "$T/out")" -le 16777216 ] || fail "the restored copy is not sparse"

# Truncate, extend, punch, zero, allocate.
run fallocate -p -o 1228800 -l 4096 "$disk"
cp --sparse=always "$T/a" "$T/b"
fallocate -p -o 1228800 -l 4096 "$T/b"
same "$T/b" "$disk"
run truncate -s 100000001 "$disk"; truncate -s 100000001 "$T/b"
same "$T/b" "$disk"
run truncate -s 120000000 "$disk"; truncate -s 120000000 "$T/b"
same "$T/b" "$disk"
run fallocate -l 130000000 "$disk"; truncate -s 130000000 "$T/b"
same "$T/b" "$disk"
run fallocate -z -o 100 -l 10000 "$disk"; dd if=/dev/zero of="$T/b" bs=1 seek=100 count=10000 conv=notrunc status=none
same "$T/b" "$disk"
must_fail "not supported" fallocate -c -o 0 -l 4096 "$disk"
same "$T/b" "$(newest "$disk")"
same "$T/a" "$snap"

# A file of zeros, dense or not, is no backup; the first byte makes it one.
run dd if=/dev/zero of="$MNT/vm/zero.img" bs=1M count=8 status=none
equals "$(snap_count "$MNT/vm/zero.img")" 0
printf x | dd of="$MNT/vm/zero.img" bs=1 seek=7000000 conv=notrunc status=none
equals "$(snap_count "$MNT/vm/zero.img")" 1
[ "$(stat -c %b "$(newest "$MNT/vm/zero.img")")" -gt 0 ] || fail "a file with data and no blocks: tar -S would lose it"
stop_varve
