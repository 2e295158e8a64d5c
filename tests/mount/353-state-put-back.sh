#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STATE is put back from an older copy while STORE is newer. The live image is that of the copy; no snapshot of STORE is lost, published
# twice or replaced, and numbers go on above all that STORE has. A snapshot that was pending in the copy and is stored by now stays one.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
for i in 1 2 3 4 5; do random_file "$T/d$i" 5000000; done
sequences() { find "$T/store/snapshots" -name '*.rcp' -printf '%P\n' | cut -d- -f1; }

start_varve
run mkdir "$MNT/vm"
run cp "$T/d1" "$MNT/vm/a.img"
run "$VARVE" wait "$MNT"
stop_varve

export VARVE_FAULT=agent.finish.before_pointers:1=kill
start_varve
cp "$T/d2" "$MNT/vm/a.img" 2>"$T/said" || cat "$T/said"     # it may be killed before cp's close is answered
if "$VARVE" wait --timeout 20 "$MNT" 2>/dev/null; then skip "this build has no fault points"; fi
killed_at "the pointers"
cp -a "$T/state" "$T/state.old"     # the snapshot of d2 is pending here, and stored
start_varve
for i in 3 4; do
    run cp "$T/d$i" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    snap=$(newest "$MNT/vm/a.img")
    echo "$snap" >"$T/name$i"
done
run cp "$T/d4" "$MNT/vm/new.img"
run "$VARVE" wait "$MNT"
stop_varve

rm -rf "$T/state"
cp -a "$T/state.old" "$T/state"
start_varve
grep -q "WARN recover: a.img: the store has snapshot 4, which this host's state does not know" "$T/daemon.log" || fail "the log does not say it"
equals "$(snap_count "$MNT/vm/a.img")" 4
same "$T/d2" "$MNT/vm/a.img"
same "$T/d4" "$(newest "$MNT/vm/new.img")"
run cp "$T/d5" "$MNT/vm/a.img"
run cp "$T/d5" "$MNT/vm/n.img"
run "$VARVE" wait "$MNT"
same "$T/d5" "$(newest "$MNT/vm/a.img")"
for i in 3 4; do same "$T/d$i" "$(cat "$T/name$i")"; done
equals "$(sequences | sort | uniq -d | wc -l)" 0 "sequence numbers given twice"
stop_varve
start_varve
equals "$(snap_count "$MNT/vm/a.img")" 5
same "$T/d5" "$MNT/vm/a.img"
stop_varve
run "$VARVE" verify "$T/store"
