# SPDX-License-Identifier: Apache-2.0
"""The operations of a workload, each followed by the model, and the workloads themselves."""
import contextlib
import ctypes
import json
import os
import random
import struct
import time

import model as m

SETTLE_S = 5
MIB = 1 << 20


# include/varve/ioctl.h. Through ctypes, which lets the watchdog's thread run; and no command is started while a disk is open:
# a fork closes descriptors, which is a flush, which is a freeze.
TEXT = 600
SNAPSHOT, REVERT, WAIT = 'II72s1032s264si%ds' % TEXT, '40si%ds' % TEXT, 'qIi%ds' % TEXT
BEGINS = 1      # VARVE_WAIT_BEGINS: what failed before is tried at once
libc = ctypes.CDLL(None, use_errno=True)


def ioctl(fd, number, layout, *fields):
    """The fields after the call; raises the error that was answered."""
    buf = ctypes.create_string_buffer(struct.pack(layout, *fields), struct.calcsize(layout))
    code = 3 << 30 | len(buf) << 16 | 0xB7 << 8 | number
    if libc.ioctl(fd, ctypes.c_ulong(code), buf) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    out = struct.unpack(layout, buf.raw)
    if out[-2] != 0:
        raise OSError(out[-2], '%s: %s' % (os.strerror(out[-2]), out[-1].split(b'\0')[0].decode(errors='replace')))
    return out


def ioctl_path(path, flags, number, layout, *fields):
    fd = os.open(path, flags, 0o640)
    try:
        return ioctl(fd, number, layout, *fields)
    finally:
        os.close(fd)


class Dead(Exception):
    """The daemon is gone in the middle of an operation: what the harness waits for."""


class Wrong(Exception):
    """The mount gave a wrong answer while it was alive."""


