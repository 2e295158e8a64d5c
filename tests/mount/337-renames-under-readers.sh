#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Renames of disks over each other at random while readers have sources and targets open (335). VARVE_SEED.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
seed=${VARVE_SEED:-$RANDOM}
echo "VARVE_SEED=$seed"
images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.*' | wc -l; }
none_is_left() { [ "$(images)" = "$(find "$MNT/vm" -type f ! -name '*@*' | wc -l)" ]; }
start_varve
run mkdir "$MNT/vm"
CASE_TIMEOUT=120 run python3 "$(dirname "$0")/rename_readers.py" "$MNT/vm" "${VARVE_SECONDS:-6}" "$seed"
run "$VARVE" wait "$MNT"
eventually 30 none_is_left
stop_varve
start_varve
equals "$(find "$MNT" -name 'lost-*')" ""
run "$VARVE" wait "$MNT"
stop_varve
run "$VARVE" verify "$T/store"
