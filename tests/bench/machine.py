# SPDX-License-Identifier: Apache-2.0
"""Running commands and daemons so that time, CPU seconds and memory of each are known."""

import os
import shutil
import signal
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
LIMIT = int(os.environ.get("BENCH_LIMIT", "1800"))      # seconds that one command may take


class Failed(Exception):
    """A command failed; the text says which and shows the end of its output."""


class Cost:
    """Wall seconds, CPU seconds, and the largest resident memory (bytes) of what ran; costs add up."""

    def __init__(self, wall=0.0, cpu=0.0, peak=0, anon=0):
        self.wall, self.cpu, self.peak, self.anon = wall, cpu, peak, anon

    def __add__(self, other):
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak), max(self.anon, other.anon))


def run(*argv, env=None, cwd=None, output=None):
    """Runs a command under a time limit; its Cost. output: a file object for what it prints (default: the log)."""
    argv = [str(a) for a in argv]
    with open(os.environ["BENCH_LOG"], "ab") as log:
        log.write(("$ " + " ".join(argv) + "\n").encode())
        log.flush()
        begin = time.monotonic()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output or log, stderr=log, cwd=cwd, env={**os.environ, **(env or {})})
    watcher = Watcher(child.pid, "VmHWM", LIMIT)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - begin
    watcher.end()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise Failed(f"exit {child.returncode} of: {' '.join(argv)[:200]} (output: {os.environ['BENCH_LOG']})")
    return Cost(wall, usage.ru_utime + usage.ru_stime, watcher.most)


class Watcher:
    """Looks at the memory of a process every now and then (ru_maxrss of a child counts its parent's, too), and kills it when
    it takes longer than `limit` seconds."""

    def __init__(self, pid, what, limit=None):
        self.pid, self.what, self.most, self.stopping = pid, what, 0, threading.Event()
        self.until = None if limit is None else time.monotonic() + limit
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        pause = 0.002       # short commands are seen, too
        while not self.stopping.wait(pause):
            pause = min(0.05, pause * 1.5)
            self.most = max(self.most, field(self.pid, self.what))
            if self.until is not None and time.monotonic() > self.until:
                os.kill(self.pid, signal.SIGKILL)
                return

    def end(self):
        self.stopping.set()
        self.thread.join()


def printed(*argv, env=None):
    """What a command prints."""
    path = os.environ["BENCH_LOG"] + ".out"
    with open(path, "wb") as out:
        run(*argv, env=env, output=out)
    with open(path, "rb") as out:
        return out.read().decode()


def field(pid, name):
    """A line of /proc/PID/status in bytes, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Daemon:
    """A filesystem in user space: start, CPU and memory while it serves, stop by umount."""

    def __init__(self, argv, mountpoint, log):
        self.mountpoint = mountpoint
        os.makedirs(mountpoint, exist_ok=True)
        with open(log, "ab") as out:
            self.child = subprocess.Popen([*map(str, argv)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        for _ in range(300):
            if self.child.poll() is not None:
                raise Failed(f"{argv[0]} ended while starting: see {log}")
            if self.mounted() and subprocess.run(["timeout", "5", "stat", "-f", mountpoint], capture_output=True,
                                                 check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise Failed(f"{argv[0]} is not usable after 30 s: see {log}")
        self.watcher = Watcher(self.child.pid, "RssAnon")

    def mounted(self):
        with open("/proc/mounts", encoding="utf-8") as mounts:
            return any(line.split()[1] == self.mountpoint for line in mounts)

    def cpu(self):
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as stat:
            values = stat.read().rsplit(")", 1)[1].split()
        return (int(values[11]) + int(values[12])) / TICK

    def cost(self, action, *args):
        """Cost of an action (which returns a Cost or nothing), the daemon's share included."""
        cpu, begin = self.cpu(), time.monotonic()
        own = action(*args) or Cost()
        wall = time.monotonic() - begin
        return Cost(wall, own.cpu + self.cpu() - cpu, max(own.peak, field(self.child.pid, "VmHWM")), self.watcher.most)

    def stop(self):
        self.watcher.end()
        if self.mounted():
            subprocess.run(["timeout", "60", "umount", self.mountpoint], check=False, capture_output=True)
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            subprocess.run(["umount", "-l", self.mountpoint], check=False, capture_output=True)
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()


def settle():
    """Nothing of an earlier step is left to be written when the next one is timed."""
    os.sync()


def warm(path):
    """Into the page cache."""
    with open(path, "rb", buffering=0) as data:
        while data.read(1 << 22):
            pass


def tree_bytes(path):
    """Allocated bytes of a directory."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as info:
        return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable:"))


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def facts():
    """The machine, for the head of a result."""
    model = "?"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gb": round(memory / 1e9), "kernel": os.uname().release,
            "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
