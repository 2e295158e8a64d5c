#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""hold_open.py DIRECTORY P N: P processes make N disks each there and hold all of them open while they write, read and fsync them, and
disks that were open before. Fails at the first call that fails, or a byte that is not as written. stored.img must be there."""
import multiprocessing
import os
import sys

where, processes, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def page(i, n):
    return b"%08d%08d" % (i, n) * 256


def hold(number, all_open):
    first = os.open("%s/first-%d.img" % (where, number), os.O_RDWR | os.O_CREAT)
    stored = os.open(where + "/stored.img", os.O_RDONLY)
    disks = []
    for i in range(count):
        disks.append(os.open("%s/%d-%d.img" % (where, number, i), os.O_RDWR | os.O_CREAT))
        os.pwrite(disks[i], page(i, 0), 0)
        if i % 50 == 0:
            os.pwrite(first, page(i, 1), i * 4096)
            os.fsync(first)
            os.pread(stored, 4096, (number * count + i) // 50 * 4096)
    all_open.wait(100)
    for i, fd in enumerate(disks):
        os.pwrite(fd, page(i, 2), 4096)
        assert os.pread(fd, 8192, 0) == page(i, 0) + page(i, 2), i
        if i % 50 == 0:
            os.fsync(fd)
    all_open.wait(100)
    for fd in disks + [first, stored]:
        os.close(fd)


barrier = multiprocessing.Barrier(processes)
workers = [multiprocessing.Process(target=hold, args=(n, barrier)) for n in range(processes)]
for w in workers:
    w.start()
for w in workers:
    w.join()
sys.exit(0 if all(w.exitcode == 0 for w in workers) else 1)
