#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A stream relies on the snapshot that it compares with. An older snapshot that waits is published meanwhile, which is when anchors
# that no pointer needs are taken away: this one must stay, because buffers have been given up for its sake.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
random_file "$T/a" $((8 << 20))
touch "$T/pause"
export VARVE_FAULT=dedup.1a.segment:5=pause VARVE_FAULT_PAUSE=$T/pause     # four segments of the first round pass
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" wait --timeout 30 "$disk"
first=$(newest "$disk")
run dd if=/dev/urandom of="$disk" bs=4096 count=1 conv=notrunc status=none
second=$(newest "$disk")
[ "$second" != "$first" ] || fail "no second snapshot"
sleep 0.5
[ "$(xattr "$second" state)" = pending ] || skip "this build has no fault points"

CASE_TIMEOUT=60 run python3 - "$T" "$disk" "$second" <<'P'
import glob, os, sys, time
top, disk, second = sys.argv[1:]
with open(top + "/a", "rb") as f:
    data = f.read()
def state():
    return os.getxattr(second, "user.varve.state")
fd = os.open(disk, os.O_WRONLY)
for at in range(2 << 20, 6 << 20, 1 << 20):         # two segments as the first snapshot has them, held back
    os.pwrite(fd, data[at:at + (1 << 20)], at)
os.ftruncate(fd, 0)                                 # gives; from here on nothing local is below
for at in range(0, 6 << 20, 1 << 20):
    os.pwrite(fd, data[at:at + (1 << 20)], at)
time.sleep(0.5)                                     # compared, anchored
os.unlink(top + "/pause")
until = time.monotonic() + 30
while state() != b"stored":
    assert time.monotonic() < until, "the older one is not stored"
    time.sleep(0.05)
time.sleep(0.5)                                     # its anchors are seen to
os.fsync(fd)                                        # now there are pointers
left = glob.glob(top + "/store/anchors/*/0000000000000001-*.rcp")
assert left, "the live image points to a snapshot that is not anchored any more"
os.close(fd)
P
run "$VARVE" wait --timeout 30 "$disk"
cmp -n $((6 << 20)) "$T/a" "$disk"
stop_varve
run "$VARVE" verify "$T/store"
