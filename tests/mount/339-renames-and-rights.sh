#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk of another owner or mode is renamed onto one that a user has open, is opening, or has owned: he reads and changes nothing of what
# he may not, neither by a descriptor of before, nor by an open that the kernel allowed a moment ago. And right after any rename all
# descriptors see the new content.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
vm=$MNT/vm
# Of the renames onto a disk: the third fails, the fourth stops between content and names.
export VARVE_FAULT=names.replace.before:3=28,names.replace.before:4=pause VARVE_FAULT_PAUSE=$T/pause
touch "$T/pause"
expect_errors
start_varve
unset VARVE_FAULT
chmod 711 "$T"
run mkdir "$vm"
status=0
timeout 60 python3 - "$VARVE" "$vm" "$T" <<'P' || status=$?
import errno, fcntl, os, subprocess, sys, time
varve, vm, top = sys.argv[1:]
N, REVERT = 300000, 0xC284B702
t, mine, moved, secret, other = (vm + "/" + n for n in ("t.img", "mine.img", ".x.img", ".s.img", ".y.img"))


def put(name, byte, mode, uid=0):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.fchown(fd, uid, uid)
    os.fchmod(fd, mode)
    os.write(fd, byte * N)
    os.close(fd)


def refused(what, f, *args, **kw):
    try:
        got = f(*args, **kw)
    except OSError as e:
        assert e.errno in (errno.ESTALE, errno.EIO, errno.EPERM, errno.EACCES, errno.EBADF), (what, e)
    else:
        raise SystemExit("%s: %r" % (what, got))


put(t, b"P", 0o666, 65534)
put(moved, b"M", 0o666, 65534)
put(secret, b"S", 0o600)
put(other, b"O", 0o644)
subprocess.run([varve, "snapshot", "--label", "old", t], check=True, stdout=subprocess.DEVNULL)
subprocess.run([varve, "wait", vm], check=True)
snap = os.getxattr(vm + "/t@old.img", "user.varve.id")
to_child, to_parent = os.pipe(), os.pipe()


def child():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    step = lambda: os.write(to_parent[1], b".") and (os.read(to_child[0], 1) or os._exit(1))
    fds = {"moved": os.open(moved, os.O_RDONLY), "target": os.open(t, os.O_RDONLY), "ioctl only": os.open(t, 3)}
    paths = os.open(t, os.O_PATH)
    step()                              # .x onto t: the same rights
    assert os.pread(fds["moved"], 10, 0) == b"M" * 10
    step()                              # the secret onto t
    for again in ("renamed", "a rename has failed"):
        for name, fd in fds.items():
            what = again + ", " + name
            request = bytearray(644)
            request[:len(snap)] = snap
            refused(what + ", read", os.pread, fd, 10, 200000)
            refused(what + ", seek", os.lseek, fd, 0, os.SEEK_DATA)
            refused(what + ", chmod", os.fchmod, fd, 0o666)
            refused(what + ", utime", os.utime, fd, ns=(1, 1))
            refused(what + ", truncate", os.truncate, "/proc/self/fd/%d" % fd, 5)
            refused(what + ", open", os.open, "/proc/self/fd/%d" % fd, os.O_RDONLY)
            refused(what + ", revert", fcntl.ioctl, fd, REVERT, request)
        refused(again + ", chmod of a path descriptor", os.chmod, "/proc/self/fd/%d" % paths, 0o666)
        step()                          # a third rename fails; then all may be opened, and a fourth is on its way
    refused("open by name", lambda: os.pread(os.open(t, os.O_RDONLY), 10, 0))


if os.fork() == 0:
    try:
        os.close(to_child[1])
        os.close(to_parent[0])
        child()
        os._exit(0)
    except BaseException as e:          # pylint: disable=broad-except
        print(repr(e), file=sys.stderr, flush=True)
        os._exit(1)
os.close(to_parent[1])
wait = lambda: os.read(to_parent[0], 1) or sys.exit("the user's process has ended")
wait()
os.rename(moved, t)
os.write(to_child[1], b".")
wait()
os.rename(secret, t)
assert open(t, "rb").read(4) == b"SSSS"
os.write(to_child[1], b".")
wait()
try:
    os.rename(other, t)
    sys.exit(77)                        # this build has no faults
except OSError as e:
    assert e.errno == errno.ENOSPC, e
os.write(to_child[1], b".")
wait()
assert os.stat(t).st_uid == 0 and os.stat(t).st_mode & 0o777 == 0o600 and open(t, "rb").read() == b"S" * N
os.chmod(t, 0o644)
put(secret, b"T", 0o600)
mv = os.fork()
if mv == 0:
    os.rename(secret, t)
    os._exit(0)
limit = time.monotonic() + 20
while time.monotonic() < limit and "paused at names.replace" not in open(top + "/daemon.log").read():
    time.sleep(0.05)
os.write(to_child[1], b".")             # it opens t, which it may read until the rename has happened
time.sleep(1)
os.unlink(top + "/pause")
for _ in range(2):
    assert os.wait()[1] == 0
assert open(t, "rb").read(4) == b"TTTT"

os.chmod(t, 0o644)
put(moved, b"0", 0o644)
fds = [os.open(moved, os.O_RDONLY)]
os.rename(moved, t)
fds.append(os.open(t, os.O_RDONLY))
for i in range(20):
    put(moved, b"%d" % (i % 10), 0o644)
    for fd in fds:
        os.pread(fd, N, 0)
    os.rename(moved, t)
    for fd in fds:
        assert os.pread(fd, N, 0) == b"%d" % (i % 10) * N, i
P
[ $status != 77 ] || skip "this build has no fault points"
[ $status = 0 ] || fail "see above"
stop_varve
run "$VARVE" verify "$T/store"
