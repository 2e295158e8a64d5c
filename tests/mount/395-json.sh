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
# one: stdout is one JSON value, an object or a list of objects with a schema, and nothing else.
one() {
    jq -es 'length == 1 and (.[0] | [if type == "array" then .[] else . end] | length > 0 and all(.[]; .schema == 1))' "$T/out" >/dev/null ||
        fail "$*: stdout is: $(cat "$T/out")"
}
says() { # CODE COMMAND...: it fails so; messages are objects, and stdout has its document all the same
    local want=$1 code=0; shift
    "$VARVE" "$@" >"$T/out" 2>"$T/err" || code=$?
    equals "$code" "$want" "$*"
    [ -s "$T/err" ] || fail "$*: says nothing"
    is message "$T/err" --lines
    equals "$(tail -1 "$T/err" | jq .exit)" "$want" "$*"
    one "$@"
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
equals "$(jq -c 'keys' "$T/out")" '["error","file","schema"]'
says 1 dump --json "$T/no such"
code=0; "$VARVE" dump --json "$T/json_doc" "$T/store/store.conf" >"$T/out" 2>"$T/err" || code=$?
equals "$code $(jq -r '.error != null' "$T/out" | paste -sd,)" "20 true,false"

# Wrong calls, as of every command that takes --json.
for c in list log status health snapshot backup verify dump; do
    says 2 $c --json --no-such-option
    says 2 $c --json=yes
    says 2 $c --no-such-option --js
done
for c in log snapshot backup verify dump; do says 2 $c --json; done
says 2 health --json --max-age
says 2 health --json --max-age soon
says 2 snapshot --json --label
says 2 verify --json --state

# What cannot be done.
says 1 list --json "$T/no such"
says 1 list --json "$T"
says 1 log --json "$T"
says 1 snapshot --json "$T/no such" "$MNT/no such"
"$VARVE" snapshot --json --label three "$MNT/vm/a.img" "$T" >"$T/out" 2>"$T/err" && fail "a path of two was wrong"
is snapshot "$T/out"
is message "$T/err" --lines
code=0; "$VARVE" health --json "$T/no such" >"$T/out" 2>"$T/err" || code=$?
equals "$code" 2
is health "$T/out"
! "$VARVE" list --json "$MNT" >/dev/full 2>"$T/err" || fail "/dev/full takes it"
is message "$T/err" --lines

# backup: before anything is done, and of copies that fail.
says 10 backup --json "$T/image" "$T/x.img"
says 1 backup --json "$T/image" "$T/no such/x.img"
says 2 backup --json "$T/image" "$MNT/vm/a@b.img"
says 2 backup --json "$T/image" "$T/json_doc" "$MNT/vm/a.img"
says 2 backup --json "$T/image" "$T/../${T##*/}/image" "$MNT/vm"
says 2 backup --json --label two "$T/image" "$MNT/vm/a.img"
says 2 backup --json --label 'no label' "$T/image" "$MNT/vm/a.img"
says 3 backup --json "$T/no such" "$MNT/vm/y.img"
is backup "$T/out"
says 3 backup --json "$T/image" "$T/no such" "$MNT/vm"
is backup "$T/out"
equals "$(jq -c '[.ok, [.backups[].ok]]' "$T/out")" '[false,[true,false]]'
exec 3<>"$MNT/vm/b.img"
says 11 backup --json "$T/image" "$MNT/vm/b.img"
is backup "$T/out"
exec 3>&-
run "$VARVE" wait "$MNT"

# Damage: problems of verify, and what health makes of it.
stop_varve
container=$(find "$T/store/containers" -name '*.vc' | sort | head -1)
printf X | dd of="$container" bs=1 seek=5000 conv=notrunc status=none
code=0; "$VARVE" verify --json --state "$T/state" "$T/store" >"$T/out" 2>"$T/err" || code=$?
equals "$code" 20
is verify "$T/out"
