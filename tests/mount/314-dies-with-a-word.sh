#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon that dies of a bug says of which, and where, on stderr and in STATE/crash.txt, from any thread; the next start goes on.
# Under ASan it is that one who says it, on stderr only.
set -eu
. "$(dirname "$0")/lib.sh"
if grep -qa __asan_init "$VARVE"; then says="AddressSanitizer.*SEGV" signals=SEGV; else says="^FATAL varve .* died of SIG" signals="SEGV ABRT BUS"; fi
start_varve
random_file "$T/a" 300000
run cp "$T/a" "$MNT/a.img"
run "$VARVE" wait "$MNT/a.img"
for sig in $signals; do
    kill -"$sig" "$DAEMON"
    killed_at "its end by $sig"
    tail -n "+$LOG_FROM" "$T/daemon.log" | grep -q "$says" || fail "nothing about SIG$sig on stderr"
    if [ "$signals" != SEGV ]; then
        tail -n 40 "$T/state/crash.txt" | grep -q "${says}$sig" || fail "nothing about SIG$sig in STATE"
        equals "$(stat -c %a "$T/state/crash.txt")" 600
    fi
    LOG_FROM=$(($(wc -l <"$T/daemon.log") + 1))
    start_varve
    same "$T/a" "$MNT/a.img"
done
# Frames: of the program itself, and of each report.
[ "$signals" = SEGV ] || [ "$(grep -c 'varve(+0x' "$T/state/crash.txt")" -ge 6 ] || fail "no frames of the program in $(cat "$T/state/crash.txt")"
# Threads that serve answer no signal, but do not hide their own faults: SEGV (bit 10) is open, TERM (bit 14) is not, in some.
some=
for f in /proc/"$DAEMON"/task/*/status; do
    mask=$((0x$(sed -n 's/^SigBlk:\t//p' "$f") & 0x7fffffff))
    [ $((mask >> 10 & 1)) = 0 ] || fail "$f blocks SIGSEGV"
    [ $((mask >> 14 & 1)) = 0 ] || some=1
done
[ -n "$some" ] || fail "no thread has SIGTERM blocked"
stop_varve
