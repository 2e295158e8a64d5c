#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Errors of the disk at every call that makes something persist: see run.sh, and --help."""
import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, '..', 'crash'), os.path.join(HERE, '..', 'lib')]
import model as m       # noqa: E402
import owned            # noqa: E402
import sample           # noqa: E402
import workload as wl   # noqa: E402
import world as wd      # noqa: E402

READER = os.path.join(HERE, '..', 'format', 'varve_format.py')
ONCE, FOR_EVER, SHORT = 1, 2, 6
KINDS = [(mode, error) for mode in (ONCE, FOR_EVER) for error in (errno.ENOSPC, errno.EIO, errno.EDQUOT)] + [(SHORT, 0)]
KIND_NAMES = {ONCE: 'once', FOR_EVER: 'for ever', SHORT: 'short'}
SYNCS = ('fsync', 'fdatasync')
BATCH = 30              # cases that one store serves, one after another
PIECE = 128 << 10
top = options = None
the_world = None


class Wrong(Exception):
    """A promise was broken."""


# ---- what may be ----

class Disk:
    """What one disk of a case may hold. `may`: contents whose bytes may be mixed in the live image; `whole`: what a snapshot that
    is not called partial may hold; `good`: (content, level) of acknowledged ones, level as in tests/crash."""

    def __init__(self, content=b''):
        self.may, self.whole, self.good = [content], [content], []
        self.durable = [content]            # what a lost page may show after a failed fsync: everything since the last good one
        self.ever = [content]
        self.doubted, self.as_it_is = None, []
        self.there, self.refused = True, False   # there: True, False, None: who knows
        self.gone = []                      # contents of snapshots that may be removed already

    def become(self, content, sure=True):
        self.may = [content] if sure else self.may + [content]
        self.ever.append(content)
        self.durable.append(content)
        if sure:
            self.whole.append(content)


