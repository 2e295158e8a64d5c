#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: which code the tests reach. Builds with gcc's counters, runs unit tests, fuzz replay, failing memory and system calls,
# the mount cases, disk errors and crashes in recovery, and asks gcovr. Fails when lines over src are below COVERAGE_LINES (85)
# percent, or when in the decoders or in the files of commit and recovery a branch was not taken that exact.txt does not name with
# its reason (exact.py).
# A daemon that is killed writes no counters, so crash points count only by what they leave to recovery.
# COVERAGE_PARTS: unit fuzz own oom io mount faults crash (the default), and names of suites with a run.sh that use $VARVE.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top" || exit 1
dir=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
build=$dir/build-cov out=$dir/coverage
mkdir -p "$dir" "$out"
export TMPDIR=${TMPDIR:-$dir/tmp} VARVE_SEED=${VARVE_SEED:-$RANDOM$RANDOM}
mkdir -p "$TMPDIR"
export VARVE_SANDBOX=off    # the daemon writes its counters at exit, outside STORE and STATE (src/cli/sandbox.c)
passed=0 failed=0
echo "VARVE_SEED=$VARVE_SEED"

verdict() { # STATUS TEXT
    if [ "$1" = 0 ]; then passed=$((passed + 1)); echo "ok      $2"; else failed=$((failed + 1)); echo "FAILED  $2"; fi
}

if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" "$top" --buildtype=debug -Db_coverage=true -Dfaults=true >"$out/setup.log" 2>&1 || { cat "$out/setup.log"; exit 1; }
fi
ninja -C "$build" >"$out/build.log" 2>&1 || { tail -n 30 "$out/build.log"; exit 1; }
find "$build" -name '*.gcda' -delete
chmod -R a+rwX "$build"     # a daemon that gave up root writes its counters too

part() { # NAME COMMAND...
    local name=$1; shift
    python3 -B "$here/../lib/owned.py" 1500 "$TMPDIR" "$@" >"$out/$name.log" 2>&1
    local status=$?
    [ $status != 77 ] || status=0
    [ $status = 0 ] || tail -n 15 "$out/$name.log" | sed 's/^/        | /'
    verdict $status "$name"
}

shm() { # COMMAND...: with its files in memory
    local tmp status
    tmp=$(TMPDIR=/dev/shm mktemp -d -t varve-cov-XXXXXX 2>/dev/null || mktemp -d)
    TMPDIR=$tmp "$@"; status=$?
    rm -rf "$tmp"
    return $status
}

for p in ${COVERAGE_PARTS:-unit fuzz own oom io mount faults crash}; do
    case $p in
        unit) for t in "$build"/tests/unit/test_*; do
                  if [ -x "$t" ] && [ ! -d "$t" ]; then
                      case $t in *_large) ;; *) part "unit-$(basename "$t")" "$t" ;; esac
                  fi
              done ;;
        fuzz) for t in "$build"/tests/fuzz/fuzz_*; do
                  if [ -x "$t" ] && [ ! -d "$t" ]; then VARVE_STEPS=500 shm part "fuzz-$(basename "$t")" "$t"; fi
              done ;;
        own) OOM_OWN=1 OOM_FULL=1 shm part own "$build/tests/oom/oom" ;;    # every allocation of our own code
        oom) shm part oom "$build/tests/oom/oom" ;;
        io) OOM_IO=1 shm part io "$build/tests/oom/oom" ;;
        mount) for c in tests/mount/[0-9]*.sh; do VARVE=$build/src/cli/varve ROUNDS=2 part "mount-$(basename "$c" .sh)" bash "$c"; done ;;
        faults) VARVE=$build/src/cli/varve part faults bash tests/faults/run.sh --want "${COVERAGE_FAULTS:-700}" ;;
        crash) VARVE=$build/src/cli/varve part crash bash tests/crash/run.sh recover --want "${COVERAGE_CRASH:-60}" ;;
        *) VARVE=$build/src/cli/varve part "$p" bash "tests/$p/run.sh" ;;
    esac
done

gcovr -r "$top" --object-directory "$build" -f src/ --exclude-throw-branches --exclude-unreachable-branches -j 2 \
    --json "$out/coverage.json" --txt "$out/lines.txt" >"$out/gcovr.log" 2>&1 || { tail "$out/gcovr.log"; verdict 1 gcovr; }
python3 "$here/exact.py" "$out/coverage.json" "$here/exact.txt" "${COVERAGE_LINES:-85}" >"$out/exact.log"
status=$?
tail -n 60 "$out/exact.log"
verdict $status "coverage (all of it: $out/lines.txt, $out/exact.log)"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
