#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve snapshot` prints paths that `varve revert` takes, and labels unchanged disks; `varve log` takes a directory.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
start_varve
run mkdir "$MNT/vm" "$MNT/empty"
for d in a.img b.img disk .hidden; do random_file "$MNT/vm/$d" 50000; done
run "$VARVE" wait "$MNT"

# A directory: the path of each snapshot, relative as the argument was.
cd "$MNT/vm"
for d in a.img b.img .hidden; do printf changed | dd of=$d conv=notrunc status=none; done
run "$VARVE" wait "$MNT"
run "$VARVE" snapshot . >"$T/out" 2>&1
grep -qx '.: nothing changed, no snapshot made' "$T/out" || fail "$(cat "$T/out")"
run "$VARVE" snapshot --label one . >"$T/out"
equals "$(sort "$T/out" | paste -sd' ')" "./a@one.img ./b@one.img ./disk@one"
exits() { # CODE TEXT COMMAND...: it fails so, and says that
    local want=$1 text=$2 code=0; shift 2
    "$@" >"$T/out" 2>&1 || code=$?
    equals "$code" "$want" "$*: $(cat "$T/out")"
    grep -qF -- "$text" "$T/out" || fail "$*: said $(cat "$T/out")"
}
exits 2 one "$VARVE" snapshot --label one "$MNT/vm/"
exits 2 "label: [A-Za-z0-9._-]" "$VARVE" snapshot --label 'a b' "$MNT/vm/a.img"
run "$VARVE" snapshot --label two --json "$MNT/vm/" >"$T/json"
equals "$(jq -c '[.[0].count, (.[0].names | sort)]' "$T/json")" '[3,["a@two.img","b@two.img","disk@two"]]'
run "$VARVE" snapshot --label three disk >"$T/out"
equals "$(cat "$T/out")" disk@three
run "$VARVE" snapshot "$MNT/vm/a.img" >"$T/out"
cd "$T"
while read -r snap; do run "$VARVE" revert "$snap"; done <"$T/out"
equals "$(dirname "$(cat "$T/out")")" "$MNT/vm"

# The log of a directory: every disk with a history, removed ones too.
run rm "$MNT/vm/b.img"
run "$VARVE" log "$MNT/vm" >"$T/out"
for name in a@one.img a@two.img b@one.img disk@three; do grep -q "^$name " "$T/out" || fail "not in the log: $name"; done
run "$VARVE" log --json "$MNT/vm" >"$T/json"
equals "$(jq -c '[.[].disk]' "$T/json")" '[".hidden","a.img","b.img","disk"]'
equals "$(jq -c '[.[].live]' "$T/json")" '[true,true,false,true]'
run "$VARVE" log --json "$MNT/empty" >"$T/json"
equals "$(jq -c . "$T/json")" '[]'
run "$VARVE" log "$MNT" >/dev/null
exits 1 "$T: not in a varve mount" "$VARVE" log "$T"
exits 10 "$T/json: is a file" "$VARVE" mount "$T/json" "$T/store"
exits 10 "$T/json" "$VARVE" verify "$T/json"
exits 10 "$T/json" "$VARVE" rebuild --state "$T/state" "$T/json"
stop_varve
