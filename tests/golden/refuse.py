#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""refuse.py VARVE GOLDEN WORK: intact records of a version, or with a flag, that nobody knows yet, one file at a time.

Each is changed in one field and gets a right checksum. Then `varve verify` (STORE) or the log of a mount (STATE) must name the
file and say that it is newer or what is wrong, and the file must be left as it is. Ends with "N passed, N failed".
"""
import glob
import os
import struct
import subprocess
import sys

import xxhash

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../rot"))
import mounts   # noqa: E402


def h(data, seed=0):
    return xxhash.xxh3_64_intdigest(data, seed)


def tail(data):
    return data[:-8] + struct.pack("<Q", h(data[:-8]))


def at(offset):
    """The checksum stands there, over all before it; what follows stays."""
    return lambda data: data[:offset] + struct.pack("<Q", h(data[:offset])) + data[offset + 8:]


def page(data):
    """Header page of 4096 bytes, pages behind it."""
    return tail(data[:4096]) + data[4096:]


def journal(data):
    """The first record, checksum with its own field as zero, seed = its offset."""
    n = struct.unpack_from("<Q", data, 16)[0]
    record = data[:56] + bytes(8) + data[64:n]
    return record[:56] + struct.pack("<Q", h(record)) + record[64:] + data[n:]


def text(data):
    body = data[:data.rindex(b"# checksum: ")]
    return body + b"# checksum: %016x\n" % h(body)


def put(offset, value):
    return lambda data: data[:offset] + struct.pack("<I", value) + data[offset + 4:]


def orbits(offset, value):
    return lambda data: put(offset, struct.unpack_from("<I", data, offset)[0] | value)(data)


NEWER, FLAG = ("newer", "another version", "version"), ("flag", "impossible", "zero", "damaged", "reserved")
STORE = [
    ("nodes/[0-9a-f]*", put(8, 2), tail, NEWER), ("nodes/[0-9a-f]*", orbits(76, 8), tail, FLAG),
    ("snapshots/*/*.rcp", put(8, 2), page, NEWER), ("snapshots/*/*.rcp", orbits(152, 4), page, FLAG),
    ("snapshots/*/*.attr", put(8, 2), tail, NEWER), ("snapshots/*/*.attr", orbits(40, 4), tail, FLAG),
    ("containers/*/*.vc", put(8, 2), at(120), NEWER), ("containers/*/*.vc", orbits(56, 8), at(120), FLAG),
    ("index/*/base-*", put(8, 2), page, NEWER), ("index/*/base-*", put(28, 1), page, FLAG + ("no field",)),
    ("owners/*", put(8, 2), tail, NEWER), ("owners/*", put(12, 1), tail, FLAG),
    ("generations/*/deletions", put(8, 2), tail, NEWER), ("generations/*/deletions", put(12, 1), tail, FLAG),
]
STATE = [
    ("disks/*/journal", put(8, 2), journal, NEWER), ("disks/*/journal", orbits(12, 2), journal, FLAG),
    ("disks/*/table-*", put(8, 2), at(56), NEWER), ("disks/*/table-*", put(12, 1), at(56), FLAG),
    # Not layer-*.vol: it belongs to one boot and goes unread in another one (test_canonical refuses its newer version).
    ("disks/*/layer-*.map", put(8, 2), at(56), NEWER),
]
CONF = [(lambda d: d.replace(b"version = 1", b"version = 2"), NEWER), (lambda d: d.replace(b"[store]\n", b"[store]\nflag = 1\n"), ("unknown key",))]


class Tally:
    passed = failed = 0

    def expect(self, name, said, words, same):
        line = [x for x in said.splitlines() if os.path.basename(name) in x]
        if any(w in x for x in line for w in words) and same:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {name}: {'left as it was' if same else 'CHANGED'}; said: {line or said[-600:]}; wanted one of {words}")


def changed(path, change, fix):
    with open(path, "rb") as f:
        data = fix(change(f.read()))
    with open(path, "wb") as f:
        f.write(data)
    return data


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def verify(varve, store):
    done = subprocess.run([varve, "verify", store], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def main(varve, golden, work):
    tally = Tally()
    for pattern, change, fix, words in STORE:
        case = mounts.Case(varve, golden, work, "clean")
        path = sorted(glob.glob(case.path("store/" + pattern)))[0]
        data = changed(path, change, fix)
        tally.expect(os.path.relpath(path, work), verify(varve, case.path("store")), words, read(path) == data)
    for change, words in CONF:
        case = mounts.Case(varve, golden, work, "clean")
        data = changed(case.path("store/store.conf"), change, text)
        tally.expect("store/store.conf", verify(varve, case.path("store")), words, read(case.path("store/store.conf")) == data)
    for pattern, change, fix, words in STATE:
        case = mounts.Case(varve, golden, work, "clean")
        path = sorted(glob.glob(case.path("state/" + pattern)))[0]
        data = changed(path, change, fix)
        try:
            if case.start():
                case.manifest()
                case.stop()
            tally.expect(os.path.relpath(path, work), case.log, words, read(path) == data)
        finally:
            case.clean_up()
    print(f"{tally.passed} passed, {tally.failed} failed")
    return tally.failed > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
