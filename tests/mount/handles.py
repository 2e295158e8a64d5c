#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""File handles as NFS servers use them: name_to_handle_at and open_by_handle_at.

handles.py take PATH...         prints the handle of each, one a line
handles.py cat MOUNT HANDLE     writes the file's content to stdout
handles.py stat MOUNT HANDLE    prints inode number, type and link count
handles.py ls MOUNT HANDLE      prints the names in a directory
handles.py write MOUNT HANDLE   writes stdin to the beginning of the file
handles.py stale MOUNT HANDLE... fails unless each of them is ESTALE, however it is opened

An error is printed by its name (ESTALE), and the exit status is 1.
"""
import ctypes
import errno
import os
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def take(path):
    handle, mount = Handle(bytes=128), ctypes.c_int()
    check(libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0))
    return f"{handle.type}:{bytes(handle.data[:handle.bytes]).hex()}"


def reopen(mount, text, flags):
    kind, data = text.split(":")
    data = bytes.fromhex(data)
    handle = Handle(bytes=len(data), type=int(kind))
    ctypes.memmove(handle.data, data, len(data))
    root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return check(libc.open_by_handle_at(root, ctypes.byref(handle), flags))
    finally:
        os.close(root)


def main(command, *args):
    if command == "take":
        for path in args:
            print(take(path))
    elif command == "cat":
        with open(reopen(*args, os.O_RDONLY), "rb") as f:
            while piece := f.read(1 << 20):
                sys.stdout.buffer.write(piece)
    elif command == "stat":
        st = os.fstat(reopen(*args, os.O_PATH))
        print(st.st_ino, "dir" if stat.S_ISDIR(st.st_mode) else "file", st.st_nlink)
    elif command == "ls":
        print(*sorted(os.listdir(reopen(*args, os.O_RDONLY | os.O_DIRECTORY))))
    elif command == "write":
        with open(reopen(*args, os.O_WRONLY), "wb", buffering=0) as f:
            f.write(sys.stdin.buffer.read())
    elif command == "stale":
        for text in args[1:]:
            for flags in (os.O_PATH, os.O_RDONLY, os.O_WRONLY):
                try:
                    found = os.fstat(reopen(args[0], text, flags)).st_ino
                except OSError as e:
                    if e.errno != errno.ESTALE:
                        raise
                else:
                    sys.exit(f"{text} opens inode {found}")
    else:
        sys.exit(__doc__)


try:
    main(*sys.argv[1:])
except OSError as e:
    print(errno.errorcode.get(e.errno, e.errno), file=sys.stderr)
    sys.exit(1)
