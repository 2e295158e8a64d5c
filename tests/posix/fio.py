#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fio.py MIB: fio --verify=sha256 on live images: random writes of 4 KiB, 64 KiB and 1 MiB, MIB in all, with snapshots while fio
writes and between its passes. Then everything is stored, the daemon restarted, and fio checks the live image and each snapshot
that holds a finished pass; the other snapshots must be what they were when they were taken."""
import subprocess
import sys
import time

from varve_mount import Varve, digest, main, need, newest, seed_of_run, snapshots

PASSES = 2
PART = {'4k': 2, '64k': 15, '1M': 33}      # MiB of 100, in each pass


class Image:
    def __init__(self, varve, bs, mib, seed):
        self.varve, self.bs, self.mib, self.seed = varve, bs, mib, seed
        self.path = f'{varve.mnt}/fio-{bs}.img'
        self.whole, self.known = [], {}

    def fio(self, number, path, *more):
        return ['fio', '--name=v', f'--filename={path}', f'--bs={self.bs}', f'--size={self.mib}M', '--verify=sha256', '--rw=randwrite',
                '--verify_fatal=1', '--verify_state_save=0', '--ioengine=psync', '--output-format=terse',
                f'--randseed={self.seed + number}', *more]

    def write(self, number):
        argv = self.fio(number, self.path, '--do_verify=0', f'--direct={number % 2}')
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as proc:
            while proc.poll() is None:      # the descriptors of fio are its own: no fork of ours holds the disk
                time.sleep(0.5)
                if proc.poll() is None and number > 0:
                    self.varve.cmd('snapshot', self.path)
                    self.note()
            text = proc.stdout.read().decode(errors='replace')
            need(proc.returncode == 0, f'exit {proc.returncode} of {argv}: {text[-500:]}')
        self.verify(number, self.path)
        self.varve.cmd('snapshot', self.path)
        self.note()
        self.whole.append(newest(self.path))

    def note(self):
        for snap in set(snapshots(self.path)) - set(self.known):
            self.known[snap] = digest(snap)

    def verify(self, number, path):
        """fio opens what it verifies for writing, so a snapshot is copied out first."""
        if '@' in path:
            out = f'{self.varve.dir}/restored.img'
            self.varve.run(['cp', '--sparse=always', path, out])
            path = out
        self.varve.run(self.fio(number, path, '--verify_only'), 300)

    def run(self):
        for number in range(PASSES):
            self.write(number)

    def later(self):
        self.verify(PASSES - 1, self.path)
        for number, snap in enumerate(self.whole):
            self.verify(number, snap)
        for snap, want in self.known.items():
            need(digest(snap) == want, f'{snap} is not what it was')
        return f'{len(self.known)} snapshots, {len(self.whole)} of them checked by fio'


def body(mib):
    def run(varve, cases):
        seed = seed_of_run()
        varve.start()
        images = [Image(varve, bs, max(1, mib * part // 100), seed) for bs, part in PART.items()]
        for image in images:
            cases.one(f'fio: random writes of {image.bs}, {PASSES} x {image.mib} MiB, and verify', image.run)
        varve.cmd('wait', varve.mnt, limit=600)
        varve.restart()
        for image in images:
            cases.one(f'fio: {image.bs} again, out of the store', image.later)
        varve.stop()
    return run


if __name__ == '__main__':
    main(Varve(cache_size='8M', frame_cache='1M'), 600 + int(sys.argv[1]) // 2, body(int(sys.argv[1])))
