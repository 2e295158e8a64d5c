#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A process that has written to a disk runs another program, and so the kernel closes the copy of the descriptor (close-on-exec)
# in the middle of the exec: nobody hangs.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve
# A hang of this kind stands no signal: the daemon is what can be ended.
(sleep 30; kill -9 "$DAEMON" 2>/dev/null) &
guard=$!
run python3 - "$MNT/disk.img" <<'P'
import os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)    # close-on-exec, as Python makes all
for i in range(20):
    os.pwrite(fd, b"x" * 5000, i * 3000000)
    subprocess.run(["/bin/true"], check=True, close_fds=False)
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/true", ["true"])
    assert os.waitpid(pid, 0)[1] == 0
os.close(fd)
P
kill "$guard"
wait "$guard" 2>/dev/null || true
kill -0 "$DAEMON" || fail "the daemon did not answer within 30 s"
eventually 10 flags_clear "$MNT/disk.img"
stop_varve
