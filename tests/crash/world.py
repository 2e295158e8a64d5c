# SPDX-License-Identifier: Apache-2.0
"""Where a case runs: folders, filesystems that can lose what was not synced, the daemon, and the fault injector's counter."""
import fcntl
import mmap
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
VARVE = os.environ.get('VARVE', '')
SHIM = os.environ.get('FI_SHIM', '')
TIMEOUT = 30            # seconds for one whole case; then the daemon is killed, which ends every call into the mount
GOING_DOWN = 2 << 30 | 4 << 16 | ord('X') << 8 | 125      # of XFS and ext4
FS_BYTES = {'xfs': 320 << 20, 'ext4': 128 << 20, 'btrfs': 256 << 20}

KILL_BEFORE, KILL_HALF, KILL_AFTER, FAIL_ONCE = 3, 4, 5, 1
MODE_NAMES = {FAIL_ONCE: 'EIO', KILL_BEFORE: 'before', KILL_HALF: 'half', KILL_AFTER: 'after'}


class Broken(Exception):
    """The case itself cannot be run or went on for too long: counts as a failure."""


def run(*args, check=True, timeout=TIMEOUT, **kw):
    r = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **kw)
    if check and r.returncode:
        raise Broken('%s: exit %d: %s' % (' '.join(args), r.returncode, r.stdout.decode(errors='replace').strip()[-500:]))
    return r


class Counter:
    """The shared memory of fi_shim.c: how many persisting calls there were, which one is to be hit, and the log of all."""
    HEADER, LOG, MAGIC = 4096, 4 << 20, 0x3156494d49485346

    def __init__(self, path, at=0, mode=0, error=5, off=False):
        self.path = path
        with open(path, 'w+b') as f:
            f.truncate(self.HEADER + self.LOG)
            self.map = mmap.mmap(f.fileno(), self.HEADER + self.LOG)
        self.map[:64] = struct.pack('<8Q', self.MAGIC, 0, at, mode, error, 0, 0, int(off))

    def _word(self, i):
        return struct.unpack_from('<Q', self.map, 8 * i)[0]

    def count(self):
        return self._word(1)

    def was_hit(self):
        return self._word(5) > 0

    def go(self):
        struct.pack_into('<Q', self.map, 56, 0)

    def halt(self):
        struct.pack_into('<Q', self.map, 56, 1)

    def log(self):
        used = min(self._word(6), self.LOG)
        lines = self.map[self.HEADER:self.HEADER + used].decode(errors='replace').splitlines()
        return sorted((int(n), call, path) for n, call, path in (s.split(' ', 2) for s in lines if s.count(' ') >= 2))

    def close(self):
        self.map.close()
        os.unlink(self.path)


