#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bytes.py MIB: so many MiB are written, stored, evicted and read back, with SHA-256 of each byte range on the way in and out.

Disks of 64 MiB: new data, zeros, and pieces of earlier disks at other places. Each is copied in and overwritten in part while
snapshots are taken; a tiny cache makes the store the only place the bytes are at. In between the daemon is restarted. Old disks are
removed with all their snapshots, so that the disk space needed stays small.
"""
import hashlib
import os
import random
import sys

from varve_mount import Varve, digest, main, need, newest, seed_of_run, snapshots

MIB = 1 << 20
DISK = 64


class Bytes:
    def __init__(self, varve, rng):
        self.varve, self.rng = varve, rng
        self.known, self.pool = {}, [rng.randbytes(MIB) for _ in range(4)]
        self.written = self.read = 0

    def piece(self):
        kind = self.rng.random()
        if kind < 0.5:
            data = self.rng.randbytes(MIB)
            self.pool[self.rng.randrange(len(self.pool))] = data
            return data
        if kind < 0.65:
            return bytes(MIB)
        data, turn = self.rng.choice(self.pool), self.rng.randrange(MIB)
        return data[turn:] + data[:turn]

    def remember(self, path, want):
        self.known[path] = want

    def copy_in(self, path):
        h = hashlib.sha256()
        with open(path, 'wb', buffering=0) as f:
            for _ in range(DISK):
                data = self.piece()
                h.update(data)
                need(f.write(data) == MIB, 'a short write')
        self.written += DISK
        self.remember(newest(path), h.hexdigest())

    def change(self, path):
        with open(path, 'r+b', buffering=0) as f:
            for _ in range(DISK // 4):
                os.pwrite(f.fileno(), self.piece(), self.rng.randrange((DISK - 1) * MIB))
        self.written += DISK // 4
        # What it is now is read while the changed segments are still local; later they are only in the store.
        self.remember(newest(path), digest(path))

    def check(self):
        for path, want in self.known.items():
            got = digest(path)
            need(got == want, f'{path}: SHA-256 {got} instead of {want}')
            self.read += DISK

    def remove_oldest(self, keep):
        for path in sorted({p.split('@')[0] for p in self.known})[:-keep]:
            for snap in snapshots(path + '.img'):
                os.unlink(snap)
            os.unlink(path + '.img')
            self.known = {p: w for p, w in self.known.items() if p.split('@')[0] != path}


def body(mib):
    def run(varve, cases):
        state = Bytes(varve, random.Random(seed_of_run()))
        varve.start()

        def all_of_it():
            number = 0
            while state.written < mib:
                path = f'{varve.mnt}/disk{number:06}.img'
                state.copy_in(path)
                state.change(path)
                number += 1
                if number % 4 == 0:
                    varve.cmd('wait', varve.mnt, limit=600)
                    varve.restart()     # the kernel's pages go, too
                    state.check()
                    state.remove_oldest(4)
            varve.cmd('wait', varve.mnt, limit=600)
            varve.restart()
            state.check()
            varve.stop()
            return f'{state.written} MiB written, {state.read} MiB compared, {len(state.known)} snapshots at the end'
        cases.one(f'bytes: {mib} MiB written, evicted, read back', all_of_it)
    return run


if __name__ == '__main__':
    main(Varve(cache_size='1M', frame_cache='1M'), 300 + int(sys.argv[1]), body(int(sys.argv[1])))
