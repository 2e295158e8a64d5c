#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A file handle (name_to_handle_at; what an NFS server gives to its clients) leads to the same object for as long as that exists: after a
# remount, a kill, a rebuilt catalog, a rename, a relabel. Then it is ESTALE, and never leads to another object: also not to a disk that
# was made again under the name and the id of a removed one.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
handles() { run python3 -ISB "$(dirname "$0")/handles.py" "$@"; }
take() { handles take "$1"; }
content() { handles cat "$MNT" "$2" >"$T/read"; same "$1" "$T/read"; }
stale() { handles stale "$MNT" "$@"; }
of_inode() { equals "$(handles stat "$MNT" "$1" | cut -d' ' -f1,2)" "$2"; }
for f in a b c; do random_file "$T/$f" 3000000; done

start_varve
run mkdir -p "$MNT/vm/sub"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" snapshot --label one "$disk" >/dev/null
run "$VARVE" wait "$MNT"
run cp "$T/b" "$disk"
run cp "$T/c" "$MNT/vm/sub/other.img"
of_disk=$(take "$disk"); of_snap=$(take "$MNT/vm/disk@one.img")
of_dir=$(take "$MNT/vm"); of_sub=$(take "$MNT/vm/sub"); of_other=$(take "$MNT/vm/sub/other.img")
of_root=$(take "$MNT"); of_control=$(take "$MNT/.varve"); of_status=$(take "$MNT/.varve/status.json")
inodes=$(stat -c %i "$disk" "$MNT/vm/disk@one.img" "$MNT/vm/sub")

# Everything is what it was; the snapshot was pending when its handle was taken, or became stored meanwhile.
all_there() {
    content "$T/b" "$of_disk"
    content "$T/a" "$of_snap"
    content "$T/c" "$of_other"
    case $(handles ls "$MNT" "$of_sub") in "other.img other@"*) ;; *) fail "the directory below it is another one";; esac
    case $(handles ls "$MNT" "$of_dir") in *disk.img*) ;; *) fail "the directory is another one";; esac
    of_inode "$of_root" "1 dir"
    handles cat "$MNT" "$of_status" >"$T/status"
    grep -q '"mountpoint"\|"store"' "$T/status" || fail "the handle of status.json gave: $(head -c 200 "$T/status")"
    # No listing shows .varve, so the kernel may be unable to join it to the tree; but it leads nowhere else.
    (handles stat "$MNT" "$of_control") >"$T/control" 2>&1 || true
    case $(cat "$T/control") in "2 dir "*|ESTALE*) ;; *) fail "the handle of .varve gave: $(cat "$T/control")";; esac
    equals "$(stat -c %i "$disk" "$MNT/vm/disk@one.img" "$MNT/vm/sub")" "$inodes"
}
all_there
stop_varve
start_varve
all_there
kill_varve
start_varve
all_there
stop_varve
rm -f "$T"/state/catalog.sqlite*
run "$VARVE" rebuild --state "$T/state" "$T/store"
start_varve
all_there

# What is written through a handle is in the disk, and in its next snapshot.
handles write "$MNT" "$of_disk" <"$T/c"
same "$T/c" "$disk"
run "$VARVE" wait "$MNT"
same "$T/c" "$(newest "$disk")"

# New names, the same objects.
run mv "$disk" "$MNT/vm/sub/moved.img"
run mv "$MNT/vm/sub/moved@one.img" "$MNT/vm/sub/moved@two.img"
run mv "$MNT/vm/sub" "$MNT/sub"
stop_varve
start_varve
content "$T/c" "$of_disk"
content "$T/a" "$of_snap"
content "$T/c" "$of_other"
of_inode "$of_sub" "$(stat -c %i "$MNT/sub") dir"

# Nobody is left: a disk without snapshots, a snapshot, a directory; then others of their names.
run "$VARVE" wait "$MNT"
rm "$MNT"/sub/other*
rm "$MNT/sub/moved@two.img"
rmdir "$MNT/vm"
stale "$of_other" "$of_snap" "$of_dir"
mkdir "$MNT/vm"
run cp "$T/a" "$MNT/sub/other.img"
run "$VARVE" snapshot --label two "$MNT/sub/moved.img" >/dev/null
stale "$of_other" "$of_snap" "$of_dir"

# A removed disk whose snapshots stay comes back under its id: the handles of its snapshots hold, that of the removed disk does not.
of_two=$(take "$MNT/sub/moved@two.img")
rm "$MNT/sub/moved.img"
stale "$of_disk"
run cp "$T/a" "$MNT/sub/moved.img"
again=$(take "$MNT/sub/moved.img")
stale "$of_disk"
content "$T/a" "$again"
stop_varve
start_varve
stale "$of_disk" "$of_other" "$of_snap" "$of_dir"
content "$T/a" "$again"
content "$T/c" "$of_two"
stop_varve

# The same on a mount that cannot be written to, which shows what is stored.
start_varve ro
content "$T/c" "$of_two"
umount "$MNT"
wait_daemon
