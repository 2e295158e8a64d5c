# SPDX-License-Identifier: Apache-2.0
"""Rows on a series of disks: copied in until stored, restored, read again; size of the store, CPU and memory."""

import os

from machine import Cost, Failed, fresh, run, settle, tree_bytes, warm


WIRE = "metadata on the wire: bytes per block asked"


class Disk:
    """A day of a VM: where its image lies and how many bytes of it are allocated."""

    def __init__(self, vm, day, path):
        self.vm, self.day, self.path = vm, day, path
        self.bytes = os.lstat(path).st_blocks * 512


def read_all(path):
    return run("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def put_all(tool, disks, result):
    total = Cost()
    for disk in disks:
        warm(disk.path)
        settle()
        cost = tool.put(disk.vm, disk.day, disk.path)
        result.add(f"stored {disk.vm} day {disk.day}", tool.name, cost.wall)
        total += cost
    result.add("stored, sum", tool.name, total.wall)
    result.add("stored, CPU", tool.name, total.cpu)
    result.add("stored, peak memory", tool.name, total.peak / 1e6)
    if total.anon:
        result.add("stored, peak anonymous memory", tool.name, total.anon / 1e6)
    settle()
    result.add("store size", tool.name, tool.store_bytes() / 1e6)


def get_all(tool, disks, work, compare, result):
    """Restores to files beside the store. compare: every byte, too."""
    out, total = os.path.join(work, "restored.img"), Cost()
    for disk in disks:
        if os.path.exists(out):
            os.unlink(out)
        settle()
        total += tool.get(disk.vm, disk.day, out)
        if compare:
            run("cmp", out, disk.path)
    if os.path.exists(out):
        os.unlink(out)
    result.add("restored, sum", tool.name, total.wall)
    result.add("restored, CPU", tool.name, total.cpu)


def reads(tool, disks, result):
    """The last disk where it lies: read once with nothing in the page cache, and once more."""
    last = disks[-1]
    tool_cold(tool)
    place = tool.place(last.vm, last.day)
    result.add("first read", tool.name, read_all(place).wall)
    result.add("second read", tool.name, read_all(place).wall)


def tool_cold(tool):
    """A new mount has no page cache; a plain file loses its own."""
    if hasattr(tool, "mount"):
        tool.unmount()
        tool.mount()
    else:
        for folder, _, files in os.walk(f"{tool.dir}/store"):
            for name in files:
                fd = os.open(os.path.join(folder, name), os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def series(bench, disks, result):
    """One round of all tools after another; the order turns from round to round."""
    data = sum(d.bytes for d in disks) / 1e6
    result.note(f"{len(disks)} disks, {data:.0f} MB allocated of {sum(os.path.getsize(d.path) for d in disks) / 1e6:.0f}")
    for number in range(bench.rounds):
        for tool_class in bench.turn(number):
            tool = tool_class(bench.work)
            bench.say(f"round {number + 1} of {bench.rounds}: {tool.name}")
            try:
                tool.start()
                put_all(tool, disks, result)
                if tool.name == "varve":
                    result.add(WIRE, tool.name, tool.wire_bytes_per_block())
                get_all(tool, disks, bench.work, number == 0, result)
                if tool.stream_files:
                    reads(tool, disks, result)
            except Failed as why:
                bench.lost(tool.name, why)
            finally:
                tool.stop()


def debian_disks(folder):
    """What tests/data/debian-series.sh made, day by day."""
    disks = []
    for day in range(100):
        for vm in ("app", "sql"):
            path = os.path.join(folder, f"{vm}-day{day}.img")
            if os.path.exists(path):
                disks.append(Disk(vm, day, path))
    if not disks:
        raise Failed(f"no disks in {folder}: run tests/data/debian-series.sh {folder}")
    return disks


def made_disks(bench, vms, days, size, folder, **shares):
    """The generator's fleet, day by day."""
    fresh(folder)
    options = [f"--{name}={value}" for name, value in shares.items()]
    disks = []
    for day in range(days):
        for vm in range(vms):
            path = os.path.join(folder, f"vm{vm}-day{day}.img")
            run(bench.program("generate"), f"--seed={bench.seed}", f"--vm={vm}", f"--day={day}", f"--size={size}", *options, path)
            disks.append(Disk(f"vm{vm}", day, path))
    return disks


def growth(bench, result, vms, days, size):
    """Store size and time of each day as the fleet's history grows; varve and the peers that keep a store."""
    folder = os.path.join(bench.work, "fleet")
    disks = made_disks(bench, vms, days, size, folder)
    result.note(f"{vms} VMs x {days} days of {size} each, 10 % of segments dirty a day, seed {bench.seed}")
    for tool_class in bench.turn(0):
        if tool_class.name.startswith("passthrough") or tool_class.name == "cp":
            continue
        tool = tool_class(bench.work)
        bench.say(f"growth: {tool.name}")
        try:
            tool.start()
            for day in range(days):
                took = 0.0
                for disk in (d for d in disks if d.day == day):
                    warm(disk.path)
                    settle()
                    took += tool.put(disk.vm, disk.day, disk.path).wall
                settle()
                result.add(f"day {day}: seconds", tool.name, took)
                result.add(f"day {day}: store MB", tool.name, tree_bytes(f"{tool.dir}/store") / 1e6)
        except Failed as why:
            bench.lost(tool.name, why)
        finally:
            tool.stop()
    fresh(folder)
