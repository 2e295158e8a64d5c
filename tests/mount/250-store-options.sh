#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each way to cut and to fingerprint: in, deduplicated, out, verified; the store remembers, not the mount.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
random_file "$T/a" 5000000
{ head -c 2500000 "$T/a"; head -c 4096 /dev/zero; tail -c 2500000 "$T/a"; } >"$T/b"    # shifted by one block
for options in "--chunking fixed" "--fingerprint sha1" "--block 16K --partitions 1" \
               "--chunking fixed --block 8K --fingerprint sha1 --partitions 64"; do
    rm -rf "$T/store" "$T/state"
    # shellcheck disable=SC2086  # several words
    run "$VARVE" init $options "$T/store" 2>/dev/null
    start_varve
    run mkdir "$MNT/vm"
    run cp "$T/a" "$MNT/vm/a.img"; run cp "$T/b" "$MNT/vm/b.img"; run cp "$T/a" "$MNT/vm/again.img"
    run "$VARVE" wait "$MNT"
    for d in a b; do same "$T/$d" "$(newest "$MNT/vm/$d.img")"; done
    same "$T/a" "$(newest "$MNT/vm/again.img")"
    unique=$(jq .totals.unique_bytes "$MNT/.varve/status.json")
    [ "$unique" -lt 8000000 ] || fail "$options: $unique unique bytes of three disks that share 5 MB"
    stop_varve
    run "$VARVE" verify "$T/store" >/dev/null
done
