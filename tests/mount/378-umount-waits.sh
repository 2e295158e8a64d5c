#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve umount` unmounts when all is stored, and returns when the daemon has ended; it leaves the mount where something cannot be stored or
# is in use, says what is wrong, and takes away a dead mount.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
umount_is() {   # CODE TEXT [OPTION...]
    local want=$1 text=$2 code=0; shift 2
    timeout -k 5 "$CASE_TIMEOUT" "$VARVE" umount "$@" >"$T/out" 2>&1 || code=$?
    equals "$code" "$want" "varve umount $*: $(cat "$T/out")"
    [ -z "$text" ] || grep -q -- "$text" "$T/out" || fail "varve umount $*: no '$text' in: $(cat "$T/out")"
}
start_varve_background() { run "$VARVE" mount "$T/store" "$MNT" -o state="$T/state",host=testhost; }

random_file "$T/a" $((3 << 20))
run "$VARVE" init "$T/store" >"$T/init.log" 2>&1
umount_is 10 "no store is mounted there" "$MNT"
umount_is 2 "give one MOUNTPOINT"

# It waits: the mount stays while the snapshot is not stored.
touch "$T/pause"
export VARVE_FAULT=agent.finish.before_pointers:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve_background
unset VARVE_FAULT
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
[ "$(xattr "$(newest "$MNT/vm/disk.img")" state)" != stored ] || skip "this build has no fault points"
umount_is 1 "still not stored" --timeout 0.2 "$MNT"
is_mounted || fail "not mounted any more after a timeout"
pid=$(daemon_of "$T/state")
"$VARVE" umount "$MNT" >"$T/out" 2>&1 &
umounting=$!
is_mounted || fail "unmounted while a snapshot is not stored"
rm "$T/pause"
wait "$umounting" || fail "varve umount: $(cat "$T/out")"
if is_mounted; then fail "still mounted"; fi
if [ -e "/proc/$pid/exe" ]; then fail "the daemon still runs"; fi

# In use; a path with a slash at its end.
start_varve_background
equals "$(xattr "$(newest "$MNT/vm/disk.img")" state)" stored "after varve umount"
exec 5<"$MNT/vm/disk.img"
umount_is 11 "in use" "$MNT"
exec 5<&-
umount_is 0 "" --dead "$MNT"
is_mounted || fail "--dead has unmounted a mount that works"
umount_is 0 "" "$MNT/"
umount_is 0 "" --dead "$MNT"

# What cannot be stored.
export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve_background
unset VARVE_FAULT
random_file "$T/b" $((3 << 20))
run cp "$T/b" "$MNT/vm/disk.img"
umount_is 1 "fault injected" "$MNT"
grep -q "stays mounted" "$T/out" || fail "does not say that it stays: $(cat "$T/out")"
is_mounted || fail "unmounted"
umount_is 1 "fault injected" --always --timeout 50 "$MNT"
if is_mounted; then fail "still mounted with --always"; fi

# A dead mount.
start_varve_background
run "$VARVE" wait --timeout 50 "$MNT"
kill -9 "$(daemon_of "$T/state")"
gone() { [ -z "$(daemon_of "$T/state")" ]; }
eventually 20 gone
(cd "$T" && umount_is 0 "had died" --dead mnt)
if is_mounted; then fail "the dead mount is still there"; fi
