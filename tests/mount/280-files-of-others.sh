#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Files of somebody else in STORE end neither mount nor verify nor rebuild, and are told. Damage to what publishing depends on
# is exit code 20; damage to the index is not, and rebuild mends it.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
start_varve
run mkdir "$MNT/vm"
random_file "$T/a" 5000000
run cp "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
stop_varve
rebuild() { run "$VARVE" rebuild --state "$T/state" "$T/store" "$@" >"$T/rebuild.out" 2>&1; }
verify() {  # verify EXIT DAMAGED NOTICES [OPTION...]
    local want=$1 damaged=$2 notices=$3 got=0; shift 3
    "$VARVE" verify --json "$@" "$T/store" >"$T/verify.json" || got=$?
    equals "$got" "$want" "exit code of verify"
    equals "$(jq .damaged "$T/verify.json") $(jq .notices "$T/verify.json")" "$damaged $notices" "damaged, notices"
}
told() { jq -r '.problems[] | "\(.file): \(.what)"' "$T/verify.json" | grep -qF "$1" || fail "verify does not say: $1"; }
flip() { python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1); f.seek(int(sys.argv[2])); f.write(bytes([b[0] ^ 0x55]))' "$1" "$2"; }

verify 0 0 0
echo x >"$T/store/nodes/README"
echo x >"$T/store/containers/README"
echo x >"$(find "$T/store/containers" -name '0000.vc' -printf '%h\n' | head -n 1)/copy of 0000.vc"
verify 0 0 3
told "nodes/README: "
told "copy of 0000.vc: "
rebuild
grep -q "containers/README" "$T/rebuild.out" || fail "rebuild does not tell of containers/README"
start_varve
grep -q "nodes/README" "$T/daemon.log" || fail "the mount does not tell of nodes/README"
same "$T/a" "$MNT/vm/disk.img"
same "$T/a" "$(newest "$MNT/vm/disk.img")"
stop_varve
rm "$T/store/nodes/README" "$T/store/containers/README" "$T"/store/containers/*/copy*

index=$(find "$T/store/index" -name 'base-*' -size +4k | head -n 1)
flip "$index" 5000
verify 0 0 1 --quick
told "; varve rebuild --index mends it"
rebuild --index
verify 0 0 0

owner=$(find "$T/store/owners" -type f | head -n 1)
flip "$owner" 50
verify 20 1 0 --quick
told "nothing of this VM can be published"
flip "$owner" 50
flip "$T/store/generations/0000000000000001/deletions" 40
verify 20 1 0 --quick
told "no host can publish anything"
flip "$T/store/generations/0000000000000001/deletions" 40
verify 0 0 0