class Run:
    """Operations on one mount. `model` is what was acknowledged; `alternatives`, while an operation runs, what may be."""

    def __init__(self, world, model, log=None):
        self.w, self.model, self.log = world, model, log
        self.alternatives = []
        self.handles = {}
        self.streams = {}       # which of them are write-only: answered is not yet safe from a kill there
        self.acks = []          # (where the block log stood, alternatives): for the replay of block writes
        self.note()

    def note(self):
        """After an acknowledgement or before an operation: from this place in the block log on, this is what may be."""
        if self.log is not None:
            self.acks.append((self.log(), [a.copy() for a in self.alternatives or [self.model]]))

    def full(self, path):
        return os.path.join(self.w.mnt, path)

    def begin(self, *alternatives):
        self.alternatives = [self.model] + list(alternatives)
        self.note()

    def ack(self, after):
        for d in list(after.disks.values()) + list(self.model.disks.values()):
            d.coming, d.torn = [], None
        self.model, self.alternatives = after, []
        self.note()

    def call(self, what, *args, **kw):
        """A system call or a command; whoever fails because the daemon died raises Dead."""
        try:
            return what(*args, **kw)
        except OSError as e:
            if not self.w.alive() or e.errno in (107, 103):     # ENOTCONN, ECONNABORTED
                raise Dead from e
            time.sleep(0.05)
            if not self.w.alive():
                raise Dead from e
            raise Wrong('%s %s: %s' % (getattr(what, '__name__', what), args[:1], e)) from e

    # ---- names of snapshots ----

    def learn(self, path):
        """Which names the acknowledged snapshots of a disk have got."""
        d = self.model.disks[path]
        names = self.call(os.listdir, self.full(os.path.dirname(path)))
        found = sorted(s for n, s in map(m.split, names) if n == os.path.basename(path) and s is not None and s not in d.snaps)
        if len(found) > len(d.owed):    # one that later changes made partial
            found = [s for s in found if 'partial' not in self.call(m.xattr, self.full(m.join(path, s)), 'flags')]
        if len(found) != len(d.owed):
            raise Wrong('%s: %d snapshots acknowledged, new in the directory: %s, known: %s' % (path, len(d.owed), found, sorted(d.snaps)))
        for suffix in found:
            d.snaps[suffix] = d.owed.pop(0)
        self.note()
        return found

    # ---- directories and names ----

    def mkdir(self, path):
        after = self.model.copy()
        after.dirs.add(path)
        self.begin(after)
        self.call(os.mkdir, self.full(path))
        self.ack(after)

    def rename(self, a, b):
        """A disk to a name that is free."""
        after = self.model.copy()
        after.disks[b] = after.disks.pop(a)
        self.begin(after)
        self.call(os.rename, self.full(a), self.full(b))
        self.ack(after)

    def rename_onto(self, a, b):
        """The target keeps its history and takes the content, the source's history stays under its name; both names with that content may
        be seen in between."""
        after, between = self.model.copy(), self.model.copy()
        content = self.model.disks[a].now
        for x in (self.model, between, after):
            d = x.disks[b]
            d.coming = ([d.now] if d.changed else []) + [content]
        for x in (between, after):
            x.disks[b].become(content)
            x.disks[b].versions += self.model.disks[a].versions
        source = after.disks[a]
        source.live = False
        if not source.snaps and not source.owed:
            del after.disks[a]
        self.begin(between, after)
        self.call(os.rename, self.full(a), self.full(b))
        after.disks[b].changed = False
        after.disks[b].owed.append(m.Snap(content, m.CLOSED))
        self.ack(after)
        self.learn(b)

    def relabel(self, path, suffix, label):
        after = self.model.copy()
        d = after.disks[path]
        d.snaps[label] = d.snaps.pop(suffix)
        if d.snaps[label].level < m.SEALED:
            d.loose.append(d.snaps[label].content)
        self.begin(after)
        self.call(os.rename, self.full(m.join(path, suffix)), self.full(m.join(path, label)))
        self.ack(after)

    def remove(self, path):
        after = self.model.copy()
        d = after.disks[path]
        d.live = False
        if not d.snaps and not d.owed:
            del after.disks[path]
        self.begin(after)
        self.call(os.unlink, self.full(path))
        self.ack(after)

    def remove_snap(self, path, suffix):
        after = self.model.copy()
        d = after.disks[path]
        del d.snaps[suffix]
        if not d.live and not d.snaps:
            del after.disks[path]
        self.begin(after)
        self.call(os.unlink, self.full(m.join(path, suffix)))
        self.ack(after)

    # ---- data ----

    def open(self, path, flags):
        """O_TRUNC of a changed disk keeps what was there first."""
        after, between = self.model.copy(), self.model.copy()
        if path not in after.disks or not after.disks[path].live:
            for x in (after, between):
                d = x.disks.setdefault(path, m.Disk())
                d.__dict__.update(now=b'', versions=[b''], live=True, changed=False)
                d.history.append(b'')
            frozen = None
        else:
            d = self.model.disks[path]
            frozen = d.now if flags & os.O_TRUNC and d.changed and d.has_data() else None
            if flags & os.O_TRUNC:
                after.disks[path].become(b'')
            if frozen is not None:
                d.coming = [frozen]
                after.disks[path].coming = [frozen]
        self.begin(after)
        self.handles[path] = self.call(os.open, self.full(path), flags, 0o640)
        self.streams[path] = flags & os.O_ACCMODE == os.O_WRONLY
        if frozen is not None:
            after.disks[path].owed.append(m.Snap(frozen, m.CLOSED))
        self.ack(after)
        if frozen is not None:
            self.learn(path)

    def write(self, path, off, data):
        after = self.model.copy()
        d = after.disks[path]
        old = d.now.ljust(off, b'\0')
        d.torn = d.now
        if self.streams[path]:
            d.since.append(d.now)
        d.become(old[:off] + data + old[off + len(data):])
        self.begin(after)
        done = 0
        while done < len(data):
            done += self.call(os.pwrite, self.handles[path], data[done:], off + done)
        self.ack(after)

    def truncate(self, path, size):
        """Cut short in the middle it leaves the old size, and zeros behind the new end (docs/design/live.md)."""
        after = self.model.copy()
        d = after.disks[path]
        d.torn, d.since = d.now, []
        d.become(d.now[:size].ljust(size, b'\0'))
        self.begin(after)
        self.call(os.ftruncate, self.handles[path], size)
        self.ack(after)

    def fsync(self, path):
        after = self.model.copy()
        after.disks[path].durable()
        after.disks[path].since = []
        self.begin(after)
        self.call(os.fsync, self.handles[path])
        self.ack(after)

    def close(self, path, settle=True):
        """After it the snapshot is listed; when its writer's release was seen, it is a good one."""
        after = self.model.copy()
        d = after.disks[path]
        makes = d.changed and d.has_data() and not os.path.basename(path).startswith('.')
        if makes:
            d.coming = [d.now]
            self.model.disks[path].coming = [d.now]
        d.since = []
        self.begin(after)
        self.call(os.close, self.handles.pop(path))
        if makes:
            d.owed.append(m.Snap(d.now, m.CLOSED))
            d.changed = False
        self.ack(after)
        if makes:
            name = self.learn(path)[0]
            if settle:
                self.settle(path, name)

    def settle(self, path, suffix):
        until = time.monotonic() + SETTLE_S
        while self.call(m.xattr, self.full(m.join(path, suffix)), 'flags') != '':
            if time.monotonic() > until:
                raise Wrong('%s: closed, but its flags stay' % m.join(path, suffix))
            time.sleep(0.001)
        s = self.model.disks[path].snaps[suffix]
        s.level = max(s.level, m.SETTLED)
        self.note()

    def flush(self, path):
        """What close() of a duplicate descriptor does: a snapshot that the next write supersedes."""
        d = self.model.disks[path]
        d.coming = [d.now]
        self.begin()
        self.call(os.close, os.dup(self.handles[path]))
        self.alternatives = []      # it may go or stay: still only `coming`
        self.note()

    def copy_in(self, path, data, chunk=MIB):
        self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for off in range(0, len(data), chunk):
            part = data[off:off + chunk]
            if part.lstrip(b'\0'):
                self.write(path, off, part)
        if len(self.model.disks[path].now) < len(data):
            self.truncate(path, len(data))
        self.close(path)

    # ---- snapshots ----

    def snapshot(self, path, label=None):
        """Of a disk, or of all changed disks of a directory; when it returns they are safe against a loss of power."""
        after = self.model.copy()
        paths = [path] if path in after.disks else sorted(p for p, d in after.disks.items() if os.path.dirname(p) == path and d.changed)
        for p in paths:
            for x in (self.model, after):
                x.disks[p].coming = [x.disks[p].now]
        self.begin(after)
        self.call(ioctl_path, self.full(path), os.O_RDWR if path in after.disks else os.O_RDONLY, 1, SNAPSHOT, 0, 0,
                  (label or '').encode(), b'', b'', 0, b'')
        for p in paths:
            d = after.disks[p]
            d.changed = False
            d.durable()
            s = m.Snap(d.now, m.SEALED)
            if label:
                d.snaps[label] = s
            else:
                d.owed.append(s)
        self.ack(after)
        for p in paths:
            if not label:
                self.learn(p)

    def touch(self, path, label):
        after = self.model.copy()
        for x in (self.model, after):
            x.disks[path].coming = [x.disks[path].now]
        self.begin(after)
        self.call(lambda p: os.close(os.open(p, os.O_WRONLY | os.O_CREAT, 0o640)), self.full(m.join(path, label)))
        d = after.disks[path]
        d.snaps[label] = m.Snap(d.now, m.SETTLED)
        d.changed = False
        self.ack(after)

    def wait(self):
        after = self.model.copy()
        after.all_stored()
        self.begin(after)
        self.call(ioctl_path, self.w.mnt, os.O_RDONLY, 3, WAIT, 20000, BEGINS, 0, b'')
        self.ack(after)

    def point(self, to, path, suffix):
        """varve revert --to TO SNAPSHOT."""
        snap = self.full(m.join(path, suffix))
        self.call(ioctl_path, snap, os.O_RDONLY, 3, WAIT, 20000, BEGINS, 0, b'')
        ident = self.call(os.getxattr, snap, 'user.varve.id')
        self.call(ioctl_path, self.full(to), os.O_RDWR | os.O_CREAT, 2, REVERT, ident, 0, b'')

    def revert(self, path, suffix):
        after = self.model.copy()
        for x in (self.model, after):
            d = x.disks[path]
            d.coming = [d.now] if d.changed else []
        frozen = after.disks[path].changed
        old = after.disks[path].now
        after.disks[path].become(after.disks[path].snaps[suffix].content)
        self.begin(after)
        self.point(path, path, suffix)
        if frozen:
            after.disks[path].owed.append(m.Snap(old, m.CLOSED))
        self.ack(after)
        self.learn(path)

    def clone(self, path, suffix, to):
        between, after = self.model.copy(), self.model.copy()
        content = self.model.disks[path].snaps[suffix].content
        between.disks[to] = m.Disk()
        after.disks[to] = m.Disk()
        after.disks[to].become(content)
        self.begin(between, after)
        self.point(to, path, suffix)
        self.ack(after)

    def stop(self):
        """umount: the clean stop writes too."""
        self.begin()
        for path in list(self.handles):
            self.close(path)
        if self.w.stop() != 0:
            raise Dead
        self.alternatives = []
        for d in self.model.disks.values():
            d.durable()