class World:
    """One worker's place: ram/ (on tmpfs) with images and start states, mnt/ (varve), and, for power loss, disk/ (a loop device)."""

    def __init__(self, top, fs='xfs'):
        self.top, self.fs = top, fs
        self.ram, self.mnt, self.disk = (os.path.join(top, d) for d in ('ram', 'mnt', 'disk'))
        for d in (top, self.ram, self.mnt, self.disk):
            os.makedirs(d, exist_ok=True)
        self.root = os.path.join(self.ram, 'case')
        self.log = os.path.join(self.ram, 'daemon.log')
        self.pause = os.path.join(self.ram, 'pause')    # while it exists, a fault point that says `pause` waits
        self.daemon = None
        self.lock = threading.Lock()

    # ---- where STORE and STATE lie ----

    def store(self):
        return os.path.join(self.root, 'store')

    def state(self):
        return os.path.join(self.root, 'state')

    def on_tmpfs(self, base):
        """A fresh copy of the start state `base` on tmpfs."""
        self.root = os.path.join(self.ram, 'case')
        shutil.rmtree(self.root, ignore_errors=True)
        copy_tree(base, self.root)

    def image(self):
        return os.path.join(self.ram, 'disk.img')

    def make_image(self, base, image):
        """A filesystem in a file that holds the start state, all of it on the disk."""
        with open(image, 'wb') as f:
            f.truncate(FS_BYTES[self.fs])
        run(*{'xfs': ('mkfs.xfs', '-q', '-f'), 'ext4': ('mkfs.ext4', '-q', '-F'), 'btrfs': ('mkfs.btrfs', '-q', '-f')}[self.fs], image)
        self.mount_image(image)
        copy_tree(base, os.path.join(self.disk, 'case'))
        self.umount_image()
        small = image + '.sparse'
        run('cp', '--sparse=always', image, small)
        os.replace(small, image)

    def mount_image(self, image=None):
        run('mount', '-o', 'loop,nouuid' if self.fs == 'xfs' else 'loop', image or self.image(), self.disk)
        self.root = os.path.join(self.disk, 'case')

    def umount_image(self):
        for _ in range(200):
            if run('umount', self.disk, check=False).returncode == 0:
                return
            time.sleep(0.02)
        raise Broken('cannot unmount ' + self.disk)

    def on_image(self, base):
        """A fresh filesystem with the start state; made once by each worker, since its UUID must be its own."""
        image = os.path.join(self.ram, 'base.img')
        if not os.path.exists(image):
            self.make_image(base, image)
        run('cp', '--sparse=always', image, self.image())
        self.mount_image()

    def lose_power(self):
        """What was not synced is gone: the filesystem stops at once, and comes back from its log."""
        if self.fs == 'btrfs':      # has no such ioctl in all kernels: a copy of what the device holds now is the same
            run('cp', '--sparse=always', self.image(), self.image() + '.cut')
            self.umount_image()
            os.replace(self.image() + '.cut', self.image())
        else:
            fd = os.open(self.disk, os.O_RDONLY)
            fcntl.ioctl(fd, GOING_DOWN, struct.pack('I', 2))     # 2: without writing the log first
            os.close(fd)
            self.umount_image()
        self.mount_image()

    # ---- the daemon ----

    def start(self, counter=None, faults=''):
        """Returns when the mount is usable, True; False: the daemon ended before."""
        env = dict(os.environ)
        if counter is not None:
            env.update(LD_PRELOAD=SHIM, FI_REPORT=counter.path, FI_PATH=self.store() + ':' + self.state(), FI_LOG='2')
        if faults:
            env.update(VARVE_FAULT=faults, VARVE_FAULT_PAUSE=self.pause)
        begin = self.log_size()
        with open(self.log, 'ab') as log:
            self.daemon = subprocess.Popen([VARVE, 'mount', self.store(), self.mnt, '-f', '-o', 'state=%s,host=crash,settle=0' % self.state()],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        threading.Thread(target=self._watch, args=(self.daemon,), daemon=True).start()
        with open(self.log, 'rb') as log:
            while True:
                log.seek(begin)
                if b' mounted on ' in log.read():
                    return True
                if self.daemon.poll() is not None:
                    self.bury()
                    return False
                time.sleep(0.001)

    def _watch(self, daemon):
        """Ends what goes on for too long. And a thread of a killed daemon may wait in the kernel for a lock (it told the kernel that
        a name is no longer right) whose holder waits for the daemon's answer: such a connection is aborted."""
        until, dead = time.monotonic() + TIMEOUT, 0
        while daemon.returncode is None:
            time.sleep(0.05)
            if time.monotonic() > until:
                with open(self.log, 'ab') as log:
                    log.write(b'HARNESS the case took too long: daemon killed\n')
                daemon.kill()
                dead = 3
            dead = dead + 1 if is_zombie(daemon.pid) else 0
            if dead > 3:
                with self.lock:     # never the mount of the next daemon
                    if self.daemon is daemon:
                        run('umount', '-f', '-l', self.mnt, check=False)
                return

    def how_it_ended(self):
        """Of a daemon that answers no more. It may still be on its way out: its mount goes first."""
        if self.daemon is None:
            return 'no daemon'
        try:
            status = self.daemon.wait(1)
        except subprocess.TimeoutExpired:
            return 'the daemon still runs'
        return 'the daemon died of signal %d' % -status if status < 0 else 'the daemon ended with status %d' % status

    def alive(self):
        return self.daemon is not None and self.daemon.poll() is None

    def bury(self):
        """Waits for a daemon that was killed, and takes its dead mount away."""
        if self.daemon is not None:
            self.daemon.wait()
            with self.lock:
                self.daemon = None
        for _ in range(50):
            if not is_mounted(self.mnt):
                return
            run('umount', '-f', '-l', self.mnt, check=False)
        raise Broken('cannot unmount ' + self.mnt)

    def kill(self):
        if self.alive():
            self.daemon.send_signal(signal.SIGKILL)
        self.bury()

    def stop(self):
        """The clean stop; its exit status. A daemon that dies on the way has that of its signal."""
        for _ in range(100):
            if not is_mounted(self.mnt) or run('umount', self.mnt, check=False).returncode == 0 or not self.alive():
                break
            time.sleep(0.01)
        else:
            raise Broken('the mount stays busy')
        try:
            status = self.daemon.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken('the daemon does not stop')
        self.bury()
        return status

    def varve(self, *args, check=True):
        return run(VARVE, *args, check=check)

    def log_from(self, pos):
        with open(self.log, 'rb') as f:
            f.seek(pos)
            return f.read().decode(errors='replace')

    def log_size(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def leave(self):
        """Everything that a broken case may have left behind."""
        if self.daemon is not None:
            self.kill()
        if is_mounted(self.mnt):
            run('umount', '-f', '-l', self.mnt, check=False)
        if is_mounted(self.disk):
            run('umount', self.disk, check=False).returncode and run('umount', '-l', self.disk, check=False)
        for name in ('case', 'disk.img'):
            path = os.path.join(self.ram, name)
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.path.exists(path) and os.unlink(path)


def is_zombie(pid):
    try:
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rpartition(')')[2].split()[0] == 'Z'
    except OSError:
        return False


def is_mounted(path):
    with open('/proc/self/mountinfo') as f:
        return any(line.split()[4] == path for line in f)


def copy_tree(src, dst):
    """Files with holes, owners and all; hard links are not needed: a stopped store has none."""
    run('cp', '-a', '--sparse=always', src, dst)
