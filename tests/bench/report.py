# SPDX-License-Identifier: Apache-2.0
"""Results: medians and ratios, as a table in Markdown, as JSON, and as SVG plots."""

import json
import math
import os
import statistics
from xml.sax.saxutils import escape

import targets

SMALLER_IS_WORSE = ("MB/s", "iops")


class Result:
    """The figures of one group of rows: row -> tool -> values of the rounds, in their order."""

    def __init__(self, title):
        self.title, self.rows, self.notes, self.group = title, {}, [], None

    def add(self, row, tool, value):
        self.rows.setdefault(row, {}).setdefault(tool, []).append(value)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def median(self, row, tool):
        return statistics.median(self.rows[row][tool])

    def ratio(self, row, tool):
        """varve / peer: the median of the ratios of those rounds in which both ran."""
        mine, other = self.rows[row].get("varve"), self.rows[row].get(tool)
        if not mine or not other or tool == "varve" or 0 in other:
            return None
        return statistics.median(a / b for a, b in zip(mine, other))

    def tools(self):
        found = []
        for tools in self.rows.values():
            found += [t for t in tools if t not in found]
        return sorted(found, key=lambda t: t != "varve")

    def json(self):
        rows = {}
        for row, tools in self.rows.items():
            rows[row] = {tool: {"median": self.median(row, tool), "values": values, "varve_to_this": self.ratio(row, tool)}
                         for tool, values in tools.items()}
        return {"group": self.group, "title": self.title, "notes": self.notes, "rows": rows}

    def table(self):
        tools = self.tools()
        lines = [f"## {self.title}", ""] + [f"{n}." for n in self.notes] + ([""] if self.notes else [])
        lines += ["| | " + " | ".join(tools) + " |", "|---" * (len(tools) + 1) + "|"]
        for row, values in self.rows.items():
            cells = []
            for tool in tools:
                if tool not in values:
                    cells.append("")
                    continue
                ratio = self.ratio(row, tool)
                cells.append(figure(self.median(row, tool)) + (f" ({ratio:.2f})" if ratio is not None else ""))
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def figure(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def bars(title, values):
    """A plot of horizontal bars. values: (label, value), drawn in the given order."""
    width, left, step = 720, 190, 26
    height = 50 + step * len(values)
    largest = max(v for _, v in values) or 1
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="10" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']
    for i, (label, value) in enumerate(values):
        y = 42 + step * i
        long = (width - left - 90) * value / largest
        colour = "#b5651d" if label.startswith("varve") else "#8a9ba8"
        out += [f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
                f'<rect x="{left}" y="{y}" width="{long:.1f}" height="18" fill="{colour}"/>',
                f'<text x="{left + long + 6:.1f}" y="{y + 14}">{figure(value)}</text>']
    return "\n".join(out + ["</svg>", ""])


def rounded_top(largest):
    """The next of 1, 2, 4, 6, 8 times a power of ten, so that four steps of the scale have short names."""
    power = 10 ** math.floor(math.log10(largest))
    return next(power * n for n in (1, 2, 4, 6, 8, 10) if power * n >= largest)


def apart(places, distance):
    """Heights of labels that want to stand at these places: no two closer than that."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    for a, b in zip(order, order[1:]):
        found[b] = max(found[b], found[a] + distance)
    return found


def curves(title, unit, lines):
    """A plot of curves over days. lines: name -> values."""
    width, height, left, bottom, top = 720, 360, 70, 40, 40
    largest = rounded_top(max(max(v) for v in lines.values()) or 1)
    days = max(len(v) for v in lines.values())
    colours = ["#b5651d", "#33658a", "#5f8f4e", "#7d4f8f", "#8a9ba8", "#c0a000"]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="10" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']

    def place(day, value):
        x = left + (width - left - 110) * day / max(1, days - 1)
        return x, height - bottom - (height - bottom - top) * value / largest
    for part in range(5):
        value = largest * part / 4
        y = place(0, value)[1]
        out += [f'<line x1="{left}" y1="{y:.1f}" x2="{width - 110}" y2="{y:.1f}" stroke="#dddddd"/>',
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>']
    labels = apart([place(0, v[-1])[1] for v in lines.values()], 14)
    for i, (name, values) in enumerate(lines.items()):
        points = " ".join("{:.1f},{:.1f}".format(*place(d, v)) for d, v in enumerate(values))
        x, y = place(len(values) - 1, values[-1])[0], labels[i]
        out += [f'<polyline points="{points}" fill="none" stroke="{colours[i % len(colours)]}" stroke-width="2"/>',
                f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colours[i % len(colours)]}">{escape(name)}</text>']
    out.append(f'<text x="{left}" y="{height - 10}">day 0 to {days - 1}; {escape(unit)}</text>')
    return "\n".join(out + ["</svg>", ""])


PLOTS = [   # file, row, title
    ("stored.svg", "stored, sum", "Series copied in until stored: seconds"),
    ("restored.svg", "restored, sum", "Series restored: seconds"),
    ("size.svg", "store size", "Size of the store: MB"),
]


def write(folder, facts, results, lost):
    """results.json, results.md and the plots into a folder."""
    os.makedirs(folder, exist_ok=True)
    aims = targets.lines(results)
    against = targets.plot(aims)
    if against is not None:
        plot(folder, "targets.svg", against)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as out:
        json.dump({"machine": facts, "failed": lost, "targets": [t.json() for t in aims], "groups": [r.json() for r in results]}, out,
                  indent=1)
        out.write("\n")
    head = ", ".join(f"{k} {v}" for k, v in facts.items() if not isinstance(v, dict))
    text = ["# Benchmark results", "", f"Made by `tests/bench/run.sh`. {head}.", "",
            "Medians; in brackets varve divided by that tool, the median of the ratios of alternating rounds.", ""]
    text += [", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items()) + ".", "", targets.table(aims)]
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as out:
        out.write("\n".join(text) + "\n".join(r.table() for r in results))
        if lost:
            out.write("\nFailed: " + "; ".join(lost) + "\n")
    for result in results:
        for name, row, title in PLOTS:
            if row in result.rows:
                values = sorted(((t, result.median(row, t)) for t in result.rows[row]), key=lambda v: v[1])
                plot(folder, name, bars(title, values))
        for unit, name, title in (("seconds", "growth-seconds.svg", "seconds until a day is stored"),
                                  ("store MB", "growth-size.svg", "MB of the store after each day")):
            days = [row for row in result.rows if row.startswith("day ") and row.endswith(unit)]
            if days:
                lines = {t: [result.median(row, t) for row in days if t in result.rows[row]] for t in result.tools()}
                plot(folder, name, curves(f"A fleet that grows: {title}", unit, {t: v for t, v in lines.items() if v}))


def plot(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        out.write(text)