# ---- contents: the same in every run ----

def blocks(seed, n):
    return random.Random(seed).randbytes(n)


IMAGE_A = blocks(1, 300000) + bytes(1700000) + blocks(2, 200000) + bytes(50000) + blocks(3, 20001)   # data over a segment's end
IMAGE_B = blocks(4, 600000)
# Half known blocks, half new ones, in other places.
IMAGE_NEW = blocks(5, 200000) + IMAGE_A[:200000] + bytes(1650000) + blocks(6, 150000) + bytes(300)
IMAGE_OVER = IMAGE_A[:100000] + blocks(7, 90000) + bytes(1810000) + blocks(2, 200000) + blocks(8, 1000)


def setup(r):
    """What every workload begins with: two directories, a disk with two stored snapshots, another with one."""
    r.mkdir('vm')
    r.mkdir('vm2')
    r.copy_in('vm/a.img', IMAGE_A)
    r.wait()
    r.open('vm/a.img', os.O_RDWR)
    r.write('vm/a.img', 5000, blocks(9, 70000))
    r.snapshot('vm/a.img', 'base')
    r.close('vm/a.img')
    r.copy_in('vm/b.img', IMAGE_B)
    r.wait()


def first_snap(r, path):
    return sorted(r.model.disks[path].snaps)[0]


