#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [OPTION...]: the disk's errors, enumerated. Eight short workloads (copy, overwrite, write with fsync and snapshot, revert,
# clone, remove, rename, rename onto) meet ENOSPC, EIO and EDQUOT at their k-th persisting call, once and from there on for ever,
# and a short write there; a daemon serves many cases one after another. What is asked: while it fails nothing acknowledged reads
# wrong; afterwards everything goes on without a restart, but for a disk whose own fsync failed; no half thing passes for a good
# backup; no file is fdatasynced again after that failed; at the end of a store both readers find it whole.
# First all failing fdatasyncs, then a sample of about VARVE_FAULTS_WANT (1500) of all points (VARVE_SEED, printed; each kind of file,
# call and error at least once); 0: all.
# Options are for faults.py (--help), and then are all that is run. VARVE: the program. Ends with "N passed, N failed".
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${VARVE:?set VARVE to the varve binary}"
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/varve-shim.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export FI_SHIM=$work/fi_shim.so
gcc -std=gnu11 -O2 -D_GNU_SOURCE -shared -fPIC -o "$FI_SHIM" "$here/../crash/fi_shim.c" -ldl || exit 1
passed=0 failed=0
part() {
    local out status last
    out=$work/out
    /usr/bin/python3 -B "$here/faults.py" --seed "${VARVE_SEED:-1}" "$@" >"$out" 2>&1
    status=$?
    grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$out"
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out" | tail -n 1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        if [ $status -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ]; then failed=$((failed + 1)); fi
    else
        failed=$((failed + 1))
    fi
}
if [ $# -gt 0 ]; then
    part "$@"
else
    VARVE_SEED=${VARVE_SEED:-$RANDOM}
    part --syncs
    part --strata --want "${VARVE_FAULTS_WANT:-1500}"
fi
printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
