#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names and notes are bytes; what is printed as JSON is UTF-8 all the same.
set -eu
. "$(dirname "$0")/lib.sh"

start_varve
disk=$MNT/$'caf\xe9.img'
run truncate -s 1M "$disk"
"$VARVE" snapshot --json --label kept --note $'\xff note' "$disk" >"$T/snapshot.json"
run "$VARVE" wait "$MNT"
"$VARVE" log --json "$disk" >"$T/log.json"
"$VARVE" log "$disk" >"$T/log.txt"
grep -qF "'caf'$'\\351''@kept.img'" "$T/log.txt" || fail "the table of varve log does not show the snapshot"
/usr/bin/python3 - "$T" "$MNT" <<'EOF'
import json
import sys

made, = json.load(open(sys.argv[1] + "/snapshot.json"))
assert made["path"] == sys.argv[2] + "/caf\uefe9.img", made
assert made["name"].endswith("caf\uefe9@kept.img"), made
log = json.load(open(sys.argv[1] + "/log.json"))
assert log["disk"] == "caf\uefe9.img", log
kept, = [s for s in log["snapshots"] if s["label"] == "kept"]
assert kept["name"] == "caf\uefe9@kept.img" and kept["note"] == "\uefff note", kept
EOF
stop_varve