class Case:
    """Operations of one case, in a directory of its own. Errors are taken as they come; what they leave open is in the Disks."""

    def __init__(self, world, name):
        self.w, self.dir, self.disks, self.errors = world, name, {}, []
        self.labels = {}                    # path of an asked-for snapshot -> its content
        self.log_pos = world.log_size()

    def full(self, path=''):
        return os.path.join(self.w.mnt, self.dir, path)

    def call(self, what, *args):
        """Result, or None after an error that is noted."""
        try:
            r = what(*args)
            return True if r is None else r
        except OSError as e:
            if not self.w.alive() or e.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                raise Wrong('%s at %s: %s' % (self.w.how_it_ended(), what.__name__, self.w.log_from(self.log_pos)[-2000:])) from e
            if e.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBUSY):
                self.errors.append('%s %s: %s' % (what.__name__, args[:1], e))
            else:
                self.errors.append(e.errno)
            return None

    def mkdir(self):
        return self.call(os.mkdir, self.full()) is not None or os.path.isdir(self.full())

    # ---- data ----

    def open(self, path, flags):
        d = self.disks.get(path)
        new = d is None or d.there is False
        fd = self.call(os.open, self.full(path), flags, 0o640)
        if new:
            d = self.disks[path] = Disk() if d is None else d
            d.there = True if fd is not None else None
            d.may = [b''] if d.there else d.may
        if flags & os.O_TRUNC:
            d.refused = False if fd is not None else d.refused
            d.become(b'', fd is not None)
        return fd

    def write(self, fd, path, off, data):
        """Like cp: in pieces, until one is refused. True: all was taken."""
        d = self.disks[path]
        for at in range(0, len(data), PIECE):
            piece = data[at:at + PIECE]
            while piece:
                begin = off + at + len(data[at:at + PIECE]) - len(piece)
                n = self.call(os.pwrite, fd, piece, begin)
                taken = piece if n is None else piece[:n]
                now = [c.ljust(begin, b'\0')[:begin] + taken + c[begin + len(taken):] for c in d.may]
                if n is None:
                    d.refused = True
                    d.may = d.may + now
                    d.ever += now
                    d.durable += now
                    return False
                d.may = now
                d.ever += now
                d.durable += now
                piece = piece[n:]
        if not d.refused:       # whichever of them it is: all that was written is in it
            d.whole += d.may
        return True

    def close(self, fd, path, take=True):
        """take: what was written is wanted as a backup. After a close that went well it is one."""
        d = self.disks[path]
        whole = not d.refused and len(d.may) == 1
        if self.call(os.close, fd) is None:
            return False
        if take and whole and d.may[0].count(0) < len(d.may[0]):
            d.good.append([d.may[0], m.CLOSED])
        return True

    def copy(self, path, data):
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if fd is None:
            return
        self.write(fd, path, 0, data)
        if not self.close(fd, path, not os.path.basename(path).startswith('.')):
            self.disks[path].may.append(b'')    # it was answered, but held back: that it is lost is what close() says

    def fsync(self, fd, path):
        if self.call(os.fsync, fd) is None:
            return
        d = self.disks[path]
        d.durable = list(d.may)

    def snapshot(self, path, label):
        d = self.disks[path]
        ok = self.call(wl.ioctl_path, self.full(path), os.O_RDWR, 1, wl.SNAPSHOT, 0, 0, label.encode(), b'', b'', 0, b'') is not None
        if ok and len(d.may) == 1 and not d.refused:
            d.good.append([d.may[0], m.SEALED])
            d.durable = list(d.may)
            self.labels[m.join(path, label)] = d.may[0]
        elif ok:        # in place, and refused something: it is the disk as it is, which is what was asked for
            d.as_it_is += d.may

    def wait(self, seals=True):
        """True: all is stored. seals: and with it what was acknowledged; after a restart some of it may be lost before."""
        if self.call(wl.ioctl_path, self.full(), os.O_RDONLY, 3, wl.WAIT, 15000, wl.BEGINS, 0, b'') is None:
            return False
        for d in self.disks.values() if seals else ():
            for g in d.good:
                g[1] = m.SEALED
        return True

    def point(self, to, path, label):
        """varve revert --to."""
        snap = self.full(m.join(path, label))
        ident = self.call(os.getxattr, snap, 'user.varve.id')
        if ident is None:
            return
        content = self.labels[m.join(path, label)]
        if to not in self.disks:
            self.disks[to] = Disk()
            self.disks[to].there = None
        d = self.disks[to]
        ok = self.call(wl.ioctl_path, self.full(to), os.O_RDWR | os.O_CREAT, 2, wl.REVERT, ident, 0, b'') is not None
        d.there = True if ok else d.there
        if ok:
            d.refused = False
        d.become(content, ok)
        d.whole.append(content)

    # ---- names ----

    def rename(self, a, b):
        if self.call(os.rename, self.full(a), self.full(b)) is not None:
            self.disks[b] = self.disks.pop(a)
            return b
        self.disks[a].there = None          # one of the two; which one is seen later
        self.disks[a].other = b
        return None

    def onto(self, a, b):
        d, s = self.disks[b], self.disks[a]
        ok = self.call(os.rename, self.full(a), self.full(b)) is not None
        if len(s.may) == 1 and not s.refused:
            d.whole.append(s.may[0])
        d.ever += s.ever
        d.durable += s.durable
        if ok:
            d.may = list(s.may)
            del self.disks[a]
            if len(d.may) == 1 and not s.refused:
                d.good.append([d.may[0], m.CLOSED])
                d.doubted = d.may[0]        # when the mark of its rewriting could not be taken off, it is called partial: too little
        else:
            d.may = d.may + s.may
            s.there = None

    def relabel(self, path, old, new):
        a, b = m.join(path, old), m.join(path, new)
        self.call(os.rename, self.full(a), self.full(b))

    def remove_snap(self, path, name, content):
        d = self.disks[path]
        ok = self.call(os.unlink, self.full(name)) is not None
        d.good = [g for g in d.good if g[0] != content] if ok else d.good
        if not ok:
            d.gone.append(content)
        return ok

    def remove(self, path):
        d = self.disks[path]
        d.there = False if self.call(os.unlink, self.full(path)) is not None else None


# ---- workloads ----

A = wl.blocks(1, 150000) + bytes(1950000) + wl.blocks(2, 100001)
B = wl.blocks(3, 200000)
C = wl.blocks(1, 150000) + wl.blocks(4, 90000)


def base(c, path='a.img', label='base'):
    """Without faults: a disk with a stored, labelled snapshot."""
    c.copy(path, A)
    c.snapshot(path, label)
    if not c.wait() or c.errors:
        raise Wrong('no base: %s' % c.errors)


def w_copy(c, prepare):
    if not prepare:
        c.copy('n.img', C)
        c.wait()


def w_overwrite(c, prepare):
    if prepare:
        return base(c)
    c.copy('a.img', B)
    c.wait()
    return None


