#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rename onto a disk whose names say that it has happened has happened: what fails behind that is done later, while the daemon
# runs, or at its next start after a kill. No image is left over, and no error tells the opposite of what is there.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors

images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.*' | wc -l; }
records() { find "$T/store/nodes" -type f | wc -l; }
images_are() { [ "$(images)" = "$1" ]; }
is_stored() { local s; s=$(newest "$1"); [ -n "$s" ] && [ "$(xattr "$s" state)" = stored ]; }
killed() {
    for _ in $(seq 100); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$DAEMON" 2>/dev/null && fail "not killed"
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    umount -l "$MNT"
}

random_file "$T/a" 3000000
random_file "$T/b" 3000000
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
names=$(records)
stop_varve

# The source's record cannot be removed: the target's says whom it replaces.
export VARVE_FAULT=names.remove.said:1=5
start_varve
unset VARVE_FAULT
run cp "$T/b" "$MNT/vm/.new"
run mv "$MNT/vm/.new" "$disk"
grep -q "the tree: .* will be tried again" "$MNT/.varve/events" || skip "this build has no fault points"
[ ! -e "$MNT/vm/.new" ] || fail "the source is still there"
same "$T/b" "$disk"
eventually 10 more_snaps_than 1 "$disk"
eventually 30 images_are 1
equals "$(records)" "$names" "records"
stop_varve

# The result cannot be frozen at once.
export VARVE_FAULT=live.freeze.record:1=28
start_varve
unset VARVE_FAULT
run cp "$T/a" "$MNT/vm/.new"
run mv "$MNT/vm/.new" "$disk"
same "$T/a" "$disk"
eventually 30 more_snaps_than 2 "$disk"
eventually 30 is_stored "$disk"
same "$T/a" "$(newest "$disk")"
images_are 1 || fail "an image is left over"
stop_varve

# The names cannot be changed: an error, and two disks with that content, each its own.
export VARVE_FAULT=names.replace.before:1=5
start_varve
unset VARVE_FAULT
run cp "$T/b" "$MNT/vm/.new"
must_fail "Input/output error" mv -T "$MNT/vm/.new" "$disk"
same "$T/b" "$MNT/vm/.new"
printf "not both" | dd of="$MNT/vm/.new" conv=notrunc status=none
same "$T/b" "$disk"
run rm "$MNT/vm/.new"
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
stop_varve

# They were changed, but whether durably is not known: it has happened.
export VARVE_FAULT=names.replace.updated:1=5
start_varve
unset VARVE_FAULT
run cp "$T/b" "$MNT/vm/.new"
run mv -T "$MNT/vm/.new" "$disk"
[ ! -e "$MNT/vm/.new" ] || fail "the source is still there"
same "$T/b" "$disk"
eventually 30 images_are 1
equals "$(records)" "$names" "records"
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
stop_varve

# Kills: before the names both disks are there; behind the commit the source is gone, with its image.
for point in live.take.after_record names.replace.after_record names.replace.after_end; do
    start_varve
    run cp "$T/b" "$MNT/vm/.new"
    stop_varve
    export VARVE_FAULT=$point:1=kill
    start_varve
    unset VARVE_FAULT
    timeout 20 mv "$MNT/vm/.new" "$disk" 2>/dev/null || true
    killed
    start_varve
    same "$T/b" "$disk"
    if [ $point = live.take.after_record ]; then
        same "$T/b" "$MNT/vm/.new"
        run rm "$MNT/vm/.new"
    fi
    [ ! -e "$MNT/vm/.new" ] || fail "$point: the source is back"
    equals "$(find "$MNT" -name 'lost-*')" "" "$point"
    eventually 20 images_are 1
    # It may have had snapshots that only its journal knew: its record goes at the start after.
    [ $point != names.replace.after_record ] || { stop_varve; start_varve; }
    equals "$(records)" "$names" "$point: records"
    run "$VARVE" wait "$MNT"
    same "$T/b" "$(newest "$disk")"
    run cp "$T/a" "$disk"
    stop_varve
done
run "$VARVE" verify "$T/store"
