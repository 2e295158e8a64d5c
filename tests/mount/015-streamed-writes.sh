#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk that is copied over itself is compared while it comes: what did not change is neither written nor read again. It must
# be seen by nobody: not by a reader in the middle, not by a snapshot, not when the snapshot that is compared with goes.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
dirty() { "$VARVE" log --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["snapshots"][-1]["dirty_segments"])'; }

random_file "$T/a" $((20 << 20))
dd if="$T/a" of="$T/a" bs=1M seek=40 count=5 conv=notrunc status=none     # a hole of ten segments, and data again
truncate -s $((50 << 20)) "$T/a"                                          # and one at the end
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp --sparse=always "$T/a" "$disk"
run "$VARVE" wait "$disk"
first=$(newest "$disk")

# The same again: nothing is dirty but what cp cut to its size at the end.
sleep 1.1
run cp --sparse=always "$T/a" "$disk"
run "$VARVE" wait "$disk"
[ "$(dirty "$disk")" -le 1 ] || fail "$(dirty "$disk") segments were dirty"
same "$T/a" "$disk"
same "$T/a" "$(newest "$disk")"
equals "$(stat -c %b "$disk")" "$(stat -c %b "$first")" "allocated blocks"

# Two segments changed, in place, without truncation.
printf 'x' | dd of="$T/a" bs=1 seek=$((3 << 20)) conv=notrunc status=none
printf 'y' | dd of="$T/a" bs=1 seek=$((41 << 20)) conv=notrunc status=none
sleep 1.1
run dd if="$T/a" of="$disk" bs=1M conv=notrunc status=none
run "$VARVE" wait "$disk"
same "$T/a" "$(newest "$disk")"
stop_varve

# What the table points to now is the first snapshot: it may go, the data may not.
start_varve
run rm "$first"
same "$T/a" "$disk"
run "$VARVE" wait "$MNT"
stop_varve
run "$VARVE" verify "$T/store"

start_varve
for seed in ${VARVE_SEED:-1 2 3}; do
    CASE_TIMEOUT=300 run python3 "$(dirname "$0")/stream_model.py" "$VARVE" "$MNT/vm/model$seed.img" "$seed" "${VARVE_STEPS:-12}"
done
stop_varve
run "$VARVE" verify "$T/store"
