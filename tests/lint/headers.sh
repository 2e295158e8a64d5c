#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each header compiles by itself, and each source file carries its SPDX line.
set -u
bad=0
read -ra flags <<<"$(pkg-config --cflags fuse3 jansson)"
while read -r h; do
    printf '#include "%s"\n' "$h" | cc -fsyntax-only -Wall -Wextra -Werror -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=312 \
        -Isrc -Iinclude "${flags[@]}" -x c - || { echo "$h does not compile alone"; bad=1; }
done < <(git ls-files 'src/*.h' 'include/*.h')
while read -r f; do
    head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || { echo "$f: no SPDX line"; bad=1; }
done < <(git ls-files 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'tests/*.sh' 'tests/*.py' 'examples/*.sh' mount-helpers)
exit $bad