def w_write(c, prepare):
    if prepare:
        return base(c)
    fd = c.open('a.img', os.O_RDWR)
    if fd is None:
        return None
    c.write(fd, 'a.img', 2097152 - 3000, wl.blocks(5, 9000))
    c.fsync(fd, 'a.img')
    c.write(fd, 'a.img', 1000, wl.blocks(6, 700))
    c.snapshot('a.img', 'asked')
    c.write(fd, 'a.img', 5000, wl.blocks(7, 5000))
    c.close(fd, 'a.img')
    c.wait()
    return None


def w_revert(c, prepare):
    if prepare:
        base(c)
        c.copy('a.img', B)
        c.wait()
        return
    c.point('a.img', 'a.img', 'base')
    fd = c.open('a.img', os.O_RDWR)
    if fd is None:
        return
    c.write(fd, 'a.img', 100, wl.blocks(8, 5000))
    c.close(fd, 'a.img')
    c.wait()


def w_clone(c, prepare):
    if prepare:
        return base(c)
    c.point('k.img', 'a.img', 'base')
    if not os.path.exists(c.full('k.img')):
        return None
    fd = c.open('k.img', os.O_RDWR)
    if fd is None:
        return None
    c.write(fd, 'k.img', 2200000, wl.blocks(9, 4000))
    c.close(fd, 'k.img')
    c.wait()
    return None


def w_remove(c, prepare):
    if prepare:
        base(c)
        c.copy('a.img', B)
        c.copy('b.img', C)
        c.wait()
        return
    c.remove_snap('a.img', m.join('a.img', 'base'), A)
    c.remove('a.img')
    c.remove('b.img')
    for name in snaps_of(c, 'b.img'):
        c.remove_snap('b.img', name, C)


def w_names(c, prepare):
    if prepare:
        return base(c)
    c.rename('a.img', 'r.img')
    path = 'r.img' if os.path.exists(c.full('r.img')) else 'a.img'
    c.relabel(path, 'base', 'first')
    c.call(os.chmod, c.full(path), 0o600)
    c.wait()
    return None


def w_onto(c, prepare):
    if prepare:
        return base(c)
    c.copy('.t.img', C)
    if os.path.exists(c.full('.t.img')):
        c.onto('.t.img', 'a.img')
    c.wait(False)       # the rename may have happened while its snapshot is still to come
    return None


WORKLOADS = {f.__name__[2:]: f for f in (w_copy, w_overwrite, w_write, w_revert, w_clone, w_remove, w_names, w_onto)}


def snaps_of(c, path):
    return sorted(n for n in os.listdir(c.full()) if m.split(n)[0] == path and m.split(n)[1] is not None)


# ---- judging ----

def read(path):
    try:
        return m.read_file(path)
    except OSError as e:
        return e


def look_during(c):
    """While everything still fails: what is stored is right or says EIO; it is never something else."""
    for path, content in c.labels.items():
        got = read(c.full(path))
        if isinstance(got, OSError):
            if got.errno in (errno.EIO, errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.ESTALE):
                continue
            raise Wrong('during the fault %s: %s' % (path, got))
        if got != content:
            raise Wrong('during the fault %s has other bytes than were acknowledged' % path)


def judge_snapshot(c, name, d, lost):
    content = read(c.full(name))
    if isinstance(content, OSError):
        if d.gone and content.errno in (errno.ENOENT, errno.ESTALE):    # half a removal has been carried on since it was listed
            return
        raise Wrong('%s cannot be read: %s' % (name, content))
    flags, state = (m.xattr(c.full(name), x) for x in ('flags', 'state'))
    if state != 'stored':
        raise Wrong('%s is %s' % (name, state))
    if 'partial' in flags and content == d.doubted:
        flags = ''
    if 'partial' in flags:
        if not m.mixed(content, d.ever):
            raise Wrong('%s is partial, and holds bytes that were never written' % name)
        return
    if flags:
        raise Wrong('%s has flags "%s"' % (name, flags))
    if content not in d.whole and not (d.as_it_is and m.split(name)[1] == 'asked' and m.mixed(content, d.as_it_is)):
        raise Wrong('%s passes for a good backup, and is none (%s)' % (name, m.first_difference(content, d.whole[-1])))
    for g in d.good:
        if g[0] == content:
            g.append('seen')


