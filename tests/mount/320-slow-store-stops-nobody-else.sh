#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The end of one publication hangs in STORE. Nobody but its own disk may notice: disks of other VMs are made, written, closed, stored,
# reverted and removed meanwhile, and the disk itself can be read and listed. A close of it can be killed.
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" $((5 << 20))
random_file "$T/b" $((5 << 20))
touch "$T/pause"
export VARVE_FAULT=agent.finish.after_pointers:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/slow"
run cp "$T/a" "$MNT/slow/disk.img"
sleep 1
[ "$(xattr "$(newest "$MNT/slow/disk.img")" state)" != stored ] || skip "this build has no fault points"

copy() {    # copy N: what a host does to a VM of its own
    local vm=$MNT/vm$1
    mkdir "$vm" && cp "$T/b" "$vm/disk.img" && cp "$T/a" "$vm/disk.img" && ls -l "$vm" >/dev/null && touch "$vm/disk@label.img" &&
        cmp "$T/a" "$vm/disk.img" && mv "$vm/disk.img" "$vm/moved.img" && rm "$vm/moved.img"
}
pids=()
for n in $(seq 12); do
    (for _ in $(seq 300); do [ ! -e "$T/give-up" ] || exit 1; sleep 0.1; done) &
    watch=$!
    (copy "$n"; kill "$watch" 2>/dev/null) &
    pids+=($!)
done
left=12
for _ in $(seq 300); do
    left=0
    for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then left=$((left + 1)); fi; done
    [ "$left" -gt 0 ] || break
    sleep 0.1
done
if [ "$left" != 0 ]; then rm -f "$T/pause"; touch "$T/give-up"; fail "$left of 12 copies into other VMs hang"; fi
for pid in "${pids[@]}"; do wait "$pid" || fail "a copy into another VM failed"; done
[ -e "$T/pause" ] || fail "the pause is over"

# The disk itself.
same "$T/a" "$MNT/slow/disk.img"
same "$T/a" "$(newest "$MNT/slow/disk.img")"
run ls -l "$MNT/slow" >/dev/null
cp "$T/b" "$MNT/slow/disk.img" &
writer=$!
sleep 2
if kill -0 "$writer" 2>/dev/null; then      # its close waits for the disk: a signal ends it
    kill -9 "$writer"
    for _ in $(seq 50); do kill -0 "$writer" 2>/dev/null || break; sleep 0.1; done
    if kill -0 "$writer" 2>/dev/null; then rm -f "$T/pause"; fail "a close of the disk cannot be killed"; fi
fi
wait "$writer" || true
rm "$T/pause"
run "$VARVE" wait --timeout 30 "$MNT"
stop_varve
run "$VARVE" verify "$T/store"
