#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""stream_model.py VARVE DISK SEED STEPS: random streamed writes on a disk against a copy in memory.

The disk is written through write-only handles in large pieces, mostly from front to back, mostly with what a stored snapshot has
there; in between: jumps, small writes, truncation, readers, other writers, fsync, snapshots, removal of the snapshot that is
compared with. Whatever is read at any time must be what was written last.
"""
import errno
import os
import random
import subprocess
import sys

SEG = 2 << 20
SIZE = 12 * SEG + 12345


class Model:
    def __init__(self, varve, path, seed):
        self.varve, self.path, self.rng = varve, path, random.Random(seed)
        self.past = []              # contents that are or were stored
        self.now = bytearray()
        self.fd = None
        self.at = 0
        self.expected = {}          # snapshot -> content

    def run(self, *args):
        subprocess.run([self.varve, *args], check=True, stdout=subprocess.DEVNULL, timeout=60)

    def snaps(self):
        base = os.path.basename(self.path)[:-4]
        return {n for n in os.listdir(os.path.dirname(self.path)) if n.startswith(base + '@')}

    def new_image(self):
        """Data, zeros, and holes that nobody writes."""
        image = bytearray(SIZE)
        for seg in range(0, SIZE, SEG):
            kind = self.rng.random()
            end = min(seg + SEG, SIZE)
            if kind < 0.7:
                image[seg:end] = self.rng.randbytes(end - seg)
            elif kind < 0.85:
                off = self.rng.randrange(seg, end)
                image[off:off + 5000] = self.rng.randbytes(min(5000, SIZE - off))
        return image

    def varied(self):
        """What the disk will be: an old content with some segments changed."""
        image = bytearray(self.rng.choice(self.past))
        image = image.ljust(SIZE, b'\0')
        for _ in range(self.rng.randrange(4)):
            off, n = self.rng.randrange(SIZE), self.rng.choice((1, 700, 4096, 300000))
            image[off:off + n] = self.rng.randbytes(min(n, SIZE - off))
        if self.rng.random() < 0.2:
            del image[self.rng.randrange(1, SIZE):]
        return image

    def put(self, off, data):
        done = 0
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], off + done)
        if data:
            if len(self.now) < off:
                self.now.extend(bytes(off - len(self.now)))
            self.now[off:off + len(data)] = data

    def check(self, part=True):
        if len(self.now) != os.path.getsize(self.path):
            sys.exit('the size is %d, not %d' % (os.path.getsize(self.path), len(self.now)))
        off, n = (self.rng.randrange(SIZE), self.rng.choice((100, 70000, 3 * SEG))) if part else (0, SIZE)
        with open(self.path, 'rb', buffering=0) as f:
            f.seek(off)
            got = b''
            while len(got) < n and (piece := f.read(n - len(got))):
                got += piece
        if got != bytes(self.now[off:off + n]):
            bad = next(i for i, (a, b) in enumerate(zip(got, self.now[off:off + n])) if a != b) if len(got) == len(self.now[off:off + n]) else -1
            sys.exit('read at %d: %d bytes, wrong from %d' % (off, len(got), off + bad))

    def disturb(self, target):
        kind = self.rng.randrange(12)
        if kind == 0:
            self.check()
        elif kind == 1:
            os.fsync(self.fd)
        elif kind == 2:         # back, and over it again
            off = self.rng.randrange(max(1, len(self.now)))
            self.put(off, target[off:off + self.rng.choice((10, 100000, SEG))])
        elif kind == 3:
            size = self.rng.randrange(len(self.now) + 2 * SEG)
            os.ftruncate(self.fd, size)
            self.now = bytearray(self.now[:size].ljust(size, b'\0'))
        elif kind == 4:
            other = os.open(self.path, os.O_RDWR)
            off, data = self.rng.randrange(max(1, len(self.now))), self.rng.randbytes(self.rng.choice((5, 9000)))
            data = data[:max(0, len(self.now) - off)]
            os.pwrite(other, data, off)
            self.now[off:off + len(data)] = data
            os.close(other)
        elif kind == 5:
            before = self.snaps()
            self.run('snapshot', self.path)
            for name in self.snaps() - before:      # the fork closed our descriptor: a flush, and a provisional one of its own
                if b'provisional' not in os.getxattr(os.path.join(os.path.dirname(self.path), name), 'user.varve.flags'):
                    self.expected[name] = bytes(self.now)
        elif kind == 6 and self.expected:
            name = self.rng.choice(sorted(self.expected))
            try:
                os.unlink(os.path.join(os.path.dirname(self.path), name))
                del self.expected[name]
            except OSError as e:    # a round works on it
                if e.errno != errno.EBUSY:
                    raise
        elif kind == 7:
            os.close(os.dup(self.fd))       # a flush

    def stream(self):
        target = self.varied() if self.past and self.rng.random() < 0.9 else self.new_image()
        how = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if self.rng.random() < 0.7 else 0)
        self.fd = os.open(self.path, how, 0o644)
        if how & os.O_TRUNC:
            self.now = bytearray()
        at, step, calm = 0, self.rng.choice((65536, 131072, 500000, 1 << 20)), self.rng.random() < 0.4
        while at < len(target):
            piece = bytes(target[at:at + step])
            if piece.strip(b'\0') or self.rng.random() < 0.1:
                self.put(at, piece)
            at += len(piece)
            if not calm and self.rng.random() < 0.08:
                self.disturb(target)
        if len(self.now) < len(target) and self.rng.random() < 0.8:
            os.ftruncate(self.fd, len(target))
            self.now.extend(bytes(len(target) - len(self.now)))
        self.close()

    def close(self):
        before = self.snaps()
        os.close(self.fd)
        if self.rng.random() < 0.5:
            self.check(part=False)
        new = self.snaps() - before
        if self.rng.random() < 0.7:
            self.run('wait', '--timeout', '60', self.path)
            self.past = self.past[-3:] + [bytes(self.now)]
            if len(new) == 1:           # before it has settled, this process may withdraw it by its next change
                self.expected[new.pop()] = bytes(self.now)

    def all_snapshots(self):
        self.run('wait', '--timeout', '60', self.path)
        for name, content in sorted(self.expected.items()):
            path = os.path.join(os.path.dirname(self.path), name)
            with open(path, 'rb') as f:
                if f.read() != content:
                    sys.exit("%s is not what the disk was" % name)
        return len(self.expected)


def main():
    varve, path, seed, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    m = Model(varve, path, seed)
    for _ in range(steps):
        m.stream()
    m.check(part=False)
    print('seed %d: %d snapshots are right' % (seed, m.all_snapshots()))


if __name__ == '__main__':
    main()
