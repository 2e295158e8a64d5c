#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# STORE is touched in src/store/backend_dir*.c only: other files of store and fpindex make no system call on files, and no descriptor,
# path or lock of STORE leaves src/store.
set -u
bad=0
tell() { [ -z "$2" ] || { echo "$1:"; echo "$2"; bad=1; }; }
inner() { printf '%s\n' src/store/*.[ch] src/fpindex/*.[ch] | grep -v '^src/store/backend_dir'; }
calls='(open|openat|creat|link|linkat|rename|renameat|unlink|unlinkat|mkdir|mkdirat|rmdir|flock|lockf|fcntl|stat|lstat|fstat|fstatat|access|faccessat|fsync|fdatasync|sync_file_range|ftruncate|pread|pwrite|statvfs|fstatvfs|opendir|fdopendir)'
helpers='(pread_full|pwrite_full|pwrite_bulk|dir_open|dir_make|dir_sync|dir_each|file_load|file_replace|file_publish|file_reserve|file_unreserve|tree_remove)'
# shellcheck disable=SC2046  # names without spaces
tell "system calls on STORE outside src/store/backend_dir*.c" "$(grep -nE "(^|[^a-zA-Z0-9_>.])($calls|$helpers) ?\(" $(inner) | grep -vE ':[[:space:]]*(\*|/\*)|as statvfs\(3\)')"
# shellcheck disable=SC2046
tell "headers of system calls outside src/store/backend_dir*.c" "$(grep -nE '#include (<(fcntl|dirent|sys/(file|stat|statfs))\.h>|"base/file\.h")' $(inner))"
tell "descriptors and directories of STORE outside src/store" "$(grep -rnE 'store_(dirfd|rootfd|disk_dir)' src | grep -v '^src/store/')"
tell "the backend of STORE outside src/store and fpindex" "$(grep -rnE 'store_index\(|backend_dir|\bb[kfl]_[a-z_]+\(' src | grep -vE '^src/(store|fpindex)/|^src/base/backend\.h' | grep -vE 'fpindex_(open|look)\(store_index\(')"
tell "store_path is for messages" "$(grep -rnE '(open|stat|access|link|rename|mkdir|opendir)[a-z]*\([^;]*store_path\(' src | grep -vE 'store_open')"
exit $bad
