#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What every command prints with --json is what docs/json.md says, messages too.
set -eu
. "$(dirname "$0")/lib.sh"
need jq python3
top=$(cd "$(dirname "$0")/../.." && pwd)
is() { # TABLE FILE [--lines]
    python3 -B "$top/tests/lib/json_doc.py" "$top/docs/json.md" "$1" "${@:3}" <"$2" || fail "$1: $(cat "$2")"
}
prints() { # TABLE COMMAND...
    local table=$1; shift
    run "$VARVE" "$@" >"$T/out"
    is "$table" "$T/out"
}
says() { # CODE COMMAND...: it fails so; messages are objects
    local want=$1 code=0; shift
    "$VARVE" "$@" >"$T/out" 2>"$T/err" || code=$?
    equals "$code" "$want" "$*"
    is message "$T/err" --lines
    equals "$(tail -1 "$T/err" | jq .exit)" "$want"
}
start_varve
run mkdir "$MNT/vm"
# Nothing in it; then disks with a history, a group, a label, a note, a snapshot that is open, a removed disk.
prints list list --json "$MNT"
prints status status --json "$MNT"
random_file "$T/image" 100000
prints backup backup --json "$T/image" "$MNT/vm/"
for d in a b c; do random_file "$MNT/vm/$d.img" 100000; done
run "$VARVE" wait "$MNT"
for d in a b; do printf changed | dd of="$MNT/vm/$d.img" conv=notrunc status=none; done
exec 3<>"$MNT/vm/a.img"
printf open >&3
prints snapshot snapshot --json --note "a note" "$MNT/vm"
prints snapshot snapshot --json --label one "$MNT/vm/c.img"
run rm "$MNT/vm/c.img"
truncate -s 1M "$MNT/vm/empty.img"
for what in log list health status verify; do prints $what $what --json "$MNT$([ $what != log ] || echo /vm)"; done
prints log log --json "$MNT/vm/a.img"
exec 3>&-
run "$VARVE" wait "$MNT"
prints list list --json "$MNT"
prints verify verify --json "$T/store"
jq '. + {mountpoint: ""}' "$MNT/.varve/status.json" >"$T/out"
is status "$T/out"
run "$VARVE" dump --json "$T/store/store.conf" >"$T/out"
equals "$(jq -c '[.schema, .kind]' "$T/out")" '[1,"store.conf"]'

run "$VARVE" snapshot --label two "$MNT/vm/a.img"
says 2 snapshot --json --label two "$MNT/vm/"
echo foreign >"$T/json_doc"
says 2 snapshot --json
says 1 snapshot --json "$T"
says 1 log --json "$T/no such"
says 10 verify --json "$T/no such"
says 10 status --json "$T"
says 20 dump --json "$T/json_doc"

# Damage: problems of verify, and what health makes of it.
stop_varve
container=$(find "$T/store/containers" -name '*.vc' | sort | head -1)
printf X | dd of="$container" bs=1 seek=5000 conv=notrunc status=none
code=0; "$VARVE" verify --json --state "$T/state" "$T/store" >"$T/out" 2>"$T/err" || code=$?
equals "$code" 20
is verify "$T/out"
