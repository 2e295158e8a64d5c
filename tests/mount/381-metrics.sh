#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Metrics are text that Prometheus takes, with labels of disk and directory, whatever a name holds; docs/metrics.md has each of them, and the
# rules in examples/alerts.yml use no others.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
top=$(cd "$(dirname "$0")/../.." && pwd)
value() { grep -v '^#' "$T/metrics" | grep -F "$1 " | awk '{print $NF}'; }
load() { run cat "$MNT/.varve/metrics" >"$T/metrics"; }

start_varve
run mkdir -p "$MNT/vm/deep"
random_file "$T/a" $((3 << 20))
run cp "$T/a" "$MNT/vm/deep/disk.img"
run cp "$T/a" "$MNT/top.img"
run cp "$T/a" "$MNT/vm/gone.img"
odd=$(printf 'a"b\\c\nd\351.img')
: >"$MNT/vm/$odd"
: >"$MNT/vm/.hidden.img"
run "$VARVE" wait "$MNT"
run rm "$MNT/vm/gone.img"
run "$VARVE" verify "$MNT" >/dev/null
load
equals "$(value 'varve_disk_has_good_snapshot{directory="vm/deep",disk="vm/deep/disk.img"}')" 1
equals "$(value 'varve_disk_has_good_snapshot{directory="",disk="top.img"}')" 1
equals "$(value 'varve_disk_pending_bytes{directory="vm/deep",disk="vm/deep/disk.img"}')" 0
odd=$'vm/a\\"b\\\\c\\nd\xee\xbf\xa9.img'        # the byte E9 is U+EFE9
equals "$(value "varve_disk_has_good_snapshot{directory=\"vm\",disk=\"$odd\"}")" 0
equals "$(grep -c '^varve_disk_has_good_snapshot' "$T/metrics")" 3 "disks"
equals "$(grep -c '^varve_disk_last_good_age_seconds' "$T/metrics")" 2
[ "$(value varve_last_verify_timestamp_seconds)" -gt 1700000000 ] || fail "last verify"
equals "$(value varve_last_verify_damaged)" 0
[ "$(value 'varve_free_bytes{place="state"}')" -gt 0 ] || fail "free bytes"
[ "$(value 'varve_rounds_total{result="stored"}')" -ge 1 ] || fail "rounds"
equals "$(value 'varve_rounds_total{result="failed"}')" 0

python3 - "$T/metrics" "$top/docs/metrics.md" "$top/examples/alerts.yml" <<'P'
import re, sys
text, doc, rules = (open(f, encoding="utf-8").read() for f in sys.argv[1:])
SAMPLE = re.compile(r'(\w+)(\{(\w+="([^"\\\n]|\\[\\"n])*",?)*\})? \d+$')
types, families, now, seen = {}, [], None, set()
for line in text.splitlines():
    if line.startswith("# HELP "):
        now = line.split()[2]
        assert now not in families, f"{now} comes twice"
        families.append(now)
    elif line.startswith("# TYPE "):
        types[line.split()[2]] = line.split()[3]
    else:
        assert SAMPLE.match(line), f"no sample: {line}"
        name = SAMPLE.match(line)[1]
        assert name == now, f"{name} among the samples of {now}"
        assert line.rsplit(" ", 1)[0] not in seen, f"twice: {line}"
        seen.add(line.rsplit(" ", 1)[0])
for name in families:
    assert (types[name] == "counter") == name.endswith("_total"), f"{name} is a {types[name]}"
documented = dict(re.findall(r"^\| `(varve_\w+)` \| (\w+) \|", doc, re.M))
assert documented == types, f"docs/metrics.md differs: {set(documented.items()) ^ set(types.items())}"
unknown = set(re.findall(r"varve_\w+", rules)) - set(types)
assert not unknown, f"examples/alerts.yml uses {unknown}"
P
stop_varve

export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
random_file "$T/b" $((6 << 20))
run cp "$T/b" "$MNT/vm/deep/disk.img"
"$VARVE" wait --timeout 60 "$MNT" >"$T/out" 2>&1 || true
if ! grep -q "fault injected" "$T/out"; then skip "this build has no fault points"; fi
load
label='{directory="vm/deep",disk="vm/deep/disk.img"}'
equals "$(value "varve_disk_failed$label")" 1
equals "$(value "varve_disk_pending_snapshots$label")" 1
equals "$(value "varve_disk_pending_bytes$label")" $((6 << 20))
equals "$(value "varve_disk_has_good_snapshot$label")" 1
[ "$(value "varve_disk_failed_attempts$label")" -ge 1 ] || fail "attempts"
[ "$(value 'varve_rounds_total{result="failed"}')" -ge 1 ] || fail "failed rounds"
stop_varve
