#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools.sh CRATE VERSION: builds a test program out of the crate registry into $VARVE_TEST_CACHE/tools, with the compiler of Debian:
# its rustc (1.63) is too old for them, rustc-web of the same release is not (examples/install-packages.sh test).
set -u
tools=$VARVE_TEST_CACHE/tools
mkdir -p "$tools"
export CARGO_HOME=$VARVE_TEST_CACHE/cargo RUSTC=/usr/bin/rustc
if /usr/bin/cargo install --quiet --locked "$1" --version "$2" --root "$tools"; then
    echo "ok      $1 $2 is built"; echo "1 passed, 0 failed"
else
    echo "FAILED  $1 $2 cannot be built"; echo "0 passed, 1 failed"; exit 1
fi
