#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: fuzz targets for every decoder of foreign bytes. First the corpus as an ordinary test: each target replays its seeds
# (real records out of the encoders), seeded mutations of each with mended checksums, and the files in tests/fuzz/regress, under
# ASan and UBSan when run.sh has built them. Then libFuzzer, FUZZ_SECONDS (4) per target.
# Seeds are made by the targets themselves (TARGET --seeds DIR); what was found once lies in regress/TARGET-NAME.
# VARVE_SEED, VARVE_STEPS (mutations of each seed): of the replay. FUZZ_TARGETS: names; default all. FUZZ_SKIP_LIBFUZZER=1.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
dir=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
seconds=${FUZZ_SECONDS:-4}
mkdir -p "$dir"
work=$(TMPDIR=${VARVE_TEST_RAM:-/dev/shm} mktemp -d -t varve-fuzz-XXXXXX 2>/dev/null || mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export TMPDIR=$work/tmp
mkdir -p "$TMPDIR"
export VARVE_SEED=${VARVE_SEED:-$RANDOM$RANDOM}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
passed=0 failed=0

verdict() { # NAME STATUS LOG
    if [ "$2" = 0 ]; then
        passed=$((passed + 1)); printf 'ok      %s: %s\n' "$1" "$(tail -n 1 "$3")"
    else
        failed=$((failed + 1)); printf 'FAILED  %s (exit %s, VARVE_SEED=%s)\n' "$1" "$2" "$VARVE_SEED"
        grep -v '^#' "$3" | tail -n 40 | sed 's/^/        | /'
    fi
}

mapfile -t targets < <(for f in "$here"/fuzz_*.c; do f=$(basename "$f" .c); f=${f#fuzz_}
                           case " ${FUZZ_TARGETS:-$f} " in *" $f "*) echo "$f" ;; esac; done)

# ---- the corpus ----

build=$dir/build-asan
[ -x "$build/tests/fuzz/fuzz_${targets[0]}" ] || build=$dir/build-plain
for t in "${targets[@]}"; do
    files=()
    for f in "$here/regress/$t-"*; do [ ! -f "$f" ] || files+=("$f"); done
    timeout -k 10 300 "$build/tests/fuzz/fuzz_$t" "${files[@]}" >"$work/log" 2>&1
    verdict "replay-$t" $? "$work/log"
done

# ---- libFuzzer ----

if [ -z "${FUZZ_SKIP_LIBFUZZER:-}" ]; then
    build=$dir/build-fuzz
    # A build folder of another checkout would build that one's sources.
    if [ ! -f "$build/build.ninja" ] || [ "$(cat "$build/.source" 2>/dev/null)" != "$top" ]; then
        rm -rf "$build"
        if CC=clang meson setup "$build" "$top" --buildtype=debugoptimized -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
            >"$work/log" 2>&1; then
            echo "$top" >"$build/.source"
        else
            verdict build-fuzz 1 "$work/log"; targets=()
        fi
    fi
    if [ ${#targets[@]} -gt 0 ]; then
        ninja -C "$build" "${targets[@]/#/tests/fuzz/libfuzzer_}" >"$work/log" 2>&1 || { verdict build-fuzz 1 "$work/log"; targets=(); }
    fi
    artifacts=$dir/fuzz-found
    mkdir -p "$artifacts"
    for t in "${targets[@]}"; do
        # The corpus grows from run to run where the directory is kept.
        corpus=$dir/fuzz-corpus/$t
        mkdir -p "$corpus" "$work/seeds-$t"
        "$dir/build-plain/tests/fuzz/fuzz_$t" --seeds "$work/seeds-$t" >/dev/null || { verdict "seeds-$t" 1 /dev/null; continue; }
        for f in "$here/regress/$t-"*; do [ ! -f "$f" ] || cp "$f" "$work/seeds-$t/"; done
        timeout -k 10 $((seconds + 120)) "$build/tests/fuzz/libfuzzer_$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
            -malloc_limit_mb=64 -max_len=524288 -len_control=0 -print_final_stats=1 -artifact_prefix="$artifacts/$t-" \
            "$corpus" "$work/seeds-$t" >"$work/log" 2>&1
        status=$?
        execs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
        cov=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/log" | tail -n 1)
        [ $status -ne 0 ] || echo "${execs:-0} inputs in $seconds s, coverage ${cov:-0}" >>"$work/log"
        verdict "libfuzzer-$t" $status "$work/log"
    done
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
