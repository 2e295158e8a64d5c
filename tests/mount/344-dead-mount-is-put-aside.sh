#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# After a crash of the daemon the same mount command mounts again, also when its dead mount is in use. A mount whose daemon lives, hangs or is
# another program's is never taken away, and a mount that is refused for another reason leaves the dead one, which keeps programs from writing
# into the directory below.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
opts=state=$T/state,host=testhost
dead() { is_mounted && ! stat -f "$MNT" >/dev/null 2>&1; }
mounts() { awk -v m="$MNT" '$5 == m' /proc/self/mountinfo | wc -l; }
crash() {
    local pid
    pid=$(daemon_of "$T/state")
    kill -9 "$pid"
    eventually 20 dead
}
refused() {     # CODE TEXT COMMAND...
    local want=$1 text=$2 code=0 out; shift 2
    out=$(timeout -k 5 "$CASE_TIMEOUT" "$@" 2>&1) || code=$?
    equals "$code" "$want" "$*: $out"
    case $out in *"$text"*) ;; *) fail "'$out' instead of '$text'";; esac
}
random_file "$T/a" $((5 << 20))
run "$VARVE" init "$T/store" >/dev/null 2>&1
mount_it=("$VARVE" mount "$T/store")
run "${mount_it[@]}" "$MNT" -o "$opts"
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"

# The same command, by other forms of the path, and in the foreground.
for point in "$MNT" "$MNT/" "$MNT//"; do
    crash
    run "${mount_it[@]}" "$point" -o "$opts"
    same "$T/a" "$MNT/vm/disk.img"
    equals "$(mounts)" 1 "mounts at $MNT"
done
crash
(cd "$T" && run "${mount_it[@]}" mnt -o "$opts")
same "$T/a" "$MNT/vm/disk.img"
crash
start_varve
same "$T/a" "$MNT/vm/disk.img"
kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null || true; DAEMON=
eventually 20 dead

# Somebody works in the dead mount.
start_varve
(cd "$MNT/vm" && exec 5<disk.img && exec sleep 600) &
user=$!
at_vm() { [ "$(readlink "/proc/$user/cwd")" = "$MNT/vm" ] && [ -e "/proc/$user/fd/5" ]; }
eventually 20 at_vm
kill -9 "$DAEMON"; wait "$DAEMON" 2>/dev/null || true; DAEMON=
eventually 20 dead
run "${mount_it[@]}" "$MNT" -o "$opts"
same "$T/a" "$MNT/vm/disk.img"
kill "$user"

# A mount that is refused leaves the dead one.
crash
refused 10 nowhere "$VARVE" mount "$T/nowhere" "$MNT" -o "$opts"
dead || fail "a refused mount has taken the dead one away"
mkdir -m 700 "$T/foreign"; echo text >"$T/foreign/file"
refused 1 "is no state of varve" "${mount_it[@]}" "$MNT" -o "state=$T/foreign"
dead || fail "a refused mount has taken the dead one away"
run "${mount_it[@]}" "$MNT" -o "$opts"

# One that lives, and one that hangs.
refused 11 "mounted there already" "${mount_it[@]}" "$MNT" -o "state=$T/state2"
same "$T/a" "$MNT/vm/disk.img"
pid=$(daemon_of "$T/state")
stopped() { ! grep -h '^State:' "/proc/$pid"/task/*/status | grep -qv '[tT] (stopped)'; }
kill -STOP "$pid"
at_end kill -9 "$pid"
eventually 20 stopped
begin=$SECONDS
refused 11 "does not answer" "${mount_it[@]}" "$MNT" -o "state=$T/state2"
[ $((SECONDS - begin)) -lt 20 ] || fail "a daemon that hangs kept us for $((SECONDS - begin)) s"
kill -CONT "$pid"
same "$T/a" "$MNT/vm/disk.img"
equals "$(mounts)" 1 "mounts at $MNT"
run "$VARVE" umount "$MNT"

# A dead mount of another program.
run python3 -c 'import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"other", sys.argv[1].encode(), b"fuse.other", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd) != 0:
    raise OSError(ctypes.get_errno(), "mount")' "$MNT"
at_end umount -l "$MNT"
refused 11 "a fuse.other filesystem is mounted there already" "${mount_it[@]}" "$MNT" -o "$opts"
equals "$(mounts)" 1 "mounts at $MNT"
umount -l "$MNT"
run "${mount_it[@]}" "$MNT" -o "$opts"
run "$VARVE" umount "$MNT"
