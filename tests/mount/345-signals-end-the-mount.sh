#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ctrl-C, SIGTERM and SIGHUP unmount as umount does: what was closed is settled, the daemon ends with 0, nothing is mounted any more. While
# files are open, only the name goes, and who has them open goes on. More signals change nothing.
set -eu
. "$(dirname "$0")/lib.sh"
ends_well() {   # WHAT
    wait_daemon
    equals "$DAEMON_STATUS" 0 "exit status: $1"
    if is_mounted; then fail "still mounted: $1"; fi
    check_log
}
alive() { kill -0 "$DAEMON" 2>/dev/null; }
unmounted() { ! is_mounted; }
run "$VARVE" init "$T/store" >/dev/null 2>&1
number=0

for signal in INT TERM HUP; do
    # The snapshot of the close is not settled when the signal comes.
    start_varve settle=600
    run mkdir -p "$MNT/vm"
    random_file "$T/a" $((5 << 20))
    run cp "$T/a" "$MNT/vm/disk.img"
    kill -"$signal" "$DAEMON"
    ends_well "SIG$signal"
    start_varve
    run "$VARVE" wait "$MNT"
    number=$((number + 1))
    same "$T/a" "$(newest "$MNT/vm/disk.img")"; same "$T/a" "$MNT/vm/disk.img"
    equals "$(snap_count "$MNT/vm/disk.img")" $number "snapshots"
    flags_clear "$MNT/vm/disk.img" || fail "flags after SIG$signal: $(xattr "$(newest "$MNT/vm/disk.img")" flags)"
    stop_varve
done

# Many at once, to the whole group as a terminal sends them.
setsid "$VARVE" mount "$T/store" "$MNT" -f -o "state=$T/state,host=testhost" >>"$T/daemon.log" 2>&1 &
DAEMON=$!
eventually 30 is_usable
random_file "$T/b" $((20 << 20))
run cp "$T/b" "$MNT/vm/disk.img"
for _ in $(seq 40); do kill -INT -- "-$DAEMON" 2>/dev/null || break; sleep 0.01; done
ends_well "forty of them"
start_varve
same "$T/b" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
same "$T/b" "$(newest "$MNT/vm/disk.img")"

# While a file is open for writing, and somebody's working directory is there.
count=$(snap_count "$MNT/vm/disk.img")
(cd "$MNT/vm" && exec sleep 600) &
user=$!
exec 5>"$MNT/vm/disk.img"
head -c 1000000 "$T/b" >&5
kill -TERM "$DAEMON"
eventually 20 unmounted
tail -c +1000001 "$T/b" >&5
kill -INT "$DAEMON"; sleep 0.5; kill -TERM "$DAEMON"; sleep 0.5
alive || fail "the daemon has ended while a file is open"
grep -q "told to stop: $MNT is unmounted, and the daemon ends when the [1-9][0-9]* open files are closed" "$T/daemon.log" || fail "does not say why it goes on"
# A mount that comes now waits for it.
old=$DAEMON
"$VARVE" mount "$T/store" "$MNT" -f -o "state=$T/state,host=testhost" >>"$T/daemon2.log" 2>&1 &
next=$!
sleep 3
if is_mounted; then fail "two daemons with one STATE"; fi
exec 5>&-
kill "$user"; wait "$user" 2>/dev/null || true
ends_before() { ! kill -0 "$old" 2>/dev/null; }
eventually 30 ends_before
status=0; wait "$old" || status=$?
equals "$status" 0 "exit status of the one that had files open"
DAEMON=$next
eventually 30 is_usable
grep -q "waiting for the varve that was mounted before (pid $old)" "$T/daemon2.log" || fail "does not say that it waits: $(cat "$T/daemon2.log")"
run "$VARVE" wait "$MNT"
same "$T/b" "$MNT/vm/disk.img"; same "$T/b" "$(newest "$MNT/vm/disk.img")"
equals "$(snap_count "$MNT/vm/disk.img")" $((count + 1)) "snapshots of a copy that ended while it was unmounted"
flags_clear "$MNT/vm/disk.img" || fail "flags: $(xattr "$(newest "$MNT/vm/disk.img")" flags)"
kill -TERM "$DAEMON"
ends_well "the next one"

# In the background, too.
run "$VARVE" mount "$T/store" "$MNT" -o "state=$T/state,host=testhost"
pid=$(daemon_of "$T/state")
kill -TERM "$pid"
eventually 30 unmounted
gone() { [ ! -e "/proc/$pid" ]; }
eventually 30 gone

# Without the process that unmounts for it, it ends all the same, and the next mount puts the dead one aside.
expect_errors
start_varve
guard=$(pgrep -P "$DAEMON")
kill -9 "$guard"
kill -TERM "$DAEMON"
wait_daemon
start_varve
same "$T/b" "$MNT/vm/disk.img"
stop_varve
