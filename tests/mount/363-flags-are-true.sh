#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot says `partial` only of a writer that was killed, or that was open when the daemon died. A release without a flush, the end of
# a lazy umount, a descriptor that several programs write, a copy of a descriptor that is closed: one good snapshot each.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve settle=3600
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
one_good() { # N CONTENT: the N-th snapshot is the newest, good, and begins so
    run "$VARVE" wait --timeout 30 "$MNT"
    equals "$(snap_count "$disk")" "$1"
    equals "$(xattr "$(newest "$disk")" flags)" ""
    equals "$(head -c ${#2} "$(newest "$disk")")" "$2"
}

# Two programs write one descriptor of a shell, which stays.
bash -c '{ head -c 70000 /dev/zero | tr "\0" a; head -c 70000 /dev/zero | tr "\0" b; } >"$1"' - "$disk"
one_good 1 aaaa
equals "$(stat -c %s "$(newest "$disk")")" 140000

# The same with a wait for storing between them: there is nothing to store yet. The state in between goes with the next write.
exec 3<>"$disk"
python3 -c 'import os; os.pwrite(3, b"cccc", 0)'
has_flag "$(newest "$disk")" provisional || fail "not provisional while its descriptor is open"
if timeout 10 "$VARVE" wait --timeout 1 "$MNT" 3>&-; then fail "what is not settled was stored"; fi
equals "$(xattr "$(newest "$disk")" state)" pending
python3 -c 'import os; os.pwrite(3, b"dddd", 0)'
equals "$(snap_count "$disk")" 2
exec 3>&-
python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR))' "$disk"     # no change: nothing happens
one_good 2 dddd

# fork and exec, dup and close, a mapping that has a descriptor of its own.
run python3 - "$disk" <<'P'
import mmap, os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.set_inheritable(fd, True)
for i in range(5):
    os.pwrite(fd, b"eee%d" % i, 0)
    subprocess.run(["true"], close_fds=False, check=True)
    os.pwrite(fd, b"fff%d" % i, 0)
    os.close(os.dup(fd))
m = mmap.mmap(fd, 4096)
m[0:4] = b"gggg"
m.flush()
os.close(fd)
m[0:4] = b"hhhh"
m.close()
P
one_good 3 hhhh

# A loop device: the kernel releases without a flush.
loop=
if loop=$(losetup -f --show "$disk" 2>/dev/null); then
    printf iiii | dd of="$loop" conv=notrunc,fsync status=none
    run losetup -d "$loop"
    more() { [ "$(snap_count "$disk")" -gt 3 ]; }
    eventually 20 more
    run "$VARVE" snapshot --label settled "$disk" >/dev/null        # its process is unknown, so its quiet time is long here
    one_good 5 iiii
    equals "$(xattr "$(snaps "$disk" | sed -n 4p)" flags)" ""
fi
n=$(snap_count "$disk")

# A copy that ends after a lazy umount, and a clean one whose quiet time the umount ends.
run cp "$disk" "$T/before"
mkfifo "$T/go"
python3 - "$disk" "$T/go" "$T/opened" <<'P' &
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
open(sys.argv[3], "w").close()
open(sys.argv[2]).read()
os.pwrite(fd, b"jjjj", 0)
os.close(fd)
P
copy=$!
eventually 20 test -e "$T/opened"
umount -l "$MNT"
: >"$T/go"
wait "$copy"
wait_daemon
equals "$DAEMON_STATUS" 0 "exit status"
check_log
start_varve settle=3600
one_good $((n + 1)) jjjj
n=$((n + 1))

# The last user of the mount goes with thousands of releases behind it: the kernel throws away what it has not handed out, and may do so
# while it hands one out.
for i in 1 2 3; do
    rm -f "$T/go" "$T/opened"
    mkfifo "$T/go"
    python3 - "$disk" "$T/go" "$T/opened" "$i" <<'P' &
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
fd = os.open(sys.argv[1], os.O_RDWR)
dirs = [os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY | os.O_DIRECTORY) for i in range(3000)]
open(sys.argv[3], "w").close()
open(sys.argv[2]).read()
os.pwrite(fd, b"last" + sys.argv[4].encode(), 0)
os._exit(0)
P
    last=$!
    eventually 20 test -e "$T/opened"
    umount -l "$MNT"
    : >"$T/go"
    wait "$last"
    wait_daemon
    equals "$DAEMON_STATUS" 0 "exit status of a daemon whose mount went while it read"
    check_log
    start_varve settle=3600
    one_good $((n + i)) "last$i"
done
n=$((n + 3))
printf kkkk | dd of="$disk" conv=notrunc status=none
stop_varve
start_varve
one_good $((n + 1)) kkkk
stop_varve
run "$VARVE" verify "$T/store"
