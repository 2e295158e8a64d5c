#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A store on a medium that cannot be written to (read-only bind mount, squashfs, ext4 and xfs mounted ro, read-only snapshot of btrfs) mounts
# with `-o ro` and reads everything; without, it is refused at once. Also on a medium that could be written to, `-o ro` changes no byte, time
# or name in STORE, and leaves this host's STATE alone.
set -eu
. "$(dirname "$0")/lib.sh"
need getfattr setfattr jq

# Everything about a tree that a program could have changed; reading may change the times of the last access.
tree() { (cd "$1" && find . -printf '%P %y %m %U %G %s %n %T@ %C@ %i\n' | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum); }
# The directory of a mount's catalog, which must be gone with the mount.
temporary() { "$VARVE" status --json "$MNT" | jq -r '.[0].host.state'; }

# ---- a store with a history, and a STATE with what is not stored ----

start_varve
run mkdir -p "$MNT/vm/deep"
random_file "$T/a" $((5 << 20)); random_file "$T/b" $((3 << 20))
run cp "$T/a" "$MNT/vm/disk.img"; run "$VARVE" snapshot --label good "$MNT/vm/disk.img" >/dev/null
run cp "$T/b" "$MNT/vm/disk.img"; run "$VARVE" snapshot --label later "$MNT/vm/disk.img" >/dev/null
run cp "$T/b" "$MNT/vm/deep/gone.img"; run "$VARVE" snapshot --label last "$MNT/vm/deep/gone.img" >/dev/null
run rm "$MNT/vm/deep/gone.img"
run "$VARVE" wait "$MNT"
snapshots() { (cd "$MNT" && find . -name '*@*' -printf '%p %s %T@ %M %U\n' | LC_ALL=C sort); }
have=$(snapshots) count=$(snapshots | wc -l)
stop_varve
cp -a "$T/store" "$T/copy"
expect_errors
VARVE_FAULT=agent.finish.before_pointers:1+=28 start_varve
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" snapshot --label pending "$MNT/vm/disk.img" >/dev/null
has_fault=yes
[ "$(xattr "$MNT/vm/disk@pending.img" state)" != stored ] || has_fault=
stop_varve

# ---- what a read-only mount must do ----

refuses() {     # COMMAND...: a change, which is EROFS at once
    local begin=$SECONDS
    must_fail "Read-only file system" "$@"
    [ $((SECONDS - begin)) -lt 5 ] || fail "took its time: $*"
}
reads_everything() {    # STORE
    run "$VARVE" mount "$1" "$MNT" -o "ro,state=$T/state,host=testhost" 2>"$T/said"
    local catalog
    catalog=$(temporary)
    run test -e "$catalog/catalog.sqlite"
    same "$T/a" "$MNT/vm/disk@good.img"; same "$T/b" "$MNT/vm/disk@later.img"; same "$T/b" "$MNT/vm/deep/gone@last.img"
    run cp "$MNT/vm/disk@good.img" "$T/out"; same "$T/a" "$T/out"
    equals "$(snapshots)" "$have" "the snapshots"
    run ls -lR "$MNT" >/dev/null
    run df "$MNT" >/dev/null
    run "$VARVE" log "$MNT/vm/disk@good.img" | grep -q good || fail "log"
    run "$VARVE" list "$MNT" | grep -q 'vm/disk.img' || fail "list"
    run "$VARVE" status "$MNT" | grep -q " $count snapshots stored, 0 pending, 0 failed" || fail "status: $("$VARVE" status "$MNT")"
    run "$VARVE" health "$MNT" | grep -q '^VARVE OK' || fail "health: $("$VARVE" health "$MNT")"
    run "$VARVE" wait "$MNT"
    run "$VARVE" verify "$MNT" | grep -q 'all is well' || fail "verify of a mount"
    must_fail "Object is remote" cat "$MNT/vm/disk.img"

    refuses touch "$MNT/vm/new.img"
    refuses touch "$MNT/vm/disk@now.img"
    refuses cp "$T/a" "$MNT/vm/new.img"
    refuses mkdir "$MNT/dir"
    refuses rm "$MNT/vm/disk@good.img"
    refuses rm -r "$MNT/vm/deep"
    refuses mv "$MNT/vm/disk@good.img" "$MNT/vm/disk@best.img"
    refuses mv "$MNT/vm" "$MNT/vm2"
    refuses chmod 600 "$MNT/vm"
    refuses chown 1:1 "$MNT/vm/disk@good.img"
    refuses setfattr -n user.varve.note -v text "$MNT/vm/disk@good.img"
    refuses truncate -s 0 "$MNT/vm/disk.img"
    refuses "$VARVE" snapshot "$MNT/vm"
    # A remount that asks for more gets no more: the daemon refuses what the kernel lets pass.
    run mount -i -t fuse.varve -o remount,rw "$MNT"
    refuses mkdir "$MNT/dir"
    refuses cp "$T/a" "$MNT/vm/new.img"
    refuses rm "$MNT/vm/disk@good.img"
    refuses chmod 700 "$MNT/vm"
    [ ! -e "$MNT/vm/new.img" ] || fail "a refused copy has left a name"
    run "$VARVE" umount "$MNT"
    [ ! -e "$catalog" ] || fail "$catalog is still there"
}
# A medium whose store is $1.
reads_medium() {
    local store=$1 before
    before=$(tree "$store")
    must_fail "$store lies on a read-only filesystem: mount it with -o ro" "$VARVE" mount "$store" "$MNT" -o "state=$T/state2"
    must_fail "read-only filesystem" "$VARVE" rebuild --state "$T/state2" "$store"
    [ ! -e "$T/state2" ] || fail "a refused mount has made a state directory"
    reads_everything "$store"
    run "$VARVE" verify --state "$T/state" "$store" | grep -q 'all is well' || fail "verify of $store"
    run "$VARVE" dump "$(find "$store/snapshots" -name '*.rcp' | head -n 1)" >/dev/null
    run "$VARVE" dump "$(find "$store/containers" -name '*.vc' | head -n 1)" >/dev/null
    [ "$before" = "$(tree "$store")" ] || fail "$store has changed"
}
# ---- `-o ro` where STORE and STATE can be written to ----

