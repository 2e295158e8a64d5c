# SPDX-License-Identifier: Apache-2.0
"""rename_readers.py DIR SECONDS SEED: threads write disks beside others, rename them over those, and remove and rename these, while each keeps a
descriptor of what it has written. What a descriptor reads is the content of one disk, and never an error. (A read that crosses the moment in
which another content came to its disk has some of both.)"""
import errno
import os
import random
import sys
import threading
import time

top, seconds, seed = sys.argv[1], float(sys.argv[2]), sys.argv[3]
SIZE, NAMES, THREADS = 300000, 4, 6
REFUSED = (errno.EBUSY, errno.ENOENT, errno.ESTALE)     # another thread was there, or writes
end = time.monotonic() + seconds
wrong, counts = [], {'renames': 0, 'refused': 0, 'reads': 0}
lock = threading.Lock()


def count(what):
    with lock:
        counts[what] += 1


def refused(call, *args):
    """Did another thread stand in the way?"""
    try:
        call(*args)
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        count('refused')
        return True
    count('renames')
    return False


def look(fd, sizes=(SIZE,)):
    for _ in range(20):
        got = os.pread(fd, 9000, random.randrange(0, SIZE - 9000))
        count('reads')
        if len(got) == 9000 and got == got[:1] * 9000:
            break
    else:
        wrong.append('mixed: %d bytes, %s' % (len(got), sorted(set(got))[:5]))
    if os.fstat(fd).st_size not in sizes:
        wrong.append('size %d' % os.fstat(fd).st_size)


def work(n):
    rnd = random.Random('%s.%d' % (seed, n))
    fds = []
    while time.monotonic() < end and not wrong:
        mine = '%s/%s%d' % (top, rnd.choice(('t', '.t')), n)
        try:
            with open(mine, 'wb') as f:
                f.write(bytes([rnd.randrange(1, 256)]) * SIZE)
            fds.append(os.open(mine, os.O_RDONLY))
        except OSError as e:
            if e.errno not in REFUSED:
                raise
            count('refused')
            for fd in fds:
                os.close(fd)
            fds = []
            continue
        name = lambda: '%s/d%d' % (top, rnd.randrange(NAMES))
        if refused(os.rename, mine, name()):
            refused(os.unlink, mine)
        for _ in range(rnd.randrange(6)):
            what = rnd.randrange(4)
            if what == 0:
                refused(os.rename, name(), name())
            elif what == 1 and rnd.randrange(3) == 0:
                refused(os.unlink, name())
            for fd in fds:
                look(fd)
        while len(fds) > 3 or (fds and rnd.randrange(3) == 0):
            os.close(fds.pop(rnd.randrange(len(fds))))
    for fd in fds:
        os.close(fd)


def guarded(n):
    try:
        work(n)
    except Exception as e:      # pylint: disable=broad-except
        wrong.append(repr(e))


threads = [threading.Thread(target=guarded, args=(n,)) for n in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(counts)
for w in wrong[:5]:
    print('WRONG', w)
sys.exit(1 if wrong or not counts['renames'] or not counts['reads'] else 0)
