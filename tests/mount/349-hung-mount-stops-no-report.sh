#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve list`, `health`, `status` and `verify` ask every mount. One whose daemon hangs, or died, is reported, and keeps them from none of the
# others.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
expect_errors
start_varve
run mkdir "$MNT/vm"
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
mkdir "$T/mnt2"
run "$VARVE" init "$T/store2" >/dev/null 2>&1
run "$VARVE" mount "$T/store2" "$T/mnt2" -o "state=$T/state2"
run mkdir "$T/mnt2/vm"
run cp "$T/a" "$T/mnt2/vm/other.img"
run "$VARVE" wait "$T/mnt2"
hung=$(daemon_of "$T/state2")

# Other cases on the machine have mounts as well: these two alone are asked, and all of them once.
asks() {        # CODE COMMAND...: within the time of one that does not answer
    local want=$1 code=0 begin=$SECONDS; shift
    timeout -k 5 "$CASE_TIMEOUT" "$VARVE" "$@" >"$T/out" 2>"$T/err" || code=$?
    [ "$want" = any ] || equals "$code" "$want" "varve $*: $(cat "$T/out" "$T/err")"
    [ $((SECONDS - begin)) -lt "${LONG:-20}" ] || fail "varve $* took $((SECONDS - begin)) s"
}
says() { grep -qE "$2" "$T/$1" || fail "no '$2' in: $(cat "$T/$1")"; }
asks 0 list "$MNT" "$T/mnt2"
asks 0 status "$MNT" "$T/mnt2"
asks 0 health --min-free 0 "$MNT" "$T/mnt2"

stopped() { ! grep -h '^State:' "/proc/$hung"/task/*/status | grep -qv '[tT] (stopped)'; }
kill -STOP "$hung"
at_end kill -9 "$hung"
eventually 20 stopped
for order in "$T/mnt2 $MNT" "$MNT $T/mnt2"; do
    # shellcheck disable=SC2086  # two words
    asks 1 list $order
    says out "vm/disk.img"; says err "$T/mnt2: does not answer"
    # shellcheck disable=SC2086
    asks 1 status $order
    says out "^$MNT: store"; says err "$T/mnt2/.*: does not answer"
    # shellcheck disable=SC2086
    asks 2 health --min-free 0 $order
    says out "CRITICAL - $T/mnt2: cannot be asked: does not answer.*disks=1 problems=1"
done
asks 1 list "$T/mnt2/vm/other.img"
says err "does not answer"
asks 2 health --json --min-free 0 "$T/mnt2"
equals "$(jq -r '.problems[0].path' "$T/out")" "$T/mnt2"
# Without arguments: all mounts of the machine.
LONG=120 asks any list
says out "$MNT/vm/disk.img"; says err "$T/mnt2: does not answer"
LONG=120 asks 2 health
says out "$T/mnt2: cannot be asked|more .varve health"
LONG=120 asks any status
says out "^$MNT: store"; says err "$T/mnt2/.*: does not answer"
asks 0 verify "$T/store2"
says err "date of this verify is not recorded|^$"

kill -9 "$hung"
dead() { ! stat -f "$T/mnt2" >/dev/null 2>&1; }
eventually 20 dead
asks 1 list "$T/mnt2" "$MNT"
says out "vm/disk.img"; says err "$T/mnt2: Transport endpoint is not connected"
asks 2 health --min-free 0 "$T/mnt2" "$MNT"
says out "cannot be asked: Transport endpoint is not connected"
asks 1 status "$T/mnt2" "$MNT"
umount -l "$T/mnt2"
stop_varve
