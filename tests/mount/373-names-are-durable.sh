#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a create and an unlink make durable before they return, in the order in which the daemon's system calls say so, and for how many
# fsyncs they wait. (A loss of power on one filesystem cannot tell: an fsync in STORE takes along what was done in STATE before.)
set -eu
. "$(dirname "$0")/lib.sh"
need strace python3
made_ahead() { [ -n "$(find "$T/state/disks" -name ".ready-*")" ]; }

start_varve
mkdir "$MNT/vm"
strace -f -y -qq -e trace=fsync,fdatasync,renameat,linkat,unlinkat,openat -o "$T/trace" -p "$(daemon_of "$T/state")" 2>/dev/null &
tracer=$!
eventually 10 grep -q '^TracerPid:.*[1-9]' "/proc/$(daemon_of "$T/state")/status"
for i in 1 2 3 4 5 6; do
    : >"$MNT/vm/$i.img"
    sleep 0.3           # meanwhile images are made ahead
done
for i in 1 2 3 4 5 6; do run rm "$MNT/vm/$i.img"; done
sleep 0.3
kill "$tracer"
wait "$tracer" || true
run python3 "$(dirname "$0")/durable_names.py" "$T/trace" "$T" || fail "not in the right order, see above"
made_ahead || fail "no image is made ahead"
stop_varve
[ -z "$(ls -A "$T/state/disks")" ] || fail "images stay: $(ls -A "$T/state/disks")"

# Images that were made ahead when the daemon was killed: the next start removes them, and a disk whose rename was lost is found again.
start_varve
mkdir "$MNT/vm2"
: >"$MNT/vm2/a"
echo text >"$MNT/vm2/.b"
eventually 10 made_ahead
kill_varve
for disk in "$T"/state/disks/[0-9a-f]*; do mv "$disk" "$(dirname "$disk")/.ready-$(basename "$disk")"; done
start_varve
equals "$(cat "$MNT/vm2/.b")" text
[ -f "$MNT/vm2/a" ] || fail "a disk is lost"
equals "$(find "$T/state/disks" -mindepth 1 -maxdepth 1 | wc -l)" 2 "images in STATE"
stop_varve
