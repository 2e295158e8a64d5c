#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A kill between the journals of a group freeze: some disks have the snapshot, others not. Each is whole, and the log says how
# many of the group are there.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
start_varve
run mkdir "$MNT/vm"
for d in a b; do random_file "$T/$d" 3000000; run cp "$T/$d" "$MNT/vm/$d.img"; done
run "$VARVE" wait "$MNT"
run "$VARVE" log "$MNT/vm/a.img" >"$T/log"
grep -q 'group' "$T/log" && fail "a disk frozen alone belongs to a group"
# Writes TEXT to both disks and, while they are open, takes a snapshot of the directory, labelled so. The writer is a program of
# its own: each fork of it would flush its handles, and freeze.
both() { # TEXT
    local status=0 writer
    rm -f "$T/written"
    timeout 60 python3 - "$1" "$MNT/vm" "$T/written" <<'P' &
import os, sys, time
text, vm, written = sys.argv[1:]
fds = [os.open(f"{vm}/{name}.img", os.O_RDWR) for name in "ab"]
for fd in fds:
    os.pwrite(fd, text.encode(), 0)
open(written, "w").close()
while os.path.exists(written):
    time.sleep(0.05)
P
    writer=$!
    eventually 20 test -e "$T/written"
    timeout 20 "$VARVE" snapshot --label "$1" "$MNT/vm" >/dev/null 2>&1 || status=$?
    rm "$T/written"
    wait "$writer" || true
    return $status
}
both whole
run "$VARVE" wait "$MNT"
run "$VARVE" log --json "$MNT/vm/a.img" | tr -d ' \n' | grep -q '"members":2,"present":2' || fail "the group of both is not told"
run "$VARVE" log "$MNT/vm/a.img" | grep -q 'group' && fail "a whole group is nothing to tell"
stop_varve

export VARVE_FAULT=live.freeze.record:2=kill
start_varve
unset VARVE_FAULT
both cut || true
for _ in $(seq 100); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$DAEMON" 2>/dev/null; then skip "this build has no fault points"; fi
wait "$DAEMON" 2>/dev/null || true
DAEMON=
umount -l "$MNT"
start_varve
run "$VARVE" wait "$MNT"
equals "$(find "$MNT/vm" -name '*@cut.img' | wc -l)" 1 "members that are there"
snap=$(find "$MNT/vm" -name '*@cut.img')
base=$(basename "$snap"); base=${base%%@*}
printf whole | dd of="$T/$base" conv=notrunc status=none
printf cut | dd of="$T/$base" conv=notrunc status=none
same "$T/$base" "$snap"
equals "$(xattr "$snap" flags)" ""
run "$VARVE" log "$MNT/vm/$base.img" | grep -F '@cut' | grep -qF '[group 1 of 2]' || fail "the log does not tell of the missing member"
stop_varve
run "$VARVE" verify "$T/store"
