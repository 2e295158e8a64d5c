#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [SUITE...]: the one test command. As root on a bare Debian 12: installs what it needs, builds, runs the suites, several
# cases at a time, and ends with a table of where the time went and one line "N passed, N failed".
# run.sh quick: what does not take long: one build, `meson test` (unit tests, replay of the fuzz corpus, lint) and a few mount cases.
# run.sh one NAME...: a unit test (live), a mount case (010 or its whole name) or a lint (layers), shown on the terminal.
# Suites: lint unit tsan large mount mount-asan mount-tsan format data vm, and every folder of tests/ that has a run.sh of its own;
# such a run.sh ends with "N passed, N failed", too. Default: all of default_suites below.
# Each case is run by lib/owned.py, which ends all that the case has started, and nothing else.
# VARVE_TEST_DIR: where builds and logs go (default /var/tmp/varve-tests); VARVE_TEST_CACHE: real disks, built once;
# VARVE_TEST_CORES: as many cores are used (default: all); VARVE_SEED: of random tests (default: from the commit).
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
export VARVE_TEST_DIR=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
export VARVE_TEST_CACHE=${VARVE_TEST_CACHE:-/var/cache/varve-tests}
export TMPDIR=$VARVE_TEST_DIR/tmp LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
# Random tests begin with the same seed whenever the same commit is tested; another commit samples other cases. It is printed.
[ -n "${VARVE_SEED:-}" ] || VARVE_SEED=$((16#$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1)))
[[ $VARVE_SEED =~ ^[1-9][0-9]{0,9}$ ]] || { echo "run.sh: VARVE_SEED=$VARVE_SEED: give a whole number of at most ten digits" >&2; exit 1; }
export VARVE_SEED
[ ! -d /usr/lib/ccache ] || export PATH=/usr/lib/ccache:$PATH
mkdir -p "$TMPDIR" "$VARVE_TEST_CACHE"
logs=$VARVE_TEST_DIR/logs
rm -rf "$logs"; mkdir -p "$logs"
cores=${VARVE_TEST_CORES:-$(nproc)}
begin=$SECONDS passed=0 failed=0 failures=()

# ---- jobs: cases and suites, as many at a time as there is room for ----

room=$((cores * 2))     # in halves of a core: a case that mostly waits takes one, one that computes two, a suite with workers all
load=0 number=0
declare -A job_of=()    # pid -> "NUMBER WEIGHT KIND SUITE NAME"
declare -A cases_of=() seconds_of=() cpu_of=()

ram_of() { echo "/dev/shm/varve-run-$$-$1"; }

# start KIND SUITE NAME LIMIT WEIGHT COMMAND...: KIND case: it passes or fails; counts: its last line says how many did.
start() {
    local kind=$1 suite=$2 name=$3 limit=$4 weight=$5 dir ram; shift 5
    [ "$weight" -le $room ] || weight=$room
    while [ $load -gt 0 ] && [ $((load + weight)) -gt $room ]; do finish_one; done
    number=$((number + 1)) load=$((load + weight))
    dir=$TMPDIR/$number ram=$(ram_of $number)
    mkdir -p "$dir" "$ram"
    TMPDIR=$dir VARVE_TEST_RAM=$ram OWNED_REPORT=$logs/$name.used \
        python3 tests/lib/owned.py "$limit" "$dir:$ram" "$@" >"$logs/$name.log" 2>&1 </dev/null &
    job_of[$!]="$number $weight $kind $suite $name"
}

finish_one() {
    local pid status id weight kind suite name
    wait -n -p pid "${!job_of[@]}"; status=$?
    read -r id weight kind suite name <<<"${job_of[$pid]}"
    unset "job_of[$pid]"
    load=$((load - weight))
    verdict "$kind" "$suite" "$name" $status
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "${TMPDIR:?}/$id" "$(ram_of "$id")"
}

# finish NAME: waits for that job.
finish() { while [[ " ${job_of[*]} " == *" $1 "* ]]; do finish_one; done; }
finish_all() { while [ ${#job_of[@]} -gt 0 ]; do finish_one; done; }

verdict() { # KIND SUITE NAME STATUS
    local kind=$1 suite=$2 name=$3 status=$4 ok=0 bad=0 text='' wall=0 cpu=0
    read -r wall cpu 2>/dev/null <"$logs/$name.used"
    if [ "$kind" = counts ]; then
        text=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$logs/$name.log" | tail -n 1)
        if [[ $text =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then ok=${BASH_REMATCH[1]} bad=${BASH_REMATCH[2]}; else text="no count"; fi
        # A suite that failed without a failed case, or has no cases, was stopped or fell over: that is a failure, too.
        if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; }; then bad=1 text="$text (exit $status)"; fi
        [ "$bad" -eq 0 ] || status=1
        text=": $text"
    elif [ "$status" -eq 0 ] || [ "$status" -eq 77 ]; then
        [ "$status" -eq 0 ] || text=": $(tail -n 1 "$logs/$name.log")"
        ok=1 status=0
    else
        bad=1 text=" (exit $status)"
    fi
    passed=$((passed + ok)) failed=$((failed + bad))
    cases_of[$suite]=$((${cases_of[$suite]:-0} + ok + bad))
    seconds_of[$suite]+="$wall+" cpu_of[$suite]+="$cpu+"
    if [ "$status" -eq 0 ]; then
        printf 'ok      %s%s (%.0f s)\n' "$name" "$text" "$wall"
        # What random tests began with, so that a passed run can be repeated, too.
        [ "$kind" != counts ] || grep -hoE '\bVARVE_SEED=[0-9]+' "$logs/$name.log" | sort -u | head -n 3 | sed 's/^/        /'
    else
        failures+=("$name"); printf 'FAILED  %s%s (%.0f s)\n' "$name" "$text" "$wall"
        tail -n 60 "$logs/$name.log" | sed 's/^/        | /'
    fi
}

table() {
    local suite
    printf '%-12s %8s %9s %9s\n' suite cases 'job s' 'cpu s'
    for suite in "${!cases_of[@]}"; do
        awk -v n="$suite" -v c="${cases_of[$suite]}" -v s="${seconds_of[$suite]}" -v u="${cpu_of[$suite]}" 'function sum(t,  a, i, r) {
            split(t, a, "+"); for (i in a) r += a[i]; return r } BEGIN { printf "%-12s %8d %9.0f %9.0f\n", n, c, sum(s), sum(u) }'
    done | LC_ALL=C sort -k3,3nr
}

# Jobs that still run are told to end; owned.py kills what each has started.
# shellcheck disable=SC2317  # the trap calls it
end_jobs() {
    local pid
    trap - EXIT INT TERM HUP
    for pid in "${!job_of[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    for pid in "${!job_of[@]}"; do
        wait "$pid" 2>/dev/null
        rm -rf --one-file-system "${TMPDIR:?}/${job_of[$pid]%% *}" "$(ram_of "${job_of[$pid]%% *}")"
    done
}
trap end_jobs EXIT
trap 'end_jobs; exit 130' INT TERM HUP

# ---- builds ----

build() {   # build NAME TARGETS MESON-OPTIONS...: TARGETS: of ninja, "" for all
    local name=$1 targets=$2 dir=$VARVE_TEST_DIR/build-$1; shift 2
    # A build folder of another checkout would build that one's sources.
    if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.source" 2>/dev/null)" != "$top" ]; then
        rm -rf "$dir"
        if ! meson setup "$dir" "$top" --werror "$@" >"$logs/setup-$name.log" 2>&1; then
            tail -n 30 "$logs/setup-$name.log"
            start case build "build-$name" 60 2 false
        else
            echo "$top" >"$dir/.source"
        fi
    fi
    # shellcheck disable=SC2086  # several words
    [ ! -f "$dir/.source" ] || start case build "build-$name" 1800 2 ninja -C "$dir" $targets
    finish "build-$name"
    [[ " ${failures[*]} " != *" build-$name "* ]]
}
build_plain() { build plain "$1" --buildtype=release -Dfaults=true; }
build_asan() { build asan "$1" --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dfaults=true; }
build_tsan() { build tsan "$1" --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false -Dfaults=true; }
# By clang, for its warnings, for clang-tidy, which must know how each file is compiled, and for libFuzzer.
build_fuzz() { CC=clang build fuzz "$1" --buildtype=debugoptimized -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false; }

# ---- suites ----

suite_unit() {  # suite_unit SUITE BUILD [NAME...]: every unit test is one case
    local suite=$1 dir=$VARVE_TEST_DIR/build-$2 t; shift 2
    if [ $# -eq 0 ]; then set -- "$dir"/tests/unit/test_*; else set -- "${@/#/$dir/tests/unit/test_}"; fi
    for t in "$@"; do
        if [ ! -x "$t" ] || [ -d "$t" ]; then continue; fi
        start case "$suite" "$suite-$(basename "$t")" 600 2 "$t"
    done
}

suite_mount() { # suite_mount SUITE BUILD ROUNDS CASE...
    local suite=$1 build=$2 rounds=$3 c; shift 3
    for c; do
        start case "$suite" "$suite-$(basename "$c" .sh)" 400 1 \
            env "VARVE=$VARVE_TEST_DIR/build-$build/src/cli/varve" ${rounds:+"ROUNDS=$rounds"} bash "$c"
    done
}

lint() {        # lint NAME LIMIT WEIGHT COMMAND...
    local name=$1 limit=$2 weight=$3; shift 3
    start case lint "lint-$name" "$limit" "$weight" "$@"
}

suite_lint() {
    mapfile -t scripts < <(git ls-files '*.sh' 'mount-helpers/mount.varve' .ci/run)
    lint clang-tidy 1800 2 bash tests/lint/tidy.sh "$VARVE_TEST_DIR/build-fuzz" 1
    lint cppcheck 900 2 cppcheck -q --library=tests/lint/cppcheck.cfg --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --std=c11 \
        -Isrc -Iinclude -D_GNU_SOURCE --suppressions-list=tests/lint/cppcheck.txt src
    lint shellcheck 120 2 shellcheck -x "${scripts[@]}"
    lint headers 120 2 bash tests/lint/headers.sh
    lint layers 60 2 bash tests/lint/layers.sh
    lint backend 60 2 bash tests/lint/backend.sh
    lint clock 60 2 bash tests/lint/clock.sh
    lint help 60 2 bash tests/lint/help.sh "$VARVE_TEST_DIR/build-plain/src/cli/varve"
    lint completion 60 2 bash tests/lint/completion.sh "$VARVE_TEST_DIR/build-plain/src/cli/varve"
    lint man 60 2 bash tests/lint/man.sh "$VARVE_TEST_DIR/build-plain/src/cli/varve"
}

tsan_units=(pool live live_freeze live_model container bus dedup segread)
# The real disks that some suites read are built once, beside what runs meanwhile.
start_series() { start case data data-series 1200 2 bash tests/data/debian-series.sh "$VARVE_TEST_CACHE/debian-series"; }

run_suite() {
    local suite=$1 names
    case $suite in
        lint) suite_lint ;;
        unit) suite_unit unit asan ;;
        tsan) suite_unit tsan tsan "${tsan_units[@]}" ;;
        large) suite_unit large plain fpindex_large live_model ;;
        mount) suite_mount mount plain '' tests/mount/[0-9]*.sh ;;
        mount-asan) suite_mount mount-asan asan 2 tests/mount/[0-9]*.sh ;;
        mount-tsan) suite_mount mount-tsan tsan 1 tests/mount/{010,050,070,120,210}*.sh ;;
        format) start case format format-reader 600 2 bash tests/format/run.sh ;;
        data) finish data-series; start case data data-debian 1200 2 bash tests/data/run.sh ;;
        vm) finish data-series; start case vm vm-boot 1500 2 bash tests/vm/run.sh ;;
        mutants) read -r -a names <tests/mutants/everyday.txt    # tests/soak.sh takes all of them
                 start counts mutants mutants 1500 2 bash tests/mutants/run.sh "${names[@]}" ;;
        crash|faults|oom|rot|model) start counts "$suite" "$suite" 1500 4 bash "tests/$suite/run.sh" ;;      # two workers
        clock|security|golden) start counts "$suite" "$suite" 1500 1 bash "tests/$suite/run.sh" ;;     # mostly wait
        *) start counts "$suite" "$suite" 1500 2 bash "tests/$suite/run.sh" ;;
    esac
}