def judge(c, lost):
    """After the fault. lost: a restart came after a failed fsync, so that only what is sealed must be there."""
    names = [n for n in os.listdir(c.full())] if os.path.isdir(c.full()) else []
    for path, d in list(c.disks.items()):
        if d.there is None and getattr(d, 'other', None) in names and path not in names:
            c.disks[d.other] = c.disks.pop(path)
    for path, d in c.disks.items():
        there = path in names
        if d.there is not None and there != d.there:
            raise Wrong('%s is %s' % (path, 'there again' if there else 'gone'))
        if there:
            content = read(c.full(path))
            if isinstance(content, OSError) and d.there is None and content.errno in (errno.ENOENT, errno.ESTALE):
                continue        # a removal that failed half-way has been carried on since it was listed
            if isinstance(content, OSError):
                raise Wrong('%s cannot be read: %s' % (path, content))
            if not m.mixed(content, d.durable + d.may if lost else d.may):
                raise Wrong('the live %s holds what was never written (%d bytes, %s)' % (path, len(content), [len(x) for x in d.may]))
        for g in d.good:
            del g[2:]
        for name in (n for n in names if m.split(n)[0] == path and m.split(n)[1] is not None):
            judge_snapshot(c, name, d, lost)
        for g in d.good:
            if len(g) == 2 and g[0] not in d.gone and not (lost and g[1] < m.SEALED):
                raise Wrong('%s: an acknowledged snapshot of %d bytes is not there' % (path, len(g[0])))
    known = set(c.disks) | {d.other for d in c.disks.values() if hasattr(d, 'other')}
    strange = [n for n in names if m.split(n)[0] not in known]
    if strange:
        raise Wrong('nobody made %s' % strange)


# ---- one store, many cases ----

