#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The tools that people move disks with.
set -eu
. "$(dirname "$0")/lib.sh"
need rsync qemu-img tar

start_varve
run mkdir "$MNT/vm" "$MNT/vm2"
random_file "$T/a" 6000000
cp "$T/a" "$T/b"; dd if=/dev/urandom of="$T/b" bs=4096 seek=500 count=3 conv=notrunc status=none

# rsync: temporary name and rename; then a delta; then in place.
run rsync -a "$T/a" "$MNT/vm/r.img"
equals "$(snap_count "$MNT/vm/r.img")" 1
same "$T/a" "$(newest "$MNT/vm/r.img")"
run rsync -a --no-whole-file --ignore-times "$T/b" "$MNT/vm/r.img"
equals "$(snap_count "$MNT/vm/r.img")" 2
same "$T/b" "$(newest "$MNT/vm/r.img")"
run rsync -a --inplace --no-whole-file --ignore-times "$T/a" "$MNT/vm/r.img"
equals "$(snap_count "$MNT/vm/r.img")" 3
same "$T/a" "$MNT/vm/r.img"
equals "$(find "$MNT/vm" -mindepth 1 -maxdepth 1 -name '.r*')" ""
run rsync -a "$MNT/vm/" "$T/rsync-out/"
same "$T/a" "$T/rsync-out/r.img"

# cp -a keeps times and mode, and does not stumble over ACLs.
chmod 640 "$T/a"; touch -d '2020-02-02 02:02:02' "$T/a"
run cp -a "$T/a" "$MNT/vm/cp.img"
equals "$(stat -c '%a %Y' "$MNT/vm/cp.img")" "640 $(stat -c %Y "$T/a")"
equals "$(snap_count "$MNT/vm/cp.img")" 1
run cp -a "$(newest "$MNT/vm/cp.img")" "$T/cp-out"
same "$T/a" "$T/cp-out"

# dd in place, at an odd offset, growing, with fsync.
run dd if="$T/b" of="$MNT/vm/cp.img" bs=1000 skip=7 seek=7 conv=notrunc,fsync status=none
head -c 7000 "$T/a" >"$T/want"; tail -c +7001 "$T/b" >>"$T/want"
same "$T/want" "$MNT/vm/cp.img"
equals "$(snap_count "$MNT/vm/cp.img")" 2

# tar in and out, sparse.
mkdir "$T/tree"; cp "$T/a" "$T/tree/t1.img"; cp "$T/b" "$T/tree/t2.img"; truncate -s 20M "$T/tree/t1.img"
run tar -C "$T" -cSf "$T/t.tar" tree
run tar -C "$MNT/vm2" -xf "$T/t.tar"
same "$T/tree/t1.img" "$MNT/vm2/tree/t1.img"
same "$T/tree/t2.img" "$MNT/vm2/tree/t2.img"
equals "$(snap_count "$MNT/vm2/tree/t1.img")" 1
run tar -C "$MNT/vm2" -cSf "$T/t2.tar" tree
[ "$(stat -c %s "$T/t2.tar")" -lt 33000000 ] || fail "tar -S lost the holes"

# qemu-img: raw and qcow2, in, out, and a check.
run qemu-img convert -f raw -O raw "$T/a" "$MNT/vm/q.img"
same "$MNT/vm/q.img" "$(newest "$MNT/vm/q.img")"
equals "$(qemu-img compare -f raw -F raw "$T/a" "$MNT/vm/q.img" | tail -1)" "Images are identical."
equals "$(xattr "$(newest "$MNT/vm/q.img")" flags)" ""
run qemu-img convert -f raw -O qcow2 "$T/a" "$MNT/vm/q.qcow2"
run qemu-img check -q "$MNT/vm/q.qcow2"
snap=$(newest "$MNT/vm/q.qcow2")
run qemu-img convert -f qcow2 -O raw "$snap" "$T/q.out"
equals "$(qemu-img compare -f raw -F raw "$T/a" "$T/q.out" | tail -1)" "Images are identical."
run qemu-img create -q -f qcow2 -b "$snap" -F qcow2 "$T/overlay.qcow2"  # a snapshot as a backing file, by its odd name
run qemu-img info "$T/overlay.qcow2" >/dev/null

# mv out of and into the mount, and between its directories.
cp "$T/b" "$T/mv"
run mv "$T/mv" "$MNT/vm/mv.img"
same "$T/b" "$MNT/vm/mv.img"
run mv "$MNT/vm/mv.img" "$MNT/vm2/mv.img"
same "$T/b" "$MNT/vm2/mv.img"
equals "$(snap_count "$MNT/vm2/mv.img")" 1
run mv "$MNT/vm2/mv.img" "$T/mv-out"
same "$T/b" "$T/mv-out"
run "$VARVE" wait "$MNT"
stop_varve
