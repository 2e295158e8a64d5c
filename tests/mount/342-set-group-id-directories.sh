#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A directory with the set-group-ID bit hands on its group to all that is made in it, and its bit to directories, of every user and
# by every call; the mount's top directory too. Disks themselves never have the bit.
set -eu
. "$(dirname "$0")/lib.sh"
need python3 setpriv
chmod 755 "$T"
start_varve
random_file "$T/a" 200000
chmod 644 "$T/a"
has() { equals "$(stat -c '%A %g' "$1")" "$2" "$1"; }
# Of the group, but with another one as its own.
as_member() { run setpriv --reuid=1001 --regid=1001 --groups=2000 bash -c "umask 027; cd '$1'; $2"; }
shared() {
    chgrp 2000 "$1"
    chmod 2775 "$1"
    as_member "$1" "mkdir d d/e; mkdir -m 750 m; cp '$T/a' f.img; cp '$T/a' .tmp; mv .tmp moved.img
        python3 -c 'import os, stat; os.mknod(\"n.img\", 0o640 | stat.S_IFREG); os.close(os.open(\"c.img\", os.O_CREAT | os.O_EXCL, 0o2640))'"
    for d in d d/e m; do has "$1/$d" "drwxr-s--- 2000"; done
    for d in f moved n c; do has "$1/$d.img" "-rw-r----- 2000"; done
    for s in $(snaps "$1/f.img") $(snaps "$1/moved.img"); do has "$s" "-rw-r----- 2000"; done
}
run mkdir "$MNT/vm" "$MNT/plain"
shared "$MNT/vm"
as_member "$MNT" "! mkdir not-allowed 2>/dev/null"
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/f.img")

# A disk that a revert makes, and one that it brings back.
run "$VARVE" revert --to "$MNT/vm/clone.img" "$snap"
equals "$(stat -c '%u:%g' "$MNT/vm/clone.img")" 0:2000
run rm "$MNT/vm/f.img"
run "$VARVE" revert "$snap"
equals "$(stat -c '%u:%g' "$MNT/vm/f.img")" 0:2000 "a disk that came back"
# One that comes back by being made again; in a directory without the bit it gets the maker's group.
run rm "$MNT/vm/f.img"
as_member "$MNT/vm" "cp '$T/a' f.img"
has "$MNT/vm/f.img" "-rw-r----- 2000"
chmod 777 "$MNT/plain"
as_member "$MNT/plain" "cp '$T/a' f.img; mkdir d"
has "$MNT/plain/f.img" "-rw-r----- 1001"
has "$MNT/plain/d" "drwxr-x--- 1001"
# One that is not of the group cannot put the bit there, as anywhere.
run chown 1001:2000 "$MNT/vm/m"
run setpriv --reuid=1001 --regid=1001 --clear-groups chmod 2700 "$MNT/vm/m"
has "$MNT/vm/m" "drwx------ 2000"
stop_varve

start_varve
has "$MNT/vm" "drwxrwsr-x 2000"
has "$MNT/vm/d" "drwxr-s--- 2000"
shared "$MNT"
stop_varve
