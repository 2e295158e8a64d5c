#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Snapshots of a disk while fio writes to it, and kill -9 in between: every stored snapshot stays what it was, the live image
# keeps what fio had written before the last fsync.
set -eu
. "$(dirname "$0")/lib.sh"
need fio python3
expect_errors
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
truncate -s 64M "$disk"
declare -A digest
writer() {
    fio --name=w --filename="$disk" --rw=randwrite --bs=4k --size=60M --ioengine=psync --time_based --runtime=30 --randrepeat=0 \
        --fsync=64 --thread=0 >/dev/null 2>&1
}
for round in $(seq "${ROUNDS:-6}"); do
    # A block whose fsync returned must survive everything.
    mark="synced in round $round"
    python3 -c 'import os,sys
fd = os.open(sys.argv[1], os.O_RDWR); os.pwrite(fd, sys.argv[2].ljust(64).encode(), 64 * 1048576 - 4096); os.fsync(fd)' "$disk" "$mark"
    writer & pid=$!
    for k in 1 2 3; do
        sleep "0.$((RANDOM % 5 + 1))"
        s=$MNT/vm/disk@r$round-$k.img
        if "$VARVE" snapshot --label "r$round-$k" "$disk" >/dev/null; then digest[$s]=$(sha256sum <"$s"); else fail "snapshot under fio"; fi
    done
    sleep "0.$((RANDOM % 9))"
    # Somewhere in a freeze, if it can be hit.
    "$VARVE" snapshot "$disk" >/dev/null 2>&1 &
    last=$!
    sleep "0.0$((RANDOM % 9))"
    kill_varve
    wait $pid $last 2>/dev/null || true
    start_varve
    run "$VARVE" wait --timeout 50 "$MNT" || true
    for s in "${!digest[@]}"; do
        [ "$(sha256sum <"$s")" = "${digest[$s]}" ] || fail "round $round: $s changed"
        equals "$(xattr "$s" state)" stored "$s"
    done
    equals "$(tail -c 4096 "$disk" | head -c 64 | tr -d "\0" | sed "s/ *$//")" "$mark" "what was fsynced"
done
stop_varve
run "$VARVE" verify "$T/store"
echo "${#digest[@]} snapshots taken under fio, all identical"
