#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [all]: the model of publishing, fencing, adoption, names, manifests and collection (docs/model): the rules hold in every order of
# turns on small cases, and each variant with a rule dropped breaks. all: also the rows that take minutes (tests/soak.sh).
# Ends with one line "N passed, N failed".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/varve-model.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$here/../../docs/model/check.sh" "$here/../../docs/model/storemodel.c" "$work"
status=0
bash "$work/check.sh" "${1:-fast}" || status=$?
sed -n 's/^\([^ ]*\) .*NOT AS EXPECTED$/\1/p' "$work/results/all" | while read -r name; do
    echo "--- $name"
    head -n 40 "$work/results/$name.txt"
done >&2
exit $status
