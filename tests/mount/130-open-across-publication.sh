#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot that was opened while it was pending goes on reading and seeking after its publication, through the same handle.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

# The round stops before its first link until the file goes.
touch "$T/pause"
export VARVE_FAULT=dedup.4b.before_publish:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 9000000
truncate -s 30M "$T/a"
run cp --sparse=always "$T/a" "$disk"
snap=$(newest "$disk")

# Opens, reads the first half, says so, waits, then reads the second half: that no cache can have.
python3 - "$snap" "$T/a" "$T/opened" "$T/published" <<'P' &
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
want = open(sys.argv[2], "rb").read()
assert os.pread(fd, 4 << 20, 0) == want[:4 << 20], "pending"
assert os.lseek(fd, 0, os.SEEK_HOLE) >= 9000000
open(sys.argv[3], "w").close()
while not os.path.exists(sys.argv[4]):
    time.sleep(0.05)
pos = 4 << 20
while pos < len(want):
    got = os.pread(fd, 1 << 20, pos)
    assert got == want[pos:pos + (1 << 20)], pos
    pos += len(got)
hole = os.lseek(fd, 0, os.SEEK_HOLE)
assert 9000000 <= hole < 9000000 + (1 << 16), hole
P
reader=$!
eventually 20 test -e "$T/opened"
[ "$(xattr "$snap" state)" = pending ] || skip "this build has no fault points"
rm "$T/pause"
run "$VARVE" wait "$disk"
equals "$(xattr "$snap" state)" stored
touch "$T/published"
wait "$reader" || fail "reading after the publication, through a handle from before"
same "$T/a" "$snap"
stop_varve
