#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the fixed design and every variant with one rule dropped; two at a time. One result line each in results/, traces too.
cd "$(dirname "$0")" && mkdir -p results
one() { n=$1; shift; timeout 40 ./storemodel "$@" > results/"$n".txt 2>&1; }; export -f one
FIX="order=1 untrash=1 anyd=1"
ONE="$FIX npub=1 cols=1 gens=3 mstates=8"            # one publisher, one collector, with reverts and removals
TWO="$FIX npub=1 cols=2 gens=4 revs=0 rms=1 mstates=8" # two collectors, one may be a zombie
LATE="order=1 anyd=1 npub=1 cols=2 gens=4 start=1 refs=2 rms=0 mstates=12" # the same, small enough to be exhausted
GONE="order=1 anyd=1 npub=1 pubs=0 mstates=12"         # reverts against removal and expiry only
while read -r n k; do [ "$n" ] && echo "$n $k"; done <<LIST | grep -E "${1:-.}" | xargs -P2 -I{} bash -c 'one {}'
00-fixed-one $ONE
01-fixed-two $LATE untrash=1
02-fixed-filewise-start1 $ONE start=1 filewise=1 gens=2 rms=0 refs=2
10-design-order $ONE order=0 untrash=0 start=1 gens=2
11-order-AST-only $ONE untrash=0
12-order-SAT-untrash $ONE order=0
13-trash-read-first $ONE order=2
14-clone-from-anchor-filewise $ONE untrash=0 start=1 filewise=1 gens=2 npub=2 anchtrash=1 pubs=0
15-clone-from-anchor-filewise-untrash $ONE start=1 filewise=1 gens=2 npub=2 anchtrash=1 pubs=0
20-no-trash $ONE trashgens=-1
21-trash-one-gen $GONE cols=2 revs=2 gens=4 trashgens=1
22-trash-zero-gen $GONE cols=2 revs=2 gens=4 trashgens=0
23-slow-rm $GONE cols=2 revs=2 gens=4 slowrm=1
24-slow-rm-record $GONE cols=2 revs=2 gens=4 slowrm=1 record=1
30-no-publish-check $ONE checklog=0 checkfoot=0
31-no-log-in-check $ONE checklog=0
32-no-footer-in-check $ONE checkfoot=0
33-footer-before-log $ONE logfirst=0
34-drop-freed $ONE dropfreed=1
35-drop-freed-footer-first $ONE dropfreed=1 logfirst=0
36-check-before-lease $ONE prelease=1
37-no-recheck $ONE recheck=0
40-no-gencheck $ONE gencheck=0
41-no-revoke $ONE revoke=0
42-revoke-only-last $TWO revoke=2
43-revoke-before-open $ONE revokefirst=1
50-no-second-read $ONE read2=0
51-late-never $LATE late=0
52-late-before-read $LATE late=1
52b-late-after-read $LATE
53-log-not-cumulative $TWO cumulative=0
54-uncondemn-by-first-read $LATE anyd=0 unread1=1
60-compaction-vs-append $ONE append=1
70-table-before-anchor $GONE cols=1 gens=4 revs=2 anchorfirst=0
71-power-fsync $GONE cols=1 gens=4 revs=2 power=1
72-power-no-fsync $GONE cols=1 gens=4 revs=2 power=1 fsyncanchor=0
04-fixed-two-publishers order=1 untrash=1 npub=2 cols=1 gens=2 revs=0 rms=1 refs=3 mstates=20
05-fixed-two-by-two order=1 untrash=1 npub=2 cols=2 gens=3 revs=0 rms=0 refs=2 mstates=20
80-adopt $ONE adopt=1 npub=2 rms=0 revs=0 gens=2 refs=3 anyd=0
81-adopt-no-epochcheck $ONE adopt=1 npub=2 rms=0 revs=0 epochcheck=0
82-adopt-no-revoke $ONE adopt=1 npub=2 rms=0 revs=0 adoptrevoke=0
83-adopt-no-redo $ONE adopt=1 npub=2 rms=0 revs=0 adoptredo=0
84-adopt-list-first $ONE adopt=1 npub=2 rms=0 revs=0 listlate=0
90-sealrule-off $ONE anyd=0 sealrule=0
91-i3-i4 $ONE anyd=0 gens=2 check3=1 check4=1
92-i4-three-collections $ONE anyd=0 gens=2 check4=1 i4runs=3
93-i4-two-collections $ONE anyd=0 gens=2 check4=1 i4runs=2
94-i4-record $ONE anyd=0 gens=2 check4=1 record=1
95-i3-control $ONE anyd=0 gens=2 check3=1 retrynew=0
10a-design-first-read-misses start=1 order=0 npub=1 cols=1 gens=2 refs=2 rms=0 read2=0
10b-design-honest-late-collector start=2 order=0 npub=1 cols=2 gens=4 refs=2 pubs=1 revs=2 rms=1 mstates=20
03-all-fixes-rough-world $ONE record=1 slowrm=1 anchtrash=1 power=1 refs=2
LIST
for f in results/*.txt; do printf '%-36s %s\n' "$(basename "$f" .txt)" "$(head -1 "$f" | sed 's/.*: \([0-9]* states\)/\1/')"; done
