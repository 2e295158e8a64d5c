#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program that opens, writes one piece and closes, piece after piece, leaves one snapshot: that of its last close. No state in between
# stays, and the name does not run ahead of the clock. Another program's writes supersede nothing, nor does a rewrite from zero.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve settle=3600                 # no quiet time ends by itself here
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img

pieces() { # DISK N [HOW]: mkdir beside it shows how many snapshots there are after each close
    python3 - "$@" <<'P'
import os, re, sys
disk, n, how = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
os.close(os.open(disk, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
name = os.path.basename(disk)[:-4]
for i in range(n):
    fd = os.open(disk, os.O_RDWR if i % 2 else os.O_WRONLY)
    os.pwrite(fd, b"%4d" % i * 16384, i * 65536)
    if how:
        os.fdatasync(fd)
    os.close(fd)
    made = [s for s in os.listdir(os.path.dirname(disk)) if s.startswith(name + "@")]
    assert len(made) == 1, made
    flags = os.getxattr(os.path.join(os.path.dirname(disk), made[0]), "user.varve.flags")
    assert flags == b"provisional", flags
P
}
for how in "" sync; do
    pieces "$disk" 40 $how || fail "pieces $how"
    run "$VARVE" wait --timeout 30 "$MNT"
    equals "$(snap_count "$disk")" 1
    snap=$(newest "$disk")
    equals "$(xattr "$snap" flags)" ""
    equals "$(xattr "$snap" state)" stored
    same "$disk" "$snap"
    t=${snap##*@}; t=${t%Z.img}
    at=$(date -ud "${t:0:4}-${t:4:2}-${t:6:2} ${t:9:2}:${t:11:2}:${t:13:2}" +%s)
    [ "$at" -le $(($(date +%s) + 1)) ] || fail "named $((at - $(date +%s))) s ahead"
    run rm "$snap" "$disk"
done

# Each of two programs closes a whole state.
printf one >"$T/a"; printf two >"$T/b"; printf six >"$T/c"
run cp "$T/a" "$disk"
run dd if="$T/b" of="$disk" conv=notrunc status=none
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$disk")" 2
equals "$(head -c 3 "$(snaps "$disk" | head -1)")" one

# A program that rewrites the disk from zero leaves one for each time; one that only opens it again leaves what is there.
run python3 - "$disk" <<'P'
import sys, os
for text in "three", "four.":
    with open(sys.argv[1], "w") as f:
        f.write(text)
os.close(os.open(sys.argv[1], os.O_RDWR))
P
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$disk")" 4
equals "$(head -c 5 "$(newest "$disk")")" "four."
for s in $(snaps "$disk"); do equals "$(xattr "$s" flags)" "" "$s"; done

# A snapshot that was asked for stores the close before it, which then cannot be withdrawn: it says partial once its writer goes on.
run python3 - "$disk" "$VARVE" <<'P'
import os, subprocess, sys
disk, varve = sys.argv[1:3]
def piece(text):
    fd = os.open(disk, os.O_WRONLY)
    os.pwrite(fd, text, 0)
    os.close(fd)
piece(b"five.")
subprocess.run([varve, "snapshot", "--label", "asked", disk], check=True, stdout=subprocess.DEVNULL)
subprocess.run([varve, "wait", "--timeout", "30", disk], check=True)
piece(b"seven")
P
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(xattr "$MNT/vm/disk@asked.img" flags)" ""
equals "$(head -c 5 "$MNT/vm/disk@asked.img")" five.
equals "$(head -c 5 "$(newest "$disk")")" seven
equals "$(xattr "$(newest "$disk")" flags)" ""
equals "$(xattr "$(snaps "$disk" | sed -n 5p)" flags)" partial
stop_varve
run "$VARVE" verify "$T/store"