def w_start(r):
    """Nothing: the start of the daemon itself (counted from its first call), and the clean stop."""


def w_copy(r):
    r.copy_in('vm/new.img', IMAGE_NEW)
    r.wait()


def w_overwrite(r):
    r.copy_in('vm/a.img', IMAGE_OVER)
    r.copy_in('vm/b.img', IMAGE_B[:400000] + blocks(10, 9000))
    r.wait()


def w_again(r):
    """Nearly what the newest snapshot has: whole segments become pointers while they are copied."""
    base = r.model.disks['vm/a.img'].now
    r.copy_in('vm/a.img', base[:-1000] + blocks(34, 1000))
    r.copy_in('vm/a.img', IMAGE_A)
    r.wait()


def w_write(r):
    """Random writes, some into the same pages again, fsync, an asked-for snapshot, and changes that no fsync follows."""
    p = 'vm/a.img'
    r.open(p, os.O_RDWR)
    r.write(p, 2100000, blocks(11, 9000))
    r.write(p, 123, blocks(12, 4096))
    r.fsync(p)
    r.write(p, 1000, blocks(13, 700))
    r.write(p, 2300000, blocks(14, 20000))
    r.snapshot(p)
    r.write(p, 2101000, blocks(15, 5000))
    r.truncate(p, 2250000)
    r.fsync(p)
    r.write(p, 70000, blocks(16, 3000))
    r.close(p)
    r.wait()


def w_revert(r):
    p = 'vm/a.img'
    r.open(p, os.O_RDWR)
    r.write(p, 2000, blocks(17, 6000))
    r.close(p)
    r.wait()
    r.revert(p, 'base')
    r.open(p, os.O_RDWR)
    r.write(p, 100, blocks(18, 5000))
    r.fsync(p)
    r.snapshot(p, 'after')
    r.close(p)
    r.wait()


def w_clone(r):
    r.clone('vm/a.img', 'base', 'vm2/c.img')
    r.open('vm2/c.img', os.O_RDWR)
    r.write('vm2/c.img', 2196000, blocks(19, 8000))
    r.fsync('vm2/c.img')
    r.close('vm2/c.img')
    r.wait()


def w_remove(r):
    """Snapshots, live disks, and the last snapshot of a removed disk, which goes with it."""
    r.remove_snap('vm/a.img', first_snap(r, 'vm/a.img'))
    r.remove('vm/b.img')
    r.remove_snap('vm/b.img', first_snap(r, 'vm/b.img'))
    r.remove('vm/a.img')


def w_make(r):
    """Disks without a snapshot, made and removed: empty ones, and one whose content is in its live image alone."""
    for name in ('vm/e1.img', 'vm/e2.img', 'vm2/e3.img'):
        r.open(name, os.O_WRONLY | os.O_CREAT)
        r.close(name)
    hidden = 'vm/.hidden'
    r.open(hidden, os.O_RDWR | os.O_CREAT)
    r.write(hidden, 0, blocks(35, 9000))
    r.fsync(hidden)
    r.close(hidden)
    r.remove('vm/e1.img')
    r.remove(hidden)
    r.open('vm/e1.img', os.O_RDWR | os.O_CREAT)
    r.write('vm/e1.img', 4000, blocks(36, 300))
    r.close('vm/e1.img')
    r.wait()


