#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [PART...]: what programs expect of a filesystem, through a real mount. Parts: pjdfstest fsx fio holes engine bytes.
# Ends with one line "N passed, N failed". VARVE=PATH: the binary. VARVE_SEED=N repeats the random parts.
# SCALE=N (1): so many times the work, for tests/soak.sh. pjdfstest and fsx are crates, built once into $VARVE_TEST_CACHE/tools.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
: "${VARVE:?set VARVE to the varve binary}"
export VARVE TMPDIR=${TMPDIR:-/tmp} VARVE_TEST_CACHE=${VARVE_TEST_CACHE:-/var/cache/varve-tests}
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
tools=$VARVE_TEST_CACHE/tools/bin
scale=${SCALE:-1}
passed=0 failed=0 child=''
trap '[ -z "$child" ] || { kill "$child"; wait "$child"; }; exit 130' INT TERM HUP
mkdir -p "$TMPDIR"

# counted COMMAND...: ends with "N passed, N failed", which is added up. In the background, so that a signal reaches it through us.
counted() {
    local log last status
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    wait $child; status=$?
    child=''
    cat "$log"
    last=$(tail -n 1 "$log"); rm -f "$log"
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        if [ $status -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ]; then failed=$((failed + 1)); fi
    else
        echo "FAILED  $*: exit $status without a count"; failed=$((failed + 1))
    fi
}

crate() {   # NAME VERSION
    [ -x "$tools/$1" ] && return 0
    counted bash "$here/tools.sh" "$1" "$2"
    [ -x "$tools/$1" ]
}

begin=$SECONDS
[ $# -gt 0 ] || set -- pjdfstest fsx fio holes engine bytes
for part; do
    printf -- '-- %s\n' "$part"
    case $part in
        pjdfstest) ! crate pjdfstest 0.2.2 || counted bash "$here/pjdfstest.sh" "$tools/pjdfstest" ;;
        fsx) ! crate fsx 0.3.2 || counted python3 "$here/fsx.py" "$tools/fsx" $((100000 * scale)) ;;
        fio) counted python3 "$here/fio.py" $((600 * scale)) ;;
        holes) counted python3 "$here/holes.py" $((10 * scale)) ;;
        engine) counted python3 "$here/engine.py" $((45 * scale)) 6 ;;
        bytes) counted python3 "$here/bytes.py" $((1024 * scale)) ;;
        *) echo "run.sh: no part is called $part" >&2; exit 2 ;;
    esac
done
printf '%d s in all\n' $((SECONDS - begin))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
