#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Events survive the daemon, also one that is killed, and whatever becomes of their file; there are only so many, and a mount never fails
# of them. A line that tells of a failure names snapshot, reason and whom.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
events=$T/state/events
shown() { cat "$MNT/.varve/events"; }
has() { shown | grep -qE "$1" || fail "no event '$1': $(shown | tail -20)"; }
again() { stop_varve; start_varve; }

start_varve
run mkdir -p "$MNT/vm/deep"
random_file "$MNT/vm/deep/disk.img" 3000000
run "$VARVE" wait "$MNT"
run rmdir -p --ignore-fail-on-non-empty "$MNT/vm/deep"
run mkdir "$MNT/vm/one"
run rmdir "$MNT/vm/one"
shown >"$T/before"
again
run mkdir "$MNT/vm/two"
run rmdir "$MNT/vm/two"
shown | head -n "$(wc -l <"$T/before")" | cmp - "$T/before" || fail "a clean restart: events are not those from before"
has 'vm/two: removed \(by uid 0\)$'
shown >"$T/before"
kill_varve
start_varve
shown | head -n "$(wc -l <"$T/before")" | cmp - "$T/before" || fail "kill -9: events are not those from before"
equals "$(shown | grep -c 'vm/one: removed')" 1 "each once"

# What stands behind the last whole line goes; what is damaged is left out, and nothing else.
shown >"$T/before"
stop_varve
printf '0123456789abcdef 2026-01-01T00:00:00Z torn' >>"$events"
start_varve
cmp <(shown) "$T/before" || fail "a torn line"
stop_varve
sed -i '1s/removed/REMOVED/; 1s/frozen/FROZEN/' "$events"
head -c 5000 /dev/zero >>"$events"
printf '\n\033[2J\nffffffffffffffff x\n' >>"$events"
start_varve
cmp <(shown) <(sed 1d "$T/before") || fail "damaged lines"
run mkdir "$MNT/vm/three"
run rmdir "$MNT/vm/three"
again
has 'vm/three: removed'
stop_varve

# Its name is taken, or it cannot be read: the mount works, and tells of its own events.
for what in directory link large; do
    rm -rf "$events"
    case $what in
        directory) mkdir "$events";;
        link) ln -s "$T/elsewhere" "$events";;
        large) head -c 3000000 /dev/zero >"$events";;
    esac
    [ $what != link ] || rm -f "$T/elsewhere"
    if [ $what = link ]; then
        "$VARVE" mount "$T/store" "$MNT" -o "state=$T/state" >"$T/out" 2>&1 && fail "a link in the state directory is taken"
        [ ! -e "$T/elsewhere" ] || fail "the link was followed"
        continue
    fi
    start_varve
    run mkdir "$MNT/vm/$what"
    run rmdir "$MNT/vm/$what"
    has "vm/$what: removed"
    stop_varve
done
rm -rf "$events"

# Whole paths; two files of 256 KiB at most.
start_varve
name=$(printf 'n%.0s' {1..250})
deep=$MNT/vm
for _ in {1..8}; do deep=$deep/$name; done
run mkdir -p "$deep"
for i in {1..300}; do mkdir "$deep/$i"; rmdir "$deep/$i"; done
has "^20[0-9T:-]+Z vm(/$name){8}/300: removed \(by uid 0\)$"
for f in "$events" "$events.old"; do [ "$(stat -c %s "$f")" -le 262144 ] || fail "$f grows"; done
shown >"$T/before"
again
has '/300: removed'
cmp <(shown | tail -n 100) <(tail -n 100 "$T/before") || fail "the last ones are others"
[ "$(shown | wc -l)" -le 512 ] || fail "more than 512"
run rm -r "$MNT/vm/$name"
stop_varve

# No room, then a failure of a disk.
export VARVE_FAULT=agent.finish.before_pointers:1+=28
start_varve
unset VARVE_FAULT
random_file "$MNT/vm/deep/disk.img" 3000000
"$VARVE" wait --timeout 60 "$MNT" >"$T/out" 2>&1 || true
if ! grep -q "fault injected" "$T/out"; then skip "this build has no fault points"; fi
line='vm/deep/disk@[0-9TZ]+\.img: failed, snapshot [0-9]+: .*fault injected.* \(next attempt in [0-9]+ s\) \(by varve\)$'
has "$line"
grep -qE "ERROR event: $line" "$T/daemon.log" || fail "the log does not say it"
stop_varve
