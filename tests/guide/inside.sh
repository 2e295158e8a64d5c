#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# inside.sh WORK PAGE: runs a page of the guide, as the first process of namespaces of its own (run.sh makes them). The root that its
# commands see is an overlay: /etc, /sbin, /usr/local and the like can be written to, and nothing of it stays. What gets large lies in
# WORK. Programs are those of the machine, varve and mount.varve those of the build, installed where `ninja install` puts them.
set -eu
work=$1 page=$2 name=$(basename "$2" .md)
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$(dirname "$VARVE")/../.." && pwd)
root=$work/root
mkdir -p "$root" "$work/over" "$work/out"

mount -t tmpfs -o size=256M varve-guide "$work/over"
mkdir "$work/over/upper" "$work/over/work"
mount -t overlay -o "lowerdir=/,upperdir=$work/over/upper,workdir=$work/over/work" overlay "$root"
for d in dev sys; do mount --rbind "/$d" "$root/$d"; done
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=64M run "$root/run"
rm -rf "$root/etc/varve" "$root/snapshots"
mkdir -p "$root/snapshots" "$root/etc/varve"
for d in srv mnt tmp var/tmp var/lib/varve var/lib/libvirt/images root; do
    mkdir -p "$work/dirs/$d" "$root/$d"
    mount --bind "$work/dirs/$d" "$root/$d"
done
chmod 1777 "$root/tmp" "$root/var/tmp"

# The program and its helper, the sources (examples/ is part of what the guide speaks of), the page and what its commands print.
mkdir -p "$root/usr/local/bin" "$root/usr/local/src" "$root/usr/local/lib/systemd/system" "$root/out"
install -m 755 "$VARVE" "$root/usr/local/bin/varve"
sed "s|^varve=.*|varve=/usr/local/bin/varve|" "$build/mount-helpers/mount.varve" >"$work/mount.varve"
install -m 755 "$work/mount.varve" "$root/sbin/mount.varve"
sed 's|^Exec\([A-Za-z]*\)=\(-\?\)[^ ]*/varve |Exec\1=\2/usr/local/bin/varve |' "$build/mount-helpers/varve@.service" \
    >"$root/usr/local/lib/systemd/system/varve@.service"
mkdir "$root/usr/local/src/varve"
mount --bind "$top" "$root/usr/local/src/varve"
mount --bind "$work/out" "$root/out"

/usr/bin/python3 "$top/tests/guide/page.py" "$page" /out >"$work/out/script"
cat "$top/tests/guide/words.sh" "$work/out/script" >"$work/out/page"
status=0
env -u VARVE -u TMPDIR HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    chroot "$root" /bin/bash -c 'cd /root && exec bash /out/page' || status=$?

# What a page leaves mounted, and loop devices of a page that failed half way. The daemon writes back what it has before all ends.
for m in $(awk '$3 ~ /^fuse/ || $1 ~ /^.dev.loop/ {print $2}' /proc/mounts | grep "^$root/" | tac); do umount "$m" 2>/dev/null || umount -l "$m"; done
for l in /sys/block/loop*/loop/backing_file; do
    [ ! -e "$l" ] || ! grep -qE "^($root)?/(snapshots|srv|mnt|var/lib/libvirt|var/tmp/restored)" "$l" || losetup -d "/dev/$(cut -d/ -f4 <<<"$l")" || true
done
for lock in "$work"/dirs/var/lib/varve/*/lock; do [ ! -e "$lock" ] || flock -w 20 "$lock" true || true; done
[ $status = 0 ] || echo "$name: the page failed"
exit $status
