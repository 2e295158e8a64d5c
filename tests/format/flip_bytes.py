#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Flips one byte of a store after the other and asks two readers whether they see it.

    flip_bytes.py STORE COUNT SEED VARVE

STORE is a copy that may be damaged; each byte is put back. Per flip: the reader of this folder and `VARVE verify` must
agree (both find damage, or neither), and where nothing is found all snapshots must still have the same bytes.
"""
import hashlib
import os
import random
import subprocess
import sys

import varve_format
import varve_records as fmt


def files(store):
    """Containers, recipes, side files, node records, owner records and deletion logs, in a fixed order."""
    found = []
    for top in "containers", "snapshots", "anchors", "nodes", "owners", "generations":
        for where, _, names in os.walk(os.path.join(store, top)):
            found += [os.path.join(where, n) for n in names]
    return sorted(f for f in found if os.path.getsize(f))


def place(rnd, paths, torn):
    """Half of the flips by size, so that all bytes are alike; others by file, so that small files get their share; some
    where the last trailer of a container or a torn tail may be."""
    way = rnd.random()
    if way < 0.1:
        path = rnd.choice([torn] + [p for p in paths if p.endswith(".vc")])
        return path, os.path.getsize(path) - rnd.randrange(1, fmt.TRAILER + 1)
    sizes = [os.path.getsize(p) for p in paths]
    path = rnd.choices(paths, sizes)[0] if way < 0.55 else rnd.choice(paths)
    return path, rnd.randrange(os.path.getsize(path))


def flip(path, offset, mask):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def damage_ours(path):
    """What this folder's reader finds; an empty list when all is well."""
    try:
        store = varve_format.Store(path)
        found = [p for p in varve_format.Verify(store).problems if p[0] == "damage"]
        for c in store.opened.values():
            c.close()
        return found
    except fmt.Damage as e:
        return [("damage", "", str(e))]


def damage_theirs(varve, path):
    done = subprocess.run([varve, "verify", path], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 20):
        sys.exit(f"varve verify ended with {done.returncode}: {done.stdout}{done.stderr}")
    return (done.stdout.splitlines() or ["exit 20"]) if done.returncode == 20 else []


def contents(path):
    """Digest of each snapshot's bytes."""
    store, out = varve_format.Store(path), {}
    for disk in store.disks():
        for found in store.snapshot_files(disk, "rcp"):
            s, runs = store.snapshot("snapshots", disk, *found)
            h = hashlib.sha256()
            for _, segment, length in varve_format.places(s, runs):
                h.update(bytes(length) if segment == fmt.REF_ZERO else store.segment(segment, length))
            out[found[1]] = h.hexdigest()
    return out


def append_torn_tail(rnd, paths):
    """What a writer that died leaves behind a sealed section: harmless, whatever is in it."""
    path = rnd.choice([p for p in paths if p.endswith(".vc")])
    with open(path, "ab") as f:
        f.write(b"varveFRM" + rnd.randbytes(3000))
    return path


def main(store, count, seed, varve):
    rnd, paths = random.Random(int(seed)), files(store)
    torn = append_torn_tail(rnd, paths)
    before = contents(store)
    ours, theirs = damage_ours(store), damage_theirs(varve, store)
    if ours or theirs:
        sys.exit(f"damage before anything was flipped: {ours} {theirs}")
    seen = unaffected = 0
    for i in range(int(count)):
        path, offset = place(rnd, paths, torn)
        mask = rnd.randrange(1, 256)
        flip(path, offset, mask)
        ours, theirs = damage_ours(store), damage_theirs(varve, store)
        what = f"flip {i} (seed {seed}): {os.path.relpath(path, store)} at {offset} of {os.path.getsize(path)} with {mask:#04x}"
        if bool(ours) != bool(theirs):
            sys.exit(f"{what}: this reader says {ours or 'well'}, varve verify {theirs or 'well'}")
        if ours:
            seen += 1
        else:
            unaffected += 1
            if contents(store) != before:
                sys.exit(f"{what}: nobody sees it, but a snapshot has changed")
        flip(path, offset, mask)
    if damage_ours(store) or contents(store) != before:
        sys.exit("the store is not what it was before")
    print(f"{count} flips with seed {seed}: {seen} seen by both readers, {unaffected} without effect")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
