#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mount_input.py MOUNT STEPS SEED: whatever users can hand to a mounted varve: ioctls, extended attributes, names.

MOUNT/vm/disk.img and a snapshot of it are there. Every call must come back, and fail, where it does, with an errno that says
that the input was wrong: never EIO, ENOTCONN or ENOSYS. Ends with "N passed, N failed".
"""
import errno
import fcntl
import glob
import os
import random
import struct
import sys

MAGIC = 0xB7
TEXT = 600
SIZES = {1: 4 + 4 + 72 + 1032 + 264 + 4 + TEXT, 2: 40 + 4 + TEXT, 3: 8 + 4 + 4 + TEXT, 4: 1024 + 1024 + 256 + 40 + 8, 5: 8 + 8 + 4 + 8192 + 4}
DIRS = {4: 2}
BAD = {errno.EIO, errno.ENOTCONN, errno.ENOSYS, errno.ENOMEM, errno.ECONNABORTED, errno.EBADMSG}


def command(number, size):
    return DIRS.get(number, 3) << 30 | size << 16 | MAGIC << 8 | number


class Input:
    def __init__(self, top, seed):
        self.top = top
        self.rng = random.Random(seed)
        self.passed = 0
        self.failed = 0
        self.snaps = sorted(glob.glob(os.path.join(top, "vm", "disk@*.img")))
        self.ids = [os.getxattr(s, "user.varve.id") for s in self.snaps]
        self.made = 0

    def bytes_of(self, n):
        kind = self.rng.randrange(6)
        if kind == 0:
            return bytes(n)
        if kind == 1:
            return b"A" * n
        if kind == 2:
            return self.rng.randbytes(n)
        if kind == 3:
            return (b"%s%n../../@\n\x00" * (n // 10 + 1))[:n]
        if kind == 4:
            return b"\xff" * n
        return (b"l%d" % self.rng.randrange(1000) + bytes(n))[:n]

    def argument(self, number):
        rng = self.rng
        if number == 1:
            flags = rng.choice([0, 0, 0, 1, 0xFFFFFFFF])
            label = self.bytes_of(72)
            if self.made > 40:      # enough of them: only what is refused
                flags = 1
            return struct.pack("<II", flags, rng.randrange(1 << 32)) + label + self.bytes_of(1032) + bytes(264 + 4 + TEXT)
        if number == 2:
            ident = rng.choice([self.bytes_of(40), rng.choice(self.ids) + bytes(8), rng.choice(self.ids).upper() + bytes(8), b"0" * 32 + bytes(8),
                                rng.choice(self.ids)[:31] + bytes(9)])
            return ident + self.bytes_of(4 + TEXT)
        if number == 3:
            return struct.pack("<q", rng.choice([0, 1, 20])) + self.bytes_of(8 + TEXT)
        if number == 5:
            return struct.pack("<Q", rng.choice([0, 1, 100, 8191, 1 << 32, (1 << 64) - 1])) + self.bytes_of(SIZES[5] - 8)
        return self.bytes_of(SIZES.get(number, 16))

    def some_file(self):
        rng = self.rng
        kind = rng.randrange(8)
        if kind < 2:
            return os.open(os.path.join(self.top, "vm", "disk.img"), rng.choice([os.O_RDONLY, os.O_RDWR, 3]))
        if kind < 4:
            return os.open(os.path.join(self.top, "vm"), os.O_RDONLY)
        if kind < 6:
            return os.open(rng.choice(self.snaps), os.O_RDONLY)
        return os.open(os.path.join(self.top, rng.choice([".", ".varve", ".varve/status.json", ".varve/events"])), os.O_RDONLY)

    def ioctl(self):
        rng = self.rng
        number = rng.choice([1, 2, 3, 4, 5, rng.randrange(256)])
        size = SIZES.get(number, 16) if rng.randrange(8) else rng.randrange(1 << 14)
        data = bytearray(self.argument(number)[:size].ljust(size, b"\x5a"))
        fd = self.some_file()
        try:
            fcntl.ioctl(fd, command(number, size), data)
            if number == 1 and size == SIZES[1]:
                self.made += struct.unpack_from("<i", data, 4 + 4 + 72 + 1032 + 264)[0] == 0
            if number in (1, 2, 3) and size == SIZES[number]:
                at = {1: 4 + 4 + 72 + 1032 + 264, 2: 40, 3: 12}[number]
                code = struct.unpack_from("<i", data, at)[0]
                text = bytes(data[at + 4:at + 4 + TEXT])
                if code < 0 or code in BAD or b"\0" not in text or (code and not text.strip(b"\0")):
                    raise RuntimeError(f"ioctl {number}: error {code}, {text[:80]!r}")
        finally:
            os.close(fd)

    def xattr(self):
        rng = self.rng
        path = rng.choice([os.path.join(self.top, "vm", "disk.img"), os.path.join(self.top, "vm"), rng.choice(self.snaps), self.top,
                           os.path.join(self.top, ".varve", "metrics")])
        name = rng.choice(["user.varve.note", "user.varve.protected", "user.varve.id", "user.varve.", "user.varve.levels", "trusted.varve.digest",
                           "trusted.varve.levels", "trusted.varve.x", "user.x", "security.selinux", "system.posix_acl_access", "user." + "n" * 250,
                           "trusted.overlay.opaque", "user.varve.note\n"])
        what = rng.randrange(4)
        if what == 0:
            value = self.bytes_of(rng.choice([0, 1, 2, 100, 1023, 1024, 1025, 2048, 65536]))
            os.setxattr(path, name, b"1" if name.endswith("protected") and rng.randrange(2) else value, rng.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]))
        elif what == 1:
            os.getxattr(path, name)
        elif what == 2:
            assert os.listxattr(path) == [], path
        else:
            os.removexattr(path, name)

    def name(self):
        rng = self.rng
        parts = [b"disk", b"@", b"@", b".img", b".", b"..", b"a" * 100, b"20261125T194714Z", b"20269999T994714Z", b"\n", b"\xff\xfe", b"-rf", b" ", b"v1", b"\x1b[2J"]
        name = b"".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))
        if name in (b".", b".."):
            return
        path = os.path.join(os.fsencode(self.top), b"vm", name)
        what = rng.randrange(4)
        if what == 0:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(path)
        elif what == 1:
            os.stat(path)
        elif what == 2:
            os.mkdir(path)
            os.rmdir(path)
        else:
            new = os.path.join(os.fsencode(self.top), b"vm", b"other.img")
            os.close(os.open(new, os.O_RDWR | os.O_CREAT, 0o600))
            try:
                os.rename(new, path)
                os.unlink(path)
            except OSError:
                os.unlink(new)
                raise

    def step(self):
        state = self.rng.getstate()
        what = self.rng.choice([self.ioctl, self.ioctl, self.xattr, self.xattr, self.name])
        try:
            what()
        except OSError as e:
            if e.errno in BAD:
                self.failed += 1
                print(f"FAILED at line {what.__name__}: {e} (random state {hash(state)})")
                return
        except RuntimeError as e:
            self.failed += 1
            print(f"FAILED at line {what.__name__}: {e}")
            return
        self.passed += 1


def main():
    top, steps, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(f"VARVE_SEED={seed}", flush=True)
    run = Input(top, seed)
    for _ in range(steps):
        run.step()
        if run.failed > 20:
            break
    print(f"{run.passed} passed, {run.failed} failed")
    return run.failed > 0


sys.exit(main())
