#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The log has one line at INFO for what is frozen, stored, removed and reverted, and so have the events: with the full path and the user
# who asked for it.
set -eu
. "$(dirname "$0")/lib.sh"
need setpriv
start_varve
run mkdir -p "$MNT/vm/deep"
chmod 755 "$T"
chmod 777 "$MNT/vm/deep"
as_user=(setpriv --reuid 1001 --regid 1001 --clear-groups)
logged() { grep -qE "INFO event: $1\$" "$T/daemon.log" || fail "no line '$1' in the log: $(cat "$T/daemon.log")"; }
shown() { grep -qE "^20[0-9T:-]+Z $1\$" "$MNT/.varve/events" || fail "no event '$1': $(cat "$MNT/.varve/events")"; }
both() { logged "$1"; shown "$1"; }

random_file "$T/a" $((3 << 20))
chmod 644 "$T/a"
run "${as_user[@]}" cp "$T/a" "$MNT/vm/deep/disk.img"
run "$VARVE" wait "$MNT"
snap=$(basename "$(newest "$MNT/vm/deep/disk.img")")
both "vm/deep/$snap: frozen, snapshot 1, .* dirty segments \(by uid 1001\)"
both "vm/deep/$snap: stored, snapshot 1, [0-9]+ bytes added \(by varve\)"
run "$VARVE" snapshot --label mark "$MNT/vm/deep/disk.img" >/dev/null
run "$VARVE" wait "$MNT"
both "vm/deep/disk@mark.img: frozen, .* \(by uid 0\)"
run "$VARVE" revert "$MNT/vm/deep/$snap"
both "vm/deep/disk.img: reverted to vm/deep/$snap \(by uid 0\)"
run "${as_user[@]}" rm "$MNT/vm/deep/$snap"
both "vm/deep/$snap: removed, snapshot 1 \(by uid 1001\)"
run "${as_user[@]}" rm -f "$MNT/vm/deep/disk.img"
both "vm/deep/disk.img: removed \(by uid 1001\)"
run rm "$MNT/vm/deep/disk@mark.img"
both "vm/deep/disk@mark.img: removed, .* \(by uid 0\)"
run rmdir "$MNT/vm/deep"
both "vm/deep: removed \(by uid 0\)"
stop_varve
