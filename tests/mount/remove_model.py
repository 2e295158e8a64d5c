#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""remove_model.py VARVE MOUNT FILE SEED STEPS PID: disks are written, removed, made again and reverted, all at the same time.

A thread for each disk does STEPS random operations by the programs that users have, each in a process of its own, and keeps what
must be there: the content of the live image, and that of each snapshot by its name. After each operation the names are compared, and at
the end and now and then all contents.

PID: kill -9 of that process at a random moment; 0: of nobody. When the daemon dies the model goes to FILE, with the operation of each
thread that nobody acknowledged, and the exit status is 3. A call with a FILE that exists goes on from there: what was acknowledged must
be there, and the one operation may have happened, or not, or by half.
"""
import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

DISKS = 4
PATIENCE = 60
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
DEAD_TEXT = ('Transport endpoint is not connected', 'Software caused connection abort')


class Died(Exception):
    """The daemon is dead."""


class Wrong(Exception):
    pass


def call(function, *args):
    try:
        return function(*args)
    except OSError as e:
        if e.errno in DEAD:
            raise Died() from e
        raise


def program(*args, retry=True):
    """Runs a program. retry: a disk whose last handle is still being closed is busy for a moment: the program changed nothing then."""
    until = time.monotonic() + PATIENCE
    while True:
        r = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, 'LC_ALL': 'C'},
                           timeout=2 * PATIENCE, check=False)
        if r.returncode == 0:
            return
        if any(t in r.stderr for t in DEAD_TEXT):
            raise Died()
        if not retry or 'busy' not in r.stderr or time.monotonic() > until:
            raise Wrong('%s: %s' % (' '.join(args), r.stderr.strip()))
        time.sleep(0.05)


def read(path):
    with call(open, path, 'rb', 0) as f:
        parts = []
        while piece := call(f.read, 1 << 20):
            parts.append(piece)
    return b''.join(parts)


class Disk:
    """What must be there. `doubt`: the operation that runs, as (contents that the live image may have, or None for any; how many new
    snapshots there may be; a snapshot that may be gone). A live image that is not there has the content None. `loose`: the snapshot of
    what the live image holds was removed, or the newest one, perhaps before it was stored: then the disk counts as changed since its
    last snapshot, even if a revert has given it the content of another one meanwhile, and what would end that content takes one of it."""

    def __init__(self, index, seed):
        self.name, self.index, self.rng = 'd%d' % index, index, random.Random('%s %d' % (seed, index))
        self.live, self.snaps, self.doubt, self.loose, self.killed, self.log = None, {}, None, False, False, []

    def say(self, text):
        self.log = self.log[-30:] + ['%.3f %s' % (time.monotonic(), text)]

    def content(self):
        return self.rng.randbytes(self.rng.choice((8192, 50000, 700000, 5000000 if self.index == 0 else 100000)))


class Thread(threading.Thread):
    def __init__(self, run, disk):
        super().__init__()
        self.run_, self.disk, self.error, self.died = run, disk, None, False
        self.path = '%s/%s.img' % (run.mount, disk.name)

    def snap(self, name):
        return '%s/%s' % (self.run_.mount, name)

    def found(self):
        names = set(call(os.listdir, self.run_.mount))
        mine = {n for n in names if n.startswith(self.disk.name + '@')}
        return mine, self.disk.name + '.img' in names

    def compare(self):
        mine, live = self.found()
        extra = sorted(mine - set(self.disk.snaps))
        if self.disk.loose and live and len(extra) == 1 and read(self.snap(extra[0])) == self.disk.live:
            self.disk.snaps[extra[0]], self.disk.loose = self.disk.live, False      # by the late release of its last writer
        if mine != set(self.disk.snaps) or live != (self.disk.live is not None):
            raise Wrong('%s: snapshots %s instead of %s; live image %s' % (self.disk.name, sorted(mine), sorted(self.disk.snaps), live))

    def compare_bytes(self):
        d = self.disk
        if d.live is not None and read(self.path) != d.live:
            raise Wrong('%s has not its content' % self.path)
        for name, data in d.snaps.items():
            if read(self.snap(name)) != data:
                raise Wrong('%s has not its content' % name)

    # ---- operations ----

    def ended(self, old):
        """The content `old` of a live image has ended. If no snapshot had it, one may have been taken of it."""
        d = self.disk
        new = sorted(self.found()[0] - set(d.snaps))
        if d.loose and new and len(old) > 0 and read(self.snap(new[0])) == old:
            d.snaps[new[0]] = old
        d.loose = False

    def written(self, data):
        """A program has written, closed and ended: there is one more snapshot."""
        d = self.disk
        d.doubt = ([data], 1 + d.loose, None)
        old, d.live = d.live, data
        self.ended(old)
        new = self.found()[0] - set(d.snaps)
        if len(new) != 1:
            raise Wrong('%s: new snapshots %s after one copy' % (d.name, sorted(new)))
        d.snaps[new.pop()] = data

    def copy(self):
        d = self.disk
        data = d.content()
        with open(self.run_.source(d), 'wb') as f:
            f.write(data)
        d.say('copy %d' % len(data))
        d.doubt = (None, 2, None)
        program('cp', self.run_.source(d), self.path)
        self.written(data)

    def patch(self):
        d = self.disk
        at, piece = d.rng.randrange(len(d.live) + 1), d.rng.randbytes(5000)
        with open(self.run_.source(d), 'wb') as f:
            f.write(piece)
        d.say('patch at %d' % at)
        d.doubt = (None, 2, None)
        program('dd', 'if=' + self.run_.source(d), 'of=' + self.path, 'bs=8K', 'conv=notrunc', 'oflag=seek_bytes', 'seek=%d' % at)
        self.written(d.live[:at] + piece + d.live[at + len(piece):])

    def create_empty(self):
        self.disk.say('create')
        self.disk.doubt = ([None, b''], 0, None)
        call(os.close, call(os.open, self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self.disk.live = b''

    def remove(self):
        self.disk.say('remove')
        self.disk.doubt = ([self.disk.live, None], 0, None)
        call(os.unlink, self.path)
        self.ended(self.disk.live)      # the release of its last writer may have come only after that snapshot was removed
        self.disk.live = None

    def revert(self):
        d = self.disk
        name = d.rng.choice(sorted(d.snaps))
        d.say('revert to ' + name)
        d.doubt = ([d.live, d.snaps[name]] + ([b''] if d.live is None else []), int(d.loose), None)
        program(self.run_.varve, 'revert', self.snap(name))
        self.ended(d.live)
        d.live = d.snaps[name]

    def remove_snap(self):
        d = self.disk
        name = d.rng.choice(sorted(d.snaps))
        d.say('remove ' + name)
        d.doubt = ([d.live], 0, name)
        program('rm', self.snap(name), retry=False)     # a round that is storing it does not make it busy
        d.loose = d.loose or (d.live is not None and (d.snaps[name] == d.live or name == max(d.snaps)))
        del d.snaps[name]

    def step(self):
        d = self.disk
        there = d.live is not None
        weights = {self.copy: 4 if not there else 2, self.create_empty: 0 if there else 2, self.patch: 2 if there else 0,
                   self.remove: 5 if there else 0, self.revert: 2 if d.snaps else 0,
                   self.remove_snap: 0 if not d.snaps else 1 if len(d.snaps) < 6 else 4}
        d.rng.choices(list(weights), list(weights.values()))[0]()
        d.doubt = None
        self.compare()
        if d.rng.random() < 0.1:
            program(self.run_.varve, 'wait', '--timeout', str(PATIENCE), self.run_.mount)
        if d.rng.random() < 0.1:
            self.compare_bytes()
        if d.rng.random() < 0.5:
            time.sleep(d.rng.random() * 0.04)   # so that removals meet publications at every step

    # ---- after a crash ----

    def go_on(self):
        """Compares with what was acknowledged, and takes over what happened of the rest."""
        d = self.disk
        lives, more, gone = d.doubt if d.doubt is not None else ([d.live], 0, None)
        mine, there = self.found()
        lost = set(d.snaps) - mine - {gone}
        if lost or len(mine - set(d.snaps)) > more + (d.loose or gone is not None):
            raise Wrong('%s after a crash: snapshots %s instead of %s' % (d.name, sorted(mine), sorted(d.snaps)))
        live = read(self.path) if there else None
        if lives is not None and live not in lives:
            raise Wrong('%s after a crash: the live image %s' % (d.name, 'has another content' if there else 'is gone'))
        if more > 0 and lives is not None and len(lives) == 1 and live not in [read(self.snap(n)) for n in mine - set(d.snaps)]:
            raise Wrong('%s after a crash: no snapshot has what was written and closed' % d.name)
        for name in set(d.snaps) & mine:
            if read(self.snap(name)) != d.snaps[name]:
                raise Wrong('%s after a crash: %s has not its content' % (d.name, name))
        d.snaps = {name: d.snaps[name] if name in d.snaps else read(self.snap(name)) for name in mine}
        d.live, d.doubt, d.loose, d.killed = live, None, live is not None and live not in d.snaps.values(), True
        d.say('goes on with %s, %d snapshots' % ('nothing' if live is None else len(live), len(d.snaps)))

    def run(self):
        try:
            if self.run_.resumed:
                self.go_on()
            while not self.run_.over(self):
                self.step()
        except Died:
            self.died = True
        except OSError as e:    # a close has no place to catch it
            self.died, self.error = e.errno in DEAD, None if e.errno in DEAD else e
        except Exception as e:  # pylint: disable=broad-except
            self.error = e


class Run:
    def __init__(self, varve, mount, file, seed, steps, pid):
        self.varve, self.mount, self.file, self.steps, self.pid = varve, mount, file, int(steps), int(pid)
        self.lock, self.done, self.resumed = threading.Lock(), 0, os.path.exists(file)
        self.kill_at = random.Random(seed + ' kill').randrange(self.steps * DISKS // 4, self.steps * DISKS)
        if self.resumed:
            with open(file, 'rb') as f:
                self.disks = pickle.load(f)
            os.unlink(file)
            for d in self.disks:
                d.rng.seed('%s %d' % (seed, d.index))
        else:
            self.disks = [Disk(i, seed) for i in range(DISKS)]
        self.threads = [Thread(self, d) for d in self.disks]

    def source(self, disk):
        return '%s.%d' % (self.file, disk.index)

    def over(self, thread):
        """Counts a step. The kill comes while the other threads are in the middle of theirs."""
        with self.lock:
            self.done += 1
            if self.pid and self.done == self.kill_at:
                os.kill(self.pid, signal.SIGKILL)
            thread.steps = getattr(thread, 'steps', 0) + 1
            return thread.steps > self.steps or any(t.error for t in self.threads)

    def check_end(self):
        program(self.varve, 'wait', '--timeout', '120', self.mount)
        for t in self.threads:
            t.compare()
            t.compare_bytes()
            for name in t.disk.snaps:
                flags = call(os.getxattr, t.snap(name), 'user.varve.flags')
                if flags and not t.disk.killed:
                    raise Wrong('%s is %s' % (name, flags.decode()))

    def main(self):
        for t in self.threads:
            t.start()
        for t in self.threads:
            t.join()
        for t in self.threads:
            if t.error is not None:
                sys.exit('%s: %r\n  %s' % (t.disk.name, t.error, '\n  '.join(t.disk.log)))
        try:
            if not any(t.died for t in self.threads):
                self.check_end()
        except Died:
            self.threads[0].died = True
        with open(self.file, 'wb') as f:
            pickle.dump(self.disks, f)
        sys.exit(3 if any(t.died for t in self.threads) else 0)


Run(*sys.argv[1:]).main()
