#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark: runs groups of rows and writes the results. Called by run.sh, which says how in its head."""

import argparse
import os
import shutil
import sys
import time

import contestants
import machine
import report
import rows_live
import rows_series
import rows_store
import targets

GIB = 1 << 30


class Bench:
    """What every row needs to know."""

    def __init__(self, args):
        self.rounds, self.seed, self.work = args.rounds, args.seed, args.work
        self.tools = contestants.chosen(args.peers)
        self.failed = []

    def turn(self, number):
        """The tools in the order of that round."""
        first = number % len(self.tools)
        return self.tools[first:] + self.tools[:first]

    def program(self, name):
        return os.path.join(contestants.BIN, name)

    def say(self, text):
        print(text, flush=True)

    def lost(self, tool, why):
        self.failed.append(f"{tool}: {why}")
        print(f"FAILED {tool}: {why}", flush=True)


def group_series(bench, args):
    result = report.Result("A series of real Debian disks")
    rows_series.series(bench, rows_series.debian_disks(args.series), result)
    return result


def group_made(bench, args):
    result = report.Result("A made-up fleet")
    folder = os.path.join(bench.work, "made")
    disks = rows_series.made_disks(bench, 2, 2, args.size or "32M", folder)
    rows_series.series(bench, disks, result)
    shutil.rmtree(folder)
    return result


def group_growth(bench, args):
    result = report.Result("A fleet that grows")
    rows_series.growth(bench, result, *((2, 2, args.size or "16M") if args.smoke else (4, 10, args.size or "1G")))
    return result


def group_dirty(bench, args):
    result = report.Result("Snapshot of a live image, until stored")
    rows_live.dirty(bench, result, [64 << 20] if args.smoke else [GIB, 4 * GIB])
    rows_live.dirty_of_large(bench, result, [2 * GIB] if args.smoke else [GIB, 256 * GIB])
    return result


def group_rollback(bench, args):
    result = report.Result("Rollback and clone: milliseconds")
    rows_live.back_and_clone(bench, result, (32 << 20) if args.smoke else 2 * GIB)
    return result


def group_fio(bench, args):
    result = report.Result("fio on the live image")
    rows_live.random_io(bench, result, *((32 << 20, 1) if args.smoke else (GIB, args.seconds)))
    return result


def group_ls(bench, args):
    result = report.Result("Listing: milliseconds")
    rows_store.listing(bench, result, *((20, 20) if args.smoke else (1000, args.snapshots - 1000)))
    return result


def group_index(bench, args):
    result = report.Result("Index")
    rows_store.index(bench, result, [(10 ** 6, 1)] if args.smoke else [(10 ** 7, 1), (10 ** 8, 8), (10 ** 9, 64)])
    return result


def group_parts(bench, args):
    result = report.Result("Parts, on one core")
    file = rows_live.image(bench, 64 << 20) if args.smoke else os.path.join(args.series, "app-day0.img")
    rows_store.parts(bench, result, file)
    return result


GROUPS = {"series": group_series, "made": group_made, "growth": group_growth, "dirty": group_dirty, "rollback": group_rollback,
          "fio": group_fio, "ls": group_ls, "index": group_index, "parts": group_parts}
SMOKE = [g for g in GROUPS if g != "series"]
FULL = [g for g in GROUPS if g != "made"]


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"smoke (default), all, or some of: {' '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=lambda s: [p for p in s.split(",") if p], help="names, comma-separated (default: all installed)")
    parser.add_argument("--size", help="of a generated disk")
    parser.add_argument("--seconds", type=int, default=5, help="of one fio run")
    parser.add_argument("--snapshots", type=int, default=100000, help="in the store of the row ls")
    parser.add_argument("--series", help="folder of debian-series.sh")
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    args.smoke = args.groups in ([], ["smoke"])
    if args.smoke:
        args.rounds = 1
        if args.peers is None:
            args.peers = ["cp", "passthrough", "passthrough-direct"]
    args.groups = SMOKE if args.smoke else FULL if args.groups == ["all"] else args.groups
    wrong = [g for g in args.groups if g not in GROUPS]
    if wrong:
        parser.error(f"unknown or not to be combined: {' '.join(wrong)}")
    return args


def main():
    args = arguments()
    print(f"seed {args.seed}, {args.rounds} rounds", flush=True)
    bench = Bench(args)
    facts = machine.facts()
    facts["versions"] = {t.name: t.version() for t in bench.tools if t.program or t.name == "varve"}
    results, passed = [], 0
    for name in args.groups:
        bench.say(f"---- {name}")
        before, begin = len(bench.failed), time.monotonic()
        try:
            results.append(GROUPS[name](bench, args))
            results[-1].group = name
        except machine.Failed as why:
            bench.lost(name, why)
        if len(bench.failed) == before and results[-1].rows:    # a group without figures has not passed
            passed += 1
        bench.say(f"{name}: {time.monotonic() - begin:.0f} s")
        report.write(args.out, facts, results, bench.failed)     # what is there, even if a later group is stopped
    for result in results:
        print(result.table())
    if not args.smoke:
        print(targets.table(targets.lines(results)))
    print(f"results are in {args.out}")
    failed = len(args.groups) - passed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
