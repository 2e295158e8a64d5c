#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""holes.py SECONDS: readers that skip holes, as cp and tar do, beside writers of the same image (the class of ZFS #15526).

Writers fill an image block by block, in random order, each block with its own number, and say so after each write. Readers walk
over it with SEEK_DATA and SEEK_HOLE, and `cp --sparse=auto` copies it. What was acknowledged before a reader began must not be a
hole to it, nor zeros in the copy. Beside them snapshots are taken, stored and evicted, and blocks are punched and written again.
"""
import errno
import os
import random
import sys
import threading
import time

from varve_mount import Runner, Varve, main, need, seed_of_run, snapshots

BLOCK = 4096
BLOCKS = 4096       # 16 MiB


class Image:
    def __init__(self, varve, number, rng, until):
        self.varve, self.rng, self.until = varve, rng, until
        self.path = f'{varve.mnt}/h{number}.img'
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self.fd, BLOCK * BLOCKS)
        self.there = bytearray(BLOCKS)      # 1: acknowledged, and nobody takes it away again
        self.failures, self.walks, self.copies, self.runner = [], 0, 0, Runner()

    def content(self, block):
        return (block + 1).to_bytes(8, 'little') * (BLOCK // 8)

    def writer(self, part):
        """Every other block of a random order; some are punched and written again before they count."""
        mine = [b for b in range(BLOCKS) if b % 2 == part]
        while time.monotonic() < self.until and not self.failures:
            self.rng.shuffle(mine)
            for block in mine:
                if self.there[block] == 0 or self.rng.random() < 0.3:
                    os.pwrite(self.fd, self.content(block), block * BLOCK)
                    self.there[block] = 1
                if time.monotonic() > self.until:
                    return
                time.sleep(0.0005)

    def walk(self, path, there):
        """Every block of there must lie in data, and be what was written."""
        fd = os.open(path, os.O_RDONLY)
        try:
            at, end = 0, BLOCK * BLOCKS
            while at < end:
                try:
                    data = os.lseek(fd, at, os.SEEK_DATA)
                except OSError as e:
                    if e.errno != errno.ENXIO:
                        raise
                    data = end
                for block in range(-(-at // BLOCK), data // BLOCK):
                    need(not there[block], f'{path}: a hole from {at} to {data}; block {block} in it was acknowledged before')
                at = os.lseek(fd, data, os.SEEK_HOLE) if data < end else end
                for block in range(data // BLOCK, min(at, end) // BLOCK):
                    if there[block] and self.rng.random() < 0.05:
                        need(os.pread(fd, BLOCK, block * BLOCK) == self.content(block), f'{path}: block {block} is not what was written')
        finally:
            os.close(fd)
        self.walks += 1

    def copy(self, path, there):
        out = f'{self.varve.dir}/copy-{os.path.basename(self.path)}'
        code, text = self.runner.run(['cp', '--sparse=auto', path, out])
        need(code == 0, text)
        with open(out, 'rb') as f:
            data = f.read()
        for block in range(BLOCKS):
            need(not there[block] or data[block * BLOCK:(block + 1) * BLOCK] == self.content(block),
                 f'{path}: block {block} of the copy is not what was acknowledged before it was made')
        os.unlink(out)
        self.copies += 1

    def reader(self):
        while time.monotonic() < self.until:
            there = bytes(self.there)
            (self.walk if self.rng.random() < 0.85 else self.copy)(self.path, there)

    def freezer(self):
        while time.monotonic() < self.until:
            time.sleep(self.rng.uniform(0.1, 0.5))
            there, before = bytes(self.there), set(snapshots(self.path))
            code, text = self.runner.run([self.varve.binary, 'snapshot', self.path])
            need(code == 0, text)
            for snap in sorted(set(snapshots(self.path)) - before):
                self.walk(snap, there)

    def guarded(self, fn, *args):
        try:
            fn(*args)
        except Exception as e:    # pylint: disable=broad-except
            self.failures.append(f'{type(e).__name__}: {e}')

    def run(self):
        jobs = [(self.writer, 0), (self.writer, 1), (self.reader,), (self.freezer,)]
        threads = [threading.Thread(target=self.guarded, args=job) for job in jobs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        os.close(self.fd)
        self.runner.end()
        need(not self.failures, '; '.join(self.failures))
        return f'{self.walks} walks, {self.copies} copies, {sum(self.there)} blocks'


def body(seconds):
    def run(varve, cases):
        seed = seed_of_run()
        varve.start()
        until = time.monotonic() + seconds
        images = [Image(varve, i, random.Random(f'holes {i} {seed}'), until) for i in range(2)]
        threads = [threading.Thread(target=cases.one, args=(f'holes: readers beside writers of h{i}.img', image.run))
                   for i, image in enumerate(images)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

        def later():
            varve.cmd('wait', varve.mnt)
            varve.restart()
            for image in images:
                image.walk(image.path, bytes(image.there))
            varve.stop()
        cases.one('holes: after a restart', later)
    return run


if __name__ == '__main__':
    main(Varve(cache_size='1M', frame_cache='1M'), int(sys.argv[1]) + 120, body(int(sys.argv[1])))
