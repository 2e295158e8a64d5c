#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [OPTION...]: full disks. STORE, STATE or both lie on a filesystem of 1, 2, 3 ... MiB (tmpfs, and some of ext4), disks are
# copied in and overwritten until there is no room, then the rest is filled by another program to the last byte. What is asked:
# who writes is told, what was acknowledged stays true and nothing passes for a backup that is none; snapshots and disks can be
# removed at 100 %; when space returns everything goes on without a restart; stores verify, also for the second reader.
# Options: full.py --help. VARVE: the program. Ends with "N passed, N failed".
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${VARVE:?set VARVE to the varve binary}"
[ "$(id -u)" = 0 ] || { echo "run.sh: run me as root (I mount filesystems)" >&2; exit 1; }
exec /usr/bin/python3 -B "$here/full.py" --seed "${VARVE_SEED:-1}" "$@"
