#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The wall clock is read in the files of clock.txt only, each with its reason there.
set -u
here=$(dirname "$0")
bad=0
reads() {
    grep -lE '\b(time|gettimeofday|ftime|timespec_get)\(|CLOCK_(REALTIME|TAI)|\bvclock_real_ns\b' src/*/*.[ch] include/*/*.h | LC_ALL=C sort
}
listed() { sed -E '/^#/d; /^$/d; s/ .*//' "$here/clock.txt" | LC_ALL=C sort; }
while read -r f; do echo "$f reads the wall clock: decide by sequence numbers or the monotonic clock, or give the reason in clock.txt"; bad=1
done < <(comm -23 <(reads) <(listed))
while read -r f; do echo "$f is in clock.txt, but does not read the wall clock"; bad=1; done < <(comm -13 <(reads) <(listed))
grep -vE '^#|^$|^[^ ]+ +[^ ]+ ' "$here/clock.txt" && { echo "clock.txt: a line without a reason"; bad=1; }
exit $bad
