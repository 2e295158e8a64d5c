#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Copying a disk anew of which one segment has changed: what the daemon opens and syncs for it is counted. Scratch of the round that
# fits its buffers has no file.
set -eu
. "$(dirname "$0")/lib.sh"
need strace
OPENS=64 SYNCS=24 SCRATCH=12

start_varve
random_file "$T/a" $((64 << 20))
mkdir "$MNT/vm"
disk=$MNT/vm/d.img
store_copy() { run cp "$T/a" "$disk"; run "$VARVE" wait "$MNT/vm" >/dev/null; }
change() { dd if=/dev/urandom of="$T/a" bs=1M count=2 seek="$1" conv=notrunc status=none; }
store_copy
change 10; store_copy
change 20

trace=$T/trace
calls=openat,open,fsync,fdatasync
strace -f -qq -y -e "trace=$calls" -o "$trace" -p "$DAEMON" 2>"$T/strace.err" & tracer=$!
eventually 10 grep -q "^TracerPid:[[:space:]]*[1-9]" "/proc/$DAEMON/status"
sleep 0.5    # until all threads are traced
store_copy
kill "$tracer"; wait "$tracer" || true
[ -s "$trace" ] || skip "strace traces nothing here: $(cat "$T/strace.err")"

count() { grep -cE "$1" "$trace" || true; }
opens=$(count ' open(at)?\(') syncs=$(count ' f(data)?sync\(') scratch=$(count "openat\([0-9]+<$T/state/rounds/[0-9a-f]+>, \"[a-z]")
echo "$opens opens, $scratch of them scratch; $syncs syncs"
[ "$opens" -le $OPENS ] || fail "$opens opens for a small overwrite"
[ "$scratch" -le $SCRATCH ] || fail "$scratch opens of scratch files for a small overwrite"
[ "$syncs" -le $SYNCS ] || fail "$syncs syncs for a small overwrite"
stop_varve