class Batch:
    def __init__(self, world):
        self.w, self.open_cases, self.number = world, [], 0
        shutil.rmtree(world.root, ignore_errors=True)
        os.makedirs(world.root)
        world.varve('init', world.store())
        self.counter = wd.Counter(os.path.join(world.ram, 'counter'), off=True)
        self.failed_files = {}              # of this daemon: whose fsync failed -> where in the log
        self.synced_to = 0
        self.start()

    def start(self):
        if not self.w.start(self.counter):
            raise Wrong('the daemon does not start: ' + self.w.log_from(max(0, self.w.log_size() - 600)))

    def set_fault(self, at, mode, error):
        struct.pack_into('<3Q', self.counter.map, 16, at, mode, error)

    def no_fault(self):
        """The error stays: a call that was to fail a moment ago still reads it."""
        struct.pack_into('<2Q', self.counter.map, 16, 0, 0)

    def run(self, name, k, mode, error):
        """One case. None, or what is wrong; False: it has fewer than k calls."""
        self.number += 1
        c = Case(self.w, 'c%d' % self.number)
        if not c.mkdir():
            raise Wrong('mkdir')
        WORKLOADS[name](c, True)
        first = self.counter.count()
        self.counter.clear_log()
        self.set_fault(first + k if k else 0, mode, error)
        self.counter.go()
        try:
            WORKLOADS[name](c, False)
            if mode == FOR_EVER:
                look_during(c)
        finally:
            self.counter.halt()
            calls = self.counter.log()
            hit = [x for x in calls if x[2].endswith(' !')]
            self.no_fault()
        if k == 0:
            return calls
        strange = [e for e in c.errors if not isinstance(e, int)]
        if strange:
            raise Wrong('an error that is none of the disk: %s' % strange[0])
        if not hit:
            self.after(c, False)
            return False
        self.sync_failed(calls, mode != SHORT)
        self.after(c, mode == FOR_EVER)
        return None

    def sync_failed(self, calls, fails=True):
        """Files whose fsync failed; none of them is synced again by this daemon."""
        for n, call, path in calls:
            hit = path.endswith(' !')
            path = path[:-2] if hit else path
            if call.startswith(('open', 'unlink', 'rename')) and not hit:   # another file by that name from here on
                self.failed_files.pop(path, None)
            # fsync: of a directory, whose entries are in the filesystem's own journal, which fails for good if it does. The catalog:
            # a cache, made anew when it is damaged; SQLite writes a transaction again that it could not sync.
            if call != 'fdatasync' or 'catalog.sqlite' in path:
                continue
            if path in self.failed_files:
                raise Wrong('%s of %s after one that failed' % (call, os.path.relpath(path, self.w.root)))
            if hit and fails:
                self.failed_files[path] = n

    def log_since(self, c):
        return self.w.log_from(c.log_pos)

    def after(self, c, for_ever):
        """The fault is over: without a restart everything goes on, but for a disk whose own fsync failed."""
        self.counter.clear_log()
        self.counter.go()       # counts and logs without faults: for fsyncs that must not be repeated
        ok = c.wait(False)
        stuck = 'takes no more changes' in self.log_since(c) or 'no more changes until' in self.log_since(c) or \
                'directory: fsync failed' in self.log_since(c)
        if not ok and not stuck:
            raise Wrong('varve wait after the fault: %s: %s' % (c.errors[-1:], self.log_since(c)[-700:]))
        if stuck:
            self.restart(c)
        self.judge_soon(c, stuck)
        for d in c.disks.values():
            d.good = [[g[0], m.SEALED] for g in d.good if len(g) > 2]       # seen, and stored
        if for_ever or self.number % 4 == 0:
            # When it is stored, what failed has been tried again as well.
            c.copy('probe.img', B)
            if not c.wait(not stuck):
                raise Wrong('no new copy after the fault: ' + self.log_since(c)[-500:])
            self.judge_soon(c, stuck)
        self.counter.halt()
        self.sync_failed(self.counter.log())
        self.clean(c)

    def judge_soon(self, c, lost):
        """What could not even be frozen is made up for later, by itself: `varve wait` has it tried at once."""
        until = time.monotonic() + 10
        while True:
            try:
                return judge(c, lost)
            except Wrong as e:
                late = str(e).endswith(('is not there', 'is pending', 'is failed', '"provisional"')) or str(e).startswith('nobody made')
                if not late or time.monotonic() > until:
                    raise
            time.sleep(0.02)
            c.wait(not lost)

    def restart(self, c):
        status = self.w.stop()
        if status < 0:
            raise Wrong('the stop: signal %d' % -status)
        self.failed_files = {}
        self.start()
        if not c.wait(False):
            left = [(n, m.xattr(c.full(n), 'state'), m.xattr(c.full(n), 'flags')) for n in os.listdir(c.full()) if '@' in n]
            raise Wrong('varve wait after a restart: %s, %s: %s' % (c.errors[-1:], left, self.log_since(c)[-700:]))

    def clean(self, c):
        for n in sorted(os.listdir(c.full()), key=lambda n: '@' in n):
            until = time.monotonic() + 10
            while True:
                try:
                    os.unlink(c.full(n))
                    break
                except OSError as e:
                    if e.errno != errno.EBUSY or time.monotonic() > until:
                        raise Wrong('rm %s after the fault: %s' % (n, e)) from e
                    c.wait()
        os.rmdir(c.full())

    def end(self):
        """Of all cases: a restart finds the same, and STORE is whole for both readers."""
        c = Case(self.w, 'last')
        c.mkdir()
        c.copy('a.img', A)
        self.restart(c)
        judge(c, False)
        self.w.stop()
        self.w.varve('verify', self.w.store())
        wd.run('/usr/bin/python3', READER, 'verify', self.w.store())


class Counter(wd.Counter):
    def log(self):
        return [(n, call, path.replace(' half', '')) for n, call, path in super().log()]

    def clear_log(self):
        struct.pack_into('<Q', self.map, 48, 0)
        self.map[self.HEADER:self.HEADER + 64] = bytes(64)


wd.Counter = Counter
wd.TIMEOUT = 300        # of a daemon: it serves a whole batch


# ---- the pool ----

def init_worker(counter):
    global the_world
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)   # how the pool ends its workers: one that waits in a C call runs no handler
    with counter.get_lock():
        counter.value += 1
        number = counter.value
    the_world = wd.World(os.path.join(top, 'w%d' % number))


def work(points):
    done, beyond, bad, batch = 0, 0, [], None
    todo = list(points)
    while todo:
        point = todo.pop(0)
        try:
            if batch is None:
                batch = Batch(the_world)
            if batch.run(*point) is False:
                beyond += 1
            else:
                done += 1
            if not todo:
                batch.end()
        except Exception as e:      # pylint: disable=broad-except  # a case that cannot be run is a failure, not the end
            done += 1
            why = str(e) if isinstance(e, (Wrong, wd.Broken)) else traceback.format_exc(limit=-4)
            bad.append('%s call %d %s %s: %s' % (point[0], point[1], KIND_NAMES[point[2]], errno.errorcode.get(point[3], ''), why))
            if options.keep:
                shutil.copytree(the_world.root, os.path.join(options.keep, '%s-%d-%d-%d' % point), dirs_exist_ok=True)
                shutil.copy(the_world.log, os.path.join(options.keep, '%s-%d-%d-%d.log' % point))
            try:
                the_world.leave()
            except Exception as x:  # pylint: disable=broad-except
                bad.append('cleaning up: %s' % x)
            batch = None
    the_world.leave()
    return done, beyond, bad


