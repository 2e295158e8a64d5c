#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: two real Debian machines over three days, copied in day by day, restored and compared byte by byte.
# Reads the disks of debian-series.sh from $VARVE_TEST_CACHE/debian-series; prints the figures that the README quotes.
set -eu
. "$(dirname "$0")/../mount/lib.sh"
series=${VARVE_TEST_CACHE:?}/debian-series
[ -f "$series/sql-day2.img" ]

number() { jq ".$1" "$MNT/.varve/status.json"; }

CASE_TIMEOUT=600
start_varve
stored_time=0
for day in 0 1 2; do
    for vm in app sql; do
        img=$series/$vm-day$day.img
        mkdir -p "$MNT/$vm"
        begin=$(date +%s%N)
        cp "$img" "$MNT/$vm/disk.img"
        "$VARVE" wait --timeout 600 "$MNT"
        took=$((($(date +%s%N) - begin) / 1000000))
        stored_time=$((stored_time + took))
        echo "$vm day $day: stored after $took ms"
        sleep 1.1
    done
done
echo "all six stored after $stored_time ms"
"$VARVE" status "$MNT"
for vm in app sql; do "$VARVE" log "$MNT/$vm/disk.img"; done

restore_all() {
    local vm n snap
    for vm in app sql; do
        n=0
        for snap in "$MNT/$vm"/disk@*.img; do
            cp "$snap" "$T/out.img"
            cmp "$T/out.img" "$series/$vm-day$n.img" || fail "$snap differs from $vm-day$n.img"
            real=$(stat -c %b "$T/out.img"); src=$(stat -c %b "$series/$vm-day$n.img")
            [ "$real" -le $((src * 11 / 10 + 2048)) ] || fail "restored $vm day $n takes $real blocks, the source $src: holes were lost"
            n=$((n + 1))
        done
        [ $n = 3 ] || fail "$vm has $n snapshots, not 3"
    done
    rm -f "$T/out.img"
}
restore_all
echo "all six restored, identical, holes kept"

# A real filesystem check of a restored system, and a look inside a snapshot.
last=$(newest "$MNT/app/disk.img")
mkdir -p "$T/look"
mount -o ro,loop,noload "$last" "$T/look"
[ -x "$T/look/usr/bin/git" ] || fail "git is not in app's last snapshot"
umount "$T/look"
e2fsck -fn "$last" >/dev/null || fail "e2fsck of $last"

grep -E 'VmHWM|RssAnon|VmRSS' "/proc/$DAEMON/status"
peak=$(awk '/VmHWM/ {print $2}' "/proc/$DAEMON/status")
[ "$peak" -lt 100000 ] || fail "the daemon took $peak kB at its peak"
stop_varve
du -sb "$T/store" | awk '{print "store: " $1 " bytes"}'
"$VARVE" verify "$T/store"

# Again after a remount, and once more without index and catalog.
start_varve
cmp "$(newest "$MNT/sql/disk.img")" "$series/sql-day2.img"
stop_varve
rm -rf "$T/store"/index/* "$T/state"/catalog.sqlite*
"$VARVE" rebuild --state "$T/state" "$T/store"
start_varve
restore_all
before=$(number totals.stored_bytes)
cp "$series/sql-day1.img" "$MNT/sql/disk.img"
"$VARVE" wait --timeout 600 "$MNT"
added=$(($(number totals.stored_bytes) - before))
[ $added -lt $((20 * 1024 * 1024)) ] || fail "after rebuild a known disk added $added bytes: the index was not rebuilt"
echo "after rebuild: a known disk added $added bytes"
stop_varve
echo "debian series: all good"
