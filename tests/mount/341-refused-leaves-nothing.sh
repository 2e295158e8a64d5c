#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A command that is refused leaves nothing behind: no label, no snapshot, no empty disk.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/a.img
random_file "$T/a" 1048576
run cp "$T/a" "$disk"
run touch "$MNT/vm/a@there.img"
run "$VARVE" wait "$MNT"
truncate -s 5M "$T/zeros"
random_file "$T/b" 5242880
list() { find "$MNT" -path "$MNT/.varve" -prune -o -printf '%P %s %T@ %m %i\n' | grep -v '^vm 4096\|^ 4096' | sort; }
list >"$T/before"
unchanged() { list | diff "$T/before" - || fail "left behind by $*"; }

# What writes to the name of a label, or sets its size.
refused() { local text=$1; shift; must_fail "$text" "$@"; unchanged "$@"; }
label=$MNT/vm/a@x.img
refused "Read-only" cp "$T/b" "$label"
refused "Read-only" cp --sparse=always "$T/zeros" "$label"
refused "Read-only" cp --reflink=never "$T/b" "$label"
refused "Read-only" cp -a "$T/b" "$label"
refused "Read-only" cp "$disk" "$label"
refused "Read-only" cp "$MNT/vm/a@there.img" "$label"
cp "$T/b" "$T/c"
refused "Read-only" mv "$T/c" "$label"
refused "" mv "$disk" "$label"
refused "Invalid argument" ln "$disk" "$label"
refused "Read-only" truncate -s 3M "$label"
refused "Read-only" truncate -s 0 "$label"
refused "Read-only" fallocate -l 1M "$label"
refused "Read-only" dd if="$T/b" of="$label" bs=1M
cat >"$T/over" <<'S'
cat "$1" >"$2"
S
cat >"$T/behind" <<'S'
cat "$1" >>"$2"
S
refused "Read-only" bash "$T/over" "$T/b" "$label"
! command -v qemu-img >/dev/null || refused "" qemu-img convert -O raw "$T/b" "$label"
! command -v qemu-img >/dev/null || refused "" qemu-img create -f raw "$label" 3M
! command -v rsync >/dev/null || refused "" rsync --inplace "$T/b" "$label"
refused "" python3 - "$disk" "$label" <<'P'
import os, sys
source, label = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
os.copy_file_range(source, label, 4096)
P
# The flush of a copy of the descriptor takes the snapshot; it goes again.
refused "" python3 - "$label" <<'P'
import os, sys
label = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.close(os.dup(label))
assert os.path.exists(sys.argv[1])
os.ftruncate(label, 4096)
P

# What changes a snapshot, or looks as if it took one. Times that are named are ignored.
there=$MNT/vm/a@there.img
refused "Read-only" touch "$there"
refused "Read-only" touch -a "$there"
refused "Read-only" touch -m "$there"
refused "Read-only" truncate -s 0 "$there"
refused "Read-only" cp "$T/b" "$there"
refused "Read-only" bash "$T/over" /dev/null "$there"
refused "Read-only" bash "$T/behind" "$T/b" "$there"
refused "" fallocate -l 10M "$there"
refused "Operation not permitted" ln "$there" "$MNT/vm/link"
run touch -d 2020-01-01 "$there"
run touch -r "$T/a" "$there"
unchanged "touch -d"

# Reverts and clones.
revert() { refused "$1" "$VARVE" revert --to "$2" "$there"; }
revert "not in the varve mount" "$T/out.img"
[ ! -e "$T/out.img" ] || fail "a file outside the mount was made"
revert "cannot be that of a disk" "$label"
revert "cannot be that of a disk" "$there"
revert "No such file" "$MNT/none/x.img"
revert "Is a directory" "$MNT/vm"
revert "" "$MNT/vm/$(printf 'x%.0s' $(seq 200))"
(cd "$MNT/vm" && must_fail "cannot be that of a disk" "$VARVE" revert --to a@y.img a@there.img)
unchanged "varve revert in the folder"
exec 7<>"$disk"
revert "open for writing" "$disk"
exec 7>&-
run "$VARVE" revert --to "$MNT/vm/clone.img" "$there"
same "$there" "$MNT/vm/clone.img"
(cd "$MNT/vm" && run "$VARVE" revert --to clone2.img a@there.img)
same "$there" "$MNT/vm/clone2.img"
run rm "$MNT/vm/clone.img" "$MNT/vm/clone2.img"
run "$VARVE" wait "$MNT"

# Snapshots, and stores.
run find "$MNT/vm" -name 'clone*' -delete
unchanged "the clones"
refused "" "$VARVE" snapshot --label 'a b' "$disk"
refused "" "$VARVE" snapshot --label there "$disk"
refused "" "$VARVE" snapshot --label 20200101T000000Z "$MNT/vm"
must_fail "" "$VARVE" init --block 3 "$T/new"
[ ! -e "$T/new" ] || fail "a refused init left a folder"
mkdir "$T/full"; touch "$T/full/x"
must_fail "" "$VARVE" init "$T/full"
equals "$(ls -A "$T/full")" x "after a refused init"
must_fail "" "$VARVE" rebuild --state "$T/newstate" "$T/full"
must_fail "" "$VARVE" mount "$T/full" "$T/full" -o "state=$T/newstate"
[ ! -e "$T/newstate" ] || fail "a refused mount or rebuild left a folder"
equals "$(ls -A "$T/full")" x "after a refused mount"
stop_varve
