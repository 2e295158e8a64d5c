#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A page that is read while a direct write by AIO is on its way is the old one. It must not stay: once the write is reported as done,
# everybody reads what was written, as long as any descriptor is open. No kernel drops such pages by itself at that moment.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
len=65536
random_file "$T/a" 1048576
printf '\7%.0s' $(seq $len) >"$T/b"
disk=$MNT/disk.img
aio() { coproc writer { timeout 60 python3 "$(dirname "$0")/aio.py" "$disk" $len 7 2>"$T/aio.log"; }; }
says() { read -r -t 30 said <&"${writer[0]}" || fail "the writer says nothing: $(cat "$T/aio.log")"; equals "$said" "$1"; }
touch "$T/pause"
export VARVE_FAULT=fs.write.before:2=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
run dd if="$T/a" of="$disk" bs=1M status=none
exec 7<"$disk"
cmp - "$T/a" <&7 || fail "the disk is not what was put in"
aio
says sent
timeout 5 dd if=/proc/self/fd/7 bs=64K count=1 status=none of="$T/meanwhile" || skip "a read waits for the write: nothing old can be kept"
cmp -s -n $len "$T/meanwhile" "$T/b" && skip "this build has no fault points"
cmp -n $len "$T/meanwhile" "$T/a" || fail "the write is seen before it has come"
rm "$T/pause"
says written
dd if=/proc/self/fd/7 bs=64K count=1 status=none | cmp -n $len - "$T/b" || fail "an old page stayed, for a handle of before"
head -c $len "$disk" | cmp -n $len - "$T/b" || fail "an old page stayed, for a new handle"
eval "exec ${writer[1]}>&-"
wait "${writer_PID:-}" || true
exec 7<&-
run "$VARVE" wait "$disk"
stop_varve

# Small writes, which the daemon does at once, through the same way.
unset VARVE_FAULT
start_varve
run python3 - "$disk" <<'P'
import mmap, os, sys
direct = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
seen = os.open(sys.argv[1], os.O_RDONLY)
page = mmap.mmap(-1, 4096)
for i in range(256):
    os.pread(seen, 65536, 0)
    page[:] = bytes([i]) * 4096
    assert os.pwritev(direct, [page], i % 16 * 4096) == 4096
    assert os.pread(seen, 4096, i % 16 * 4096) == page[:], i
P
stop_varve
