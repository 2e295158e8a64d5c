#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""refused_call.py: makes one system call that a seccomp filter refuses with a log line, and prints its own pid."""
import ctypes
import os
import struct

NO_NEW_PRIVS, SET_MODE_FILTER, FLAG_LOG, GETPRIORITY = 38, 1, 2, {"x86_64": 140, "aarch64": 141}.get(os.uname().machine)
LOAD, EQUAL, ANSWER, ERRNO, ALLOW = 0x20, 0x15, 0x06, 0x50001, 0x7fff0000

libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *op) for op in ((LOAD, 0, 0, 0), (EQUAL, 0, 1, GETPRIORITY), (ANSWER, 0, 0, ERRNO), (ANSWER, 0, 0, ALLOW)))
program = ctypes.create_string_buffer(code)
header = struct.pack("HxxxxxxP", 4, ctypes.addressof(program))
assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.syscall({"x86_64": 317, "aarch64": 277}[os.uname().machine], SET_MODE_FILTER, FLAG_LOG, header) == 0
libc.syscall(GETPRIORITY, 0, 0)
print(os.getpid())
