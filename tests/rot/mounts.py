#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Mounts damaged copies of a specimen (specimen.sh) and compares what users see with what they saw before.

    mounts.py VARVE SPECIMEN WORK SEED flips COUNT     a flipped byte in files of STORE and STATE
    mounts.py VARVE SPECIMEN WORK SEED lost [STEP]     each single file of STORE and STATE gone, in turn
    mounts.py VARVE SPECIMEN WORK SEED catalog [STEP]  the catalog deleted, old, cut, garbage, flipped; half of them rebuilt first
    mounts.py VARVE SPECIMEN WORK SEED golden          undamaged, with the STATE of a clean stop

SPECIMEN has store/, state/, manifest, and clean/ (a STATE that was stopped cleanly), old/ (an older catalog). The rules:
only what the damaged file held may fail, with an error and never with other bytes, and then the log or the mount's own message
names the file; the daemon lives on; no other file goes. Ends with "N passed, N failed".
"""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def walk(top):
    found = []
    for where, _, names in os.walk(top):
        found += [os.path.relpath(os.path.join(where, n), top) for n in names]
    return sorted(found)


def parse(text):
    return {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines()}


class Case:
    """One mount of a copy of the specimen."""

    def __init__(self, varve, specimen, work, state="state"):
        self.varve, self.dir = varve, work
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work + "/mnt")
        for name, source in ("store", "store"), ("state", state):
            subprocess.run(["cp", "-a", "--sparse=always", f"{specimen}/{source}", f"{work}/{name}"], check=True)
        self.log, self.daemon = "", None

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self):
        """False: the mount was refused."""
        env = {k: v for k, v in os.environ.items() if k != "VARVE_FAULT"}
        with open(self.path("log"), "ab") as log:
            self.daemon = subprocess.Popen(
                [self.varve, "mount", self.path("store"), self.path("mnt"), "-f", "-o", f"state={self.path('state')},host=testhost,settle=0"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        for _ in range(1500):
            if self.daemon.poll() is not None:
                self.read_log()
                return False
            with open("/proc/self/mountinfo", encoding="utf-8") as f:
                if f" {self.path('mnt')} " in f.read():
                    done = subprocess.run(["timeout", "5", "test", "-d", self.path("mnt/.varve")], check=False)
                    if done.returncode == 0:
                        return True
            time.sleep(0.02)
        raise TimeoutError("not usable after 30 s")

    def manifest(self):
        done = subprocess.run(["timeout", "60", sys.executable, HERE + "/manifest.py", self.path("mnt")], capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            raise TimeoutError(f"the manifest ended with {done.returncode}: {done.stderr}")
        return parse(done.stdout)

    def read_log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as f:
            self.log = f.read()

    def stop(self):
        """The exit status."""
        for _ in range(100):        # somebody who looks through all mounts of the machine may hold it for a moment
            done = subprocess.run(["timeout", "30", "umount", self.path("mnt")], capture_output=True, text=True, check=False)
            if done.returncode == 0 or self.daemon.poll() is not None:
                break
            time.sleep(0.1)
        else:
            raise TimeoutError(f"umount: {done.stderr}")
        status = self.daemon.wait(60)
        self.daemon = None
        self.read_log()
        return status

    def clean_up(self):
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            if f" {self.path('mnt')} " in f.read():
                subprocess.run(["umount", "-l", self.path("mnt")], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


ERROR = re.compile(r"!\d+")
DISK_OF_STATE = re.compile(r"state/disks/([0-9a-f]{32})/(.*)")
RECIPE = re.compile(r"store/(?:snapshots/|anchors/|trash/)([0-9a-f]{32}).*[/-][0-9a-f]{16}-([0-9a-f]{32})\.(rcp|attr)")
NODE = re.compile(r"store/nodes/([0-9a-f]{32})")


# The proof that the page cache was not lost: without it, what was not fsynced is not believed, as after a power loss.
PROOF = "state/instance"


class Oracle:
    """Which paths of the manifest a file of the specimen may take with it."""

    def __init__(self, manifest, nodes):
        self.manifest, self.nodes = manifest, nodes     # nodes: id -> path

    def snapshots_of(self, path):
        base, dot, ext = path.rpartition(".")
        return [p for p in self.manifest if dot and p.startswith(base + "@") and p.endswith("." + ext)]

    def below(self, path):
        return [p for p in self.manifest if p == path or p.startswith(path + "/")] + self.snapshots_of(path)

    def allowed(self, name):
        """None: all of them (the mount may be refused)."""
        base = os.path.basename(name)
        if name == PROOF:
            return [p for p, fields in self.manifest.items() if p in self.nodes.values() or fields[-1] != "stored"]
        if name in ("store/store.conf", "state/store", "state/host"):
            return None
        if m := RECIPE.fullmatch(name):
            return [p for p, fields in self.manifest.items() if len(fields) > 4 and fields[4] == m[2]]
        if m := NODE.fullmatch(name):
            return self.below(self.nodes[m[1]]) if self.nodes.get(m[1]) else list(self.manifest)
        if m := DISK_OF_STATE.fullmatch(name):
            path = self.nodes.get(m[1], "")
            pending = [p for p in self.snapshots_of(path) if m[1] in name]
            return [path] + pending
        if base.endswith(".vc"):
            return list(self.manifest)
        return []


def node_paths(store):
    """id -> path below the mount, from the node records (docs/format/03)."""
    nodes = {}
    for name in os.listdir(store + "/nodes"):
        if name[0] == ".":
            continue
        with open(f"{store}/nodes/{name}", "rb") as f:
            data = f.read()
        nodes[name] = (data[32:48].hex(), data[128:-8].decode())

    def path(node):
        parent, name = nodes[node]
        return "" if parent not in nodes else os.path.join(path(parent), name)
    return {n: path(n) for n in nodes}


class Run:
    def __init__(self, varve, specimen, work, seed):
        self.varve, self.specimen, self.work = varve, specimen, work
        self.rnd = random.Random(int(seed))
        with open(specimen + "/manifest", encoding="utf-8") as f:
            self.before = parse(f.read())
        self.oracle = Oracle(self.before, node_paths(specimen + "/store"))
        self.passed = self.failed = self.refused = self.lost = 0

    def problem(self, what, text, case):
        self.failed += 1
        print(f"FAILED {what}: {text}")
        for line in case.log.splitlines()[-12:]:
            print("    | " + line)
        sys.stdout.flush()

    def compare(self, after, allowed, proof):
        """(paths that are lost or give an error, what is wrong). proof: what was not fsynced may be what it was before."""
        hurt, wrong = [], []
        for path, fields in self.before.items():
            now = after.get(path)
            if now is None:
                hurt.append(path)
                continue
            # Of a pending snapshot flags and state go on: fields 5 and 8.
            pairs = [(a, b) for i, (a, b) in enumerate(zip(fields, now)) if i not in (5, 8) and a != b]
            if not pairs:
                continue
            hurt.append(path)
            if any(not ERROR.fullmatch(b) for _, b in pairs) and not (
                    allowed is not None and path in allowed and (proof or self.only_marks(fields, now))):
                wrong.append(f"{path}: {fields} became {now}")
        if allowed is not None:
            wrong += [f"{p} is hurt, which the file did not hold: {after.get(p)}" for p in hurt if p not in allowed]
        return hurt, wrong

    @staticmethod
    def only_marks(fields, now):
        """Owner, mode and note may come from the rest when their file is gone; size and content may not change."""
        return len(fields) > 3 and len(now) > 3 and all(a == b or ERROR.fullmatch(b) for a, b in zip(fields[2:4], now[2:4]))

    def mount(self, what, name, damage, allowed, state="state", before_mount=None, must_say=True):
        case = Case(self.varve, self.specimen, self.work, state)
        base = os.path.basename(name)
        try:
            damage(case)
            if before_mount is not None:
                before_mount(case)
            files = walk(case.dir)
            if not case.start():
                self.refused += 1
                if allowed is not None:
                    self.problem(what, "the mount was refused", case)
                elif base not in case.log and os.path.basename(os.path.dirname(name)) not in case.log:
                    self.problem(what, "the mount was refused, and the file is not named", case)
                else:
                    self.passed += 1
                return
            after = case.manifest()
            hurt, wrong = self.compare(after, allowed, name == PROOF)
            alive = case.daemon.poll() is None
            status = case.stop()
            now = walk(case.dir)
            gone = [f for f in set(files) - set(now) - {name} if not self.may_go(f) and not self.in_trash(f, now)]
            if not alive or status != 0:
                self.problem(what, f"the daemon ended with {status}", case)
            elif wrong:
                self.problem(what, "; ".join(wrong[:4]), case)
            elif gone:
                self.problem(what, f"files are gone: {gone[:5]}", case)
            elif hurt and must_say and not self.named(name, case.log):
                self.problem(what, f"{hurt} are hurt, and the log does not name the file", case)
            else:
                self.passed += 1
                self.lost += bool(hurt)
        except (TimeoutError, subprocess.TimeoutExpired) as e:
            case.read_log()
            self.problem(what, str(e), case)
        finally:
            case.clean_up()

    @staticmethod
    def named(name, log):
        """By its name, or by the number and snapshot that its name says."""
        base = os.path.basename(name)
        stem = base.split(".")[0]
        return base in log or any(part in log for part in re.findall("[0-9a-f]{32}", base)) or f"lost-{stem[:8]}" in log

    @staticmethod
    def may_go(name):
        """Work files; index files are merged; layers of what is published become caches and go; the catalog's log."""
        return bool(re.match(r"store/index/|store/generations/[0-9a-f]+/leases/|state/rounds/|state/catalog|"
                             r"state/disks/([0-9a-f]{32}/(table|layer|cache)-|\.ready-)|.*/\.tmp-|log$|state/reserve|store/nodes/\.tmp", name))

    @staticmethod
    def in_trash(name, files):
        """An anchor that is no longer needed goes there, never away."""
        return name.startswith("store/anchors/") and any(f.startswith("store/trash/") and f.endswith(os.path.basename(name)) for f in files)

    # ---- what is done ----

    def files(self):
        return ["store/" + f for f in walk(self.specimen + "/store") if "/.tmp-" not in f] + \
               ["state/" + f for f in walk(self.specimen + "/state") if not f.startswith(("catalog", "lock", "reserve"))]

    def flip(self, case, name, at):
        with open(case.path(name), "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0] ^ 1 << self.rnd.randrange(8)
            f.seek(at)
            f.write(bytes([byte]))

    def flips(self, count):
        names = [f for f in self.files() if os.path.getsize(f"{self.specimen}/{f}") and not re.search(r"/(layer|cache)-\d+$", f)]
        for i in range(count):
            name = names[i % len(names)]
            size = os.path.getsize(f"{self.specimen}/{name}")
            at = self.rnd.randrange(size) if self.rnd.random() < 0.5 else self.rnd.randrange(min(size, 400))
            self.mount(f"{name} byte {at} flipped", name, lambda c, n=name, a=at: self.flip(c, n, a), self.oracle.allowed(name))

    def lost_files(self, step):
        names = self.files()
        for name in names[self.rnd.randrange(step)::step]:
            self.mount(f"{name} gone", name, lambda c, n=name: os.unlink(c.path(n)), self.oracle.allowed(name))

    # ---- the catalog ----

    def catalog(self, step):
        cases = list(self.catalog_cases())
        for i, (what, state, damage) in enumerate(cases[self.rnd.randrange(step)::step]):
            rebuild = self.rebuild if i % 2 else None
            self.mount(f"catalog {what}{', rebuilt' if rebuild else ''}", "state/catalog.sqlite", damage, [], state, rebuild)

    def rebuild(self, case):
        done = subprocess.run([self.varve, "rebuild", "--catalog", "--state", case.path("state"), case.path("store")],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise TimeoutError(f"varve rebuild ended with {done.returncode}: {done.stderr}")

    def catalog_cases(self):
        db, wal, shm, total = (f"state/catalog.sqlite{s}" for s in ("", "-wal", "-shm", ".sum"))

        def remove(*names):
            return lambda c: [os.unlink(c.path(n)) for n in names if os.path.exists(c.path(n))]

        def write(name, data):
            def do(c):
                with open(c.path(name), "wb") as f:
                    f.write(data)
            return do

        def cut(name, part):
            return lambda c: os.truncate(c.path(name), int(os.path.getsize(c.path(name)) * part))

        for state in "state", "clean":
            yield f"deleted ({state})", state, remove(db)
            yield f"log deleted ({state})", state, remove(wal)
            yield f"shm deleted ({state})", state, remove(shm)
            yield f"both deleted ({state})", state, remove(db, wal)
            yield f"all deleted ({state})", state, remove(db, wal, shm, total)
            yield f"old one ({state})", state, lambda c: (remove(wal)(c), shutil.copy(f"{self.specimen}/old/catalog.sqlite", c.path(db)))
            yield f"old one beside its log ({state})", state, lambda c: shutil.copy(f"{self.specimen}/old/catalog.sqlite", c.path(db))
            yield f"garbage ({state})", state, write(db, self.rnd.randbytes(20000))
            yield f"garbage log ({state})", state, write(wal, self.rnd.randbytes(20000))
            yield f"garbage shm ({state})", state, write(shm, self.rnd.randbytes(32768))
            yield f"empty ({state})", state, write(db, b"")
            for part in 0.1, 0.5, 0.99:
                yield f"cut to {part} ({state})", state, cut(db, part)
        yield "log cut to half", "state", cut(wal, 0.5)
        with open(f"{self.specimen}/clean/catalog.sqlite", "rb") as f:
            data = f.read()
        # What only the checksum of the whole file can see: a letter of a note or a name in a row.
        letters = [m.start() + 2 for text in (b"before the upgrade", b"changed later", b"disk.img") for m in re.finditer(text, data)]
        for i in range(32):
            at = (self.rnd.randrange(len(data)), self.rnd.randrange(100), self.rnd.choice(letters), self.rnd.choice(letters))[i % 4]
            yield f"byte {at} flipped (clean)", "clean", lambda c, a=at: self.flip(c, db, a)
        yield "sum flipped (clean)", "clean", lambda c: self.flip(c, total, 3)

    def control(self):
        """Without damage nothing may differ: else the rest says nothing."""
        for state in "state", "clean":
            self.mount(f"undamaged ({state})", "nothing", lambda c: None, [], state)


def main(varve, specimen, work, seed, what, count="1"):
    run = Run(varve, specimen, work, seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    if what == "golden":
        run.mount("the golden store", "nothing", lambda c: None, [], "clean")
    else:
        run.control()
        {"flips": run.flips, "lost": run.lost_files, "catalog": run.catalog}[what](int(count))
    print(f"{what}: {run.lost} mounts with something lost, {run.refused} refused; seed {seed}")
    print(f"{run.passed} passed, {run.failed} failed")
    return run.failed > 0


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
