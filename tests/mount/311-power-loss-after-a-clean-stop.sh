#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A clean stop syncs what counts, but not the vol and cache files: they are for a kill, never for a loss of power. What a loss of
# power right after the stop leaves of them (here: nothing) must not be believed at the next start, which sees STATE through another
# mount, as after a reboot.
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" 3000000
start_varve
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
run dd if=/dev/urandom of="$MNT/vm/disk.img" bs=1000 count=9 seek=30 conv=notrunc status=none
run cp "$MNT/vm/disk.img" "$T/now"
stop_varve

find "$T/state/disks" -name '*.vol' -exec truncate -s 0 {} +
mkdir "$T/again"
mount --bind "$T/state" "$T/again"
at_end umount -l "$T/again"
start_varve state="$T/again"
same "$T/now" "$MNT/vm/disk.img"
run "$VARVE" wait --timeout 20 "$MNT"
same "$T/now" "$(newest "$MNT/vm/disk.img")"
same "$T/a" "$(snaps "$MNT/vm/disk.img" | head -n 1)"
stop_varve
run "$VARVE" verify "$T/store"
