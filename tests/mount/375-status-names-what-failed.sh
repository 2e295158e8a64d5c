#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve status` names what failed, with path, reason and time, and exits 1 while it stands; 10 where nothing is mounted. It shows the
# room of STORE and of STATE, and `df` says the smaller of both.
set -eu
. "$(dirname "$0")/lib.sh"
need jq unshare
expect_errors
mkdir "$T/state"
run mount -t tmpfs -o size=64m,mode=0700 varve-case "$T/state"
at_end umount -l "$T/state"

status_is() {   # CODE [OPTION...]
    local want=$1 code=0; shift
    timeout -k 5 "$CASE_TIMEOUT" "$VARVE" status "$@" "$MNT" >"$T/out" 2>&1 || code=$?
    equals "$code" "$want" "varve status $*: $(cat "$T/out")"
}

export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
status_is 0
grep -q "free in STORE" "$T/out" || fail "no room of STORE: $(cat "$T/out")"
status_is 0 --json
state=$(jq '.[0].room.state.free' "$T/out") store=$(jq '.[0].room.store.free' "$T/out")
within() { [ "$1" -gt "$2" ] && [ "$1" -le "$3" ]; }
within "$state" 0 $((64 << 20)) || fail "free in STATE: $state"
[ "$store" -gt "$state" ] || skip "no room for STORE in $T"
avail=$(($(stat -f -c '%a * %S' "$MNT")))
within "$avail" $((32 << 20)) $((64 << 20)) || fail "df says $avail bytes, and STATE has $state"
size=$(($(stat -f -c '%b * %S' "$MNT"))) used=$(($(stat -f -c '(%b - %f) * %S' "$MNT")))
within "$used" -1 "$size" || fail "df: size $size, used $used"

run mkdir -p "$MNT/vm/deep"
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/vm/deep/disk.img"
code=0
"$VARVE" wait --timeout 60 "$MNT" >"$T/out" 2>&1 || code=$?
equals "$code" 1 "varve wait"
if ! grep -q "fault injected" "$T/out"; then skip "this build has no fault points"; fi
status_is 1
grep -q "FAILED vm/deep/disk.img: storing its snapshot: .*fault injected" "$T/out" || fail "does not name it: $(cat "$T/out")"
grep -qE "at 20[0-9-]+T[0-9:]+Z .*next attempt comes at 20[0-9-]+T[0-9:]+Z" "$T/out" || fail "no times: $(cat "$T/out")"
status_is 1 --json
equals "$(jq -r '.[0].failures[0].path' "$T/out")" vm/deep/disk.img
equals "$(jq -r '.[0].failures | length' "$T/out")" 1
stop_varve

start_varve
run "$VARVE" wait --timeout 60 "$MNT"
status_is 0
stop_varve

code=0
# shellcheck disable=SC2016
unshare -m --propagation private sh -c 'umount -l -a -t fuse.varve; exec "$0" status' "$VARVE" >"$T/out" 2>&1 || code=$?
equals "$code" 10 "nothing mounted: $(cat "$T/out")"
grep -q "nothing is mounted" "$T/out" || fail "$(cat "$T/out")"
