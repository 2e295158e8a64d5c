#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# varve.conf: sections for all stores and for one, units of sizes, and each wrong line named with its number, all of them at once.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
STORE=$T/store STATE=$T/state
conf=$T/varve.conf

mount_with() { "$VARVE" mount "$STORE" "$MNT" -o "state=$STATE,config=$conf" "$@"; }
host() { jq -r .host.name "$MNT/.varve/status.json"; }
mounts_as() { # HOST: the mount works, and that is its name
    mount_with || fail "the mount is refused"
    equals "$(host)" "$1"
    umount "$MNT"
}
refused() { # TEXT...: the mount is refused as wrong use, and each TEXT is said
    local code=0 text
    mount_with >"$T/out" 2>&1 || code=$?
    equals "$code" 2
    for text; do grep -qF -- "$text" "$T/out" || fail "not said: $text: $(cat "$T/out")"; done
}

run "$VARVE" init "$STORE"

# The store's own section wins wherever it stands; other stores' sections are only checked. A byte order mark, CR LF, blanks, comments.
printf '\xef\xbb\xbf[mount "%s"]\r\n  host = ours ; a comment\r\n[mount "/another/store"]\nhost = theirs\n# x\n\n[mount]\nhost=all\nmemory = 64 MiB\ncache_size = 8000000KB\nframe_cache: 16777216 B\nlayer_limit = 3g\n' "$STORE" >"$conf"
mounts_as ours
ln -s "$STORE" "$T/link"
printf '[mount]\nhost = all\n[mount "%s"]\nhost = by-link\n' "$T/link" >"$conf"
mounts_as by-link
printf '[mount]\nhost = all\n[mount "/another/store/%s"]\nhost = theirs\n' "$(printf 'long%.0s' {1..300})" >"$conf"
mounts_as all
ln -sf "$conf" "$T/conf-link"
conf=$T/conf-link mounts_as all
: >"$conf"
mount_with -o host=option
equals "$(host)" option
umount "$MNT"

# What is wrong, line by line.
printf 'host = early\n[mount]\nmemory = 12Q\nno setting\nblocks = maybe\nthreads = 0\n[other]\nx = 1\n[mount "relative"]\n[mount\ncolour = blue\n[mount "/another/store"]\nworkers = many\n' >"$conf"
refused "$conf, line 1: host stands in no section" "$conf, line 3: memory = 12Q: give a size of at least 2M" \
    "$conf, line 4: \"no setting\" is neither" "$conf, line 5: blocks = maybe: give real or dense" "$conf, line 6: threads = 0" \
    "line 7: unknown section [other]" "line 10: [mount has no" "line 13: workers = many" "$conf: 9 of its lines are wrong"
printf '[mount]\nstate = /%s\n' "$(printf 'x%.0s' {1..300})" >"$conf"
refused "$conf, line 2: longer than"
printf '[mount]\nhost = a\0b\n' >"$conf"
refused "$conf: is no configuration: it holds a NUL byte"
for size in 1.5G -1 8X 8KBB '' 99999999999999T; do
    printf '[mount]\ncache_size = %s\n' "$size" >"$conf"
    refused "$conf, line 2: cache_size = $size: give a size such as 8G; 0 for none"
done
conf=$T refused "$T: cannot read the configuration: Is a directory"
conf=$T/absent refused "$T/absent: cannot read the configuration: No such file or directory"