def count(world):
    """The calls of each workload, as they come in a store that has served others before."""
    calls = {}
    batch = Batch(world)
    for name in WORKLOADS:
        calls[name] = batch.run(name, 0, ONCE, 0)
        if not calls[name]:
            raise Wrong('%s makes no call that persists' % name)
    world.kill()
    world.leave()
    return calls


def kinds_of(call):
    return [k for k in KINDS if k[0] != SHORT or 'write' in call or call == 'copy_file_range']


def plan(calls):
    points = [(name, i + 1, mode, error) for name in options.workloads.split(',') for i, c in enumerate(calls[name])
              for mode, error in kinds_of(c[1])]
    if options.points:
        lo, _, hi = options.points.partition('-')
        points = [p for p in points if int(lo) <= p[1] <= int(hi or lo)]
    if options.syncs:
        points = [p for p in points if calls[p[0]][p[1] - 1][1] in SYNCS and p[2] == ONCE and p[3] == errno.EIO]
    if options.kinds:
        points = [p for p in points if '%d-%d' % p[2:] in options.kinds.split(',')]
    rng = random.Random(options.seed)

    def family(point):
        _, call, path = calls[point[0]][point[1] - 1]
        return (call, sample.kind_of(path), *point[2:])

    chosen = list(sample.spread(points, options.want, rng, family if options.strata else None))
    rng.shuffle(chosen)
    return points, [chosen[i:i + BATCH] for i in range(0, len(chosen), BATCH)]


def main():
    global top, options
    p = argparse.ArgumentParser(description='ENOSPC, EIO, EDQUOT and short writes at each call that makes something persist')
    p.add_argument('--workloads', default=','.join(WORKLOADS))
    p.add_argument('--want', type=int, default=0, help='about so many cases instead of all')
    p.add_argument('--strata', action='store_true', help='with --want: each kind of file, call and error at least once')
    p.add_argument('--points', default='', help='only these numbers of calls: 12 or 10-40')
    p.add_argument('--kinds', default='', help='only these: MODE-ERRNO[,...]; modes 1 once, 2 for ever, 6 short')
    p.add_argument('--syncs', action='store_true', help='only fsync and fdatasync, once, EIO')
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--list', action='store_true', help='prints the calls of each workload')
    p.add_argument('--keep', default='', help='where STORE, STATE and log of failed cases go')
    options = p.parse_args()
    if not os.access(wd.VARVE, os.X_OK) or not os.path.exists(wd.SHIM):
        sys.exit('faults.py: set VARVE to the program and FI_SHIM to fi_shim.so')
    owned.adopt()
    top = tempfile.mkdtemp(prefix='varve-case.', dir=os.environ.get('TMPDIR', '/tmp'))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = beyond = 0
    pool = None
    try:
        wd.run('mount', '-t', 'tmpfs', '-o', 'size=4g', 'varve-faults', top)
        calls = count(wd.World(os.path.join(top, 'w0')))
        if options.list:
            for name, lines in calls.items():
                for line in lines:
                    print(name, *line)
        points, batches = plan(calls)
        pool = multiprocessing.get_context('fork').Pool(options.workers, init_worker, (multiprocessing.Value('i', 0),))
        begin = time.monotonic()
        for done, over, bad in pool.imap_unordered(work, batches):
            passed += done - len(bad)
            failed += len(bad)
            beyond += over
            for why in bad:
                print('FAILED ' + why, flush=True)
        seconds = time.monotonic() - begin
        print('faults: %d cases of %d (%s), %d more had fewer calls this time; VARVE_SEED=%d; %.0f s, %.0f ms each'
              % (passed + failed, len(points), ' '.join('%s %d' % (n, len(c)) for n, c in calls.items()), beyond, options.seed, seconds,
                 seconds * 1000 / max(1, passed + failed)))
    finally:
        if pool is not None:
            pool.terminate()
        clean_up()
    print('%d passed, %d failed' % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


def clean_up():
    """Daemons and mounts of this run, whatever state it ended in."""
    owned.end_all([top])
    shutil.rmtree(top, ignore_errors=True)


if __name__ == '__main__':
    main()
