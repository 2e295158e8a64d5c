#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""engine.py SECONDS [WORKERS]: random actions of several workers on one mount, each against a model of its own directory.

Actions: create and overwrite (as cp and as rsync do it), write, write through a mapping, punch, truncate, copy_file_range, rm and mv
of disks; snapshot, label, relabel and rm of snapshots; revert, clone; reads (cached, direct, from the store) and walks over
SEEK_DATA and SEEK_HOLE. Now and then `varve wait`, and kill -9 of the daemon in the middle of everything, then a new mount.

After each action: what was there is there, with its content; what came is the content at a moment at which it may have come.
After a kill: everything that was answered is there; the one call that was not has happened, or not, page by page for writes.
"""
import errno
import mmap
import os
import random
import sys
import threading
import time

from model import PIECE, Content, first_difference, is_mixture, of_bytes
from varve_mount import Failure, Runner, Varve, main, need, seed_of_run, xattr

SEG = 2 << 20
SIZE = 3 * SEG
NAMES = ('a.img', 'b.img', 'c', 'd.e.raw')
DOWN = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.ESTALE)


class Interrupted(Exception):
    """The daemon was killed under a call."""


def split(name):
    base, ext = os.path.splitext(name)
    return base, ext


def disk_of(snap):
    """NAME.EXT of NAME@LABEL.EXT, out of the names in use here: labels have no dot."""
    base, _, rest = snap.partition('@')
    return base + (rest[rest.index('.'):] if '.' in rest else '')


def renamed(snap, disk):
    """What the snapshot is called once its disk has that name."""
    _, _, rest = snap.partition('@')
    base, ext = split(disk)
    return f'{base}@{rest.split(".")[0]}{ext}'


class Engine:
    """What all workers share."""

    def __init__(self, varve, seed, workers, seconds):
        self.varve = varve
        self.rng = random.Random(f'engine {seed}')
        self.life = 0                   # number of the daemon's life: odd while it is dead
        self.up = threading.Event()
        self.up.set()
        self.until = time.monotonic() + seconds
        self.failures, self.kills, self.runner = [], 0, Runner()
        self.workers = [Worker(self, f'w{i}', random.Random(f'worker {i} {seed}')) for i in range(workers)]

    def kill(self):
        self.up.clear()
        self.life += 1
        self.kills += 1
        self.varve.kill()
        time.sleep(0.05)
        self.varve.start()
        self.life += 1
        self.up.set()

    def run(self):
        threads = [threading.Thread(target=w.run) for w in self.workers]
        for t in threads:
            t.start()
        while time.monotonic() < self.until and not self.failures:
            time.sleep(self.rng.uniform(2, 8))
            turn = self.rng.random()
            if turn < 0.8:
                self.kill()
            else:
                where = self.rng.choice(self.workers).dir
                need(self.runner.run([self.varve.binary, 'wait', where])[0] == 0, f'varve wait {where} failed')
        for t in threads:
            t.join()
        for r in [self.runner, *(w.runner for w in self.workers)]:
            r.end()
        need(not self.failures, '\n'.join(self.failures))


class Worker:
    def __init__(self, engine, name, rng):
        self.engine, self.rng, self.runner = engine, rng, Runner()
        self.dir = f'{engine.varve.mnt}/{name}'
        self.disks, self.snaps = {}, {}         # name -> Content
        self.moments = []                       # contents that a new snapshot may have
        self.zeros = set()                      # sizes that disks had as images of zeros: such a snapshot comes later, when it settles
        self.flight = {}                        # disk -> contents it may be a mixture of (None in it: may be absent)
        self.vanish = set()                     # snapshots that may be gone
        self.alias = {}                         # snapshot -> what it may be called instead
        self.did, self.doing, self.removed = 0, '', None
        self.history = []

    def path(self, name):
        return f'{self.dir}/{name}'

    # ---- calls: what is under way is known before it begins ----

    def step(self, name, new, call):
        """call() turns the content of the disk into new."""
        old = self.disks.get(name)
        self.flight = {name: [old, new]}
        result = call()
        self.flight = {}
        self.disks[name] = new
        return result

    def cli(self, *words):
        life = self.engine.life
        code, text = self.runner.run([self.engine.varve.binary, *words])
        if code != 0:
            if self.engine.life != life or life % 2:
                raise Interrupted
            raise Failure(f'exit {code} of {words}: {text.strip()}')

    def data(self, length):
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.randbytes(length)
        if kind < 0.8:      # pieces that are equal everywhere, so that there is something to find
            return (self.rng.randrange(1, 256).to_bytes(1, 'big') * 4096 * (length // 4096 + 1))[:length]
        return bytes(length)

    def place(self):
        off = self.rng.randrange(SIZE)
        if self.rng.random() < 0.5:
            off -= off % 4096
        return off, min(self.rng.choice((1, 511, 4096, 5000, 65536, 131072, 300000)), SIZE - off)

    def some_disk(self):
        """One that is not a temporary file that a kill left behind."""
        disks = sorted(d for d in self.disks if d[0] != '.')
        return self.rng.choice(disks) if disks else None

    def some_snap(self):
        return self.rng.choice(sorted(self.snaps)) if self.snaps else None

    def pwrite(self, fd, name, off, data):
        def all_of_it():
            at = 0
            while at < len(data):
                at += os.pwrite(fd, data[at:], off + at)
        self.step(name, self.disks[name].write(off, data), all_of_it)

    def closed(self, fd, name):
        self.moments.append(self.disks[name])
        if self.disks[name].is_zero():
            self.zeros.add(self.disks[name].size)
        os.close(fd)

    def opened(self, name, flags=os.O_RDWR):
        return os.open(self.path(name), flags)

    # ---- actions ----

    def act_create(self):
        """cp: makes or overwrites."""
        name = self.rng.choice(NAMES)
        self.fill(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def replaced(self, name):
        """What no snapshot has is frozen before it is replaced: also what was left behind when its snapshot was removed."""
        if name in self.disks:
            self.moments.append(self.disks[name])

    def fill(self, name, flags):
        self.replaced(name)
        fd = self.step(name, Content(), lambda: os.open(self.path(name), flags, 0o640))
        try:
            for _ in range(self.rng.randrange(1, 6)):
                off, length = self.place()
                self.pwrite(fd, name, off, self.data(length))
        finally:
            self.closed(fd, name)

    def act_rsync(self):
        """A temporary name, then a rename onto the disk."""
        name = self.rng.choice(NAMES)
        if name not in self.disks and any(disk_of(s) == name for s in self.snaps):
            return          # EEXIST: docs/posix.md
        tmp = '.' + name + '.part'
        self.fill(tmp, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        new, old = self.disks[tmp], self.disks.get(name)
        self.replaced(name)
        self.flight = {name: [old, new], tmp: [new, None]}
        os.rename(self.path(tmp), self.path(name))
        self.flight = {}
        self.moments.append(new)
        self.disks[name] = self.disks.pop(tmp)

    def act_write(self):
        name = self.some_disk()
        if not name:
            return
        fd = self.opened(name)
        try:
            for _ in range(self.rng.randrange(1, 8)):
                off, length = self.place()
                self.pwrite(fd, name, off, self.data(length))
                turn = self.rng.random()
                if turn < 0.15:
                    os.fsync(fd)
                elif turn < 0.3:            # a flush in the middle: its snapshot may go again, or stay as what it is
                    self.moments.append(self.disks[name])
                    os.close(os.dup(fd))
        finally:
            self.closed(fd, name)

    def act_map(self):
        name = self.some_disk()
        if not name or self.disks[name].size < 20000:
            return
        fd = self.opened(name)
        try:
            size = self.disks[name].size
            off = self.rng.randrange(size - 10000)
            data = self.data(self.rng.randrange(1, 10000))

            def change():
                with mmap.mmap(fd, size) as m:
                    m[off:off + len(data)] = data
                    m.flush()
            # Killed under a mapping we would get SIGBUS: only while the pages need no daemon to be read.
            os.pread(fd, size, 0)
            self.pwrite(fd, name, off, data) if self.engine.kills else self.step(name, self.disks[name].write(off, data), change)
        finally:
            self.closed(fd, name)

    def act_direct(self):
        name = self.some_disk()
        if not name:
            return
        fd = self.opened(name, os.O_RDWR | os.O_DIRECT)
        try:
            with mmap.mmap(-1, 131072) as buf:
                for _ in range(4):
                    off, length = self.rng.randrange(SIZE // 4096) * 4096, self.rng.choice((4096, 65536, 131072))
                    if self.rng.random() < 0.5:
                        data = self.data(length)
                        buf[:length] = data
                        self.step(name, self.disks[name].write(off, data),
                                  lambda o=off, n=length: need(os.pwritev(fd, [memoryview(buf)[:n]], o) == n, 'short direct write'))
                    else:
                        n = os.preadv(fd, [memoryview(buf)[:length]], off)
                        diff = first_difference(buf[:n], self.disks[name].read(off, length))
                        need(diff is None, f'direct read of {name} at {off}: {diff}')
        finally:
            self.closed(fd, name)

    def act_punch(self):
        name = self.some_disk()
        if not name:
            return
        fd = self.opened(name)
        try:
            for _ in range(self.rng.randrange(1, 4)):
                off, length = self.place()
                length *= self.rng.choice((1, 1, 10))
                self.step(name, self.disks[name].zero(off, length), lambda o=off, n=length: fallocate(fd, 3, o, n))
        finally:
            self.closed(fd, name)

    def act_truncate(self):
        name = self.some_disk()
        if not name:
            return
        fd = self.opened(name)
        try:
            for _ in range(self.rng.randrange(1, 4)):
                size = self.rng.choice((1, 4096, 5000, SEG, SEG + 1, SIZE, self.rng.randrange(1, SIZE)))
                self.step(name, self.disks[name].truncate(size), lambda n=size: os.ftruncate(fd, n))
        finally:
            self.closed(fd, name)

    def act_copy_range(self):
        name, source = self.some_disk(), self.rng.choice([*sorted(self.disks), *sorted(self.snaps), None])
        if not name or source is None or source == name:
            return
        content = self.disks.get(source) or self.snaps[source]
        src, dst = self.opened(source, os.O_RDONLY), self.opened(name)
        try:
            if self.rng.random() < 0.7:
                off, out, length = self.rng.randrange(3) * SEG, self.rng.randrange(3) * SEG, self.rng.randrange(1, 3) * SEG
            else:
                (off, length), out = self.place(), self.rng.randrange(SIZE)
            length = min(length, max(0, content.size - off))
            while length > 0:
                want = content.read(off, length)
                new = self.disks[name].write(out, want)
                self.flight = {name: [self.disks[name], new]}
                n = os.copy_file_range(src, dst, length, off, out)
                self.flight = {}
                need(n > 0, 'copy_file_range copied nothing')
                self.disks[name] = self.disks[name].write(out, want[:n])
                off, out, length = off + n, out + n, length - n
        finally:
            os.close(src)
            self.closed(dst, name)

    def act_rm(self):
        name = self.some_disk()
        if not name or len(self.disks) < 2:
            return
        self.flight = {name: [self.disks[name], None]}
        os.unlink(self.path(name))
        self.flight = {}
        del self.disks[name]

    def act_mv(self):
        name, free = self.some_disk(), [n for n in NAMES if n not in self.disks and not any(disk_of(s) == n for s in self.snaps)]
        if not name or not free:
            return
        to = self.rng.choice(free)
        mine = {s: renamed(s, to) for s in self.snaps if disk_of(s) == name}
        self.flight = {name: [self.disks[name], None], to: [self.disks[name], None]}
        self.alias = mine
        os.rename(self.path(name), self.path(to))
        self.flight, self.alias = {}, {}
        self.disks[to] = self.disks.pop(name)
        self.snaps = {mine.get(s, s): c for s, c in self.snaps.items()}

    def act_snapshot(self):
        name = self.some_disk()
        if not name:
            return
        before = len(self.snaps)
        self.moments.append(self.disks[name])
        self.cli('snapshot', self.path(name))
        self.look()
        need(len(self.snaps) > before, f'varve snapshot of {name} made none')

    def act_label(self):
        name = self.some_disk()
        if not name:
            return
        base, ext = split(name)
        snap = f'{base}@label-{self.did}{ext}'
        self.moments.append(self.disks[name])
        os.close(os.open(self.path(snap), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        self.look()
        need(snap in self.snaps, f'{snap} was not made')

    def act_relabel(self):
        snap = self.some_snap()
        if not snap:
            return
        base, ext = split(disk_of(snap))
        to = f'{base}@other-{self.did}{ext}'
        self.alias = {snap: to}
        os.rename(self.path(snap), self.path(to))
        self.alias = {}
        self.snaps[to] = self.snaps.pop(snap)

    def act_rm_snapshot(self):
        """Several, so that there are never too many to look at."""
        while len(self.snaps) > 12:
            snap = self.some_snap()
            self.vanish = {snap}
            os.unlink(self.path(snap))      # also while a round works on it
            self.removed = self.snaps.pop(snap)
            self.vanish = set()

    def act_revert(self):
        snap = self.some_snap()
        if not snap or disk_of(snap) not in self.disks:
            return
        name = disk_of(snap)
        self.replaced(name)
        self.step(name, self.snaps[snap], lambda: self.cli('revert', self.path(snap)))

    def act_clone(self):
        snap, free = self.some_snap(), [n for n in NAMES if n not in self.disks and not any(disk_of(s) == n for s in self.snaps)]
        if not snap or not free:
            return
        to = self.rng.choice(free)
        self.flight = {to: [None, Content(), self.snaps[snap]]}
        self.cli('revert', '--to', self.path(to), self.path(snap))
        self.flight = {}
        self.disks[to] = self.snaps[snap]
        self.moments.append(self.disks[to])

    def act_read(self):
        name = self.some_disk() if self.rng.random() < 0.3 else self.some_snap()
        if name:
            self.compare(name, self.disks.get(name) or self.snaps[name])

    def act_holes(self):
        """A reader must never be told of a hole where data are."""
        name = self.some_disk() if self.rng.random() < 0.5 else self.some_snap()
        if not name:
            return
        content = self.disks.get(name) or self.snaps[name]
        fd = self.opened(name, os.O_RDONLY)
        try:
            at = 0
            while at < content.size:
                try:
                    data = os.lseek(fd, at, os.SEEK_DATA)
                except OSError as e:
                    if e.errno != errno.ENXIO:
                        raise
                    data = content.size
                need(not any(content.read(at, data - at)), f'{name}: a hole from {at} to {data}, where data are')
                at = data if data >= content.size else os.lseek(fd, data, os.SEEK_HOLE)
        finally:
            os.close(fd)

    def act_wait(self):
        self.cli('wait', self.dir)

    # ---- looking ----

    def raw(self, name):
        with open(self.path(name), 'rb', buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return f.readall()

    def compare(self, name, content):
        diff = first_difference(self.raw(name), content.bytes())
        need(diff is None, f'{name} is not what it was: {diff}')

    def look(self):
        """The listing against the model. New snapshots come into the model, if their content is that of a moment."""
        names = set(os.listdir(self.dir))
        disks, snaps = {n for n in names if '@' not in n}, {n for n in names if '@' in n}
        need(disks == set(self.disks), f'disks are {sorted(disks)} instead of {sorted(self.disks)}')
        lost = set(self.snaps) - snaps
        need(not lost, f'snapshots are gone: {sorted(lost)}')
        for snap in sorted(snaps - set(self.snaps)):
            data = self.raw(snap)
            if len(data) in self.zeros and not any(data):
                self.snaps[snap] = of_bytes(data)
                continue
            for moment in self.moments:
                if moment.size == len(data) and moment.bytes() == data:
                    self.snaps[snap] = moment
                    break
            else:
                near = [first_difference(data, m.bytes()) for m in self.moments]
                like = [n for n, c in {**self.disks, **self.snaps, 'the removed one': self.removed}.items()
                        if c is not None and c.size == len(data) and c.bytes() == data]
                raise Failure(f'{snap} is new, and is at no moment what its disk was: {near}; it is like {like}; flags '
                              f'"{xattr(self.path(snap), "flags")}" {xattr(self.path(snap), "state")}, of {sorted(self.snaps)}')

    def after_kill(self):
        """What was answered is there; of what was under way, a part."""
        names = set(os.listdir(self.dir))
        for name in set(self.disks) | set(self.flight) | {n for n in names if '@' not in n}:
            options = self.flight.get(name, [self.disks.get(name)])
            if name not in names:
                need(None in options, f'{name} is gone')
                self.disks.pop(name, None)
                continue
            known = [c for c in options if c is not None]
            need(known, f'{name} is there, which was not')
            data = self.raw(name)
            wrong = is_mixture(data, known)
            need(wrong is None, f'{name}: {wrong}')
            self.disks[name] = of_bytes(data) if data else Content()
            self.moments += [self.disks[name], *known]
        for snap in list(self.snaps):
            if snap in names:
                continue
            other = self.alias.get(snap)
            need(other in names or snap in self.vanish, f'{snap} is gone')
            content = self.snaps.pop(snap)
            if other in names:
                self.snaps[other] = content
        self.flight, self.alias, self.vanish = {}, {}, set()
        self.look()
        for name in list(self.disks):
            self.compare(name, self.disks[name])
        for snap in self.rng.sample(sorted(self.snaps), min(5, len(self.snaps))):
            self.compare(snap, self.snaps[snap])

    # ---- the loop ----

    def one(self):
        weights = {'create': 3, 'rsync': 3, 'write': 12, 'map': 3, 'direct': 4, 'punch': 5, 'truncate': 4, 'copy_range': 6, 'rm': 1, 'mv': 2,
                   'snapshot': 2, 'label': 3, 'relabel': 3, 'rm_snapshot': 8, 'revert': 3, 'clone': 1, 'read': 12, 'holes': 6, 'wait': 1}
        self.doing = self.rng.choices(list(weights), list(weights.values()))[0]
        self.history = self.history[-20:] + [self.doing]
        self.did += 1
        getattr(self, 'act_' + self.doing)()
        self.look()
        self.moments = []

    def run(self):
        try:
            os.makedirs(self.dir, exist_ok=True)
            while time.monotonic() < self.engine.until and not self.engine.failures:
                self.engine.up.wait(60)
                life = self.engine.life
                try:
                    self.one()
                except (OSError, Interrupted, Failure) as e:
                    # ENOENT and a listing that lacks things also come when the mount point is bare for a moment.
                    if self.engine.life == life and life % 2 == 0:
                        raise
                    if isinstance(e, OSError) and e.errno not in DOWN:
                        raise
                    self.resync()
                else:
                    if self.engine.life != life:
                        self.resync()
        except Exception as e:    # pylint: disable=broad-except
            self.engine.failures.append(f'{self.dir}, action {self.did} ({" ".join(self.history)}): {type(e).__name__}: {e}')
            if not isinstance(e, (OSError, Failure)):
                raise

    def resync(self):
        while True:
            self.engine.up.wait(60)
            life = self.engine.life
            flight, alias, vanish = self.flight, self.alias, self.vanish
            try:
                self.after_kill()
                if self.engine.life == life:
                    self.moments = []
                    return
            except (OSError, Failure):
                if self.engine.life == life:
                    raise
            self.flight, self.alias, self.vanish = flight, alias, vanish


def fallocate(fd, mode, off, length):
    """Python knows only the one of POSIX."""
    import ctypes    # pylint: disable=import-outside-toplevel
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_int64(off), ctypes.c_int64(length)) != 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def body(seconds, workers):
    def run(varve, cases):
        engine = Engine(varve, seed_of_run(), workers, seconds)
        varve.start()

        def act():
            engine.run()
            return f'{sum(w.did for w in engine.workers)} actions of {workers} workers, {engine.kills} kills'

        def end():
            varve.cmd('wait', varve.mnt)
            varve.restart()
            for w in engine.workers:
                # Whose last snapshot was removed before it was stored, that disk counts as changed: the mount makes it one.
                w.moments = list(w.disks.values())
                w.look()
                for name, content in {**w.disks, **w.snaps}.items():
                    w.compare(name, content)
            varve.stop()
            varve.cmd('verify', varve.store, limit=600)
            return f'{sum(len(w.snaps) for w in engine.workers)} snapshots'
        if cases.one('engine', act):
            cases.one('engine: all of it again after a restart, and verify', end)
    return run


if __name__ == '__main__':
    length = int(sys.argv[1])
    main(Varve(cache_size='2M', frame_cache='4M'), length + 600, body(length, int(sys.argv[2]) if len(sys.argv) > 2 else 6))
