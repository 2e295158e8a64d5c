#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""exact.py COVERAGE.json EXACT.txt LINES [--write]: are LINES percent of src covered, and in the files of EXACT every branch?

EXACT are the decoders and the files of commit and recovery. A branch of theirs that was not taken is named in EXACT.txt: one line
"FILE | FUNCTION | TEXT OF THE LINE | REASON". Text instead of line numbers, so that it survives edits. A reason is free text, or
"@CLASS" (with more text behind it, if there is any) for what many lines share; a line "class CLASS: TEXT" says it once. A line that
was not reached at all needs no entry: the branch that leads to it has one; but for a function that was never entered its head does.
Entries that nothing needs are told. --write appends what is missing, with the class its text suggests: a proposal, for people to
read; "@?" is no class and fails until somebody wrote a reason or, better, a test.
"""
import collections
import json
import pathlib
import re
import sys

DECODERS = [r"src/format/.*\.c", r"src/proto/.*\.c", r"src/live/live_format.*\.c", r"src/fpindex/fpindex_format\.c"]
COMMIT = [
    r"src/snapshot/commit\.c", r"src/store/(publish|seal|append|owner|deletions|claim)\.c",
    r"src/live/live_(recover|create|journal|head|anchor|publish|drop|freeze|sync)\.c", r"src/agent/agent_(recover|round)\.c",
    r"src/dedup/(stage_4b|publish_check)\.c", r"src/names/names_reconcile.*\.c",
]
PROPOSALS = [   # the first that fits
    (r"ENOMEM|== NULL\b.*(alloc|strdup)|(alloc|strdup)\(.*== NULL", "memory"),
    (r"^if \((r|rc|e|n|got|fd) < 0\)( \{)?$|^(if|while|for) \(.*\b(r|rc|e) (==|>=) 0\b|^\}? ?(else )?if \((r|rc) == 0", "passed"),
    (r"errno|< 0\b", "device"),
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


def read_reasons(path):
    """({CLASS: text}, {(file, function, text): reason})"""
    classes, reasons = {}, {}
    for line in pathlib.Path(path).read_text().splitlines():
        if m := re.fullmatch(r"class ([a-z]+): (.+)", line):
            classes[m.group(1)] = m.group(2)
        elif line.strip() and not line.startswith("#"):
            file, function, text, reason = line.split(" | ")    # "||" has no blank inside
            reasons[(file, function, text)] = reason
    return classes, reasons


def class_of(reason):
    return reason[1:].split(" ")[0].rstrip(":") if reason.startswith("@") else ""


class Tally:
    """Branches of one kind of file."""
    def __init__(self):
        self.branches = self.taken = 0

    def add(self, branches, taken):
        self.branches += branches
        self.taken += taken

    def __str__(self):
        return f"branches {self.taken} of {self.branches} = {100 * self.taken / max(self.branches, 1):.1f} %"


def needs_reason(f, text):
    """[(line number, function, what is missing)] of one file of coverage.json."""
    functions, entered, found = functions_of(text), set(), []
    for line in f["lines"]:
        if line.get("gcovr/noncode"):
            continue
        number, got = line["line_number"], sum(x["count"] > 0 for x in line["branches"])
        function = next((n for at, n in reversed(functions) if at <= number), "?")
        first = function not in entered
        entered.add(function)
        if line["count"] == 0 and first:
            found.append((number, function, "never called"))
        elif line["count"] > 0 and got < len(line["branches"]):
            found.append((number, function, f"{got} of {len(line['branches'])} branches"))
    return found


def propose(text):
    return next((f"@{c}" for pattern, c in PROPOSALS if re.search(pattern, text)), "@?")


def main():
    coverage = json.loads(pathlib.Path(sys.argv[1]).read_text())
    classes, reasons = read_reasons(sys.argv[2])
    total = hit = 0
    tallies = {"all": Tally(), "decoders": Tally(), "commit and recovery": Tally()}
    missing, used = [], set()
    for f in coverage["files"]:
        name = f["file"]
        if not name.startswith("src/"):
            continue
        kinds = ["all"]
        kinds += ["decoders"] if any(re.fullmatch(p, name) for p in DECODERS) else []
        kinds += ["commit and recovery"] if any(re.fullmatch(p, name) for p in COMMIT) else []
        for line in f["lines"]:
            if not line.get("gcovr/noncode"):
                total += 1
                hit += line["count"] > 0
                for kind in kinds:
                    tallies[kind].add(len(line["branches"]), sum(x["count"] > 0 for x in line["branches"]))
        if len(kinds) == 1:
            continue
        text = pathlib.Path(name).read_text().splitlines()
        for number, function, what in needs_reason(f, text):
            key = (name, function, text[number - 1].strip().replace(" | ", " |"))
            if key in reasons:
                used.add(key)
            else:
                missing.append((number, key, what))
    for number, key, what in missing:
        print(f"FAILED at line {key[0]}:{number} ({key[1]}): {what}: {key[2]}")
    if "--write" in sys.argv[4:]:
        with open(sys.argv[2], "a") as out:
            for key in dict.fromkeys(key for _, key, _ in missing):
                out.write(f"{' | '.join(key)} | {propose(key[2])}\n")
    unknown = [(k, r) for k, r in reasons.items() if r.startswith("@") and class_of(r) not in classes]
    for key, reason in unknown:
        print(f"FAILED at reason {reason}: no such class: {' | '.join(key)}")
    for key in reasons.keys() - used:
        print(f"not needed (any more): {' | '.join(key)}")
    counts = collections.Counter(class_of(reasons[k]) or "own words" for k in used)
    print("lines with a reason:", ", ".join(f"{n} {c}" for c, n in counts.most_common()) or "none")
    percent = 100 * hit / total
    print(f"lines {hit} of {total} = {percent:.1f} %; {tallies['all']}")
    print(f"decoders: {tallies['decoders']}; commit and recovery: {tallies['commit and recovery']}; lines with a reason: {len(used)};"
          f" without: {len(missing)}; reasons that nothing needs: {len(reasons) - len(used)}")
    return bool(missing) or bool(unknown) or percent < float(sys.argv[3])


sys.exit(main())
