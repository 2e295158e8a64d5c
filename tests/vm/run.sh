#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: a real Debian VM (software emulation) with its root on a live image: boots, writes, is snapshotted while it runs, goes
# on, and boots again from that snapshot through a qemu overlay with all that it had synced before.
set -eu
. "$(dirname "$0")/../mount/lib.sh"
cache=${VARVE_TEST_CACHE:?}
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$cache/debian-series/base" ] || bash "$here/../data/debian-series.sh" "$cache/debian-series"
bash "$here/kernel.sh" "$cache/vm"

boot() {    # boot NAME DRIVE-OPTIONS: in the background; console in $T/NAME.log, pid in $qemu
    qemu-system-x86_64 -accel tcg -machine q35 -m 512 -smp 1 -display none -no-reboot -serial "file:$T/$1.log" -monitor none \
        -kernel "$cache/vm/vmlinuz" -initrd "$cache/vm/initrd.gz" -append 'console=ttyS0 root=/dev/vda rw quiet panic=-1' \
        -drive "$2,if=virtio" 2>"$T/$1.err" &
    qemu=$!
}
expect() {  # expect NAME PATTERN SECONDS: waits for a line on the console
    local end=$((SECONDS + $3))
    until grep -q "$2" "$T/$1.log" 2>/dev/null; do
        if ! kill -0 "$qemu" 2>/dev/null; then tail -n 30 "$T/$1.log" "$T/$1.err"; fail "qemu ended before \"$2\""; fi
        if [ $SECONDS -ge $end ]; then tail -n 30 "$T/$1.log"; fail "\"$2\" not seen on the console within $3 s"; fi
        sleep 0.5
    done
}
synced() { grep -aoE 'VM: synced [0-9]+' "$T/$1.log" | tail -n 1 | grep -oE '[0-9]+$'; }
stop_vm() { kill "$1"; wait "$1" || true; }

# The disk: a debootstrap system and a service that writes, syncs and says so.
truncate -s 1G "$T/vm.img"
mkfs.ext4 -q -F -d "$cache/debian-series/base" "$T/vm.img"
mkdir "$T/look"
mount -o loop "$T/vm.img" "$T/look"
install -m 755 "$here/guest.sh" "$T/look/usr/local/sbin/vmtest"
printf '%s\n' '[Unit]' Description=vmtest After=local-fs.target '[Service]' ExecStart=/usr/local/sbin/vmtest \
    '[Install]' WantedBy=multi-user.target >"$T/look/etc/systemd/system/vmtest.service"
ln -s /etc/systemd/system/vmtest.service "$T/look/etc/systemd/system/multi-user.target.wants/vmtest.service"
umount "$T/look"

start_varve
mkdir "$MNT/vm"
cp "$T/vm.img" "$MNT/vm/disk.img"
"$VARVE" wait --timeout 300 "$MNT"

boot first "file=$MNT/vm/disk.img,format=raw,cache=writeback"
first=$qemu
expect first 'VM: synced 3' 400
before=$(synced first)
"$VARVE" snapshot --label running "$MNT/vm/disk.img"
echo "snapshot taken after the guest had synced $before"
"$VARVE" wait --timeout 300 "$MNT/vm/disk@running.img"
expect first "VM: synced $((before + 4))" 200
echo "the guest went on to $(synced first)"
stop_vm "$first"
"$VARVE" wait --timeout 300 "$MNT"
"$VARVE" log "$MNT/vm/disk.img"

qemu-img create -q -f qcow2 -b "$MNT/vm/disk@running.img" -F raw "$T/overlay.qcow2"
boot second "file=$T/overlay.qcow2,format=qcow2"
second=$qemu
expect second 'VM: verified' 400
expect second 'VM: synced' 200
stop_vm "$second"
grep -aq 'VM: DAMAGED' "$T/second.log" && fail "the guest found damaged files after booting from the snapshot"
verified=$(grep -aoE 'VM: verified [0-9]+' "$T/second.log" | grep -oE '[0-9]+$')
[ "$verified" -ge "$before" ] || fail "the snapshot holds $verified of the $before files that were synced before it"
echo "booted from the snapshot: $verified files verified, $before were synced before it was taken"

# The image on which the VM was killed: what it had synced is there, after a restart of the daemon too.
stop_varve
start_varve
mount -o loop "$MNT/vm/disk.img" "$T/look"
(cd "$T/look/var/vmtest" && sha256sum --quiet -c sums)
umount "$T/look"
stop_varve
echo "vm: all good"
