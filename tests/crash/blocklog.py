# SPDX-License-Identifier: Apache-2.0
"""Block writes of a workload, recorded, and what a disk may hold when power goes at any of them.

A disk keeps what came before its last flush. Of what came after, any part may be there, in any order, the last one torn: within
one write whole sectors only. Recorded by qemu-storage-daemon (blklogwrites: the format of dm-log-writes) below a loop device.
"""
import os
import struct
import subprocess
import time

import world as wd

SECTOR = 512
FLUSH, FUA, DISCARD = 1, 2, 4
MAGIC = 0x6a736677736872


class Recorder:
    """While it is open the image is an ordinary file `raw` whose writes and flushes are logged."""

    def __init__(self, image, log, raw):
        self.log, self.raw = log, raw
        for path in (log, raw):
            with open(path, 'wb'):
                pass
        self.daemon = subprocess.Popen(
            ['qemu-storage-daemon', '--blockdev', 'driver=file,node-name=f0,filename=' + image,
             '--blockdev', 'driver=file,node-name=l0,filename=' + log,
             '--blockdev', 'driver=blklogwrites,node-name=b0,file=f0,log=l0,log-sector-size=512',
             '--export', 'type=fuse,id=e0,node-name=b0,mountpoint=%s,writable=on' % raw],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until = time.monotonic() + 10
        while os.path.getsize(raw) == 0:
            if self.daemon.poll() is not None or time.monotonic() > until:
                self.daemon.kill()
                raise wd.Broken('qemu-storage-daemon: ' + self.daemon.communicate()[0].decode(errors='replace'))
            time.sleep(0.005)

    def position(self):
        """Whatever was answered before is in the log up to here."""
        return os.path.getsize(self.log)

    def close(self):
        self.daemon.terminate()
        try:
            self.daemon.wait(10)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        wd.run('umount', '-l', self.raw, check=False)


class Entry:
    def __init__(self, sector, count, flags, at, end):
        self.sector, self.count, self.flags, self.at, self.end = sector, count, flags, at, end

    def writes(self):
        return self.count > 0 and not self.flags & DISCARD


class Log:
    def __init__(self, path):
        self.file = open(path, 'rb')        # pylint: disable=consider-using-with  # as long as this object
        magic, _, n, size = struct.unpack('<QQQI', self.file.read(28))
        if magic != MAGIC or size != SECTOR:
            raise wd.Broken('%s: not a log of block writes' % path)
        self.entries = []
        at = size
        for _ in range(n):
            self.file.seek(at)
            sector, count, flags, _ = struct.unpack('<QQQQ', self.file.read(32))
            end = at + size + (0 if flags & DISCARD else count * size)
            self.entries.append(Entry(sector, count, flags, at + size, end))
            at = end

    def data(self, e):
        self.file.seek(e.at)
        return self.file.read(e.count * SECTOR)

    def put(self, image, e, sectors=None):
        data = self.data(e)
        image.seek(e.sector * SECTOR)
        image.write(data if sectors is None else data[:sectors * SECTOR])

    def last_flush(self, cut):
        """Number of entries that are safe when power goes after `cut` entries."""
        return next((i + 1 for i in range(cut - 1, -1, -1) if self.entries[i].flags & FLUSH), 0)

    def build(self, image_path, cut, rng, grain):
        """Makes of the base image a state after `cut` entries, the last write torn at a multiple of `grain` sectors; says which."""
        safe = self.last_flush(cut)
        tail = [e for e in self.entries[safe:cut] if e.writes()]
        how = rng.choice(('all', 'none', 'some', 'some', 'some', 'all but one', 'last'))
        if how == 'none':
            keep = []
        elif how == 'some':
            keep = [e for e in tail if rng.random() < 0.5]
        elif how == 'all but one' and tail:
            gone = rng.randrange(len(tail))
            keep = tail[:gone] + tail[gone + 1:]
        else:
            keep = tail[-1:] if how == 'last' else list(tail)
        if how == 'some':
            rng.shuffle(keep)
        torn = rng.random() < 0.5
        with open(image_path, 'r+b', buffering=0) as image:
            for e in self.entries[:safe]:
                if e.writes():
                    self.put(image, e)
            for i, e in enumerate(keep):
                self.put(image, e, rng.randrange(e.count // grain + 1) * grain if torn and i == len(keep) - 1 else None)
        return '%s of %d%s' % (how, len(tail), ', torn' if torn else '')
