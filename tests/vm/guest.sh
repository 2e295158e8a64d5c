#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest as a service: checks what earlier boots wrote, then writes and syncs for ever. A file counts once its
# sum is in `sums` and everything was synced; then it is announced on the console.
say() { echo "VM: $*" >/dev/ttyS0; }
mkdir -p /var/vmtest && cd /var/vmtest || exit 1
touch sums
if sha256sum --quiet -c sums >/dev/ttyS0 2>&1 || [ ! -s sums ]; then say "verified $(wc -l <sums)"; else say DAMAGED; fi
n=$(wc -l <sums)
while :; do
    n=$((n + 1))
    head -c 700000 /dev/urandom >"data-$n"
    sync
    sha256sum "data-$n" >>sums
    sync
    say "synced $n"
    sleep 1
done
