#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk is removed while its writer, whose flush made a snapshot, has it open: the last close settles that snapshot, and `varve wait`
# ends.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
is_stored() { [ "$(xattr "$snap" state)" = stored ]; }
for state in stored pending; do
    exec 3<>"$disk"
    printf '%s' "$state" >&3
    python3 -c 'import os; os.close(3)'     # a flush of the shared handle
    snap=$(newest "$disk")
    if [ "$state" = stored ]; then
        run "$VARVE" snapshot --label asked "$disk" >/dev/null 3>&-     # stores what is before it, provisional or not
        eventually 20 is_stored
    fi
    run rm "$disk"
    exec 3>&-
    run "$VARVE" wait --timeout 20 "$MNT"
    equals "$(xattr "$snap" state)" stored
    equals "$(xattr "$snap" flags)" ""
    sleep 1
done
stop_varve
run "$VARVE" verify "$T/store"
