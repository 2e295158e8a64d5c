#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Copying in makes a backup, ls shows it at once, copying out restores it; all of it survives a remount.
set -eu
. "$(dirname "$0")/lib.sh"

start_varve
run mkdir "$MNT/web"
random_file "$T/in" 9000001
run cp "$T/in" "$MNT/web/disk.img"
equals "$(snap_count "$MNT/web/disk.img")" 1 "the snapshot is there when cp returns"
same "$T/in" "$MNT/web/disk.img"
snap=$(newest "$MNT/web/disk.img")
case $(basename "$snap") in disk@[0-9]*T[0-9]*Z.img) ;; *) fail "strange name: $snap";; esac
same "$T/in" "$snap"                                    # readable while pending
equals "$(stat -c %s "$snap")" 9000001
equals "$(stat -c %h "$snap")" 1
case $(stat -c %A "$snap") in -rw-r--r--) ;; *) fail "the snapshot's mode is $(stat -c %A "$snap")";; esac    # its owner's copies can be overwritten
must_fail "Read-only file system" dd if="$T/in" of="$snap" count=1 conv=notrunc status=none
[ "$(stat -c %i "$snap")" != "$(stat -c %i "$MNT/web/disk.img")" ] || fail "same inode number"

run "$VARVE" wait "$MNT/web/disk.img"
equals "$(xattr "$snap" state)" stored
equals "$(xattr "$MNT/web/disk.img" state)" live
drop_pages "$snap"
run cp "$snap" "$T/out"
same "$T/in" "$T/out"

# An empty file and a tiny one.
run cp /dev/null "$MNT/web/empty.img"
equals "$(snap_count "$MNT/web/empty.img")" 0 "an image without a byte makes no snapshot"
echo tiny >"$T/tiny"
run cp "$T/tiny" "$MNT/web/tiny"
equals "$(snap_count "$MNT/web/tiny")" 1
case $(snaps "$MNT/web/tiny") in *@*Z) ;; *) fail "a disk without extension";; esac

# A close without a change, chmod, chown and times make none.
before=$(snap_count "$MNT/web/disk.img")
exec 3<>"$MNT/web/disk.img"; exec 3>&-
run chmod 600 "$MNT/web/disk.img"
run touch "$MNT/web/disk.img"
equals "$(snap_count "$MNT/web/disk.img")" "$before"

ino=$(stat -c %i "$snap")
stop_varve
start_varve
same "$T/in" "$snap"
same "$T/in" "$MNT/web/disk.img"
equals "$(stat -c %i "$snap")" "$ino" "inode numbers survive a remount"
equals "$(stat -c %a "$MNT/web/disk.img")" 600
equals "$(snap_count "$MNT/web/disk.img")" "$before" "a clean stop and start makes no snapshot"

# The control folder: reachable, not listed, for root only.
equals "$(ls -A "$MNT")" web
run grep -q . "$MNT/.varve/status.json"
run cat "$MNT/.varve/metrics" "$MNT/.varve/events" >/dev/null
equals "$(stat -c %a "$MNT/.varve")" 750
stop_varve
