#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon that was killed or stands still: what comes back, and that it takes nobody else along."""
import errno
import os
import pathlib
import signal
import subprocess
import time

import harness
from harness import Counter, Mount, run

OPEN_FILES = 100
c = Counter()


def attempt(fn):
    try:
        return fn()
    except OSError as e:
        return errno.errorcode[e.errno]


def check_killed():
    m = Mount(name="killed")
    try:
        m.start()
        (m.point / "d").mkdir()
        fds = []
        for i in range(OPEN_FILES):
            fds.append(os.open(m.point / "d" / f"x{i}.img", os.O_CREAT | os.O_RDWR, 0o600))
            os.write(fds[-1], bytes([i]) * 5000)
        for fd in fds[::10]:
            os.fsync(fd)
        m.proc.kill()
        m.proc.wait()
        dead = {attempt(lambda fd=fd: os.pwrite(fd, b"x", 0)) for fd in fds}      # (reads may come from the page cache)
        c.check(dead == {"ENOTCONN"}, f"files of a dead daemon: {dead}")
        begin = time.monotonic()
        run("umount", "-l", m.point)
        m.start()
        took = time.monotonic() - begin
        for i in range(OPEN_FILES):
            got = attempt(lambda i=i: (m.point / "d" / f"x{i}.img").read_bytes())
            c.check(got == bytes([i]) * 5000, f"x{i}.img after the restart: {got[:20]}")
        for i in range(0, OPEN_FILES, 10):
            (m.point / "d" / f"x{i}.img").write_bytes(b"again")
        again = {attempt(lambda fd=fd: os.pwrite(fd, b"x", 0)) for fd in fds}
        c.check(again <= {"ENOTCONN", "EIO"}, f"old descriptors: {again}")
        for fd in fds:
            attempt(lambda fd=fd: os.close(fd))
        run(harness.VARVE, "wait", m.point)
        print(f"killed with {OPEN_FILES} open files; usable again after {took:.2f} s")
        c.check(m.stop() == 0 and not m.errors(), f"the log: {m.errors()[:3]}")
        c.check(run(harness.VARVE, "verify", m.store, ok=False).returncode == 0, "verify")
    finally:
        m.remove()


def check_stopped():
    """Two daemons, one of them stands still."""
    a = Mount(name="a")
    b = Mount(name="b")
    third = Mount(name="c")
    try:
        a.start()
        b.start()
        (a.point / "d").mkdir()
        (a.point / "d" / "x.img").write_bytes(b"a" * 100000)
        a.proc.send_signal(signal.SIGSTOP)
        while not all(x.read_text().rsplit(")", 1)[1].split()[0] == "T" for x in pathlib.Path(f"/proc/{a.proc.pid}/task").glob("*/stat")):
            time.sleep(0.01)
        # Not even a kill ends who waits for it, before it goes on; so nobody waits for him.
        waiting = subprocess.Popen(["cat", a.point / "d" / "x.img", a.point / "no-such.img"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (b.point / "d").mkdir()
        (b.point / "d" / "x.img").write_bytes(b"b" * 3000000)
        run(harness.VARVE, "wait", b.point)
        run(harness.VARVE, "status", b.point)
        c.check((b.point / "d" / "x.img").read_bytes() == b"b" * 3000000, "the other mount")
        third.start()
        c.check(third.stop() == 0, "a third mount beside a stopped one")
        c.check(b.stop() == 0 and not b.errors(), f"the other mount's log: {b.errors()[:3]}")
        b.start()
        c.check((b.point / "d" / "x.img").read_bytes() == b"b" * 3000000, "the other mount, mounted anew")
        c.check(waiting.poll() is None, "a stopped daemon answered")
        a.proc.send_signal(signal.SIGCONT)
        c.check(waiting.wait(harness.LIMIT) == 1, "who waited for the stopped daemon")
        c.check((a.point / "d" / "x.img").read_bytes() == b"a" * 100000, "the stopped one, going on")
        c.check(a.stop() == 0 and not a.errors(), f"the log: {a.errors()[:3]}")
        c.check(b.stop() == 0, "the other mount's end")
    finally:
        if a.proc is not None and a.proc.poll() is None:
            a.proc.send_signal(signal.SIGCONT)
        for m in (a, b, third):
            m.remove()


def main():
    check_killed()
    check_stopped()
    c.end()


if __name__ == "__main__":
    main()
