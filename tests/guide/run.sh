#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [PAGE...]: runs the commands of the guide (docs/guide/PAGE.md) and the examples of the man pages (docs/man/PAGE.1.in) as they stand
# there, each page in namespaces of its own (mounts, processes) and on an overlay of the machine's root, so that /srv/varve, /snapshots and
# /etc/varve are the page's own. Checks links and the commands named in running text, too. Ends with "N passed, N failed": blocks of commands, and pages that failed.
# VARVE: the binary (required). KEEP=1 leaves what the pages wrote.
set -u
here=$(cd "$(dirname "$0")" && pwd)
docs=$(cd "$here/../../docs" && pwd)
guide=$docs/guide
: "${VARVE:?set VARVE to the varve binary}"
VARVE=$(readlink -f "$VARVE")
export VARVE LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
mkdir -p "${TMPDIR:=/tmp}"
work=$(mktemp -d "$TMPDIR/varve-guide.XXXXXX") || exit 1
pids=()
# The first process of a page's namespace takes all others, and their mounts, with it.
# shellcheck disable=SC2317  # the trap calls it
cleanup() {
    trap - EXIT
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf --one-file-system "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

passed=0 failed=0
pages=("$@")
[ $# -gt 0 ] || for p in "$guide"/*.md; do [ "$(basename "$p")" = README.md ] || pages+=("$(basename "$p" .md)"); done
[ $# -gt 0 ] || for p in "$docs"/man/*.1.in; do pages+=("$(basename "$p" .1.in)"); done

run_page() { # NAME
    local page=$guide/$1.md
    [ -e "$page" ] || page=$docs/man/$1.1.in
    mkdir "$work/$1"
    timeout -k 10 200 unshare --mount --pid --fork --kill-child --propagation private \
        bash "$here/inside.sh" "$work/$1" "$page" >"$work/$1.log" 2>&1 </dev/null
    echo $? >"$work/$1.status"
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "${work:?}/$1"
}

for name in "${pages[@]}"; do
    while [ "$(jobs -pr | wc -l)" -ge 2 ]; do wait -n; done
    run_page "$name" & pids+=($!)
done
wait

for name in "${pages[@]}"; do
    counts=$(grep -E '^blocks: [0-9]+ run, [0-9]+ not run$' "$work/$name.log" | tail -n 1)
    if [ "$(cat "$work/$name.status" 2>/dev/null)" = 0 ] && [[ $counts =~ ^blocks:\ ([0-9]+)\ run ]] && [ "${BASH_REMATCH[1]}" -gt 0 ]; then
        passed=$((passed + BASH_REMATCH[1]))
        echo "ok      $name (${counts#blocks: })"
        grep '^not run: ' "$work/$name.log" | sed 's/^/        /'
    else
        failed=$((failed + 1))
        echo "FAILED  $name (exit $(cat "$work/$name.status" 2>/dev/null))"
        tail -n 60 "$work/$name.log" | sed 's/^/        | /'
    fi
done
if [ $# -eq 0 ]; then
    if /usr/bin/python3 "$here/words.py" "$VARVE" "$guide"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[ $failed -eq 0 ]
