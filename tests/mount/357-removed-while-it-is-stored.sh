#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot is removed while a round stores it, at each step of that round: rm answers at once, a wait for the snapshot ends, and no
# start brings it back. What the disk has, its other snapshots and other disks in the same round stay as they were.
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" $((5 << 20))
random_file "$T/b" $((5 << 20))
export VARVE_FAULT_PAUSE=$T/pause
recipes() { find "$T/store/snapshots" -name '*.rcp' | wc -l; }
anchors() { find "$T/store/anchors" -name '*.rcp' 2>/dev/null | wc -l; }
images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.ready-*' | wc -l; }
pauses() { grep -cs "^fault: paused at" "$T/daemon.log"; }
is_paused() { [ "$(pauses)" -gt "$paused" ]; }
pause_at() {    # FAULT POINT:N[,MORE FAULTS] [MOUNT OPTION...]
    touch "$T/pause"
    export VARVE_FAULT=${1/,/=pause,}
    [ "$VARVE_FAULT" != "$1" ] || VARVE_FAULT=$1=pause
    shift
    paused=$(pauses) || paused=${paused:-0}
    start_varve "$@"
    unset VARVE_FAULT
}
go_on() { rm "$T/pause"; }
at_once() { CASE_TIMEOUT=5 run "$@"; }
without_rows() {    # the rows of the next mount are made of STORE and of journals
    stop_varve
    rm "$T/state/catalog.sqlite"*
    start_varve
}
held_in_a_round() {     # DISK: its newest snapshot is $snap, and the round that stores it is at the fault point
    snap=$(newest "$1")
    for _ in $(seq 300); do
        if is_paused; then break; fi
        [ "$(xattr "$snap" state)" = pending ] || skip "this build has no fault points"
        sleep 0.1
    done
    is_paused || fail "never came to the fault point"
    until [ "$(date +%s)" -gt "$(stat -c %Y "$snap")" ]; do sleep 0.1; done     # a freeze that is taken back frees its name
}
flags_of_all() { for s in $(snaps "$1"); do equals "$(xattr "$s" flags)" "" "flags of $s"; done; }     # every writer had closed
wait_ended() { for _ in $(seq 50); do kill -0 "$waiter" 2>/dev/null || return 0; sleep 0.1; done; return 1; }
check_gone() {  # DISK SNAP CONTENT...: the disk has the last content, its snapshots have these in the order of time
    local disk=$1 gone=$2 s; shift 2
    [ ! -e "$gone" ] || fail "$gone is there"
    "$VARVE" log "$disk" >"$T/log"
    if grep -qF "$(basename "$gone")" "$T/log"; then fail "log shows $gone"; fi
    same "$disk" "${!#}"
    for s in $(snaps "$disk"); do
        same "$s" "$1"
        shift
    done
}

# ---- each step of a round ----

disks=0
run "$VARVE" init "$T/store" >/dev/null
for point in dedup.1a.segment:1 dedup.2b.after_seal:1 dedup.4b.before_publish:1 dedup.4b.after_publish:1 agent.finish.anchored:1; do
    pause_at "$point"
    disk=$MNT/${point%:*}.img disks=$((disks + 1))
    before=$(recipes)
    run cp "$T/a" "$disk"
    held_in_a_round "$disk"
    "$VARVE" wait --timeout 60 "$MNT" >"$T/wait" 2>&1 &
    waiter=$!
    sleep 0.2
    at_once rm "$snap"
    wait_ended || fail "varve wait for a removed snapshot goes on"
    wait "$waiter" || fail "varve wait: $(cat "$T/wait")"
    at_once "$VARVE" wait "$MNT"
    equals "$(snap_count "$disk")" 0
    equals "$(recipes)" "$before" "recipes after rm at $point"
    [ -e "$T/pause" ] || fail "the round went on"
    run cp "$T/b" "$disk"
    go_on
    run "$VARVE" wait --timeout 60 "$MNT"
    check_gone "$disk" "$snap" "$T/a" "$T/b"      # the copy onto it found a content that no snapshot had
    equals "$(recipes)" $((before + 2))
    equals "$(anchors)" "$disks" "anchors, one for each live image"
    without_rows
    check_gone "$disk" "$snap" "$T/a" "$T/b"      # the copy onto it found a content that no snapshot had
    stop_varve
done

# ---- in the middle of the commit point, and of the end of the publication: rm waits for that one step ----

for point in snapshot.commit.before_rename:1 store.publish.after_rename:1 agent.finish.before_pointers:1 agent.finish.after_pointers:1; do
    pause_at "$point"
    disk=$MNT/in.${point%:*}.img before=$(recipes)
    run cp "$T/a" "$disk"
    held_in_a_round "$disk"
    rm "$snap" &
    removal=$!
    sleep 1
    kill -0 "$removal" 2>/dev/null || fail "rm came into the middle of $point"
    go_on
    wait "$removal" || fail "rm at $point"
    run "$VARVE" wait --timeout 60 "$MNT"
    equals "$(recipes)" "$before" "recipes after rm at $point"
    check_gone "$disk" "$snap" "$T/a"
    run rm "$disk"      # else the next start gives it a snapshot, which a round stores
    stop_varve
done

# ---- neighbours: a younger snapshot of the disk has what the removed one wrote; another disk of the round has the same blocks ----

