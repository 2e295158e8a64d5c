#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STORE is put back from an older copy, and then another STATE, which cannot know which numbers were issued, writes into it: containers get
# numbers that the first STATE's live image points to. The image stays an error, and its next snapshot shows nothing of the other disk.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
for i in 1 2 3; do random_file "$T/d$i" 5000000; done
lost() { must_fail "Input/output error" dd if="$1" of="$T/got" bs=1M skip="$2" count=1 iflag=direct; }

start_varve
run mkdir "$MNT/vm" "$MNT/other"
run cp "$T/d1" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
stop_varve
cp -a "$T/store" "$T/store.old"
start_varve
run cp "$T/d2" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/a.img")
run cp "$T/d1" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
run "$VARVE" revert "$snap"
stop_varve
rm -rf "$T/store"
cp -a "$T/store.old" "$T/store"

VARVE_OPTS=state=$T/state2 start_varve
run cp "$T/d3" "$MNT/other/n.img"
run "$VARVE" wait "$MNT"
stop_varve

start_varve
for at in 0 2 4; do lost "$MNT/vm/a.img" "$at"; done
same "$T/d3" "$(newest "$MNT/other/n.img")"
must_fail "LOST vm/a.img: 3 of 3 segments" "$VARVE" status "$MNT"

# The snapshot of a disk with lost segments says that it is partial, and has what is there.
run dd if="$T/d1" of="$MNT/vm/a.img" bs=2M count=1 conv=notrunc status=none
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/a.img")
equals "$(snap_count "$MNT/vm/a.img")" 2
has_flag "$snap" partial || fail "the snapshot of a disk with lost segments is not partial"
cmp -n 2097152 "$T/d1" "$snap"
for at in 2 4; do lost "$snap" "$at"; lost "$MNT/vm/a.img" "$at"; done
stop_varve
# A host that never knew of all this reads the same.
VARVE_OPTS=state=$T/state3 start_varve
snap=$(newest "$MNT/vm/a.img")
cmp -n 2097152 "$T/d1" "$snap"
for at in 2 4; do lost "$snap" "$at"; done
same "$T/d3" "$(newest "$MNT/other/n.img")"
stop_varve
