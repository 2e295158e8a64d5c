#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# systemd_root.sh WORK: becomes a systemd that has the varve unit, the journal and nothing else, as the first process of namespaces of its
# own (unshare --pid --mount --cgroup --ipc --uts). Its root is an overlay on the machine's, its /dev, /run and journal are its own, so no
# service and no file of the machine is touched. WORK/dirs are its /srv and /var/lib/varve. varve is where `ninja install` puts it.
set -eu
work=$1 root=$1/root
top=$(cd "$(dirname "$0")/../.." && pwd)
units=$root/etc/varve-units
mkdir -p "$root" "$work/over" "$work/dirs"
mount -t tmpfs -o size=256M varve-systemd "$work/over"
mkdir "$work/over/upper" "$work/over/work"
mount -t overlay -o "lowerdir=/,upperdir=$work/over/upper,workdir=$work/over/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
for d in null zero full random urandom tty fuse; do
    touch "$root/dev/$d"
    mount --bind "/dev/$d" "$root/dev/$d"
done
rm -rf "$root/etc/varve" "$root/var/log/journal" "$root/snapshots"
mkdir -p "$root/snapshots" "$root/etc/varve" "$root/usr/local/bin" "$units"
for d in srv var/lib/varve; do
    mkdir -p "$work/dirs/$d" "$root/$d"
    mount --bind "$work/dirs/$d" "$root/$d"
done
install -m 755 "$VARVE" "$root/usr/local/bin/varve"
sed 's|@bindir@|/usr/local/bin|' "$top/mount-helpers/varve@.service" >"$units/varve@.service"
cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald.socket /lib/systemd/system/systemd-journald-dev-log.socket \
    "$units"
for t in sysinit basic shutdown default; do printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $t >"$units/$t.target"; done
echo 'Wants=systemd-journald.service' >>"$units/default.target"
cd "$root"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=varve-test SYSTEMD_UNIT_PATH=/etc/varve-units \
    chroot "$root" /usr/lib/systemd/systemd --unit=default.target --log-target=journal-or-kmsg --show-status=no