def w_names(r):
    r.mkdir('vm/sub')
    r.rename('vm/b.img', 'vm2/b2.img')
    r.relabel('vm2/b2.img', first_snap(r, 'vm2/b2.img'), 'first')
    r.open('vm2/b2.img', os.O_RDWR)
    r.write('vm2/b2.img', 0, blocks(20, 100))
    r.touch('vm2/b2.img', 'touched')
    r.close('vm2/b2.img')
    r.relabel('vm2/b2.img', 'touched', 'moved')
    r.wait()


def w_onto(r):
    """What rsync does: a temporary name, then a rename onto the disk."""
    r.copy_in('vm/.a.img.tmp', IMAGE_OVER)
    r.rename_onto('vm/.a.img.tmp', 'vm/a.img')
    r.wait()


def w_over(r):
    """Log rotation, cp -b: both have a history. The source's name is made again, and moves over the target once more."""
    r.copy_in('vm/b.img', IMAGE_NEW)
    r.rename_onto('vm/b.img', 'vm/a.img')
    r.copy_in('vm/b.img', IMAGE_OVER)
    r.rename_onto('vm/b.img', 'vm/a.img')
    r.wait()
    r.copy_in('vm/b.img', IMAGE_B)
    r.wait()


def w_group(r):
    for p in ('vm/a.img', 'vm/b.img'):
        r.open(p, os.O_RDWR)
        r.write(p, 3000, blocks(21, 9000))
    r.snapshot('vm')
    r.write('vm/a.img', 3500, blocks(22, 600))
    for p in ('vm/a.img', 'vm/b.img'):
        r.close(p)
    r.wait()


def round_has_begun(r):
    """Waits until the agent's thread is in a round, so that it takes no snapshot of another disk; not longer than a dead daemon needs."""
    for _ in range(200):
        try:
            with open(os.path.join(r.w.mnt, '.varve', 'status.json'), encoding='utf-8') as f:
                if json.load(f)['round']['running']:
                    return
        except (OSError, ValueError):
            return
        time.sleep(0.01)


@contextlib.contextmanager
def stored_at_the_pause(r, seed):
    """vm/a.img is written, and its round stops at the point that FAULTS names, for as long as the block runs."""
    with open(r.w.pause, 'wb'):
        pass
    try:
        write_a(r, 100, seed)
        round_has_begun(r)
        yield
    finally:
        os.unlink(r.w.pause)
    r.wait()


def write_a(r, at, seed):
    r.open('vm/a.img', os.O_RDWR)
    r.write('vm/a.img', at, blocks(seed, 5000))
    r.close('vm/a.img')


def w_drop(r):
    """While a round works on one disk, snapshots of another are dropped: superseded by a write, and removed. Then the one that the round
    stores is removed, and its disk is written again."""
    with stored_at_the_pause(r, 30):
        b = 'vm/b.img'
        r.open(b, os.O_RDWR)
        r.write(b, 5000, blocks(31, 5000))
        r.flush(b)
        r.write(b, 300000, blocks(32, 5000))
        r.fsync(b)
        r.close(b)
        gone = sorted(r.model.disks[b].snaps)[-1]
        r.open(b, os.O_RDWR)
        r.write(b, 2200000, blocks(33, 5000))
        r.close(b)
        r.remove_snap(b, gone)
        r.remove_snap('vm/a.img', sorted(r.model.disks['vm/a.img'].snaps)[-1])
        write_a(r, 2100000, 34)


def w_unpublish(r):
    """A snapshot whose recipe is in STORE, and which is still pending, is removed. The disk was written since."""
    with stored_at_the_pause(r, 35):
        gone = sorted(r.model.disks['vm/a.img'].snaps)[-1]
        write_a(r, 300000, 36)
        r.remove_snap('vm/a.img', gone)


FAULTS = {'drop': 'dedup.1a.segment:1=pause', 'unpublish': 'dedup.4b.after_publish:1=pause'}
WORKLOADS = {f.__name__[2:]: f for f in (w_start, w_copy, w_overwrite, w_again, w_write, w_revert, w_clone, w_remove, w_make, w_names, w_onto,
                                         w_over, w_group, w_drop, w_unpublish)}
