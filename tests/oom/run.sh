#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: memory that fails, at every place of our own code and (with strides) of the libraries: tests/oom/oom.h says what must
# hold. Twice: the plain build, where the allocator of the whole program is replaced, and the build with AddressSanitizer,
# where only calls of our own code fail. Then system calls that fail with EIO, in the plain build.
# OOM_OPS: operations; default all. OOM_FULL=1: no strides. VARVE_SEED: of the strides.
set -u
dir=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
work=$(TMPDIR=${VARVE_TEST_RAM:-/dev/shm} mktemp -d -t varve-oom-XXXXXX 2>/dev/null || mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export TMPDIR=$work
export VARVE_SEED=${VARVE_SEED:-$RANDOM$RANDOM}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
passed=0 failed=0
builds=()
for b in plain asan; do [ ! -x "$dir/build-$b/tests/oom/oom" ] || builds+=("$b"); done
[ ${#builds[@]} -gt 0 ] || { echo "run.sh: no build in $dir has tests/oom/oom" >&2; exit 1; }
one() { # NAME BUILD
    # shellcheck disable=SC2086  # several words
    timeout -k 10 "${OOM_LIMIT:-900}" "$dir/build-$2/tests/oom/oom" ${OOM_OPS:-} >"$work/$1.log" 2>"$work/$1.err"
    echo $? >"$work/$1.status"
}
for b in "${builds[@]}"; do one "$b" "$b" & done
(export OOM_IO=1; one io "${builds[0]}") &
wait
builds+=(io)
for b in "${builds[@]}"; do
    read -r status <"$work/$b.status"
    sed "s/^/$b: /" "$work/$b.log"
    last=$(tail -n 1 "$work/$b.log")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    fi
    if [ "$status" != 0 ] && { [ "$status" != 1 ] || ! [[ $last =~ failed$ ]]; }; then
        failed=$((failed + 1))
        echo "FAILED  $b: exit $status"
        tail -n 60 "$work/$b.err" | sed 's/^/        | /'
    fi
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
