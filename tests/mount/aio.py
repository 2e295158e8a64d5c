#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""aio.py FILE LENGTH BYTE: one O_DIRECT write by Linux's AIO at the beginning of FILE. Prints `sent`, and `written` when it is done."""
import ctypes
import mmap
import os
import sys

SETUP, GETEVENTS, SUBMIT = {"x86_64": (206, 208, 209), "aarch64": (0, 4, 2)}[os.uname().machine]
PWRITE = 1


class Iocb(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_uint32), ("opcode", ctypes.c_uint16),
                ("reqprio", ctypes.c_int16), ("fd", ctypes.c_uint32), ("buf", ctypes.c_uint64), ("nbytes", ctypes.c_uint64),
                ("offset", ctypes.c_int64), ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("resfd", ctypes.c_uint32)]


class Event(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64), ("obj", ctypes.c_uint64), ("res", ctypes.c_int64), ("res2", ctypes.c_int64)]


def call(*args):
    n = ctypes.CDLL(None, use_errno=True).syscall(*args)
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n


def main():
    path, length, byte = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    buf = mmap.mmap(-1, length)
    buf.write(bytes([byte]) * length)
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    ctx = ctypes.c_uint64(0)
    call(SETUP, ctypes.c_long(4), ctypes.byref(ctx))
    one = Iocb(opcode=PWRITE, fd=fd, buf=ctypes.addressof(ctypes.c_char.from_buffer(buf)), nbytes=length)
    call(SUBMIT, ctx, ctypes.c_long(1), ctypes.byref(ctypes.pointer(one)))
    print("sent", flush=True)
    event = Event()
    call(GETEVENTS, ctx, ctypes.c_long(1), ctypes.c_long(1), ctypes.byref(event), None)
    if event.res != length:
        sys.exit(f"{path}: wrote {event.res} of {length}")
    print("written", flush=True)
    sys.stdin.read()        # the file stays open until then


main()
