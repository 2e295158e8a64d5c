#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# pjdfstest.sh PROGRAM: every test of pjdfstest on a mount must be what expected.txt says. A test is a case; what is skipped
# (needs more than Linux or a filesystem without symbolic links has) is no case.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../mount/lib.sh"
program=$1
passed=0 failed=0

# Remounting (for EROFS) goes through the mount helper, which must be where mount(8) looks.
helper=$(dirname "$VARVE")/../../mount-helpers/mount.fuse.varve made=''
[ -e /sbin/mount.fuse.varve ] || { install -m 755 "$helper" /sbin/mount.fuse.varve; made=1; }
restore() { umount "$T/second" 2>/dev/null; [ -z "$made" ] || rm -f /sbin/mount.fuse.varve; }
at_end restore

settings() {    # allow_remount
    awk '{ print } /^\[settings\]/ { exit }' "$here/pjdfstest.toml"
    printf 'naptime = 0.01\nallow_remount = %s\nexpected_failures = [\n' "$1"
    awk '!/^#/ && NF { printf "  \"%s\",\n", $1 }' "$here/expected.txt"
    echo ']'
}

# count LOG: lines "NAME VERDICT", coloured or not
count() {
    local name verdict
    while read -r name verdict; do
        case $verdict in
            ok|"failed as expected") passed=$((passed + 1)) ;;
            skipped) ;;
            FAILED) failed=$((failed + 1)); echo "FAILED  pjdfstest $name"; grep -F -A 3 "$name " "$1" | sed -n '2,4p' ;;
            "PASSED UNEXPECTEDLY") failed=$((failed + 1)); echo "FAILED  pjdfstest $name passes, and is on the list of those that fail" ;;
        esac
    done < <(sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -E '^[a-z_]+::\S+ +(ok|failed as expected|skipped|FAILED|PASSED UNEXPECTEDLY)$')
}

start_varve
expect_errors       # PATH_MAX tests and the like are no fault of ours; what matters is what the calls return
mkdir "$MNT/p" "$T/second"
chmod 755 "$T" "$MNT/p"
mount -t tmpfs second "$T/second"
for remount in false true; do
    settings $remount >"$T/pjdfstest.toml"
    if [ $remount = true ]; then set -- erofs; else set --; fi
    # For EROFS by itself: a test before it that fails may leave a file open for writing.
    timeout -k 5 300 "$program" -c "$T/pjdfstest.toml" -s "$T/second" -p "$MNT/p" "$@" >"$T/pjd.log" 2>&1 </dev/null || true
    grep -q Summary "$T/pjd.log" || { tail -n 5 "$T/pjd.log"; echo "FAILED  pjdfstest did not come to its end"; failed=$((failed + 1)); }
    count "$T/pjd.log"
done
[ "$passed" -gt 300 ] || { echo "FAILED  pjdfstest: only $passed tests"; failed=$((failed + 1)); }
stop_varve || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
