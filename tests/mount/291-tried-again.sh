#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What fails for a reason that passes is tried again while the daemon runs, not only at its next start; and nobody waits in vain
# for what is not being tried.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors

random_file "$T/a" 3000000
random_file "$T/b" 3000000
started_with() { export VARVE_FAULT=$1 VARVE_FAULT_PAUSE=$T/pause; start_varve; unset VARVE_FAULT; }
ended() { stop_varve; rm -f "$T/pause"; }
is_stored() { local s; s=$(newest "$1"); [ -n "$s" ] && [ "$(xattr "$s" state)" = stored ] && [ -z "$(xattr "$s" flags)" ]; }
says() { grep -q "$1" "$MNT/.varve/events"; }

# Settled before it is stored, so that no start has a row to put for it.
touch "$T/pause"
started_with dedup.1a.segment:1=pause
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/base.img"
eventually 10 test "$(xattr "$(newest "$MNT/vm/base.img")" flags)" = ""
rm "$T/pause"
run "$VARVE" wait "$MNT"
stop_varve

# The row of a new snapshot cannot be written: the copy has its snapshot, in the journal; the row comes later.
started_with catalog.snap.put:1=28
run cp "$T/a" "$MNT/vm/row.img"
grep -q "the catalog does not take snapshot" "$T/daemon.log" || skip "this build has no fault points"
run "$VARVE" wait "$MNT"
equals "$(xattr "$(newest "$MNT/vm/row.img")" state)" stored
eventually 30 is_stored "$MNT/vm/row.img"
same "$T/a" "$(newest "$MNT/vm/row.img")"
ended

# The row does not learn that its snapshot was settled, or that it was stored.
for put in 2 3; do
    touch "$T/pause"
    started_with "dedup.1a.segment:1=pause,catalog.snap.put:$put=5"
    run cp "$T/a" "$MNT/vm/put$put.img"
    rm "$T/pause"
    eventually 30 is_stored "$MNT/vm/put$put.img"
    run "$VARVE" wait --timeout 30 "$MNT"
    equals "$(snap_count "$MNT/vm/put$put.img")" 1
    ended
done

# Settling fails: the snapshot must not stay provisional, and the rewrite not unfinished.
touch "$T/pause"
started_with dedup.1a.segment:1=pause,agent.settle.before:1=5
run cp "$T/a" "$MNT/vm/settle.img"
rm "$T/pause"
eventually 10 says "settling a snapshot failed"
eventually 30 is_stored "$MNT/vm/settle.img"
if has_flag "$MNT/vm/settle.img" rewriting; then fail "the finished rewrite keeps its mark"; fi
ended

# The last writer's release cannot freeze what was written through a mapping after the close.
started_with live.freeze.record:1=28
run python3 - "$MNT/vm/map.img" <<'P'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
os.close(fd)
m[0:6] = b"mapped"
m.flush()
P
eventually 30 is_stored "$MNT/vm/map.img"
equals "$(head -c 6 "$(newest "$MNT/vm/map.img")")" mapped
ended

# What fails behind the commit point is finished by the next attempt, which must not publish the same name again.
started_with agent.finish.before_pointers:1=5
run cp "$T/a" "$MNT/vm/finish.img"
eventually 10 says ": failed, snapshot "
eventually 30 is_stored "$MNT/vm/finish.img"
run cp "$T/b" "$MNT/vm/finish.img"
eventually 30 is_stored "$MNT/vm/finish.img"
same "$T/b" "$(newest "$MNT/vm/finish.img")"
ended

# A disk that cannot be recovered at the start is, later, by itself; and at once when somebody opens it.
for how in waits opens; do
    data=$T/b
    [ $how = waits ] || data=$T/a       # another one, else nothing of it is dirty
    touch "$T/pause"
    started_with dedup.1a.segment:1=pause
    run cp "$data" "$MNT/vm/start.img"
    eventually 10 test "$(xattr "$(newest "$MNT/vm/start.img")" flags)" = ""
    kill_varve
    rm "$T/pause"
    started_with live.journal.put:1=5
    says "its recovery failed" || fail "recovered, although its journal could not be written"
    [ $how = waits ] || same "$data" "$MNT/vm/start.img"
    [ $how = waits ] || says "its recovery succeeded" || fail "opened without having been recovered"
    eventually 30 is_stored "$MNT/vm/start.img"
    same "$data" "$(newest "$MNT/vm/start.img")"
    ended
done

# A wait ends with the first failed attempt; a deadline holds also while the round hangs.
started_with store.publish.rename:1+=28
run cp "$T/a" "$MNT/vm/full.img"
eventually 10 says ": failed, snapshot "
must_fail "could not be stored" "$VARVE" wait "$MNT"
ended
touch "$T/pause"
started_with dedup.1a.segment:1=pause
run cp "$T/a" "$MNT/vm/hangs.img"
# A timer is what ends it: until it does, the test hangs as the round does.
must_fail "still not stored after 1 s" "$VARVE" wait --timeout 1 "$MNT/vm/hangs.img"
rm "$T/pause"
eventually 30 is_stored "$MNT/vm/hangs.img"
eventually 30 is_stored "$MNT/vm/full.img"
stop_varve
run "$VARVE" verify "$T/store"
