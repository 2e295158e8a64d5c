#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fsx.py FSX OPS SEED...: fsx on live images of a real mount: OPS operations for each seed, in three ways, all seeds at a time.

plain     nothing else goes on; every burst ends with a close, whose snapshot must be what the image was
snaps     snapshots are taken all the time. Every other one while fsx is stopped and its mapped pages are written: it must equal
          the live image at that moment. Of the others the content must only stay what it was when first read
evict     the caches of published layers and of frames are tiny, so that segments go to the store and come back all the time;
          snapshots as above, now and then

At the end all snapshots are stored, the daemon is restarted, and each must still be what it was.
"""
import os
import random
import signal
import subprocess
import sys
import threading
import time

from varve_mount import Failure, Varve, digest, main, need, newest, seed_of_run, snapshots

HERE = os.path.dirname(os.path.abspath(__file__))
BURST = 4000


def stopped(pid):
    """All threads of a process are stopped: no call of it is under way."""
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/stat', encoding='utf-8') as f:
            if f.read().rsplit(')', 1)[1].split()[0] not in 'TtZX':
                return False
    return True


def config(varve, name, **weights):
    """fsx.toml with some other weights; its path."""
    with open(f'{HERE}/fsx.toml', encoding='utf-8') as f:
        lines = f.read().splitlines()
    for key, value in weights.items():
        lines = [f'{key} = {value}' if line.startswith(key + ' =') else line for line in lines]
    path = f'{varve.dir}/{name}.toml'
    with open(path, 'w', encoding='utf-8') as f:
        f.write('\n'.join(lines) + '\n')
    return path


class Image:
    """One disk under fsx."""

    def __init__(self, varve, name, tool, seed, weights):
        self.varve, self.tool = varve, tool
        self.config = config(varve, name.replace('/', '-'), **weights)
        self.path = f'{varve.mnt}/{name}'
        self.rng = random.Random(f'{name} {seed}')
        self.known = {}     # snapshot -> digest
        self.exact = 0      # of them: compared with the live image at their moment
        os.makedirs(os.path.dirname(self.path), exist_ok=True)

    def quiesced(self, proc):
        """A snapshot while fsx stands still, against the live image."""
        proc.send_signal(signal.SIGSTOP)
        try:
            until = time.monotonic() + 10
            while not stopped(proc.pid):
                need(time.monotonic() < until, 'fsx does not stop')
                time.sleep(0.001)
            fd = os.open(self.path, os.O_RDWR)
            os.fsync(fd)        # pages that were changed through a mapping
            os.close(fd)
            self.varve.cmd('snapshot', self.path)
            snap, live = newest(self.path), digest(self.path)
            need(digest(snap) == live, f'{snap} differs from the live image at its moment')
            self.known[snap] = live
            self.exact += 1
        finally:
            proc.send_signal(signal.SIGCONT)

    def running(self):
        """A snapshot beside fsx: what it was at first it has to stay."""
        self.varve.cmd('snapshot', self.path)
        snap = newest(self.path)
        self.known.setdefault(snap, digest(snap))

    def burst(self, ops, seed, every):
        """fsx once. every: seconds between snapshots, None for none."""
        argv = [self.tool, '-f', self.config, '-N', str(ops), '-S', str(seed), '-P', self.varve.dir, self.path]
        with open(f'{self.varve.dir}/fsx.log', 'wb') as log, \
                subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT) as proc:
            try:
                turn = 0
                while every is not None and proc.poll() is None:
                    time.sleep(every * self.rng.uniform(0.3, 1.7))
                    if proc.poll() is None and os.path.exists(self.path) and os.stat(self.path).st_size > 0:
                        turn += 1
                        if turn % 2:
                            self.quiesced(proc)
                        else:
                            self.running()
                status = proc.wait(600)
            finally:
                proc.kill()
        if status != 0:
            with open(f'{self.varve.dir}/fsx.log', encoding='utf-8', errors='replace') as f:
                text = f.read()[-3000:]
            raise Failure(f'{" ".join(argv)}: exit {status}\n{text}')
        self.closed()

    def closed(self):
        """fsx has closed the image: the newest snapshot is it."""
        live, snap = digest(self.path), newest(self.path)
        need(snap is not None and digest(snap) == live, f'{snap} is not what the image was at its close')
        self.known[snap] = live
        self.exact += 1
        self.look_back(3)

    def look_back(self, count=None):
        """Has a snapshot changed?"""
        here = set(snapshots(self.path))
        for snap, want in self.known.items():
            need(snap in here, f'{snap} is gone')
        some = list(self.known) if count is None else self.rng.sample(list(self.known), min(count, len(self.known)))
        for snap in some:
            need(digest(snap) == self.known[snap], f'{snap} is not what it was')


def work(image, ops, seed, every):
    done = 0
    while done < ops:
        n = min(BURST, ops - done)
        image.burst(n, seed * 1000 + done // BURST, every)
        done += n


def way(varve, cases, name, seeds, tool, ops, every, **options):
    """One of the three ways; one image for each seed, all at the same time."""
    varve.start(**options)
    images = []
    for i, seed in enumerate(seeds):
        # fsx never unmaps what it maps to read, so a reopened image has two writers: then copy_file_range is EBUSY by design.
        weights = {'copy_file_range': 0} if i % 2 else {'close_open': 0}
        if every is not None:
            weights['sendfile'] = 0     # SIGSTOP makes it short, which fsx takes for the end of the world
        images.append(Image(varve, f'{name}{i}/disk.img', tool, seed, weights))
    threads = []
    for image, seed in zip(images, seeds):
        t = threading.Thread(target=cases.one, args=(f'fsx-{name} seed {seed}, {ops} operations', work, image, ops, seed, every))
        t.start()
        threads.append(t)
    for t in threads:
        t.join()

    def later():
        varve.cmd('wait', varve.mnt)
        varve.restart(**options)
        for image in images:
            image.look_back()
        return f'{sum(len(i.known) for i in images)} snapshots, {sum(i.exact for i in images)} of them of a known content'
    cases.one(f'fsx-{name} snapshots after a restart', later)
    varve.stop()


def body(tool, ops, seeds):
    def run(varve, cases):
        way(varve, cases, 'plain', seeds, tool, ops * 4 // 10, None)
        way(varve, cases, 'snaps', seeds, tool, ops * 3 // 10, 0.3)
        way(varve, cases, 'evict', seeds, tool, ops - ops * 7 // 10, 0.6, cache_size='1M', frame_cache='1M')
    return run


if __name__ == '__main__':
    given = [int(s) for s in sys.argv[3:]]
    if not given:
        first = seed_of_run()
        given = [first, first + 1]
    main(Varve(), 3600, body(sys.argv[1], int(sys.argv[2]), given))
