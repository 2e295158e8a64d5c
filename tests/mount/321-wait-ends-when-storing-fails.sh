#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STORE is full, a large disk cannot be stored: `varve wait` ends with 1 and says why, `varve status` counts the failed snapshot, and
# the daemon tries again as its backoff says, not as often as somebody asks.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
mkdir "$T/small"
run mount -t tmpfs -o size=64m varve-case "$T/small"
at_end umount -l "$T/small"
run "$VARVE" init "$T/small/store" >/dev/null
ln -s small/store "$T/store"
export INIT_DONE=1
start_varve
random_file "$T/a" $((200 << 20))
run mkdir "$MNT/vm"
CASE_TIMEOUT=120 run cp "$T/a" "$MNT/vm/disk.img"

rounds() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["round"]["rounds"])' "$MNT/.varve/status.json"; }
failed() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["totals"]["failed"])' "$MNT/.varve/status.json"; }
ticks() { awk '{print $14 + $15}' "/proc/$DAEMON/stat"; }

code=0
timeout -k 5 120 "$VARVE" wait "$MNT" >"$T/out" 2>&1 || code=$?
equals "$code" 1 "varve wait: $(cat "$T/out")"
grep -q "disk" "$T/out" || fail "does not name the disk: $(cat "$T/out")"
grep -qi "no space" "$T/out" || fail "does not say why: $(cat "$T/out")"
equals "$(failed)" 1 "failed snapshots in status.json"
before=$(rounds)
for _ in 1 2 3; do
    code=0
    timeout -k 5 120 "$VARVE" wait --timeout 20 "$MNT" >"$T/out" 2>&1 || code=$?
    equals "$code" 1 "a later varve wait"
    equals "$(failed)" 1 "failed snapshots while it is tried again"
done
tried=$(($(rounds) - before))
[ "$tried" -le 8 ] || fail "$tried rounds for three waits"

# Room again: it is stored by itself.
run mount -o remount,size=600m "$T/small"
CASE_TIMEOUT=120 run "$VARVE" wait --timeout 100 "$MNT"
equals "$(failed)" 0
equals "$(xattr "$(newest "$MNT/vm/disk.img")" state)" stored
stop_varve
