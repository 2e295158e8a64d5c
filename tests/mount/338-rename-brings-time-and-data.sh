#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a rename onto a disk brings along: data whose stored snapshot was removed since, the time of the last change, an image of zeros. And
# times stay what they are over a remount and a crash.
set -eu
. "$(dirname "$0")/lib.sh"
need touch
random_file "$T/a" 1000000
random_file "$T/b" 800000
zeros_of() { [ "$(snap_count "$MNT/vm/$1")" = "$2" ] && flags_clear "$MNT/vm/$1"; }
times() { (cd "$MNT/vm" && stat -c '%n %y' ./*); }
start_varve
run mkdir "$MNT/vm"

# The source's only stored snapshot is gone: its data are held by the source's anchor alone. Onto a disk, and to the name of a removed one.
for to in disk removed; do
    run cp "$T/a" "$MNT/vm/$to.from"
    run cp "$T/b" "$MNT/vm/$to.to"
    run "$VARVE" wait "$MNT"
    run rm "$MNT/vm/$to"@*.from
    [ $to = disk ] || run rm "$MNT/vm/$to.to"
    run mv -f "$MNT/vm/$to.from" "$MNT/vm/$to.to"
    same "$T/a" "$MNT/vm/$to.to"
done

# A time that was set, and one that a rename brought, to a disk and to a removed one.
run cp "$T/a" "$MNT/vm/set.img"
run touch -d '2020-01-01 03:04:05.678' "$MNT/vm/set.img"
for to in old gone; do
    run cp "$T/a" "$MNT/vm/$to.img"
    [ $to = old ] || run rm "$MNT/vm/$to.img"
    run cp "$T/b" "$MNT/vm/new.img"
    run touch -d '2021-02-03' "$MNT/vm/new.img"
    run mv "$MNT/vm/new.img" "$MNT/vm/$to.img"
    equals "$(stat -c %Y "$MNT/vm/$to.img")" "$(date -d 2021-02-03 +%s)" "$to.img"
done
equals "$(stat -c %y "$MNT/vm/set.img" | cut -d. -f1)" "2020-01-01 03:04:05"

# Zeros settle under the name that they got.
head -c 300000 /dev/zero >"$MNT/vm/zeros.from"
run cp "$T/a" "$MNT/vm/zeros.img"
run mv "$MNT/vm/zeros.from" "$MNT/vm/zeros.img"
eventually 20 zeros_of zeros.img 2
same <(head -c 300000 /dev/zero) "$(newest "$MNT/vm/zeros.img")"
run "$VARVE" wait "$MNT"

# All of it over a clean remount, and a crash.
times >"$T/before"
stop_varve
start_varve
times >"$T/after"
same "$T/before" "$T/after"
for to in disk removed; do same "$T/a" "$MNT/vm/$to.to"; done
kill_varve
start_varve
times >"$T/after"
same "$T/before" "$T/after"
for to in disk removed; do same "$T/a" "$MNT/vm/$to.to"; done
zeros_of zeros.img 2 || fail "zeros after a crash"
stop_varve
run "$VARVE" verify "$T/store"
