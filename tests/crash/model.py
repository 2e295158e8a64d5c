# SPDX-License-Identifier: Apache-2.0
"""What was promised so far, what the mount shows, and whether the second keeps the first.

The model follows every acknowledgement. While an operation runs there are alternatives: how things were before, how they
will be, and what may lie between; after a crash one of them must fit, each disk as a whole.
"""
import copy
import os

SECTOR = 512
CLOSED, SETTLED, SEALED = 0, 1, 2   # how much of a snapshot is promised: kill -9; and its flags; power loss too


class Snap:
    def __init__(self, content, level, partial=False):
        self.content, self.level, self.partial = content, level, partial


class Disk:
    """A disk and its snapshots. `now`: what was answered last; `versions`: what a power loss may leave, the oldest durable."""

    def __init__(self, content=b''):
        self.now = content
        self.versions = [content]
        self.history = [content]    # everything it ever was: of that a partial snapshot may be made
        self.changed = False        # since the last freeze
        self.live = True
        self.torn = None            # during a write: the content before it
        self.since = []             # what it was since the last flush or fsync of a write-only handle, which may hold data back
        self.snaps = {}             # by what stands behind the @
        self.owed = []              # acknowledged, its name not read yet
        self.loose = []             # renamed before they were durable: a power loss may bring the old name back
        self.coming = []            # content of snapshots that may be made at this moment

    def become(self, content):
        self.now = content
        self.versions.append(content)
        self.history.append(content)
        self.changed = True

    def durable(self):
        self.versions = [self.now]

    def has_data(self):
        return self.now.lstrip(b'\0') != b''


class Model:
    def __init__(self):
        self.dirs = set()
        self.disks = {}

    def copy(self):
        return copy.deepcopy(self)

    def all_stored(self):
        for d in self.disks.values():
            d.loose = []
            for s in list(d.snaps.values()) + d.owed:
                s.level = SEALED
            last = [s.content for s in list(d.snaps.values()) + d.owed]
            if not d.changed and d.now in last:
                d.durable()


def split(name):
    """Name of a disk and of the moment or label; the latter None for a live disk."""
    if '@' not in name:
        return name, None
    base, rest = name.split('@', 1)
    suffix, dot, ext = rest.rpartition('.')
    return (base + dot + ext, suffix) if dot else (base, rest)


def join(path, suffix):
    base, dot, ext = path.rpartition('.')
    return '%s@%s.%s' % (base, suffix, ext) if dot and '/' not in ext else '%s@%s' % (path, suffix)


class Observed:
    def __init__(self):
        self.dirs, self.live, self.snaps = set(), {}, {}


def read_file(path):
    with open(path, 'rb', buffering=0) as f:
        return f.readall()


def xattr(path, name):
    return os.getxattr(path, 'user.varve.' + name).decode()


def observe(mnt):
    """Reads everything that is there: names, bytes, flags and states."""
    o = Observed()
    todo = ['']
    while todo:
        at = todo.pop()
        for name in sorted(os.listdir(os.path.join(mnt, at))):
            path = os.path.join(at, name)
            full = os.path.join(mnt, path)
            if path == '.varve':
                continue
            if os.path.isdir(full):
                o.dirs.add(path)
                todo.append(path)
                continue
            disk, suffix = split(name)
            if suffix is None:
                o.live[path] = read_file(full)
            else:
                o.snaps.setdefault(os.path.join(at, disk), {})[suffix] = (read_file(full), xattr(full, 'flags'), xattr(full, 'state'))
    return o


def mixed(content, versions):
    """Is each byte that of one of the versions, which are zero behind their ends, and the size one between theirs?"""
    sizes = [len(v) for v in versions]
    if not min(sizes) <= len(content) <= max(sizes):
        return False
    versions = [v[:len(content)].ljust(len(content), b'\0') for v in versions]
    for begin in range(0, len(content), 65536):     # most are alike: coarse first
        part = slice(begin, begin + 65536)
        if any(content[part] == v[part] for v in versions):
            continue
        for at in range(begin, min(begin + 65536, len(content)), SECTOR):
            have, may = content[at:at + SECTOR], [v[at:at + SECTOR] for v in versions]
            if have not in may and not all(b in of for b, of in zip(have, zip(*may))):
                return False
    return True


