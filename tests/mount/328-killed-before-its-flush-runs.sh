#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A writer is killed, and has ended before its flush comes to its turn: the snapshot is partial all the same.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
touch "$T/pause"
export VARVE_FAULT=fs.flush.run:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
python3 -c 'import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"data" * 5000, 0)
open(sys.argv[2], "w").close()
time.sleep(60)' "$MNT/vm/disk.img" "$T/written" &
writer=$!
eventually 20 test -e "$T/written"
kill -9 "$writer"
wait "$writer" || true                  # the kill interrupts the flush, which is answered while it is held up
more_snaps_than 0 "$MNT/vm/disk.img" && skip "this build has no fault points"
rm "$T/pause"
eventually 20 more_snaps_than 0 "$MNT/vm/disk.img"
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(xattr "$(newest "$MNT/vm/disk.img")" flags)" partial
stop_varve
