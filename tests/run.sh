#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [SUITE...]: the one test command. As root on a bare Debian 12: installs what it needs, builds three ways, runs every
# suite, cleans up whatever happens, and ends with one line "N passed, N failed".
# Suites: lint unit tsan large mount mount-asan mount-tsan format data vm, and every folder of tests/ that has a run.sh of its own.
# Default: all of default_suites below. Such a run.sh ends with "N passed, N failed" too; its cases count like the others.
# VARVE_TEST_DIR: where builds and logs go (default /var/tmp/varve-tests); VARVE_TEST_CACHE: real disks, built once.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
export VARVE_TEST_DIR=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
export VARVE_TEST_CACHE=${VARVE_TEST_CACHE:-/var/cache/varve-tests}
export TMPDIR=$VARVE_TEST_DIR/tmp
mkdir -p "$TMPDIR"
export LC_ALL=C.UTF-8
mkdir -p "$VARVE_TEST_DIR" "$VARVE_TEST_CACHE"
logs=$VARVE_TEST_DIR/logs
rm -rf "$logs"; mkdir -p "$logs"
passed=0 failed=0 failures=()

cleanup() {
    # Only what the tests of this run mounted: everything below VARVE_TEST_DIR, deepest first.
    pkill -9 -f "mount $VARVE_TEST_DIR/tmp/varve-case" 2>/dev/null
    awk -v d="$VARVE_TEST_DIR/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do
        umount -l "$(printf '%b' "$m")" 2>/dev/null
    done
}
trap cleanup EXIT

# one NAME SECONDS COMMAND...: a case; its output goes to a log that is shown when it fails.
one() {
    local name=$1 limit=$2 begin; shift 2
    begin=$(date +%s)
    if timeout -k 20 "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null; then
        passed=$((passed + 1)); printf 'ok      %s (%d s)\n' "$name" $(($(date +%s) - begin))
    else
        failed=$((failed + 1)); failures+=("$name"); printf 'FAILED  %s (%d s)\n' "$name" $(($(date +%s) - begin))
        tail -n 40 "$logs/$name.log" | sed 's/^/        | /'
    fi
}

# counted NAME SECONDS COMMAND...: a suite that counts its own cases and says so in its last line.
counted() {
    local name=$1 limit=$2 begin status last; shift 2
    begin=$(date +%s)
    timeout -k 20 "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null
    status=$?
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$logs/$name.log" | tail -n 1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])); failed=$((failed + BASH_REMATCH[2]))
        # A suite that failed without a failed case was stopped or fell over: that is a failure, too.
        if [ $status -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ]; then failed=$((failed + 1)); fi
        [ $((BASH_REMATCH[1] + BASH_REMATCH[2])) -gt 0 ] || { failed=$((failed + 1)); status=1; }
    else
        failed=$((failed + 1)); [ $status -ne 0 ] || status=1
        last="no count in its output (exit $status)"
    fi
    if [ $status -eq 0 ]; then
        printf 'ok      %s: %s (%d s)\n' "$name" "$last" $(($(date +%s) - begin))
    else
        failures+=("$name"); printf 'FAILED  %s: %s (%d s)\n' "$name" "$last" $(($(date +%s) - begin))
        tail -n 60 "$logs/$name.log" | sed 's/^/        | /'
    fi
}

build() {   # build NAME MESON-OPTIONS...
    local name=$1 dir=$VARVE_TEST_DIR/build-$1; shift
    # A build folder of another checkout would build that one's sources.
    if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.source" 2>/dev/null)" != "$top" ]; then
        rm -rf "$dir"
        meson setup "$dir" "$top" --werror "$@" >"$logs/setup-$name.log" 2>&1 || { cat "$logs/setup-$name.log"; return 1; }
        echo "$top" >"$dir/.source"
    fi
    ninja -C "$dir" >"$logs/build-$name.log" 2>&1 || { grep -E 'error|warning|FAILED' "$logs/build-$name.log" | head -n 30; return 1; }
}

