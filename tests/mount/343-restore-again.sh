#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a user has restored once can be restored again, by ordinary programs and by `varve revert`: a copy takes the mode of its source, so
# a snapshot shows its owner the right to write, also where the disk had none. It gives none: writing to a snapshot is EROFS.
set -eu
. "$(dirname "$0")/lib.sh"
need setpriv
chmod 755 "$T"
start_varve
run mkdir "$MNT/vm" "$T/out"
chown 1001:1001 "$MNT/vm" "$T/out"
random_file "$T/a" 5000000
truncate -s 9M "$T/a"
random_file "$T/b" 5000000
chmod 644 "$T/a" "$T/b"
user() { run setpriv --reuid=1001 --regid=1001 --clear-groups "$@"; }
mode() { equals "$(stat -c %a "$1")" "$2" "mode of $1"; }
disk=$MNT/vm/disk.img
user cp "$T/a" "$disk"
user chmod 440 "$disk"
run "$VARVE" snapshot --label only-read "$disk" >/dev/null
user chmod 600 "$disk"
user cp "$T/b" "$disk"
run "$VARVE" wait "$MNT"
one=$(snaps "$disk" | grep '@2' | head -1)
two=$(snaps "$disk" | grep '@2' | tail -1)
same "$T/a" "$one"
mode "$one" 644
mode "$MNT/vm/disk@only-read.img" 640
mode "$two" 600
random_file "$T/x" 1000
for who in 0 1001; do
    # shellcheck disable=SC2016  # the shell inside expands them
    for how in 'cat /dev/null >"$1"' 'echo x >>"$1"' 'cp "$2" "$1"' 'truncate -s 1 "$1"' 'exec 3<>"$1"' 'dd if="$2" of="$1" conv=notrunc'; do
        must_fail "Read-only file system" setpriv --reuid=$who --regid=$who --clear-groups bash -c "$how" sh "$one" "$T/x"
    done
done
same "$T/a" "$one"

# Outside, each over what the one before has left.
restored() { same "$1" "$2"; user test -w "$2"; }
for from in "$one" "$two" "$MNT/vm/disk@only-read.img" "$one"; do
    for by in cp "cp -p" "cp -a" "cp --preserve=all" install "install -m 640" "install -p" "cp --no-preserve=mode" "cp --sparse=always"; do
        # shellcheck disable=SC2086  # a program and its options
        user $by "$from" "$T/out/${by//[^a-z]/_}"
        restored "$from" "$T/out/${by//[^a-z]/_}"
        # shellcheck disable=SC2086
        user $by "$from" "$T/out/any"
        restored "$from" "$T/out/any"
    done
    # shellcheck disable=SC2016
    user bash -c 'cat "$1" >"$2"' sh "$from" "$T/out/any"
    user dd if="$from" of="$T/out/any" bs=1M conv=notrunc status=none
    restored "$from" "$T/out/any"
    user tar -C "$MNT/vm" -Scf "$T/out/tar" "${from##*/}"
    user tar -C "$T/out" -xf "$T/out/tar"
    user tar -C "$T/out" --overwrite -xf "$T/out/tar"
    restored "$from" "$T/out/${from##*/}"
    for by in -a -aS "-a --inplace" -aX --inplace; do
        command -v rsync >/dev/null || continue
        # shellcheck disable=SC2086
        user rsync --ignore-times $by "$from" "$T/out/rsynced"
        restored "$from" "$T/out/rsynced"
    done
done

# In the mount, twice each.
for from in "$one" "$two"; do
    for by in cp "cp --no-preserve=mode" "cp -a" "install -m 600"; do
        # shellcheck disable=SC2086
        user $by "$from" "$MNT/vm/clone.img"
        same "$from" "$MNT/vm/clone.img"
    done
    user "$VARVE" revert --to "$MNT/vm/reverted.img" "$from"
    same "$from" "$MNT/vm/reverted.img"
done
mode "$MNT/vm/reverted.img" 600
equals "$(stat -c %u "$MNT/vm/reverted.img")" 1001
run "$VARVE" wait "$MNT"
user chmod 550 "$two"
mode "$two" 750
user rm "$disk"
user "$VARVE" revert "$two"
mode "$disk" 750
same "$T/b" "$disk"
stop_varve
