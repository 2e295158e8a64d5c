# SPDX-License-Identifier: Apache-2.0
# lib.sh: what every mount case needs. A case is an executable *.sh in this folder: `set -eu`, source this, mount, check.
# Exit 0 passed, 77 skipped, anything else failed.
# shellcheck shell=bash
#
#   VARVE=PATH       the binary (required)
#   VARVE_OPTS=...   more mount options for all cases (as VARVE_OPTS=threads=1)
#   KEEP=1           leaves the case's folder behind, for a look at daemon.log
#   CASE_TIMEOUT=N   seconds a single command run by `run` may take (60)
#
# Each case has $T (its folder), $T/store, $T/state, $T/mnt ($MNT), $T/daemon.log.

umask 022
: "${VARVE:?set VARVE to the varve binary}"
CASE_TIMEOUT=${CASE_TIMEOUT:-60}
DAEMON=
EXPECT_ERRORS=
LOG_FROM=1
AT_END=

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAILED at line ${BASH_LINENO[0]}: $*" >&2; exit 1; }
need() { for p in "$@"; do command -v "$p" >/dev/null || skip "$p is not installed"; done; }

[ "$(id -u)" = 0 ] || skip "needs root"
[ -c /dev/fuse ] || skip "no /dev/fuse"

# Runs a command that must end in time and succeed.
run() { timeout -k 5 "$CASE_TIMEOUT" "$@" || fail "exit $? of: $*"; }
# Runs a command that must fail, with that text in its messages: must_fail "Device or resource busy" cp a b
must_fail() {
    local text=$1 out; shift
    if out=$(LC_ALL=C timeout -k 5 "$CASE_TIMEOUT" "$@" 2>&1); then fail "succeeded, but must not: $*"; fi
    case $out in *"$text"*) ;; *) fail "said '$out' instead of '$text': $*";; esac
}
# What a shell function or condition must become within the time: eventually 10 test -e FILE
eventually() {
    local until=$((SECONDS + $1)); shift
    until "$@"; do [ "$SECONDS" -lt "$until" ] || fail "never came true: $*"; sleep 0.1; done
}
# Takes a file's pages out of the kernel's cache; other cases on the machine keep theirs.
drop_pages() { dd if="$1" iflag=nocache count=0 status=none; }
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }
equals() { [ "$1" = "$2" ] || fail "'$1' is not '$2'${3:+ ($3)}"; }

# Snapshots of a disk in the order of their names: snaps DIR/NAME.EXT
snaps() {
    local dir base ext
    dir=$(dirname "$1"); base=$(basename "$1"); ext=
    case $base in ?*.*) ext=.${base##*.}; base=${base%.*};; esac
    (cd "$dir" && for f in "$base"@*"$ext"; do [ -e "$f" ] && echo "$dir/$f"; done; true) | LC_ALL=C sort
}
snap_count() { snaps "$1" | wc -l; }
# The one a freeze made last (by modification time: that is the moment of the freeze).
newest() { snaps "$1" | while read -r f; do echo "$(stat -c %.9Y "$f") $f"; done | sort -n | tail -1 | cut -d' ' -f2; }
xattr() { getfattr --absolute-names --only-values -n "user.varve.$2" "$1"; }
flags_clear() { [ -z "$(xattr "$(newest "$1")" flags)" ]; }
more_snaps_than() { [ "$(snap_count "$2")" -gt "$1" ]; }
has_flag() { case ,$(xattr "$1" flags), in *,"$2",*) return 0;; esac; return 1; }

random_file() { head -c "$2" /dev/urandom >"$1"; }

# ---- the daemon ----

T=$(mktemp -d "${TMPDIR:-/tmp}/varve-case.XXXXXX")
MNT=$T/mnt
mkdir "$MNT"
export T MNT

is_mounted() { grep -qF " $MNT fuse" /proc/mounts; }
# Only when the mount is there and answers: a stat of a mount that does not answer hangs.
is_usable() { is_mounted && timeout -k 1 5 stat -f "$MNT" >/dev/null 2>&1 && timeout -k 1 5 test -d "$MNT/.varve"; }

# daemon_of STATE: the process that holds it, as its lock file says; nothing when it has ended.
daemon_of() {
    local pid
    read -r pid _ 2>/dev/null <"$1/lock" || return 0
    [ "$(readlink "/proc/$pid/exe")" != "$(readlink -f "$VARVE")" ] || echo "$pid"
}

