#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A mount that is refused leaves no file, directory or lock: not in STORE, nor in STATE or above it, nor at the mount point.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
run "$VARVE" init "$T/store" >/dev/null 2>&1
run "$VARVE" init "$T/other" >/dev/null 2>&1
mkdir "$T/area" "$T/area/mnt"
look() { (cd "$T" && find store other area -printf '%P %y %m %U %s %T@ %C@ %i\n' | LC_ALL=C sort); }
# A directory whose only change is that a name was made and went again is as it was.
names() { (cd "$T" && find store other area -printf '%P %y %m %U %s\n' | LC_ALL=C sort); }
unmounted() { ! grep -qF " $T/area" /proc/mounts; }
refused() {     # CODE TEXT STORE MOUNTPOINT [OPTIONS]: in the background, and in the foreground
    local want=$1 text=$2 store=$3 point=$4 opts=${5:-state=$T/area/deep/state} before code out how
    before=$(names)
    for how in "" -f; do
        code=0
        # shellcheck disable=SC2086  # none, or one word
        out=$(timeout -k 5 "$CASE_TIMEOUT" "$VARVE" mount "$store" "$point" $how -o "$opts" 2>&1) || code=$?
        equals "$code" "$want" "$store on $point: $out"
        case $out in *"$text"*) ;; *) fail "'$out' instead of '$text': $store on $point, $opts";; esac
        [ "$before" = "$(names)" ] || { diff <(echo "$before") <(names) || true; fail "left behind: $store on $point, $opts"; }
        unmounted || fail "mounted: $store on $point"
    done
}
new=$T/area/mnt

# Wrong calls.
refused 2 bogus "$T/store" "$new" "bogus=1"
refused 2 state "$T/store" "$new" "state=relative"
refused 10 nowhere "$T/nowhere" "$new"
mkdir "$T/area/empty"; echo text >"$T/area/file"
refused 10 "no varve store" "$T/area/empty" "$new"
refused 10 "is a file" "$T/area/file" "$new"
refused 1 "no-dir" "$T/store" "$T/area/no-dir"
refused 1 "is no directory" "$T/store" "$T/area/file"
refused 1 "inside the store" "$T/store" "$T/store/cds"
refused 1 "would hide it" "$T/store" "$T"
refused 1 "mount point" "$T/store" "$T/area" "state=$T/area/deep/state"
chmod 755 "$T/area"
refused 1 "is no state of varve" "$T/store" "$T/area/mnt" "state=$T/area"
refused 1 "Not a directory" "$T/store" "$new" "state=$T/area/file/state"

# STORE: damaged, incomplete, of a newer version, of root while the daemon cannot reach it.
cp -a "$T/store" "$T/area/store"; echo garbage >"$T/area/store/store.conf"
refused 20 "damaged" "$T/area/store" "$new"
rm "$T/area/store/store.conf"
refused 10 "store.conf" "$T/area/store" "$new"
cp -a "$T/store/store.conf" "$T/area/store/store.conf"; rmdir "$T/area/store/cds"
refused 20 "cds" "$T/area/store" "$new"
rm -r "$T/area/store"
# Found after STATE was made, and after the drop of privileges: the tree of names has no root.
cp -a "$T/store" "$T/area/store"; rm "$T"/area/store/nodes/*
refused 10 "root directory" "$T/area/store" "$new"
rm -r "$T/area/store"
mkdir -m 700 "$T/area/closed"
"$VARVE" init --owner nobody "$T/area/closed/store" >/dev/null 2>&1
chmod 755 "$T"
refused 1 "cannot use it" "$T/area/closed/store" "$new"
rm -r "$T/area/closed"

# STATE: of another store, foreign, of another user, open to others.
mkdir "$T/area/foreign" -m 700; echo text >"$T/area/foreign/important"
refused 1 "is no state of varve" "$T/store" "$new" "state=$T/area/foreign"
run "$VARVE" mount "$T/other" "$new" -o "state=$T/area/others"
run "$VARVE" umount "$new"
refused 20 "belongs to store" "$T/store" "$new" "state=$T/area/others"
mkdir -m 777 "$T/area/open"
refused 1 "written to by others" "$T/store" "$new" "state=$T/area/open"
mkdir -m 700 "$T/area/strange"; chown 12345 "$T/area/strange"
refused 1 "belongs to uid 12345" "$T/store" "$new" "state=$T/area/strange"
# A directory that was there, and empty, stays as it was.
mkdir -m 700 "$T/area/mine"
refused 1 "inside the state directory" "$T/store" "$T/area/mine" "state=$T/area/mine"

# What is mounted there already.
run "$VARVE" mount "$T/other" "$MNT" -o "state=$T/area/others"
unmounted() { true; }
refused 11 "mounted there already" "$T/store" "$MNT"
refused 11 "in use by another varve" "$T/other" "$new" "state=$T/area/others"
run "$VARVE" umount "$MNT"
# Read-only mounts, too: they make a directory in /var/tmp, which goes.
touch "$T/begin"
unmounted() { ! grep -qF " $T/area" /proc/mounts; }
refused 10 nowhere "$T/nowhere" "$new" ro
cp -a "$T/store" "$T/area/store"; rm "$T"/area/store/nodes/*
refused 10 "root directory" "$T/area/store" "$new" ro
# Other cases have such mounts as well: those are locked by their daemons.
no_leftover() {
    local d
    for d in /var/tmp/varve-ro.*; do
        if [ "$d" -nt "$T/begin" ] && flock -n "$d" true 2>/dev/null; then return 1; fi
    done
}
eventually 5 no_leftover
