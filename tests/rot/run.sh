#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bit rot and lost files: a small but complete STORE and STATE that a real mount has written, damaged in every byte that is not
# block data (rot.c, without a mount), and in samples under real mounts (mounts.py); its catalog deleted, old and damaged.
# VARVE=PATH as for tests/mount; VARVE_SEED=N; STRIDE=N takes one flip in N of rot.c (4); MOUNTS=N flips under mounts (80);
# STEP=N one lost file in N (1). Ends with "N passed, N failed". PARTS="store state flips lost catalog": only these.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# The damaged copies are made and thrown away thousands of times: in memory, where there is some.
ram=${VARVE_TEST_RAM:-/dev/shm}
if [ -w "$ram" ] && [ "$(df --output=avail -k "$ram" | tail -n 1)" -gt 400000 ]; then export TMPDIR=$ram; fi
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
# shellcheck source=specimen.sh
. "$here/specimen.sh"
need /usr/bin/python3 getfattr setfattr
export PYTHONDONTWRITEBYTECODE=1
seed=${VARVE_SEED:-$(date +%s)}
rot=$(dirname "$VARVE")/../../tests/rot/rot
echo "VARVE_SEED=$seed"
make_specimen
passed=0 failed=0

# part NAME LIMIT COMMAND...: its cases are ours.
part() {
    local name=$1 limit=$2 last; shift 2
    case " ${PARTS:-store state flips lost catalog} " in *" $name "*) ;; *) return 0;; esac
    timeout -k 5 "$limit" "$@" >"$T/$name.log" 2>&1 || true
    last=$(tail -n 1 "$T/$name.log")
    case $last in
        *' passed, '*' failed') passed=$((passed + ${last%% *})); last=${last#*, }; failed=$((failed + ${last%% *}));;
        *) failed=$((failed + 1)); tail -n 5 "$T/$name.log";;
    esac
    grep -A 12 FAILED "$T/$name.log" | head -n 150 || true
    tail -n 2 "$T/$name.log" | sed "s/^/$name: /"
}

cp -a --sparse=always "$T/store" "$T/store1"
cp -a --sparse=always "$T/state" "$T/state1"
mounts() { /usr/bin/python3 "$here/mounts.py" "$VARVE" "$T" "$T/$1" "$seed" "$@"; }
export -f mounts
export here VARVE T seed
# Two at a time: what reads bytes, and what mounts.
{
    part store 900 "$rot" store "$T/store1" "$seed" "${STRIDE:-4}"
    echo "$passed $failed" >"$T/sums"
} &
first=$!
(
    part state 900 "$rot" state "$T/state1" "$T/store" "$seed" "${STRIDE:-4}"
    part flips 600 bash -c 'mounts flips "$@"' - "${MOUNTS:-80}"
    part lost 600 bash -c 'mounts lost "$@"' - "${STEP:-1}"
    part catalog 600 bash -c 'mounts catalog "$@"' - "${STEP:-1}"
    echo "$passed $failed" >"$T/sums2"
)
wait $first || true
for f in "$T/sums" "$T/sums2"; do
    read -r p q <"$f" || { p=0 q=1; }
    passed=$((passed + p)) failed=$((failed + q))
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
