#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the daemon can still do once it serves: identity, capabilities, descriptors, sandbox; hardening of the program; the unit."""
import ctypes
import errno
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import harness
from harness import Counter, Mount, run

SERVICE = 1005
c = Counter()
landlock = ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1) >= 2


def status(path):
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", pathlib.Path(path, "status").read_text(), re.M))


def check_guard(m, pid, how):
    """What stays root beside the daemon: it has the socket to the daemon and nothing else of anybody's."""
    s = status(pathlib.Path(f"/proc/{pid}"))
    c.check(s["NoNewPrivs"].strip() == "1", f"{how}: the guard may gain privileges")
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        where = os.readlink(fd)
        good = where.startswith("socket:") or where in (str(m.log), "/dev/null") and int(fd.name) <= 2
        c.check(good, f"{how}: the guard's descriptor {fd.name} is {where}")


def check_process(pid, uid, m, how):
    """Of each thread: capabilities belong to threads."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        s = status(task)
        for field, want in (("Uid", "\t".join([str(uid)] * 4)), ("Gid", "\t".join([str(uid)] * 4)), ("Groups", ""), ("CapInh", "0" * 16),
                            ("CapPrm", "0" * 16), ("CapEff", "0" * 16), ("CapBnd", "0" * 16), ("CapAmb", "0" * 16), ("NoNewPrivs", "1"),
                            ("Umask", "0077")):
            c.check(s[field].strip() == want, f"{how}: {field} is {s[field]!r}, not {want!r}")
        # A sanitizer's own thread is older than the filter; TSYNC gives it the filter, too.
        c.check(s["Seccomp"] == "2", f"{how}: Seccomp is {s['Seccomp']}")
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    c.check(len(children) == 1, f"{how}: the daemon has the children {children}, not its guard alone")
    for child in children:
        check_guard(m, child, how)
    if not harness.SANITIZED:           # the leak checker attaches to its own process
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        c.check(re.search(r"Max core file size\s+0\s+0\s", limits), f"{how}: core dumps are not forbidden")
        if uid != 0:                    # of who cannot be dumped /proc belongs to root
            c.check(os.stat(f"/proc/{pid}/environ").st_uid == 0, f"{how}: the daemon is dumpable")
    sockets = 0
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        where = os.readlink(fd)
        sockets += where.startswith("socket:")
        good = where.startswith((f"{m.store}", f"{m.state}", "/dev/fuse", "anon_inode:[eventfd]", "socket:"))
        good = good or int(fd.name) == 0 and where == "/dev/null" or int(fd.name) in (1, 2) and where in (str(m.log), "/dev/null")
        c.check(good, f"{how}: descriptor {fd.name} is {where}")
    most = 2 if how.startswith("in the background") else 1     # to the guard; syslog
    c.check(1 <= sockets <= most, f"{how}: {sockets} sockets")


def use(m):
    """It works: copy in, store, verify."""
    (m.point / "d").mkdir(exist_ok=True)
    (m.point / "d" / "x.img").write_bytes(os.urandom(3000000))
    run(harness.VARVE, "wait", m.point)
    run(harness.VARVE, "snapshot", m.point / "d" / "x.img")
    run(harness.VARVE, "wait", m.point)


def check_foreground(uid):
    m = Mount(name="fg")
    secret = os.open("/etc/shadow", os.O_RDONLY)
    os.dup2(secret, 77)
    try:
        run(harness.VARVE, "init", m.store)
        run("chown", "-R", f"{uid}:{uid}", m.store)
        m.start(pass_fds=(secret, 77))
        use(m)
        check_process(m.proc.pid, uid, m, f"as uid {uid}")
        wrong = [x for x in [m.state, *m.state.rglob("*")] if os.lstat(x).st_uid != uid]
        c.check(not wrong, f"of STATE these are not uid {uid}'s: {wrong[:3]}")
        c.check(m.stop() == 0 and not m.errors(), f"as uid {uid}: {m.errors()[:3]}")
        m.start()                        # what the first run left is its own
        use(m)
        c.check(m.stop() == 0 and not m.errors(), f"as uid {uid}, again: {m.errors()[:3]}")
        c.check(run(harness.VARVE, "verify", m.store, ok=False).returncode == 0, f"as uid {uid}: verify")
    finally:
        os.close(secret)
        os.close(77)
        m.remove()


def check_background():
    """Started with 0, 1 and 2 closed: no file of STORE may come to stand there, where messages go."""
    m = Mount(name="bg").prober()
    try:
        run(harness.VARVE, "init", m.store)
        p = run("bash", "-c", 'exec 0<&- 1>&- 2>&-; exec "$0" "$@"', harness.VARVE, "mount", m.store, m.point, "-o", f"state={m.state}",
                ok=False)
        c.check(p.returncode == 0, f"with closed descriptors: exit {p.returncode}")
        value, error = m.probe((0, 0, ()), [["ioctl_INFO", m.point, None]])[0]
        c.check(error is None and value["pid"] > 1, f"INFO: {error}")
        check_process(value["pid"], 0, m, "in the background")
        use(m)
        run("umount", m.point)
        while pathlib.Path(f"/proc/{value['pid']}").exists():
            time.sleep(0.01)
        c.check(run(harness.VARVE, "verify", m.store, ok=False).returncode == 0, "with closed descriptors: verify")
    finally:
        m.remove()


def check_foreground_closed():
    m = Mount(name="closed")
    try:
        run(harness.VARVE, "init", m.store)
        with subprocess.Popen(["bash", "-c", 'exec 0<&- 1>&- 2>&-; exec "$0" "$@"', harness.VARVE, "mount", "-f", str(m.store), str(m.point),
                               "-o", f"state={m.state}"]) as m.proc:
            for _ in range(3000):
                if m.usable():
                    break
                subprocess.run(["sleep", "0.02"], check=True)
            for fd in "012":
                where = os.readlink(f"/proc/{m.proc.pid}/fd/{fd}")
                c.check(where == "/dev/null", f"closed descriptor {fd} became {where}")
            run("umount", m.point)
    finally:
        m.remove()


def broken_out(which, mode):
    m = Mount(name="out")
    m.log.touch()
    other = m.base / "other"
    other.write_text("not ours")
    try:
        run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", m.base / "breakout.so", harness.HERE / "breakout.c", "-ldl")
        m.start({"LD_PRELOAD": str(m.base / "breakout.so"), "BREAKOUT": which, "BREAKOUT_FILE": str(other), "VARVE_SANDBOX": mode})
        try:
            (m.point / "d").mkdir()
            fd = os.open(m.point / "d" / "x.img", os.O_CREAT | os.O_WRONLY, 0o600)
            os.write(fd, b"x" * 100000)
            os.fsync(fd)
            os.close(fd)
        except OSError as e:
            c.check(mode != "errno" and e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), f"writing: {e}")
        if mode == "errno" or which == "log_line":
            run(harness.VARVE, "wait", m.point)
            c.check(m.stop() == 0, "the daemon did not go on after refused calls")
            end = 0
        else:
            end = m.proc.wait(harness.LIMIT)
        c.check(other.exists() and other.read_text() == "not ours", "a file outside was changed")
        return end, dict(re.findall(r"^breakout (\w+) (\d+)$", m.log.read_text(), re.M)), m.log.read_text()
    finally:
        m.remove()


def check_breakout():
    _, got, _ = broken_out("all", "errno")
    files = {"read_passwd", "write_passwd", "read_shadow", "list_root", "write_core_pattern", "make_tmp", "make_dir", "write_memory",
             "other_file", "remove_other"}
    calls = {"run_program", "new_process", "inet_socket", "raw_socket", "trace", "kill_parent", "executable_memory", "make_executable",
             "mount_something", "become_root", "dumpable", "core_limit", "new_namespace", "io_ring", "keys"}
    c.check(got.get("end") == "0" and set(got) == files | calls | {"log_line", "end"}, f"not all was tried: {sorted(got)}")
    if landlock:
        for name in sorted(files):
            c.check(int(got[name]) == errno.EACCES, f"out of the sandbox: {name}: {errno.errorcode.get(int(got[name]), 'done')}")
    for name in sorted(calls):
        c.check(int(got[name]) == errno.EPERM, f"out of the sandbox: {name}: {errno.errorcode.get(int(got[name]), 'done')}")
    c.check(got["log_line"] == "0", "a line to syslog failed")
    # What tests run: a call that is not on the list ends the daemon and says which; syslog is on it.
    end, got, log = broken_out("inet_socket", "")
    # (A thread that blocks signals dies of SIGSYS without a word.)
    said = end == 159 and "ERROR sandbox: system call socket" in log
    c.check((said or end == -signal.SIGSYS) and "end" not in got, f"a refused call in a test build: {end} {log[-300:]}")
    _, got, _ = broken_out("log_line", "")
    c.check(got.get("end") == "0", f"a line to syslog ended the daemon: {got}")


def check_program():
    """As hardening-check does it."""
    head, segments, dynamic, symbols = (run("readelf", "-W", x, harness.VARVE).stdout for x in ("-h", "-l", "-d", "--dyn-syms"))
    c.check(re.search(r"Type:\s+DYN", head) and "PIE" in dynamic, "the program is no position-independent executable")
    c.check("GNU_RELRO" in segments and re.search(r"BIND_NOW|FLAGS.*NOW", dynamic), "no full RELRO")
    stack = re.search(r"GNU_STACK.*", segments)
    c.check(stack and "RWE" not in stack.group(0), "the stack is executable")
    c.check(not re.search(r"LOAD.* RWE ", segments), "a segment is writable and executable")
    if not harness.SANITIZED:
        c.check("__stack_chk_fail" in symbols, "no stack protector")
        c.check(re.search(r"__\w+_chk@", symbols.replace("__stack_chk_fail", "")), "not fortified")
        c.check("R_X86_64_COPY" not in segments and "RPATH" not in dynamic and "RUNPATH" not in dynamic, "RPATH in the program")


def check_unit():
    build = pathlib.Path(harness.VARVE).resolve().parents[2]
    unit = build / "mount-helpers/varve@.service"
    text = unit.read_text()
    # Each of these gives the service a mount namespace of its own, and nobody else would see the mount.
    for word in ("PrivateTmp", "ProtectSystem", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
                 "ProtectControlGroups", "PrivateDevices", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "RootDirectory", "PrivateUsers"):
        c.check(not re.search(rf"^{word}=(?!no)", text, re.M), f"{word} would hide the mount from the host")
    c.check("PrivateMounts=no" in text, "PrivateMounts is not off")
    if shutil.which("systemd-analyze") is None:
        print("systemd-analyze is not installed: the unit is not rated")
        return
    copy = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "varve@test.service"
    shutil.copy(unit, copy)
    try:
        p = run("systemd-analyze", "security", "--offline=true", "--threshold=45", copy, ok=False)
        c.check(p.returncode == 0, f"systemd-analyze: {(p.stdout + p.stderr).strip()[-200:]}")
        print("unit:", "".join(re.findall(r"Overall exposure.*", p.stdout)))
    finally:
        copy.unlink()


def main():
    check_program()
    check_unit()
    for uid in (0, SERVICE):
        check_foreground(uid)
    check_background()
    check_foreground_closed()
    if not landlock:
        print("this kernel has no Landlock: files are not checked")
    if not harness.SANITIZED:           # a preloaded library must not come before a sanitizer's
        check_breakout()
    c.end()


if __name__ == "__main__":
    main()
