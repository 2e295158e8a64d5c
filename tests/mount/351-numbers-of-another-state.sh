#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STORE is put back from an older copy, and then another STATE, which cannot know which numbers were issued, writes into it: containers get
# numbers that the first STATE's live image points to. The image stays an error, and its next snapshot shows nothing of the other disk.
set -eu
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/put_back.sh"

newer_than_copy "$T/d1" "$T/d2" "$T/d1"
put_back

VARVE_OPTS=state=$T/state2 start_varve
run cp "$T/d3" "$MNT/other/n.img"
run "$VARVE" wait "$MNT"
stop_varve

start_varve
lost "$MNT/vm/a.img"
same "$T/d3" "$(newest "$MNT/other/n.img")"
must_fail "LOST vm/a.img: 3 of 3 segments" "$VARVE" status "$MNT"

# The snapshot of a disk with lost segments says that it is partial, and has what is there.
run dd if="$T/d1" of="$MNT/vm/a.img" bs=2M count=1 conv=notrunc status=none
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/a.img")
equals "$(snap_count "$MNT/vm/a.img")" 2
has_flag "$snap" partial || fail "the snapshot of a disk with lost segments is not partial"
cmp -n 2097152 "$T/d1" "$snap"
lost "$snap" 1 2
lost "$MNT/vm/a.img" 1 2

# A lost segment that is written in part cannot be stored, and nothing is made up for the rest of it: the snapshot fails and says why.
# Once it is removed, a new copy of the disk is stored and makes all whole.
run dd if="$T/d1" of="$MNT/vm/a.img" bs=4096 seek=600 count=1 conv=notrunc status=none
must_fail "is not the file that this host knows" "$VARVE" wait "$MNT"
failed=$(newest "$MNT/vm/a.img")
[ "$failed" != "$snap" ] || fail "there is no failed snapshot"
run cp "$T/d3" "$MNT/vm/a.img"
run rm "$failed"
run "$VARVE" wait "$MNT"
same "$T/d3" "$MNT/vm/a.img"
same "$T/d3" "$(newest "$MNT/vm/a.img")"
run "$VARVE" status "$MNT" >"$T/status"
stop_varve
# A host that never knew of all this reads the same.
VARVE_OPTS=state=$T/state3 start_varve
snap=$(snaps "$MNT/vm/a.img" | while read -r s; do if has_flag "$s" partial; then echo "$s"; fi; done | head -1)
cmp -n 2097152 "$T/d1" "$snap"
lost "$snap" 1 2
same "$T/d3" "$(newest "$MNT/vm/a.img")"
same "$T/d3" "$(newest "$MNT/other/n.img")"
stop_varve
