#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A wrong clock: the daemon 400 days in the past and in the future, and steps back and forth while it runs. Names stay in the order
# of sequence numbers, nothing is decided by the wall clock, and a store is the same whatever the clock said.
# VARVE=PATH as for tests/mount; VARVE_SEED=N; STEPS=N steps of the clock (30). Ends with "N passed, N failed".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
need /usr/bin/python3 faketime
preload=$(find /usr/lib -name libfaketimeMT.so.1 | head -n 1)
[ -n "$preload" ] || skip "libfaketime is not installed"
export PYTHONDONTWRITEBYTECODE=1
seed=${VARVE_SEED:-$(date +%s)}
echo "VARVE_SEED=$seed"
RANDOM=$((seed % 32768))
passed=0 failed=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED: $*"; }
check() { local what=$1; shift; if "$@"; then ok; else bad "$what"; fi; }

# Only varve sees the wrong clock, and its monotonic one is right: it is what deadlines go by.
export REAL_VARVE=$VARVE FAKE_FILE=$T/offset FAKE_LIBRARY=$preload
cat >"$T/varve" <<'END'
#!/bin/sh
exec env LD_PRELOAD="$FAKE_LIBRARY" DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1 FAKETIME_NO_CACHE=1 FAKETIME_TIMESTAMP_FILE="$FAKE_FILE" \
    "$REAL_VARVE" "$@"
END
chmod +x "$T/varve"
VARVE=$T/varve
set_clock() { echo "$1" >"$FAKE_FILE.new"; mv "$FAKE_FILE.new" "$FAKE_FILE"; }
noise() { /usr/bin/python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(sys.argv[2]).randbytes(int(sys.argv[1])))' "$1" "$2"; }
in_order() { [ "$(timeout -k 5 60 /usr/bin/python3 "$here/order.py" "$T/store" "$MNT")" = "$1" ]; }
year() { date -u -d "$1 days" +%Y; }

# ---- does the preload work at all? Else nothing below means anything ----

set_clock -400d
run "$VARVE" init "$T/probe" 2>/dev/null
case $(grep ^created "$T/probe/store.conf") in
    *"= $(year -400)-"*) ok;;
    *) fail "libfaketime does not change varve's clock: $(grep ^created "$T/probe/store.conf")";;
esac

# ---- the same work under other clocks: the same store, but for ids and times ----

work() {    # work: on a new store; leaves the sizes of all its files in $T/sizes
    INIT_DONE=
    start_varve
    run mkdir "$MNT/vm"
    noise 700000 a >"$T/a"
    noise 300000 b >"$T/b"
    run cp "$T/a" "$MNT/vm/disk.img"
    run "$VARVE" wait "$MNT"
    run dd if="$T/b" of="$MNT/vm/disk.img" bs=4096 seek=20 conv=notrunc status=none
    run "$VARVE" snapshot --label kept "$MNT/vm/disk.img"
    run "$VARVE" wait "$MNT"
    run cp "$T/b" "$MNT/vm/other.img"
    run "$VARVE" wait "$MNT"
    run "$VARVE" revert --to "$MNT/vm/clone.img" "$MNT/vm/disk@kept.img"
    same "$T/a" "$(snaps "$MNT/vm/disk.img" | grep -v kept | head -n 1)"
    stop_varve
    (cd "$T/store" && find . -type f -not -name '.tmp-*' -printf '%h %s\n' | sed -E 's/[0-9a-f]{32}/ID/g' | LC_ALL=C sort) >"$T/sizes"
}
for clock in +0 -400d +400d; do
    set_clock "$clock"
    rm -rf "$T/store" "$T/state"
    work
    [ "$clock" != +0 ] || cp "$T/sizes" "$T/sizes.right"
    check "the store is another one with the clock at $clock" cmp "$T/sizes.right" "$T/sizes"
    check "verify with the clock at $clock" run "$VARVE" verify "$T/store"
done

# ---- one store under one clock after the other: +400 days is the last one now ----

count=$(find "$T/store/snapshots" -name '*.rcp' | wc -l)
made=$((count - 1))                    # one has a label
for clock in -400d +0 -20y +400d -1; do
    set_clock "$clock"
    start_varve
    for n in 1 2; do
        noise 9000 "$clock $n" >"$T/c"
        run dd if="$T/c" of="$MNT/vm/disk.img" bs=9000 seek="$n" conv=notrunc status=none
        made=$((made + 1))
    done
    run "$VARVE" wait "$MNT"
    check "names after a start with the clock at $clock" in_order "$made"
    cp "$MNT/vm/disk.img" "$T/now"
    check "newest snapshot with the clock at $clock" cmp "$T/now" "$(snaps "$MNT/vm/disk.img" | grep -v kept | tail -n 1)"
    stop_varve
done

# ---- steps while it runs ----

set_clock +0
start_varve
at=0
for n in $(seq "${STEPS:-30}"); do
    case $((RANDOM % 4)) in
        0) at=$((at + RANDOM % 10 - 5));;
        1) at=$((at + (RANDOM % 200 - 100) * 3600));;
        2) at=$(((RANDOM % 800 - 400) * 86400));;
        *) at=$((-at));;
    esac
    set_clock "$(printf '%+d' "$at")"
    noise 5000 "step $n" >"$T/c"
    run dd if="$T/c" of="$MNT/vm/disk.img" bs=5000 seek="$n" conv=notrunc status=none
    made=$((made + 1))
    # Nobody waits for a moment of the wall clock: with a clock that goes back this would never end.
    check "wait after step $n to $at s" timeout -k 5 30 "$VARVE" wait --timeout 25 "$MNT"
    check "names after step $n to $at s" in_order "$made"
done
cp "$MNT/vm/disk.img" "$T/now"
check "newest snapshot after all steps" cmp "$T/now" "$(snaps "$MNT/vm/disk.img" | grep -v kept | tail -n 1)"
kill_varve
set_clock -399d
start_varve
run "$VARVE" wait "$MNT"
check "names after a kill and a start in the past" in_order "$made"
stop_varve
check "verify at the end" run "$VARVE" verify "$T/store"

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
