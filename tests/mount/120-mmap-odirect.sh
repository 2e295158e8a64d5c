#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shared mappings, O_DIRECT, O_APPEND, fsync, many writers at once, and reading what was just written.
set -eu
. "$(dirname "$0")/lib.sh"
need python3

start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/a" 8388608
run cp "$T/a" "$disk"
before=$(snap_count "$disk")
run python3 - "$disk" "$T/a" <<'P'
import mmap, os, sys
disk, ref = sys.argv[1:3]
want = bytearray(open(ref, "rb").read())

# O_DIRECT, aligned, and read back through the cache.
fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 65536)
buf.write(b"\x5a" * 65536)
assert os.pwritev(fd, [buf], 1 << 20) == 65536
want[1 << 20:(1 << 20) + 65536] = b"\x5a" * 65536
back = mmap.mmap(-1, 65536)
assert os.preadv(fd, [back], 1 << 20) == 65536 and back[:] == buf[:]
os.close(fd)
assert open(disk, "rb").read() == want

# A shared mapping, written after its descriptor is closed.
fd = os.open(disk, os.O_RDWR)
m = mmap.mmap(fd, len(want))
m[4096:4106] = b"0123456789"
m.flush()
os.close(fd)
m[5 << 20:(5 << 20) + 5] = b"after"
m.close()
want[4096:4106] = b"0123456789"
want[5 << 20:(5 << 20) + 5] = b"after"
assert open(disk, "rb").read() == want

# Append, past the end, fsync, fdatasync.
fd = os.open(disk, os.O_WRONLY | os.O_APPEND)
os.write(fd, b"tail")
os.fsync(fd)
os.close(fd)
fd = os.open(disk, os.O_RDWR)
os.pwrite(fd, b"far", len(want) + 10000)
os.fdatasync(fd)
os.close(fd)
want += b"tail" + bytes(9996) + b"far"
got = open(disk, "rb").read()
assert got == want, (len(got), len(want))
open(ref, "wb").write(want)
P
same "$T/a" "$disk"
[ "$(snap_count "$disk")" -gt "$before" ] || fail "no snapshot of all that"
eventually 10 cmp -s "$T/a" "$(newest "$disk")"

# A write-only handle writes past the page cache; who has pages of the file, or a mapping, sees what it wrote.
run python3 - "$disk" "$T/a" <<'P'
import mmap, os, sys
disk, ref = sys.argv[1:3]
want = bytearray(open(ref, "rb").read())
reader = os.open(disk, os.O_RDWR)
view = mmap.mmap(reader, len(want))
assert os.pread(reader, len(want), 0) == want and view[:] == want
writer = os.open(disk, os.O_WRONLY)
for off, size in (0, 700), (5000, 1), (300000, 3 << 20), (len(want) - 10, 10), (1 << 20, 4096):
    data = os.urandom(size)
    view[off:off + 1] = view[off:off + 1]       # its page is there
    os.pwrite(writer, data, off)
    want[off:off + size] = data
    assert view[off:off + size] == data and os.pread(reader, size, off) == data
# And the other way round: what the mapping wrote is not undone by a write beside it in the same page.
view[9000:9004] = b"page"
view.flush()
os.pwrite(writer, b"beside", 9010)
want[9000:9004] = b"page"
want[9010:9016] = b"beside"
assert view[:] == want and os.pread(reader, len(want), 0) == want
for fd in writer, reader:
    os.close(fd)
view.close()
assert open(disk, "rb").read() == want
open(ref, "wb").write(want)
P
same "$T/a" "$disk"

# Four writers in one file, each with its own part, while others read and list.
truncate -s 16M "$T/four"
run cp "$T/four" "$MNT/vm/four.img"
run python3 - "$MNT/vm/four.img" "$T/four" <<'P'
import os, random, sys
disk, ref = sys.argv[1:3]
seed = int(os.environ.get("VARVE_SEED", random.randrange(1 << 30)))
print("VARVE_SEED=%d" % seed)
kids = []
for part in range(4):
    pid = os.fork()
    if pid == 0:
        rnd = random.Random(seed + part)
        a, b = os.open(disk, os.O_RDWR), os.open(ref, os.O_RDWR)
        for i in range(300):
            off = (part << 22) + rnd.randrange((1 << 22) - 20000)
            data = rnd.randbytes(rnd.randrange(1, 20000))
            os.pwrite(a, data, off)
            os.pwrite(b, data, off)
            if i % 50 == 0:
                os.fsync(a)
            if i % 10 == 0:
                assert os.pread(a, len(data), off) == data
                os.listdir(os.path.dirname(disk))
        os.close(a)
        os._exit(0)
    kids.append(pid)
for pid in kids:
    assert os.waitpid(pid, 0)[1] == 0
P
same "$T/four" "$MNT/vm/four.img"
eventually 10 cmp -s "$T/four" "$(newest "$MNT/vm/four.img")"
drop_pages "$MNT/vm/four.img"
same "$T/four" "$MNT/vm/four.img"
run "$VARVE" wait "$MNT"
same "$T/four" "$(newest "$MNT/vm/four.img")"
equals "$(cat "/sys/class/bdi/$(awk -v m="$MNT" '$5 == m { print $3 }' /proc/self/mountinfo)/read_ahead_kb")" 2048
stop_varve
