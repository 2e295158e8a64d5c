#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [ARGUMENTS OF crash.py]: crash points. Every persisting call of short workloads is a point; at each the daemon is killed
# (before it, in the middle of it, after it), or power is lost, or it is killed and then the recovery is killed or meets an error;
# and block writes are recorded and replayed with what was not flushed dropped, reordered, torn. After each case:
#
#   acknowledged snapshots are there, byte by byte, and get stored by themselves; others are absent, or whole, or say `partial`
#   the live image holds what was answered (after a kill), what was fsynced (after a loss of power), and nothing else
#   varve verify is clean, the log has no error, STATE has no image without disk, a new copy and a new snapshot work
#
# Without arguments: the version for every day, a sample of the points (VARVE_SEED, printed; each kind of file and call at least
# once). tests/soak.sh: all points. With arguments, which crash.py --help tells, the seed is 1.
# Ends with one line "N passed, N failed". $VARVE: the program; $FI_SHIM: fi_shim.so (built here when it is not set).
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${VARVE:?set VARVE to the varve binary}"
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
# Mounts of its own: whoever copies the mounts of the machine meanwhile would keep a filesystem alive that lost its power here.
[ -n "${CRASH_MOUNTS:-}" ] || CRASH_MOUNTS=own exec bash "$here/../lib/own-mounts.sh" bash "$here/run.sh" "$@"
for p in mkfs.xfs qemu-storage-daemon gcc; do
    command -v "$p" >/dev/null || { echo "run.sh: $p is missing (bash examples/install-packages.sh test)" >&2; exit 1; }
done
export TMPDIR=${TMPDIR:-/tmp} PYTHONDONTWRITEBYTECODE=1
mkdir -p "$TMPDIR"
if [ -z "${FI_SHIM:-}" ]; then
    shim=$(mktemp -d "$TMPDIR/varve-shim.XXXXXX") || exit 1
    trap 'rm -rf "$shim"' EXIT
    export FI_SHIM=$shim/fi_shim.so
    gcc -std=gnu11 -O2 -D_GNU_SOURCE -shared -fPIC -o "$FI_SHIM" "$here/fi_shim.c" -ldl || exit 1
fi
crash() { python3 "$here/crash.py" --seed "${VARVE_SEED:-1}" "$@"; }
if [ $# -gt 0 ]; then crash "$@"; exit; fi
VARVE_SEED=${VARVE_SEED:-$RANDOM}

passed=0 failed=0
one() {     # WANT MODE
    local line
    # Not through tee: it would open the log of whoever runs this anew, and empty it.
    crash "$2" --want "$1" --strata | { last=''; while IFS= read -r line; do printf '%s\n' "$line" >&2; last=$line; done; printf '%s' "$last"; } >"$TMPDIR/crash-line.$$"
    line=$(cat "$TMPDIR/crash-line.$$"); rm -f "$TMPDIR/crash-line.$$"
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
}
one "${CRASH_KILL:-600}" kill
one "${CRASH_POWER:-600}" power
one "${CRASH_RECOVER:-200}" recover
one "${CRASH_REORDER:-500}" reorder
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
