#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon is killed while it has the kernel drop a page that a read holds, which only the daemon could end: it ends all the same, its
# mount is dead and stays, and the same command mounts again.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
random_file "$T/a" 1048576
disk=$MNT/disk.img
touch "$T/pause"
export VARVE_FAULT=fs.read:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run dd if="$T/a" of="$MNT/new.img" bs=1M status=none
run dd if="$T/a" of="$disk" bs=1M status=none
run "$VARVE" wait "$MNT"
# Alone it holds the descriptor: the end of every process that has one asks the daemon.
python3 - "$MNT/new.img" "$T" <<'P' &
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
open(sys.argv[2] + "/opened", "w").close()
while not os.path.exists(sys.argv[2] + "/moved"):
    time.sleep(0.05)
try:
    os.pread(fd, 65536, 0)
except OSError:
    open(sys.argv[2] + "/refused", "w").close()
P
eventually 20 test -e "$T/opened"
run mv "$MNT/new.img" "$disk"   # an inode of its own to the kernel, which so leaves it to the daemon to drop its pages
touch "$T/moved"
paused() { grep -qs "^fault: paused at" "$T/daemon.log"; }
for _ in $(seq 50); do if paused; then break; fi; sleep 0.1; done
paused || skip "this build has no fault points"
timeout 60 dd if="$T/a" of="$disk" bs=64K count=1 conv=notrunc status=none 2>/dev/null &
drops() { cat "/proc/$DAEMON"/task/*/wchan | grep -q folio; }
for _ in $(seq 50); do if drops; then break; fi; sleep 0.1; done
drops || skip "no thread is seen to wait for the page"
daemon=$DAEMON
kill -9 "$daemon"
is_gone() { ! grep -hs ^State "/proc/$daemon"/task/*/status | grep -qv "Z (zombie)"; }
for _ in $(seq 150); do if is_gone; then break; fi; sleep 0.1; done
is_gone || { umount -f -l "$MNT"; fail "the daemon stays"; }
wait "$daemon" 2>/dev/null || true
DAEMON=
eventually 15 test -e "$T/refused"
is_mounted || fail "the mount is gone: what is written below it fills the directory underneath"
rm "$T/pause"
start_varve
same "$T/a" "$disk"
stop_varve
