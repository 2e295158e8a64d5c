#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The privacy matrix: every way to ask x every kind of user x every kind of file x every state, on a root mount with allow_other.
What is right comes from the tables below (owner, group, mode as they were set), never from what the mount says."""
import errno
import json
import os
import pathlib
import re
import subprocess

import harness
from harness import Counter, Mount, PYTHON, as_user, run

A, MEMBER, OTHER, B = (1001, 1001, ()), (1003, 1003, (1001,)), (1002, 1002, ()), (1004, 1004, ())
ROOT = (0, 0, ())
USERS = {"owner": A, "member": MEMBER, "other": OTHER, "new-owner": B, "root": ROOT}
MARK = {A: "secret of A", B: "secret of B"}
PAUSE = "dedup.4b.before_publish:1=pause"
DENIED = {"EACCES", "EPERM"}
TABLE = {}              # File by name, of snapshots whose name is unique
DISKS = {}              # File by path below the mount point, of live disks
c = Counter()


class File:
    """kind: live, snap or dir. owner, mode: what they must be. top: mode and owner of the directory it lies in."""

    def __init__(self, path, kind, owner, mode, top, mark=None, state="stored"):
        self.path, self.kind, self.owner, self.mode, self.top = path, kind, owner, mode, top
        self.mark, self.state = mark or MARK.get(owner, ""), state
        if kind == "snap":
            TABLE[path.name] = self
        if kind == "live":
            DISKS["%s/%s" % (path.parent.name, path.name)] = self


def may(user, owner, mode, bits):
    if user[0] == 0:
        return True
    shift = 6 if user[0] == owner[0] else 3 if owner[1] in [user[1], *user[2]] else 0
    return mode >> shift & bits == bits


def remaining(user, f):
    """What the tables say of each probe: a set of errnos, or a function that judges the value."""
    search = may(user, f.top[1], f.top[0], 1)
    r, w = search and may(user, f.owner, f.mode, 4), search and f.kind == "live" and may(user, f.owner, f.mode, 2)
    in_dir = search and may(user, f.top[1], f.top[0], 2)
    mine, root = search and user[0] in (0, f.owner[0]), user[0] == 0
    snap, stored = f.kind == "snap", f.state == "stored"
    yes = lambda v: True                                                    # noqa: E731
    read = lambda good: good if r else DENIED                               # noqa: E731
    reach = lambda good: good if search else DENIED                         # noqa: E731
    # An owner who may read a snapshot is shown the right to write, for the mode of his copies; it gives none.
    shown = f.mode | (f.mode & 0o400) >> 1 if snap else f.mode
    no_write = {"EROFS", "EACCES"} if root or (snap and may(user, f.owner, shown, 2)) else DENIED
    want = [
        ("stat", None, reach(lambda v: v >= len(f.mark))),
        ("owner", None, reach(lambda v: v == [f.owner[0], f.owner[1], shown])),
        ("open_r", None, read(yes)),
        ("read", None, read(lambda v: v.startswith(f.mark))),
        ("copy_out", None, read(lambda v: v > 0)),
        ("seek", None, read(lambda v: v == 0)),
        ("readlink", None, {"EINVAL"} if search else DENIED),
        ("getxattr", "user.varve.id", read(lambda v: len(v) == 32)),
        ("getxattr", "user.varve.state", read(lambda v: v == ("live" if not snap else f.state))),
        ("getxattr", "user.varve.flags", read(yes)),
        ("getxattr", "user.varve.host", read(lambda v: v == "testhost")),
        ("getxattr", "trusted.varve.levels", yes if root and snap and stored else {"ENODATA"} | DENIED),
        ("getxattr", "trusted.varve.digest", yes if root and snap and stored else {"ENODATA"} | DENIED),
        ("getxattr", "security.selinux", {"ENODATA", "EOPNOTSUPP"} | (set() if search else DENIED)),
        ("getxattr", "security.capability", {"ENODATA", "EOPNOTSUPP"} | (set() if search else DENIED)),
        ("getxattr", "system.posix_acl_access", {"ENODATA", "EOPNOTSUPP"} | (set() if search else DENIED)),
        ("getxattr", "user.other", {"ENODATA"} if r else DENIED),
        ("listxattr", None, reach(lambda v: v == [])),
        ("setxattr", "user.varve.state", {"EOPNOTSUPP"} | DENIED),
        ("setxattr", "trusted.varve.levels", {"EOPNOTSUPP"} if root else DENIED),
        ("setxattr", "security.selinux", {"EOPNOTSUPP", "EPERM", "EACCES"}),
        ("statfs", None, reach(lambda v: v > 0)),
        ("ioctl_INFO", None, read(lambda v: bool(v["state"]) == bool(v["pid"]) == root)),
        ("ioctl_LOG", None, read(lambda v: not hidden(v, user))),
        ("ioctl_LOG", "1", read(lambda v: not hidden(v, user))),
        ("ioctl_LIST", None, read(lambda v: not unseen(v, user)) if f.kind == "live" else {"ENOTTY"} if r else DENIED),
        ("chown", "1002", {"EPERM", "EACCES"} if not root else None),
    ]
    if not w:
        want += [("open_w", None, no_write), ("open_rw", None, no_write), ("open_trunc", None, no_write), ("open_append", None, no_write),
                 ("copy_in", None, no_write), ("truncate", "5", no_write), ("truncate", "0", no_write),
                 ("setxattr", "user.varve.note", DENIED if not root else None)]
        if f.kind == "live":
            want += [("ioctl_SNAPSHOT", None, DENIED), ("ioctl_REVERT", "0" * 32, DENIED)]
        want += [("ioctl_COPY", "1", no_write)]
    else:
        want += [("open_w", None, yes), ("open_rw", None, yes), ("ioctl_REVERT", "0" * 32, {"ENOENT"}), ("ioctl_COPY", "77", {"EINVAL"})]
    if not mine:
        want += [("chmod", "777", DENIED), ("utimes", None, DENIED)]
    if not in_dir:
        want += [("unlink", None, DENIED), ("rename", str(f.path) + ".x", DENIED), ("create", str(f.path) + ".new", DENIED)]
    return [(n, a, e) for n, a, e in want if e is not None]


def hidden(log, user):
    """Is there anything in a history that the user must not know? Names of the table's snapshots; levels are root's."""
    for name in re.findall(r'"name": "([^"]*)"', log):
        f = TABLE.get(name)
        if f is not None and not may(user, f.owner, f.mode, 4):
            return True
    return user[0] != 0 and ('"levels"' in log or '"added"' in log)


def unseen(listing, user):
    """Is there a disk in a list that the user may not read or reach, or a snapshot that he may not read?"""
    for disk in json.loads(listing)["disks"]:
        f = DISKS.get(disk["path"])
        if f is not None and not (may(user, f.top[1], f.top[0], 1) and may(user, f.owner, f.mode, 4)):
            return disk["path"]
        for which in ("last_good", "newest"):
            f = TABLE.get((disk[which] or {}).get("name"))
            if f is not None and not may(user, f.owner, f.mode, 4):
                return f.path.name
    return None


def judge(phase, name, user, f, probe, arg, want, got):
    value, error = got
    good = error in want if isinstance(want, set) else error is None and want(value)
    c.check(good, f"{phase}: {name} ({user[0]}): {probe}({arg or ''}) of {f.path.relative_to(f.path.parents[1])}: "
                  f"{str(value)[:300] if error is None else error}, wanted {sorted(want) if isinstance(want, set) else 'a proper answer'}")


def sweep(m, phase, files):
    for name, user in USERS.items():
        plan = [(f, *t) for f in files for t in remaining(user, f)]
        got = m.probe(user, [[n, f.path, a] for f, n, a, _ in plan], own=m.point / "own" / f".{user[0]}.img")
        for (f, n, a, want), g in zip(plan, got):
            judge(phase, name, user, f, n, a, want, g)


# ---- what is in the mount ----

def snaps(path):
    stem = path.name.rsplit(".", 1)[0]
    return sorted((p for p in path.parent.iterdir() if p.name.startswith(stem + "@")), key=lambda p: p.stat().st_mtime_ns)


def write(user, path, umask="027", extra=""):
    return f"umask {umask}; printf '{MARK[user]}%200000s' x >{path}; {extra}"


def prepare(m):
    """Everything that is stored: written by its owner, as a user does it."""
    p = m.point
    os.chmod(p, 0o755)
    for name, owner, mode in (("vm", A, 0o755), ("priv", A, 0o700), ("sh", ROOT, 0o777), ("sticky", ROOT, 0o1777), ("own", ROOT, 0o777),
                              ("grp", A, 0o750)):
        (p / name).mkdir()
        os.chown(p / name, owner[0], owner[1])
        os.chmod(p / name, mode)
    for u in USERS.values():
        (p / "own" / f".{u[0]}.img").write_bytes(b"own")
        os.chown(p / "own" / f".{u[0]}.img", u[0], u[1])
        os.chmod(p / "own" / f".{u[0]}.img", 0o600)
    m.sh(A, write(A, "vm/disk.img", extra="touch vm/disk@keep.img"))
    m.sh(A, write(A, "priv/disk.img", umask="022"))
    m.sh(A, write(A, "grp/disk.img", umask="007"))
    m.sh(A, write(A, "sh/given.img", umask="007"))          # will be B's
    m.sh(A, write(A, "sh/open.img", umask="077", extra="touch sh/open@old.img; chmod 644 sh/open.img; touch sh/open@new.img"))
    m.sh(A, write(A, "sh/closed.img", umask="022", extra="touch sh/closed@open.img; chmod 600 sh/closed.img; touch sh/closed@closed.img"))
    m.sh(A, write(A, "sticky/again.img", umask="007", extra="touch sticky/again@mine.img; rm sticky/again.img"))
    killed = subprocess.Popen([*as_user(A), PYTHON, "-c", "import os, sys, time\nos.umask(0o027)\nf = open(sys.argv[1], 'wb')\n"
                               "f.write(b'secret of A' + b'x' * 300000)\nf.flush()\nprint('there', flush=True)\ntime.sleep(60)",
                               str(p / "vm/part.img")], stdout=subprocess.PIPE)
    killed.stdout.readline()
    killed.kill()
    killed.wait()
    run(harness.VARVE, "wait", p)
    os.chown(p / "sh/given.img", B[0], B[1])
    os.chmod(p / "sh/given.img", 0o600)
    m.sh(B, "touch sh/given@later.img")
    m.sh(B, write(B, "sticky/again.img", umask="077"))      # the name of a disk of A's, whose snapshots are still there
    run(harness.VARVE, "wait", p)


def stored_files(m):
    p = m.point
    vm, priv, sh, sticky, grp = (0o755, A), (0o700, A), (0o777, ROOT), (0o1777, ROOT), (0o750, A)
    files = [File(p / "vm/disk.img", "live", A, 0o640, vm), File(p / "vm/disk@keep.img", "snap", A, 0o440, vm),
             File(p / "vm/part.img", "live", A, 0o640, vm),
             File(p / "priv/disk.img", "live", A, 0o644, priv), File(p / "grp/disk.img", "live", A, 0o660, grp),
             File(p / "sh/given.img", "live", B, 0o600, sh, mark=MARK[A]), File(p / "sh/given@later.img", "snap", B, 0o400, sh, mark=MARK[A]),
             File(p / "sh/open.img", "live", A, 0o644, sh), File(p / "sh/open@old.img", "snap", A, 0o400, sh),
             File(p / "sh/open@new.img", "snap", A, 0o444, sh), File(p / "sh/closed@open.img", "snap", A, 0o444, sh),
             File(p / "sh/closed@closed.img", "snap", A, 0o400, sh), File(p / "sh/closed.img", "live", A, 0o600, sh),
             File(p / "sticky/again.img", "live", B, 0o600, sticky), File(p / "sticky/again@mine.img", "snap", A, 0o440, sticky)]
    for path, owner, mode, top in (("vm/disk.img", A, 0o440, vm), ("vm/part.img", A, 0o440, vm), ("priv/disk.img", A, 0o444, priv),
                                   ("grp/disk.img", A, 0o440, grp), ("sh/given.img", A, 0o440, sh), ("sticky/again.img", A, 0o440, sticky)):
        first = next(s for s in snaps(p / path) if re.search(r"@\d{8}T", s.name))
        files.append(File(first, "snap", owner, mode, top))
    return files


def pending_files(m):
    """Frozen while the round stands still; one disk changes hands while its snapshot is pending."""
    p = m.point
    m.sh(A, "touch vm/disk@pend.img")
    m.sh(A, write(A, "sh/pg.img", umask="077"))
    frozen = snaps(p / "sh/pg.img")[0]
    os.chown(p / "sh/pg.img", B[0], B[1])
    os.chmod(p / "sh/pg.img", 0o644)
    m.sh(B, write(B, "sh/bsrc.img", umask="077", extra="touch sh/bsrc@x.img"))
    # A disk onto another owner's: what is made of it then is the new content's owner's.
    m.sh(A, write(A, "sh/onto.img", umask="022"))
    m.sh(B, write(B, "sh/.tmp.img", umask="077", extra="mv sh/.tmp.img sh/onto.img"))
    old, new = snaps(p / "sh/onto.img")
    return [File(p / "vm/disk@pend.img", "snap", A, 0o440, (0o755, A), state="pending"),
            File(p / "sh/pg.img", "live", B, 0o644, (0o777, ROOT), mark=MARK[A]),
            File(frozen, "snap", A, 0o400, (0o777, ROOT), state="pending"),
            File(p / "sh/bsrc@x.img", "snap", B, 0o400, (0o777, ROOT), state="pending"),
            File(snaps(p / "sh/bsrc.img")[0], "snap", B, 0o400, (0o777, ROOT), state="pending"),
            File(p / "sh/onto.img", "live", B, 0o600, (0o777, ROOT)),
            File(old, "snap", A, 0o444, (0o777, ROOT), state="pending"),
            File(new, "snap", B, 0o400, (0o777, ROOT), state="pending")]


def provisional(m):
    """Flushed, not closed: its writer is still there."""
    w = subprocess.Popen([*as_user(A), PYTHON, "-c", "import os, sys\nos.umask(0o077)\nfd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o666)\n"
                          "os.write(fd, b'secret of A' + b'x' * 300000)\nos.close(os.dup(fd))\nprint('there', flush=True)\nsys.stdin.read()",
                          str(m.point / "vm/prov.img")], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    w.stdout.readline()
    snap = snaps(m.point / "vm/prov.img")[0]
    c.check(os.getxattr(snap, "user.varve.flags") == b"provisional", "the provisional snapshot is not one")
    return w, [File(m.point / "vm/prov.img", "live", A, 0o600, (0o755, A)), File(snap, "snap", A, 0o400, (0o755, A), state="pending")]


# ---- what is not about one file ----

def check_tree(m, phase, pending):
    """Directories, waiting on the whole mount, ids as a way in, .varve."""
    p = m.point
    given = [s for s in snaps(p / "sh/given.img") if os.stat(s).st_uid == A[0]][0]
    his = os.getxattr(given, "user.varve.id").decode()
    later = p / "sh/given@later.img"
    for name, user in USERS.items():
        root = user[0] == 0
        yes = lambda v: True                                                # noqa: E731
        listed = lambda v: isinstance(v, list)                              # noqa: E731
        plan = [("readdir", p, None, listed), ("readdir", p / "vm", None, listed),
                ("readdir", p / "priv", None, listed if root or user is A else DENIED),
                ("readdir", p / "grp", None, listed if root or user in (A, MEMBER) else DENIED),
                ("readdir", p / ".varve", None, listed if root else DENIED),
                ("stat", p / "priv/disk.img", None, yes if root or user is A else DENIED),
                ("stat", p / "priv/no-such.img", None, {"ENOENT"} if root or user is A else DENIED),
                ("create", p / "vm/new.img", None, None if root or user is A else DENIED),
                ("listxattr", p / "priv", None, lambda v: v == []),
                ("ioctl_INFO", p, None, lambda v, root=root: bool(v["state"]) == bool(v["pid"]) == root),
                ("ioctl_LIST", p, None, lambda v, user=user: not unseen(v, user)), ("ioctl_COPY", p, "1", {"EISDIR", "ENOTTY", "EACCES"}),
                ("ioctl_LOG", p, None, {"ENOTTY"}), ("ioctl_REVERT", p, "0" * 32, {"EISDIR", "ENOTTY", "EACCES"}),
                waiting(p, pending(user)), waiting(p / "sh", pending(user, "sh")),
                ("ioctl_SNAPSHOT", p / "vm", None, None if root or user is A else DENIED),
                ("ioctl_SNAPSHOT", p / "sh", None, None if root else DENIED),
                ("getxattr", later, "user.varve.parent", (lambda v: v == his) if root else {"ENODATA"} if user is B else DENIED),
                ("ioctl_REVERT", p / "sh/given.img", his, {"ENOENT"} if user is B else None if root else DENIED),
                ("ioctl_REVERT", p / "own" / f".{user[0]}.img", his, None if root or user in (A, MEMBER) else {"ENOENT"}),
                ("ioctl_WAIT", p / "sh/given.img", None, (lambda v: v == 0) if user is B else None if root else DENIED),
                ("ioctl_LOG", p / "sh/given.img", None, (lambda v: given.name not in v and "@later" in v) if user is B else None),
                ("ioctl_LOG", p / "sticky/again.img", None, (lambda v: "mine" not in v) if user is B else None),
                ("ioctl_LOG", p / "sh/open.img", None, lambda v, see=root or user is A: ("@old" in v) == see and "@new" in v)]
        for x in ("status.json", "metrics", "events"):
            plan += [("open_r", p / ".varve" / x, None, yes if root else DENIED), ("stat", p / ".varve" / x, None, yes if root else DENIED),
                     ("chmod", p / ".varve" / x, "644", {"EPERM", "EACCES"}), ("open_w", p / ".varve" / x, None, {"EACCES", "EPERM"})]
        plan = [t for t in plan if t[3] is not None]
        for (n, path, a, want), got in zip(plan, m.probe(user, [t[:3] for t in plan])):
            judge(phase, name, user, File(path, "dir", ROOT, 0, (0, ROOT), mark="x"), n, a, want, got)


def waiting(path, n):
    """Nothing of his pending: an answer at once. Else he waits, for as long as the round stands still."""
    return "ioctl_WAIT", path, "20" if n == 0 else "0.2", (lambda v: v == 0) if n == 0 else lambda v: v in ("waits", n)


def pending_counter(files):
    """How many of the pending ones a user may wait for; those that a user makes meanwhile are none of this table."""
    def count(user, top=None):
        return sum(1 for f in files if f.state == "pending" and may(user, f.owner, f.mode, 4) and (top is None or f.path.parent.name == top))
    return count


def check_outside(m, phase):
    """STORE, STATE, temporary files, the daemon in /proc, the log."""
    pid = m.proc.pid
    paths = [x for top in (m.store, m.state) for x in [top, *top.rglob("*")]]
    loose = [f"{x} {os.lstat(x).st_mode & 0o7777:o}" for x in paths if os.path.lexists(x) and os.lstat(x).st_mode & 0o077]
    c.check(not loose, f"{phase}: open to others: {loose[:5]}")
    deny = [[("readdir" if x.is_dir() else "open_r"), x, None] for x in [m.store, m.state, *sorted(m.store.rglob("*"))[:40], *sorted(m.state.rglob("*"))[:40]]]
    secret = [["open_r", f"/proc/{pid}/{x}", None] for x in ("environ", "maps", "mem", "auxv", "io", "stack", "syscall", "pagemap", "smaps")]
    secret += [["readdir", f"/proc/{pid}/{x}", None] for x in ("fd", "map_files")]
    secret += [["readlink", f"/proc/{pid}/{x}", None] for x in ("cwd", "root", "exe", "fd/0", "fd/2")]
    for name, user in USERS.items():
        if user[0] == 0:
            continue
        for (n, path, _), (value, error) in zip(deny + secret, m.probe(user, deny + secret)):
            c.check(value is None and error in DENIED | {"ENOENT"}, f"{phase}: {name}: {n} {path}: {value or error}")
    text = m.log.read_text(errors="replace")
    c.check("secret" not in text, f"{phase}: the log holds data of users")     # of names it is full; syslog is root's to read
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        where = os.readlink(fd)
        c.check(where.startswith((str(m.store), str(m.state), "/dev/fuse", "/dev/null", "anon_inode:", "pipe:", "socket:", str(m.log))),
                f"{phase}: the daemon has {where} open")


def check_open_reader(m):
    """A reader keeps his descriptor: another owner's content must not come to him through it."""
    m.sh(A, write(A, "sh/watched.img", umask="022"))
    m.sh(B, write(B, "sh/.b.img", umask="077"))
    program = """import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('there', flush=True)
sys.stdin.readline()
try:
    print(os.pread(fd, 11, 0).decode(), flush=True)
except OSError as e:
    print(os.strerror(e.errno), flush=True)
"""
    reader = subprocess.Popen([*as_user(OTHER), PYTHON, "-c", program, str(m.point / "sh/watched.img")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    reader.stdout.readline()
    m.sh(B, "mv sh/.b.img sh/watched.img")
    said, _ = reader.communicate("\n", timeout=harness.LIMIT)
    c.check(said.strip() in (os.strerror(errno.ESTALE), os.strerror(errno.EIO)), f"an open reader got {said.strip()!r}")
    value, error = m.probe(OTHER, [["read", m.point / "sh/watched.img", None]])[0]
    c.check(error in DENIED, f"after the rename: {value}")


def check_ioctls_known():
    """A new ioctl needs its probes here."""
    header = (harness.HERE.parents[1] / "include/varve/ioctl.h").read_text()
    defined = set(re.findall(r"#define VARVE_IOC_(\w+) _IO", header))
    c.check(defined == {"SNAPSHOT", "REVERT", "WAIT", "INFO", "LOG", "LIST", "COPY"}, f"ioctls without probes: {defined}")


def main():
    check_ioctls_known()
    m = Mount(name="matrix").prober()
    writer = None
    pause = m.base / "pause"
    env = {"VARVE_FAULT": PAUSE, "VARVE_FAULT_PAUSE": str(pause)}
    try:
        m.start()
        prepare(m)
        files = stored_files(m)
        check_open_reader(m)
        run(harness.VARVE, "wait", m.point)
        sweep(m, "stored", files)
        check_tree(m, "stored", pending_counter(files))
        c.check(m.stop() == 0, "the daemon did not end well")
        pause.touch()
        m.start(env)
        files += pending_files(m)
        writer, more = provisional(m)
        files += more
        sweep(m, "pending", files)
        check_tree(m, "pending", pending_counter(files))
        check_outside(m, "pending")
        m.kill()
        writer.kill()
        m.start(env)
        sweep(m, "killed, still pending", files)
        check_tree(m, "killed, still pending", pending_counter(files))
        m.kill()
        for x in m.state.glob("catalog.sqlite*"):
            x.unlink()
        m.start(env)
        sweep(m, "catalog lost, still pending", files)
        check_tree(m, "catalog lost, still pending", pending_counter(files))
        pause.unlink()
        run(harness.VARVE, "wait", m.point)
        for f in files:
            f.state = "stored"
        sweep(m, "stored at last", files)
        check_tree(m, "stored at last", pending_counter(files))
        check_outside(m, "stored at last")
        m.stop()
        for x in m.state.glob("catalog.sqlite*"):
            x.unlink()
        m.start()
        sweep(m, "catalog lost, stored", files)
        c.check(not m.errors(), f"the log: {m.errors()[:3]}")
    finally:
        if writer is not None:
            writer.kill()
        m.remove()
    c.end()


if __name__ == "__main__":
    main()
