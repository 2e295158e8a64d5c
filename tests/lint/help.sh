#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# help.sh VARVE: --help of each command goes to stdout, fits 80 columns, exits 0; a wrong call says so on stderr and exits 2.
set -u
varve=$1 bad=0
for c in '' init mount backup snapshot log list health status wait umount revert verify rebuild dump; do
    # shellcheck disable=SC2086  # the empty one is no argument at all
    out=$("$varve" $c --help 2>/dev/null) || { echo "varve $c --help failed"; bad=1; }
    [ -n "$out" ] || { echo "varve $c --help says nothing on stdout"; bad=1; }
    long=$(printf '%s\n' "$out" | awk 'length > 80')
    [ -z "$long" ] || { echo "varve $c --help is wider than 80 columns: $long"; bad=1; }
    [ -z "$c" ] && continue
    out=$("$varve" "$c" --no-such-option 2>/dev/null); code=$?
    [ $code = 2 ] || { echo "varve $c --no-such-option exits $code, not 2"; bad=1; }
    [ -z "$out" ] || { echo "varve $c --no-such-option writes to stdout"; bad=1; }
    "$varve" help "$c" | cmp -s - <("$varve" "$c" --help) || { echo "varve help $c is not varve $c --help"; bad=1; }
    "$varve" "$c" --help | grep -q "man varve-$c\$" || { echo "varve $c --help does not name its man page"; bad=1; }
done
# What `varve init` offers is what the table of store.conf says.
while read -r option; do
    [[ $option = owner || $option = restore-conf ]] || grep -qF "| \`$option\` |" docs/format/02-store-conf.md ||
        { echo "docs/format/02-store-conf.md: $option"; bad=1; }
done < <("$varve" init --help | sed -nE 's/^  --([a-z-]+) .*/\1/p')
out=$("$varve" help no-such-command 2>/dev/null); code=$?
if [ $code != 2 ] || [ -n "$out" ]; then echo "varve help no-such-command exits $code, not 2, or writes to stdout"; bad=1; fi
exit $bad
