#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""order.py STORE MOUNT: of each disk, names by time must be in the order of sequence numbers, and none twice. Prints their number."""
import os
import re
import sys

FILE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{32})\.rcp")
NAME = re.compile(r"(.*)@(\d{8}T\d{6}Z)(\.[^.]*)?")


def main(store, mount):
    sequence = {}
    for disk in os.listdir(store + "/snapshots"):
        for name in os.listdir(f"{store}/snapshots/{disk}"):
            if m := FILE.fullmatch(name):
                sequence[m[2]] = (disk, int(m[1], 16))
    disks = {}
    for where, _, names in os.walk(mount):
        for name in names:
            m = NAME.fullmatch(name)
            if m is None:
                continue
            snap = os.getxattr(os.path.join(where, name), "user.varve.id").decode()
            if snap not in sequence:
                sys.exit(f"{name}: its recipe {snap} is not in the store")
            disk, number = sequence[snap]
            disks.setdefault(disk, []).append((number, m[2], name))
    for found in disks.values():
        found.sort()
        for before, after in zip(found, found[1:]):
            if before[1] >= after[1]:
                sys.exit(f"{after[2]} (sequence {after[0]}) is not behind {before[2]} (sequence {before[0]})")
    print(sum(len(found) for found in disks.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
