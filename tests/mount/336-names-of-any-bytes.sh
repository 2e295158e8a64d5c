#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names, notes, mount points, STORE and STATE of any bytes: JSON gives them back, lines of text stay lines without control bytes and quote
# names as `ls` does, and the paths that a command prints are what the others take.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
timeout -k 5 240 python3 -B "$(dirname "$0")/any_bytes.py" "$VARVE" "$T" || fail "see above"
