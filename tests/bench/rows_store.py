# SPDX-License-Identifier: Apache-2.0
"""Rows on a large store: listing a VM with a thousand snapshots, and the bytes that an index of 10^7 to 10^9 blocks costs."""

import json
import os
import shutil

from contestants import Varve
from machine import Failed, printed, run


def listing(bench, result, of_this_vm, others):
    """`ls -l` of a VM with so many snapshots among so many of other VMs, all made by `touch`."""
    tool = Varve(bench.work)
    per_vm = 1000
    try:
        tool.start()
        vms = [("vm", of_this_vm)] + [(f"other{i}", min(per_vm, others - i * per_vm)) for i in range(-(-others // per_vm))]
        for vm, count in vms:
            os.makedirs(f"{tool.mnt}/{vm}")
            with open(tool.disk(vm), "wb") as disk:
                disk.write(os.urandom(4096))
            names = [f"{tool.mnt}/{vm}/disk@s{i}.img" for i in range(count)]
            for at in range(0, count, 500):
                run("touch", *names[at:at + 500])
            tool.wait()
        result.note(f"{of_this_vm} snapshots of the VM among {of_this_vm + others}")
        for _ in range(max(5, bench.rounds)):
            result.add("ls -l", tool.name, 1000 * run("ls", "-l", f"{tool.mnt}/vm", output=open(os.devnull, "wb")).wall)
        shown = len(printed("ls", f"{tool.mnt}/vm").split())
        if shown < of_this_vm + 1:
            raise Failed(f"ls shows {shown} names, not {of_this_vm + 1}")
    except Failed as why:
        bench.lost(tool.name, why)
    finally:
        tool.stop()


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
