# SPDX-License-Identifier: Apache-2.0
# words.sh: what the script of a page is made of (page.py).
# shellcheck shell=bash
set -eu
exec 9>&1       # a block that fails ends while its output is redirected
run=0 left=0 line=0 since=0 out=/dev/null
begin() { line=$1 out=$2 since=$SECONDS; }
end() { [ $((SECONDS - since)) -lt 5 ] || echo "line $line took $((SECONDS - since)) s"; [ "$1" = setup ] || run=$((run + 1)); line=0; }
skipped() { echo "not run: line $1: $2"; left=$((left + 1)); }
told() { exec >&9 2>&1; echo "FAILED at line $line: $*"; sed 's/^/        | /' "$out" | tail -n 40; line=0; exit 1; }
expect() { grep -qE -- "$1" "$out" || told "no line of the output matches: $1"; }
ends_with() { [ "$1" = "$2" ] || told "ends with $2, not $1"; }
at_exit() {
    local status=$?
    exec >&9 2>&1
    if [ $status != 0 ] && [ "$line" != 0 ]; then told "ends with $status"; fi
    # shellcheck disable=SC2046  # one word for each
    kill $(jobs -p) 2>/dev/null || true
    echo "blocks: $run run, $left not run"
    exit $status
}
trap at_exit EXIT
# For set-up of pages. settled: nothing is pending. image FILE SIZE DIRECTORY: a disk with ext4 and these files.
settled() { varve wait --timeout 120 /snapshots; }
image() { mkdir -p "$(dirname "$1")"; mkfs.ext4 -q -F -d "$3" "$1" "$2"; }
# mounted_store: a store on /snapshots with a disk web/disk.img that has a snapshot.
mounted_store() {
    varve init /srv/varve
    varve mount /srv/varve /snapshots
    guest_files /tmp/guest web
    image /tmp/web.img 32M /tmp/guest
    mkdir /snapshots/web
    cp /tmp/web.img /snapshots/web/disk.img
    settled
}
# A guest's files: some MB that differ from run to run.
guest_files() { mkdir -p "$1/etc" "$1/srv"; echo "$2" >"$1/etc/hostname"; head -c "${3:-3000000}" /dev/urandom >"$1/srv/data"; }
