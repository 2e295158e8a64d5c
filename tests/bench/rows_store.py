# SPDX-License-Identifier: Apache-2.0
"""Rows on a large store: listing a VM with a thousand snapshots, and the bytes that an index of 10^7 to 10^9 blocks costs."""

import json
import os
import shutil

from contestants import Varve
from machine import Cost, Failed, available_memory, printed, run


def ram_disk(bench, result):
    """A folder in memory. A hundred thousand snapshots want a million fsyncs, half an hour on a disk; a listing that is warm
    reads none of it. Where memory is short it is on the disk after all."""
    folder = os.path.join(bench.work, "ram")
    os.makedirs(folder)
    if available_memory() > 4 << 30:
        run("mount", "-t", "tmpfs", "-o", "size=3g,nr_inodes=0", "bench", folder)
        result.note("STORE and STATE in memory, so that making the snapshots takes minutes; warm, a listing does not ask the disk")
    return folder


def listing(bench, result, of_this_vm, others):
    """`ls -l` of a VM with so many snapshots among so many of other VMs, all made by `touch`."""
    folder, per_vm = ram_disk(bench, result), 1000
    tool = Varve(folder)
    try:
        tool.start()
        vms = {"vm": of_this_vm, **{f"other{i}": min(per_vm, others - i * per_vm) for i in range(-(-others // per_vm))}}
        for vm in vms:
            os.makedirs(f"{tool.mnt}/{vm}")
            with open(tool.disk(vm), "wb") as disk:
                disk.write(os.urandom(4096))
        names = [f"{tool.mnt}/{vm}/disk@s{i}.img" for i in range(max(vms.values())) for vm, count in vms.items() if i < count]
        tool.wait()
        made = Cost()
        for at in range(0, len(names), 500):        # a snapshot of each VM, another of each: rounds take many disks at once
            made += run("touch", *names[at:at + 500]) + tool.wait()
        result.note(f"{of_this_vm} snapshots of the VM among {len(names)}, made in {made.wall:.0f} s")
        figures(result, tool, of_this_vm)
    except Failed as why:
        bench.lost(tool.name, why)
    finally:
        tool.stop()
        if os.path.ismount(folder):
            run("umount", folder)


def figures(result, tool, count):
    """`ls -l` a few times (process start included), and after a new mount: the kernel knows nothing, the catalog is not in memory."""
    for _ in range(15):
        result.add("ls -l, warm", tool.name, 1000 * list_all(tool).wall)
    shown = len(printed("ls", f"{tool.mnt}/vm").split())
    if shown < count + 1:
        raise Failed(f"ls shows {shown} names, not {count + 1}")
    for _ in range(5):
        tool.unmount()
        tool.mount()
        result.add("ls -l, first after mount", tool.name, 1000 * list_all(tool).wall)


def list_all(tool):
    with open(os.devnull, "wb") as nothing:
        return run("ls", "-l", f"{tool.mnt}/vm", output=nothing)


def index(bench, result, cases):
    """Bytes that a comparison reads and its delta writes. cases: blocks in the index, one slot out of how many is made."""
    folder = os.path.join(bench.work, "index")
    for entries, one_of in cases:
        for requests in (5000, 1000000):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                figures = json.loads(printed(bench.program("index"), folder, entries, one_of, requests))
            except Failed as why:
                bench.lost("varve", why)
                continue
            what = f"{entries:.0e} blocks, {requests} asked".replace("e+0", "e")
            result.add(f"{what}: MB read", "varve", figures["read_bytes"] / 1e6)
            result.add(f"{what}: MB written", "varve", figures["written_bytes"] / 1e6)
            result.add(f"{what}: seconds", "varve", figures["seconds"])
            if one_of > 1:
                result.note(f"{entries:.0e} blocks: 1 of {one_of} slots is made, with its share of the requests; figures times {one_of}")
    shutil.rmtree(folder, ignore_errors=True)


def parts(bench, result, file):
    """The parts of the streaming path, each alone on one core."""
    for line in printed(bench.program("parts"), file, 128).split("\n"):
        if line:
            name, speed = line.split()
            if float(speed) > 0:
                result.add(f"{name}: MB/s", "varve", float(speed))
