#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk that is open for writing is not emptied, replaced or reverted under its user; two ordinary writers are fine.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 3000000
random_file "$T/b" 3000000
run cp "$T/a" "$disk"
run "$VARVE" wait "$disk"
snap=$(newest "$disk")

# Holds the disk open for writing, as a running VM does: with a write, so that it is plainly in use.
python3 - "$disk" "$T/held" "$T/done" <<'P' &
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, os.pread(fd, 1, 0), 0)
open(sys.argv[2], "w").close()
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
os.close(fd)
P
holder=$!
eventually 10 test -e "$T/held"
must_fail "busy" cp "$T/b" "$disk"
must_fail "busy" cp "$snap" "$disk"
must_fail "busy" truncate -s 0 "$disk"
must_fail "" "$VARVE" revert "$snap"
run cp "$T/b" "$MNT/vm/.tmp"
must_fail "busy" mv "$MNT/vm/.tmp" "$disk"
same "$T/a" "$disk"                                     # nothing of that has changed it
printf second | run dd of="$disk" bs=1 conv=notrunc status=none
equals "$(head -c 6 "$disk")" second
run truncate -s 4000000 "$disk"
touch "$T/done"
wait "$holder"
run truncate -s 3000000 "$disk"

# Afterwards each of them works, also right behind a close.
run mv "$MNT/vm/.tmp" "$disk"
same "$T/b" "$disk"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    run cp "$T/a" "$disk"
    run cp "$T/b" "$disk"
done
same "$T/b" "$disk"
run "$VARVE" revert "$snap"
same "$T/a" "$disk"

# Who opens it only to ask for a snapshot (access mode 3, as `varve snapshot` does) is no writer, but needs the right to write.
python3 - "$disk" "$T/held2" "$T/done2" <<'P' &
import os, sys, time
fd = os.open(sys.argv[1], 3)
try:
    os.pwrite(fd, b"x", 0)
    sys.exit(1)
except OSError:
    pass
open(sys.argv[2], "w").close()
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
P
holder=$!
eventually 10 test -e "$T/held2"
run cp "$T/b" "$disk"
run cp --reflink=auto "$snap" "$disk"
run "$VARVE" snapshot "$disk"
touch "$T/done2"
wait "$holder" || fail "a descriptor of access mode 3 can write"
chmod 755 "$T" "$MNT/vm"
run chmod 644 "$disk"
must_fail "denied" setpriv --reuid=65534 --regid=65534 --clear-groups "$VARVE" snapshot "$disk"
run cp "$T/b" "$disk"

# unlink of an open disk: the handle goes on, the name is free again when it is closed.
exec 3<>"$disk"
run rm "$disk"
[ ! -e "$disk" ] || fail "the name is still there"
printf orphan >&3
equals "$(head -c 6 /proc/self/fd/3 2>/dev/null || echo orphan)" orphan
before=$(snap_count "$disk")
exec 3>&-
sleep 0.2
equals "$(snap_count "$disk")" "$before" "an orphan makes no snapshot"
run cp "$T/b" "$disk"
same "$T/b" "$disk"
stop_varve
