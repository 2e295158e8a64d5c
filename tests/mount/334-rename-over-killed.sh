#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rename of a disk with a history onto another one, killed at each point between its durable steps: the next start finds it before or
# after, and so does the start after that. Then the source's name is made again, and no later start takes it away.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors

vm=$MNT/vm
disk=$vm/disk.img new=$vm/new.img
id() { xattr "$1" id; }
restart() { stop_varve; start_varve; }
images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.*' | wc -l; }

# Both disks have a history: of the first stored, of the second pending where the round is held up ($1 = pending).
prepare() {
    rm -rf "$T/store" "$T/state"
    INIT_DONE='' start_varve
    run mkdir "$vm"
    run cp "$T/a" "$disk"
    run cp "$T/b" "$new"
    run "$VARVE" wait "$MNT"
    if [ "$1" = pending ]; then
        stop_varve
        touch "$T/pause"
        export VARVE_FAULT=dedup.4b.before_publish:1=pause VARVE_FAULT_PAUSE=$T/pause
        [ -z "${2:-}" ] || VARVE_FAULT=$VARVE_FAULT,$2
        start_varve
        unset VARVE_FAULT
        run cp "$T/c" "$new"
    else
        run cp "$T/c" "$new"
        run "$VARVE" wait "$MNT"
        [ -z "${2:-}" ] && return
        stop_varve
        export VARVE_FAULT=$2
        start_varve
        unset VARVE_FAULT
    fi
}

before() {  # $1: what the target has
    same "$1" "$disk"
    same "$T/c" "$new"
    equals "$(id "$new")" "$source"
}

after() {
    same "$T/c" "$disk"
    [ ! -e "$new" ] || fail "the source is back"
    more_snaps_than 1 "$new" || fail "the source has lost a snapshot: $(snaps "$new")"
    same "$T/c" "$(newest "$new")"
}

# What stands of the rename goes on to stand, and so does the source, made again.
goes_on() {
    equals "$(id "$disk")" "$target"
    equals "$(find "$MNT" -name 'lost-*')" ""
    [ -e "$new" ] || run cp "$T/a" "$new"
    equals "$(id "$new")" "$source" "the id of the source"
    cp "$new" "$T/now"
    for _ in 1 2; do
        same "$T/now" "$new"
        same "$T/c" "$(snaps "$new" | sed -n 2p)"
        same "$T/b" "$(snaps "$new" | sed -n 1p)"
        same "$T/a" "$(snaps "$disk" | sed -n 1p)"
        restart
    done
    kill_varve
    start_varve
    same "$T/now" "$new"
    run "$VARVE" wait "$MNT"
    equals "$(images)" 2 images
    stop_varve
    run "$VARVE" verify "$T/store"
}

for f in a b c; do random_file "$T/$f" 3000000; done
for kind in stored pending; do
    for point in live.take.before_record live.take.after_record names.replace.after_record names.replace.after_end \
            names.replace.after_clear; do
        prepare $kind $point:1=kill
        source=$(id "$new") target=$(id "$disk")
        if timeout 20 mv "$new" "$disk" 2>/dev/null; then skip "this build has no fault points"; fi
        rm -f "$T/pause"
        killed_at "$kind $point"
        # The next start is killed, too, where it finishes what was begun.
        if [ $point = names.replace.after_record ]; then
            export VARVE_FAULT=names.reconcile.after_gone:1=kill
            "$VARVE" mount "$T/store" "$MNT" -f -o "state=$T/state,host=testhost" >>"$T/daemon.log" 2>&1 || true
            unset VARVE_FAULT
        fi
        start_varve
        for _ in 1 2; do
            case $point in
                live.take.before_record) before "$T/a";;
                live.take.after_record) before "$T/c";;
                *) after;;
            esac
            restart
        done
        goes_on
    done
done

# No kill at all: the source is made again in the same run, and the starts after it know.
prepare stored
source=$(id "$new") target=$(id "$disk")
run mv "$new" "$disk"
after
goes_on

# STORE refuses a step behind the commit: the rename has happened all the same, and is finished before the source comes back.
for fault in names.replace.updated names.replace.clear; do
    prepare stored $fault:1=5
    source=$(id "$new") target=$(id "$disk")
    run mv "$new" "$disk"
    after
    run cp "$T/a" "$new"
    restart
    same "$T/a" "$new"
    same "$T/c" "$disk"
    goes_on
done

# A kill while the source's snapshot is pending, after the rename has ended: it is stored under the source's name.
prepare pending
source=$(id "$new") target=$(id "$disk")
run mv "$new" "$disk"
after
kill_varve
rm -f "$T/pause"
start_varve
after
run "$VARVE" wait "$MNT"
after
equals "$(images)" 1 "the image of the source stays behind its snapshot"
goes_on
