#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A label changes while its snapshot is being stored, and power goes between the side file in STORE, which has the new label, and
# the journal, which has not. Which of the two it is called afterwards is open; but it must be called the same at each start.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
random_file "$T/a" 5000000
touch "$T/pause"
export VARVE_FAULT=dedup.1a.segment:1=pause,agent.finish.before_pointers:1=kill VARVE_FAULT_PAUSE=$T/pause
start_varve
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
snap=$(newest "$MNT/vm/disk.img")
eventually 10 test "$(xattr "$snap" flags)" = ""
[ "$(xattr "$snap" state)" = pending ] || skip "this build has no fault points"
run sync "$MNT/vm/disk.img"     # seals it, under its first name
cp "$T"/state/disks/*/journal "$T/journal"
run mv "$snap" "$MNT/vm/disk@moved.img"
rm "$T/pause"
killed_at "the side file"
# As after a loss of power: what was appended without an fsync is not there, and what is volatile is not believed.
cat "$T/journal" >"$(echo "$T"/state/disks/*/journal)"
rm "$T/state/instance"

start_varve
run "$VARVE" wait --timeout 20 "$MNT/vm/disk.img"
equals "$(snap_count "$MNT/vm/disk.img")" 1
name=$(newest "$MNT/vm/disk.img")
for _ in 1 2; do
    stop_varve
    start_varve
    equals "$(newest "$MNT/vm/disk.img")" "$name" "the name at a later start"
done
same "$T/a" "$name"
stop_varve
equals "$(find "$T/store/snapshots" -name '*.attr' | wc -l)" 1 "side files: the kill came before the one that this is about"
