#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs that write beside the target and rename over it, or rotate names. The target takes the content and keeps its history; the
# source's own snapshots stay under its name, which goes on with them when it is made again.
set -eu
. "$(dirname "$0")/lib.sh"
need rsync python3

ids() { xattr "$1" id; }
holds() { local s; while read -r s; do cmp -s "$1" "$s" && return 0; done < <(snaps "$2"); return 1; }     # some snapshot of $2 is $1

start_varve
vm=$MNT/vm
run mkdir "$vm" "$vm/tmp" "$MNT/other"
random_file "$T/a" 3000000
random_file "$T/b" 5000000

# A disk onto a disk, both with a history.
run cp "$T/a" "$vm/n.img"
run "$VARVE" snapshot --label kept "$vm/n.img"
run cp "$T/b" "$vm/n.img.new"
source=$(ids "$vm/n.img.new") target=$(ids "$vm/n.img")
run mv "$vm/n.img.new" "$vm/n.img"
[ ! -e "$vm/n.img.new" ] || fail "the source is still there"
same "$T/b" "$vm/n.img"
equals "$(ids "$vm/n.img")" "$target" "the id of the target"
same "$T/a" "$vm/n@kept.img"
same "$T/b" "$(newest "$vm/n.img")"
equals "$(snap_count "$vm/n.img.new")" 1 "snapshots of the source"
same "$T/b" "$(newest "$vm/n.img.new")"
# Its name is made again: with its id and its history. And moved over once more, also from another directory.
run cp "$T/a" "$vm/n.img.new"
equals "$(ids "$vm/n.img.new")" "$source" "the id of the source made again"
more_snaps_than 1 "$vm/n.img.new" || fail "the source made again has no snapshot more"
run mv "$vm/n.img.new" "$MNT/other/n.img"
run mv "$MNT/other/n.img" "$vm/n.img"
same "$T/a" "$vm/n.img"
more_snaps_than 1 "$MNT/other/n.img" || fail "the history did not move with the name"
run "$VARVE" wait "$MNT"
same "$T/a" "$(newest "$vm/n.img")"

# A name of which only snapshots remain goes on from them: by a disk with a history, by one without.
run cp "$T/a" "$vm/g.img"
run "$VARVE" snapshot --label first "$vm/g.img"
id=$(ids "$vm/g.img")
run rm "$vm/g.img"
run cp "$T/b" "$vm/h.img"
run mv -n "$vm/h.img" "$vm/g.img"
same "$T/b" "$vm/g.img"
equals "$(ids "$vm/g.img")" "$id" "the id of the removed target"
same "$T/a" "$vm/g@first.img"
run "$VARVE" wait "$MNT"
run rm "$vm/g.img"          # stored: its image is gone, too
run cp "$T/a" "$vm/.g.img"
run mv "$vm/.g.img" "$vm/g.img"
same "$T/a" "$vm/g.img"
equals "$(ids "$vm/g.img")" "$id" "the id of the removed target"
same "$T/a" "$vm/g@first.img"
[ ! -e "$vm/h.img" ] || fail "a source is still there"
same "$T/b" "$(newest "$vm/h.img")"

# What programs do.
echo one >"$vm/c.txt"
for i in two three four; do
    run sed -i "s/.*/$i/" "$vm/c.txt"
    equals "$(cat "$vm/c.txt")" $i
done
for i in 1 2 3; do
    echo $i >>"$T/a"
    run rsync -a --delay-updates "$T/a" "$vm/d.img"
    same "$T/a" "$vm/d.img"
    run rsync -a --temp-dir="$vm/tmp" "$T/a" "$vm/t.img"
    same "$T/a" "$vm/t.img"
    run rsync -a "$T/a" "$vm/r.img"
    run mv -f "$vm/r.img" "$vm/r.img.1"
    same "$T/a" "$vm/r.img.1"
done
run rm "$vm/r.img.1"
run cp "$T/b" "$vm/r.img"
run mv "$vm/r.img" "$vm/r.img.1"
same "$T/b" "$vm/r.img.1"
python3 - "$vm" <<'P'
import os, sys
top = sys.argv[1]
for i in range(20):                             # as git-annex and Samba do: no time for a round between
    with open(top + "/x.tmp", "wb") as f:
        f.write(b"%d" % i * 100000)
    os.rename(top + "/x.tmp", top + "/x.img")
    assert open(top + "/x.img", "rb").read() == b"%d" % i * 100000, i
    os.rename(top + "/x.img", top + "/y.img")
    os.rename(top + "/y.img", top + "/x.img")
P
run "$VARVE" wait "$MNT"
holds "$T/b" "$vm/r.img" || fail "the source of a rotation has lost its snapshot"
find "$MNT" -name '*.*' -type f | sort >"$T/before"
stop_varve
start_varve
find "$MNT" -name '*.*' -type f | sort >"$T/after"
same "$T/before" "$T/after"
equals "$(find "$MNT" -name 'lost-*')" ""
run "$VARVE" verify "$T/store"
stop_varve
