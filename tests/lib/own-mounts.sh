#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# own-mounts.sh COMMAND...: runs it in a mount namespace of its own, so that what it mounts ends with it. The namespace's copies of
# other programs' FUSE and loop mounts go first: they would keep a daemon alive, or a loop device busy, after its own umount.
set -u
if [ "${OWN_MOUNTS:-}" != inside ]; then
    OWN_MOUNTS=inside exec unshare --mount --propagation private bash "$0" "$@"
fi
unset OWN_MOUNTS
awk '$2 != "/" && ($3 ~ /^fuse/ || $1 ~ /^\/dev\/loop/) { print $2 }' /proc/self/mounts | sort -r | while read -r m; do
    umount -l "$(printf '%b' "$m")"
done
exec "$@"
