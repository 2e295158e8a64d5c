#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whatever is handed to ioctls, extended attributes and names: it is refused with the right errno, or served; the daemon lives,
# and what was stored is as it was.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
start_varve
run mkdir "$MNT/vm"
random_file "$T/a" 3000000
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
first=$(newest "$MNT/vm/disk.img")
run touch "$MNT/vm/disk@gold.img"
run "$VARVE" wait "$MNT"
CASE_TIMEOUT=200 run python3 "$(dirname "$0")/../fuzz/mount_input.py" "$MNT" $((${ROUNDS:-6} * 500)) "${VARVE_SEED:-$RANDOM}"
kill -0 "$DAEMON" || fail "the daemon is gone"
same "$T/a" "$first"
same "$T/a" "$MNT/vm/disk@gold.img"
run "$VARVE" wait "$MNT"
stop_varve
run "$VARVE" verify "$T/store" >/dev/null
