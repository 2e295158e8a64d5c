#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the rules as they should be (ok) and variants with one rule dropped or changed (bad: must show a violation); two at a time.
# One line each, with what came out; traces in results/. "check.sh" runs the fast rows (a minute of two cores);
# "check.sh all" also those marked slow; "check.sh all PATTERN" or "check.sh fast PATTERN" only rows whose name begins like this.
# Ends with one line "N passed, N failed".
cd "$(dirname "$0")" && mkdir -p results || exit 3
if [ ! -x storemodel ] || [ storemodel.c -nt storemodel ]; then cc -std=gnu11 -O2 -o storemodel storemodel.c || exit 3; fi
one() { n=$1; want=$2; shift 2; timeout 300 ./storemodel "$@" > results/"$n".txt 2>&1; r=$?
    case $r in 0) got=ok;; 1) got=bad;; 2) got=bound;; *) got=error;; esac
    mark=''; [ $got = "${want#slow-}" ] || mark='   <-- NOT AS EXPECTED'
    printf '%-34s %-5s %s%s\n' "$n" $got "$(head -1 results/"$n".txt | sed 's/.*: \([0-9]* states\)/\1/')" "$mark"; }
export -f one
mode=${1:-fast}; pat=${2:-.}
S1="order=1 untrash=1 anyd=1 record=1 npub=1 cols=1 gens=3 mstates=25"              # one publisher, one collector, reverts, a removal
S2="order=1 untrash=1 anyd=1 record=1 npub=1 cols=2 gens=4 start=1 refs=2 rms=0 mstates=25" # two collectors, one may be a zombie
UN="order=1 untrash=1 anyd=1 record=1 npub=1 cols=2 gens=4 pubs=0 revs=0 start=3 refs=2 mstates=30" # removal and undelete against two collectors
RM="untrash=1 anyd=1 record=1 npub=1 cols=1 gens=4 pubs=0 revs=0 start=3 refs=2 mstates=25"
while read -r n w k; do [ "$n" ] && { [ "$mode" = all ] || [ "${w#slow-}" = "$w" ]; } && echo "$n $w $k"; done <<LIST | grep -E "^[^ ]*($pat)" | xargs -P2 -I{} bash -c 'one {}' | sort | tee results/all
10-link-by-name-or-rename ok $S1 fence=1
11-link-by-inode-fence bad $S1 inodelink=1 fence=1
12-link-by-inode-data bad $S1 inodelink=1
13-two-collectors ok $S2
14-server-crash ok $S1 srv=1
15-server-crash-open-not-fsynced bad $S1 srv=1 fsyncopen=0
16-server-crash-revoke-not-fsynced bad $S1 srv=1 fsyncrevoke=0
17-server-crash-two-collectors slow-ok $S2 srv=1
18-rm-not-fsynced bad $RM order=1 rms=1 srv=1 fsyncrm=0
19-rm-not-fsynced-ASTS ok $RM order=7 rms=2 srv=1 fsyncrm=0
19b-trash-unlinked-before-origin-fsync bad $RM order=7 rms=1 srv=1 fsyncrm=0 fsyncempty=0
20-pub ok world=1
20a-pub-lost-twice-two-crashes-power ok world=1 losts=2 dups=1 pow=1 pcrash=2
20b-pub-server-crash ok world=1 losts=2 pcrash=2 srv=1 pow=1
20c-pub-clone ok world=1 procs=2
20d-pub-clone-power slow-ok world=1 procs=2 pow=1
20e-pub-clone-late-duplicate slow-ok world=1 procs=2 losts=2 dups=1
20f-pub-clone-look-before-staging slow-ok world=1 procs=2 losts=2 dups=1 look=2 doubt=1
20g-pub-clone-server slow-ok world=1 procs=2 srv=1
20h-pub-clone-noreplace ok world=1 procs=2 ownrev=0 norepl=1
21-never-look bad world=1 look=0
21a-look-before-lease-clone bad world=1 procs=2 look=1
20i-pub-one-path-for-each-lease ok world=1 nonce=0
20j-pub-one-path-late-duplicate slow-ok world=1 procs=2 losts=2 dups=1 nonce=0 bypath=1
22-look-at-once-after-enoent ok world=1 doubt=1
22a-look-before-staging ok world=1 look=2
23-accept-own-inode-only bad world=1 accept=0
23a-accept-equal-bytes-only bad world=1 accept=1
23b-accept-equal-bytes-no-crash ok world=1 accept=1 pcrash=0 doubt=1
24-old-leases-stay-late-duplicate bad world=1 losts=2 dups=1 ownrev=0
24a-old-leases-stay-clone bad world=1 procs=2 ownrev=0
24b-old-leases-go-before-clone bad world=1 procs=2 ownrev=2
25-same-names-by-path bad world=1 losts=2 dups=1 bypath=1 uniq=0 nonce=0
25a-same-staged-name-new-lease-names ok world=1 losts=2 dups=1 bypath=1 uniq=0
26-say-before-fsync bad world=1 pow=1 syncfirst=0
26a-accepted-not-fsynced bad world=1 pow=1 acceptsync=0
26b-no-look-after-fsync bad world=1 srv=1 lookagain=0
27-revoker-keeps-directory bad world=1 revdir=0
27a-revoker-renames-directory bad world=1 revfile=0
27b-revocation-not-fsynced bad world=1 srv=1 gsync=0
30-adopt ok world=2
30a-adopt-two-crashes ok world=2 acrash=2
30b-adopt-two-snapshots ok world=2 hosts=2 apubs=2 acrash=2
31-stale-owners bad world=2 freshown=0
31a-stale-generations bad world=2 freshgen=0
31b-stale-leases bad world=2 freshlease=0
31c-stale-snapshots bad world=2 freshsnap=0
32-epoch-before-only bad world=2 alllower=0
32a-newest-generation-only bad world=2 allgens=0
33-no-redo bad world=2 redo=0
34-epoch-not-exclusive bad world=2 excl=0
35-list-before-revoking bad world=2 listlast=0
36-no-owner-check bad world=2 ownercheck=0
40-undelete-rename-back bad $UN rms=1 undel=1 undelmode=0
40a-undelete-rename-honest-read bad $UN anyd=0 rms=2 undel=2 undelmode=0
40b-undelete-rename-ASTS bad $UN order=7 rms=2 undel=2 undelmode=0
41-undelete-check-then-rename bad $UN rms=1 undel=1 undelmode=1
42-undelete-publish-checked ok $UN rms=2 undel=2 undelmode=2
42a-undelete-publish-checked-honest ok $UN anyd=0 rms=2 undel=2 undelmode=2
42b-undelete-without-log bad $UN rms=1 undel=1 undelmode=2 checklog=0
42c-undelete-with-a-publisher slow-ok $S1 revs=0 rms=2 undel=1 undelmode=2
43-undelete-publish-entry-there bad $UN rms=2 undel=2 undelmode=3
43a-undelete-entry-there-honest ok $UN anyd=0 rms=2 undel=2 undelmode=3
45-undelete-trash-read-first bad $UN order=2 rms=2 undel=2 undelmode=2
46-undelete-server-crash slow-ok $UN rms=2 undel=2 undelmode=2 srv=1
44-undelete-link bad $UN rms=2 undel=2 undelmode=4
44a-undelete-link-by-inode bad $UN rms=1 undel=1 undelmode=4 inodelink=1
50-slot ok world=3 sops=3
51-sweep-all-unnamed bad world=3 sweep=0
52-after-eexist-compose-again bad world=3 eexist=0
53-no-look-after-publishing bad world=3 aftercheck=0
53a-no-look-but-manifests-stay ok world=3 aftercheck=0 dropman=0
54-reads-higher-epoch-goes-on bad world=3 readcheck=0
55-names-by-number bad world=3 unique=0 takeover=0
56-no-takeover-manifest ok world=3 takeover=0
57-sweep-own-only ok world=3 sweep=2
60-names ok world=4 n3=1
60a-names-three-ops ok world=4 nops=3 ncrash=2 ndup=1
60b-names-power ok world=4 nops=3 npow=1 ncrash=2
60c-names-versions-claimed ok world=4 nops=3 ncrash=2 recmode=2
61-unlink-by-name bad world=4 rmode=0
61a-read-then-unlink bad world=4 rmode=1 nops=3
61b-removal-carries-id bad world=4 rmode=2 nops=3
61c-removal-into-lease ok world=4 rmode=3 nops=3 ncrash=2
61d-removal-into-lease-late-duplicate bad world=4 rmode=3 ndup=1
61e-id-and-epoch bad world=4 rmode=4 nops=3 linkfence=0
61f-id-and-epoch-late-duplicate bad world=4 rmode=5 ndup=1
62-record-first bad world=4 entryfirst=0
62a-remove-entry-first bad world=4 entryfirst=2
63-record-overwritten bad world=4 recmode=0
63a-versions-not-claimed bad world=4 recmode=1
63b-no-redo bad world=4 recmode=2 redo=0
64-entry-not-fenced-leftover bad world=4 linkfence=0 n3=1
65-no-repair bad world=4 repair=0 nadopt=0 n3=1
65a-repairs-others bad world=4 repair=2
65b-repair-before-fencing bad world=4 repwhen=0
66-not-fsynced bad world=4 npow=1 nsync=0
67-own-entry-counts-undo bad world=4 mvback=1 ownok=1 nops=3 linkfence=0
70-anchor-from-another-disks-anchor ok order=1 untrash=1 anyd=1 record=1 npub=2 cols=1 gens=2 start=1 anchtrash=1 pubs=0 rms=1 mstates=20
70a-the-same-file-by-file ok order=1 untrash=1 anyd=1 record=1 npub=2 cols=1 gens=2 start=1 anchtrash=1 pubs=0 rms=1 mstates=20 filewise=1
70b-anchors-unlinked bad order=1 untrash=0 anyd=1 record=1 npub=2 cols=1 gens=2 start=1 anchtrash=1 pubs=0 rms=1 mstates=20 filewise=1
LIST
bad=$(grep -c 'NOT AS EXPECTED' results/all)
printf '%d passed, %d failed\n' "$(grep -vc 'NOT AS EXPECTED' results/all)" "$bad"
[ "$bad" -eq 0 ]
