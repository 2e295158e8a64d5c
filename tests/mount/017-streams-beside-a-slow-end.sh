#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The end of a publication takes as long as STORE does. Meanwhile the writers of other disks begin their streams and write.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
random_file "$T/a" $((8 << 20))
touch "$T/pause"
export VARVE_FAULT=agent.finish.after_pointers:2=pause VARVE_FAULT_PAUSE=$T/pause      # the second publication
start_varve
unset VARVE_FAULT
run mkdir "$MNT/slow" "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait --timeout 30 "$MNT/vm/disk.img"
run cp "$T/a" "$MNT/slow/disk.img"
slow=$(newest "$MNT/slow/disk.img")
sleep 0.5
[ "$(xattr "$slow" state)" = pending ] || skip "this build has no fault points"

CASE_TIMEOUT=60 run python3 - "$T" "$MNT/vm/disk.img" <<'P'
import os, sys, threading
top, disk = sys.argv[1:]
with open(top + "/a", "rb") as f:
    data = f.read()
fd = os.open(disk, os.O_WRONLY)
def write():
    for at in range(0, 8 << 20, 1 << 20):
        os.pwrite(fd, data[at:at + (1 << 20)], at)
    os.fsync(fd)
writer = threading.Thread(target=write)
writer.start()
writer.join(10)
hangs = writer.is_alive()
os.unlink(top + "/pause")
writer.join()
os.close(fd)
assert not hangs, "a writer waits for the end of another disk's publication"
P
run "$VARVE" wait --timeout 30 "$MNT/vm/disk.img" "$MNT/slow/disk.img"
cmp "$T/a" "$MNT/vm/disk.img"
cmp "$T/a" "$MNT/slow/disk.img"
stop_varve
run "$VARVE" verify "$T/store"
