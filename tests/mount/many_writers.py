#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""many_writers.py DIR SECONDS FILES: 24 processes append to, rewrite and sync the same files. No call fails but for what the rules
allow: O_TRUNC beside another writer is EBUSY, a file that nobody made yet is ENOENT. Prints how often each came."""
import collections
import errno
import multiprocessing
import os
import random
import sys
import time

ALLOWED = {("rewrite", "open", "EBUSY"), ("sync", "open", "ENOENT")}


def append(rnd, path):
    yield "open", os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    yield "write", lambda fd: os.write(fd, b"test string\n")


def rewrite(rnd, path):
    yield "open", os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    for at in range(rnd.randrange(100)):
        yield "write", lambda fd, at=at: os.pwrite(fd, b"\xcd" * 65536, at * 65536)


def sync(rnd, path):
    yield "open", os.open(path, os.O_RDWR)
    yield "fsync", os.fdatasync


def once(kind, rnd, path):
    """One open, the calls of its kind, close. Returns where it failed and how, or nothing."""
    step, fd = "open", -1
    try:
        steps = kind(rnd, path)
        step, fd = next(steps)
        for step, call in steps:
            call(fd)
        step, closing, fd = "close", fd, -1
        os.close(closing)
    except OSError as e:
        if fd >= 0:
            os.close(fd)
        return step, errno.errorcode.get(e.errno, str(e.errno))
    return ()


def work(kind, seed, until, queue):
    rnd, count = random.Random(seed), collections.Counter()
    while time.monotonic() < until:
        count[(kind.__name__, *once(kind, rnd, f"{sys.argv[1]}/{rnd.randrange(int(sys.argv[3]))}"))] += 1
    queue.put(count)


def main():
    queue, until = multiprocessing.Queue(), time.monotonic() + float(sys.argv[2])
    workers = [multiprocessing.Process(target=work, args=(kind, seed, until, queue)) for seed in range(8) for kind in (append, rewrite, sync)]
    for w in workers:
        w.start()
    total = collections.Counter()
    for _ in workers:
        total.update(queue.get())
    for w in workers:
        w.join()
    for what, n in sorted(total.items()):
        print(n, *what)
    return any(len(what) > 1 and what not in ALLOWED for what in total)


sys.exit(main())
