#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a user has restored once can be restored again, by the ways that docs/posix.md names: a snapshot shows no right to write, and cp
# gives a copy the mode of its source.
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
user chmod 600 "$disk"
user cp "$T/b" "$disk"
run "$VARVE" wait "$MNT"
one=$(snaps "$disk" | head -1)
two=$(snaps "$disk" | tail -1)
same "$T/a" "$one"
mode "$one" 444
mode "$two" 400

# In the mount, twice each.
for from in "$one" "$two"; do
    user cp --no-preserve=mode "$from" "$MNT/vm/clone.img"
    same "$from" "$MNT/vm/clone.img"
    user "$VARVE" revert --to "$MNT/vm/reverted.img" "$from"
    same "$from" "$MNT/vm/reverted.img"
done
mode "$MNT/vm/clone.img" 644
mode "$MNT/vm/reverted.img" 600
equals "$(stat -c %u "$MNT/vm/reverted.img")" 1001
run "$VARVE" wait "$MNT"
user chmod 550 "$two"
user rm "$disk"
user "$VARVE" revert "$two"
mode "$disk" 750
same "$T/b" "$disk"

# Outside: as the manual says.
for from in "$one" "$two"; do
    user cp --no-preserve=mode "$from" "$T/out/restored"
    user install -m 640 "$from" "$T/out/installed"
    same "$from" "$T/out/restored"
    same "$from" "$T/out/installed"
done
if command -v rsync >/dev/null; then for from in "$one" "$two"; do user rsync -S --chmod=u+w "$from" "$T/out/rsynced"; same "$from" "$T/out/rsynced"; done; fi
stop_varve
