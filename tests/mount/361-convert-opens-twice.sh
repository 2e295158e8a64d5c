#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# qemu-img convert writes an empty image, closes it, and opens it again to fill it: one snapshot. A convert that is killed after its first
# close leaves `partial`, and the newest snapshot without a flag is the one from before.
set -eu
. "$(dirname "$0")/lib.sh"
need qemu-img python3
start_varve settle=3600
run mkdir "$MNT/vm"
random_file "$T/a.raw" 20000000
for format in qcow2 vmdk vdi vhdx vpc; do
    disk=$MNT/vm/disk.$format
    run qemu-img convert -f raw -O $format "$T/a.raw" "$disk"
    run "$VARVE" wait --timeout 30 "$MNT"
    equals "$(snap_count "$disk")" 1 $format
    equals "$(xattr "$(newest "$disk")" flags)" "" $format
    run qemu-img compare -f raw -F $format "$T/a.raw" "$(newest "$disk")" >/dev/null
done

disk=$MNT/vm/disk.qcow2
good=$(newest "$disk")
python3 - "$disk" <<'P' || true
import os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.pwrite(fd, b"an empty image", 0)
os.fdatasync(fd)
os.close(fd)
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"its first data", 1 << 20)
os.kill(os.getpid(), signal.SIGKILL)
P
is_partial() { more_snaps_than 1 "$disk" && has_flag "$(newest "$disk")" partial; }
eventually 20 is_partial
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$disk")" 2
equals "$(xattr "$good" flags)" ""
run qemu-img compare -f raw -F qcow2 "$T/a.raw" "$good" >/dev/null
stop_varve
