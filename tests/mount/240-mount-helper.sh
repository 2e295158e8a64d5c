#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mount -t varve through the helper, with fstab's options; umount is the clean stop; who the daemon is.
set -eu
# It installs into /sbin and makes a user: one at a time on the machine.
[ -n "${HELPER_LOCK:-}" ] || HELPER_LOCK=1 exec flock -o /run/lock/varve-mount-helper bash "$0"
. "$(dirname "$0")/lib.sh"
helper=$(dirname "$VARVE")/../../mount-helpers/mount.varve
[ -e "$helper" ] || fail "$helper was not built"
# One that is installed comes back at the end.
before=
if [ -e /sbin/mount.varve ]; then before=$T/mount.varve; cp -p /sbin/mount.varve "$before"; fi
install -m 755 "$helper" /sbin/mount.varve
sed -i "s|^varve=.*|varve=\${VARVE:-$VARVE}|" /sbin/mount.varve
restore() { if [ -n "$before" ]; then cp -p "$before" /sbin/mount.varve; else rm -f /sbin/mount.varve; fi; }
at_end restore

run "$VARVE" init "$T/store" 2>/dev/null
opts="state=$T/state,_netdev,nofail,x-systemd.mount-timeout=30,user,comment=x"
run mount -t varve -o "$opts" "$T/store" "$MNT"
grep -q "^$T/store $MNT fuse.varve .*default_permissions" /proc/mounts || { grep varve /proc/mounts; fail "mount options"; }
run mkdir "$MNT/vm"
random_file "$T/a" 3000000
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"

pid=$(daemon_of "$T/state")
status() { awk -v k="$1:" '$1 == k {print $2}' "/proc/$pid/status"; }
equals "$(status CapEff)" 0000000000000000
equals "$(status CapBnd)" 0000000000000000
equals "$(status NoNewPrivs)" 1
equals "$(cat "/sys/class/bdi/$(awk -v m="$MNT" '$5 == m {print $3}' /proc/self/mountinfo)/read_ahead_kb")" 2048
run umount "$MNT"
# At once again: the new mount waits for the old daemon.
run mount -t varve -o "$opts" "$T/store" "$MNT"
same "$T/a" "$MNT/vm/disk.img"
# After a crash, too: the dead mount is put aside.
kill -9 "$(daemon_of "$T/state")"
run mount -t varve -o "$opts" "$T/store" "$MNT"
same "$T/a" "$MNT/vm/disk.img"
run umount "$MNT"
must_fail "bogus" mount -t varve -o "$opts,bogus" "$T/store" "$MNT"
eventually 30 flock -n "$T/state/lock" true

# A service user owns the store: the daemon runs as he, and files are still others' own.
id varve-test >/dev/null 2>&1 || useradd -r -M -s /usr/sbin/nologin varve-test
run "$VARVE" init --owner varve-test "$T/store2" 2>/dev/null
chmod 755 "$T"
run mount -t varve -o "state=$T/state2" "$T/store2" "$MNT"
pid=$(daemon_of "$T/state2")
equals "$(status Uid)" "$(id -u varve-test)"
run mkdir "$MNT/vm"; run cp "$T/a" "$MNT/vm/disk.img"; run "$VARVE" wait "$MNT"
equals "$(stat -c %u "$MNT/vm/disk.img")" 0
run umount "$MNT"
eventually 30 flock -n "$T/state2/lock" true
userdel varve-test 2>/dev/null || true
