#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve health` exits 0, 1 or 2 and says in one line why: age of the last good snapshot, failures, partial snapshots, damaged reads, room,
# age of the last verify, whose date survives a restart.
set -eu
. "$(dirname "$0")/lib.sh"
need jq python3 unshare
expect_errors
mkdir "$T/state"
run mount -t tmpfs -o size=64m,mode=0700 varve-case "$T/state"
at_end umount -l "$T/state"

# health_is CODE TEXT [OPTION...]: without looking at how full the filesystem of this machine is.
health_code() {
    local code=0
    timeout -k 5 "$CASE_TIMEOUT" "$VARVE" health --min-free 0 "$@" "$MNT" >"$T/out" 2>&1 || code=$?
    echo "$code"
}
becomes() { local code=$1 text=$2; shift 2; [ "$(health_code "$@")" = "$code" ] && grep -qE "$text" "$T/out"; }
health_is() {
    local code=$1 text=$2; shift 2
    equals "$(health_code "$@")" "$code" "varve health $*: $(cat "$T/out")"
    grep -qE "$text" "$T/out" || fail "varve health $*: no '$text' in: $(cat "$T/out")"
    equals "$(wc -l <"$T/out")" 1 "lines"
}

start_varve
run mkdir "$MNT/vm"
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
touch "$MNT/vm/.tmp.img"
health_is 0 '^VARVE OK - 1 disk, the oldest last good snapshot is .* old \| disks=1 problems=0 '
eventually 30 becomes 2 "^VARVE CRITICAL - $MNT/vm/disk.img: no good snapshot for .*limit 1 s" --max-age 1s
health_is 0 OK --max-age 0
touch "$MNT/vm/new.img"
health_is 0 OK
eventually 30 becomes 2 "vm/new.img: no good snapshot, and it was made" --max-age 1s
rm "$MNT/vm/new.img"
code=0; "$VARVE" health --max-age soon "$MNT" 2>/dev/null || code=$?
equals "$code" 2 "a wrong option"

# The date of a verify.
eventually 30 becomes 1 "^VARVE WARNING - .*varve verify never ended here" --verify-age 1s
run "$VARVE" verify --quick "$MNT" >/dev/null
run test ! -e "$T/state/verified"
run "$VARVE" verify "$MNT" >/dev/null
run test -s "$T/state/verified"
health_is 0 OK
eventually 30 becomes 1 "last varve verify is .* old" --verify-age 1s
equals "$("$VARVE" status --json "$MNT" | jq '.[0].last_verify | .damaged, .snapshots' | xargs)" "0 1"
stop_varve
start_varve
equals "$("$VARVE" status --json "$MNT" | jq '.[0].last_verify.snapshots')" 1 "after a restart"

# Room.
fallocate -l 40m "$T/state/.ballast"
code=0; "$VARVE" health --min-free 99 "$MNT" >"$T/out" 2>&1 || code=$?
if [ "$code" -lt 1 ] || ! grep -q "STATE is nearly full: .*free" "$T/out"; then fail "a full STATE: $code, $(cat "$T/out")"; fi
rm "$T/state/.ballast"

# A writer that was killed.
python3 -c 'import os, signal, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
os.write(fd, os.urandom(1 << 20))
os.kill(os.getpid(), signal.SIGKILL)' "$MNT/vm/disk.img" || true
eventually 30 becomes 1 "newest snapshot is partial"
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
health_is 0 OK

# Damage: what was read stays critical until a verify finds nothing.
old=$(snaps "$MNT/vm/disk.img" | head -n 1)
file=$(find "$T/store/containers" -name '*.vc' -size +2M | sort | head -n 1)
[ -n "$file" ] || fail "no container of blocks"
cp "$file" "$T/whole"
python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(1 << 20); b = f.read(4096); f.seek(1 << 20); f.write(bytes(x ^ 255 for x in b))' "$file"
stop_varve
start_varve
if cat "$old" >/dev/null 2>&1; then fail "damage was not seen"; fi
health_is 2 "CRITICAL.*reads met damage"
code=0; "$VARVE" verify "$MNT" >/dev/null 2>&1 || code=$?
equals "$code" 20 "verify"
health_is 2 "last varve verify found damage"
cat "$T/whole" >"$file"
sleep 1.1       # dates have seconds
run "$VARVE" verify "$MNT" >/dev/null
health_is 0 OK
stop_varve

# A snapshot that cannot be stored.
export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
run cp "$T/a" "$MNT/vm/disk.img"
code=0
"$VARVE" wait --timeout 60 "$MNT" >"$T/out" 2>&1 || code=$?
if ! grep -q "fault injected" "$T/out"; then skip "this build has no fault points"; fi
health_is 2 "^VARVE CRITICAL - $MNT/vm/disk.img: storing its snapshot failed: .*fault injected"
"$VARVE" health --json "$MNT" >"$T/out" || true
equals "$(jq -r '.health, .problems[0].severity, .problems[0].path' "$T/out" | xargs)" "CRITICAL CRITICAL $MNT/vm/disk.img"
stop_varve

code=0
# shellcheck disable=SC2016
unshare -m --propagation private sh -c 'umount -l -a -t fuse.varve; exec "$0" health' "$VARVE" >"$T/out" 2>&1 || code=$?
equals "$code" 2 "nothing mounted: $(cat "$T/out")"
grep -q "^VARVE CRITICAL - varve: nothing is mounted here" "$T/out" || fail "$(cat "$T/out")"
