#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Crash points of varve, enumerated: see run.sh, and --help."""
import argparse
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import blocklog         # noqa: E402
import model as m       # noqa: E402
import owned            # noqa: E402
import sample           # noqa: E402
import verdict          # noqa: E402
import workload as wl   # noqa: E402
import world as wd      # noqa: E402

top = None
options = None
the_world = None
the_base = None         # model of the start state


# ---- what a case begins with ----

def base_dir():
    return os.path.join(top, 'base', 'state')


def load_base():
    return the_base.copy()


def make_base(world):
    """The start state, made once through the mount; returns what must be there."""
    world.root = os.path.join(top, 'base', 'state')
    os.makedirs(world.root)
    world.varve('init', world.store())
    if not world.start():
        raise wd.Broken('the daemon does not start: ' + world.log_from(0))
    r = wl.Run(world, m.Model())
    wl.setup(r)
    r.stop()
    return r.model


def play(world, name, counter):
    """Runs a workload until it ends or the daemon dies. What may be there then."""
    r = wl.Run(world, load_base())
    try:
        if world.start(counter, wl.FAULTS.get(name, '')):
            counter.go()
            wl.WORKLOADS[name](r)
            r.stop()
    except wl.Dead:
        pass
    finally:
        for fd in r.handles.values():
            try:
                os.close(fd)
            except OSError:
                pass
        world.kill()
    return r.alternatives or [r.model]


def new_counter(world, name, at=0, mode=0):
    return wd.Counter(os.path.join(world.ram, 'counter'), at, mode, off=name != 'start')


def count(world, name):
    """The persisting calls of a workload, as (number, call, path)."""
    world.on_tmpfs(base_dir())
    counter = new_counter(world, name)
    play(world, name, counter)
    log = counter.log()
    counter.close()
    return log


def keep(world, *what):
    """STORE, STATE and log of a failed case, for a look."""
    if options.keep:
        to = os.path.join(options.keep, '-'.join(map(str, what)))
        shutil.copytree(world.root, to, dirs_exist_ok=True)
        shutil.copy(world.log, to)


# ---- cases: each returns (how many, [what went wrong, ...]) ----

def one_kill(world, turn, name, k, mode):
    world.on_tmpfs(base_dir())
    counter = new_counter(world, name, k, mode)
    try:
        left = play(world, name, counter)
    finally:
        counter.close()
    return verdict.examine(world, left, False, turn)


def case_kill(world, turn, name, k, mode):
    why = one_kill(world, turn, name, k, mode)
    if why:
        keep(world, 'kill', turn)
    return 1, [why] if why else []


def case_power(world, turn, name, k, mode):
    world.on_image(base_dir())
    counter = new_counter(world, name, k, mode)
    try:
        left = play(world, name, counter)
    finally:
        counter.close()
    world.lose_power()
    why = verdict.examine(world, left, True, turn)
    if why:
        keep(world, 'power', turn)
    world.umount_image()
    return 1, [why] if why else []


def recovery(world, counter):
    """A recovery and what it goes on to do, until it is killed, or fails, or all is stored."""
    try:
        if world.start(counter):
            world.varve('wait', '--timeout', '15', world.mnt, check=False)
    finally:
        world.kill()


