#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Only containers/, or only snapshots/ and anchors/, of STORE come back from an older copy. What lacks its containers is an error and never
# other bytes, through live image and snapshots, whatever is stored later; what the index still promises is stored anew.
set -eu
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/put_back.sh"

newer_than_copy "$T/d1" "$T/d2" "$T/d4"
put_back containers
start_varve
must_fail "LOST vm/a.img: 3 of 3 segments" "$VARVE" status "$MNT"
for name in vm/n.img other/n.img; do
    run cp "$T/d3" "$MNT/$name"
    run "$VARVE" wait "$MNT"
    lost "$MNT/vm/a.img"
    lost "$snap"
    same "$T/d3" "$MNT/$name"
done
# The same bytes again: the index says that they are stored, and they are not.
run cp "$T/d2" "$MNT/other/m.img"
run "$VARVE" wait "$MNT"
same "$T/d2" "$(newest "$MNT/other/m.img")"
stop_varve
start_varve
lost "$MNT/vm/a.img"
lost "$snap"
same "$T/d2" "$(newest "$MNT/other/m.img")"
same "$T/d3" "$(newest "$MNT/vm/n.img")"
same "$T/d1" "$(snaps "$MNT/vm/a.img" | head -1)"
stop_varve

rm -rf "$T/store" "$T/store.old" "$T/state"
INIT_DONE=
newer_than_copy "$T/d1" "$T/d2" "$T/d4"
put_back snapshots anchors
start_varve
run "$VARVE" status "$MNT" >"$T/status"
equals "$(snap_count "$MNT/vm/a.img")" 1
same "$T/d1" "$(newest "$MNT/vm/a.img")"
same "$T/d2" "$MNT/vm/a.img"
run cp "$T/d3" "$MNT/other/n.img"
run dd if="$T/d3" of="$MNT/vm/a.img" bs=1M count=2 conv=notrunc status=none
run "$VARVE" wait "$MNT"
same "$T/d3" "$(newest "$MNT/other/n.img")"
{ head -c 2097152 "$T/d3"; tail -c +2097153 "$T/d2"; } >"$T/want"
same "$T/want" "$MNT/vm/a.img"
same "$T/want" "$(newest "$MNT/vm/a.img")"
stop_varve
run "$VARVE" verify "$T/store"
