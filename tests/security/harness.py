# SPDX-License-Identifier: Apache-2.0
"""A varve mount of its own with real other users, for the parts of tests/security. Only root runs it."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
VARVE = os.environ["VARVE"]
PYTHON = "/usr/bin/python3"             # one that every user can reach
LIMIT = 60                              # seconds for a single command: protection against a hang, not a promise
SANITIZED = any(os.environ.get(k) for k in ("ASAN_OPTIONS", "TSAN_OPTIONS")) and b"__asan_init" in pathlib.Path(VARVE).read_bytes()


class Counter:
    """Cases are counted, failures are told; a group prints one line."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, what):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED  {what}", flush=True)
        return good

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def run(*argv, ok=True, **kw):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=LIMIT, check=False, **kw)
    if ok and p.returncode != 0:
        raise RuntimeError(f"{argv}: exit {p.returncode}: {p.stderr}")
    return p


def as_user(user):
    """user: (uid, gid, supplementary groups)."""
    uid, gid, groups = user
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]


class Mount:
    def __init__(self, base=None, store=None, name="m", owner=None):
        self.base = pathlib.Path(base or tempfile.mkdtemp(prefix="varve-case.", dir=os.environ.get("TMPDIR", "/tmp")))
        self.base.chmod(0o755)
        self.store = pathlib.Path(store or self.base / "store")
        self.state = self.base / f"state-{name}"
        self.point = self.base / f"mnt-{name}"
        self.point.mkdir(exist_ok=True)
        self.log = self.base / f"log-{name}"
        self.proc = None
        self.owner = owner

    def start(self, env=None, opts=(), wait=True, pass_fds=()):
        if not self.store.exists():
            run(VARVE, "init", self.store, *(["--owner", self.owner] if self.owner else []))
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(
                [VARVE, "mount", self.store, self.point, "-f", "-o", ",".join([f"state={self.state}", "host=testhost", "settle=0", *opts])],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, pass_fds=pass_fds, cwd="/")
        with open(pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "pids", "a", encoding="utf-8") as pids:     # for run.sh's trap
            print(self.proc.pid, file=pids)
        end = time.monotonic() + LIMIT
        while wait and not self.usable():
            if self.proc.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the daemon did not start:\n" + self.log.read_text()[-2000:])
            time.sleep(0.01)
        return self

    def mounted(self):
        return f" {self.point} fuse" in pathlib.Path("/proc/mounts").read_text()

    def usable(self):
        return self.mounted() and run("timeout", "-k", "1", "5", "test", "-d", self.point / ".varve", ok=False).returncode == 0

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        run("umount", "-l", self.point, ok=False)

    def stop(self):
        run("umount", self.point)
        return self.proc.wait(LIMIT)

    def cleanup(self):
        if self.mounted():
            run("umount", "-l", self.point, ok=False)
        if self.proc is not None and self.proc.poll() is None:
            try:
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()

    def remove(self):
        self.cleanup()
        if not os.environ.get("KEEP"):
            shutil.rmtree(self.base, ignore_errors=True)

    def sh(self, user, script, ok=True):
        """A shell script as that user, in the root of the mount."""
        return run(*as_user(user), "bash", "-ec", script, ok=ok, cwd=self.point)

    def probe(self, user, probes, own=""):
        """What the user sees: a list of (value, errno) for [probe, path, argument]."""
        p = run(*as_user(user), PYTHON, self.base / "prober.py", input=json.dumps([[n, str(x), a] for n, x, a in probes]), cwd="/",
                env={"OWN_DISK": str(own), "PATH": os.environ["PATH"]})
        return json.loads(p.stdout)

    def prober(self):
        shutil.copy(HERE / "prober.py", self.base / "prober.py")
        (self.base / "prober.py").chmod(0o755)
        return self

    def errors(self):
        words = ("ERROR", "BUG", "AddressSanitizer", "LeakSanitizer", "runtime error", "ThreadSanitizer")
        return [line for line in self.log.read_text(errors="replace").splitlines() if any(w in line for w in words)]
