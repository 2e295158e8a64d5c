#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disks are written, removed, made again and reverted at random while their snapshots are being stored; then the same, and the daemon is
# killed in the middle, at a random moment or at one of its steps. VARVE_SEED; VARVE_STEPS: operations of each disk; ROUNDS: kills.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
seed=${VARVE_SEED:-$RANDOM} steps=${VARVE_STEPS:-25}
echo "VARVE_SEED=$seed"
RANDOM=$((seed % 32768))
points=(names.create.prepared names.create.after_record names.save.after_record names.drop.after_record live.freeze.recorded
        live.publish.after_entries agent.finish.after_pointers store.publish.after_rename store.trash.between live.drop.after_merge
        live.drop.after_rewrite live.revert.before_record names.snap_remove.after_trash agent.failed.before_row)

model() {   # SEED STEPS PID: its exit status in $status
    status=0
    timeout -k 5 "$((120 + 20 * $2))" python3 "$(dirname "$0")/remove_model.py" "$VARVE" "$MNT" "$T/model" "$1" "$2" "$3" || status=$?
}

start_varve
model "$seed" "$steps" 0
[ "$status" = 0 ] || fail "seed $seed"
stop_varve
for round in $(seq "${ROUNDS:-3}"); do
    export VARVE_FAULT=${points[RANDOM % ${#points[@]}]}:$((1 + RANDOM % 12))=kill
    started=1
    begin_varve || started=0        # the point may lie in the recovery of what the last round left
    at=$VARVE_FAULT
    unset VARVE_FAULT
    if [ $started = 1 ]; then
        model "$seed.$round" "$steps" "$DAEMON"
        [ "$status" = 3 ] || fail "seed $seed, round $round, killed at $at: exit $status"
    fi
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    umount -f -l "$MNT" 2>/dev/null || [ $started = 0 ]
done
start_varve
model "$seed.end" 1 0
[ "$status" = 0 ] || fail "seed $seed, at the end"
stop_varve
run "$VARVE" verify "$T/store"
