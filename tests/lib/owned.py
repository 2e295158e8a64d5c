#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""owned.py LIMIT DIR[:DIR...] COMMAND...: runs a test and ends all that it has started, and nothing else.

The command gets LIMIT seconds, then SIGTERM. However it ends, and when owned.py itself is told to end: FUSE mounts below each DIR
are aborted, every process that descends from the command is killed by its pid, and what is still mounted below DIR is unmounted. A daemon
that has forked twice is a descendant all the same: owned.py is the subreaper of all. Its mounts are its own.
The exit status is that of the command, 124 after LIMIT. OWNED_REPORT=FILE: gets a line "SECONDS CPU-SECONDS".

As a module: adopt() once, early; end_all([dir]) at the end, for a harness that starts daemons from several processes.
"""
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FUSE_CONTROL = '/sys/fs/fuse/connections'
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 1 << 14, 1 << 18
GRACE = 20              # seconds between SIGTERM and SIGKILL
LEAVE = 3               # seconds for daemons that are on their way out when a command has passed


class Timeout(Exception):
    pass


def adopt():
    """From now on orphans among the descendants become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit('owned.py: prctl: ' + os.strerror(ctypes.get_errno()))


def own_mounts():
    """What is mounted from now on nobody else sees. Else a test that copies the mounts of the machine (unshare) would for a moment keep
    the filesystem of another one busy, whose umount has returned already."""
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(b'none', b'/', None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        for path, kind, _ in mounts_below(['']):
            if kind == 'fuse.varve':    # a copy of another program's: it would keep that daemon alive after its own umount
                umount(path, '-l')
        if os.path.isdir(FUSE_CONTROL) and not os.listdir(FUSE_CONTROL):
            libc.mount(b'none', FUSE_CONTROL.encode(), b'fusectl', ctypes.c_ulong(0), None)


def descendants(pid=None):
    """All of them, children first. Reads no command lines: that could wait for a process that hangs."""
    found, todo = [], [pid or os.getpid()]
    while todo:
        at = todo.pop(0)
        try:
            for task in os.listdir('/proc/%d/task' % at):
                with open('/proc/%d/task/%s/children' % (at, task)) as f:
                    todo += map(int, f.read().split())
        except OSError:
            pass
        found.append(at)
    return found[1:]


def mounts_below(tops, pid='self'):
    """(path, type, minor number) of each mount at or below one of `tops` as that process sees it, deepest first."""
    found = []
    try:
        with open('/proc/%s/mountinfo' % pid, encoding='utf-8', errors='surrogateescape') as f:    # a path may be any bytes
            lines = [line for line in f.read().split('\n') if line]
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(' - ')
        path = re.sub(r'\\([0-7]{3})', lambda m: chr(int(m[1], 8)), left.split()[4])
        if any(path == top or path.startswith(top + '/') for top in tops):
            found.append((path, right.split()[0], left.split()[2].partition(':')[2]))
    return sorted(found, reverse=True)


def umount(path, *flags):
    try:
        subprocess.run(['umount', *flags, path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=30, check=False)
    except subprocess.TimeoutExpired:
        pass


def abort_fuse(tops, pids):
    """Ends every call that waits for a daemon below `tops`, in other mount namespaces too: without that a kill may never finish."""
    for pid in ['self', *pids]:
        for path, kind, minor in mounts_below(tops, pid):
            if kind.startswith('fuse'):
                try:
                    with open('%s/%s/abort' % (FUSE_CONTROL, minor), 'w') as f:
                        f.write('1')
                except OSError:
                    pass
                if pid == 'self':
                    umount(path, '-f', '-l')


def reap():
    """True: there are no children left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return True
    return False


def end_all(tops):
    """Kills all descendants and unmounts all below `tops`. Which processes there were, as "NAME(PID)"."""
    killed = set()
    abort_fuse(tops, descendants())
    until = time.monotonic() + GRACE
    while not reap() and time.monotonic() < until:
        for pid in descendants():
            try:
                with open('/proc/%d/comm' % pid) as f:
                    killed.add('%s(%d)' % (f.read().strip(), pid))
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.02)
    for path, _, _ in mounts_below(tops):
        umount(path, '-l')
    return sorted(killed)


def wait_for(command, limit):
    """Its exit status as a shell gives it; 124: it ran for too long."""
    def late(*_):
        raise Timeout
    signal.signal(signal.SIGALRM, late)
    status, late_status = None, None
    for seconds in limit, GRACE:
        signal.alarm(seconds)
        try:
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == command.pid:
                    signal.alarm(0)
                    command.returncode = code = os.waitstatus_to_exitcode(status)
                    return late_status or (code if code >= 0 else 128 - code)
        except Timeout:
            late_status = 124
            print('owned.py: not done after %d s' % limit, flush=True)
            os.killpg(command.pid, signal.SIGTERM)
    return late_status


def main():
    limit, tops = int(sys.argv[1]), [os.path.realpath(d) for d in sys.argv[2].split(':')]
    adopt()
    own_mounts()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    for s in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(s, lambda number, _: sys.exit(128 + number))
    begin, status = time.monotonic(), 1
    try:
        command = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, start_new_session=True)
        status = wait_for(command, limit)
        until = time.monotonic() + LEAVE
        while status == 0 and not reap() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        for s in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(s, signal.SIG_IGN)
        left = end_all(tops)
        if left:
            print('owned.py: killed what was left: ' + ' '.join(left), flush=True)
        if os.environ.get('OWNED_REPORT'):
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            with open(os.environ['OWNED_REPORT'], 'w') as f:
                f.write('%.1f %.1f\n' % (time.monotonic() - begin, used.ru_utime + used.ru_stime))
    sys.exit(status)


if __name__ == '__main__':
    main()