unit_tests() {  # unit_tests SUITE BUILD [NAME...]: every unit test is one case
    local suite=$1 dir=$VARVE_TEST_DIR/build-$2 t; shift 2
    if [ $# -eq 0 ]; then set -- "$dir"/tests/unit/test_*; else set -- "${@/#/$dir/tests/unit/test_}"; fi
    for t in "$@"; do
        if [ ! -x "$t" ] || [ -d "$t" ]; then continue; fi
        one "$suite-$(basename "$t")" 600 "$t"
    done
}

suite_lint() {
    mapfile -t scripts < <(git ls-files '*.sh' 'mount-helpers/mount.varve' .ci/run)
    one lint-shellcheck 120 shellcheck -x "${scripts[@]}"
    one lint-cppcheck 900 cppcheck -q -j 2 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 \
        -Isrc -Iinclude -D_GNU_SOURCE --suppressions-list=tests/lint/cppcheck.txt src
    one lint-headers 120 bash tests/lint/headers.sh
    one lint-layers 60 bash tests/lint/layers.sh
    one lint-clock 60 bash tests/lint/clock.sh
    one lint-help 60 bash tests/lint/help.sh "$VARVE_TEST_DIR/build-plain/src/cli/varve"
    one lint-clang-tidy 1800 bash tests/lint/tidy.sh "$VARVE_TEST_DIR/build-clang"
}

mount_cases() {     # mount_cases SUITE BUILD CASE...
    local suite=$1 case
    export VARVE=$VARVE_TEST_DIR/build-$2/src/cli/varve
    shift 2
    for case; do
        one "$suite-$(basename "$case" .sh)" 400 bash "$case"
        cleanup
    done
}

default_suites="lint unit tsan large mount mount-asan mount-tsan format golden clock rot data bench vm full fuzz oom faults posix security crash mutants"
suites=${*:-$default_suites}
begin=$(date +%s)
bash examples/install-packages.sh test || exit 1
for b in "plain --buildtype=release -Dfaults=true" \
         "asan --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dfaults=true" \
         "tsan --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false -Dfaults=true"; do
    # shellcheck disable=SC2086  # several words
    set -- $b
    case "$b" in tsan*) case $suites in *tsan*) ;; *) continue ;; esac ;; esac
    one "build-$1" 1200 true
    build "$@" || { failed=$((failed + 1)); passed=$((passed - 1)); failures+=("build-$1"); }
done
case $suites in *lint*)
    if ! CC=clang build clang --buildtype=debugoptimized; then failed=$((failed + 1)); failures+=(build-clang); fi ;;
esac
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
for suite in $suites; do
    printf -- '---- %s\n' "$suite"
    case $suite in
        lint) suite_lint ;;
        unit) unit_tests unit asan ;;
        tsan) unit_tests tsan tsan crew live live_freeze live_model container bus dedup agent segread ;;
        large) unit_tests large plain fpindex_large live_model ;;
        mount) mount_cases mount plain tests/mount/[0-9]*.sh ;;
        mount-asan) export ROUNDS=2; mount_cases mount-asan asan tests/mount/[0-9]*.sh; unset ROUNDS ;;
        mount-tsan) export ROUNDS=1; mount_cases mount-tsan tsan tests/mount/{010,050,070,120,210}*.sh; unset ROUNDS ;;
        format) export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve; one format-reader 600 bash tests/format/run.sh; cleanup ;;
        data) export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve
              one data-series 1200 bash tests/data/debian-series.sh "$VARVE_TEST_CACHE/debian-series"
              one data-debian 1200 bash tests/data/run.sh; cleanup ;;
        vm) export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve; one vm-boot 1500 bash tests/vm/run.sh; cleanup ;;
        mutants) read -r -a names <tests/mutants/everyday.txt    # tests/soak.sh takes all of them
                 counted mutants 1500 bash tests/mutants/run.sh "${names[@]}"; cleanup ;;
        *) if [ ! -f "tests/$suite/run.sh" ]; then echo "run.sh: unknown suite $suite" >&2; exit 2; fi
           export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve
           counted "$suite" 1500 bash "tests/$suite/run.sh"; cleanup ;;
    esac
done
[ $failed -eq 0 ] || printf 'failed: %s (logs in %s)\n' "${failures[*]}" "$logs"
printf '%d s in all\n' $(($(date +%s) - begin))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
