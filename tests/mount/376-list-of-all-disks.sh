#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve list` shows every disk with its last good snapshot, state, flags and failure; a directory or a disk alone too; others see what
# they may read. It opens no file of a disk or of STORE, however many disks there are.
set -eu
. "$(dirname "$0")/lib.sh"
need jq strace setpriv
expect_errors
disk() { jq -c --arg p "$1" '.[0].disks[] | select(.path == $p)' "$T/list"; }
list() { run "$VARVE" list --json "$@" >"$T/list"; }

start_varve
run mkdir -p "$MNT/vm/sub" "$MNT/other"
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/vm/good.img"
run cp "$T/a" "$MNT/vm/sub/gone.img"
run cp "$T/a" "$MNT/other/mine.img"
run touch "$MNT/vm/empty.img"
run "$VARVE" wait "$MNT"
run rm "$MNT/vm/sub/gone.img"
good=$(basename "$(newest "$MNT/vm/good.img")")
run "$VARVE" snapshot "$MNT/vm/good.img" >/dev/null
run "$VARVE" wait "$MNT"
later=$(basename "$(newest "$MNT/vm/good.img")")
[ "$later" != "$good" ] || fail "no second snapshot"

list "$MNT"
equals "$(jq '.[0].disks | length' "$T/list")" 4
equals "$(jq -r '.[0].mountpoint' "$T/list")" "$MNT"
equals "$(jq -r '.[0].host' "$T/list")" testhost
equals "$(jq -r '[.[0].disks[].path] | join(" ")' "$T/list")" "other/mine.img vm/empty.img vm/good.img vm/sub/gone.img"
equals "$(disk vm/good.img | jq -r '.state, .live, .size, .pending, .failure, .host' | xargs)" "stored true $((3 << 20)) 0 null testhost"
equals "$(disk vm/good.img | jq -r .last_good.name)" "$later"
[ "$(disk vm/good.img | jq .last_good.age_seconds)" -ge 0 ] || fail "age: $(disk vm/good.img)"
equals "$(disk vm/empty.img | jq -r '.state, .last_good, .size' | xargs)" "none null null"
equals "$(disk vm/sub/gone.img | jq -r '.state, .live' | xargs)" "stored false"

# A directory, a disk.
list "$MNT/vm/sub" "$MNT/vm/good.img" "$MNT/other"
equals "$(jq -r '[.[].disks[].path] | join(" ")' "$T/list")" "vm/sub/gone.img vm/good.img other/mine.img"
run "$VARVE" list "$MNT/vm" >"$T/out"
grep -qE "^20[0-9TZ:-]+ .* stored +3.0 MiB testhost +$MNT/vm/good.img$" "$T/out" || fail "$(cat "$T/out")"
grep -qE "^none .* none .* $MNT/vm/empty.img$" "$T/out" || fail "$(cat "$T/out")"
grep -qE "removed,stored .* $MNT/vm/sub/gone.img$" "$T/out" || fail "$(cat "$T/out")"

# What another user may read.
chmod 755 "$T" "$MNT/other" "$MNT/vm"
chmod 700 "$MNT/vm/sub"
chmod 600 "$MNT/vm/empty.img" "$MNT/vm/good.img"
chmod 644 "$MNT/other/mine.img"
setpriv --reuid 1001 --regid 1001 --clear-groups "$VARVE" list --json "$MNT" >"$T/list"
equals "$(jq -r '[.[0].disks[] | .path] | join(" ")' "$T/list")" "other/mine.img"
must_fail "not in a varve mount" "$VARVE" list "$T"

# No file is opened, with many disks.
for i in $(seq 200); do : >"$MNT/other/d$i.img"; done
strace -f -q -e trace=open,openat -o "$T/trace" -p "$DAEMON" &
tracer=$!
eventually 30 grep -q "^TracerPid:[[:space:]]*$tracer$" "/proc/$DAEMON/status"
list "$MNT"
kill "$tracer"
wait "$tracer" || true
equals "$(jq '.[0].disks | length' "$T/list")" 204
# (Images of the next disks may just be being made: .tmp-ID.)
if grep -E "open" "$T/trace" | grep -vE '"/proc/|"/sys/|"verified"|"\.tmp-' >&2; then fail "opened these files for a list"; fi
stop_varve

# A failure, and a writer that was killed.
export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
random_file "$T/b" $((6 << 20))
run cp "$T/b" "$MNT/vm/good.img"
code=0
"$VARVE" wait --timeout 60 "$MNT/vm/good.img" >"$T/out" 2>&1 || code=$?
if ! grep -q "fault injected" "$T/out"; then skip "this build has no fault points"; fi
equals "$code" 1
list "$MNT/vm"
equals "$(disk vm/good.img | jq -r '.state, .size, .pending, .pending_bytes' | xargs)" "failed $((6 << 20)) 1 $((6 << 20))"
equals "$(disk vm/good.img | jq -r .last_good.name)" "$later" "the last good one"
disk vm/good.img | jq -r .failure.reason | grep -q "fault injected" || fail "no reason: $(disk vm/good.img)"
run "$VARVE" list "$MNT/vm" >"$T/out"
grep -q "storing its snapshot failed at 20.*fault injected" "$T/out" || fail "$(cat "$T/out")"
stop_varve
