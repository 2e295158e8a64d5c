#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rename onto a disk while programs have the source or the target open: a reader of the source goes on with the target, as on any
# filesystem; a reader of the target sees the new content, or nothing if its rights are others; a writer of either is EBUSY.
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
    if [ "$source" = "$new" ]; then must_fail "busy" cp "$T/a" "$source"; fi
    end_reader
    run "$VARVE" wait "$MNT"
    eventually 20 images_are 1
    [ "$source" != "$new" ] || same "$T/b" "$(newest "$source")"
    eventually 5 cp "$T/a" "$source"        # the name can be made again
    same "$T/a" "$source"
    run rm "$source"
done

# A descriptor of the source is one of the target: what is written to that, by whatever way, and what is set by either.
held() {    # SOURCE TARGET...: renamed onto one target after the other
    run timeout 60 python3 - "$VARVE" "$@" <<'P'
import mmap, os, subprocess, sys
varve, source, targets = sys.argv[1], sys.argv[2], sys.argv[3:]
MB = 1 << 20
fd = os.open(source, os.O_RDONLY)
pages = mmap.mmap(fd, 3 * MB, prot=mmap.PROT_READ)
assert len(pages[:]) == 3 * MB          # all of it is in the kernel's cache
for target in targets:
    os.rename(source, target)
    source = target
id = os.getxattr(target, "user.varve.id")

def equal(what):
    with open(target, "rb") as f:
        now = f.read()
    assert os.pread(fd, 10 * MB, 0) == now, what
    assert pages[:] == now[:3 * MB], what + ", mapped"
    a, b = os.fstat(fd), os.stat(target)
    for x in ("st_ino", "st_size", "st_mode", "st_uid", "st_mtime_ns", "st_nlink"):
        assert getattr(a, x) == getattr(b, x), (what, x, a, b)
    assert os.getxattr(fd, "user.varve.id") == id

equal("renamed")
for how, flags in (("cached", os.O_RDWR), ("write-only", os.O_WRONLY), ("direct", os.O_RDWR | os.O_DIRECT)):
    w = os.open(target, flags)
    piece = mmap.mmap(-1, 8192)
    for i in range(20):
        piece.write(os.urandom(8192))
        piece.seek(0)
        os.pwrite(w, piece, i * 131072)
        assert os.pread(fd, 8192, i * 131072) == piece[:], (how, i)
    os.close(w)
    equal(how)
w = os.open(target, os.O_RDWR)
subprocess.run(["fallocate", "-p", "-o", "1M", "-l", "500000", target], check=True)
equal("punched")
os.copy_file_range(w, w, MB, 0, 2 * MB)
equal("copied")
os.ftruncate(w, 4 * MB)
equal("shorter")
os.ftruncate(w, 6 * MB)
equal("longer")
os.close(w)
os.utime(fd, ns=(10**18, 10**18))
os.fchmod(fd, 0o640)
os.fchown(fd, 7, 8)
equal("attributes")
assert os.stat(target).st_mtime_ns == 10**18 and os.stat(target).st_mode & 0o777 == 0o640 and os.stat(target).st_gid == 8
subprocess.run([varve, "snapshot", "--label", "here", target], check=True, stdout=subprocess.DEVNULL)
with open(target, "r+b") as f:
    f.write(os.urandom(5 * MB))
equal("overwritten")
subprocess.run([varve, "revert", target.replace(".img", "@here.img")], check=True, stdout=subprocess.DEVNULL)
equal("reverted")
want = os.pread(fd, 10 * MB, 0)
os.unlink(target)
assert os.pread(fd, 10 * MB, 0) == want and os.fstat(fd).st_nlink == 0
P
}
for source in "$new" "$vm/.new.img"; do
    for targets in "$vm/one.img" "$vm/one.img $vm/two.img"; do
        run cp "$T/b" "$source"
        for t in $targets; do run cp "$T/a" "$t"; done
        # shellcheck disable=SC2086  # one or two
        held "$source" $targets
        [ "$source" != "$new" ] || same "$T/b" "$(newest "$source")"
        for t in "$source" $targets; do
            [ ! -e "$t" ] || fail "$t is there"
            for s in $(snaps "$t"); do run rm "$s"; done
        done
    done
done
run "$VARVE" wait "$MNT"
eventually 20 images_are 1

# A reader of the target goes on with the new content, as ever.
run cp "$T/a" "$new"
exec 3<"$disk"
run mv "$new" "$disk"
cmp - "$T/a" <&3 || fail "the reader of the target"
exec 3<&-

# With another owner or mode it is another file to him: what he may not open he does not go on to read.
run cp "$T/a" "$disk"
run cp "$T/b" "$new"
chmod 600 "$new"
chmod 711 "$T"
printf x >"$vm/mine.img"
chmod 666 "$vm/mine.img"
run timeout 60 python3 - "$disk" "$new" "$vm/mine.img" "$T/a" <<'P'
import errno, os, sys
disk, new, mine, content = sys.argv[1:]
old = open(content, "rb").read()
to_child, to_parent = os.pipe(), os.pipe()
if os.fork() == 0:
    try:
        os.setuid(65534)
        fds = [os.open(disk, os.O_RDONLY) for _ in range(2)]
        out = os.open(mine, os.O_RDWR)
        assert os.pread(fds[0], 1 << 20, 0) == old[:1 << 20]
        os.write(to_parent[1], b".")
        os.read(to_child[0], 1)
        def refused(f, *args):
            try:
                got = f(*args)
            except OSError as e:
                assert e.errno in (errno.ESTALE, errno.EIO), e
            else:
                raise SystemExit("%s: %s" % (f, len(got) if isinstance(got, bytes) else got))
        for fd in fds:
            refused(os.pread, fd, 1 << 20, 2 << 20)
            refused(os.lseek, fd, 0, os.SEEK_DATA)
            refused(os.copy_file_range, fd, out, 4 << 20, 0, 0)
        assert os.fstat(out).st_size == 1
        try:
            os.open(disk, os.O_RDONLY)
        except PermissionError:
            os._exit(0)
        raise SystemExit("opened")
    except BaseException as e:
        print(repr(e), file=sys.stderr, flush=True)
        os._exit(1)
os.close(to_parent[1])
assert os.read(to_parent[0], 1)
root = os.open(disk, os.O_RDONLY)
os.rename(new, disk)
os.write(to_child[1], b".")
assert os.wait()[1] == 0
with open(disk, "rb") as f:
    assert f.read() != old
P
same "$T/b" "$disk"
run rm "$vm/mine.img"

# A writer of either is told before anything changes.
run cp "$T/b" "$new"
exec 3<>"$new"
must_fail "busy" mv -T "$new" "$disk"
exec 3<&-
exec 3<>"$disk"
must_fail "busy" mv -T "$new" "$disk"
exec 3<&-
same "$T/b" "$disk"
same "$T/b" "$new"

# The same of a disk that is removed.
run cp "$T/a" "$vm/gone.img"
reader "$vm/gone.img" "$T/a"
run rm "$vm/gone.img"
run "$VARVE" wait "$MNT"
run "$VARVE" status "$MNT" >"$T/status"
if grep FAILED "$T/status"; then fail "an image that somebody reads is called a failure"; fi
end_reader
eventually 20 images_are 2

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