before_store=$(tree "$T/store") before_state=$(tree "$T/state")
reads_all_but_pending() {
    reads_everything "$T/copy"
    grep -q "read-only: $T/state, .* is left alone" "$T/said" || fail "does not say that STATE is left alone: $(cat "$T/said")"
}
before_copy=$(tree "$T/copy")
reads_all_but_pending
[ "$before_copy" = "$(tree "$T/copy")" ] || { diff <(echo "$before_copy") <(tree "$T/copy") || true; fail "-o ro has changed STORE"; }
run "$VARVE" mount "$T/store" "$MNT" -o "ro,state=$T/state"
same "$T/a" "$MNT/vm/disk@good.img"
catalog=$(temporary)
run umount "$MNT"
gone() { [ ! -e "$catalog" ]; }
eventually 30 gone
[ "$before_store" = "$(tree "$T/store")" ] || { diff <(echo "$before_store") <(tree "$T/store") || true; fail "-o ro has changed STORE"; }
[ "$before_state" = "$(tree "$T/state")" ] || { diff <(echo "$before_state") <(tree "$T/state") || true; fail "-o ro has changed STATE"; }

# Several at a time, and beside the daemon that writes.
start_varve
[ -z "$has_fault" ] || run "$VARVE" wait "$MNT"
mkdir "$T/mnt2" "$T/mnt3"
for m in mnt2 mnt3; do run "$VARVE" mount "$T/store" "$T/$m" -o "ro,state=$T/state"; done
for m in mnt2 mnt3; do same "$T/a" "$T/$m/vm/disk@good.img"; same "$T/a" "$T/$m/vm/disk@pending.img"; done
run "$VARVE" umount "$T/mnt2"
run cp "$T/b" "$MNT/vm/disk.img"
run "$VARVE" umount "$T/mnt3"
stop_varve

# ---- media ----

mkdir "$T/bind"
run mount --bind "$T/copy" "$T/bind"; at_end umount -l "$T/bind"
run mount -o remount,bind,ro "$T/bind"
reads_medium "$T/bind"

# A part of the store only.
run umount "$T/bind"; mkdir "$T/part"; run mount --bind "$T/copy" "$T/part"; at_end umount -l "$T/part/containers" "$T/part"
run mount --bind "$T/copy/containers" "$T/part/containers"
run mount -o remount,bind,ro "$T/part/containers"
must_fail "read-only filesystem" "$VARVE" mount "$T/part" "$MNT" -o "state=$T/state2"

on_medium() {   # NAME STORE MOUNT-ARGUMENT...
    local name=$1 store=$2; shift 2
    mkdir -p "$T/$name"
    run mount "$@" "$T/$name"
    at_end umount -l "$T/$name"
    reads_medium "$T/$name$store"
    run umount "$T/$name"
    echo "read: $name"
}
if command -v mksquashfs >/dev/null && grep -qw squashfs /proc/filesystems; then
    run mksquashfs "$T/copy" "$T/squash.img" -quiet -no-progress
    on_medium squashfs "" -t squashfs -o loop,ro "$T/squash.img"
fi
truncate -s 300M "$T/ext4.img"
run mkfs.ext4 -q -d "$T/copy" "$T/ext4.img"
on_medium ext4 "" -o loop,ro,noload "$T/ext4.img"
filled() {      # TYPE: a filesystem with a copy of the store in store/
    mkdir "$T/fill"
    truncate -s 400M "$T/$1.img"
    run "mkfs.$1" -q "$T/$1.img"
    run mount -o loop "$T/$1.img" "$T/fill"
    at_end umount -l "$T/fill"
    if [ "$1" = btrfs ]; then run btrfs -q subvolume create "$T/fill/store"; cp -a "$T/copy/." "$T/fill/store"; else cp -a "$T/copy" "$T/fill/store"; fi
}
if command -v mkfs.xfs >/dev/null && grep -qw xfs /proc/filesystems; then
    filled xfs; run umount "$T/fill"; rmdir "$T/fill"
    on_medium xfs /store -o loop,ro,norecovery,nouuid "$T/xfs.img"
fi
if command -v mkfs.btrfs >/dev/null && grep -qw btrfs /proc/filesystems; then
    filled btrfs
    run btrfs -q subvolume snapshot -r "$T/fill/store" "$T/fill/yesterday"
    reads_medium "$T/fill/yesterday"
    echo "read: btrfs snapshot"
    run umount "$T/fill"
fi
