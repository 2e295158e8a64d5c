# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the cases have in common in which STORE comes back from an older copy. Sourced behind lib.sh.

expect_errors
for i in 1 2 3 4; do random_file "$T/d$i" 5000000; done

# lost FILE [SEGMENT...]: each of these segments, of all three if none is named, is an error and no disk's bytes.
lost() {
    local file=$1 segment; shift
    [ $# -gt 0 ] || set -- 0 1 2
    for segment; do must_fail "Input/output error" dd if="$file" of="$T/got" bs=1M skip=$((segment * 2)) count=1 iflag=direct; done
}

# newer_than_copy FIRST SECOND LATER...: images that vm/a.img becomes one after the other. $T/store.old is a copy of STORE that has the first
# only. The live image ends as the list of places of the second snapshot, snap, which the copy does not have. Nothing is mounted then.
newer_than_copy() {
    local image
    start_varve
    run mkdir "$MNT/vm" "$MNT/other"
    run cp "$1" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    stop_varve
    cp -a "$T/store" "$T/store.old"
    start_varve
    run cp "$2" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    snap=$(newest "$MNT/vm/a.img")
    for image in "${@:3}"; do
        run cp "$image" "$MNT/vm/a.img"
        run "$VARVE" wait "$MNT"
    done
    run "$VARVE" revert "$snap"
    stop_varve
}

# put_back [DIRECTORY...]: these of STORE, or all of it, come back as they are in the copy.
put_back() {
    local d
    if [ $# -eq 0 ]; then rm -rf "$T/store"; cp -a "$T/store.old" "$T/store"; fi
    for d; do rm -rf "$T/store/$d"; cp -a "$T/store.old/$d" "$T/store/"; done
}
