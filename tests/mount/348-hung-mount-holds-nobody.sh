#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Commands that wait for a mount, or change something in it, end when its daemon hangs: they say so, change nothing, and leave no process
# behind. --timeout holds, `varve wait` goes on with the other mounts, and a mount that hangs is no dead one.
set -eu
. "$(dirname "$0")/lib.sh"
need unshare
expect_errors
start_varve
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/disk.img"
mkdir -p "$T/m/mnt2"      # not in $T, which the end of the case looks around in
touch "$T/pause"
run "$VARVE" init "$T/store2" >/dev/null 2>&1
VARVE_FAULT=agent.finish.before_pointers:2=pause VARVE_FAULT_PAUSE=$T/pause \
    run "$VARVE" mount "$T/store2" "$T/m/mnt2" -o "state=$T/state2"
at_end umount -l "$T/m/mnt2"
hung=$(daemon_of "$T/state2")
at_end kill -9 "$hung"
run mkdir "$T/m/mnt2/vm"
run cp "$T/a" "$T/m/mnt2/vm/disk.img"
run "$VARVE" wait "$T/m/mnt2"
snap=$(newest "$T/m/mnt2/vm/disk.img")

# begins NAME COMMAND...: beside the others; ended NAME CODE SECONDS TEXT: how it must end, and what it must say.
begins() {
    local name=$1; shift
    (
        code=0 begin=$SECONDS
        timeout -k 5 "$CASE_TIMEOUT" "$@" >"$T/$name.out" 2>&1 || code=$?
        echo "$code $((SECONDS - begin))" >"$T/$name.end"
    ) &
    eval "job_$name=$!"
}
ended() {
    local code seconds job=job_$1
    wait "${!job}" || true
    read -r code seconds <"$T/$1.end"
    [ "$2" = any ] || equals "$code" "$2" "$1: $(cat "$T/$1.out")"
    [ "$seconds" -lt "$3" ] || fail "$1 took $seconds s"
    [ -z "$4" ] || grep -qE -- "$4" "$T/$1.out" || fail "$1: no '$4' in: $(cat "$T/$1.out")"
}
mounted() { grep -qF " $T/m/mnt2 fuse" /proc/mounts; }
stopped() { ! grep -h '^State:' "/proc/$hung"/task/*/status | grep -qv '[tT] (stopped)'; }
asking() { grep -alE "varve.(wait|umount|log|snapshot|revert|backup|verify).*$T/" /proc/[0-9]*/cmdline 2>/dev/null | grep -v "^/proc/\($$\|self\)/"; }
nobody_asks() { ! asking >/dev/null; }

# Its snapshot is not stored: the daemon answers nevertheless, and has this request in its hands when it stops.
random_file "$T/b" $((3 << 20))
run cp "$T/b" "$T/m/mnt2/vm/disk.img"
begins late "$VARVE" wait --timeout 1 "$T/m/mnt2"
# shellcheck disable=SC2016
begins held bash -c '"$@" 2>&1 | cat; exit "${PIPESTATUS[0]}"' held "$VARVE" wait "$T/m/mnt2"
sleep 2
if [ "$(xattr "$(newest "$T/m/mnt2/vm/disk.img")" state)" != stored ]; then
    ended late 1 20 "1 snapshot.s. still not stored after 1 s"
    in_hands=1
fi
kill -STOP "$hung"
eventually 20 stopped

