#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A lower folder never includes a higher one; a third-party header is included in the folder that owns it. Inside a folder: order.py.
set -u
bad=0
allowed() {     # folders that each folder may include, besides itself
    case $1 in
        base) ;;
        format|proto|chunk|bus) echo base format ;;
        store) echo base format chunk ;;
        fpindex|catalog|live) echo base format ;;
        names) echo base format chunk store catalog ;;
        snapshot) echo base format chunk store live ;;
        level) echo base format chunk snapshot ;;
        dedup) echo base format proto chunk store fpindex catalog bus live snapshot level ;;
        ingest) echo base format store live snapshot level ;;
        check) echo base format proto chunk store fpindex catalog live snapshot names dedup ;;
        disk) echo base format chunk store fpindex catalog bus live snapshot names dedup check ;;
        agent) echo base format chunk store fpindex catalog bus live snapshot names dedup ingest check disk ;;
        fs) echo base format store catalog live snapshot names ingest disk agent ;;
        cli) echo base format chunk store check agent fs ;;
        *) echo "unknown folder $1" >&2; exit 1 ;;
    esac
}
for dir in src/*/; do
    folder=$(basename "$dir")
    ok=" $folder $(allowed "$folder" | tr '\n' ' ') "
    while IFS=: read -r file target; do
        case $ok in *" $target "*) ;; *) echo "$file includes $target/: not below $folder"; bad=1 ;; esac
    done < <(grep -Eo '#include "[a-z]+/' "$dir"*.[ch] 2>/dev/null | sed -E 's/#include "([a-z]+)\//\1/' | grep -v ':varve$')
done
owner() { grep -lE "#include <($2)" src/*/*.[ch] | grep -vE "^src/($1)/" | sed "s/^/wrong folder for <$2>: /"; }
wrong=$(owner chunk 'openssl'; owner catalog 'sqlite3'; owner bus 'librdkafka'; owner fs 'fuse'; owner store 'zstd'; owner base 'xxhash'
        owner 'base|check|agent|cli' 'jansson'; owner cli 'ini\.h')
[ -z "$wrong" ] || { echo "$wrong"; bad=1; }
python3 tests/lint/order.py || bad=1
exit $bad
