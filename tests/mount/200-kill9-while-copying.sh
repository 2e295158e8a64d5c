#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of the daemon while disks are copied over each other, several times at different moments: stored snapshots stay
# identical, pending ones complete by themselves, what was not acknowledged is never silently a good backup.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors

declare -A digest       # of each snapshot that cp acknowledged, by name
for i in 0 1 2 3; do
    random_file "$T/img$i" $((5000000 + i * 1300000))
    dd if=/dev/zero of="$T/img$i" bs=1M seek=$((8 + i)) count=0 status=none
done
start_varve
run mkdir "$MNT/a" "$MNT/b"

remember() {    # DISK SOURCE: the newest snapshot of DISK holds SOURCE
    local s; s=$(newest "$1")
    digest[$s]=$(sha256sum <"$2")
}
copy_for_ever() {   # until the daemon dies
    local n=$1
    while cp "$T/img$((n % 4))" "$2" 2>/dev/null; do n=$((n + 1)); done
}

copied=0
for round in $(seq "${ROUNDS:-3}"); do
    run cp "$T/img$((round % 4))" "$MNT/a/disk.img"; remember "$MNT/a/disk.img" "$T/img$((round % 4))"
    run cp "$T/img$(((round + 1) % 4))" "$MNT/b/disk.img"; remember "$MNT/b/disk.img" "$T/img$(((round + 1) % 4))"
    copied=$((copied + 2))
    copy_for_ever "$round" "$MNT/a/disk.img" & one=$!
    copy_for_ever $((round + 2)) "$MNT/b/disk.img" & two=$!
    sleep "0.$((RANDOM % 9))$((RANDOM % 10))"
    kill_varve
    wait $one $two 2>/dev/null || true
    start_varve
    run "$VARVE" wait --timeout 50 "$MNT" || true
    for s in "${!digest[@]}"; do
        [ "$(sha256sum <"$s")" = "${digest[$s]}" ] || fail "round $round: $s changed"
        case $(xattr "$s" state) in stored) ;; *) fail "round $round: $s is $(xattr "$s" state)";; esac
    done
    # Whatever else is there is one of the four images whole, or says that it is not good.
    while read -r s; do
        [ -n "${digest[$s]:-}" ] && continue
        if ! has_flag "$s" partial && ! has_flag "$s" provisional; then
            sum=$(sha256sum <"$s"); good=no
            for i in 0 1 2 3; do [ "$(sha256sum <"$T/img$i")" = "$sum" ] && good=yes; done
            [ $good = yes ] || fail "round $round: $s is neither whole nor marked"
        fi
    done < <(snaps "$MNT/a/disk.img"; snaps "$MNT/b/disk.img")
done
stop_varve
run "$VARVE" verify "$T/store"
echo "$copied acknowledged copies, all identical after $round kills"