begins wait "$VARVE" wait "$T/m/mnt2"
begins two "$VARVE" wait --timeout 2 "$T/m/mnt2" "$T/none" "$MNT"
# Without arguments: of the machine's mounts these two.
# shellcheck disable=SC2016
begins all unshare -m --propagation private bash -c '
    grep " fuse.varve " /proc/mounts | cut -d" " -f2 | while read -r p; do case $p in "$1"/*) ;; *) umount -l "$p" ;; esac; done
    "$2" wait --timeout 2' all "$T" "$VARVE"
begins umount "$VARVE" umount "$T/m/mnt2"
begins umount_soon "$VARVE" umount --timeout 2 "$T/m/mnt2/"
begins dead "$VARVE" umount --dead "$T/m/mnt2"
begins disk "$VARVE" log "$T/m/mnt2/vm/disk.img"
begins dir "$VARVE" log --json "$T/m/mnt2/vm"
begins snapshot "$VARVE" snapshot "$T/m/mnt2/vm/disk.img"
begins revert "$VARVE" revert --to "$T/m/mnt2/vm/new.img" "$snap"
begins backup "$VARVE" backup "$T/a" "$T/m/mnt2/vm/new.img"
begins verify "$VARVE" verify --quick "$T/m/mnt2"
begins over "$VARVE" mount "$T/store2" "$T/m/mnt2" -o "state=$T/state3"
begins term timeout 2 "$VARVE" wait "$T/m/mnt2"
begins int env --default-signal=INT timeout -s INT 2 "$VARVE" wait "$T/m/mnt2"

ended two 1 20 "$T/m/mnt2: does not answer within the time"
grep -q "$T/none: No such file" "$T/two.out" || fail "went on with no other mount: $(cat "$T/two.out")"
ended all 1 20 "$T/m/mnt2: does not answer within the time"
if grep -q "$MNT:" "$T/all.out"; then fail "said of a mount that answers: $(cat "$T/all.out")"; fi
ended umount_soon 1 20 "does not answer within the time"
ended dead 1 20 "$T/m/mnt2: does not answer for 5 s"
ended disk 1 30 "$T/m/mnt2/vm/disk.img: does not answer for 10 s"
ended dir 1 30 '"message": ".*/mnt2/vm: does not answer for 10 s'
ended over 11 20 "does not answer"
ended term 124 15 ''
ended int 124 15 ''
ended wait 1 50 "$T/m/mnt2: does not answer for 30 s: its daemon hangs"
ended umount 1 50 "$T/m/mnt2: does not answer for 30 s"
grep -q "stays mounted.*kill -9.*--dead" "$T/umount.out" || fail "does not say what to do: $(cat "$T/umount.out")"
ended snapshot 1 50 "does not answer for 30 s.*; nothing was done"
ended revert 1 50 "does not answer for 30 s.*; nothing was done"
ended backup 1 50 "does not answer for 30 s.*; nothing was done"
ended verify 1 50 "does not answer for 30 s"
[ -z "${in_hands:-}" ] || ended held 1 60 "does not answer for 30 s"
mounted || fail "a mount that hangs was unmounted"

# Unmounted it is only with --always, and not while a request that the daemon has taken is without an answer.
if [ -n "${in_hands:-}" ]; then
    begins busy "$VARVE" umount --always --timeout 1 "$T/m/mnt2"
    ended busy 11 30 "in use.*ends with that one"
    mounted || fail "unmounted though in use"
    kill -CONT "$hung"
    eventually 20 nobody_asks
    kill -STOP "$hung"
    eventually 20 stopped
fi
eventually 10 nobody_asks
begins always "$VARVE" umount --always --timeout 1 "$T/m/mnt2"
ended always 1 30 "is unmounted, but its daemon may run on"
if mounted; then fail "still mounted with --always"; fi
rm "$T/pause"
kill -CONT "$hung"
gone() { [ -z "$(daemon_of "$T/state2")" ]; }
eventually 30 gone

# Nothing was lost, and nothing done that was said not to be.
run "$VARVE" mount "$T/store2" "$T/m/mnt2" -o "state=$T/state2"
run "$VARVE" umount --timeout 50 "$T/m/mnt2"
run "$VARVE" mount "$T/store2" "$T/m/mnt2" -o "state=$T/state2"
same "$T/b" "$T/m/mnt2/vm/disk.img"
equals "$(snap_count "$T/m/mnt2/vm/disk.img")" 2 "snapshots"
[ ! -e "$T/m/mnt2/vm/new.img" ] || fail "a disk was made"
run "$VARVE" umount "$T/m/mnt2"
stop_varve
