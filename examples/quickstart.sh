#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# quickstart.sh: the whole life of a disk in varve, in two minutes. Run as root on Debian 12; it installs packages,
# builds varve in ./build, and works in a temporary directory that it removes at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "quickstart.sh: run me as root (I mount filesystems)" >&2; exit 1; }

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '   $ %s\n' "$*"; "$@"; }

say "1. Packages and build"
bash examples/install-packages.sh
[ -f build/build.ninja ] || meson setup build --buildtype=release -Dtests=disabled >/dev/null
ninja -C build | tail -n 1
varve=$PWD/build/src/cli/varve
"$varve" --version

work=$(mktemp -d /var/tmp/varve-quickstart.XXXXXX)
cleanup() {
    cd /
    mountpoint -q "$work/look" && umount "$work/look"
    mountpoint -q "$work/snapshots" && umount "$work/snapshots"
    for _ in $(seq 100); do flock -n "$work/state/lock" true 2>/dev/null && break; sleep 0.1; done
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/snapshots" "$work/look"

say "2. A store (a directory), mounted"
run "$varve" init "$work/store"
run "$varve" mount "$work/store" "$work/snapshots" -o "state=$work/state"
run df -h "$work/snapshots"

say "3. A real disk: ext4 with files of this machine"
mkfs.ext4 -q -d /usr/share/doc "$work/web.img" 700M
run ls -ls --block-size=M "$work/web.img"

say "4. Backup: copy it in. The close takes a snapshot"
mkdir "$work/snapshots/web"
run cp "$work/web.img" "$work/snapshots/web/disk.img"
run "$varve" wait "$work/snapshots"
run ls -l "$work/snapshots/web"

say "5. The disk changes; copy it again. Only what changed is stored"
mount -o loop "$work/web.img" "$work/look"
cp /usr/bin/perl "$work/look/new-file"; echo "hello from day two" > "$work/look/note.txt"
umount "$work/look"
sleep 1
run cp "$work/web.img" "$work/snapshots/web/disk.img"
run "$varve" wait "$work/snapshots"
run "$varve" log "$work/snapshots/web/disk.img"

say "6. History: every point in time is a file"
run ls -l "$work/snapshots/web"
first=$(find "$work/snapshots/web" -name 'disk@*' | sort | head -n 1)
last=$(find "$work/snapshots/web" -name 'disk@*' | sort | tail -n 1)

say "7. Restore: copy out, compare"
run cp "$last" "$work/restored.img"
run cmp "$work/web.img" "$work/restored.img"
echo "   identical"

say "8. Look inside a snapshot without restoring it"
run mount -o ro,loop,noload "$last" "$work/look"
run cat "$work/look/note.txt"
run umount "$work/look"

say "9. Roll back to the first snapshot: pointers, no copying"
run time -p "$varve" revert "$first"
run mount -o ro,loop,noload "$work/snapshots/web/disk.img" "$work/look"
echo "   note.txt is $([ -e "$work/look/note.txt" ] && echo "still there" || echo "gone: this is day one again")"
[ ! -e "$work/look/note.txt" ]
run umount "$work/look"

say "10. Label and clone"
run mv "$last" "$work/snapshots/web/disk@day-two.img"
mkdir "$work/snapshots/web2"
run "$varve" revert --to "$work/snapshots/web2/disk.img" "$work/snapshots/web/disk@day-two.img"
run cmp "$work/web.img" "$work/snapshots/web2/disk.img"
echo "   identical"

say "11. What it cost"
run "$varve" status "$work/snapshots"
run du -sh --apparent-size "$work/store"

say "12. Check everything that is stored"
run "$varve" verify "$work/snapshots"
say "Done. README.md goes on from here."
