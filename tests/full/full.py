#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Really full disks: STORE, STATE or both on a small filesystem of every size. See run.sh, and --help."""
import argparse
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, '..', 'lib'))
import owned            # noqa: E402

VARVE = os.environ.get('VARVE', '')
READER = os.path.join(HERE, '..', 'format', 'varve_format.py')
FULL = (errno.ENOSPC, errno.EDQUOT)
MIB = 1 << 20
LIMIT_S = 60            # for one command or case; nothing here is timed, this only ends what hangs
top = options = None


class Wrong(Exception):
    pass


def run(*args, check=True, timeout=LIMIT_S):
    r = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    text = r.stdout.decode(errors='replace').strip()
    if check and r.returncode:
        raise Wrong('%s: exit %d: %s' % (' '.join(args[:3]), r.returncode, text[-400:]))
    return r.returncode, text


def mounted(path):
    with open('/proc/self/mountinfo') as f:
        return any(line.split()[4] == path for line in f)


class Case:
    def __init__(self, where, fs, size, seed):
        self.where, self.fs, self.size = where, fs, size
        self.rng = random.Random('%d %s %s %d' % (seed, where, fs, size))
        self.dir = tempfile.mkdtemp(prefix='case.', dir=top)
        self.small, self.mnt = os.path.join(self.dir, 'small'), os.path.join(self.dir, 'mnt')
        os.mkdir(self.small)
        os.mkdir(self.mnt)
        self.store = os.path.join(self.small if where != 'state' else self.dir, 'store')
        self.state = os.path.join(self.small if where != 'store' else self.dir, 'state')
        self.log = os.path.join(self.dir, 'log')
        self.daemon = None
        self.good = {}          # path of a snapshot -> bytes: close of its writer answered well, and so must it be read for ever
        self.refused = 0

    # ---- the small disk and the daemon ----

    def make_small(self):
        if self.fs == 'tmpfs':
            run('mount', '-t', 'tmpfs', '-o', 'size=%d' % self.size, 'varve-full', self.small)
            return
        image = os.path.join(self.dir, 'image')
        with open(image, 'wb') as f:
            f.truncate(320 * MIB)
        run(*(('mkfs.ext4', '-q', '-F', '-m', '0') if self.fs == 'ext4' else ('mkfs.xfs', '-q', '-f')), image)
        run('mount', '-o', 'loop', image, self.small)
        vfs = os.statvfs(self.small)
        run('fallocate', '-l', str(vfs.f_bavail * vfs.f_frsize - self.size), os.path.join(self.small, 'ballast'))

    def start(self):
        with open(self.log, 'ab') as log:
            self.daemon = subprocess.Popen([VARVE, 'mount', self.store, self.mnt, '-f', '-o', 'state=%s,host=full,settle=0' % self.state],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            if mounted(self.mnt) and os.path.isdir(os.path.join(self.mnt, '.varve')):
                return True
            if self.daemon.poll() is not None:
                self.daemon = None
                return False
            time.sleep(0.02)
        raise Wrong('the mount does not come up')

    def stop(self):
        for _ in range(100):
            if run('umount', self.mnt, check=False)[0] == 0:
                break
            time.sleep(0.02)
        status = self.daemon.wait(LIMIT_S)
        self.daemon = None
        return status

    def end(self):
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
        for path in (self.mnt, self.small):
            if mounted(path):
                run('umount', '-l', path, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def lines(self, word):
        with open(self.log, errors='replace') as f:
            return [line.strip() for line in f if ' %s ' % word in line]

    # ---- what users do ----

    def path(self, name):
        return os.path.join(self.mnt, name)

    def snaps(self, name):
        base, ext = os.path.splitext(name)
        at, stem = os.path.split(base)
        return sorted(os.path.join(at, n) for n in os.listdir(self.path(at)) if n.startswith(stem + '@') and n.endswith(ext))

    def content(self, n):
        """Random blocks, with a hole and some zeros in it."""
        return self.rng.randbytes(n // 2) + bytes(n // 8) + self.rng.randbytes(n - n // 2 - n // 8)

    def copy(self, name, data):
        """True: taken, whole, and its snapshot is a good one. False: refused for want of space."""
        before = self.snaps(name)
        try:
            fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
            try:
                for at in range(0, len(data), 256 << 10):
                    piece = data[at:at + (256 << 10)]
                    while piece:
                        piece = piece[os.write(fd, piece):]
            except OSError:
                try:
                    os.close(fd)
                except OSError:
                    pass
                raise
            os.close(fd)
        except OSError as e:
            if e.errno not in FULL:
                raise Wrong('copying %s: %s' % (name, e)) from e
            self.refused += 1
            self.look_at_rest(name, before, data)
            return False
        new = [s for s in self.snaps(name) if s not in before]
        good = [s for s in new if self.flags(s) == '']
        # The release comes after close has answered: until then what it made is provisional.
        end = time.monotonic() + LIMIT_S
        while not good and time.monotonic() < end:
            time.sleep(0.01)
            good = [s for s in new if self.flags(s) == '']
        if not good:
            raise Wrong('%s was taken, and made %s' % (name, [(s, self.flags(s)) for s in new]))
        self.good[good[-1]] = data
        return True

    def look_at_rest(self, name, before, data):
        """After a refusal: what it left is marked, and one more look later it still is."""
        for s in self.snaps(name):
            if s in before or self.flags(s) in ('partial', 'provisional,partial', 'partial,provisional'):
                continue
            if self.read(s) != data:
                raise Wrong('%s: half a copy, which was refused, has flags "%s"' % (s, self.flags(s)))

    def flags(self, name):
        return os.getxattr(self.path(name), 'user.varve.flags').decode()

    def read(self, name):
        with open(self.path(name), 'rb', buffering=0) as f:
            return f.readall()

    def remove(self, name):
        """rm; without space a snapshot that is being stored, or read, says so, and is tried again."""
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                os.unlink(self.path(name))
                return
            except OSError as e:
                if e.errno != errno.EBUSY or time.monotonic() > end:
                    raise Wrong('rm %s: %s' % (name, e)) from e
                time.sleep(0.05)

    def remove_disk(self, name):
        self.remove(name)
        # The youngest first: an older pending one goes into it, and with the last one the image goes.
        for s in reversed(self.snaps(name)):
            self.remove(s)
            self.good.pop(s, None)

    def wait(self):
        return run(VARVE, 'wait', '--timeout', '40', self.mnt, check=False)

    def states(self):
        found = sorted('vm/' + n for n in os.listdir(self.path('vm')) if '@' in n)
        return ', '.join('%s %s "%s"' % (n, self.state_of(n), self.flags(n)) for n in found)

    def state_of(self, name):
        return os.getxattr(self.path(name), 'user.varve.state').decode()

    # ---- what was promised ----

    def check(self, stored=False):
        for name, data in self.good.items():
            if self.read(name) != data:
                raise Wrong('%s: not the bytes that were taken' % name)
            if self.flags(name) != '':
                raise Wrong('%s: became "%s"' % (name, self.flags(name)))
            if stored and self.state_of(name) != 'stored':
                raise Wrong('%s: is %s' % (name, self.state_of(name)))

    def fill(self):
        """To the last block, as another program would."""
        with open(os.path.join(self.small, 'fill'), 'wb', buffering=0) as f:
            for size in (MIB, 64 << 10, 4096, 512, 1):
                try:
                    while True:
                        f.write(b'\xa5' * size)
                except OSError as e:
                    if e.errno not in FULL:
                        raise

    def empty(self):
        """Room again, and more than there ever was, so that whatever is pending fits."""
        os.unlink(os.path.join(self.small, 'fill'))
        if self.fs == 'tmpfs':
            run('mount', '-o', 'remount,size=%d' % (self.size + 64 * MIB), self.small)
        else:
            os.unlink(os.path.join(self.small, 'ballast'))

    def no_reserve(self):
        """Too small for the reserve that removals need: it says so at the start, and may then refuse them."""
        return any('reserve that removals need' in line for line in self.lines('WARN'))


def work_until_full(c):
    """Copies, overwrites and snapshots until something is refused, or all is done."""
    os.mkdir(c.path('vm'))
    for n, size in (('vm/a.img', 1200000), ('vm/b.img', 2500000), ('vm/c.img', 4000000), ('vm/d.img', 7000000)):
        c.copy(n, c.content(size))
        c.check()
    if os.path.exists(c.path('vm/b.img')):
        c.copy('vm/b.img', c.content(1800000))
        run(VARVE, 'snapshot', c.path('vm/b.img'), '--label', 'asked', check=False)
    if os.path.exists(c.path('vm/a.img')):
        c.copy('vm/a.img', c.content(900000))
    c.check()


def remove_when_full(c):
    """At 100 %: a stored snapshot goes, and a disk with all its snapshots."""
    c.fill()
    c.check()
    if c.no_reserve():
        return
    stored = [s for s in sorted(c.good) if c.state_of(s) == 'stored']
    if stored:
        c.remove(stored[0])
        del c.good[stored[0]]
    disks = sorted(n for n in os.listdir(c.path('vm')) if '@' not in n)
    if disks:
        c.remove_disk('vm/' + disks[-1])
        left = [n for n in os.listdir(c.path('vm')) if n == disks[-1] or n.startswith(os.path.splitext(disks[-1])[0] + '@')]
        if left:
            raise Wrong('still there: %s' % left)
    c.check()


def space_returns(c, by_itself):
    """Without a restart: what is pending gets stored, new copies are taken."""
    c.empty()
    if by_itself:
        end = time.monotonic() + 2 * LIMIT_S
        while any(c.state_of(s) != 'stored' for s in c.good):
            if time.monotonic() > end:
                raise Wrong('not stored by itself after space has returned: ' + c.states())
            time.sleep(0.2)
    status, text = c.wait()
    if status:
        raise Wrong('varve wait after space has returned: exit %d: %s; %s' % (status, text, c.states()))
    c.check(stored=True)
    data = c.content(600000)
    if not c.copy('vm/new.img', data):
        raise Wrong('a copy is refused after space has returned')
    status, text = c.wait()
    if status:
        raise Wrong('varve wait for a new copy: exit %d: %s' % (status, text))
    c.check(stored=True)


def play(c, by_itself):
    c.make_small()
    status, text = run(VARVE, 'init', c.store, check=False)
    if status:
        if 'space' not in text.lower() or c.store not in text:
            raise Wrong('init on a full disk says: ' + text)
        return 'too small for a store'
    if not c.start():
        last = (c.lines('ERROR') or [open(c.log, errors='replace').read().strip()])[-1]
        if 'space' not in last.lower() and 'full' not in last.lower():
            raise Wrong('the daemon does not start and says: ' + last)
        return 'too small to mount'
    work_until_full(c)
    remove_when_full(c)
    space_returns(c, by_itself)
    if c.daemon.poll() is not None:
        raise Wrong('the daemon has ended')
    if c.stop() != 0:
        raise Wrong('the clean stop failed')
    run(VARVE, 'verify', c.store)
    run('/usr/bin/python3', READER, 'verify', c.store)
    if not c.start():
        raise Wrong('no start afterwards')
    c.check(stored=True)
    if c.stop() != 0:
        raise Wrong('the second clean stop failed')
    return '%d refused, %d kept' % (c.refused, len(c.good))


def work(job):
    number, where, fs, size = job
    c = Case(where, fs, size, options.seed)
    begin = time.monotonic()
    try:
        note, bad = play(c, number % 5 == 0), None
    except (Wrong, OSError, subprocess.TimeoutExpired) as e:
        note, bad = '', '%s: %s' % (type(e).__name__, e)
    log = open(c.log, errors='replace').read()[-1500:] if bad and os.path.exists(c.log) else ''
    c.end()
    return '%s %s %d MiB' % (where, fs, size // MIB), note, bad, log, time.monotonic() - begin


def plan():
    jobs = []
    sizes = {'state': range(1, 31), 'store': range(1, 23), 'both': range(2, 41)}
    for where in ('state', 'store', 'both'):
        jobs += [(where, 'tmpfs', n * MIB) for n in sizes[where]][options.first % options.stride::options.stride]
    for fs, small in (('ext4', (6, 12, 20, 28)), ('xfs', (4, 9, 14))):
        jobs += [(where, fs, n * MIB) for where in ('state', 'store', 'both') for n in small] if fs in options.fs else []
    if options.only:
        jobs = [j for j in jobs if '%s-%s-%d' % (j[0], j[1], j[2] // MIB) in options.only.split(',')]
    return [(i,) + j for i, j in enumerate(jobs)]


def clean_up():
    owned.end_all([top])
    shutil.rmtree(top, ignore_errors=True)


def main():
    global top, options
    p = argparse.ArgumentParser(description='varve on filesystems that get full')
    p.add_argument('--stride', type=int, default=1, help='every n-th size only')
    p.add_argument('--first', type=int, default=0, help='which of them comes first')
    p.add_argument('--fs', default='ext4', help='filesystems besides tmpfs: ext4,xfs')
    p.add_argument('--only', default='', help='WHERE-FS-MIB[,...]: these cases')
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--seed', type=int, default=1)
    options = p.parse_args()
    if not os.access(VARVE, os.X_OK):
        sys.exit('full.py: set VARVE to the program')
    owned.adopt()
    top = tempfile.mkdtemp(prefix='varve-case.', dir=os.environ.get('TMPDIR', '/tmp'))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = 0
    pool = None
    try:
        pool = multiprocessing.get_context('fork').Pool(options.workers, signal.signal, (signal.SIGTERM, signal.SIG_DFL))
        for name, note, bad, log, seconds in pool.imap_unordered(work, plan()):
            passed += bad is None
            failed += bad is not None
            print('%s %s: %s (%.1f s)%s' % ('FAILED' if bad else 'ok    ', name, bad or note, seconds, '\n' + log if log else ''), flush=True)
    finally:
        if pool is not None:
            pool.terminate()
        clean_up()
    print('seed %d' % options.seed)
    print('%d passed, %d failed' % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


if __name__ == '__main__':
    main()
