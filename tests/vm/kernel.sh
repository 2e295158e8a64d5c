#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kernel.sh DIR: DIR/vmlinuz and DIR/initrd.gz of Debian's cloud kernel: the initrd loads virtio, mounts /dev/vda and goes on there.
set -eu
mkdir -p "$1"
cd "$1"
if [ -f vmlinuz ] && [ -f initrd.gz ]; then exit 0; fi
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
apt-get download -qq "$package" 2>/dev/null
rm -rf deb root
dpkg -x "$package"_*.deb deb
modules=deb/lib/modules/$(ls deb/lib/modules)
/sbin/depmod -b deb "$(ls deb/lib/modules)"
mkdir -p root/bin root/proc root/dev root/sys root/mnt root/modules
cp /bin/busybox root/bin/
for m in virtio_pci virtio_blk; do
    # what the module needs comes first; the order is written for the init script
    for path in $(grep "/$m.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac); do
        cp -n "$modules/$path" root/modules/
        grep -qx "$(basename "$path")" root/modules/order 2>/dev/null || basename "$path" >>root/modules/order
    done
done
cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
while read -r m; do /bin/busybox insmod /modules/$m; done </modules/order
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; /bin/busybox sleep 1; done
/bin/busybox mount -t ext4 /dev/vda /mnt || exec /bin/busybox sh
exec /bin/busybox switch_root /mnt /sbin/init
INIT
chmod +x root/init
(cd root && find . | cpio -o -H newc --quiet | gzip -1) >initrd.tmp
cp deb/boot/vmlinuz-* vmlinuz
mv initrd.tmp initrd.gz
rm -rf deb root ./*.deb
