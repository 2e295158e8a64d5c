#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tidy.sh BUILD [WORKERS]: clang-tidy over src, checks in .clang-tidy, warnings are errors.
# One file per call: clang-tidy 14 takes a va_list for uninitialized in every file after the first.
set -u
bad=$(mktemp)
trap 'rm -f "$bad"' EXIT
check() {   # check BUILD BAD FILE: findings only, without the counts of suppressed warnings that clang-tidy writes
    local out
    if ! out=$(clang-tidy -p "$1" --quiet --warnings-as-errors='*' "$3" 2>&1); then
        printf '%s\n' "$out" | grep -vE '^[0-9]+ warnings?( treated as errors?)?( generated)?\.?$'
        echo "$3" >>"$2"
    fi
}
export -f check
# Long files first, so that no single one is left to the end.
git ls-files -z 'src/*.c' | xargs -0 ls -S | xargs -P "${2:-$(nproc)}" -I{} bash -c 'check "$@"' check "$1" "$bad" {}
[ ! -s "$bad" ] || { echo "clang-tidy objects to: $(sort "$bad" | tr '\n' ' ')"; exit 1; }
