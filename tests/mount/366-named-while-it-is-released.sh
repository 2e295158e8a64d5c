#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rsync writes .disk.img.XXXXXX, closes it and renames it. The release of the temporary file has looked at its name, and is not at its end, when
# the rename comes: the disk gets its snapshot, of the rename if not of the release.
set -eu
. "$(dirname "$0")/lib.sh"
: >"$T/pause"
export VARVE_FAULT=fs.release.after_rest:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
random_file "$T/image" 100000
run cp "$T/image" "$MNT/vm/.disk.img.X"
timeout 60 mv "$MNT/vm/.disk.img.X" "$MNT/vm/disk.img" &
mover=$!
# The directory cannot be listed while the kernel waits for the rename; the record of the name is changed before all else.
named() { ! grep -qF .disk.img.X "$T"/store/nodes/*; }
eventually 20 named
sleep 0.5
rm "$T/pause"
wait "$mover" || fail "mv: exit $?"
run "$VARVE" wait --timeout 60 "$MNT"
equals "$(snap_count "$MNT/vm/disk.img")" 1 "snapshots"
same "$T/image" "$(newest "$MNT/vm/disk.img")"
flags_clear "$MNT/vm/disk.img" || fail "flags: $(xattr "$(newest "$MNT/vm/disk.img")" flags)"
stop_varve
