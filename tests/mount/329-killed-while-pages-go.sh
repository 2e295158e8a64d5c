#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon is killed while it has the kernel drop a page that a read holds, which only the daemon could end: it ends all the same, its
# mount is dead and stays, and the same command mounts again.
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" 1048576
disk=$MNT/disk.img
touch "$T/pause"
export VARVE_FAULT=fs.read:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run dd if="$T/a" of="$MNT/new.img" bs=1M status=none
run dd if="$T/a" of="$disk" bs=1M status=none
run "$VARVE" wait "$MNT"
exec 7<"$MNT/new.img"
run mv "$MNT/new.img" "$disk"   # an inode of its own to the kernel, which so leaves it to the daemon to drop its pages
(timeout 60 head -c 65536 <&7 >/dev/null 2>&1 || true; touch "$T/read") &
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
eventually 15 is_gone
wait "$daemon" 2>/dev/null || true
DAEMON=
eventually 15 test -e "$T/read"
exec 7<&-
is_mounted || fail "the mount is gone: what is written below it fills the directory underneath"
rm "$T/pause"
start_varve
same "$T/a" "$disk"
stop_varve
