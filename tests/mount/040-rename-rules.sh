#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mv of disks, directories and temporary files (docs/posix.md).
set -eu
. "$(dirname "$0")/lib.sh"

start_varve
run mkdir "$MNT/vm" "$MNT/vm2"
random_file "$T/a" 3000000
random_file "$T/b" 2500000
run cp "$T/a" "$MNT/vm/disk.img"
run touch "$MNT/vm/disk@l.img"

# History follows the disk, also into another directory.
run mv "$MNT/vm/disk.img" "$MNT/vm/root.img"
equals "$(snap_count "$MNT/vm/disk.img")" 0
equals "$(snap_count "$MNT/vm/root.img")" 2
same "$T/a" "$MNT/vm/root@l.img"
run mv "$MNT/vm/root.img" "$MNT/vm2/"
equals "$(snap_count "$MNT/vm2/root.img")" 2
same "$T/a" "$MNT/vm2/root.img"

# Directories: onto an empty one, not onto a full one, not into itself.
run mkdir "$MNT/empty" "$MNT/full" "$MNT/full/x"
run mv -T "$MNT/vm2" "$MNT/empty"
same "$T/a" "$MNT/empty/root@l.img"
must_fail "not empty" mv -T "$MNT/empty" "$MNT/full"
must_fail "subdirectory of itself" mv "$MNT/full" "$MNT/full/x/y"
must_fail "" mv -T "$MNT/empty/root.img" "$MNT/full"
must_fail "" mv -T "$MNT/full" "$MNT/empty/root.img"

# A temporary name gets its real one: that is the snapshot; nothing was made for the temporary name.
run cp "$T/b" "$MNT/vm/.disk.img.tmp1"
equals "$(snap_count "$MNT/vm/.disk.img.tmp1")" 0
run mv "$MNT/vm/.disk.img.tmp1" "$MNT/vm/new.img"
equals "$(snap_count "$MNT/vm/new.img")" 1
same "$T/b" "$(newest "$MNT/vm/new.img")"
equals "$(xattr "$(newest "$MNT/vm/new.img")" flags)" ""

# Onto an existing disk: the target keeps id and history and takes the content.
id=$(xattr "$MNT/vm/new.img" id)
run cp "$T/a" "$MNT/vm/.new.img.tmp2"
run mv "$MNT/vm/.new.img.tmp2" "$MNT/vm/new.img"
equals "$(xattr "$MNT/vm/new.img" id)" "$id"
equals "$(snap_count "$MNT/vm/new.img")" 2
same "$T/a" "$MNT/vm/new.img"
same "$T/a" "$(newest "$MNT/vm/new.img")"
same "$T/b" "$(snaps "$MNT/vm/new.img" | head -1)"
equals "$(find "$MNT/vm" -mindepth 1 -maxdepth 1 -name '*tmp*')" ""

# A source with snapshots of its own leaves them under its name, and is made again with them (332 has more).
run cp "$T/b" "$MNT/vm/other.img"
run mv "$MNT/vm/other.img" "$MNT/vm/new.img"
same "$T/b" "$MNT/vm/new.img"
equals "$(snap_count "$MNT/vm/new.img")" 3
[ ! -e "$MNT/vm/other.img" ]
equals "$(snap_count "$MNT/vm/other.img")" 1
run cp "$T/a" "$MNT/vm/other.img"
equals "$(snap_count "$MNT/vm/other.img")" 2

# An open disk may be renamed; its writer's close makes the snapshot under the new name.
exec 3<>"$MNT/vm/other.img"
run mv "$MNT/vm/other.img" "$MNT/vm/moved.img"
printf changed >&3
exec 3>&-
equals "$(snap_count "$MNT/vm/moved.img")" 3
must_fail "" mv "$MNT/vm" "$MNT/.varve"
stop_varve
