#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make.sh FILE: makes a golden store: a specimen (tests/rot/specimen.sh) that this version of varve has written, packed into FILE
# (.tar.zst). Done once for each format that was released; tests/golden/run.sh opens all of them for ever after.
set -eu
out=$(realpath "$1")
here=$(cd "$(dirname "$0")/../rot" && pwd)
# shellcheck source=../mount/lib.sh
. "$here/../mount/lib.sh"
# shellcheck source=../rot/specimen.sh
. "$here/specimen.sh"
export SPECIMEN_LINES=900 SPECIMEN_NOISE=9000 VARVE_OPTS=cache_size=0
make_specimen
rm -f "$T"/clean/catalog* "$T/clean/reserve" "$T/clean/lock"
find "$T/store" -name '.tmp-*' -delete
tar -C "$T" --sort=name --owner=0 --group=0 --numeric-owner --sparse -cf - store clean manifest | zstd -q -19 -f -o "$out"
ls -l "$out"
