# SPDX-License-Identifier: Apache-2.0
"""varve and its peers behind one face: put a day's disk in, get it back, size of the store."""

import json
import os
import shutil

from machine import Cost, Daemon, Failed, fresh, printed, run, tree_bytes

BIN = os.environ.get("BENCH_BIN", "")
VARVE = os.environ.get("VARVE", "varve")
READ_AHEAD_KB = "4096"


class Contestant:
    """A tool. put and get return Costs; all of its files lie in self.dir."""
    name = "?"
    program = None          # what must be there for it to take part
    stream_files = False    # True: it keeps single files that can be read where they lie

    def __init__(self, work):
        self.dir = os.path.join(work, "contestant")

    @classmethod
    def present(cls):
        return cls.program is None or shutil.which(cls.program) is not None

    @classmethod
    def version(cls):
        return printed(cls.program, "--version").split("\n")[0] if cls.program else ""

    def start(self):
        fresh(self.dir)

    def stop(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def store_bytes(self):
        return tree_bytes(os.path.join(self.dir, "store"))

    def put(self, vm, day, source):
        raise NotImplementedError

    def get(self, vm, day, out):
        raise NotImplementedError


class Varve(Contestant):
    """cp into the mount, until stored; cp out of the snapshot."""
    name = "varve"
    stream_files = True

    def __init__(self, work, options=""):
        super().__init__(work)
        self.options, self.daemon = options, None
        self.mnt = os.path.join(self.dir, "mnt")

    @classmethod
    def version(cls):
        return printed(VARVE, "--version").split("\n")[0]

    def start(self):
        super().start()
        run(VARVE, "init", os.path.join(self.dir, "store"))
        self.mount()

    def mount(self):
        options = f"state={self.dir}/state,host=bench" + (f",{self.options}" if self.options else "")
        self.daemon = Daemon([VARVE, "mount", f"{self.dir}/store", self.mnt, "-f", "-o", options], self.mnt, os.environ["BENCH_LOG"])

    def unmount(self):
        self.daemon.stop()

    def stop(self):
        if self.daemon is not None:
            self.daemon.stop()
        super().stop()

    def wire_bytes_per_block(self):
        """Of all rounds since the mount: bytes of all messages for each block that the index was asked for."""
        with open(f"{self.mnt}/.varve/status.json", encoding="utf-8") as status:
            rounds = json.load(status)["round"]
        return rounds["wire_bytes"] / max(1, rounds["asked_blocks"])

    def wait(self):
        return run(VARVE, "wait", "--timeout", "1800", self.mnt)

    def disk(self, vm):
        return f"{self.mnt}/{vm}/disk.img"

    def disk_in(self, vm):
        """The same of a VM that is made now."""
        os.makedirs(f"{self.mnt}/{vm}")
        return self.disk(vm)

    def snapshots(self, vm):
        names = sorted(n for n in os.listdir(f"{self.mnt}/{vm}") if n.startswith("disk@"))
        return [f"{self.mnt}/{vm}/{n}" for n in names]

    def put(self, vm, day, source):
        os.makedirs(f"{self.mnt}/{vm}", exist_ok=True)
        return self.daemon.cost(lambda: run("cp", source, self.disk(vm)) + self.wait())

    def place(self, vm, day):
        return self.snapshots(vm)[day]

    def get(self, vm, day, out):
        return self.daemon.cost(run, "cp", self.place(vm, day), out)


class Plain(Contestant):
    """cp to a file of its own each day, and sync it."""
    name = "cp"
    stream_files = True

    def place(self, vm, day):
        return f"{self.dir}/store/{vm}-{day}.img"

    def start(self):
        super().start()
        os.makedirs(f"{self.dir}/store")

    def put(self, vm, day, source):
        return run("cp", source, self.place(vm, day)) + run("sync", "-d", self.place(vm, day))

    def get(self, vm, day, out):
        return run("cp", self.place(vm, day), out)


class Passthrough(Contestant):
    """The same through a FUSE filesystem that does nothing else: what user space costs."""
    name = "passthrough"
    stream_files = True
    flags = ()

    def __init__(self, work):
        super().__init__(work)
        self.daemon = None

    @classmethod
    def present(cls):
        return os.path.exists(f"{BIN}/passthrough")

    def start(self):
        super().start()
        os.makedirs(f"{self.dir}/store")
        self.mount()

    def mount(self):
        self.daemon = Daemon([f"{BIN}/passthrough", *self.flags, f"{self.dir}/store", f"{self.dir}/mnt"], f"{self.dir}/mnt",
                             os.environ["BENCH_LOG"])
        device = os.stat(f"{self.dir}/mnt").st_dev      # as varve does for its own mount
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", "w", encoding="ascii") as kb:
            kb.write(READ_AHEAD_KB)

    def unmount(self):
        self.daemon.stop()

    def stop(self):
        if self.daemon is not None:
            self.daemon.stop()
        super().stop()

    def wait(self):
        return Cost()

    def place(self, vm, day):
        return f"{self.dir}/mnt/{vm}-{day}.img"

    def disk(self, vm):
        return f"{self.dir}/mnt/{vm}-0.img"

    def put(self, vm, day, source):
        def action():
            return run("cp", source, self.place(vm, day)) + run("sync", "-d", self.place(vm, day))
        return self.daemon.cost(action)

    def get(self, vm, day, out):
        return self.daemon.cost(run, "cp", self.place(vm, day), out)


class PassthroughDirect(Passthrough):
    """With direct I/O on every handle."""
    name = "passthrough-direct"
    flags = ("--direct",)


class Repository(Contestant):
    """A backup program: each VM's disk under one name, so that it finds its parent."""

    def input(self, vm, source):
        """The same path every day: a second name of the source where that can be, a copy elsewhere."""
        path = f"{self.dir}/in/{vm}/disk.img"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            os.unlink(path)
        try:
            os.link(source, path)
        except OSError:
            run("cp", source, path)
        return path

    def out(self, out, folder):
        """Moves what was restored into a folder to the file `out`."""
        for parent, _, files in os.walk(folder):
            for name in files:
                os.replace(os.path.join(parent, name), out)
        shutil.rmtree(folder)


class Restic(Repository):
    name = program = "restic"

    @classmethod
    def version(cls):
        return printed(cls.program, "version").split("\n")[0]

    def env(self):
        return {"RESTIC_REPOSITORY": f"{self.dir}/store", "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": f"{self.dir}/cache"}

    def start(self):
        super().start()
        run(self.program, "init", env=self.env())

    def put(self, vm, day, source):
        path = self.input(vm, source)
        return run(self.program, "backup", "--tag", f"{vm}-{day}", path, env=self.env())

    def get(self, vm, day, out):
        folder = fresh(f"{self.dir}/restored")
        cost = run(self.program, "restore", "latest", "--tag", f"{vm}-{day}", "--target", folder, env=self.env())
        self.out(out, folder)
        return cost


class Rustic(Restic):
    name = program = "rustic"

    def env(self):
        return {"RUSTIC_REPOSITORY": f"{self.dir}/store", "RUSTIC_PASSWORD": "bench", "RUSTIC_CACHE_DIR": f"{self.dir}/cache",
                "RUSTIC_NO_PROGRESS": "true"}

    @classmethod
    def version(cls):
        return printed(cls.program, "--version").split("\n")[0]

    def get(self, vm, day, out):
        folder = fresh(f"{self.dir}/restored")
        cost = run(self.program, "restore", "--filter-tags", f"{vm}-{day}", "latest", folder, env=self.env())
        self.out(out, folder)
        return cost


class Borg(Repository):
    name = program = "borg"

    def env(self):
        return {"BORG_REPO": f"{self.dir}/store", "BORG_BASE_DIR": f"{self.dir}/base", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def start(self):
        super().start()
        run("borg", "init", "-e", "none", env=self.env())

    def put(self, vm, day, source):
        return run("borg", "create", "--compression", "lz4", f"::{vm}-{day}", self.input(vm, source), env=self.env())

    def get(self, vm, day, out):
        folder = fresh(f"{self.dir}/restored")
        cost = run("borg", "extract", "--sparse", f"::{vm}-{day}", env=self.env(), cwd=folder)
        self.out(out, folder)
        return cost


class Casync(Contestant):
    name = program = "casync"

    def index(self, vm, day):
        return f"{self.dir}/store/{vm}-{day}.caibx"

    def start(self):
        super().start()
        os.makedirs(f"{self.dir}/store")

    def put(self, vm, day, source):
        return run("casync", "make", f"--store={self.dir}/store/default.castr", self.index(vm, day), source)

    def get(self, vm, day, out):
        return run("casync", "extract", f"--store={self.dir}/store/default.castr", self.index(vm, day), out)


PEERS = [Restic, Borg, Casync, Rustic, Plain, Passthrough, PassthroughDirect]


def chosen(names):
    """The contestants that take part, varve first. names: None for all that are installed."""
    found = []
    for peer in PEERS:
        if names is not None and peer.name not in names:
            continue
        if peer.present():
            found.append(peer)
        elif names is not None:
            raise Failed(f"{peer.name} was asked for and is not installed")
        else:
            print(f"not installed, left out: {peer.name}", flush=True)
    return [Varve, *found]