piece() { dd if="$1" of="$2" bs=1M count=1 seek="$3" conv=notrunc status=none; }
for point in dedup.1a.segment:1 dedup.2b.after_seal:1 dedup.4b.before_publish:1; do
    pause_at "$point" settle=0
    disk=$MNT/vm/younger.img other=$MNT/vm/equal.img
    [ -d "$MNT/vm" ] || run mkdir "$MNT/vm"
    cp "$T/a" "$T/first"
    run cp "$T/first" "$disk"
    run cp "$T/a" "$other"
    held_in_a_round "$disk"
    for n in 2 3 4; do
        cp "$T/first" "$T/now"
        for i in $(seq 2 "$n"); do piece "$T/b" "$T/now" "$i"; done
        run dd if="$T/b" of="$disk" bs=1M count=1 seek="$n" conv=notrunc status=none
        cp "$T/now" "$T/now.$n"
    done
    mapfile -t all < <(snaps "$disk")
    equals "${#all[@]}" 4
    at_once rm "${all[0]}"
    at_once rm "${all[2]}"
    go_on
    run "$VARVE" wait --timeout 60 "$MNT"
    check_gone "$disk" "${all[0]}" "$T/now.2" "$T/now.4"
    same "$T/a" "$(newest "$other")"
    without_rows
    check_gone "$disk" "${all[2]}" "$T/now.2" "$T/now.4"
    same "$T/a" "$other"
    at_once rm -rf "$MNT/vm"
    [ ! -e "$MNT/vm" ] || fail "the directory is there"
    stop_varve
done

# ---- rm -rf of a VM: several disks, several snapshots of each; the same names again before the round goes on ----

pause_at dedup.2b.after_seal:1 settle=0
vm=$MNT/vm old=$(images)
run mkdir "$vm"
for name in one two three; do run cp "$T/a" "$vm/$name.img"; done
held_in_a_round "$vm/one.img"
for name in one two three; do run cp "$T/b" "$vm/$name.img"; run cp "$T/a" "$vm/$name.img"; done
before=$(recipes)
at_once rm -rf "$vm"
[ ! -e "$vm" ] || fail "the directory is there"
at_once "$VARVE" wait "$MNT"
run mkdir "$vm"
for name in one two; do run cp "$T/b" "$vm/$name.img"; done
[ -e "$T/pause" ] || fail "the round went on"
go_on
run "$VARVE" wait --timeout 60 "$MNT"
only_new() {
    equals "$(find "$vm" -type f | wc -l)" 4
    for name in one two; do
        same "$vm/$name.img" "$T/b"
        same "$(newest "$vm/$name.img")" "$T/b"
    done
}
only_new
equals "$(recipes)" $((before + 2))
images_are() { [ "$(images)" = "$1" ]; }
eventually 20 images_are $((old + 2))
without_rows
only_new
stop_varve

# ---- as fast as it goes, several at once, at whatever step the round is ----

start_varve
before=$(recipes)
vm_comes_and_goes() {   # N
    local vm=$MNT/fast$1 i
    for i in $(seq 12); do
        mkdir "$vm" && cp "$T/a" "$vm/one.img" && cp "$T/b" "$vm/two.img" && cp "$T/a" "$vm/two.img" && rm -rf "$vm" && [ ! -e "$vm" ] || return 1
    done
}
pids=()
for n in 1 2 3 4; do
    vm_comes_and_goes "$n" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "rm -rf right after cp"; done
at_once "$VARVE" wait "$MNT"
equals "$(recipes)" "$before" "recipes after rm -rf"
eventually 20 images_are $((old + 2))
stop_varve

# ---- the daemon is killed while it removes, and just after ----

for at in thaw:live.thaw.recorded:1 drop:live.drop.after_merge:1 drop:live.drop.after_rewrite:1 drop:live.journal.before_sync:1 \
          drop:live.journal.after_sync:1 published:store.trash.between:1 thaw: drop: published:; do
    how=${at%%:*} point=${at#*:} hold=dedup.2b.after_seal:1
    [ "$how" != published ] || hold=dedup.4b.after_publish:1
    pause_at "$hold${point:+,$point=kill}" settle=0
    disk=$MNT/$how.$point.img
    run cp "$T/a" "$disk"
    held_in_a_round "$disk"
    cp "$T/a" "$T/now"
    if [ "$how" = drop ]; then
        piece "$T/b" "$T/now" 3
        run dd if="$T/b" of="$disk" bs=1M count=1 seek=3 conv=notrunc status=none
        [ "$(snap_count "$disk")" = 2 ] || fail "no second snapshot"
    fi
    answered=
    if timeout 20 rm "$snap" 2>/dev/null; then answered=1; fi
    if [ -n "$answered" ]; then kill_varve; else killed_at "$point"; fi
    rm -f "$T/pause"
    start_varve
    [ ! -e "$snap" ] || [ -z "$answered" ] || fail "$at: a removal that was answered is undone"
    run "$VARVE" wait --timeout 60 "$MNT"
    same "$T/now" "$disk"
    # What was removed does not come back; what was written since has its snapshot.
    if [ "$how" = drop ] || [ -e "$snap" ]; then same "$T/now" "$(newest "$disk")"; else equals "$(snap_count "$disk")" 0; fi
    [ ! -e "$snap" ] || same "$T/a" "$snap"
    flags_of_all "$disk"
    stop_varve
done
run "$VARVE" verify "$T/store"
