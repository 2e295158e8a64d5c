#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""held.py DIRECTORY: what programs do with directories and disks that were removed while they held them.

Prints one line for each call and what came of it: on any filesystem the same lines.
held.py DIRECTORY SNAPSHOT: the same with a snapshot, which it removes.
"""
import errno
import os
import stat
import sys
import time


def call(what, fn, *args):
    try:
        print(what, "->", fn(*args))
    except OSError as e:
        print(what, "->", errno.errorcode[e.errno])


def attributes(fd):
    st = os.fstat(fd)
    size = st.st_size if stat.S_ISREG(st.st_mode) else "-"
    return f"{stat.filemode(st.st_mode)} links={st.st_nlink} {st.st_uid}:{st.st_gid} size={size} mtime={min(int(st.st_mtime), 10000)}"


def poke(name, fd):
    call(f"{name}: fstat", attributes, fd)
    call(f"{name}: fchmod", os.fchmod, fd, 0o700)
    call(f"{name}: fchown", os.fchown, fd, 12, 34)
    call(f"{name}: futimens", lambda: os.utime(fd, (1000, 1000)))
    call(f"{name}: fstat again", attributes, fd)
    call(f"{name}: fgetxattr", os.getxattr, fd, "user.no.such")
    call(f"{name}: flistxattr", os.listxattr, fd)
    call(f"{name}: fsync", os.fsync, fd)
    call(f"{name}: fstatvfs", lambda: os.fstatvfs(fd).f_namemax)
    call(f"{name}: reopen", lambda: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)))


def directory(name, fd):
    poke(name, fd)
    call(f"{name}: list", os.listdir, fd)
    call(f"{name}: create", lambda: os.open("x", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    call(f"{name}: mkdir", lambda: os.mkdir("x", dir_fd=fd))
    call(f"{name}: ..", lambda: stat.S_ISDIR(os.stat("..", dir_fd=fd).st_mode))


def directories():
    os.mkdir("one")
    fd = os.open("one", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir("one")
    directory("rmdir", fd)
    os.mkdir("two")
    os.mkdir("three")
    fd = os.open("two", os.O_RDONLY | os.O_DIRECTORY)
    os.rename("three", "two")
    directory("replaced", fd)
    os.mkdir("four")
    os.chdir("four")
    os.rmdir("../four")
    call("cwd: stat", lambda: os.stat(".").st_nlink)
    call("cwd: open", lambda: os.close(os.open(".", os.O_RDONLY)))
    call("cwd: list", os.listdir, ".")
    call("cwd: chmod", os.chmod, ".", 0o711)
    call("cwd: getcwd", os.getcwd)
    os.chdir(sys.argv[1])


def disks():
    for way in (os.O_RDONLY, os.O_RDWR):
        with open("disk.img", "wb") as f:
            f.write(b"x" * 10000)
        fd = os.open("disk.img", way)
        os.unlink("disk.img")
        poke("unlink", fd)
        call("unlink: read", lambda: len(os.pread(fd, 20000, 0)))
        if way == os.O_RDWR:
            call("unlink: write", os.pwrite, fd, b"y" * 5, 20000)
            call("unlink: ftruncate", os.ftruncate, fd, 5)
            call("unlink: reopen to write", lambda: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR)))
        call("unlink: truncate", os.truncate, f"/proc/self/fd/{fd}", 7)
        call("unlink: fstat at last", attributes, fd)
        os.close(fd)
    with open("disk.img", "wb") as f:
        f.write(b"x" * 10000)
    fd = os.open("disk.img", os.O_PATH)
    os.unlink("disk.img")
    call("O_PATH: fstat", attributes, fd)


def remove(path):
    """One that is just being stored is busy."""
    until = time.monotonic() + 30
    while True:
        try:
            return os.unlink(path)
        except OSError as e:
            if e.errno != errno.EBUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def snapshot(path):
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    remove(path)
    call("snapshot: fstat", lambda: attributes(fd).replace(f"size={size}", "size=whole"))
    call("snapshot: read", lambda: len(os.pread(fd, size + 1, 0)) == size)
    call("snapshot: seek", os.lseek, fd, 0, os.SEEK_DATA)


os.chdir(sys.argv[1])
if len(sys.argv) > 2:
    snapshot(sys.argv[2])
else:
    directories()
    disks()
