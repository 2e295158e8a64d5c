#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs as one user: reads a JSON list of [probe, path, argument] and prints a JSON list of [value, errno], one of them null.
A value is what the user learnt or did; nothing but the system call's own answer decides."""
import errno
import fcntl
import json
import os
import signal
import struct
import sys
import time

IOC = {"SNAPSHOT": (3, 1, 1980), "REVERT": (3, 2, 644), "WAIT": (3, 3, 616), "INFO": (2, 4, 2352), "LOG": (3, 5, 8216),
       "LIST": (3, 6, 8216), "COPY": (3, 7, 608)}
own = os.environ.get("OWN_DISK", "")    # a disk of this user, where copies go to


def ioctl(fd, name, buf):
    direction, number, size = IOC[name]
    buf = bytearray(buf.ljust(size, b"\0"))
    fcntl.ioctl(fd, direction << 30 | size << 16 | 0xB7 << 8 | number, buf)
    return buf


def text(b):
    return bytes(b).split(b"\0")[0].decode()


class Opened:
    def __init__(self, path, flags):
        self.fd = os.open(path, flags)

    def __enter__(self):
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def told(error):
    if error:
        raise OSError(error, "told by the ioctl")


def ioc_snapshot(path, _):
    with Opened(path, os.O_RDONLY | os.O_DIRECTORY if os.path.isdir(path) else os.O_RDWR) as fd:
        buf = ioctl(fd, "SNAPSHOT", b"")
        told(struct.unpack_from("i", buf, 8 + 72 + 1032 + 264)[0])
        return [struct.unpack_from("I", buf, 4)[0], text(buf[1112:1376])]


def ioc_revert(path, snap):
    with Opened(path, os.O_RDWR) as fd:
        told(struct.unpack_from("i", ioctl(fd, "REVERT", snap.encode()), 40)[0])
        return "reverted"


def on_alarm(_signal, _frame):
    raise InterruptedError(errno.EINTR, "still waiting")


def ioc_wait(path, patience):
    """What there is to wait for: a count; or "waits" when no answer came within so many seconds (the round is stopped)."""
    signal.signal(signal.SIGALRM, on_alarm)
    with Opened(path, os.O_RDONLY) as fd:
        signal.setitimer(signal.ITIMER_REAL, float(patience or 20))
        try:
            buf = ioctl(fd, "WAIT", struct.pack("q", 0))
        except InterruptedError:
            return "waits"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        error = struct.unpack_from("i", buf, 12)[0]
        if error not in (0, errno.ETIMEDOUT, errno.EIO):
            told(error)
        return struct.unpack_from("I", buf, 8)[0]


def ioc_info(path, _):
    with Opened(path, os.O_RDONLY) as fd:
        buf = ioctl(fd, "INFO", b"")
        return {"state": text(buf[1024:2048]), "pid": struct.unpack_from("i", buf, 2344)[0]}


def ioc_text(name):
    def probe(path, first):
        with Opened(path, os.O_RDONLY) as fd:
            got = b""
            offset = int(first or 0)
            while True:
                buf = ioctl(fd, name, struct.pack("Q", offset + len(got)))
                total, n = struct.unpack_from("QI", buf, 8)
                got += bytes(buf[20:20 + n])
                if n == 0 or offset + len(got) >= total:
                    return got.decode()
    return probe


def ioc_copy(path, what):
    with Opened(path, os.O_RDWR) as fd:
        told(struct.unpack_from("i", ioctl(fd, "COPY", struct.pack("I", int(what))), 4)[0])
        return "told"


def read(path, _):
    with Opened(path, os.O_RDONLY) as fd:
        return os.pread(fd, 16, 0).decode("latin1")


def copy_out(path, _):
    with Opened(path, os.O_RDONLY) as fd, Opened(own, os.O_RDWR) as to:
        return os.copy_file_range(fd, to, 16, 0, 0)


def copy_in(path, _):
    with Opened(own, os.O_RDONLY) as fd, Opened(path, os.O_WRONLY) as to:
        return os.copy_file_range(fd, to, 1, 0, 0)


def seek(path, _):
    with Opened(path, os.O_RDONLY) as fd:
        return os.lseek(fd, 0, os.SEEK_DATA)


def opened(flags):
    def probe(path, _):
        with Opened(path, flags):
            return "open"
    return probe


def entries(path, _):
    """Names; and that what readdir says of a name is what stat says of it."""
    names = []
    with os.scandir(path) as it:
        for e in it:
            names.append(e.name)
            try:
                st = os.lstat(os.path.join(path, e.name))
            except OSError:
                continue
            if st.st_ino != e.inode() or e.is_dir(follow_symlinks=False) != (st.st_mode >> 12 == 4):
                return f"readdir and stat disagree about {e.name}"
    return sorted(names)


def own_times(path, _):
    os.utime(path, (time.time(), os.stat(path).st_mtime))
    return "done"


PROBES = {
    "stat": lambda p, a: os.stat(p).st_size,
    "owner": lambda p, a: [os.stat(p).st_uid, os.stat(p).st_gid, os.stat(p).st_mode & 0o7777],
    "readdir": entries,
    "open_r": opened(os.O_RDONLY), "open_w": opened(os.O_WRONLY), "open_rw": opened(os.O_RDWR),
    "open_trunc": opened(os.O_WRONLY | os.O_TRUNC), "open_append": opened(os.O_WRONLY | os.O_APPEND),
    "read": read, "readlink": lambda p, a: os.readlink(p),
    "getxattr": lambda p, a: os.getxattr(p, a).decode("latin1"), "listxattr": lambda p, a: sorted(os.listxattr(p)),
    "setxattr": lambda p, a: os.setxattr(p, a, b"1") or "set", "removexattr": lambda p, a: os.removexattr(p, a) or "removed",
    "statfs": lambda p, a: os.statvfs(p).f_blocks,
    "seek": seek, "copy_out": copy_out, "copy_in": copy_in,
    "rename": lambda p, a: os.rename(p, a) or "renamed", "unlink": lambda p, a: os.unlink(p) or "gone",
    "create": lambda p, a: os.close(os.open(a or p, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)) or "made",
    "chmod": lambda p, a: os.chmod(p, int(a, 8)) or "done", "chown": lambda p, a: os.chown(p, int(a), -1) or "done",
    "utimes": own_times, "truncate": lambda p, a: os.truncate(p, int(a)) or "done",
    "ioctl_SNAPSHOT": ioc_snapshot, "ioctl_REVERT": ioc_revert, "ioctl_WAIT": ioc_wait, "ioctl_INFO": ioc_info, "ioctl_LOG": ioc_text("LOG"),
    "ioctl_LIST": ioc_text("LIST"), "ioctl_COPY": ioc_copy,
}


def main():
    out = []
    for name, path, arg in json.load(sys.stdin):
        try:
            out.append([PROBES[name](path, arg), None])
        except OSError as e:
            out.append([None, "EOPNOTSUPP" if e.errno == errno.EOPNOTSUPP else errno.errorcode.get(e.errno, str(e.errno))])
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
