#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon begins threads without a line in the kernel's audit log: libc tries clone3, which is refused, and then takes clone.
set -eu
. "$(dirname "$0")/lib.sh"
need python3 dmesg

dmesg >/dev/null 2>&1 || skip "the kernel's log cannot be read"
lines_of() { dmesg | grep -c "type=1326 .* pid=$1 " || true; }
python3 "$(dirname "$0")/refused_call.py" >"$T/pid"
sleep 0.5
[ "$(lines_of "$(cat "$T/pid")")" -gt 0 ] || skip "refused calls leave no line in the log of this kernel"

export VARVE_SANDBOX=errno      # as users run it: what is refused fails, and ends no test
start_varve
run cp /bin/ls "$MNT/disk"
run "$VARVE" wait "$MNT"
pid=$(daemon_of "$T/state")
threads=$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)
[ "$threads" -gt 3 ] || fail "$threads threads"
sleep 0.5
equals "$(lines_of "$pid")" 0 "lines in the audit log"
stop_varve
