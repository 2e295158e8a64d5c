#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Freezes hang, of more disks than there are workers. Each close can be killed; and of two closes of one open file at the same time
# neither is answered before the disk is frozen.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
touch "$T/pause"
export VARVE_FAULT=live.freeze.record:1+=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
cat >"$T/close.py" <<'PY'
import os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"data" * 5000, 0)
twin = os.dup(fd)
first = threading.Thread(target=os.close, args=(fd,), daemon=True)
first.start()
time.sleep(1)
os.close(twin)
open(sys.argv[2], "w").close()
first.join()
PY
python3 "$T/close.py" "$MNT/vm/twice.img" "$T/answered" &
twice=$!
sleep 3
kill -0 "$twice" 2>/dev/null || skip "this build has no fault points"
if [ -e "$T/answered" ]; then rm -f "$T/pause"; fail "a close was answered while the other one of the same file is being frozen"; fi

# All are open and written before the first close: an open needs a worker, too.
pids=()
for n in $(seq 12); do
    python3 -c 'import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"data" * 5000, 0)
open(sys.argv[2], "w").close()
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
open(sys.argv[4], "w").close()
os.close(fd)' "$MNT/vm/disk$n.img" "$T/open$n" "$T/go" "$T/closing$n" &
    pids+=($!)
done
there() { [ "$(find "$T" -maxdepth 1 -name "$1*" | wc -l)" = 12 ]; }
eventually 60 there open
touch "$T/go"
eventually 60 there closing
sleep 3
for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
left=12
for _ in $(seq 100); do
    left=0
    for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then left=$((left + 1)); fi; done
    [ "$left" -gt 0 ] || break
    sleep 0.1
done
rm "$T/pause"
equals "$left" 0 "closes that cannot be killed"
wait "$twice" || fail "the close of one file twice"
run "$VARVE" wait --timeout 60 "$MNT"
equals "$(snap_count "$MNT/vm/twice.img")" 1
stop_varve
run "$VARVE" verify "$T/store"
