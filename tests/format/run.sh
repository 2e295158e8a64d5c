#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A store that a real mount has written, read by the second reader of this folder, which knows docs/format only: it must
# find nothing wrong, give back every snapshot byte by byte, and see the same damage as `varve verify`.
# VARVE=PATH as for tests/mount; VARVE_SEED=N, FLIPS=N single bytes that are damaged (100).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
need /usr/bin/python3 getfattr setfattr cmp
/usr/bin/python3 -c 'import xxhash, zstandard' || skip "python3-xxhash or python3-zstandard is not installed"
export PYTHONDONTWRITEBYTECODE=1
reader() { run /usr/bin/python3 "$here/varve_format.py" "$@"; }
seed=${VARVE_SEED:-$(date +%s)} flips=${FLIPS:-100}
echo "VARVE_SEED=$seed"

mkdir "$T/expect"
web=$MNT/web

# must_have SNAPSHOT FILE: the snapshot has been taken of this content; kept under its id for the comparison.
must_have() { cp --sparse=always "$2" "$T/expect/$(xattr "$1" id)"; }
# backup FILE DISK: copy it in.
backup() { run cp --sparse=always "$1" "$2"; must_have "$(newest "$2")" "$1"; }

# ---- content: compressible, random, zero runs, duplicates, a short tail ----

seq 1 200000 >"$T/text"                                                         # 1.3 MB
random_file "$T/random" 2300000
head -c 5000000 /dev/zero >"$T/zeros"
cat "$T/text" "$T/random" "$T/zeros" "$T/text" >"$T/mixed"; echo tail >>"$T/mixed"
{ head -c 12345 /dev/urandom; cat "$T/random" "$T/random"; } >"$T/shifted"      # duplicates at other places
truncate -s 300M "$T/sparse"
dd if="$T/random" of="$T/sparse" bs=4096 seek=5 count=3 conv=notrunc status=none
dd if="$T/random" of="$T/sparse" bs=1000 seek=250001 count=700 conv=notrunc status=none
random_file "$T/tiny" 1

start_varve
run mkdir "$web" "$MNT/db" "$MNT/db/deep"
backup "$T/mixed" "$web/disk.img"
backup "$T/shifted" "$web/second.raw"
backup "$T/sparse" "$MNT/db/sparse.img"
backup "$T/tiny" "$MNT/db/deep/no-extension"
run "$VARVE" wait "$MNT"

# ---- changes: in place, other lengths, the same again ----

dd if=/dev/urandom of="$T/mixed" bs=4096 seek=100 count=7 conv=notrunc status=none
run dd if="$T/mixed" of="$web/disk.img" bs=4096 seek=100 skip=100 count=7 conv=notrunc status=none
must_have "$(newest "$web/disk.img")" "$T/mixed"
{ head -c 777 /dev/urandom; cat "$T/mixed"; } >"$T/moved"                       # everything at another place
backup "$T/moved" "$web/disk.img"
head -c 3000001 "$T/moved" >"$T/short"
backup "$T/short" "$web/disk.img"
cp "$T/short" "$T/grown"; truncate -s 9000000 "$T/grown"
run truncate -s 9000000 "$web/disk.img"                                         # its last segment recipe stays a short one
must_have "$(newest "$web/disk.img")" "$T/grown"
dd if="$T/text" of="$T/grown" bs=4096 seek=2000 count=1 conv=notrunc status=none
run dd if="$T/text" of="$web/disk.img" bs=4096 seek=2000 count=1 conv=notrunc status=none
must_have "$(newest "$web/disk.img")" "$T/grown"
run "$VARVE" wait "$MNT"
backup "$T/shifted" "$MNT/db/copy.raw"                                          # all of it is known
run rm "$MNT/db/copy.raw"

# ---- names, labels, notes, rename, removal, revert and clone ----

run touch "$web/disk@label.img"; must_have "$web/disk@label.img" "$T/grown"
run "$VARVE" snapshot --label noted --note "before the upgrade" "$web/second.raw"
must_have "$web/second@noted.raw" "$T/shifted"
run "$VARVE" wait "$MNT"
run mv "$(snaps "$web/disk.img" | head -n 1)" "$web/disk@first.img"
run setfattr -n user.varve.note -v "changed later" "$web/disk@first.img"
run setfattr -n user.varve.protected -v 1 "$web/disk@first.img"
run chmod 0400 "$web/disk@label.img"
run mv "$web/second.raw" "$MNT/db/renamed.raw"
gone=$(snaps "$web/disk.img" | sed -n 2p)
rm -f "$T/expect/$(xattr "$gone" id)"
run rm "$gone"
run mkdir "$MNT/web2"
run "$VARVE" revert --to "$MNT/web2/clone.img" "$web/disk@label.img"
run "$VARVE" snapshot --label cloned "$MNT/web2/clone.img"; must_have "$MNT/web2/clone@cloned.img" "$T/grown"
run "$VARVE" revert --to "$MNT/web2/held.img" "$web/disk@label.img"               # then only its anchor holds the snapshot
rm -f "$T/expect/$(xattr "$web/disk@label.img" id)"
run rm "$web/disk@label.img"
same "$T/grown" "$MNT/web2/held.img"
run "$VARVE" wait "$MNT"
for n in $(seq 12); do                                                          # more than 8 deltas: an index with bases
    dd if=/dev/urandom of="$T/sparse" bs=5000 seek=$((n * 3000)) count=3 conv=notrunc status=none
    run dd if="$T/sparse" of="$MNT/db/sparse.img" bs=5000 seek=$((n * 3000)) skip=$((n * 3000)) count=3 conv=notrunc status=none
    must_have "$(newest "$MNT/db/sparse.img")" "$T/sparse"
    run "$VARVE" wait "$MNT"
done
(cd "$MNT" && find . -name '*@*' | sed 's|^\./||' | LC_ALL=C sort) >"$T/names"
stop_varve

# ---- the second reader ----

reader verify "$T/store"
reader list "$T/store" >"$T/list"
cut -f5 "$T/list" | LC_ALL=C sort | diff "$T/names" - || fail "the reader and the mount see other names"
tab=$(printf '\t')
count=0
while IFS=$tab read -r disk number id _ name; do
    reader extract "$T/store" "$disk" "$number" "$T/out"
    [ -e "$T/expect/$id" ] || fail "$name was not asked for"
    cmp "$T/out" "$T/expect/$id" || fail "$name is not what was copied in"
    count=$((count + 1))
    case $name in db/sparse@*) [ "$(stat -c %b "$T/out")" -lt 10000 ] || fail "extract fills holes";; esac
done <"$T/list"
equals "$count" "$(find "$T/expect" -type f | wc -l)" "snapshots compared"
echo "$count snapshots have the bytes that were copied in"
CASE_TIMEOUT=200 reader cuts "$T/store"
run "$VARVE" verify "$T/store"

# ---- single bytes ----

cp -a "$T/store" "$T/damaged"
CASE_TIMEOUT=$((100 + 4 * flips)) run /usr/bin/python3 "$here/flip_bytes.py" "$T/damaged" "$flips" "$seed" "$VARVE"
echo "format: all good"
