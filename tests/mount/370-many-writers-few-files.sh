#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Many processes append to, rewrite and sync the same disks, so that closes come faster than snapshots are stored: no call fails, also
# where the limit of open files is 1024, or 256.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

random_file "$T/image" 3000000
for limit in 1024 256; do
    (
        rm -rf "$T/store" "$T/state"
        INIT_DONE=
        ulimit -n "$limit"
        start_varve
        mkdir "$MNT/vm"
        run python3 "$(dirname "$0")/many_writers.py" "$MNT/vm" 5 40
        run cp "$T/image" "$MNT/vm/last"
        same "$(newest "$MNT/vm/last")" "$T/image"
        stop_varve
    )
done
