# SPDX-License-Identifier: Apache-2.0
"""Snapshots asked for right behind the close of a copy, of the disk, of its directory and by a label: each is good, and is the copy."""
import ctypes
import os
import struct
import sys

VM, TIMES = sys.argv[1], int(sys.argv[2])
DISK = os.path.join(VM, 'disk.img')
LAYOUT = 'II72s1032s264si600s'      # struct varve_ioc_snapshot
libc = ctypes.CDLL(None, use_errno=True)
block = os.urandom(70000)


def ask(path, flags, label):
    fd = os.open(path, flags)
    buf = ctypes.create_string_buffer(struct.pack(LAYOUT, 0, 0, label.encode(), b'', b'', 0, b''), struct.calcsize(LAYOUT))
    if libc.ioctl(fd, ctypes.c_ulong(3 << 30 | len(buf) << 16 | 0xB7 << 8 | 1), buf) < 0:
        raise OSError(ctypes.get_errno(), 'snapshot')
    os.close(fd)
    error = struct.unpack(LAYOUT, buf.raw)[-2:]
    assert error[0] == 0, error


def touch(label):
    os.close(os.open(DISK[:-4] + '@' + label + '.img', os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o640))


WAYS = {
    'disk': lambda label: ask(DISK, os.O_RDWR, label),
    'directory': lambda label: ask(VM, os.O_RDONLY, label),
    'touch': touch,
}
bad = []
for i in range(TIMES):
    for way, take in WAYS.items():
        label = '%s-%d' % (way, i)
        content = label.encode() + block
        fd = os.open(DISK, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        os.write(fd, content)
        os.close(fd)
        take(label)
        snap = DISK[:-4] + '@' + label + '.img'
        flags = os.getxattr(snap, 'user.varve.flags').decode()
        with open(snap, 'rb') as f:
            if f.read() != content:
                flags += ' wrong content'
        if flags:
            bad.append('%s: %s' % (label, flags))
print('%d of %d: %s' % (len(bad), TIMES * len(WAYS), bad[:5]))
sys.exit(1 if bad else 0)
