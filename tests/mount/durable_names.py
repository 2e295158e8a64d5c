#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""durable_names.py TRACE ROOT: reads what strace -f -y wrote and checks what was durable before each record of a disk came and went.

A create: table, map, journal and directory of the image, and then its name in disks/, are fsynced before the record's link; then nodes/
is. An unlink: `removed` is made and its directory fsynced before the record's unlink; then nodes/ is. Prints what is wrong, and for how
many fsyncs a create with an image made ahead, and an unlink, waited.
"""
import re
import sys

trace, root = sys.argv[1:]
SYNC = re.compile(r'f(?:data)?sync\(\d+<([^>]*)>')
RENAME = re.compile(r'renameat\(\d+<([^>]*)>, "([^"]*)", \d+<[^>]*>, "([^"]*)"')
ENTRY = re.compile(r'(linkat|unlinkat)\(\d+<([^>]*/nodes)>, "[^"]*"(?:, \d+<[^>]*>, "([^"]*)")?')
UNLINKED = re.compile(r'unlinkat\(\d+<[^>]*/nodes>, "([0-9a-f]{32})"')
REMOVED = re.compile(r'openat\(\d+<([^>]*)>, "removed", [^)]*O_CREAT')
IMAGE_FILES = ('table-1', 'layer-2.map', 'journal')

begun = {}          # thread: the call that it is in
synced = []         # (thread, path) in the order in which the calls returned
waited = {}         # thread: fsyncs since its last record
ahead = set()       # images made ahead, their names durable
renamed = {}        # image: place in `synced` at its last rename
said = {}           # image: place in `synced` when `removed` was made
wrong, creates, unlinks = [], [], []


def after(place, path):
    return any(p == path for _, p in synced[place:])


def record_comes(thread, disk):
    disks = root + '/state/disks'
    dirs = [disks + '/.tmp-' + disk, disks + '/.ready-' + disk, disks + '/' + disk]
    for name in IMAGE_FILES:
        if not any(after(0, d + '/' + name) for d in dirs):
            wrong.append('%s: its record comes before an fsync of %s' % (disk, name))
    if not any(after(0, d) for d in dirs):
        wrong.append('%s: its record comes before an fsync of its directory' % disk)
    if disk not in renamed or not after(renamed[disk], disks):
        wrong.append('%s: its record comes before its name in disks/ is durable' % disk)
    waiting[thread] = ('create', disk)


def record_goes(thread, disk):
    if disk not in said or not after(said[disk], root + '/state/disks/' + disk):
        wrong.append('%s: its record goes before `removed` is durable' % disk)
    waiting[thread] = ('unlink', disk)


waiting = {}        # thread: what has yet to be durable in nodes/
with open(trace, encoding='utf-8', errors='replace') as f:
    lines = f.read().splitlines()
for line in lines:
    thread, call = line.split(None, 1)
    ends = 'unfinished ...>' not in call
    if call.startswith('<... '):
        call = begun.pop(thread, '')
    elif not ends:
        begun[thread] = call
    starts = call and '<... ' not in line
    m = SYNC.match(call)
    if m and ends:
        synced.append((thread, m[1]))
        waited[thread] = waited.get(thread, 0) + 1
        if m[1].endswith('/store/nodes') and thread in waiting:
            kind, disk = waiting.pop(thread)
            if kind == 'unlink':
                unlinks.append(waited.pop(thread))
            else:
                creates.append((disk in ahead, waited.pop(thread)))
    m = RENAME.match(call)
    if m and starts and m[1].endswith('/disks'):
        disk = m[3][-32:]
        if m[2].startswith('.tmp-') and not m[3].startswith('.tmp-'):
            renamed[disk] = len(synced)
        if m[3].startswith('.ready-'):
            ahead.add(disk)
    m = REMOVED.match(call)
    if m and ends:
        said[m[1][-32:]] = len(synced)
    m = ENTRY.match(call)
    if m and starts and m[1] == 'linkat':
        record_comes(thread, m[3])
    m = UNLINKED.match(call)
    if m and starts:
        record_goes(thread, m[1])

taken = [n for was_ahead, n in creates if was_ahead]
if len(creates) != 6 or len(unlinks) != 6 or not taken:
    wrong.append('%d creates, %d of them with an image made ahead, and %d unlinks were seen' % (len(creates), len(taken), len(unlinks)))
if max(taken + unlinks, default=0) > 2:
    wrong.append('fsyncs that creates and unlinks waited for: %s, %s' % (taken, unlinks))
print('\n'.join(wrong) or 'fsyncs: %s, %s' % (taken, unlinks))
sys.exit(1 if wrong else 0)
