#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [smoke | all | GROUP...] [OPTION...]: the benchmark. As root. `run.sh --help` lists groups and options.
# smoke (the default): every row small, no thresholds, under a minute. The real disks of the group "series" are built by
# tests/data/debian-series.sh.
# No test asserts a time: a group fails when something does not work or restores other bytes than were put in.
# Tools that are installed take part; `run.sh peers` installs restic, borg and casync by apt and builds rustic by cargo.
# VARVE: a release build (default: built in $VARVE_TEST_DIR/build-plain); its tests/bench holds the helpers in C.
# BENCH_OUT: where results go (default $VARVE_TEST_DIR/bench; docs/benchmarks in the tree is what was published).
# Ends with "N passed, N failed".
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
export VARVE_TEST_DIR=${VARVE_TEST_DIR:-/var/tmp/varve-tests} VARVE_TEST_CACHE=${VARVE_TEST_CACHE:-/var/cache/varve-tests} LC_ALL=C.UTF-8
export PATH=$VARVE_TEST_CACHE/tools/bin:$PATH

install_peers() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends restic borgbackup casync || exit 1
    command -v rustic >/dev/null && return
    if ! command -v cargo >/dev/null; then echo "no cargo: rustic is left out"; return; fi
    cargo install --locked --root "$VARVE_TEST_CACHE/tools" rustic-rs || echo "rustic does not build: it is left out"
}
if [ "${1:-}" = peers ]; then install_peers; exit; fi

if [ -z "${VARVE:-}" ]; then
    bash "$top/examples/install-packages.sh" test || exit 1
    build=$VARVE_TEST_DIR/build-plain
    [ -f "$build/build.ninja" ] || meson setup "$build" "$top" --buildtype=release -Dfaults=true --werror >/dev/null || exit 1
    ninja -C "$build" >/dev/null || exit 1
    export VARVE=$build/src/cli/varve
fi
BENCH_BIN=$(cd "$(dirname "$VARVE")/../../tests/bench" && pwd) || exit 1
work=$(mktemp -d "${TMPDIR:-/var/tmp}/varve-bench.XXXXXX") || exit 1
out=${BENCH_OUT:-$VARVE_TEST_DIR/bench}
mkdir -p "$out" || exit 1
export BENCH_BIN BENCH_LOG=$work/log TMPDIR=$work

# shellcheck disable=SC2317  # the trap calls it
cleanup() {
    trap - EXIT INT TERM
    awk -v d="$work/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount "$m" || umount -l "$m"; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT TERM

case " $* " in *" all "* | *" series "* | *" parts "*) bash "$top/tests/data/debian-series.sh" "$VARVE_TEST_CACHE/debian-series" || exit 1 ;; esac
python3 -B "$here/bench.py" --work "$work" --out "$out" --series "$VARVE_TEST_CACHE/debian-series" "$@"
status=$?
cp "$BENCH_LOG" "$out/log" 2>/dev/null
exit $status
