#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rename onto a disk while programs have the source or the target open: readers go on, as on a file that was removed; a writer is EBUSY.
# Samba renames through a descriptor that it holds; `tail -f` holds one while logs rotate.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

vm=$MNT/vm
disk=$vm/disk.img new=$vm/new.img
images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.*' | wc -l; }
images_are() { [ "$(images)" = "$1" ]; }
random_file "$T/a" 5000000
random_file "$T/b" 5000000
random_file "$T/c" 5000000

# Reads what no cache can have, again and again, until it is told to end: $1 = DISK, $2 = its content.
reader() {
    rm -f "$T/opened" "$T/end"
    python3 - "$1" "$2" "$T" <<'P' &
import os, sys
name, want, top = sys.argv[1], open(sys.argv[2], "rb").read(), sys.argv[3]
fd = os.open(name, os.O_RDONLY)
size = os.fstat(fd).st_size
assert size == len(want)
open(top + "/opened", "w").close()
last = False
while not last:
    last = os.path.exists(top + "/end")
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for off in range(0, size, 1 << 20):
        assert os.pread(fd, 1 << 20, off) == want[off:off + (1 << 20)], off
    for _ in range(1000):           # at no moment is it unknown what the descriptor is
        assert os.fstat(fd).st_size == size
P
    READER=$!
    eventually 10 test -e "$T/opened"
}
end_reader() { touch "$T/end"; wait "$READER" || fail "the reader saw something else"; }

start_varve
run mkdir "$vm"
for source in "$new" "$vm/.new.img"; do     # with a history; without
    run cp "$T/a" "$disk"
    run cp "$T/b" "$source"
    reader "$source" "$T/b"
    run mv "$source" "$disk"
    same "$T/b" "$disk"
    [ ! -e "$source" ] || fail "the source is still there"
    dd if="$T/c" of="$disk" bs=100k conv=notrunc status=none     # in place: the reader must not see any of it
    same "$T/c" "$disk"
    if [ "$source" = "$new" ]; then must_fail "busy" cp "$T/a" "$source"; fi
    end_reader
    run "$VARVE" wait "$MNT"
    eventually 20 images_are 1
    [ "$source" != "$new" ] || same "$T/b" "$(newest "$source")"
    eventually 5 cp "$T/a" "$source"        # the name can be made again
    same "$T/a" "$source"
    run rm "$source"
done

# A reader of the target goes on with the new content, as ever.
run cp "$T/a" "$new"
exec 3<"$disk"
run mv "$new" "$disk"
cmp - "$T/a" <&3 || fail "the reader of the target"
exec 3<&-

# A writer of either is told before anything changes.
run cp "$T/b" "$new"
exec 3<>"$new"
must_fail "busy" mv -T "$new" "$disk"
exec 3<&-
exec 3<>"$disk"
must_fail "busy" mv -T "$new" "$disk"
exec 3<&-
same "$T/a" "$disk"
same "$T/b" "$new"

# The same of a disk that is removed.
run cp "$T/a" "$vm/gone.img"
reader "$vm/gone.img" "$T/a"
run rm "$vm/gone.img"
end_reader

# Killed while somebody reads.
reader "$new" "$T/b"
run mv "$new" "$disk"
kill -9 "$READER"
wait "$READER" 2>/dev/null || true
kill_varve
start_varve
same "$T/b" "$disk"
[ ! -e "$new" ] || fail "the source is back"
run "$VARVE" wait "$MNT"
eventually 20 images_are 1
same "$T/b" "$(newest "$new")"
stop_varve
run "$VARVE" verify "$T/store"
