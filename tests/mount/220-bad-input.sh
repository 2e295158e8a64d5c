#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Damaged, foreign, missing, busy, full: one clear line that names the file, the right exit code, no crash, nothing lost.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
code() {    # code EXPECTED TEXT COMMAND...: exit code and a line that names what is wrong
    local want=$1 text=$2 got=0 out; shift 2
    out=$(timeout -k 5 60 "$@" 2>&1) || got=$?
    [ $got = "$want" ] || fail "exit $got instead of $want: $* ($out)"
    case $out in *"$text"*) ;; *) fail "said '$out' instead of '$text': $*";; esac
    [ "$(printf '%s\n' "$out" | wc -l)" -le 2 ] || fail "more than one line: $out"
}
mount_opts="state=$T/state"
try=("$VARVE" mount "$T/store" "$MNT" -o "$mount_opts")

code 10 "no-such-place" "$VARVE" mount "$T/no-such-place" "$MNT"
mkdir "$T/empty"
code 10 "$T/empty" "$VARVE" mount "$T/empty" "$MNT" -o "state=$T/s0"
code 1 "no-such-dir" "$VARVE" mount "$T/empty" "$T/no-such-dir"
code 2 "bogus" "$VARVE" mount "$T/empty" "$MNT" -o bogus=1
code 2 "memory" "$VARVE" mount "$T/empty" "$MNT" -o memory=lots
code 1 "not empty" "$VARVE" init "$T"

start_varve
run mkdir "$MNT/vm"
random_file "$T/a" 5000000
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
snap=$(newest "$MNT/vm/disk.img")

# Busy: the same STATE, the same mount point, rebuild while mounted.
mkdir "$T/mnt2"
code 11 "$T/state" "$VARVE" mount "$T/store" "$T/mnt2" -o "$mount_opts"
code 11 "$MNT" "$VARVE" mount "$T/store" "$MNT" -o "state=$T/state2"
code 11 "$T/state" "$VARVE" rebuild --state "$T/state" "$T/store"
code 1 "inside the store" "$VARVE" mount "$T/store" "$T/store/cds" -o "state=$T/state2"
code 1 "not in a varve mount" "$VARVE" snapshot "$T/a"
stop_varve
cp -a "$T/store" "$T/store.good"; cp -a "$T/state" "$T/state.good"

restore() { rm -rf "$T/store" "$T/state"; cp -a "$T/store.good" "$T/store"; cp -a "$T/state.good" "$T/state"; }
flip() { python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1); f.seek(int(sys.argv[2])); f.write(bytes([b[0] ^ 0x55]))' "$1" "$2"; }

# store.conf: damaged, of a newer version, cut.
flip "$T/store/store.conf" 20; code 20 store.conf "${try[@]}"; restore
: >"$T/store/store.conf"; code 20 store.conf "${try[@]}"; restore
rm -r "$T/store/containers"; code 20 containers "${try[@]}"; restore

# STATE of another store.
"$VARVE" init "$T/other" 2>/dev/null
code 20 "belongs to store" "$VARVE" mount "$T/other" "$MNT" -o "$mount_opts"

# A damaged catalog: the mount makes it anew and keeps the damaged one; rebuild does the same.
head -c 8192 /dev/urandom >"$T/state/catalog.sqlite"; rm -f "$T"/state/catalog.sqlite-*
start_varve; same "$T/a" "$snap"; same "$T/a" "$MNT/vm/disk.img"; stop_varve
[ -e "$T/state/catalog.sqlite.damaged" ] || fail "the damaged catalog was not set aside"
head -c 8192 /dev/urandom >"$T/state/catalog.sqlite"; rm -f "$T"/state/catalog.sqlite-*
run "$VARVE" rebuild --state "$T/state" "$T/store" >/dev/null
start_varve; same "$T/a" "$snap"; same "$T/a" "$MNT/vm/disk.img"; stop_varve; restore

# A damaged index only costs hints.
for f in "$T"/store/index/*/*; do flip "$f" 100; done
start_varve; same "$T/a" "$snap"
run cp "$T/a" "$MNT/vm/disk2.img"; run "$VARVE" wait "$MNT"; same "$T/a" "$MNT/vm/disk2.img"
stop_varve; restore

# A damaged container: EIO, never wrong bytes; verify names it and the snapshot.
c=$(find "$T/store/containers" -type f -size +1M | head -1)
flip "$c" 100000
out=$("$VARVE" verify "$T/store") && fail "verify says nothing of $c"
case $out in *"$(basename "$c")"*) ;; *) fail "verify does not name $c: $out";; esac
case $out in *disk@*) ;; *) fail "verify does not name the snapshot: $out";; esac
start_varve "cache_size=0"
cat "$snap" >"$T/out" 2>/dev/null && fail "a damaged block was read"
n=$(stat -c %s "$T/out"); cmp -n "$n" "$T/a" "$T/out" || fail "wrong bytes were returned"
stop_varve; restore

# A damaged recipe.
r=$(find "$T/store/snapshots" -name '*.rcp' | head -1)
flip "$r" 4100
start_varve; cat "$snap" >/dev/null 2>&1 && fail "a damaged recipe was read"
stop_varve; restore

# Live table and journal of one disk: that disk answers EIO, the others work.
for f in journal "table-*"; do
    target=$(find "$T/state/disks" -name "$f" | head -1)
    flip "$target" 40
    if "$VARVE" mount "$T/store" "$MNT" -o "$mount_opts" 2>"$T/err"; then
        same "$T/a" "$snap"
        cat "$MNT/vm/disk.img" >"$T/out" 2>/dev/null && same "$T/a" "$T/out"
        run cp "$T/a" "$MNT/vm/new.img"
        run umount "$MNT"
        eventually 30 flock -n "$T/state/lock" true
    else
        grep -q "$T/state" "$T/err" || fail "$(cat "$T/err") does not name the file"
    fi
    restore
done

# A full store: the copy is not acknowledged as stored, the snapshot before stays, and it goes on once there is space.
mkdir "$T/small"
mount -t tmpfs -o size=12M tmpfs "$T/small"
"$VARVE" init "$T/small/store" 2>/dev/null
"$VARVE" mount "$T/small/store" "$MNT" -o "state=$T/state3"
mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/one.img"; run "$VARVE" wait "$MNT"
random_file "$T/big" 9000000
cp "$T/big" "$MNT/vm/two.img"
"$VARVE" wait --timeout 30 "$MNT" 2>"$T/err" && fail "9 MB were stored in 7 MB"
grep -q . "$T/err" || fail "wait says nothing"
same "$T/a" "$(newest "$MNT/vm/one.img")"
same "$T/big" "$MNT/vm/two.img"
mount -o remount,size=64M "$T/small"
is_stored() { [ "$(xattr "$(newest "$1")" state)" = stored ]; }
eventually 55 is_stored "$MNT/vm/two.img"      # it is tried again by itself
same "$T/big" "$(newest "$MNT/vm/two.img")"
equals "$(xattr "$(newest "$MNT/vm/two.img")" state)" stored
run umount "$MNT"
eventually 30 flock -n "$T/state3/lock" true
umount "$T/small"
