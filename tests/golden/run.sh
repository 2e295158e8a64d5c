#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Golden stores: what each released format wrote (make.sh) must be read for ever: by verify, by the second reader, under a mount
# (a copy, compared with the manifest of the time). Records of versions and flags that nobody knows yet are refused, with their
# names, and left alone. VARVE=PATH as for tests/mount. Ends with "N passed, N failed".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
need /usr/bin/python3 zstd getfattr
/usr/bin/python3 -c 'import xxhash, zstandard' || skip "python3-xxhash or python3-zstandard is not installed"
export PYTHONDONTWRITEBYTECODE=1
passed=0 failed=0
# case_of NAME COMMAND...: one case, or as many as its last line says.
case_of() {
    local name=$1 status=0 last; shift
    timeout -k 5 200 "$@" >"$T/out" 2>&1 || status=$?
    last=$(tail -n 1 "$T/out")
    case $last in
        *' passed, '*' failed') passed=$((passed + ${last%% *})); last=${last#*, }; failed=$((failed + ${last%% *}));;
        *) if [ $status = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi;;
    esac
    [ $status = 0 ] || { echo "FAILED: $name"; tail -n 40 "$T/out" | sed 's/^/    | /'; }
}

for golden in "$here"/v*.tar.zst; do
    name=$(basename "$golden" .tar.zst)
    mkdir "$T/$name"
    zstd -dc "$golden" | tar -C "$T/$name" -xf -
    case_of "$name: verify" "$VARVE" verify "$T/$name/store"
    case_of "$name: second reader" /usr/bin/python3 "$here/../format/varve_format.py" verify "$T/$name/store"
    case_of "$name: mounted" /usr/bin/python3 "$here/../rot/mounts.py" "$VARVE" "$T/$name" "$T/work" 1 golden
    case_of "$name: versions and flags of later" /usr/bin/python3 "$here/refuse.py" "$VARVE" "$T/$name" "$T/work"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