def case_recover(world, turn, name, k, mode, stride, trusted):
    """Killed at k; then the recovery is killed, or meets an error, at every stride-th of its own points."""
    world.on_tmpfs(base_dir())
    counter = new_counter(world, name, k, mode)
    left = play(world, name, counter)
    counter.close()
    if not trusted:     # as after a power loss that happened to lose nothing: all that is volatile is doubted
        os.unlink(os.path.join(world.state(), 'instance'))
    crashed = os.path.join(world.ram, 'crashed')
    shutil.rmtree(crashed, ignore_errors=True)
    wd.copy_tree(world.root, crashed)
    counter = wd.Counter(os.path.join(world.ram, 'counter'))
    recovery(world, counter)
    points = counter.count()
    counter.close()
    done, bad = 0, []
    for j in range(1 + turn % stride, points + 1, stride):
        world.on_tmpfs(crashed)
        how = (wd.KILL_BEFORE, wd.KILL_HALF, wd.KILL_AFTER, wd.FAIL_ONCE)[(j // stride + turn) % 4]
        counter = wd.Counter(os.path.join(world.ram, 'counter'), j, how)
        recovery(world, counter)
        # A failed fsync is final: of that disk the next start believes only what was durable, as after a loss of power.
        doubted = how == wd.FAIL_ONCE and any(n == j and call in ('fsync', 'fdatasync') for n, call, _ in counter.log())
        counter.close()
        why = verdict.examine(world, left, not trusted or doubted, turn + j)
        done += 1
        if why:
            keep(world, 'recover', '%d-%d' % (turn, j))
            bad.append('recovery point %d/%d %s: %s' % (j, points, wd.MODE_NAMES[how], why))
    return done, bad


def record(world, name):
    """Plays a workload on a recorded disk; leaves base image, log and acknowledgements for case_reorder."""
    at = os.path.join(top, 'record', name)
    os.makedirs(at)
    image, base, log, raw = (os.path.join(at, f) for f in ('image', 'base', 'log', 'raw'))
    world.make_image(base_dir(), image)
    wd.run('cp', '--sparse=always', image, base)
    rec = blocklog.Recorder(image, log, raw)
    try:
        world.mount_image(raw)
        r = wl.Run(world, load_base(), rec.position)
        if not world.start(None, wl.FAULTS.get(name, '')):
            raise wd.Broken('the daemon does not start: ' + world.log_from(0)[-400:])
        wl.WORKLOADS[name](r)
        r.stop()
        r.note()
        world.umount_image()
    finally:
        world.leave()
        rec.close()
    os.unlink(image)
    with open(os.path.join(at, 'acks'), 'wb') as f:
        pickle.dump(r.acks, f)
    entries = blocklog.Log(log).entries
    first = next(i for i, e in enumerate(entries) if e.end > r.acks[0][0])
    return [(i, 'write' if e.writes() else 'flush', '') for i, e in enumerate(entries, 1) if i > first]


def case_reorder(world, turn, name, cut, number):
    """Power goes after `cut` block writes; `number` chooses which of the unflushed ones are there."""
    at = os.path.join(top, 'record', name)
    log = blocklog.Log(os.path.join(at, 'log'))
    with open(os.path.join(at, 'acks'), 'rb') as f:
        acks = pickle.load(f)
    position = log.entries[cut - 1].end
    left = [alternatives for where, alternatives in acks if where <= position][-1]
    for grain in 1, 8:  # some filesystems expect 4 KiB of their own metadata to be whole or not there
        wd.run('cp', '--sparse=always', os.path.join(at, 'base'), world.image())
        how = log.build(world.image(), cut, random.Random('%d %s %d %d' % (options.seed, name, cut, number)), grain)
        try:
            world.mount_image()
            break
        except wd.Broken:
            if grain > 1:
                raise
    log.file.close()
    why = verdict.examine(world, left, True, turn)
    if why:
        keep(world, 'reorder', turn)
    world.umount_image()
    return 1, ['%s: %s' % (how, why)] if why else []


CASES = {'kill': case_kill, 'power': case_power, 'recover': case_recover, 'reorder': case_reorder}


# ---- the pool ----

def init_worker(counter):
    global the_world
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)   # how the pool ends its workers: one that waits in a C call runs no handler
    with counter.get_lock():
        counter.value += 1
        number = counter.value
    the_world = wd.World(os.path.join(top, 'w%d' % number), options.fs)


def work(job):
    turn, kind, args = job
    begin = time.monotonic()
    try:
        done, bad = CASES[kind](the_world, turn, *args)
    except Exception as e:      # pylint: disable=broad-except  # a case that cannot be run is a failure, not the end
        done, bad = 1, ['%s: %s' % (type(e).__name__, traceback.format_exc(limit=-3) if not isinstance(e, (wl.Wrong, wd.Broken)) else e)]
    try:
        the_world.leave()
    except Exception as e:      # pylint: disable=broad-except
        bad.append('cleaning up: %s' % e)
    return kind, args, done, bad, time.monotonic() - begin


def kill_points(logs, names, modes):
    """Only a write of several pages can be stopped in the middle."""
    return [(n, k, mode) for n in names for k, _, path in logs[n] for mode in modes if mode != wd.KILL_HALF or path.endswith(' half')]


def plan(kind, logs, names, rng):
    """The chosen points of a mode, and how many there are."""
    def family(point):      # with the workload, too, most points would be the only one of theirs
        _, call, path = logs[point[0]][point[1] - 1]
        return (call, sample.kind_of(path), *point[2:])

    def choose(points, want, family):
        return sample.spread(points, want, rng, family if options.strata else None)

    if kind == 'kill':
        points = kill_points(logs, names, (wd.KILL_BEFORE, wd.KILL_HALF, wd.KILL_AFTER))
        return choose(points, options.want, family), len(points)
    points = kill_points(logs, names, (wd.KILL_BEFORE,)) if kind != 'reorder' else \
        [(n, cut, number) for n in names for cut, _, _ in logs[n] for number in range(options.states)]
    if kind == 'power':
        return choose(points, options.want, family), len(points)
    if kind == 'reorder':
        return choose(points, options.want, lambda p: p[::2]), len(points)
    stride = options.stride or 37
    groups = choose(points, max(1, options.want // 4) if options.want else 0, lambda p: p[0])
    return [g + (stride, bool(i % 2)) for i, g in enumerate(groups)], len(points)


def select(points):
    if options.points:
        lo, _, hi = options.points.partition('-')
        points = [p for p in points if int(lo) <= p[1] <= int(hi or lo)]
    if options.calls:
        points = [p for p in points if p[2] == int(options.calls)]
    return points


def run_kind(kind, pool, logs, names):
    rng = random.Random('%d %s' % (options.seed, kind))
    points, of = plan(kind, logs, names, rng)
    points = select(points)
    begin, done, failed = time.monotonic(), 0, 0
    for _, args, n, bad, _ in pool.imap_unordered(work, [(i, kind, p) for i, p in enumerate(points)]):
        done += n
        failed += len(bad)
        for why in bad:
            print('FAILED %s %s: %s' % (kind, ' '.join(map(str, args)), why), flush=True)
    seconds = time.monotonic() - begin
    print('%s: %d cases, %d failed (at %d of %d points of %s; VARVE_SEED=%d, %s; %.0f s, %.0f ms each)'
          % (kind, done, failed, len(points), of, ' '.join('%s %d' % (n, len(logs[n])) for n in names), options.seed, options.fs, seconds,
             seconds * 1000 / max(1, done)), flush=True)
    return done - failed, failed


def main():
    global top, options, the_base
    p = argparse.ArgumentParser(description='kills, power losses and crashes in recovery at the enumerated persisting calls of workloads')
    p.add_argument('modes', nargs='+', choices=sorted(CASES))
    p.add_argument('--workloads', default=','.join(wl.WORKLOADS))
    p.add_argument('--want', type=int, default=0, help='about so many cases of each mode instead of all')
    p.add_argument('--strata', action='store_true', help='with --want: each kind of file and call at least once')
    p.add_argument('--stride', type=int, default=0, help='every n-th point of a recovery')
    p.add_argument('--states', type=int, default=3, help='reorder: so many states at each block write')
    p.add_argument('--points', default='', help='only these numbers of calls: 12 or 10-40')
    p.add_argument('--calls', default='', help='only this mode of the injector')
    p.add_argument('--fs', default='xfs', choices=sorted(wd.FS_BYTES))
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--list', action='store_true', help='prints the persisting calls of each workload')
    p.add_argument('--keep', default='', help='where STORE and STATE of failed cases go')
    options = p.parse_args()
    if not os.access(wd.VARVE, os.X_OK) or not os.path.exists(wd.SHIM):
        sys.exit('crash.py: set VARVE to the program and FI_SHIM to fi_shim.so')
    owned.adopt()
    top = tempfile.mkdtemp(prefix='varve-case.', dir=os.environ.get('TMPDIR', '/tmp'))
    wd.run('mount', '-t', 'tmpfs', '-o', 'size=4g', 'varve-crash', top)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = 0
    pool = None
    try:
        world = wd.World(os.path.join(top, 'w0'), options.fs)
        the_base = make_base(world)
        names = options.workloads.split(',')
        logs = {n: count(world, n) for n in names} if set(options.modes) != {'reorder'} else {}
        for line in (line for n in logs for line in logs[n] if options.list):
            print(*line)
        records = {n: record(world, n) for n in names} if 'reorder' in options.modes else {}
        pool = multiprocessing.get_context('fork').Pool(options.workers, init_worker, (multiprocessing.Value('i', 0),))
        for kind in options.modes:
            good, bad = run_kind(kind, pool, records if kind == 'reorder' else logs, names)
            passed, failed = passed + good, failed + bad
    except (wl.Wrong, wl.Dead, wd.Broken) as e:     # even without a crash it does not work
        failed += 1
        print('FAILED before any crash: %s %s' % (type(e).__name__, e))
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
