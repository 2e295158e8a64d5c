#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [PART...]: privacy, privileges and availability, with real other users on a root mount. Parts: matrix (who learns what),
# daemon (what the daemon can still do, the program, the unit), places (where STORE, STATE and mount point may lie, what root takes
# over), available (killed and stopped daemons). Nothing in it is random. Ends with "N passed, N failed".
# VARVE: the binary, of a build with -Dfaults=true (required).
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${VARVE:?set VARVE to the varve binary}"
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems, and become other users)" >&2; exit 1; }
export TMPDIR=${TMPDIR:-/tmp} LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mkdir -p "$TMPDIR"
TMPDIR=$(mktemp -d "$TMPDIR/varve-security.XXXXXX") || exit 1
umask 022
: >"$TMPDIR/pids"

# Other users must reach what lies in it.
reachable() { local d=$1; while [ "$d" != / ]; do chmod a+x "$d" || return 1; d=$(dirname "$d"); done; }
cleanup() {
    local m pid
    awk -v d="$TMPDIR/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do
        umount -l "$(printf '%b' "$m")" 2>/dev/null
    done
    # The daemons that harness.py noted; a look through all of /proc could wait for somebody else's.
    while read -r pid; do
        [ "$(readlink "/proc/$pid/exe")" != "$(readlink -f "$VARVE")" ] || kill -9 "$pid" 2>/dev/null
    done <"$TMPDIR/pids"
    [ -n "${KEEP:-}" ] || rm -rf "$TMPDIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
reachable "$TMPDIR" || exit 1

passed=0 failed=0
parts=("$@")
[ $# -gt 0 ] || parts=(matrix daemon places available)
for part in "${parts[@]}"; do
    begin=$SECONDS
    timeout -k 10 300 /usr/bin/python3 "$here/$part.py" >"$TMPDIR/out" 2>&1
    status=$?
    count=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$TMPDIR/out" | tail -n 1)
    head -n 40 "$TMPDIR/out" | grep -vE '^[0-9]+ passed, ' | sed "s/^/$part: /"
    if [[ $count =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        [ $status = 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ] || failed=$((failed + 1))
    else
        echo "FAILED  $part: it fell over (exit $status)"
        tail -n 15 "$TMPDIR/out" | sed 's/^/        | /'
        failed=$((failed + 1))
    fi
    printf '%s: %s (%d s)\n' "$part" "${count:-no count}" $((SECONDS - begin))
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
