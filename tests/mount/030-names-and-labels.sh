#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names of snapshots, labels by touch, mv and varve snapshot, and the names that are refused.
set -eu
. "$(dirname "$0")/lib.sh"

start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 3000000
run cp "$T/a" "$disk"

run touch "$MNT/vm/disk@now.img"
[ -e "$MNT/vm/disk@now.img" ] || fail "touch made no snapshot"
same "$T/a" "$MNT/vm/disk@now.img"
equals "$(snap_count "$disk")" 2
must_fail "Read-only" touch "$MNT/vm/disk@now.img"      # it is there already
equals "$(snap_count "$disk")" 2
must_fail "cannot overwrite existing file" bash -c "set -C; : > '$MNT/vm/disk@now.img'"
must_fail "Read-only" cp "$T/a" "$MNT/vm/disk@other.img"
[ ! -e "$MNT/vm/disk@other.img" ] || fail "a write to a label made something"
must_fail "Read-only" bash -c "echo x > '$MNT/vm/disk@other.img'"
must_fail "Read-only" bash -c "echo x >> '$MNT/vm/disk@now.img'"
must_fail "Read-only" truncate -s 5 "$MNT/vm/disk@now.img"
must_fail "No such file" touch "$MNT/vm/none@x.img"
must_fail "Invalid argument" touch "$MNT/vm/disk@20200101T000000Z.img"
must_fail "Invalid argument" touch "$MNT/vm/disk@a b.img"
must_fail "Invalid argument" touch "$MNT/vm/disk@.img"
must_fail "Invalid argument" mkdir "$MNT/vm/a@b"
must_fail "Invalid argument" ln -s x "$MNT/vm/a@b"
must_fail "Operation not permitted" ln -s x "$MNT/vm/link"
must_fail "Operation not permitted" ln "$disk" "$MNT/vm/link"
must_fail "Operation not permitted" mkfifo "$MNT/vm/fifo"
must_fail "File name too long" touch "$MNT/vm/$(printf 'x%.0s' $(seq 256))"
must_fail "File name too long" touch "$MNT/vm/$(printf 'x%.0s' $(seq 250))"
run touch "$MNT/vm/$(printf 'x%.0s' $(seq 180))"

# A label by the command, with a note; the same again is refused.
run "$VARVE" snapshot --label before-upgrade --note "kernel 6.1" "$disk"
equals "$(xattr "$MNT/vm/disk@before-upgrade.img" note)" "kernel 6.1"
must_fail "" "$VARVE" snapshot --label before-upgrade "$disk"
equals "$(snap_count "$disk")" 3 "what is asked for is made, changed or not"

# mv gives a label; a label moves on; a time does not come back.
first=$(snaps "$disk" | head -1)
run mv "$first" "$MNT/vm/disk@first.img"
[ ! -e "$first" ] || fail "the old name is still there"
same "$T/a" "$MNT/vm/disk@first.img"
run "$VARVE" wait "$MNT"
run mv "$MNT/vm/disk@first.img" "$MNT/vm/disk@second.img"
same "$T/a" "$MNT/vm/disk@second.img"
must_fail "" mv "$MNT/vm/disk@second.img" "$MNT/vm/disk@20200101T000000Z.img"
must_fail "" mv "$MNT/vm/disk@second.img" "$MNT/vm/plain.img"
must_fail "" mv "$MNT/vm/disk@second.img" "$MNT/vm/disk2@second.img"
run mkdir "$MNT/vm2"
must_fail "" mv "$MNT/vm/disk@second.img" "$MNT/vm2/disk@second.img"
[ -e "$MNT/vm/disk@second.img" ] || fail "a refused mv lost the snapshot"
run mv -n "$MNT/vm/disk@second.img" "$MNT/vm/disk@now.img" || true
[ -e "$MNT/vm/disk@second.img" ] || fail "a taken label was given away"

# Snapshots in the same second have names that sort.
for i in 1 2 3; do printf x | dd of="$disk" bs=1 seek=$i conv=notrunc status=none; done
snaps "$disk" | grep 'T[0-9]*Z' >"$T/times"
equals "$(wc -l <"$T/times")" 3
equals "$(sort -u "$T/times" | wc -l)" 3

# A directory freezes its changed disks at one instant; none changed, none made.
before=$(snap_count "$disk")
run "$VARVE" snapshot "$MNT/vm"
equals "$(snap_count "$disk")" "$before"
stop_varve
