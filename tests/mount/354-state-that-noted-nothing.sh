#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STATE comes from a version that noted no numbers (no STATE/containers), and STORE was put back from an older copy before the first start of
# this one: the places in the tables tell which numbers were issued. Also when that first start is killed before it is done.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
for i in 1 2 3; do random_file "$T/d$i" 5000000; done
lost() { local i; for i in 0 1 2; do must_fail "Input/output error" dd if="$1" of="$T/got" bs=1M skip=$((i * 2)) count=1 iflag=direct; done; }

start_varve
run mkdir "$MNT/vm"
run cp "$T/d1" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
stop_varve
cp -a "$T/store" "$T/store.old"
start_varve
run cp "$T/d2" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/a.img")
run cp "$T/d1" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
run "$VARVE" revert "$snap"
stop_varve
rm -rf "$T/store" "$T/state/containers"
cp -a "$T/store.old" "$T/store"
mkdir "$T/state/containers.new"     # what a killed first start leaves
: >"$T/state/containers.new/000001"

start_varve
if [ ! -d "$T/state/containers" ] || [ -e "$T/state/containers.new" ]; then fail "the first start did not note the places"; fi
for n in 1 2 3; do
    run cp "$T/d3" "$MNT/vm/n$n.img"
    run "$VARVE" wait "$MNT"
    lost "$MNT/vm/a.img"
done
stop_varve
start_varve
lost "$MNT/vm/a.img"
same "$T/d1" "$(newest "$MNT/vm/a.img")"
stop_varve
run "$VARVE" verify "$T/store"
