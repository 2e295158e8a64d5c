#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where STORE, STATE and the mount point may lie, and what root takes over of a STATE that others could touch."""
import os

import harness
from harness import Counter, Mount, run

SERVICE, STRANGER = 1005, 1002
c = Counter()


def refused(what, m, says, store=None, state=None, point=None, code=None):
    """A mount that must fail with these words, mount nothing and hang nowhere."""
    p = run("timeout", "-k", "2", "50", harness.VARVE, "mount", store or m.store, point or m.point, "-o", f"state={state or m.state}", ok=False)
    c.check(p.returncode not in (0, 124, 137) and says in p.stderr and (code is None or p.returncode == code),
            f"{what}: exit {p.returncode}, said {p.stderr.strip()!r}")
    if not c.check(f" {point or m.point} fuse" not in open("/proc/mounts", encoding="utf-8").read(), f"{what}: it is mounted"):
        run("umount", "-l", point or m.point)


def owners(top):
    return {str(x): (os.lstat(x).st_uid, os.lstat(x).st_mode) for x in [top, *top.rglob("*")]}


def check_nesting(m):
    inside = m.store / "here"
    inside.mkdir()
    refused("inside the store", m, "lies inside the store", point=inside)
    inside.rmdir()
    refused("the store itself", m, "lies inside the store", point=m.store)
    refused("the store inside", m, "would hide it", point=m.base)
    far = m.base / "far"
    far.mkdir()
    m.start()
    c.check(m.stop() == 0, "the daemon did not end well")
    (m.state / "rounds" / "mnt").mkdir()
    refused("inside the state", m, "lies inside the state directory", point=m.state / "rounds" / "mnt")
    (m.state / "rounds" / "mnt").rmdir()
    refused("the state inside", m, "would hide it", state=far / "other" / "state", point=far)
    link = m.base / "link"
    link.symlink_to(m.store / "containers")
    refused("through a link", m, "lies inside the store", point=link)
    link.unlink()


def check_foreign_state(m):
    foreign = m.base / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("x")
    before = owners(foreign)
    refused("a directory in use", m, "no state of varve", state=foreign)
    c.check(all(owners(foreign)[k] == v for k, v in before.items() if k != str(foreign)), "a foreign directory was changed")
    theirs = m.base / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, STRANGER, STRANGER)
    refused("another user's directory", m, f"belongs to uid {STRANGER}", state=theirs)
    c.check(os.stat(theirs).st_uid == STRANGER, "another user's directory was taken over")
    loose = m.base / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    refused("a directory for all", m, "can be written to by others", state=loose)


def check_giving(m):
    """STORE is the service user's, and so is STATE: he may have put anything into it before root starts the next daemon."""
    victim = m.base / "victim"
    victim.write_text("root's")
    victim.chmod(0o600)
    (m.base / "dir").mkdir()
    for what, make, says in (
            ("a hard link", lambda x: os.link(victim, x), "hard link"),
            ("a link", lambda x: x.symlink_to(victim), "neither file nor directory"),
            ("a link to a directory", lambda x: x.symlink_to(m.base / "dir"), "neither file nor directory"),
            ("a device", lambda x: os.mknod(x, 0o20600, os.makedev(1, 3)), "neither file nor directory"),
            ("a fifo", lambda x: os.mkfifo(x, 0o600), "neither file nor directory"),
            ("a stranger's file", lambda x: (x.write_text("x"), os.chown(x, STRANGER, STRANGER)), "neither root nor the owner")):
        for at in ("planted", "disks/planted"):
            make(m.state / at)
            refused(f"{what} in STATE ({at})", m, says)
            c.check(os.stat(victim).st_uid == 0 and os.stat(m.base / "dir").st_uid == 0, f"{what} at {at}: what it leads to was given away")
            (m.state / at).unlink()
    (m.state / "disks").rename(m.base / "disks")
    (m.state / "disks").symlink_to(m.base / "disks")
    refused("disks/ is a link", m, "")
    (m.state / "disks").unlink()
    (m.base / "disks").rename(m.state / "disks")
    os.chmod(m.state, 0o755)
    (m.state / "roots").write_text("left by root")             # a start that was killed before it gave STATE away
    m.start()
    c.check(os.stat(m.state / "roots").st_uid == SERVICE, "a file that root left was not given to the daemon")
    c.check(os.stat(m.state).st_mode & 0o777 == 0o700, "STATE stays open to others")
    c.check(m.stop() == 0, "the daemon did not end well")


def check_two(m):
    """One STATE, one daemon; one mount point, one mount."""
    m.start()
    second = m.base / "second"
    second.mkdir()
    refused("a second mount of one STATE", m, f"pid {m.proc.pid}", point=second, code=11)
    p = run(harness.VARVE, "mount", m.store, m.point, "-o", f"state={m.base}/state2", ok=False)
    c.check(p.returncode == 11 and "mounted there already" in p.stderr, f"mounted twice: {p.returncode} {p.stderr}")
    p = run(harness.VARVE, "rebuild", "--state", m.state, m.store, ok=False)
    c.check(p.returncode == 11 and str(m.proc.pid) in p.stderr, f"rebuild while mounted: {p.returncode} {p.stderr}")
    (m.point / "still.img").write_bytes(b"there")
    c.check(m.stop() == 0, "the daemon did not end well")


def main():
    m = Mount(name="places")
    try:
        run(harness.VARVE, "init", m.store)
        check_nesting(m)
        run("chown", "-R", f"{SERVICE}:{SERVICE}", m.store)
        check_foreign_state(m)
        m.start()
        (m.point / "d").mkdir()
        (m.point / "d" / "x.img").write_bytes(b"x" * 100000)
        c.check(m.stop() == 0, "the daemon did not end well")
        check_giving(m)
        check_two(m)
    finally:
        m.remove()
    c.end()


if __name__ == "__main__":
    main()
