#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# As a service of Type=notify the daemon says READY when the mount is usable, then its backlog and the watchdog's food, then STOPPING; the
# unit stops by `varve umount`, a start that fails touches no mount that works, and systemd-analyze has nothing to say about the unit.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
cat >"$T/listen.py" <<'P'
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
with open(sys.argv[2], "w", buffering=1) as log:
    while True:
        log.write(s.recv(4096).decode() + "\n")
P
python3 "$T/listen.py" "$T/notify" "$T/said" &
eventually 20 test -S "$T/notify"
chmod 755 "$T"
export NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=300000
start_varve
unset NOTIFY_SOCKET WATCHDOG_USEC
eventually 20 grep -q '^READY=1$' "$T/said"
fed() { [ "$(grep -c '^WATCHDOG=1$' "$T/said")" -ge 5 ]; }
eventually 30 fed
equals "$(grep -E '^(READY|WATCHDOG)=' "$T/said" | head -n 1)" READY=1
grep -q '^STATUS=everything is stored$' "$T/said" || fail "no status: $(cat "$T/said")"

# A start that fails leaves the mount that is there as it is, and so does what the unit runs after it.
code=0
"$VARVE" mount -f "$T/store" "$MNT" -o state="$T/other" >"$T/out" 2>&1 || code=$?
equals "$code" 11 "a second mount: $(cat "$T/out")"
run "$VARVE" umount --dead "$MNT"
is_usable || fail "the mount is gone"
run "$VARVE" umount "$MNT"
wait_daemon
equals "$DAEMON_STATUS" 0
eventually 20 grep -q '^STOPPING=1$' "$T/said"

# The unit.
unit=$(dirname "$0")/../../mount-helpers/varve@.service
sed "s|@bindir@/varve|$VARVE|" "$unit" >"$T/varve@.service"
if grep -E '^Exec.*umount' "$T/varve@.service" | grep -vF "$VARVE umount"; then fail "unmounts by other means"; fi
if command -v systemd-analyze >/dev/null; then
    cp "$T/varve@.service" "$T/varve@srv-varve.service"
    systemd-analyze verify --man=no --recursive-errors=no "$T/varve@srv-varve.service" >"$T/out" 2>&1 || fail "systemd-analyze: $(cat "$T/out")"
    if grep -F varve "$T/out"; then fail "systemd-analyze says this"; fi
    # What the daemon could reach if it were taken over: 4.2 of 10.
    systemd-analyze security --offline=yes --threshold=42 "$T/varve@srv-varve.service" >"$T/out" 2>&1 ||
        fail "the unit is more exposed than before: $(tail -n 1 "$T/out")"
fi
