# SPDX-License-Identifier: Apache-2.0
# specimen.sh, sourced after tests/mount/lib.sh: make_specimen leaves a small but complete STORE and STATE in $T/store and
# $T/state, as a daemon that was killed leaves them, in $T/clean the STATE of a clean stop after that, in $T/old an older catalog,
# and in $T/manifest what users see: several disks, snapshots, a clone, a
# revert, a label with a side file, a removed snapshot in the trash, an index with bases, a live image with data that no snapshot
# has, a snapshot that is still pending.
# shellcheck shell=bash disable=SC2034,SC2154  # variables of lib.sh and of who sources this

# noise BYTES SEED: bytes that do not compress, the same each time.
noise() { /usr/bin/python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(sys.argv[2]).randbytes(int(sys.argv[1])))' "$1" "$2"; }

# One line for each file below the mount: path, mode, owner, size, sha256, and of a snapshot id, state, flags and note.
manifest() {    # manifest MOUNT
    /usr/bin/python3 "$here/manifest.py" "$1"
}

make_specimen() {
    local n d
    d=$T/parts
    mkdir "$d"
    seq 1 "${SPECIMEN_LINES:-9000}" >"$d/text"
    noise "${SPECIMEN_NOISE:-60000}" one >"$d/noise"
    cat "$d/text" "$d/noise" "$d/text" >"$d/a"
    { head -c 777 "$d/noise"; cat "$d/a"; } >"$d/b"
    truncate -s 9M "$d/c"; dd if="$d/noise" of="$d/c" bs=4096 seek=1030 count=5 conv=notrunc status=none
    start_varve
    run mkdir "$MNT/web" "$MNT/db"
    run cp --sparse=always "$d/a" "$MNT/web/disk.img"
    run cp "$d/b" "$MNT/web/second.raw"
    run cp --sparse=always "$d/c" "$MNT/db/data.img"
    run "$VARVE" wait "$MNT"
    stop_varve
    mkdir "$T/old"
    cp -a "$T/state/catalog.sqlite" "$T/old/"
    start_varve
    for n in 1 2 3; do
        noise 5000 "change $n" >"$d/change"
        run dd if="$d/change" of="$MNT/web/disk.img" bs=1000 seek=$((n * 20)) conv=notrunc status=none
        run dd if="$d/change" of="$MNT/db/data.img" bs=4096 seek=$((n * 600)) conv=notrunc status=none
        run "$VARVE" wait "$MNT"
    done
    run "$VARVE" snapshot --label kept --note "before the upgrade" "$MNT/web/disk.img"
    run touch "$MNT/web/second@asked.raw"
    run "$VARVE" wait "$MNT"
    run setfattr -n user.varve.note -v "changed later" "$MNT/web/second@asked.raw"
    run setfattr -n user.varve.protected -v 1 "$MNT/web/second@asked.raw"
    run chown 1001:1002 "$MNT/web/second@asked.raw"
    run chmod 0440 "$MNT/web/second@asked.raw"
    run rm "$(snaps "$MNT/db/data.img" | sed -n 2p)"
    run mkdir "$MNT/clones"
    run "$VARVE" revert --to "$MNT/clones/copy.img" "$MNT/web/disk@kept.img"
    run "$VARVE" revert "$(snaps "$MNT/db/data.img" | sed -n 1p)"
    noise 3000 more >"$d/change"
    run dd if="$d/change" of="$MNT/clones/copy.img" bs=1000 seek=3 conv=notrunc status=none
    run chown 1003:1004 "$MNT/db/data.img"
    run cp "$d/text" "$MNT/web/gone.txt"
    run "$VARVE" wait "$MNT"
    run rm "$MNT/web/gone.txt"          # its snapshots stay
    stop_varve

    # Rounds fail from here on: what is frozen stays pending. Then a write without a close, and a kill.
    VARVE_FAULT=dedup.1a.segment:1+=28 start_varve
    expect_errors
    noise 9000 pending >"$d/change"
    run dd if="$d/change" of="$MNT/web/disk.img" bs=1000 seek=150 conv=notrunc status=none
    run dd if="$d/change" of="$MNT/web/new.img" bs=9000 status=none
    /usr/bin/python3 -c '
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY)
os.pwrite(fd, open(sys.argv[2], "rb").read(), 2100000)
os.pwrite(fd, bytes(8192), 0)
open(sys.argv[3], "w").close()
time.sleep(1000)' "$MNT/db/data.img" "$d/change" "$d/written" &
    eventually 20 test -e "$d/written"
    manifest "$MNT" >"$T/manifest"
    kill_varve
    kill %%     # the writer
    wait 2>/dev/null || true
    # The same after a start and a clean stop.
    cp -a --sparse=always "$T/state" "$T/killed"
    VARVE_FAULT=dedup.1a.segment:1+=28 start_varve
    stop_varve
    mv "$T/state" "$T/clean"
    mv "$T/killed" "$T/state"
}
