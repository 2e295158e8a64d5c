# SPDX-License-Identifier: Apache-2.0
"""Rows on a live image: snapshots with k dirty segments, rollback and clone, fio beside the passthrough filesystem."""

import contextlib
import json
import os
import threading
import time

from contestants import VARVE, Passthrough, PassthroughDirect, Varve
from machine import Failed, printed, run, settle

SEGMENT = 2 << 20


def image(bench, size, vm=0, day=0, **shares):
    """A generated disk of that size, made once."""
    path = os.path.join(bench.work, f"image-{size}-{vm}-{day}.img")
    if not os.path.exists(path):
        options = [f"--{name}={value}" for name, value in shares.items()]
        run(bench.program("generate"), f"--seed={bench.seed}", f"--vm={vm}", f"--day={day}", f"--size={size}", *options, path)
    return path


class Guest:
    """A process of its own that holds the live image open and overwrites segments, as a running VM does. This one may not hold
    it: each command that it starts would close a copy of the handle, and a close takes a snapshot."""

    def __init__(self, disk, size):
        self.commands, self.answers = os.pipe(), os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.commands[1])
            status = 1
            try:
                self._serve(os.open(disk, os.O_RDWR), size)
                status = 0
            finally:
                os._exit(status)
        os.close(self.commands[0])
        os.close(self.answers[1])

    def _serve(self, fd, size):
        total = size // SEGMENT
        with os.fdopen(self.commands[0], encoding="utf-8") as commands:
            for line in commands:
                count, first, path = line.rstrip("\n").split(" ", 2)
                source = os.open(path, os.O_RDONLY)
                for i in range(int(count)):
                    segment = (int(first) + i * total // int(count)) % total
                    data = os.pread(source, SEGMENT, segment * SEGMENT)
                    if os.pwrite(fd, data, segment * SEGMENT) != SEGMENT:
                        return
                os.close(source)
                os.write(self.answers[1], b".")

    def write(self, count, first, path):
        """Overwrites that many segments, spread over the disk, with those of another image."""
        os.write(self.commands[1], f"{count} {first} {path}\n".encode())
        if os.read(self.answers[0], 1) != b".":
            raise Failed("a write to the live image failed")

    def end(self):
        os.close(self.commands[1])
        os.close(self.answers[0])
        os.waitpid(self.child, 0)


def snapshot(tool):
    """Until stored."""
    settle()
    return tool.daemon.cost(lambda: run(VARVE, "snapshot", tool.disk("vm")) + tool.wait())


@contextlib.contextmanager
def fresh_varve(bench):
    """A started one, and a list of guests that end with it. What fails in between is a row that was lost."""
    tool, guests = Varve(bench.work), []
    try:
        tool.start()
        yield tool, guests
    except Failed as why:
        bench.lost(tool.name, why)
    finally:
        for guest in guests:
            guest.end()
        tool.stop()


def dirty(bench, result, sizes):
    """From `varve snapshot` until stored, with 1, 10 and 100 % of the segments overwritten, for disks of each size."""
    for size in sizes:
        with fresh_varve(bench) as (tool, guests):
            tool.put("vm", 0, image(bench, size, zero=0))
            guests.append(Guest(tool.disk("vm"), size))
            for number in range(bench.rounds):
                for percent in (1, 10, 100):
                    count = max(1, size // SEGMENT * percent // 100)
                    fresh_data = image(bench, size, vm=1000 * (1 + number) + percent, zero=0)
                    guests[0].write(count, number * 7 + percent, fresh_data)
                    os.unlink(fresh_data)
                    cost, what = snapshot(tool), f"{size >> 20} MiB disk, {percent} % dirty"
                    result.add(f"{what}: seconds", tool.name, cost.wall)
                    result.add(f"{what}: MB/s", tool.name, count * SEGMENT / 1e6 / cost.wall)
                    result.add(f"{what}: CPU seconds per GB", tool.name, cost.cpu / (count * SEGMENT / 1e9))


def dirty_of_large(bench, result, sizes):
    """One dirty segment of disks that clones of one snapshot fill: what a snapshot costs for the size of its disk alone."""
    source = image(bench, 64 << 20, vm=1, zero=0)
    for size in sizes:
        with fresh_varve(bench) as (tool, guests):
            tool.put("other", 0, source)
            fill(tool.disk_in("vm"), tool.snapshots("other")[0], size)
            tool.wait()
            guests.append(Guest(tool.disk("vm"), 64 << 20))
            for number in range(5):
                guests[0].write(1, number, source)
                result.add(f"{size >> 30} GiB disk, one segment dirty: seconds", tool.name, snapshot(tool).wall)


def fill(disk, source, size):
    with open(source, "rb") as a, open(disk, "wb") as b:
        step = os.fstat(a.fileno()).st_size
        for at in range(0, size, step):
            done = 0
            while done < step:
                n = os.copy_file_range(a.fileno(), b.fileno(), step - done, done, at + done)
                if n == 0:
                    raise Failed("copy_file_range came to an early end")
                done += n


def back_and_clone(bench, result, size):
    """Milliseconds of `varve revert` in place and to a new disk, process start included, and of copy_file_range itself."""
    tool = Varve(bench.work)
    try:
        tool.start()
        tool.put("vm", 0, image(bench, size))
        tool.put("vm", 1, image(bench, size, day=1))
        first = tool.snapshots("vm")[0]
        for number in range(max(5, bench.rounds)):
            result.add("rollback", tool.name, 1000 * run(VARVE, "revert", first).wall)
            tool.wait()
            os.makedirs(f"{tool.mnt}/clone{number}")
            result.add("clone", tool.name, 1000 * run(VARVE, "revert", "--to", f"{tool.mnt}/clone{number}/disk.img", first).wall)
            tool.wait()
            result.add("clone by copy_file_range", tool.name, 1000 * copy_range(first, f"{tool.mnt}/clone{number}/second.img"))
            tool.wait()
        run("cmp", f"{tool.mnt}/clone0/second.img", image(bench, size))
        run("cmp", tool.disk("vm"), image(bench, size))
    except Failed as why:
        bench.lost(tool.name, why)
    finally:
        tool.stop()


def copy_range(source, target):
    """What a cp that asks for it does. Seconds."""
    begin = time.monotonic()
    with open(source, "rb") as a, open(target, "wb") as b:
        left = os.fstat(a.fileno()).st_size
        while left > 0:
            n = os.copy_file_range(a.fileno(), b.fileno(), left)
            if n == 0:
                raise Failed("copy_file_range came to an early end")
            left -= n
    return time.monotonic() - begin


FIO = {     # name: options, figure, unit
    "4 KiB random read": (["--rw=randread", "--bs=4k", "--direct=1", "--numjobs=4"], "read", "iops"),
    "4 KiB random write": (["--rw=randwrite", "--bs=4k", "--direct=1", "--numjobs=4"], "write", "iops"),
    "4 KiB random read, cached": (["--rw=randread", "--bs=4k", "--numjobs=4"], "read", "iops"),
    "1 MiB read": (["--rw=read", "--bs=1m"], "read", "MB/s"),
    "1 MiB write": (["--rw=write", "--bs=1m"], "write", "MB/s"),
}


def fio(path, size, options, side, unit, seconds):
    text = printed("fio", "--name=bench", f"--filename={path}", f"--size={size}", "--ioengine=psync", "--time_based", f"--runtime={seconds}",
                   "--group_reporting", "--output-format=json", "--fallocate=none", "--randrepeat=1", *options)
    job = json.loads(text[text.index("{"):])["jobs"][0]
    return job[side]["iops"] if unit == "iops" else job[side]["bw_bytes"] / 1e6


class Backup:
    """Copies another disk in, again and again, while something else is measured."""

    def __init__(self, tool, source):
        self.tool, self.source, self.stopping, self.count = tool, source, threading.Event(), 0
        self.thread = threading.Thread(target=self._work)

    def _work(self):
        while not self.stopping.is_set():
            run("cp", self.source, f"{self.tool.mnt}/other/disk.img")
            self.tool.wait()
            self.count += 1

    def __enter__(self):
        os.makedirs(f"{self.tool.mnt}/other", exist_ok=True)
        self.thread.start()
        return self

    def __exit__(self, *why):
        self.stopping.set()
        self.thread.join()


def random_io(bench, result, size, seconds):
    """fio on the live image, idle and while another disk is backed up, beside both passthrough filesystems when idle."""
    source = image(bench, size, zero=0)
    other = image(bench, size, vm=9)
    tools = [Varve(bench.work + "/a"), Passthrough(bench.work + "/b"), PassthroughDirect(bench.work + "/c")]
    try:
        for tool in tools:
            tool.start()
            tool.put("vm", 0, source)
        for number in range(bench.rounds):
            for what, (options, side, unit) in FIO.items():
                for tool in tools[number % 3:] + tools[:number % 3]:
                    bench.say(f"round {number + 1} of {bench.rounds}: {what}: {tool.name}")
                    settle()
                    result.add(f"{what}: {unit}", tool.name, fio(tool.disk("vm"), size, options, side, unit, seconds))
                    tool.wait()
                with Backup(tools[0], other):
                    value = fio(tools[0].disk("vm"), size, options, side, unit, seconds)
                result.add(f"{what} while a backup runs: {unit}", tools[0].name, value)
    except Failed as why:
        bench.lost("fio", why)
    finally:
        for tool in tools:
            tool.stop()
