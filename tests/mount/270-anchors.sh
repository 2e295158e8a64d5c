#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whatever a live image relies on has its recipe in STORE's anchors/, linked before any pointer changes, whether or not the
# snapshot itself is still there; and an anchor that nobody needs any more goes.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors

# anchors DISKID: recipes linked for a disk.
anchors() { ls "$T/store/anchors/$1" 2>/dev/null || true; }
# The recipe's file name of a snapshot that is still there.
recipe() { (cd "$T/store/snapshots" && ls ./*/*"$(xattr "$1" id)".rcp) | sed 's,.*/,,'; }
# Each anchor that a journal lists is linked, and nothing else is.
check_anchors() {
    python3 - "$T" "$VARVE" <<'P' || fail "$1"
import glob, json, os, subprocess, sys
root, varve = sys.argv[1:3]
listed = set()
for journal in glob.glob(root + "/state/disks/*/journal"):
    disk = journal.split("/")[-2]
    text = json.loads(subprocess.run([varve, "dump", "--json", journal], check=True, capture_output=True).stdout)
    last = next(v for v in text.values() if isinstance(v, list))[-1]
    for a in last["anchors"]:
        listed.add("%s/%016x-%s.rcp" % (disk, a["seq"], a["snap"]))
linked = {"/".join(p.split("/")[-2:]) for p in glob.glob(root + "/store/anchors/*/*.rcp")}
bad = [p + " is not anchored" for p in listed - linked] + [p + " is anchored for nobody" for p in linked - listed]
print("%d listed, %d linked" % (len(listed), len(linked)), *bad, sep="\n", file=sys.stderr)
sys.exit(len(bad) > 0)
P
}
# clone FROM TO: by pointers; TO stays open, and so without a snapshot of its own, until `closed` is called.
clone() {
    rm -f "$T/cloned" "$T/close"
    python3 - "$@" "$T/cloned" "$T/close" <<'P' &
import os, sys, time
src = os.open(sys.argv[1], os.O_RDONLY)
dst = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT, 0o640)
left = os.fstat(src).st_size
while left:
    left -= os.copy_file_range(src, dst, left)
os.close(src)
open(sys.argv[3], "w").close()
while not os.path.exists(sys.argv[4]):
    time.sleep(0.05)
os.close(dst)
P
    cloning=$!
    eventually 20 test -e "$T/cloned"
}
closed() { touch "$T/close"; wait "$cloning"; }

start_varve
run mkdir "$MNT/vm" "$MNT/vm2"
disk=$MNT/vm/disk.img
for f in a b c d; do random_file "$T/$f" 5000000; done
for f in a b; do
    run cp "$T/$f" "$disk"
    run "$VARVE" wait "$disk"
    check_anchors "after a backup"
done
first=$(snaps "$disk" | head -1) second=$(newest "$disk")
id=$(xattr "$disk" id)

# Roll back to the older one, and remove it.
rcp=$(recipe "$first")
run "$VARVE" revert "$first"
case $(anchors "$id") in *"$rcp"*) ;; *) fail "$rcp is not anchored: the live image relies on it";; esac
check_anchors "after a revert"
run rm "$first"
case $(anchors "$id") in *"$rcp"*) ;; *) fail "$rcp is not anchored any more: its snapshot was removed";; esac
same "$T/a" "$disk"

# Clone the newer one by pointers, and remove it too.
rcp=$(recipe "$second")
clone "$second" "$MNT/vm2/clone.img"
case $(anchors "$(xattr "$MNT/vm2/clone.img" id)") in *"$rcp"*) ;; *) fail "$rcp is not anchored: the clone relies on it";; esac
check_anchors "after a clone"
run rm "$second"
closed
same "$T/b" "$MNT/vm2/clone.img"
run "$VARVE" wait "$MNT"
check_anchors "after backups of both"

# A kill in the middle of a revert: the anchor was there before the pointers.
for f in c d; do run cp "$T/$f" "$disk"; run "$VARVE" wait "$disk"; done
older=$(snaps "$disk" | while read -r s; do cmp -s "$T/c" "$s" && echo "$s"; done | tail -1)
rcp=$(recipe "$older")
case $(anchors "$id") in *"$rcp"*) fail "$rcp is anchored already: the test shows nothing";; esac
stop_varve
VARVE_FAULT=live.revert.before_record:1=kill start_varve
if "$VARVE" revert "$older" 2>/dev/null; then skip "this build has no fault points"; fi
wait "$DAEMON" || true
DAEMON=
run umount -l "$MNT"
case $(anchors "$id") in *"$rcp"*) ;; *) fail "$rcp was not anchored before the pointers changed";; esac
start_varve
same "$T/d" "$disk"
run "$VARVE" revert "$older"
same "$T/c" "$disk"
run "$VARVE" wait "$MNT"
check_anchors "after a kill in a revert"

# With the disk and its snapshots go its anchors.
run rm "$MNT/vm2/clone.img"
for s in $(snaps "$MNT/vm2/clone.img"); do run rm "$s"; done
check_anchors "after the clone was removed"
stop_varve
run "$VARVE" verify "$T/store"