# ---- what was asked for ----

end() {
    finish_all
    table
    [ $failed -eq 0 ] || printf 'failed: %s (logs in %s)\n' "${failures[*]}" "$logs"
    printf 'VARVE_SEED=%d, %d s in all\n' "$VARVE_SEED" $((SECONDS - begin))
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ $failed -eq 0 ]
    exit
}

quick() {
    build_asan src/cli/varve || end
    start counts meson meson-test 900 4 bash tests/lib/meson_test.sh "$VARVE_TEST_DIR/build-asan"
    suite_mount mount asan 1 tests/mount/{010,030,070,080,100,130,200,230}*.sh
    end
}

# shown BUILD NAME COMMAND...: with its output on the terminal; the program is that of the build.
shown() {
    local build=$1 name=$2 dir=$TMPDIR/one status; shift 2
    mkdir -p "$dir"
    TMPDIR=$dir VARVE=$VARVE_TEST_DIR/build-$build/src/cli/varve OWNED_REPORT=$logs/$name.used \
        python3 tests/lib/owned.py "${LIMIT:-1500}" "$dir" "$@"; status=$?
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$dir"
    : >"$logs/$name.log"
    verdict case one "$name" $status
}

one() { # NAME: of a test, or how the name of a mount case begins
    local name=$1 c found=()
    for c in tests/mount/"$name"*.sh; do [[ ! $(basename "$c") =~ ^[0-9] ]] || found+=("$c"); done
    if [ -f "tests/unit/test_$name.c" ]; then
        build_asan "tests/unit/test_$name" && shown asan "unit-$name" "$VARVE_TEST_DIR/build-asan/tests/unit/test_$name"
    elif [ ${#found[@]} -gt 0 ]; then
        build_plain '' && for c in "${found[@]}"; do shown plain "mount-$(basename "$c" .sh)" bash "$c"; done
    elif [ -f "tests/lint/$name.sh" ]; then
        build_plain src/cli/varve && shown plain "lint-$name" bash "tests/lint/$name.sh" "$VARVE_TEST_DIR/build-plain/src/cli/varve"
    else
        echo "run.sh: no unit test, mount case or lint is called $name" >&2; exit 2
    fi
}

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
bash examples/install-packages.sh test || exit 1
case ${1:-} in
    quick) quick ;;
    one) shift; for name; do one "$name"; done; end ;;
esac

# Long ones that use one core first, small ones to fill up, those that use all cores last.
default_suites="lint mutants posix data vm guide security unit mount-asan mount mount-tsan tsan large format bench clock fuzz golden model rot faults crash oom full"
suites=" ${*:-$default_suites} "
for suite in $suites; do
    case $suite in lint|unit|tsan|large|mount|mount-asan|mount-tsan|format|data|vm) continue ;; esac
    [ -f "tests/$suite/run.sh" ] || { echo "run.sh: unknown suite $suite" >&2; exit 2; }
done
case $suites in *" data "*|*" vm "*) start_series ;; esac
build_plain ''
case $suites in *" unit "*|*" mount-asan "*|*" fuzz "*|*" oom "*) build_asan '' ;; esac
case $suites in *tsan*) build_tsan "src/cli/varve ${tsan_units[*]/#/tests/unit/test_}" ;; esac
case $suites in *" lint "*|*" fuzz "*) build_fuzz '' ;; esac
export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve
for suite in $suites; do run_suite "$suite"; done
end
