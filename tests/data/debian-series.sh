#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# debian-series.sh OUT_DIR: a series of real Debian 12 disks, OUT_DIR/{app,sql}-day{0,1,2}.img (2 GiB each, sparse ext4).
# Two machines cloned from one template, as in a cloud, then changed by real package installations, log files and database-like writes.
# Needs root, debootstrap, e2fsprogs, a loop device and the Debian mirror that apt uses. About 2 minutes; skips what already exists.
set -euo pipefail
out=${1:?usage: debian-series.sh OUT_DIR}
mkdir -p "$out"; cd "$out"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
[ -f sql-day2.img ] && [ -f app-day2.img ] && exit 0
command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; }
mnt=$PWD/mnt; mkdir -p "$mnt"
cleanup() { umount -R "$mnt" 2>/dev/null || true; rmdir "$mnt" 2>/dev/null || true; }
trap cleanup EXIT

inside() {  # inside DISK COMMAND: run COMMAND in the system on DISK
  mount -o loop "$1" "$mnt"
  cp /etc/resolv.conf "$mnt/etc/" 2>/dev/null || true
  cp -r /etc/apt/sources.list.d /etc/apt/apt.conf.d "$mnt/etc/apt/"
  : > "$mnt/etc/apt/sources.list"; rm -f "$mnt"/etc/apt/sources.list.d/*disabled*
  mount --bind /proc "$mnt/proc"; mount --bind /dev "$mnt/dev"
  chroot "$mnt" bash -c "$2" >> build.log 2>&1 || { echo "failed in $1: $2 (see build.log)" >&2; exit 1; }
  umount "$mnt/proc" "$mnt/dev" "$mnt"
}
keep() { cp --sparse=always "work-$1.img" "$1-day$2.img"; }

[ -d base ] || debootstrap --variant=minbase --include=ca-certificates,systemd-sysv,ifupdown bookworm base > build.log 2>&1
truncate -s 2G work-app.img; mkfs.ext4 -q -F work-app.img
mount -o loop work-app.img "$mnt"; cp -a base/. "$mnt/"; umount "$mnt"
inside work-app.img 'apt-get update -qq; apt-get install -y -qq python3 openssl curl'
cp --sparse=always work-app.img work-sql.img
inside work-app.img 'apt-get install -y -qq nginx-light ruby'
inside work-sql.img 'apt-get install -y -qq mariadb-server'
keep app 0; keep sql 0
inside work-app.img 'apt-get install -y -qq memcached perl-doc; seq 200000 > /var/log/app.log; head -c 16M /dev/urandom > /srv/upload.bin'
inside work-sql.img 'head -c 32M /dev/urandom > /var/lib/mysql/heap; apt-get install -y -qq ruby'
keep app 1; keep sql 1
inside work-app.img 'apt-get purge -y -qq memcached; apt-get install -y -qq git; seq 200000 400000 >> /var/log/app.log; rm /srv/upload.bin'
# shellcheck disable=SC2016  # the shell inside expands it
inside work-sql.img 'for i in $(seq 0 9 2047); do dd if=/dev/urandom of=/var/lib/mysql/heap bs=16k count=1 seek=$i conv=notrunc status=none
    done; apt-get install -y -qq nginx-light'
keep app 2; keep sql 2
rm -f work-app.img work-sql.img
ls -ls ./*-day?.img
