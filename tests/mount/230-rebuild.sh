#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Index and catalog deleted: everything is there again, names, owners, modes, labels and notes too; deduplication as well.
set -eu
. "$(dirname "$0")/lib.sh"
need jq getfattr
start_varve
run mkdir -m 750 "$MNT/vm" "$MNT/vm/sub"
random_file "$T/a" 6000000
cp "$T/a" "$T/b"; printf changed | dd of="$T/b" bs=1 seek=3000000 conv=notrunc status=none
run cp "$T/a" "$MNT/vm/disk.img"; sleep 1.1
run cp "$T/b" "$MNT/vm/disk.img"
run "$VARVE" snapshot --label keep --note "before the upgrade" "$MNT/vm/disk.img" >/dev/null
run cp "$T/a" "$MNT/vm/sub/other.img"
chown 1234:4321 "$MNT/vm/disk.img"; chmod 600 "$MNT/vm/disk.img"
run "$VARVE" wait "$MNT"
setfattr -n user.varve.protected -v 1 "$MNT/vm/disk@keep.img"
manifest() {
    (cd "$MNT" && find . -mindepth 1 -type d -printf '%p %m %U %G\n' | sort; find . -type f -printf '%p %m %U %G %s %T@\n' | sort
     find . -type f | sort | xargs sha256sum
     find . -name '*@*' | sort | while read -r f; do
         for a in state flags id parent host note protected; do getfattr -n "user.varve.$a" "$f" 2>/dev/null || echo "$f has no $a"; done
     done)
}
manifest >"$T/before"
stop_varve

rm -rf "$T"/store/index/* "$T"/state/catalog.sqlite*
run "$VARVE" rebuild --state "$T/state" "$T/store"
start_varve
manifest >"$T/after"
diff "$T/before" "$T/after" || fail "the rebuilt tree differs"
stored() { jq .totals.stored_bytes "$MNT/.varve/status.json"; }
entries=$(jq .index.entries "$MNT/.varve/status.json")
[ "$entries" -gt 1000 ] || fail "the index has $entries entries after rebuild"
before=$(stored)
run mkdir "$MNT/third"; run cp "$T/b" "$MNT/third/disk.img"; run "$VARVE" wait "$MNT"
[ $(($(stored) - before)) -lt 100000 ] || fail "known data were stored again: $(($(stored) - before)) bytes"
same "$T/b" "$MNT/third/disk.img"
stop_varve

# The catalog alone, without any command: the mount makes it anew.
rm -f "$T"/state/catalog.sqlite*
start_varve
(cd "$MNT" && rm -rf third) 2>/dev/null || true
same "$T/b" "$MNT/vm/disk@keep.img"
stop_varve
