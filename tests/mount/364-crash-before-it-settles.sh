#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon is killed before a snapshot has settled: the snapshot is good if its writer had released the disk and had not gone on, and
# partial if it had not. One that was withdrawn does not come back.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
random_file "$T/a" 3000000
start_varve settle=3600
run mkdir "$MNT/vm"

# Each holder is alive when the daemon dies, so nothing has settled.
holder() { # NAME CODE
    python3 -c 'import os, sys, time
disk, ready = sys.argv[1:3]
def piece(text, flags=os.O_RDWR | os.O_CREAT):
    fd = os.open(disk, flags)
    os.pwrite(fd, text, 0)
    return fd
'"$2"'
open(ready, "w").close()
time.sleep(120)' "$MNT/vm/$1.img" "$T/$1.ready" 3>&- &
    holders+=($!)
    eventually 20 test -e "$T/$1.ready"
}
holders=()
holder closed 'os.close(piece(b"one"))'
holder reopened 'os.close(piece(b"two")); os.close(piece(b"new"))'
holder writing 'os.close(piece(b"three")); piece(b"four.")'
holder forked 'fd = piece(b"five"); os.close(os.dup(fd))'
holder rewritten 'os.close(piece(b"old")); os.close(piece(b"whole", os.O_RDWR | os.O_TRUNC))'
# A release may be on its way while its close has returned: what it leaves is durable once the next open has been answered.
for n in closed reopened rewritten; do python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR))' "$MNT/vm/$n.img"; done
for n in closed reopened forked; do
    equals "$(snap_count "$MNT/vm/$n.img")" 1 $n
    equals "$(xattr "$(newest "$MNT/vm/$n.img")" flags)" provisional $n
    equals "$(xattr "$(newest "$MNT/vm/$n.img")" state)" pending $n
done
equals "$(snap_count "$MNT/vm/writing.img")" 0
kill_varve
kill "${holders[@]}"
start_varve
run "$VARVE" wait --timeout 30 "$MNT"
check() { # NAME COUNT FLAGS CONTENT
    equals "$(snap_count "$MNT/vm/$1.img")" "$2" "$1"
    equals "$(xattr "$(newest "$MNT/vm/$1.img")" flags)" "$3" "$1"
    equals "$(head -c ${#4} "$(newest "$MNT/vm/$1.img")")" "$4" "$1"
}
check closed 1 "" one
check reopened 1 "" new
check writing 1 partial four.
check forked 1 partial five
check rewritten 2 "" whole
has_flag "$MNT/vm/rewritten.img" rewriting && fail "the mark stays though the rewrite was whole"
stop_varve
run "$VARVE" verify "$T/store"

# The daemon dies between the record that withdraws a snapshot and the write that was the reason.
export VARVE_FAULT=live.thaw.recorded:1=kill
start_varve settle=3600
unset VARVE_FAULT
python3 -c 'import os, sys
for text in b"six", b"ten":
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, text, 0)
    os.close(fd)' "$MNT/vm/died.img" 2>/dev/null && skip "this build has no fault points"
killed_at "the withdrawal"
start_varve
run "$VARVE" wait --timeout 30 "$MNT"
check died 1 partial six
stop_varve
