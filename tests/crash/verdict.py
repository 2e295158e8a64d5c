# SPDX-License-Identifier: Apache-2.0
"""After a crash: does the daemon start, is everything there that was promised, is everything whole, does work go on?"""
import os
import re

import model as m
import workload as wl
import world as wd

READER = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'format', 'varve_format.py')
BAD_LINE = re.compile(r'\b(ERROR|BUG|HARNESS)\b')


def best_fit(alternatives, o, power, stored):
    """None if one of the alternatives fits, else what is wrong with each."""
    all_of = []
    for a in alternatives:
        why = m.judge(a, o, power, stored)
        if why is None:
            return None
        all_of += [why] if why not in all_of else []
    return '; or '.join(all_of)


def model_of(o):
    """A model of what is there: from here on everything is expected exactly."""
    model = m.Model()
    model.dirs = set(o.dirs)
    for path in set(o.live) | set(o.snaps):
        d = model.disks[path] = m.Disk(o.live.get(path, b''))
        d.live = path in o.live
        d.snaps = {s: m.Snap(got[0], m.SETTLED, got[1] != '') for s, got in o.snaps.get(path, {}).items()}
    return model


def go_on(world, o):
    """A new copy, and a change of an old disk with a snapshot, work as ever, and touch nothing else."""
    r = wl.Run(world, model_of(o))
    r.copy_in('probe.img', wl.IMAGE_B[:150000])
    for path in sorted(o.live)[:1]:
        r.open(path, os.O_RDWR)
        r.write(path, 4096 * 3 + 5, wl.blocks(99, 6000))
        r.fsync(path)
        r.close(path)
    r.wait()
    why = m.judge(r.model, m.observe(world.mnt), False)
    return r.model, why


def leftovers(world, model):
    """Each local image belongs to a live disk."""
    have, want = len(os.listdir(os.path.join(world.state(), 'disks'))), sum(d.live for d in model.disks.values())
    return None if have == want else 'STATE/disks holds %d images, there are %d disks' % (have, want)


def second_reader(world):
    r = wd.run('/usr/bin/python3', READER, 'verify', world.store(), check=False)
    return None if r.returncode == 0 else 'second reader: ' + r.stdout.decode(errors='replace')[-300:]


def while_mounted(world, alternatives, power, early):
    if early:       # what is pending can be read as well
        why = best_fit(alternatives, m.observe(world.mnt), power, stored=False)
        if why:
            return None, 'before everything was stored: ' + why
    r = world.varve('wait', '--timeout', '15', world.mnt, check=False)
    if r.returncode:
        late = ['%s %s is %s, flags "%s"' % (p, s, got[2], got[1]) for p, snaps in m.observe(world.mnt).snaps.items()
                for s, got in snaps.items() if got[2] != 'stored' or 'provisional' in got[1]]
        return None, 'varve wait: exit %d: %s; %s' % (r.returncode, r.stdout.decode(errors='replace').strip(), late)
    o = m.observe(world.mnt)
    why = best_fit(alternatives, o, power, stored=True)
    if why:
        return None, why
    return go_on(world, o)


def examine(world, alternatives, power, turn):
    """None, or what is wrong. `turn`: number of the case; some costly looks are for every n-th only."""
    pos = world.log_size()
    try:
        if not world.start():
            return 'the daemon does not start: ' + world.log_from(pos)[-400:]
        model, why = while_mounted(world, alternatives, power, turn % 3 == 0)
        if why is None and world.stop() != 0:
            why = 'the clean stop failed'
        if why is None and turn % 4 == 1:   # what a clean stop leaves is what the next start finds
            why = None if world.start() else 'the second start failed'
            why = why or m.judge(model, m.observe(world.mnt), False)
            world.stop()
    except (OSError, wl.Wrong, wl.Dead) as e:
        why = 'after the restart: %s %s' % (type(e).__name__, e)
    finally:
        world.kill()
    bad = [line for line in world.log_from(pos).splitlines() if BAD_LINE.search(line)]
    if why is None and bad:
        why = 'the log says: ' + bad[0]
    elif why is not None and bad:
        why += ' [log: %s]' % bad[0]
    if why is None:
        r = world.varve('verify', world.store(), check=False)
        why = None if r.returncode == 0 else 'varve verify: exit %d: %s' % (r.returncode, r.stdout.decode(errors='replace')[-300:])
    if why is None:
        why = leftovers(world, model)
    if why is None and turn % 50 == 7:
        why = second_reader(world)
    return why
