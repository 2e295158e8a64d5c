#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The unit under a real systemd: it is started when the mount is usable, shows the backlog, is started anew when the daemon no longer answers
# or is killed, with a mount that works; a stop waits for what is pending, one with files open ends all the same; a start that fails leaves
# the mounts of others.
set -eu
. "$(dirname "$0")/lib.sh"
need unshare nsenter systemctl journalctl pgrep
[ -x /usr/lib/systemd/systemd ] || skip "systemd is not installed"
if grep -qaE '__asan_init|__tsan_init' "$VARVE"; then skip "the unit's limits (MemoryDenyWriteExecute=) and sanitizers do not go together"; fi
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$groups" ] || skip "systemd needs a cgroup2 hierarchy, and none is mounted"
group=$groups/varve-$(basename "$T")
mkdir "$group" 2>/dev/null || skip "no group for systemd can be made in $groups"
unit=varve@srv-varve

# ---- systemd ----

inside() {
    timeout -k 5 "$CASE_TIMEOUT" nsenter -t "$SYSTEMD" -m -p -i -u --root env -C / -u TMPDIR SYSTEMD_UNIT_PATH=/etc/varve-units "$@"
}
does() { inside "$@" || fail "exit $? of: $*"; }
write() { inside sh -c "mkdir -p \"\$(dirname '$1')\"; cat >'$1'"; }
# shellcheck disable=SC2317  # at_end
end_systemd() {
    kill -9 "$SYSTEMD"          # and with it all that it has started
    for _ in $(seq 50); do rmdir "$group" 2>/dev/null && break; sleep 0.1; find "$group" -mindepth 1 -depth -type d -exec rmdir {} +; done
}
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --pid --cgroup --ipc --uts --fork --kill-child --propagation private bash "$(dirname "$0")/systemd_root.sh" "$T"
) >"$T/systemd.log" 2>&1 </dev/null &
above=$!
begun() { ! kill -0 "$above" 2>/dev/null || SYSTEMD=$(pgrep -P "$above"); }
eventually 20 begun
kill -0 "$above" 2>/dev/null || skip "systemd cannot be started here: $(tail -n 1 "$T/systemd.log")"
at_end end_systemd
up() { inside systemctl is-active default.target >/dev/null 2>&1; }
for _ in $(seq 100); do up && break; kill -0 "$SYSTEMD" 2>/dev/null || break; sleep 0.1; done
up || skip "systemd does not come up here: $(tail -n 1 "$T/systemd.log")"

# ---- the unit ----

state_of() { inside systemctl show -P "$1" $unit; }
is() { [ "$(state_of ActiveState)" = "$1" ]; }
status_says() { state_of StatusText | grep -qE "$1"; }
logged() { inside journalctl -u $unit --no-pager -o cat -p "$1" | grep -qF -- "$2"; }
inside_same() { inside cmp "$1" "$2" || fail "$1 and $2 differ"; }
# The unit is ready with another daemon than PID, at one moment.
anew() {
    local now
    now=$(inside systemctl show -p ActiveState -p MainPID $unit)
    grep -qx ActiveState=active <<<"$now" && ! grep -qxE "MainPID=(0|$1)" <<<"$now"
}

does varve init /srv/varve 2>/dev/null
write /etc/varve-units/$unit.service.d/quick.conf <<<$'[Service]\nWatchdogSec=3\nRestartSec=100ms'
write /etc/varve/srv-varve.env <<<$'VARVE_FAULT=agent.finish.before_pointers:1=pause\nVARVE_FAULT_PAUSE=/srv/pause'
inside systemctl daemon-reload
inside touch /srv/pause
base64 -w 99 /dev/urandom | head -c 3000000 | write /srv/a

# Ready is usable: the first access after the start works. The journal has the priorities of the daemon's lines.
does systemctl start $unit
does cp /srv/a /snapshots/a.img
eventually 20 logged info "frozen, snapshot 1"
if logged warning "frozen, snapshot 1"; then fail "an event has the priority of a warning"; fi

# The backlog is shown; a stop waits for it.
eventually 20 status_says '^to be stored: snapshots of 1 disk;'
does systemctl stop --no-block $unit
for _ in 1 2 3 4 5; do
    is deactivating || fail "the stop did not wait: $(state_of ActiveState)"
    inside grep -q ' /snapshots fuse.varve' /proc/mounts || fail "unmounted with a snapshot that is not stored"
    sleep 0.2
done
inside rm /srv/pause /etc/varve/srv-varve.env
eventually 20 is inactive
logged info "stored, snapshot 1" || fail "stopped without storing the snapshot"
equals "$(state_of Result)" success

# A daemon that no longer answers, and one that is killed: the mount works again, with what was written.
does systemctl start $unit
eventually 20 status_says '^everything is stored$'
for sig in STOP KILL; do
    pid=$(state_of MainPID)
    inside dd if=/srv/a of=/snapshots/$sig.img bs=1M status=none
    inside kill -$sig "$pid"
    eventually 20 anew "$pid"
    inside_same /srv/a /snapshots/$sig.img
    equals "$(inside grep -c ' /snapshots ' /proc/mounts)" 1 "mounts"
done
equals "$(state_of NRestarts)" 2
logged err "died of SIGABRT: given up, sent by process 1" || fail "not killed by the watchdog"

# With a file open it is said who is to close it, and stopped; the next start works.
inside sh -c 'exec 5</snapshots/a.img; sleep 15' &
holds() { inside fuser -s -m /snapshots; }
eventually 20 holds
inside systemctl stop $unit || true
is failed || fail "with a file open: $(state_of ActiveState)"
logged err "/snapshots: in use: close what is open in it" || fail "not said that a file is open"
equals "$(inside grep -c ' /snapshots ' /proc/mounts || true)" 0 "mounts"
inside systemctl reset-failed $unit

# Starts that fail: of the same store, which a user has mounted; of a store that is not there, where something else is mounted; a wrong
# line in varve.conf, which is not tried again.
starts_not() { if inside systemctl start $unit 2>/dev/null; then fail "started"; fi; }
does varve mount /srv/varve /snapshots
starts_not
inside systemctl stop $unit
inside_same /srv/a /snapshots/a.img
logged err "a varve is mounted there already" || fail "not said why it does not start"
does varve umount /snapshots
inside mount -t tmpfs other /snapshots
inside touch /snapshots/mine
inside mv /srv/varve /srv/elsewhere
starts_not
inside systemctl stop $unit
inside test -e /snapshots/mine || fail "the mount of another one is gone"
inside umount /snapshots
inside mv /srv/elsewhere /srv/varve
write /etc/varve/varve.conf <<<$'[mount]\nmemory = much'
starts_not
is failed || fail "a wrong varve.conf is tried again"
inside rm /etc/varve/varve.conf

# Somebody unmounts by hand: that is no failure, and not mounted again.
inside systemctl reset-failed $unit
does systemctl start $unit
does varve umount /snapshots
eventually 20 is inactive
equals "$(state_of NRestarts)" 0
