#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# meson_test.sh BUILD [ARGUMENT...]: `meson test`, which ends with "N passed, N failed". A skipped test counts as passed.
set -u
build=$1; shift
rm -f "$build/meson-logs/testlog.json"
meson test -C "$build" --print-errorlogs "$@"; status=$?
jq -rs '[.[].result] | map(IN("OK", "SKIP", "EXPECTEDFAIL")) | "\(map(select(.)) | length) passed, \(map(select(not)) | length) failed"' \
    "$build/meson-logs/testlog.json"
exit $status
