# SPDX-License-Identifier: Apache-2.0
"""The numbers that varve is to reach, computed from the results of the groups: what is asked, what was measured, reached or not."""

import os
from xml.sax.saxutils import escape

PEERS = ("restic", "rustic", "borg", "casync")


class Line:
    """One target. value, limit: in the unit; most: the value may be at most limit, else it has to be at least limit."""

    def __init__(self, what, target, unit, limit, value, most=True, than=""):
        self.what, self.target, self.unit, self.limit, self.value, self.most, self.than = what, target, unit, limit, value, most, than

    def reached(self):
        if self.value is None:
            return None
        return self.value <= self.limit if self.most else self.value >= self.limit

    def share(self):
        """How much of what is allowed is used: 1 and below is reached."""
        if self.most:
            return self.value / self.limit
        return self.limit / self.value if self.value > 0 else float("inf")

    def measured(self):
        if self.value is None:
            return "not measured"
        text = f"{self.value:.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return f"{text} {self.unit}".rstrip() + (f" ({self.than})" if self.than else "")

    def json(self):
        return {"what": self.what, "target": self.target, "unit": self.unit, "limit": self.limit, "measured": self.value,
                "than": self.than, "reached": self.reached()}


class Results:
    """Looks rows up in groups that may be missing."""

    def __init__(self, results):
        self.groups = {r.group: r for r in results}

    def median(self, group, row, tool="varve"):
        result = self.groups.get(group)
        return result.median(row, tool) if result and tool in result.rows.get(row, {}) else None

    def ratio(self, group, row, tool, inverse=False):
        result = self.groups.get(group)
        value = result.ratio(row, tool) if result and row in result.rows else None
        return 1 / value if inverse and value else value

    def best_peer(self, group, row):
        """Name of the peer with the smallest median, None where none took part."""
        found = [(self.median(group, row, p), p) for p in PEERS if self.median(group, row, p) is not None]
        return min(found)[1] if found else None

    def to_best(self, group, row, inverse=False):
        peer = self.best_peer(group, row)
        return (self.ratio(group, row, peer, inverse), f"{peer}") if peer else (None, "")

    def worst(self, group, rows):
        values = [self.median(group, row) for row in rows]
        return None if None in values else max(values)

    def largest(self, group, ending):
        """Of the last row whose name ends so: rows stand in order of size."""
        rows = [r for r in self.groups[group].rows if r.endswith(ending)] if group in self.groups else []
        return self.median(group, rows[-1]) if rows else None


def series(r):
    stored, than_stored = r.to_best("series", "stored, sum")
    restored, than_restored = r.to_best("series", "restored, sum", inverse=True)
    size, than_size = r.to_best("series", "store size")
    cores = os.cpu_count() or 1
    share = 0.65 if cores < 4 else 0.8
    return [
        Line("series copied in until stored", "at most 0.2 of the fastest peer's time", "of its time", 0.2, stored, than=than_stored),
        Line("cp out of a snapshot, beside passthrough", f"at least {share} of its speed ({cores} cores)", "of its speed", share,
             r.ratio("series", "restored, sum", "passthrough", inverse=True), most=False),
        Line("cp out of a snapshot, beside peers", "at least 3 times the fastest peer's speed", "times", 3, restored, most=False,
             than=than_restored),
        Line("second read of a snapshot, beside passthrough", "from the page cache: at most 1.25 of its time", "of its time", 1.25,
             r.ratio("series", "second read", "passthrough")),
        Line("store size of the series", "at most 0.8 of the smallest peer's", "of its size", 0.8, size, than=than_size),
        Line("RssAnon of the daemon during a backup", "below 100 MB", "MB", 100, r.median("series", "stored, peak anonymous memory")),
        Line("detection, metadata on the wire", "below 48 bytes per block asked", "bytes", 48,
             r.median("series", "metadata on the wire: bytes per block asked")),
    ]


def others(r):
    small, large = (r.median("dirty", f"{size} GiB disk, one segment dirty: seconds") for size in (1, 256))
    big = "1e9 blocks, 5000 asked: MB "
    return [
        Line("snapshot with one dirty segment: 256 GiB beside 1 GiB", "does not depend on the disk: at most twice the time", "times", 2,
             large / small if small and large else None),
        Line("snapshot of a live image, all dirty", "0.7 GB/s or more on 2 cores", "MB/s", 700, r.largest("dirty", "100 % dirty: MB/s"),
             most=False),
        Line("random 4 KiB reads on the live image", "at least 0.8 of passthrough", "of its iops", 0.8,
             r.ratio("fio", "4 KiB random read: iops", "passthrough"), most=False),
        Line("random 4 KiB writes on the live image", "at least 0.8 of passthrough", "of its iops", 0.8,
             r.ratio("fio", "4 KiB random write: iops", "passthrough"), most=False),
        Line("rollback, clone", "below 50 ms", "ms", 50, r.worst("rollback", ("rollback", "clone", "clone by copy_file_range"))),
        Line("ls -l of 1 000 snapshots among 100 000", "below 50 ms, warm", "ms", 50, r.median("ls", "ls -l, warm")),
        Line("small cp against an index of 10^9 blocks: read", "below 60 MB", "MB", 60, r.median("index", big + "read")),
        Line("small cp against an index of 10^9 blocks: index written", "below 1 MB", "MB", 1, r.median("index", big + "written")),
    ]


def lines(results):
    found = Results(results)
    return series(found) + others(found)


def table(found):
    word = {True: "yes", False: "**no**", None: ""}
    text = ["## Targets", "", "| what | target | measured | reached |", "|---|---|---|---|"]
    text += [f"| {t.what} | {t.target} | {t.measured()} | {word[t.reached()]} |" for t in found]
    return "\n".join(text) + "\n"


def plot(found):
    """Bars against the line of the target: left of it is reached. None when nothing was measured."""
    found = [t for t in found if t.value is not None]
    if not found:
        return None
    width, left, step, top, most = 1280, 400, 26, 62, 2.0
    height = top + step * len(found) + 34
    unit = (width - left - 520) / most
    line = left + unit
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="10" y="24" font-size="15" font-weight="bold">Targets: what was measured, as a share of what is allowed</text>']
    for i, t in enumerate(found):
        y, share = top + step * i, t.share()
        long = unit * min(share, most)
        colour = "#5f8f4e" if t.reached() else "#b03a2e"
        out += [f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(t.what)}</text>',
                f'<rect x="{left}" y="{y}" width="{max(long, 1):.1f}" height="18" fill="{colour}"/>',
                f'<text x="{max(left + long, line) + 8:.1f}" y="{y + 14}">{escape(t.measured())}'
                f'<tspan dx="10" fill="#777777">{escape(t.target)}</tspan></text>']
        if share > most:        # longer than the plot: a gap says so
            out.append(f'<rect x="{left + long - 14:.1f}" y="{y}" width="4" height="18" fill="white"/>')
    bottom = top + step * len(found)
    out += [f'<line x1="{line}" y1="{top - 14}" x2="{line}" y2="{bottom}" stroke="black" stroke-width="1.5"/>',
            f'<text x="{line}" y="{top - 18}" text-anchor="middle">target</text>',
            f'<text x="{left}" y="{bottom + 22}">shorter is better; green: reached, red: not; a gap: more than twice of what is allowed</text>']
    return "\n".join(out + ["</svg>", ""])
