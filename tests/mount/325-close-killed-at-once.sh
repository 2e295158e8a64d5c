#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program is killed in close() before its flush has come to the queue of the disk: the release of the file stays behind the flush.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
touch "$T/pause"
export VARVE_FAULT=fs.flush.parked:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"data" * 5000, 0)
os.close(fd)' "$MNT/vm/disk.img" &
closer=$!
sleep 3
kill -9 "$closer" 2>/dev/null || skip "this build has no fault points"
sleep 2
rm "$T/pause"
wait "$closer" || true
eventually 20 more_snaps_than 0 "$MNT/vm/disk.img"
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/disk.img")" 1
stop_varve
run "$VARVE" verify "$T/store"
