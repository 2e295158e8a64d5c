#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Power goes when a snapshot is in STORE, but nothing of it in STATE was ever synced: the journal does not know of it. It is a good
# snapshot all the same, the live image is what it durably was, and no later snapshot gets the same sequence number.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
for f in a b c; do random_file "$T/$f" 5000000; done
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" wait "$disk"
stop_varve
cp "$T"/state/disks/*/journal "$T/journal"
[ "$("$VARVE" dump "$T/journal" | wc -l)" -gt 1 ]

export VARVE_FAULT=agent.finish.before_pointers:1=kill
start_varve
cp "$T/b" "$disk" 2>"$T/said" || cat "$T/said"      # it may be killed before cp's close is answered
if "$VARVE" wait --timeout 20 "$MNT" 2>/dev/null; then skip "this build has no fault points"; fi
killed_at "the pointers"
cat "$T/journal" >"$(echo "$T"/state/disks/*/journal)"
rm "$T/state/instance"

start_varve
equals "$(snap_count "$disk")" 2
same "$T/a" "$disk"
same "$T/b" "$(newest "$disk")"
run cp "$T/c" "$disk"
run "$VARVE" wait "$disk"
equals "$(snap_count "$disk")" 3
same "$T/c" "$(newest "$disk")"
equals "$(find "$T/store/snapshots" -name '*.rcp' -printf '%f\n' | cut -d- -f1 | sort -u | wc -l)" 3 "sequence numbers"
stop_varve
run "$VARVE" verify "$T/store"