# begin_varve [MOUNT OPTION...]: makes the store when there is none, mounts, waits until it is usable. 1: the daemon has ended (DAEMON is
# its pid yet).
begin_varve() {
    local opts=state=$T/state,host=testhost o
    for o in ${VARVE_OPTS:-} "$@"; do opts=$opts,$o; done
    # shellcheck disable=SC2086  # INIT_OPTS is several words
    [ -e "$T/store/store.conf" ] || [ -n "${INIT_DONE:-}" ] || run "$VARVE" init "$T/store" ${INIT_OPTS:-} >>"$T/init.log" 2>&1
    INIT_DONE=1
    "$VARVE" mount "$T/store" "$MNT" -f -o "$opts" >>"$T/daemon.log" 2>&1 &
    DAEMON=$!
    for _ in $(seq 300); do
        if is_usable; then return 0; fi
        kill -0 "$DAEMON" 2>/dev/null || return 1
        sleep 0.1
    done
    cat "$T/daemon.log" >&2
    fail "not usable after 30 s"
}

# The same for a daemon that must be usable.
start_varve() {
    begin_varve "$@" || { cat "$T/daemon.log" >&2; DAEMON=; fail "the daemon ended while starting"; }
}

# Waits for the daemon's end; its exit status goes to DAEMON_STATUS.
wait_daemon() {
    for _ in $(seq 600); do
        kill -0 "$DAEMON" 2>/dev/null || break
        sleep 0.1
    done
    if kill -0 "$DAEMON" 2>/dev/null; then kill -9 "$DAEMON"; DAEMON=; fail "the daemon did not end within 60 s"; fi
    DAEMON_STATUS=0
    wait "$DAEMON" || DAEMON_STATUS=$?
    DAEMON=
}

# The clean stop: umount. Checks exit status and log.
stop_varve() {
    run umount "$MNT"
    wait_daemon
    check_log
    [ "$DAEMON_STATUS" = 0 ] || fail "the daemon ended with $DAEMON_STATUS"
}

# kill -9, as a crash of the daemon.
kill_varve() {
    kill -9 "$DAEMON"
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    umount -f -l "$MNT" 2>/dev/null || true
}

# The daemon is killed by a fault point: waits for that, and takes its dead mount away. WHERE: of the message if it is not.
killed_at() {   # WHERE
    for _ in $(seq 200); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$DAEMON" 2>/dev/null && fail "never came to $1"
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    umount -l "$MNT"
    unset VARVE_FAULT
}

expect_errors() { EXPECT_ERRORS=1; }
# No error may stand in the log since the last check, unless the case provokes some: then only what is never right.
check_log() {
    local words='ERROR|FATAL|BUG|AddressSanitizer|LeakSanitizer|runtime error|ThreadSanitizer'
    [ -z "$EXPECT_ERRORS" ] || words='FATAL|BUG|AddressSanitizer|LeakSanitizer|runtime error|ThreadSanitizer'
    [ -e "$T/daemon.log" ] || return 0
    if tail -n "+$LOG_FROM" "$T/daemon.log" | grep -wE "$words" >&2; then fail "the daemon's log has these lines"; fi
    LOG_FROM=$(($(wc -l <"$T/daemon.log") + 1))
}

# Runs a command when the case has ended and the daemon is gone; the last one given runs first. A trap of the case's own on EXIT would
# change the status that the case ends with.
at_end() { AT_END="$(printf '%q ' "$@"); $AT_END"; }

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    set +eu
    for pid in $(jobs -p); do [ "$pid" = "$DAEMON" ] || kill "$pid" 2>/dev/null; done
    cd /
    if is_mounted; then umount "$MNT" 2>/dev/null || umount -f -l "$MNT"; fi
    if [ -n "$DAEMON" ]; then
        for _ in $(seq 100); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$DAEMON" 2>/dev/null
        wait "$DAEMON" 2>/dev/null
    fi
    # One that has forked twice is no child of ours. A clean stop may still be under way.
    for state in "$T"/*/lock; do
        [ -e "$state" ] || continue
        for _ in $(seq 100); do [ -n "$(daemon_of "${state%/lock}")" ] || break; sleep 0.1; done
        pid=$(daemon_of "${state%/lock}")
        [ -z "$pid" ] || kill -9 "$pid"
    done
    eval "$AT_END" 2>/dev/null
    if [ "$status" = 0 ]; then (set -eu; check_log) || status=1; fi
    if [ "$status" != 0 ] && [ "$status" != 77 ] && [ -e "$T/daemon.log" ]; then
        echo "--- last lines of the daemon's log:" >&2
        tail -n 40 "$T/daemon.log" >&2
    fi
    if [ -n "${KEEP:-}" ]; then echo "kept: $T"; else rm -rf "$T"; fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
