#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A store that has lost its store.conf gets it back from a state directory: byte for byte, with its owner, never over an existing one,
# never that of another store; without it every command says how.
set -eu
. "$(dirname "$0")/lib.sh"
chmod 755 "$T"      # the owner of the store must reach it
put_back() { run "$VARVE" init --restore-conf "$T/state" "$T/store"; }
names() { find "$1" -mindepth 1 -maxdepth 1 -printf "%f %s %T@ %u\n" | sort; }
refused() { # TEXT STATE STORE: and nothing is left in STORE
    local before; before=$(names "$3")
    must_fail "$1" "$VARVE" init --restore-conf "$2" "$3"
    equals "$(names "$3")" "$before"
}

INIT_OPTS='--owner nobody --block 8K --partitions 4' start_varve
random_file "$T/a" 5000000
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
stop_varve
same "$T/store/store.conf" "$T/state/store.conf"
equals "$(stat -c '%U %a' "$T/state/store.conf")" "nobody 600"

# Lost: nothing takes the directory for a new place, everything says what to do.
mv "$T/store/store.conf" "$T/kept"
for c in "mount $T/store $MNT -o state=$T/state" "verify $T/store" "rebuild --state $T/state $T/store"; do
    # shellcheck disable=SC2086  # several words
    must_fail "varve init --restore-conf STATE-DIR $T/store" "$VARVE" $c
done
status=0; "$VARVE" mount "$T/store" "$MNT" -o "state=$T/state" 2>/dev/null || status=$?
equals $status 10
must_fail "lost its store.conf" "$VARVE" init "$T/store"

# Copies that do not fit, or that are none.
run "$VARVE" init "$T/other" 2>/dev/null
mkdir "$T/wrong" "$T/empty" "$T/torn"
cp "$T/other/store.conf" "$T/wrong/"
head -c 300 "$T/kept" >"$T/torn/store.conf"
refused "but $T/store holds data of store $(cat "$T/state/store")" "$T/wrong" "$T/store"
refused "No such file" "$T/empty" "$T/store"
refused "checksum" "$T/torn" "$T/store"
refused "is missing" "$T/state" "$T/empty"
refused "already" "$T/wrong" "$T/other"
must_fail "no other option" "$VARVE" init --restore-conf "$T/state" --block 4K "$T/store"

put_back
same "$T/store/store.conf" "$T/kept"
equals "$(stat -c '%U %a' "$T/store/store.conf")" "nobody 600"
refused "already" "$T/state" "$T/store"
run "$VARVE" verify "$T/store" >/dev/null

# A damaged one is not replaced either, and the message says what to do first.
sed -i 's/^block = 8192/block = 4096/' "$T/store/store.conf"
must_fail "move it away" "$VARVE" mount "$T/store" "$MNT" -o "state=$T/state"
refused "move it away" "$T/state" "$T/store"
rm "$T/store/store.conf"
put_back

# The next mounts keep the copy as it must be, whatever has become of it, and go on where they cannot.
rm "$T/state/store.conf"
start_varve
same "$T/kept" "$T/state/store.conf"
same "$T/a" "$MNT/vm/disk.img"
stop_varve
cp "$T/wrong/store.conf" "$T/state/"
start_varve; stop_varve
same "$T/kept" "$T/state/store.conf"
rm "$T/state/store.conf"; mkdir "$T/state/store.conf"
start_varve; stop_varve
grep -q 'WARN.*second copy of store.conf cannot be written' "$T/daemon.log" || fail "no word about the copy"

# What an interrupted init leaves is no store that has lost anything.
if VARVE_FAULT=store.init.before_conf:1=kill "$VARVE" init "$T/half" 2>/dev/null; then fail "the fault point is gone"; fi
must_fail "is no varve store" "$VARVE" mount "$T/half" "$MNT" -o "state=$T/state3"
