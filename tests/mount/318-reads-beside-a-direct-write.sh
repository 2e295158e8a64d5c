#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A page that is read while a write of it is on its way past the page cache is the old one. It must not stay: once the write has
# returned, everybody reads what was written. The write stops in the daemon, so that the kernel has dropped its pages by then.
# (Some kernels drop them once more when the write returns; for the others the daemon has to, see the end.)
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" 1048576
random_file "$T/b" 1048576
disk=$MNT/disk.img
touch "$T/pause"
export VARVE_FAULT=fs.write.before:2=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
run dd if="$T/a" of="$disk" bs=1M status=none
run "$VARVE" wait "$disk"
exec 7<"$disk"
cmp - "$T/a" <&7 || fail "the disk is not what was put in"
timeout 30 dd if="$T/b" of="$disk" bs=64K count=1 conv=notrunc status=none &
writer=$!
sleep 0.5
kill -0 $writer 2>/dev/null || skip "this build has no fault points"
timeout 5 dd if=/proc/self/fd/7 bs=64K count=1 status=none of="$T/meanwhile" || skip "a read waits for the write: nothing old can be kept"
cmp -n 65536 "$T/meanwhile" "$T/a" || fail "the write is seen before it has come"
rm "$T/pause"
wait $writer || fail "the write failed"
dd if=/proc/self/fd/7 bs=64K count=1 status=none | cmp -n 65536 - "$T/b" || fail "an old page stayed, for a handle of before"
head -c 65536 "$disk" | cmp -n 65536 - "$T/b" || fail "an old page stayed, for a new handle"
exec 7<&-
stop_varve

# That the daemon does tell the kernel, which may not need it: it is killed where it does, and does not come there while nobody can
# have pages of the disk.
export VARVE_FAULT=fs.write.seen:1=kill
start_varve
run dd if="$T/a" of="$disk" bs=64K count=1 conv=notrunc status=none
exec 7<"$disk"
timeout 30 dd if="$T/b" of="$disk" bs=64K count=1 conv=notrunc status=none 2>/dev/null || true
killed_at "the end of a write beside a reader"
exec 7<&-
