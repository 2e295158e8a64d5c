#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs hold more disks open than the daemon may open files: every open, read, write, fsync and close succeeds, also of a disk that
# was open before, and none waits until another one is closed.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

ulimit -n 256
random_file "$T/image" 300000
start_varve
mkdir "$MNT/vm"
run cp "$T/image" "$MNT/vm/stored.img"
run "$VARVE" wait "$MNT"
CASE_TIMEOUT=150
run python3 "$(dirname "$0")/hold_open.py" "$MNT/vm" 4 150
used=$(find "/proc/$(daemon_of "$T/state")/fd" -mindepth 1 | wc -l)
[ "$used" -lt 200 ] || fail "$used descriptors are open"
same "$MNT/vm/stored.img" "$T/image"
equals "$(stat -c %s "$MNT/vm/3-149.img")" 8192 "a disk is not whole"
stop_varve