def first_difference(a, b):
    at = next((i for i in range(0, min(len(a), len(b)), SECTOR) if a[i:i + SECTOR] != b[i:i + SECTOR]), min(len(a), len(b)))
    return 'sizes %d and %d, first difference near %d' % (len(a), len(b), at)


def judge_live(path, d, content, power):
    if power:
        if content in d.versions or mixed(content, d.versions):
            return None
        return '%s: the live image is none of the %d states since the last fsync (%s)' % (
            path, len(d.versions), first_difference(content, d.versions[0]))
    may = d.since + ([d.torn] if d.torn is not None else [])
    if content == d.now or (may and mixed(content, may + [d.now])):
        return None
    return '%s: the live image is not what was answered (%s)' % (path, first_difference(content, d.now))


def judge_extra(path, suffix, d, got, owed, coming):
    """A snapshot whose name was never told."""
    content, flags, _ = got
    for allowed in (owed, coming):
        for item in allowed:
            if content == (item.content if isinstance(item, Snap) else item):
                allowed.remove(item)
                return None
    if 'partial' in flags and mixed(content, d.history):
        return None
    return '%s: a snapshot that nobody made, flags "%s", %d bytes' % (join(path, suffix), flags, len(content))


def judge_snap(path, suffix, s, got, power, stored):
    """None: as promised. An empty text: it is another one that took the name of one that power loss took."""
    content, flags, state = got
    weak = s.partial or s.level == CLOSED or (power and s.level < SEALED)
    if content != s.content:
        if power and s.level < SEALED and 'partial' in flags:
            return ''
        return '%s: not the bytes that were acknowledged (%s)' % (join(path, suffix), first_difference(content, s.content))
    if flags and not (weak and flags == 'partial'):
        return '%s: flags "%s" though it was acknowledged as a good one' % (join(path, suffix), flags)
    return None if state == 'stored' or not stored else '%s: is %s' % (join(path, suffix), state)


def judge_snaps(path, d, got, power, stored):
    owed, coming = list(d.owed), d.coming + (d.loose if power else [])
    extra = dict(got)
    for suffix, s in d.snaps.items():
        if suffix not in got:
            if not power or s.level == SEALED:
                return '%s: gone' % join(path, suffix)
            continue
        why = judge_snap(path, suffix, s, got[suffix], power, stored)
        if why:
            return why
        if why is None:
            del extra[suffix]
    for suffix, g in sorted(extra.items()):
        if stored and g[2] != 'stored':
            return '%s: is %s' % (join(path, suffix), g[2])
        why = judge_extra(path, suffix, d, g, owed, coming)
        if why:
            return why
    need = [s for s in owed if not power or s.level == SEALED]
    return '%s: %d acknowledged snapshots are not there' % (path, len(need)) if need else None


def judge(model, o, power, stored=True):
    """None, or what is wrong with what was observed. `stored`: `varve wait` has come back, nothing may be pending."""
    if o.dirs != model.dirs:
        return 'directories: %s instead of %s' % (sorted(o.dirs), sorted(model.dirs))
    live = {p for p, d in model.disks.items() if d.live}
    if set(o.live) != live:
        return 'disks: %s instead of %s' % (sorted(o.live), sorted(live))
    for path in o.snaps:
        if path not in model.disks:
            return '%s: snapshots of a disk that does not exist' % path
    for path, d in sorted(model.disks.items()):
        why = judge_live(path, d, o.live[path], power) if d.live else None
        why = why or judge_snaps(path, d, o.snaps.get(path, {}), power, stored)
        if why:
            return why
    return None
