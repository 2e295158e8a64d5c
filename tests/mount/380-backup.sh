#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `varve backup` exits 0 only if every source is in STORE as a whole, in one unflagged snapshot, several of them in one group; a source that
# cannot be read, a failed write and a signal leave partial ones, and the last good one stays the last good one.
set -eu
. "$(dirname "$0")/lib.sh"
need jq python3
expect_errors
backup_is() {   # CODE ARGUMENT...
    local want=$1 code=0; shift
    timeout -k 5 "$CASE_TIMEOUT" "$VARVE" backup "$@" >"$T/out" 2>"$T/err" || code=$?
    equals "$code" "$want" "varve backup $*: $(cat "$T/out" "$T/err")"
}
last_good() { "$VARVE" list --json "$1" | jq -r '.[0].disks[0].last_good.name'; }
says() { grep -q -- "$1" "$T/err" || fail "no '$1' in: $(cat "$T/err")"; }

random_file "$T/a" $((5 << 20))
truncate -s 40M "$T/a"                  # a hole behind the data
random_file "$T/b" $((3 << 20))
start_varve
run mkdir "$MNT/vm"

# One disk: one good snapshot, holes kept.
backup_is 0 --label first --note "a note" "$T/a" "$MNT/vm/a.img"
equals "$(cat "$T/out")" "$MNT/vm/a@first.img"
equals "$(snap_count "$MNT/vm/a.img")" 1
same "$T/a" "$MNT/vm/a@first.img"
same "$T/a" "$MNT/vm/a.img"
equals "$(xattr "$MNT/vm/a@first.img" state)/$(xattr "$MNT/vm/a@first.img" flags)/$(xattr "$MNT/vm/a@first.img" note)" "stored//a note"
blocks=$(stat -c %b "$MNT/vm/a@first.img")
[ "$blocks" -le $((5 << 11)) ] || fail "$blocks blocks: the hole is gone"
# The same again, into the directory, and something shorter over it.
cp "$T/a" "$T/a.img"
backup_is 0 "$T/a.img" "$MNT/vm"
equals "$(snap_count "$MNT/vm/a.img")" 2
backup_is 0 "$T/b" "$MNT/vm/a.img"
same "$T/b" "$(cat "$T/out")"
equals "$(snap_count "$MNT/vm/a.img")" 3

# Several: one group, an empty one and an unchanged one too.
mkdir "$T/in"
for i in 1 2 3 4 5 6; do random_file "$T/in/d$i.img" $((i << 20)); done
: >"$T/in/empty.img"
truncate -s 3M "$T/in/zero.img"
backup_is 0 --json "$T"/in/*.img "$MNT/vm/"
equals "$(jq -r '.ok, (.backups | length), ([.backups[] | select(.ok)] | length)' "$T/out" | xargs)" "true 8 8"
for i in 1 2 3 4 5 6; do
    snap=$(jq -r --arg s "$T/in/d$i.img" '.backups[] | select(.source == $s) | .snapshot' "$T/out")
    same "$T/in/d$i.img" "$snap"
    equals "$(snap_count "$MNT/vm/d$i.img")" 1
done
members=$("$VARVE" log --json "$MNT/vm/d3.img" | jq '.. | .group? // empty | .members')
[ "$members" -ge 6 ] || fail "a group of $members"
backup_is 0 "$T"/in/d1.img "$T/in/d2.img" "$MNT/vm"

# Wrong uses change nothing.
count=$(find "$MNT/vm" | wc -l)
backup_is 2 "$T/a" "$T/b" "$MNT/vm/a.img"
backup_is 2 --label first "$T/a" "$MNT/vm/a.img"
backup_is 2 --label 'no/label' "$T/a" "$MNT/vm/a.img"
backup_is 2 "$T/a" "$MNT/vm/a@x.img"
backup_is 2 "$T/a" "$T/in/../a" "$MNT/vm"
backup_is 10 "$T/a" "$T/elsewhere"
backup_is 3 "$T/missing" "$MNT/vm/new.img"
backup_is 3 "$T" "$MNT/vm/new.img"
backup_is 1 "$MNT/vm/a.img" "$MNT/vm/a.img"
says "the source itself"
exec 5<>"$MNT/vm/a.img"
backup_is 11 "$T/a" "$MNT/vm/a.img"
exec 5>&-
equals "$(find "$MNT/vm" | wc -l)" "$count" "names after wrong uses"
same "$T/b" "$MNT/vm/a.img"

# A source whose middle cannot be read: a damaged snapshot.
random_file "$T/big" $((8 << 20))
backup_is 0 --label source "$T/big" "$MNT/vm/big.img"
file=$(find "$T/store/containers" -name '*.vc' -size +8M | sort | tail -n 1)
[ -n "$file" ] || file=$(find "$T/store/containers" -name '*.vc' -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
size=$(stat -c %s "$file")
stop_varve
python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(65536); f.seek(int(sys.argv[2])); f.write(bytes(x ^ 255 for x in b))' "$file" $((size - (4 << 20)))
start_varve
ln -s "$MNT/vm/big@source.img" "$T/in/a.img"
good=$(last_good "$MNT/vm/a.img")
backup_is 3 "$T/in/a.img" "$T/in/d1.img" "$MNT/vm"
says "a.img at byte"
equals "$(wc -l <"$T/out")" 1 "the other source"
same "$T/in/d1.img" "$(cat "$T/out")"
has_flag "$(newest "$MNT/vm/a.img")" partial || fail "the unfinished copy is not partial"
run "$VARVE" wait "$MNT"
equals "$(last_good "$MNT/vm/a.img")" "$good" "after a source that could not be read"
stop_varve

partial_now() {  # HOW
    equals "$(wc -l <"$T/out")" 0 "says that it is stored"
    run "$VARVE" wait --timeout 50 "$MNT"
    has_flag "$(newest "$MNT/vm/a.img")" partial || fail "not partial after $1"
    equals "$(last_good "$MNT/vm/a.img")" "$good" "after $1"
}

# A write that fails.
random_file "$T/new" $((16 << 20))
start_varve layer_limit=4M
backup_is 1 "$T/new" "$MNT/vm/a.img"
says "No space left"
partial_now "a write that fails"
stop_varve

# A signal in the middle of the copy: the daemon stands in its third write.
start_varve
backup_is 0 "$T/new" "$MNT/vm/a.img"
good=$(last_good "$MNT/vm/a.img")
stop_varve
touch "$T/pause"
export VARVE_FAULT=fs.write.before:3=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
"$VARVE" backup "$T/big" "$MNT/vm/a.img" >"$T/out" 2>"$T/err" &
pid=$!
begun() { local size; size=$(stat -c %s "$MNT/vm/a.img"); [ "$size" -gt 0 ] && [ "$size" -lt $((8 << 20)) ]; }
eventually 20 begun
kill -INT "$pid"
rm "$T/pause"
code=0
wait "$pid" || code=$?
equals "$code" 130 "interrupted: $(cat "$T/out" "$T/err")"
says "interrupted"
partial_now "a signal"
stop_varve

# Storing fails: exit 1.
export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
backup_is 1 "$T/b" "$MNT/vm/d2.img"
says "fault injected"
equals "$(wc -l <"$T/out")" 0
stop_varve
