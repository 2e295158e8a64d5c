# SPDX-License-Identifier: Apache-2.0
"""What every harness of this folder needs: a store and its mount, cases that are counted, a watchdog, a seed.

    VARVE=PATH       the binary (required)
    TMPDIR=PATH      where stores lie
    VARVE_SEED=N     repeats a run
    KEEP=1           leaves the folder behind
"""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

DAEMON_TALK = re.compile(r'\b(ERROR|BUG|AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error)\b')


class Failure(Exception):
    """Something that varve must not do."""


def need(ok, text):
    if not ok:
        raise Failure(text)


def seed_of_run():
    seed = int(os.environ.get('VARVE_SEED') or random.SystemRandom().randrange(1, 1 << 31))
    print(f'seed {seed} (VARVE_SEED={seed} repeats it)', flush=True)
    return seed


def is_mounted(path):
    with open('/proc/self/mounts', encoding='utf-8') as f:
        return any(line.split(' ')[1] == path for line in f)


class Varve:
    """One store, one state directory, one mount point; the daemon in the foreground as a child."""

    def __init__(self, **options):
        self.binary = os.environ['VARVE']
        self.dir = tempfile.mkdtemp(prefix='varve-case.', dir=os.environ.get('TMPDIR', '/tmp'))
        os.chmod(self.dir, 0o755)
        self.mnt, self.store = self.dir + '/mnt', self.dir + '/store'
        self.log = self.dir + '/daemon.log'
        self.log_read = 0
        # settle=0: the programs here open and write a disk again and again from one process, and each close is to have its snapshot.
        self.options = {'state': self.dir + '/state', 'host': 'testhost', 'settle': '0', **options}
        self.daemon = None
        os.mkdir(self.mnt)
        self.run([self.binary, 'init', self.store])

    @staticmethod
    def run(argv, limit=120, ok=(0,)):
        """A command that must end in time; its output."""
        try:
            r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, check=False)
        except subprocess.TimeoutExpired as e:
            raise Failure(f'not done after {limit} s: {argv}') from e
        text = r.stdout.decode(errors='replace')
        need(r.returncode in ok, f'exit {r.returncode} of {argv}: {text.strip()}')
        return text

    def cmd(self, *words, limit=120, ok=(0,)):
        return self.run([self.binary, *words], limit, ok)

    def start(self, **more):
        opts = ','.join(f'{k}={v}' if v is not None else k for k, v in {**self.options, **more}.items())
        with open(self.log, 'ab') as log:
            self.daemon = subprocess.Popen([self.binary, 'mount', self.store, self.mnt, '-f', '-o', opts], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            need(self.daemon.poll() is None, 'the daemon ended while starting: ' + self.tail())
            if is_mounted(self.mnt) and os.path.isdir(self.mnt + '/.varve'):    # the watchdog ends a hang
                return self
            time.sleep(0.02)
        raise Failure('not usable after 60 s')

    def stop(self):
        """The clean stop. What the log says since the last look must hold no error."""
        self.run(['umount', self.mnt])
        try:
            status = self.daemon.wait(180)
        except subprocess.TimeoutExpired as e:
            raise Failure('the daemon did not end within 180 s' + self.stacks()) from e
        self.daemon = None
        need(status == 0, f'the daemon ended with {status}: ' + self.tail())
        self.check_log()

    def stacks(self):
        """Where its threads are, if there is a debugger to ask."""
        if shutil.which('gdb') is None:
            return ''
        argv = ['timeout', '-s', 'KILL', '30', 'gdb', '-p', str(self.daemon.pid), '-batch', '-ex', 'thread apply all bt 12']
        text = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode(errors='replace')
        return '\n' + '\n'.join(line for line in text.splitlines() if line.startswith(('#', 'Thread')))

    def kill(self):
        """kill -9, as a crash of the daemon."""
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None
        subprocess.run(['umount', '-l', self.mnt], stderr=subprocess.DEVNULL, check=False)

    def restart(self, **more):
        self.stop()
        self.start(**more)

    def check_log(self):
        with open(self.log, encoding='utf-8', errors='replace') as f:
            f.seek(self.log_read)
            bad = [line.rstrip() for line in f if DAEMON_TALK.search(line)]
            self.log_read = f.tell()
        need(not bad, 'the daemon\'s log says: ' + ' | '.join(bad[:5]))

    def tail(self):
        with open(self.log, encoding='utf-8', errors='replace') as f:
            return ''.join(f.readlines()[-15:])

    def end(self):
        """Whatever happened: nothing of it stays behind."""
        if self.daemon is not None:
            subprocess.run(['umount', '-l', self.mnt], stderr=subprocess.DEVNULL, check=False)
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        while is_mounted(self.mnt):
            if subprocess.run(['umount', '-l', self.mnt], stderr=subprocess.DEVNULL, check=False).returncode != 0:
                break
        if os.environ.get('KEEP'):
            print('kept:', self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


class Runner:
    """Runs commands out of a process of its own. A fork of this one would take our descriptors along, and when its exec closes
    them the daemon sees a close of disks that are being written: a snapshot in the middle."""

    CODE = """
import json, subprocess, sys
for line in sys.stdin:
    r = subprocess.run(json.loads(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(json.dumps([r.returncode, r.stdout.decode(errors='replace')]), flush=True)
"""

    def __init__(self):
        self.lock = threading.Lock()
        self.process = subprocess.Popen([sys.executable, '-c', self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, argv):
        """Exit code and output."""
        with self.lock:
            self.process.stdin.write(json.dumps(argv) + '\n')
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        need(line, 'the process that runs commands ended')
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait(100)


def digest(path):
    """SHA-256 of what the daemon says, not of what the kernel remembers."""
    h = hashlib.sha256()
    with open(path, 'rb', buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := f.read(1 << 20):
            h.update(piece)
    return h.hexdigest()


class Cases:
    """Counts cases, prints the last line."""

    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def one(self, name, fn, *args):
        begin = time.monotonic()
        try:
            said = fn(*args)
        except Exception as e:    # pylint: disable=broad-except
            with self.lock:
                self.failed += 1
            print(f'FAILED  {name} ({time.monotonic() - begin:.1f} s): {e}', flush=True)
            if not isinstance(e, Failure):
                traceback.print_exc(file=sys.stdout)
            return False
        with self.lock:
            self.passed += 1
        print(f'ok      {name} ({time.monotonic() - begin:.1f} s){": " + said if said else ""}', flush=True)
        return True

    def end(self):
        print(f'{self.passed} passed, {self.failed} failed', flush=True)
        sys.exit(1 if self.failed else 0)


def watchdog(varve, seconds):
    """A daemon that does not answer would hang us for ever: after that time it goes, and every call fails."""
    def bark():
        print(f'FAILED  not done after {seconds} s: the daemon is stopped', flush=True)
        if varve.daemon is not None:
            print(varve.tail(), flush=True)
            varve.daemon.kill()
        subprocess.run(['umount', '-l', varve.mnt], stderr=subprocess.DEVNULL, check=False)
        time.sleep(10)
        os._exit(1)
    t = threading.Timer(seconds, bark)
    t.daemon = True
    t.start()
    return t


def main(varve, limit, body):
    """Runs body(varve, cases) and cleans up, also when it is asked to end."""
    cases = Cases()
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(130))
    dog = watchdog(varve, limit)
    try:
        body(varve, cases)
    except Failure as e:
        cases.failed += 1
        print(f'FAILED  {e}', flush=True)
    except Exception:    # pylint: disable=broad-except
        cases.failed += 1
        traceback.print_exc(file=sys.stdout)
    finally:
        if cases.failed and os.path.exists(varve.log):
            print('--- last lines of the daemon\'s log:\n' + varve.tail(), flush=True)
        varve.end()
        dog.cancel()
    cases.end()


def snapshots(path):
    """The snapshots of DIR/NAME.EXT, by name."""
    base, ext = os.path.splitext(os.path.basename(path))
    d = os.path.dirname(path)
    return sorted(os.path.join(d, n) for n in os.listdir(d) if n.startswith(base + '@') and n.endswith(ext))


def xattr(path, name):
    return os.getxattr(path, 'user.varve.' + name).decode()


def newest(path):
    """The one that was frozen last."""
    all_ = snapshots(path)
    return max(all_, key=lambda p: os.stat(p).st_mtime_ns) if all_ else None
