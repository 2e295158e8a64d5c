#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install-packages.sh [build|test]: Debian 12 packages that building (default) or testing needs. Asks apt only for what is missing, and
# waits up to ten minutes while another apt runs (on a fresh machine a timer starts one).
set -euo pipefail
packages=(build-essential meson ninja-build pkg-config libfuse3-dev fuse3 libssl-dev libsqlite3-dev libzstd-dev libxxhash-dev
    libjansson-dev libinih-dev libseccomp-dev e2fsprogs util-linux)
if [ "${1:-build}" = test ]; then
    packages+=(libcmocka-dev clang clang-tidy cppcheck shellcheck python3 python3-zstandard python3-xxhash attr rsync fio debootstrap
        qemu-utils qemu-system-x86 qemu-system-common strace faketime xfsprogs btrfs-progs squashfs-tools sqlite3 procps psmisc cpio zsh fish
        busybox-static kmod util-linux-extra gdb jq acl systemd groff-base man-db libclang-rt-14-dev gcovr rustc-web cargo-web)
fi
missing=()
for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# apt-get itself can wait for the lock of installing, but not for that of the lists.
locked() { grep -q 'Could not get lock' "$log"; }
apt() { # ARGUMENT...
    local until=$((SECONDS + 600))
    until apt-get -qq "$@" >"$log" 2>&1; do
        if ! locked || [ $SECONDS -ge $until ]; then return 1; fi
        [ -n "${told:-}" ] || echo "waiting for the apt that runs already: $(grep -m1 -o 'held by process.*' "$log")"
        told=1
        sleep 3
    done
}
echo "installing: ${missing[*]}"
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
    tail -n 20 "$log" >&2
    echo "install-packages.sh: apt-get failed, its output is above" >&2
    exit 1
fi
