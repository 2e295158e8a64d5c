#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STATE comes from a version that noted no numbers (no STATE/containers), and STORE was put back from an older copy before the first start of
# this one: the places in the tables tell which numbers were issued. Also when that first start is killed before it is done.
set -eu
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/put_back.sh"

newer_than_copy "$T/d1" "$T/d2" "$T/d1"
put_back
rm -rf "$T/state/containers"
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
