#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program that was told that a write failed closes its file like any other. What it leaves is no backup, unless it wrote the
# same range again with success: `cp` gives up, a virtual machine repeats.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
mkdir "$T/small"
mount -t tmpfs -o size=24m none "$T/small"
at_end umount -l "$T/small"

# STATE is the small disk: writes are what meets its end.
mkdir "$T/small/state"
"$VARVE" init "$T/store" >>"$T/init.log"
INIT_DONE=1
start_varve "state=$T/small/state"
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/old" 3000000
random_file "$T/new" 40000000
run cp "$T/old" "$disk"
run "$VARVE" wait "$disk"
good=$(newest "$disk")
equals "$(xattr "$good" flags)" ""

# cp onto it: refused, and what it left is marked; so is the disk.
must_fail "No space left on device" cp "$T/new" "$disk"
eventually 10 more_snaps_than 1 "$disk"
eventually 10 has_flag "$(newest "$disk")" partial
has_flag "$disk" rewriting || fail "the unfinished rewrite has lost its mark"
same "$T/old" "$good"

# The very first copy of another disk.
run "$VARVE" wait "$disk"
run rm "$(newest "$disk")" "$disk"
must_fail "No space left on device" cp "$T/new" "$MNT/vm/first.img"
eventually 10 has_flag "$(newest "$MNT/vm/first.img")" partial
run "$VARVE" wait "$MNT"
run rm "$MNT/vm/first.img"
for s in "$MNT"/vm/first@*.img; do run rm "$s"; done

# In place, without truncation: partial if it gives up, whole if it repeats exactly what was refused, or shrinks the disk.
writer() { # HOW
    python3 - "$MNT/vm/inplace.img" "$T/small/fill" "$1" <<'P'
import errno, os, sys
disk, fill, how = sys.argv[1:4]
fd = os.open(disk, os.O_RDWR | os.O_CREAT, 0o640)
os.pwrite(fd, os.urandom(1 << 20), 0)
with open(fill, "wb", buffering=0) as f:      # a buffer would be written once more by close
    try:
        while True:
            f.write(bytes(1 << 16))
    except OSError:
        pass
data, at, refused = os.urandom(1 << 20), 1 << 20, []
while not refused:
    try:
        assert os.pwrite(fd, data, at) == len(data)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        refused.append(at)
    at += len(data)
os.unlink(fill)
if how == "again":
    assert os.pwrite(fd, data, refused[0]) == len(data)
elif how == "half":
    assert os.pwrite(fd, data[:4096], refused[0]) == 4096
elif how == "shrink":
    os.ftruncate(fd, refused[0])
elif how == "elsewhere":
    assert os.pwrite(fd, data, 0) == len(data)
os.close(fd)
P
}
for how in again half shrink elsewhere nothing; do
    before=$(snap_count "$MNT/vm/inplace.img" 2>/dev/null || echo 0)
    writer $how || fail "the writer ($how)"
    eventually 10 more_snaps_than "$before" "$MNT/vm/inplace.img"
    snap=$(newest "$MNT/vm/inplace.img")
    case $how in
        again|shrink) eventually 10 flags_clear "$MNT/vm/inplace.img" ;;
        *) eventually 10 has_flag "$snap" partial ;;
    esac
    run "$VARVE" wait "$MNT/vm/inplace.img"
done

# The disk's next whole copy is a backup again, and clears the mark.
run cp "$T/old" "$disk"
eventually 10 flags_clear "$disk"
has_flag "$disk" rewriting && fail "the mark stays after a complete copy"
run "$VARVE" wait "$MNT"
same "$T/old" "$(newest "$disk")"
stop_varve
run "$VARVE" verify "$T/store"
