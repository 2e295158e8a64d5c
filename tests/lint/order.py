#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""order.py: inside a folder that ORDER names, each file calls only functions of files that stand before it, so that no files call
each other in a circle; and it includes only the folder's headers of its own layer and of those below. Calls through a pointer are
not seen. Run in the top directory; layers.sh runs it.
"""
import pathlib
import re
import sys

ORDER = {   # folder: [(header of a layer, its files)], lowest first
    "live": [
        ("live_format", "live_format live_format_head"),
        ("live_disk", "live_disk live_files live_hold live_state"),
        ("live_level", "live_memo live_slot live_table live_space live_presence live_map live_base live_view live_merge live_io live_cache"),
        ("live_head", "live_journal live_head live_anchor live_pending live_fresh live_sync live_thaw live_drop live_recover live_create live_ready"),
        (None, "live_set live_evict live_places live_ops live_removal live_freeze live_publish live_point live_take"),
    ],
}


def code_of(path):
    """The text without comments and strings; #include lines keep theirs."""
    text = re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.S)
    return re.sub(r'(?m)^(?!#include)(.*)$', lambda m: re.sub(r'"(\\.|[^"\\])*"', '""', m.group(1)), text)


def defined_in(text):
    """Functions for other files: their heads begin in column 0 and their bodies follow."""
    return re.findall(r"^(?!static|typedef)[a-z][^\n;{]*?\b(\w+)\)?\([^;{}]*\)\n\{", text, flags=re.M)


def check(folder, layers):
    """Prints what is wrong; returns how much."""
    wrong, home, below = [], {}, []
    code = {p.stem: code_of(p) for p in sorted(pathlib.Path("src", folder).glob("*.c"))}
    order = [name for _, names in layers for name in names.split()]
    wrong += [f"src/{folder}/{name}.c has no place in the order of its folder" for name in code if name not in order]
    wrong += [f"order.py: there is no src/{folder}/{name}.c" for name in order if name not in code]
    if wrong:
        print("\n".join(wrong))
        return len(wrong)
    for name in order:
        home.update({function: name for function in defined_in(code[name])})
    for header, names in layers:
        below.append(header)
        for name in names.split():
            for include in re.findall(rf'^#include "{folder}/(\w+)\.h"', code[name], flags=re.M):
                if include not in below and include != folder:
                    wrong.append(f"src/{folder}/{name}.c includes {include}.h, which stands above it")
            for called in sorted(set(re.findall(r"\b(\w+)\(", code[name]))):
                if called in home and order.index(home[called]) > order.index(name):
                    wrong.append(f"src/{folder}/{name}.c calls {called} of {home[called]}.c, which stands above it")
    if wrong:
        print("\n".join(wrong))
    return len(wrong)


sys.exit(1 if sum(check(folder, layers) for folder, layers in ORDER.items()) else 0)
