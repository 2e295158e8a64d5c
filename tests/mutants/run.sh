#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [NAME...]: shows that a test turns red when the code behind a promise is disabled. Copies the tree, builds it once,
# runs each test on it unchanged (must be green), then applies one mutant after another, builds, runs its test (must be red)
# and takes it back. Ends with one line "N passed, N failed"; passed = caught. NAME: a mutant, or how its name begins.
# VARVE_TEST_DIR: where the copy, the build and the logs go (default /var/tmp/varve-tests).
#
# A mutant is a file NN-name.mutant of lines KEY=VALUE, the value going on to the end of the line; # begins a comment line.
#   FILE=      a file of the tree
#   FIND=      text that stands in it exactly once (\n is a new line); else the mutant fails: the code has moved on. Every run looks
#              for those of all mutants
#   REPLACE=   what comes in its place. FIND and REPLACE may come several times, for a change at more than one place
#   TEST=      a command run in the copy of the tree; $B is the build, $VARVE the program in it
#   SAYS=      optional: text in a line of the red test's output that has FAILED or ERROR, so that it is red for the right reason
#   LIMIT=     optional: seconds for one run of the test (180); a run that takes longer is red
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (some tests mount filesystems)" >&2; exit 1; }
mkdir -p "${VARVE_TEST_DIR:=/var/tmp/varve-tests}"
work=$(mktemp -d "$VARVE_TEST_DIR/mutants.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
tree=$work/tree logs=$VARVE_TEST_DIR/logs-mutants
export B=$work/build TMPDIR=$work/tmp VARVE=$work/build/src/cli/varve LC_ALL=C.UTF-8
unset VARVE_SEED VARVE_STEPS VARVE_FAULT VARVE_FAULT_PAUSE VARVE_OPTS INIT_OPTS ROUNDS KEEP CASE_TIMEOUT
rm -rf "$logs"; mkdir -p "$tree" "$TMPDIR" "$logs"; chmod 755 "$work"

# ---- one mutant ----

TEST='' SAYS='' LIMIT='' why=''
files=() finds=() replaces=()

load() {    # MUTANT
    local line file=''
    TEST='' SAYS='' LIMIT=180 files=() finds=() replaces=()
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            ''|'#'*) ;;
            FILE=*) file=${line#FILE=} ;;
            FIND=*) line=${line#FIND=}; files+=("$file"); finds+=("${line//'\n'/$'\n'}") ;;
            REPLACE=*) line=${line#REPLACE=}; replaces+=("${line//'\n'/$'\n'}") ;;
            TEST=*) TEST=${line#TEST=} ;;
            SAYS=*) SAYS=${line#SAYS=} ;;
            LIMIT=*) LIMIT=${line#LIMIT=} ;;
            *) why="a line that is none: $line"; return 1 ;;
        esac
    done <"$1"
    if [ -z "$TEST" ] || [ ${#finds[@]} -eq 0 ] || [ ${#finds[@]} -ne ${#replaces[@]} ]; then
        why="it needs FILE, FIND and REPLACE in pairs, and TEST"
        return 1
    fi
}

edit() {    # FILE FIND REPLACE
    local text rest
    [ -f "$tree/$1" ] || { why="no longer applies: there is no $1"; return 1; }
    text=$(cat "$tree/$1"; printf x)
    text=${text%x}
    rest=${text#*"$2"}
    if [ -z "$2" ] || [ "$rest" = "$text" ]; then why="no longer applies: $1 does not have its text"; return 1; fi
    case $rest in *"$2"*) why="no longer applies: $1 has its text more than once"; return 1 ;; esac
    printf '%s' "${text%%"$2"*}$3$rest" >"$tree/$1"
}

apply() {
    local i
    for i in "${!finds[@]}"; do edit "${files[i]}" "${finds[i]}" "${replaces[i]}" || return 1; done
}

take_back() {
    local f
    for f in "${files[@]}"; do [ ! -f "$work/original/$f" ] || cat "$work/original/$f" >"$tree/$f"; done
}

build() {   # LOG: what TEST names, no more
    local targets
    # shellcheck disable=SC2016  # meant as it stands: text for grep, or for the shell inside
    mapfile -t targets < <(grep -oE '\$B/[A-Za-z0-9_./-]+' <<<"$TEST" | cut -c 4-
                           case $TEST in *tests/mount/*|*"\$VARVE"*) echo src/cli/varve ;; esac)
    ninja -C "$B" "${targets[@]}" >"$1" 2>&1
}

# Mounts, shared memory and temporary files of a test that was stopped in the middle end with its namespace, and its processes with it.
run_test() { # LOG
    local status
    # shellcheck disable=SC2016  # meant as it stands: text for grep, or for the shell inside
    python3 -B "$here/../lib/owned.py" "$LIMIT" "$TMPDIR" bash "$here/../lib/own-mounts.sh" bash -c '
        mount -t tmpfs mutants /dev/shm || exit 77
        case $TMPDIR/ in /tmp/*) ;; *) mount --bind "$TMPDIR" /tmp || exit 77 ;; esac
        cd "$1" && exec bash -c "$2"' mutants "$tree" "$TEST" >"$1" 2>&1
    status=$?
    rm -rf "$TMPDIR"; mkdir "$TMPDIR"
    return $status
}

# ---- verdicts ----

passed=0 failed=0 failures=()
declare -A green=()    # of each TEST on the unchanged tree

verdict() { # NAME ok|FAILED TEXT SECONDS
    if [ "$2" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); failures+=("$1"); fi
    printf '%-7s %s: %s (%d s)\n' "$2" "$1" "$3" "$4"
}

show() { tail -n 15 "$1" | sed 's/^/        | /'; }

# Is TEST green on the unchanged tree? Run once.
is_green() {
    local log status
    log=$logs/green-${#green[@]}.log
    if [ -z "${green[$TEST]:-}" ]; then
        green[$TEST]=no
        build "$log" || { why="the unchanged tree does not build"; show "$log"; return 1; }
        run_test "$log"; status=$?
        if [ $status = 0 ]; then green[$TEST]=yes; else echo "red on the unchanged tree (exit $status): $TEST"; show "$log"; fi
    fi
    why="its test is not green on the unchanged tree"
    [ "${green[$TEST]}" = yes ]
}

# What a red test says of that.
reason() { grep -oE '\[  (FAILED|ERROR ) +\] .*|FAILED at line .*' "$1" | grep -m 1 -F -- "$SAYS" | cut -c 1-110; }

is_caught() { # NAME: why says by what, or why not
    local status
    apply || return 1
    build "$logs/$1.build.log" || { why="it does not build"; show "$logs/$1.build.log"; return 1; }
    run_test "$logs/$1.log"; status=$?
    case $status in
        0) why="SURVIVES: green all the same: $TEST"; return 1 ;;
        77) why="its test was skipped"; show "$logs/$1.log"; return 1 ;;
    esac
    if [ -n "$SAYS" ] && ! grep -E 'FAILED|ERROR' "$logs/$1.log" | grep -qF -- "$SAYS"; then
        why="red, but not because of '$SAYS'"; show "$logs/$1.log"
        return 1
    fi
    why="red, exit $status, $(reason "$logs/$1.log")"
}

try() {     # MUTANT
    local name start=$SECONDS
    name=$(basename "$1" .mutant)
    if ! load "$1" || ! is_green; then verdict "$name" FAILED "$why" $((SECONDS - start)); return; fi
    if is_caught "$name"; then verdict "$name" ok "$why" $((SECONDS - start)); else verdict "$name" FAILED "$why" $((SECONDS - start)); fi
    take_back
}

# ---- all of them ----

mutants=()
if [ $# -eq 0 ]; then mutants=("$here"/*.mutant); fi
for n in "$@"; do
    found=("$here/$n"*.mutant)
    [ -f "${found[0]}" ] || { echo "run.sh: no mutant is called $n" >&2; exit 2; }
    mutants+=("${found[@]}")
done
# The tree as it stands, with what is not committed yet; a file that was removed stays away.
(cd "$top" && git ls-files -z -co --exclude-standard | while IFS= read -r -d '' f; do [ ! -f "$f" ] || printf '%s\0' "$f"; done |
    tar -c --null -T -) | tar -x -C "$tree" || exit 1
cp -r "$tree" "$work/original"
meson setup "$B" "$tree" --buildtype=release -Dfaults=true >"$logs/setup.log" 2>&1 || { show "$logs/setup.log"; exit 1; }
begin=$SECONDS
# The code of every promise, also of those that are not tried this time, is where its mutant looks for it.
for m in "$here"/*.mutant; do
    if ! load "$m" || ! apply; then verdict "$(basename "$m" .mutant)" FAILED "$why" 0; fi
    take_back
done
for m in "${mutants[@]}"; do try "$m"; done
[ $failed -eq 0 ] || printf 'failed: %s (logs in %s)\n' "${failures[*]}" "$logs"
printf '%d s in all\n' $((SECONDS - begin))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
