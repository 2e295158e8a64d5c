#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A note is set on a stored, provisional snapshot while the last writer of its disk closes: neither change of the side file and of
# the row undoes the other, and `varve wait` ends.
set -eu
. "$(dirname "$0")/lib.sh"
need python3 setfattr

touch "$T/pause"
export VARVE_FAULT=names.snap_attr.after_file:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
is_stored() { [ "$(xattr "$snap" state)" = stored ]; }

exec 3<>"$disk"
printf again >&3
python3 -c 'import os; os.close(3)'     # a flush of the shared handle
snap=$(newest "$disk")
run "$VARVE" snapshot --label asked "$disk" >/dev/null 3>&-     # stores what is before it, provisional or not
eventually 20 is_stored
has_flag "$snap" provisional || fail "not provisional while its writer is open"

setfattr -n user.varve.note -v "beside it" "$snap" 3>&- &
noted=$!
sleep 1
exec 3>&-                               # the last close settles the snapshot
sleep 2
kill -0 "$noted" 2>/dev/null || skip "this build has no fault points"
rm "$T/pause"
wait "$noted" || fail "setfattr"
run "$VARVE" wait --timeout 20 "$MNT"
equals "$(xattr "$snap" flags)" ""
equals "$(xattr "$snap" note)" "beside it"
stop_varve

# STORE says the same: the rows of the next mount are made of it.
unset VARVE_FAULT
rm "$T/state/catalog.sqlite"*
start_varve
equals "$(xattr "$snap" flags)" "" "the side file"
equals "$(xattr "$snap" note)" "beside it"
stop_varve
