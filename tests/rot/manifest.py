#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""manifest.py MOUNT: a line for each file below it, sorted; a field that cannot be had is `!ERRNO`.

path, type and permission bits, uid, gid, size, sha256 of the content; of a snapshot also id, flags, note, protected, state.
"""
import hashlib
import os
import stat
import sys


def attempt(call, *args):
    try:
        return call(*args)
    except OSError as e:
        return f"!{e.errno}"


def content(path):
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while data := f.read(1 << 20):
            h.update(data)
    return h.hexdigest()


def xattr(path, name):
    return os.getxattr(path, "user.varve." + name).decode("utf-8", "replace").replace("\n", " ")


def describe(top, path):
    name = os.path.relpath(path, top)
    st = attempt(os.lstat, path)
    if isinstance(st, str):
        return [name, st]
    mode = stat.S_IMODE(st.st_mode)
    if "@" in name and stat.S_ISREG(st.st_mode):
        mode &= ~0o200      # shown since a later version than that of golden stores, and kept nowhere
    fields = [name, f"{stat.S_IFMT(st.st_mode) >> 12:x}{mode:04o}", f"{st.st_uid}:{st.st_gid}"]
    if stat.S_ISDIR(st.st_mode):
        return fields
    fields += [str(st.st_size), attempt(content, path)]
    if "@" in os.path.basename(path):
        fields += [attempt(xattr, path, n) for n in ("id", "flags", "note", "protected", "state")]
    return fields


def main(top):
    lines = []
    for where, folders, names in os.walk(top):
        if where == top and ".varve" in folders:
            folders.remove(".varve")
        lines += [describe(top, os.path.join(where, n)) for n in folders + names]
    for fields in sorted(lines):
        print("\t".join(fields))


if __name__ == "__main__":
    main(sys.argv[1])
