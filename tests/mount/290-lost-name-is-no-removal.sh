#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A live image goes only when its removal was said: a lost or damaged name record is none. A kill in the middle of rm or of a
# creation leaves a disk that is there, whole, or one that is not there at all.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors

ids() { (cd "$T/state/disks" && printf '%s\n' [0-9a-f]*) | LC_ALL=C sort; }
# The image of a disk is the one that its making added: new_id BEFORE
new_id() { comm -13 <(echo "$1") <(ids); }
lost() { find "$MNT" -name "lost-*" ! -name '*@*'; }
# mount and expect the daemon to end by itself during the command
killed_by() { # POINT COMMAND...
    local point=$1; shift
    VARVE_FAULT=$point:1=kill start_varve
    timeout 20 "$@" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.1; done
    if kill -0 "$DAEMON" 2>/dev/null; then
        [ "$point" != names.remove.said ] || skip "this build has no fault points"
        fail "never came to $point"
    fi
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    umount -l "$MNT"
}

random_file "$T/a" 5000000
random_file "$T/b" 3000000
start_varve
run mkdir "$MNT/vm"
before=$(ids)
run cp "$T/a" "$MNT/vm/disk.img"
disk=$(new_id "$before")
before=$(ids)
run cp "$T/b" "$MNT/vm/.hidden"         # a dot-file has no snapshot: its live image is all there is
hidden=$(new_id "$before")
run "$VARVE" wait "$MNT"
stop_varve

# rm, killed at both sides of the removal of the record.
killed_by names.remove.said rm "$MNT/vm/.hidden"
start_varve
same "$T/b" "$MNT/vm/.hidden"
stop_varve
[ ! -e "$T/state/disks/$hidden/removed" ] || fail "said to be removed, but it is there"
cp -a "$T/store/nodes/$hidden" "$T/record"
killed_by names.drop.after_record rm "$MNT/vm/.hidden"
[ -e "$T/state/disks/$hidden" ] || fail "the image went before the next start"
cp -a "$T/state/disks/$hidden" "$T/image"
start_varve
[ ! -e "$MNT/vm/.hidden" ] || fail "a removed disk is back"
equals "$(lost)" "" "a removed disk is taken for a lost one"
[ ! -e "$T/state/disks/$hidden" ] || fail "the image of a removed disk stays"
stop_varve

# As before the rm, but the record is lost: nobody said that it was removed.
rm "$T/image/removed"
mv "$T/image" "$T/state/disks/$hidden"
start_varve
equals "$(lost)" "$MNT/lost-${hidden:0:8}"
same "$T/b" "$MNT/lost-${hidden:0:8}"
grep -q "lost-${hidden:0:8}.*: adopted, because disk .* has lost its name: .* (by varve)\$" "$MNT/.varve/events" || fail "no event says so"
equals "$(stat -c %a:%u "$MNT/lost-${hidden:0:8}")" 600:0
run mv "$MNT/lost-${hidden:0:8}" "$MNT/vm/.hidden"
stop_varve
start_varve
same "$T/b" "$MNT/vm/.hidden"
stop_varve

# A disk with history: it stays with its snapshots, in its directory. With the catalog, and without.
for catalog in kept lost damaged; do
    cp -a "$T/store/nodes/$disk" "$T/record"
    if [ $catalog = damaged ]; then printf XX | dd of="$T/store/nodes/$disk" bs=1 seek=40 conv=notrunc status=none; else rm "$T/store/nodes/$disk"; fi
    [ $catalog = kept ] || rm -f "$T/state"/catalog.sqlite*
    start_varve
    equals "$(lost)" "$MNT/vm/lost-${disk:0:8}" "$catalog"
    same "$T/a" "$(lost)"
    equals "$(snap_count "$(lost)")" 1 "$catalog"
    same "$T/a" "$(newest "$(lost)")"
    stop_varve
    cp -a "$T/record" "$T/store/nodes/$disk"
    start_varve
    same "$T/a" "$MNT/vm/disk.img"
    stop_varve
done

# A creation, killed between the image and the name, and right after the name.
before=$(ids)
killed_by names.create.prepared sh -c ": >'$MNT/vm/new.img'"
[ "$(ids)" != "$before" ] || fail "the name would come before the image"
start_varve
[ ! -e "$MNT/vm/new.img" ] || fail "the name came before its image"
equals "$(lost)" ""
equals "$(ids)" "$before" "what a creation left"
stop_varve
killed_by names.create.after_record sh -c ": >'$MNT/vm/new.img'"
start_varve
run cp "$T/b" "$MNT/vm/new.img"
same "$T/b" "$MNT/vm/new.img"
run "$VARVE" wait "$MNT/vm/new.img"
# An image that never had a name, but has content, is not taken for a leftover.
run cp "$T/a" "$MNT/vm/.other"
other=$(comm -13 <(echo "$before") <(ids) | while read -r id; do grep -q '\.other' "$T/store/nodes/$id" && echo "$id"; done; true)
stop_varve
rm "$T/store/nodes/$other"
start_varve
same "$T/a" "$MNT/lost-${other:0:8}"
run rm "$MNT/lost-${other:0:8}"
eventually 20 test ! -e "$T/state/disks/$other"   # cmp's handle may be released a moment later

# A removed name that comes back while its old image still serves a pending snapshot does not bring back the old content.
stop_varve
touch "$T/pause"
VARVE_FAULT=dedup.1a.segment:1=pause VARVE_FAULT_PAUSE=$T/pause start_varve
run cp "$T/a" "$MNT/vm/again.img"
run rm "$MNT/vm/again.img"
: >"$MNT/vm/again.img"
equals "$(stat -c %s "$MNT/vm/again.img")" 0
kill_varve
rm "$T/pause"
start_varve
equals "$(stat -c %s "$MNT/vm/again.img")" 0
run "$VARVE" wait "$MNT"
same "$T/a" "$(snaps "$MNT/vm/again.img")"
stop_varve
run "$VARVE" verify "$T/store"
