#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a killed copy leaves is kept, but marked; the version before stays the good one. The daemon's own death likewise.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

writer() { # DISK FLAGS END: writes, then ends in that way
    python3 - "$@" <<'P'
import os, signal, sys, time
disk, flags, end = sys.argv[1:4]
fd = os.open(disk, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if "t" in flags else 0), 0o640)
os.pwrite(fd, os.urandom(1 << 20), 0)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif end == "int":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
elif end == "exit":
    os._exit(3)                     # a failure of its own, but not a signal
P
}

start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 3000000

# The very first copy.
writer "$MNT/vm/first.img" t kill 2>/dev/null || true
eventually 10 more_snaps_than 0 "$MNT/vm/first.img"
eventually 10 has_flag "$(newest "$MNT/vm/first.img")" partial

run cp "$T/a" "$disk"
good=$(newest "$disk")
for end in kill int; do
    for flags in t n; do
        before=$(snap_count "$disk")
        writer "$disk" $flags $end 2>/dev/null || true
        eventually 10 more_snaps_than "$before" "$disk"
        eventually 10 has_flag "$(newest "$disk")" partial
        same "$T/a" "$good"
    done
done
has_flag "$disk" rewriting || fail "the unfinished rewrite has lost its mark"
equals "$(xattr "$good" flags)" ""

# A program that just exits is clean, whatever its status; so is a complete copy.
writer "$disk" n exit || true
run cp "$T/a" "$disk"
eventually 10 flags_clear "$disk"
has_flag "$disk" rewriting && fail "the mark stays after a complete copy"

# A child that is killed does not spoil what its parent closes later, and the reverse flush is superseded.
before=$(snap_count "$disk")
run python3 - "$disk" <<'P'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"one", 0)
pid = os.fork()
if pid == 0:
    os._exit(0)                     # its exit flushes the shared handle
os.waitpid(pid, 0)
os.pwrite(fd, b"two", 0)
os.close(fd)
P
eventually 10 more_snaps_than "$before" "$disk"
eventually 10 flags_clear "$disk"
equals "$(head -c 3 "$(newest "$disk")")" two

# Provisional while the handle is open.
exec 3<>"$disk"
printf again >&3
(exit 0) 3>&3
python3 -c 'import os; os.close(3)'
has_flag "$(newest "$disk")" provisional || fail "not provisional while its writer is open"
exec 3>&-
eventually 10 flags_clear "$disk"

# kill -9 of the daemon in the middle of a copy.
exec 3<>"$disk"
printf unfinished >&3
kill_varve
exec 3>&- || true
start_varve
eventually 20 has_flag "$(newest "$disk")" partial
equals "$(head -c 10 "$(newest "$disk")")" unfinished
same "$T/a" "$good"
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
equals "$(xattr "$(newest "$disk")" flags)" ""
same "$T/a" "$(newest "$disk")"

# The same of a writer whose handle nobody has flushed, not even a child's exit.
python3 - "$disk" "$T/written" <<'P' &
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"never flushed", 0)
open(sys.argv[2], "w").close()
time.sleep(60)
P
holder=$!
eventually 20 test -e "$T/written"
kill_varve
kill "$holder"
start_varve
eventually 20 has_flag "$(newest "$disk")" partial
equals "$(head -c 13 "$(newest "$disk")")" "never flushed"
stop_varve
