#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rename in one VM and a new disk in another hang in STORE. Names in other VMs are made, moved, changed, labelled and removed meanwhile,
# and both hanging changes end as they should.
set -eu
. "$(dirname "$0")/lib.sh"
random_file "$T/a" $((1 << 20))
touch "$T/pause"
export VARVE_FAULT=names.create.after_record:4=pause,names.rename.after_record:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/slow" "$MNT/slow2"
run cp "$T/a" "$MNT/slow/old.img"
run "$VARVE" wait --timeout 60 "$MNT"

recorded() { grep -qa "$1" "$T"/store/nodes/*; }
cp "$T/a" "$MNT/slow2/made.img" &
making=$!
eventually 30 recorded made.img
mv "$MNT/slow/old.img" "$MNT/slow/new.img" &
moving=$!
eventually 30 recorded new.img

others() {
    local vm=$MNT/vm to=$MNT/vm2
    mkdir "$vm" "$to" "$to/below"
    cp "$T/a" "$vm/disk.img"
    cp "$T/a" "$vm/.hidden.img"
    mv "$vm/.hidden.img" "$vm/disk.img"
    chmod 0600 "$vm/disk.img"
    chmod 0750 "$vm"
    touch "$vm/disk@label.img"
    "$VARVE" wait --timeout 60 "$vm"
    mv "$vm/disk@label.img" "$vm/disk@other.img"
    mv "$vm/disk.img" "$to/moved.img"
    mv "$to/below" "$vm/below"
    mv "$vm/below" "$vm/renamed"
    rmdir "$vm/renamed"
    rm "$to/moved@other.img" "$to/moved.img"
    cp "$T/a" "$to/moved.img"
    "$VARVE" wait --timeout 60 "$to"
    rm "$to"/moved@* "$to/moved.img"
    rmdir "$vm"
}
(set -e; others) &
busy=$!
for _ in $(seq 600); do kill -0 "$busy" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$busy" 2>/dev/null; then rm "$T/pause"; fail "names in other VMs wait for a slow one"; fi
wait "$busy" || { rm "$T/pause"; fail "a change of names in another VM failed"; }
for pid in $making $moving; do kill -0 "$pid" 2>/dev/null || skip "this build has no fault points"; done

rm "$T/pause"
wait "$moving" || fail "the rename failed"
wait "$making" || fail "the new disk failed"
tree() { (cd "$MNT" && find . -name .varve -prune -o -printf '%p %m %s\n' | sort); }
same "$T/a" "$MNT/slow/new.img"
same "$T/a" "$MNT/slow2/made.img"
run "$VARVE" wait --timeout 60 "$MNT"
tree >"$T/before"
equals "$(find "$MNT/slow" "$MNT/slow2" "$MNT/vm2" -printf '%f\n' | grep -v @ | sort | xargs)" "made.img new.img slow slow2 vm2"
stop_varve
start_varve
tree >"$T/after"
same "$T/before" "$T/after"
stop_varve
run "$VARVE" verify "$T/store"
