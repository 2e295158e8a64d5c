#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""exact.py COVERAGE.json EXACT.txt LINES BRANCHES: are LINES percent of src covered, and in decoders (EXACT) every branch?

What is not is named in EXACT.txt: one line "FILE | FUNCTION | TEXT OF THE LINE | REASON". Text instead of line numbers, so that it
survives edits. Entries that nothing needs are told. In the files of commit and recovery (FLOOR) every line with a branch that was
not taken is listed, and BRANCHES percent must be.
"""
import json
import pathlib
import re
import sys

EXACT = [r"src/format/.*\.c", r"src/proto/.*\.c", r"src/live/live_format.*\.c", r"src/fpindex/fpindex_format\.c"]
FLOOR = [
    r"src/snapshot/commit\.c", r"src/store/(publish|seal|append|owner|deletions|claim)\.c",
    r"src/live/live_(recover|journal|publish|drop|freeze|sync)\.c", r"src/agent/agent_(recover|round)\.c",
    r"src/dedup/(stage_4b|publish_check)\.c", r"src/names/names_reconcile.*\.c",
]


def functions_of(text):
    """[(first line, name)] of the functions of a C file of this tree: their heads begin in column 0."""
    found = []
    for number, line in enumerate(text, 1):
        if re.match(r"[A-Za-z_].*\(", line) and not line.rstrip().endswith(";") and not line.startswith(("#", "typedef", "_Static")):
            m = re.search(r"([A-Za-z_0-9]+)\(", line)
            if m:
                found.append((number, m.group(1)))
    return found


def main():
    coverage = json.loads(pathlib.Path(sys.argv[1]).read_text())
    allowed = {}
    for line in pathlib.Path(sys.argv[2]).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            file, function, text, reason = line.split(" | ")    # "||" has no blank inside
            allowed[(file, function, text)] = reason
    total = hit = branches = taken = exact_branches = exact_taken = floor_branches = floor_taken = floor_lines = 0
    missing, used = [], set()
    for f in coverage["files"]:
        name = f["file"]
        if not name.startswith("src/"):
            continue
        exact = any(re.fullmatch(p, name) for p in EXACT)
        floor = any(re.fullmatch(p, name) for p in FLOOR)
        text = pathlib.Path(name).read_text().splitlines()
        functions = functions_of(text)
        for line in f["lines"]:
            if line.get("gcovr/noncode"):
                continue
            total += 1
            hit += line["count"] > 0
            b = line["branches"]
            got = sum(x["count"] > 0 for x in b)
            branches += len(b)
            taken += got
            if not exact and not floor:
                continue
            if exact:
                exact_branches += len(b)
                exact_taken += got
            else:
                floor_branches += len(b)
                floor_taken += got
            if line["count"] > 0 and got == len(b):
                continue
            number = line["line_number"]
            function = next((n for at, n in reversed(functions) if at <= number), "?")
            if floor:
                floor_lines += 1
                print(f"not taken: {name}:{number} ({function}): {got} of {len(b)} branches: {text[number - 1].strip()}")
                continue
            key = (name, function, text[number - 1].strip().replace(" | ", " |"))
            if key in allowed:
                used.add(key)
            else:
                missing.append((name, number, key, f"{got} of {len(b)} branches" if b else "not reached"))
    for name, number, key, what in missing:
        print(f"FAILED at line {name}:{number} ({key[1]}): {what}: {key[2]}")
    unused = [k for k in allowed if k not in used]
    for k in unused:
        print(f"not needed (any more): {' | '.join(k)}")
    percent = 100 * hit / total
    print(f"lines {hit} of {total} = {percent:.1f} %; branches {taken} of {branches} = {100 * taken / branches:.1f} %")
    floor_percent = 100 * floor_taken / floor_branches
    print(f"decoders: branches {exact_taken} of {exact_branches} = {100 * exact_taken / exact_branches:.1f} %; lines with a reason: {len(used)};"
          f" without: {len(missing)}; reasons that nothing needs: {len(unused)}")
    print(f"commit and recovery: branches {floor_taken} of {floor_branches} = {floor_percent:.1f} %; lines with one not taken: {floor_lines}")
    return bool(missing) or percent < float(sys.argv[3]) or floor_percent < float(sys.argv[4])


sys.exit(main())
