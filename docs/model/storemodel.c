/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storemodel.c: exhaustive small-model check of varve's store protocols. One engine (breadth first, every order of turns, shortest
 * trace), five worlds:
 *
 *   world=0  store   publishers, collectors, a user, undelete, crashes of a file server        (invariants I1..I5)
 *   world=1  pub     one publication by rename at the level of directory entries               (P1..P6)
 *   world=2  adopt   three hosts, epochs, generations, stale listings                          (I2)
 *   world=3  slot    index manifests, sweep, an old owner that goes on                         (X1..X3)
 *   world=4  names   exclusive name entries: create, rename, remove, undelete, adopt, repair   (N1..N3)
 *
 * One turn is one thing that the store does atomically. Any process may stop for ever (crash) or sleep and go on (zombie).
 * Build: cc -O2 -o storemodel storemodel.c     Run: ./storemodel world=N [KNOB=N...]
 * Exit 0: no violation within the bounds; 1: violation, shortest trace printed; 2: bound of states reached.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint8_t u8;
enum { NF = 7, NP = 2, NC = 2, MAXREF = 8, STATE_MAX = 128 };

#define WORLDKNOBS(X) \
    X(world, 0) \
    /* pub */ \
    X(procs, 1)     /* publishers; 2: a second host with a cloned STATE (same snapshot id, same VM and epoch) */ \
    X(nonce, 1)     /* 1: a lease has a name that none had before; 0: one path for each VM and epoch, and what has it is removed first */ \
    X(pcrash, 1)    /* crashes of a publisher, which starts again and tries again */ \
    X(losts, 1)     /* replies that get lost (the client sends again and gets ENOENT, or EIO with an unknown outcome) */ \
    X(dups, 0)      /* renames that the server executes once more, later */ \
    X(bypath, 0)    /* 1: the server finds the lease directory by path (sshfs), not by its inode */ \
    X(uniq, 1)      /* 1: the staged name is new for each attempt */ \
    X(ownrev, 1)    /* all other leases of this VM and epoch are removed: 1 after the new one was made and checked, 2 before, 0 never */ \
    X(look, 3)      /* the target is looked at: 0 never, 1 before the lease is made, 2 after it was made and checked, 3 right before the rename */ \
    X(doubt, 0)     /* after ENOENT: 0 fenced at once, 1 look at the target: our file counts as published */ \
    X(accept, 2)    /* a target that is there: 0 collision unless it is our inode, 1 our inode or equal bytes, 2 any valid record of this snapshot: its content counts */ \
    X(norepl, 0)    /* 1: rename refuses to replace (RENAME_NOREPLACE, or an exclusive claim of the target name) */ \
    X(syncfirst, 1) /* fsync of the target's directory before "stored"; 0: after */ \
    X(lookagain, 1) /* after the fsync the target is looked at once more */ \
    X(acceptsync, 1) /* an accepted target's directory is fsynced too */ \
    X(revdir, 1)    /* the revoker removes the lease directory; 0: only what is in it */ \
    X(revfile, 1)   /* 0: the revoker renames the lease directory away and leaves the file in it */ \
    X(gsync, 1)     /* the revoker fsyncs leases/ before it is done */ \
    X(pow, 0)       /* power losses (all processes die) */ \
    X(anchorcheck, 1) /* the anchor that was linked is compared with the own recipe before the table relies on it */ \
    /* adopt */ \
    X(hosts, 3) X(apubs, 1) X(acrash, 1) \
    X(fresh, 1)     /* listings follow an own create + unlink in that directory; 0: any earlier state may be shown */ \
    X(freshsnap, 1) X(freshgen, 1) X(freshown, 1) X(freshlease, 1) /* the same, directory by directory */ \
    X(alllower, 1)  /* leases of all lower epochs are revoked; 0: of the one before only */ \
    X(allgens, 1)   /* in all generations; 0: in the newest only */ \
    X(redo, 1)      /* after a restart everything is revoked again before the first lease */ \
    X(excl, 1)      /* the epoch is made exclusively */ \
    X(listlast, 1)  /* snapshots are listed after revoking */ \
    X(ownercheck, 1) \
    /* slot */ \
    X(sops, 2)      /* manifests that each owner publishes at most */ \
    X(unique, 1)    /* file names are never used again; 0: named by the number of the manifest */ \
    X(eexist, 1)    /* after EEXIST: 0 compose again on the newest, 1 stop if it has a higher epoch */ \
    X(sweep, 1)     /* 0 everything unnamed, 1 only what is of the own epoch or a lower one, 2 the same, and only what the own manifests dropped or the own process wrote */ \
    X(takeover, 1)  /* a new owner publishes a manifest with its epoch before it writes or sweeps */ \
    X(aftercheck, 1) /* after publishing: no higher manifest exists, else stop */ \
    X(readcheck, 1) /* an owner that reads a manifest of a higher epoch stops */ \
    X(dropman, 1)   /* lower manifests are removed after publishing */ \
    X(idcheck, 1)   /* a reader compares the id in the file with the manifest's */ \
    /* names */ \
    X(nops, 2)      /* operations of each host */ \
    X(entryfirst, 1) /* create, rename, undelete: entry before record; 0: record first */ \
    X(linkfence, 1) /* an entry is published out of the lease too */ \
    X(rmode, 6)     /* an entry goes: 0 unlink by name, 1 read it, then unlink, 2 the removal carries the id, 3 rename into the own lease, \
                       4 the removal carries id and maker's epoch, 5 the same, and a repair leaves entries of higher epochs alone, 6 the same, with a random number new for each entry */ \
    X(recmode, 3)   /* a record changes: 0 overwritten, 1 exclusive version, 2 the same, and the adopter claims a version first, 3 out of the lease */ \
    X(repair, 1)    /* 1: the record is the truth: entries of own ids that it does not name go; 2: the repair also takes away other hosts' unfinished entries */ \
    X(repwhen, 1)   /* adopt: 1 repairs after fencing, 0 before */ \
    X(ndup, 0) X(nadopt, 1) X(ncrash, 1) \
    X(npow, 0)      /* crashes of the file server: what was not fsynced may be undone */ \
    X(nsync, 1)     /* each step is fsynced before the next */ \
    X(ownok, 0)     /* 1: an entry that is there and names our own VM counts as made */ \
    X(mvback, 0)    /* 1: after a failed record update the new entry is removed at once */ \
    X(n3, 2)        /* 1: report names that are lost in a quiet state; 2: only those that one more repair by the ids' owners leaves */

static size_t ssz; static u8 *st; static uint32_t *tab, *par; static size_t nst, maxst, tabsz;
static void (*emit)(const void *, const char *, ...); static bool solo; static size_t edges;

/* Knobs: bounds first, then the rules (1 = as the design or the fix says), then how rough the environment is. */
#define KNOBS(X) \
    X(start, 0)     /* 0: a snapshot exists and host 0's image is anchored to it; 1: that snapshot has expired, the anchor stays; \
                       2: a snapshot that shares its block, no anchor, and a collector about to open after a first read that missed it */ \
    X(refs, 3)      /* references that may be issued in all; 0 and 1 exist at the start (1 is garbage) */ \
    X(gens, 3)      /* generations that may be opened, the first included */ \
    X(pubs, 1) X(revs, 1) X(rms, 1) /* publications and reverts/clones/deletions per publisher; removals by the user */ \
    X(cols, 2)      /* collectors */ \
    X(npub, 2)      /* publishers that act */ \
    X(order, 0)     /* order of reading roots: 0 S,A,T (design)  1 A,S,T  2 T,A,S  3 S,T,A  4 A,T,S  5 T,S,A  6 A,T,S,T  7 A,S,T,S */ \
    X(filewise, 0)  /* 1: a collector reads one file at a time instead of one directory at a time */ \
    X(untrash, 0)   /* 1 (fix): an anchor that goes is renamed into trash/ like a snapshot, not unlinked */ \
    X(anchtrash, 0) /* 1: anchors may also be linked from another live image's anchor (clone of a live image) */ \
    X(trashgens, 2) /* trash is emptied that many generations later; -1: rm unlinks at once, no trash */ \
    X(record, 0)    /* 1 (fix): trash is emptied only of what a valid second read of an earlier generation listed */ \
    X(slowrm, 0)    /* 1: rm reads the generation, sleeps, then renames: its stamp may be old */ \
    X(checklog, 1)  /* publish check consults the deletion log */ \
    X(checkfoot, 1) /* publish check consults the footer (ordinal live) */ \
    X(logfirst, 1)  /* publish check reads the log first, footers second; 0: the other way round */ \
    X(prelease, 0)  /* 1: the publish check is done before the lease is taken */ \
    X(recheck, 1)   /* publish check again after being fenced */ \
    X(gencheck, 1)  /* after mkdir of the lease: no higher generation exists */ \
    X(revoke, 1)    /* collectors revoke leases of earlier generations; 2: only those of the one before */ \
    X(revokefirst, 0) /* 1: leases are revoked before the new generation is opened */ \
    X(read2, 1)     /* the second root read (4) */ \
    X(sealrule, 1)  /* only blocks sealed before this generation began are condemned */ \
    X(late, 2)      /* a late collector repeats (3)-(4): 0 never, 1 looks before the second read, 2 after it */ \
    X(cumulative, 1) /* the log of G+1 contains that of G (less what was un-condemned) */ \
    X(unread1, 0)   /* 1: the log also loses what the FIRST read found referenced */ \
    X(dropfreed, 0) /* 1: references already freed leave the cumulative log */ \
    X(freeall, 1)   /* step 5 frees all of the log that is unreferenced; 0: only what this collector condemned */ \
    X(append, 0)    /* 1: a VM's new block goes into its old container file, which compaction may be rewriting */ \
    X(anchorfirst, 1) /* table changes after the anchor is linked; 0: before */ \
    X(fsyncanchor, 1) /* anchors/ is fsynced before the table changes (matters with power=1) */ \
    X(power, 0)     /* power losses: an anchor not fsynced vanishes, all processes die */ \
    X(adopt, 0)     /* 1: both publishers are hosts of ONE VM; host 1 adopts it from host 0 */ \
    X(epochcheck, 1) /* after mkdir of the lease: no higher owner epoch exists */ \
    X(adoptrevoke, 1) /* adopt revokes the old owner's leases */ \
    X(adoptredo, 1) /* an adopter that crashed revokes again before its first lease */ \
    X(listlate, 1)  /* adopt lists the VM's snapshots after revoking (0: before) */ \
    X(retrynew, 1)  /* a publisher that finds a higher generation goes there; 0: it tries its old one again */ \
    X(i4runs, 4)    /* collections that must suffice for I4 */ \
    X(check3, 0) X(check4, 0) /* check I3 / I4 in every state (slow) */ \
    X(anyd, 0)      /* 1: instead of a first root read the collector condemns ANY set (covers every stale or wrong first read) */ \
    X(inodelink, 0) /* 1: a link out of a removed lease succeeds when the file was staged before (trash-keeping filesystem) */ \
    X(fence, 0)     /* 1: report a publication out of a removed lease even if it hurts nothing */ \
    X(undel, 0)     /* undeletes of trash entries */ \
    X(undelmode, 2) /* 0 rename back  1 check, then rename back  2 a copy is published through a lease, entry stays \
                       3 the same, but instead of the references it is checked (after the lease) that the entry is still in trash/  4 link back, entry stays */ \
    X(srv, 0)       /* crashes of the file server that the hosts survive: what was not fsynced is undone */ \
    X(fsyncopen, 1) /* generations/ is fsynced before leases are revoked */ \
    X(fsyncrevoke, 1) /* leases/ is fsynced before the second read */ \
    X(fsyncrm, 1)   /* rm fsyncs snapshots/DISK at once */ \
    X(fsyncempty, 1) /* who unlinks a trash entry fsyncs snapshots/DISK of its origin first */ \
    WORLDKNOBS(X) \
    X(mstates, 60)  /* give up after that many million states */
#define X(n, v) static int n = v;
KNOBS(X)
#undef X

enum { NONE, SNAP, TRASH, ANCH, ANCHV = ANCH + NP, TRASHA = ANCHV + NP, GHOST }; /* ANCH+i: of host i; ANCHV: not fsynced yet */
enum { IDLE, LEASE, MKDIR, CHECK, LOG, FOOT, LINK, STAGE, NEWANCH, FSYNC, TABLE, UNANCH, OFF, AREVOKE, ALIST, DEAD };
enum { CIDLE, READ1, OPEN, REVOKE, READ2, LATE, FREE, REWRITE, EMPTY };

enum { UIDLE, ULEASE, UMKDIR, UCHECK, ULOG, UFOOT, UPUB };
enum { PADDING = 5, MAYCOME = 0x80 };
typedef struct { u8 place, refs, stamp; } File;
typedef struct { u8 pc, gen, d, logm, foot, tbl, anc, nanc, snap, lease, pubs, revs, pseq, staged, lvol; } Pub;
typedef struct { u8 pc, gen, k, refs, lease, lvol, logm, n; } Und; /* who undeletes */
typedef struct { u8 pc, g, cur, m, D, L, F, img, tl; } Col;
typedef struct {
    u8 newest, nref, live, log, unc, seal[MAXREF], epoch, lastseq, rms, powers, bad;
    u8 srvs, gvol, plog, punc;
    File f[NF];
    Pub p[NP];
    Col c[NC];
    Und u;
    u8 unused[PADDING];
} __attribute__((aligned(8))) S; /* a multiple of 8 bytes, no hidden padding: states are compared with memcmp */

static u8 bit(int i) { return (u8)(1u << i); }
static void swapname(u8 *name, int a, int b) { if (*name == a + 1) *name = (u8)(b + 1); else if (*name == b + 1) *name = (u8)(a + 1); }
static void swapslots(S *t, int a, int b) {
    File x = t->f[a]; t->f[a] = t->f[b]; t->f[b] = x;
    for (int i = 0; i < NP; i++) { swapname(&t->p[i].anc, a, b); swapname(&t->p[i].nanc, a, b); swapname(&t->p[i].snap, a, b); }
    swapname(&t->u.k, a, b);
    for (int n = 0; n < NC; n++) { u8 *m = &t->c[n].tl; if (!(*m & bit(a)) != !(*m & bit(b))) *m ^= bit(a) | bit(b); }
}
static void canon(S *t) { /* one representative for states that can only behave alike */
    int lo = t->newest; /* the oldest generation that any collection still works on, or will */
    for (int n = 0; n < NC; n++) if (t->c[n].pc && t->c[n].g < lo) lo = t->c[n].g;
    for (int r = 0; r < t->nref; r++) if (t->seal[r] < lo || !(t->live & bit(r))) t->seal[r] = 0;
    for (int i = 0; i < NP; i++) t->p[i].lease &= (u8)(bit(t->p[i].gen) | -(1 << t->newest));
    for (int i = 0; i < NP; i++) t->p[i].lvol &= (u8)(bit(t->p[i].gen) | -(1 << t->newest));
    t->u.lease &= (u8)(bit(t->u.gen) | -(1 << t->newest)); t->u.lvol &= (u8)(bit(t->u.gen) | -(1 << t->newest));
    for (int k = 0; k < NF; k++) if (t->f[k].stamp && !record && t->f[k].stamp + trashgens <= lo + 1) t->f[k].stamp = 0;
    for (int k = 1; k < NF && !filewise; k++)
        for (int j = k; j && memcmp(&t->f[j - 1], &t->f[j], sizeof(File)) > 0; j--) swapslots(t, j - 1, j);
    if (memcmp(&t->c[0], &t->c[1], sizeof(Col)) > 0) { Col x = t->c[0]; t->c[0] = t->c[1]; t->c[1] = x; }
}
/* ---- small helpers on the store ---- */
static bool isanch(int place, int i) { return place == ANCH + i || place == ANCHV + i; }
static bool istrash(int place) { return place == TRASH || place == TRASHA; }
static void clearslot(S *t, int k) { /* the name is gone; nobody may take a later file in this slot for it */
    bool ghost = t->f[k].place == TRASH && t->f[k].stamp & MAYCOME && t->srvs;
    t->f[k] = ghost ? (File){GHOST, t->f[k].refs, 0} : (File){0}; /* its name in snapshots/ comes back with the server's crash */
    if (t->u.k == k + 1) t->u.k = 0;
    for (int i = 0; i < NP; i++) if (t->p[i].snap == k + 1) t->p[i].snap = 0;
    for (int i = 0; i < NC; i++) t->c[i].tl &= (u8)~bit(k);
}
static void totrash(S *t, int k, int stamp) {
    if (trashgens < 0) { clearslot(t, k); return; }
    t->f[k].stamp = record ? 0 : (u8)stamp;
    if (!fsyncrm && t->srvs && t->f[k].place == SNAP) t->f[k].stamp |= MAYCOME;
    t->f[k].place = t->f[k].place == SNAP ? TRASH : TRASHA;
    for (int i = 0; i < NP; i++) if (t->p[i].snap == k + 1) t->p[i].snap = 0;
}
static int newref(S *t, int sealed_in) {
    if (t->nref >= (solo ? MAXREF : refs)) return -1;
    t->seal[t->nref] = (u8)sealed_in; t->live |= bit(t->nref);
    return t->nref++;
}
static u8 needed(const S *s) {
    u8 m = 0;
    for (int k = 0; k < NF; k++) if (s->f[k].place != NONE && !istrash(s->f[k].place) && s->f[k].place != GHOST) m |= s->f[k].refs;
    for (int i = 0; i < NP; i++) m |= s->p[i].tbl;
    return m;
}
#define EACHFREE(k, t) for (int k = 0, once_ = 1; k < NF && once_; k++) if ((t)->f[k].place == NONE && ((once_ = filewise && !solo), 1))

/* ---- a publisher ---- */
static void linkanchor(const S *s, int i, int from, int nextpc) { /* link(from, anchors/new) */
    EACHFREE(k, s) {
        S t = *s;
        t.f[k] = (File){(u8)((power ? ANCHV : ANCH) + i), s->f[from].refs, 0};
        t.p[i].nanc = (u8)(k + 1); t.p[i].snap = 0; t.p[i].pc = (u8)nextpc;
        if (!anchorfirst) { t.p[i].anc = t.p[i].nanc; t.p[i].nanc = 0; t.p[i].pc = UNANCH; }
        emit(&t, "host %d links root %d into anchors/ as root %d", i, from, k);
    }
}
static void publisher(const S *s, int i) {
    const Pub *p = &s->p[i]; S t = *s; Pub *q = &t.p[i];
    int afterlink = power && fsyncanchor ? FSYNC : TABLE;
    switch (p->pc) {
    case IDLE:
        if (p->pubs) { q->pc = prelease || p->gen ? LOG : LEASE; emit(&t, "host %d starts a snapshot", i); }
        if (p->revs && !solo) {
            for (int k = 0; k < NF; k++) if (s->f[k].place == SNAP || (anchtrash && isanch(s->f[k].place, 1 - i))) {
                S u = *s; u.p[i].revs--;
                if (!anchorfirst) { u.p[i].tbl = s->f[k].refs; u.p[i].anc = 0; u.p[i].snap = (u8)(k + 1); u.p[i].pc = NEWANCH;
                                    emit(&u, "host %d points its table at root %d", i, k); }
                else linkanchor(&u, i, k, afterlink);
            }
            if (p->tbl) { t = *s; q->revs--; q->tbl = 0; q->anc = 0; q->pc = UNANCH; emit(&t, "host %d empties its live image", i); }
        }
        break;
    case LEASE: q->gen = s->newest; q->pc = MKDIR; emit(&t, "host %d sees newest generation %d", i, s->newest); break;
    case MKDIR: q->lease |= bit(p->gen); q->pc = CHECK; emit(&t, "host %d makes its lease in generation %d", i, p->gen); break;
    case CHECK:
        if (adopt && i == 0 && s->epoch && epochcheck) {
            q->lease &= (u8)~bit(p->gen); q->gen = 0; q->pc = DEAD; q->d = q->logm = q->foot = 0;
            emit(&t, "host 0 finds a higher owner epoch and stops");
        } else if (s->newest > p->gen && gencheck) {
            q->lease &= (u8)~bit(p->gen); if (retrynew) q->gen = 0; q->pc = retrynew ? LEASE : MKDIR;
            emit(&t, "host %d finds a higher generation, drops the lease", i);
        }
        else { q->pc = p->d ? LINK : LOG; emit(&t, "host %d checks its lease: good", i); }
        break;
    case LOG: case FOOT: { /* the publish check, in two reads whose order is a knob */
        bool islog = (p->pc == LOG) == (logfirst != 0);
        if (islog) q->logm = checklog ? s->log : 0; else q->foot = checkfoot ? s->live : 0xff;
        if (p->pc == LOG) { q->pc = FOOT; emit(&t, "host %d reads %s", i, islog ? "the deletion log" : "the footers"); break; }
        q->pc = prelease && !p->gen ? LEASE : inodelink ? STAGE : LINK; /* the hint, as late as can be: any reference that passes, or a new block */
        for (int h = 0; h <= s->nref; h++) {
            S u = t; Pub *v = &u.p[i]; v->logm = v->foot = 0; v->d = bit(h);
            if (h == s->nref ? newref(&u, p->gen ? p->gen : s->newest) < 0 : (q->logm & bit(h)) || !(q->foot & bit(h))) continue;
            emit(&u, h == s->nref ? "host %d reads %s: hint fails, new block %d" : "host %d reads %s: hint to block %d passes", i,
                 islog ? "the deletion log" : "the footers", h);
        }
        break; }
    case STAGE:
        if (p->lease & bit(p->gen)) { q->staged = 1; q->pc = LINK; emit(&t, "host %d stages its recipe in the lease", i); }
        else { q->gen = 0; q->pc = LEASE; q->d = 0; emit(&t, "host %d: staging gives ENOENT, fenced", i); }
        break;
    case LINK:
        if (!(p->lease & bit(p->gen)) && !p->staged) {
            q->gen = 0; q->pc = LEASE; if (recheck && !prelease) q->d = 0;
            emit(&t, "host %d: link gives ENOENT, fenced", i); break;
        }
        for (int keep = 0; keep <= (p->tbl != 0); keep++) EACHFREE(k, s) { /* keep: level 1, clean segments by the table */
            t = *s;
            t.f[k] = (File){SNAP, (u8)((keep ? p->tbl : 0) | p->d), 0};
            if (fence && !(p->lease & bit(p->gen))) t.bad = 3;
            q->staged = 0;
            q->pubs--; q->d = 0; q->snap = (u8)(k + 1); q->pc = NEWANCH;
            if (adopt) { if (p->pseq != s->lastseq) t.bad = 2; q->pseq = t.lastseq = (u8)(s->lastseq + 1); }
            emit(&t, "host %d PUBLISHES root %d with blocks %02x", i, k, t.f[k].refs);
        }
        break;
    case NEWANCH: /* the live image goes on from the new snapshot (or, anchorfirst=0, catches up with its anchor) */
        if (p->snap && (s->f[p->snap - 1].place == SNAP || isanch(s->f[p->snap - 1].place, 1 - i)))
            linkanchor(s, i, p->snap - 1, afterlink);
        else { q->snap = 0; q->pc = UNANCH; emit(&t, "host %d: link into anchors/ gives ENOENT, refused", i); }
        break;
    case FSYNC: t.f[p->nanc - 1].place = (u8)(ANCH + i); q->pc = TABLE; emit(&t, "host %d fsyncs anchors/", i); break;
    case TABLE:
        /* durable; one turn with what follows: between them only a crash, which ends in UNANCH too */
        q->tbl = s->f[p->nanc - 1].refs; q->anc = p->nanc; q->nanc = 0;
        /* fall through */
    case UNANCH:
        for (int k = 0; k < NF; k++)
            if (isanch(s->f[k].place, i) && q->anc != k + 1) { if (untrash) totrash(&t, k, s->newest); else clearslot(&t, k); }
        q->pc = IDLE;
        emit(&t, p->pc == TABLE ? "host %d changes its table and removes the old anchor" : "host %d removes anchors it does not need", i);
        break;
    case OFF:
        if (!solo && !s->epoch) { t.epoch = 1; q->pc = listlate ? AREVOKE : ALIST; emit(&t, "host 1 adopts: creates owner epoch 1"); }
        break;
    case AREVOKE:
        if (t.p[0].lease && adoptrevoke) { t.p[0].lease &= (u8)(t.p[0].lease - 1); emit(&t, "host 1 revokes a lease of the old owner"); }
        else { q->pc = listlate ? ALIST : IDLE; emit(&t, "host 1 finds no lease of the old owner"); }
        break;
    case ALIST:
        for (int k = 0; k < NF; k++) if (s->f[k].place == SNAP) { S u = *s; u.p[1].pseq = s->lastseq; linkanchor(&u, 1, k, afterlink); }
        if (!listlate) { q->pseq = s->lastseq; q->pc = AREVOKE; emit(&t, "host 1 lists the VM's snapshots"); }
        break;
    }
    if (!solo && p->pc != IDLE && p->pc != OFF && p->pc != DEAD && p->pc != UNANCH) { /* crash and restart */
        t = *s;
        q->d = q->logm = q->foot = q->nanc = q->snap = q->gen = q->staged = 0; q->pc = UNANCH;
        if (p->pc == AREVOKE || p->pc == ALIST) q->pc = adoptredo ? AREVOKE : ALIST;
        if (q->pc == p->pc) return;
        emit(&t, "host %d crashes and restarts", i);
    }
}

/* ---- a collector ---- */
static bool readroots(S *t, Col *c) { /* one directory (or one file) a turn; true when all were read */
    static const u8 ord[6][3] = {{SNAP, ANCH, TRASH}, {ANCH, SNAP, TRASH}, {TRASH, ANCH, SNAP},
                                 {SNAP, TRASH, ANCH}, {ANCH, TRASH, SNAP}, {TRASH, SNAP, ANCH}};
    static const u8 four[2][4] = {{ANCH, TRASH, SNAP, TRASH}, {ANCH, SNAP, TRASH, SNAP}};
    int parts = order > 5 ? 4 : 3;
    int dir = filewise ? c->cur / NF : c->cur, from = filewise ? c->cur % NF : 0, to = filewise ? from + 1 : NF;
    for (int k = from; k < to; k++) {
        int pl = t->f[k].place == TRASHA ? TRASH : t->f[k].place == GHOST ? NONE : t->f[k].place >= ANCH ? ANCH : t->f[k].place;
        if (pl != (order > 5 ? four[order - 6][dir] : ord[order][dir])) continue;
        c->m |= t->f[k].refs;
        if (pl == TRASH) c->tl |= bit(k);
    }
    return ++c->cur == (filewise ? parts * NF : parts);
}
static void prepare(const S *s, Col *c) { /* compose the cumulative log of the generation to open */
    c->g = s->newest;
    c->L = (u8)((cumulative ? s->log & ~s->unc : 0) | c->D);
    if (unread1) c->L &= (u8)~c->m;
    if (dropfreed) c->L &= s->live;
    c->m = c->tl = c->cur = 0; c->pc = revokefirst ? REVOKE : OPEN;
}
static void collector(const S *s, int n) {
    S t = *s; Col *c = &t.c[n];
    int old = c->pc;
    switch (c->pc) {
    case CIDLE:
        if (s->newest >= (solo ? 7 : gens)) return;
        if (anyd && !solo) {
            for (int D = 1; D < 1 << s->nref; D++) {
                Col x = {.D = (u8)(D & s->live)};
                t.c[n] = x; prepare(s, &t.c[n]); emit(&t, "collector condemns %02x", x.D);
            }
            return;
        }
        c->pc = READ1; c->g = s->newest; emit(&t, "collector starts in generation %d", s->newest); break;
    case READ1:
        if (readroots(&t, c)) {
            for (int r = 0; r < s->nref; r++)
                if (!(c->m & bit(r)) && (s->live & bit(r)) && (!sealrule || s->seal[r] < c->g)) c->D |= bit(r);
            prepare(s, c);
            emit(&t, "collector ends its first root read, condemns %02x", c->D);
        } else emit(&t, "collector's first root read, part %d", c->cur);
        break;
    case OPEN:
        if (s->newest != c->g) { prepare(s, c); emit(&t, "collector is late: composes the log again on generation %d", s->newest); break; }
        if (s->newest >= (solo ? 7 : gens)) return;
        if (srv && s->srvs) { if (fsyncopen) t.gvol = t.plog = t.punc = 0; else t.gvol = 1, t.plog = s->log, t.punc = s->unc; }
        t.newest++; t.log = c->L; t.unc = 0; c->pc = revokefirst ? READ2 : REVOKE; c->cur = 0;
        emit(&t, "collector OPENS generation %d, log %02x", t.newest, t.log); break;
    case REVOKE: {
        u8 mask = revoke == 0 ? 0 : revoke == 2 ? bit(c->g) : (u8)((2u << c->g) - 1);
        u8 *lease = c->cur < NP ? &t.p[c->cur].lease : &t.u.lease, *lvol = c->cur < NP ? &t.p[c->cur].lvol : &t.u.lvol;
        if (!fsyncrevoke && s->srvs) *lvol |= *lease & mask;
        *lease &= (u8)~mask;
        if (++c->cur == NP + (undel != 0)) { c->cur = 0; c->pc = revokefirst ? OPEN : late == 1 ? LATE : READ2; }
        emit(&t, "collector revokes leases of host %d up to generation %d", s->c[n].cur, c->g);
        break; }
    case READ2:
        if (read2 && !readroots(&t, c)) { emit(&t, "collector's second root read, part %d", c->cur); break; }
        c->cur = 0; c->F = (u8)((freeall ? c->L : c->D) & ~c->m);
        if (late == 2 && s->newest != c->g + 1) {
            prepare(s, c); c->F = 0; emit(&t, "collector ends its second root read, is late: repeats (3)-(4)"); break;
        }
        if (s->newest == c->g + 1) t.unc = c->L & c->m; /* recorded by the opener of G+1: the next log leaves these out */
        if (record && s->newest == c->g + 1)
            for (int k = 0; k < NF; k++) if (c->tl & bit(k) && istrash(t.f[k].place) && !(t.f[k].stamp & ~MAYCOME)) t.f[k].stamp |= (u8)(c->g + 1);
        c->m = c->D = c->L = c->tl = 0; c->pc = FREE;
        emit(&t, "collector ends its second root read: frees %02x, un-condemns %02x", c->F, t.unc); break;
    case LATE:
        if (s->newest != c->g + 1) { prepare(s, c); c->F = 0; emit(&t, "collector is late: repeats (3)-(4)"); break; }
        c->pc = READ2; emit(&t, "collector is not late"); break;
    case FREE:
        c->F &= s->live;
        if (!c->F) { c->pc = EMPTY; emit(&t, "collector has freed all it may"); break; }
        if (append) { c->img = s->live; c->pc = REWRITE; emit(&t, "collector reads containers to compact (%02x)", s->live); break; }
        t.live &= (u8)~c->F; c->F = 0;
        emit(&t, "collector FREES, live is %02x", t.live); break;
    case REWRITE: /* all blocks lie in one container file here: the rename also loses what was appended meanwhile */
        t.live = c->img & (u8)~c->F; c->F = c->img = 0; c->pc = FREE;
        emit(&t, "collector renames the compacted container over the old, live is %02x", t.live); break;
    case EMPTY:
        for (int k = 0; k < NF; k++)
            if (istrash(s->f[k].place) && (record ? s->f[k].stamp & ~MAYCOME && (s->f[k].stamp & ~MAYCOME) < c->g + 1 : (s->f[k].stamp & ~MAYCOME) + trashgens <= c->g + 1)) {
                if (fsyncempty) t.f[k].stamp &= (u8)~MAYCOME;
                clearslot(&t, k);
            }
        t.c[n] = (Col){0}; emit(&t, "collector empties old trash"); break;
    }
    if (!solo && old != CIDLE && old != EMPTY) { t = *s; t.c[n] = (Col){0}; emit(&t, "a collector crashes"); }
}

/* ---- undelete ---- */
static bool inslot(const S *s, int k) { return k && s->f[k - 1].place == TRASH; }
static void undeleter(const S *s) {
    const Und *u = &s->u; S t = *s; Und *v = &t.u; u8 badrefs = (u8)(u->refs & (u->logm | ~s->live));
    switch (u->pc) {
    case UIDLE:
        if (u->n) for (int k = 0; k < NF; k++) if (s->f[k].place == TRASH) {
            t = *s; v->n--; v->k = (u8)(k + 1); v->refs = s->f[k].refs;
            if (undelmode == 0) { t.f[k].place = SNAP; t.f[k].stamp = 0; v->k = v->refs = 0; emit(&t, "undelete renames root %d back", k); continue; }
            v->pc = undelmode == 1 ? ULOG : undelmode == 2 || undelmode == 3 ? ULEASE : UPUB;
            emit(&t, "undelete opens trash entry %d", k);
        }
        return;
    case ULEASE: v->gen = s->newest; v->pc = UMKDIR; emit(&t, "undelete sees generation %d", s->newest); break;
    case UMKDIR: v->lease |= bit(u->gen); v->pc = UCHECK; emit(&t, "undelete makes its lease in generation %d", u->gen); break;
    case UCHECK:
        if (s->newest > u->gen) { v->lease &= (u8)~bit(u->gen); v->gen = 0; v->pc = ULEASE; emit(&t, "undelete finds a higher generation"); }
        else v->pc = undelmode == 3 ? UFOOT : ULOG, emit(&t, "undelete: lease is good");
        break;
    case ULOG: v->logm = checklog ? s->log : 0; v->pc = UFOOT; emit(&t, "undelete reads the deletion log"); break;
    case UFOOT:
        if (undelmode == 3) {
            v->pc = inslot(s, u->k) ? UPUB : UIDLE; if (!inslot(s, u->k)) v->k = v->refs = v->gen = 0;
            emit(&t, inslot(s, u->k) ? "undelete looks: the entry is still in trash/" : "undelete looks: the entry is gone"); break;
        }
        if (!checkfoot) badrefs &= u->logm;
        v->logm = 0; v->pc = badrefs ? UIDLE : UPUB; if (badrefs) v->k = v->refs = v->gen = 0;
        emit(&t, badrefs ? "undelete reads the footers: REFUSED, condemned or freed" : "undelete reads the footers: good"); break;
    case UPUB:
        if (undelmode == 1) {
            if (inslot(s, u->k)) t.f[u->k - 1].place = SNAP, t.f[u->k - 1].stamp = 0;
            v->k = v->refs = v->pc = 0; emit(&t, inslot(s, u->k) ? "undelete renames the entry back" : "undelete: entry is gone"); break;
        }
        if ((undelmode == 2 || undelmode == 3) && !(u->lease & bit(u->gen))) { v->gen = 0; v->pc = ULEASE; emit(&t, "undelete: rename gives ENOENT, fenced"); break; }
        if (undelmode == 4 && !inslot(s, u->k) && !inodelink) { v->k = v->refs = v->pc = 0; emit(&t, "undelete: entry is gone"); break; }
        EACHFREE(k, s) {
            t = *s; t.f[k] = (File){SNAP, u->refs, 0}; v->pc = v->k = v->refs = v->gen = 0; v->lease &= (u8)~bit(u->gen);
            emit(&t, "undelete PUBLISHES root %d with blocks %02x", k, u->refs);
        }
        break;
    }
    if (u->pc) { t = *s; v->pc = v->k = v->refs = v->gen = v->logm = 0; emit(&t, "undelete crashes"); }
}
static void servercrash(const S *s) {
    S t = *s; t.srvs--;
    if (t.gvol) { t.newest--; t.log = t.plog; t.unc = t.punc; t.gvol = t.plog = t.punc = 0; }
    for (int i = 0; i < NP; i++) t.p[i].lease |= t.p[i].lvol, t.p[i].lvol = 0;
    t.u.lease |= t.u.lvol; t.u.lvol = 0;
    for (int k = 0; k < NF; k++) {
        if (t.f[k].place == GHOST || (t.f[k].place == TRASH && t.f[k].stamp & MAYCOME)) t.f[k].place = SNAP, t.f[k].stamp = 0;
        t.f[k].stamp &= (u8)~MAYCOME;
    }
    emit(&t, "the file server crashes and comes back: what was not fsynced is undone");
}

static void successors(const void *s_) {
    const S *s = s_;
    if (undel) undeleter(s);
    if (s->srvs) servercrash(s);
    for (int i = 0; i < npub; i++) publisher(s, i);
    int busy = 0;
    for (int n = 0; n < NC; n++) busy += s->c[n].pc != CIDLE;
    for (int n = 0; n < NC; n++) if (s->c[n].pc != CIDLE || (busy < cols && (n == 0 || s->c[0].pc != CIDLE))) collector(s, n);
    if (s->rms) for (int k = 0; k < NF; k++) if (s->f[k].place == SNAP)
        for (int g = slowrm ? 1 : s->newest; g <= s->newest; g++) {
            S t = *s; t.rms--; totrash(&t, k, g);
            emit(&t, "user removes root %d from snapshots/ (stamp %d)", k, g);
        }
    if (s->powers) {
        S t = *s; t.powers--;
        for (int k = 0; k < NF; k++) if (t.f[k].place >= ANCHV) clearslot(&t, k);
        for (int i = 0; i < NP; i++)
            if (t.p[i].pc < OFF) {
                Pub *q = &t.p[i];
                q->d = q->logm = q->foot = q->nanc = q->snap = q->gen = q->staged = 0; if (q->pc != IDLE) q->pc = UNANCH;
            }
        memset(t.c, 0, sizeof t.c);
        emit(&t, "power loss");
    }
}

/* ---- I3 and I4: one process alone, from a state ---- */
static bool s3ok; static int s3who, s3depth;
static void s3emit(const void *t_, const char *fmt, ...) {
    (void)fmt; const S *t = t_;
    if (t->p[s3who].pc == NEWANCH || t->p[s3who].pc == DEAD) return; /* published (or rightly stopped) */
    if (++s3depth > 24) { s3ok = false; s3depth--; return; }
    S u = *t; publisher(&u, s3who); s3depth--;
}
static bool i3(const S *s) {
    s3ok = true; solo = true; void (*keep)(const void *, const char *, ...) = emit; emit = s3emit;
    for (s3who = 0; s3who < npub && s3ok; s3who++) if (s->p[s3who].pubs && s->p[s3who].pc <= LINK) { s3depth = 0; publisher(s, s3who); }
    emit = keep; solo = false; return s3ok;
}
static S s4; static bool s4moved;
static void s4emit(const void *t, const char *fmt, ...) { (void)fmt; s4 = *(const S *)t; s4moved = true; }
static bool i4(const S *s) {
    for (int i = 0; i < npub; i++) if (s->p[i].pc != IDLE && s->p[i].pc != DEAD && s->p[i].pc != OFF) return true;
    for (int n = 0; n < NC; n++) if (s->c[n].pc != CIDLE) return true;
    solo = true; void (*keep)(const void *, const char *, ...) = emit; emit = s4emit; s4 = *s;
    for (int run = 0; run < i4runs; run++)
        do { S u = s4; s4moved = false; collector(&u, 0); } while (s4moved && s4.c[0].pc != CIDLE);
    emit = keep; solo = false; return s4.live == needed(&s4);
}


static void store_canon(void *t) { canon(t); }
static const char *store_check(const void *s_) {
    const S *t = s_;
    if (t->bad == 3) return "I5: published out of a lease that was removed";
    if (t->bad) return "I2: history of the VM forks: a publisher did not know the last snapshot";
    if (needed(t) & ~t->live) return "I1: a root or a live table needs a freed block";
    if (check3 && !i3(t)) return "I3: a publisher left alone does not publish";
    if (check4 && !i4(t)) return "I4: collections in a quiet store leave garbage";
    return NULL;
}
static void store_init(void *s_) {
    S s = {.newest = 1, .nref = 2, .live = 3, .rms = (u8)rms, .powers = (u8)power, .srvs = (u8)srv};
    if (!start || start == 3) s.f[0] = (File){SNAP, 1, 0};
    s.f[1] = (File){ANCH, 1, 0}; /* a snapshot and the anchor of host 0's live image */
    s.p[0] = (Pub){.pc = IDLE, .tbl = 1, .anc = 2, .pubs = (u8)pubs, .revs = (u8)revs};
    s.p[1] = (Pub){.pc = adopt ? OFF : IDLE, .pubs = (u8)pubs, .revs = (u8)revs};
    s.u.n = (u8)undel;
    if (start == 2) {
        s.f[0] = (File){SNAP, 3, 0}; s.f[1] = (File){0}; s.p[0].tbl = s.p[0].anc = 0;
        s.c[0] = (Col){.pc = OPEN, .g = 1, .D = 1, .L = 1};
    }
    if (start == 3) { s.f[1] = (File){0}; s.p[0].tbl = s.p[0].anc = 0; } /* one snapshot, nothing else */
    memcpy(s_, &s, sizeof s);
}
_Static_assert(sizeof(S) == 23 - 1 + 21 + 30 + 18 + 8 + PADDING, "hidden padding would break memcmp");

/* ==== world 1: one publication by rename ==== */
/* Objects are staged files 1..MAXO: who wrote them, complete or not. Every object is a recipe of ONE snapshot id; two objects hold
 * different references (a new publish check, another host's containers), so replacing one by another is a fault.
 * Lease directories are inodes 1..MAXD; named: those that have a name, in the generation dirgen; without a nonce one in each generation. */
enum { MAXO = 5, MAXD = 5 };
enum { PIDLE, PLOOK0, POWN1, POWN2, PLEASE, PTAKE, PMAKE, PCHECK, PLOOK, PSTAGE, PWRITE, PREN, PDOUBT, PFSYNC, PAGAIN, PSAY, PANCH, PDONE, PSTUCK };
enum { RIDLE, RUNLINK, RRMDIR, RCLOSE, RSYNC, RDONE };
typedef struct { u8 pc, gen, dir, obj, said, anch, listed, rest; } PP;   /* rest: own leases that were listed and are not removed yet */
typedef struct {
    u8 newest, closed, target, dtarget, nobj, ndir, done, complete;   /* closed: masks of generations; complete: mask of objects */
    u8 named, staged[MAXD + 1], dirgen[MAXD + 1], dead;                 /* dead: mask of directory inodes that were removed */
    u8 vdir, vst[MAXD + 1];                                             /* removed by the revoker, not fsynced: come back with the server */
    u8 dup, dupobj, losts, dups, crashes, srvs, pows, bad;
    PP p[2];
    u8 rpc;
} PS;
static void nocanon(void *s) { (void)s; }
static void pub_init(void *s_) {
    PS *s = s_; s->newest = 1; s->losts = (u8)losts; s->dups = (u8)dups; s->crashes = (u8)pcrash; s->srvs = (u8)srv; s->pows = (u8)pow;
}
static const char *pub_check(const void *s_) {
    const PS *s = s_;
    static const char *const bads[] = {0, "P1: published out of a lease whose revoker was done", "P2: a half-written recipe is published",
        "P3: a published recipe was replaced by another one", "P4: \"stored\" was said, the snapshot is not there", "P5: the publisher is stuck: collision for ever",
        "P6: the live image relies on an anchor of another recipe"};
    return s->bad ? bads[s->bad] : NULL;
}
static u8 named_in(const PS *s, int g) { u8 m = 0; for (int d = 1; d <= s->ndir; d++) if (s->named & bit(d) && s->dirgen[d] == g) m |= bit(d); return m; }
static int lowest(u8 m) { for (int d = 1; d <= MAXD; d++) if (m & bit(d)) return d; return 0; }
static void dir_gone(PS *t, int d) { t->staged[d] = 0; t->dead |= bit(d); t->named &= (u8)~bit(d); }
static void do_rename(PS *t, int dir, int obj) { /* the server executes it; obj 0: whatever has the name */
    int o = t->staged[dir];
    if (!o || (obj && obj != o) || t->dead & bit(dir)) return;
    if (norepl && t->target) return;
    if (t->done & bit(t->dirgen[dir])) t->bad = 1;
    if (!(t->complete & bit(o))) t->bad = 2;
    if (t->target && t->target != o) {
        for (int i = 0; i < 2; i++) if (t->p[i].said == t->target) t->bad = 3;
        if (t->dtarget == t->target) t->bad = 3;
    }
    t->target = (u8)o; t->staged[dir] = 0;
}
#define PNEW (ownrev == 2 ? POWN1 : PLEASE)
static void pub_succ(const void *s_) {
    const PS *s = s_;
    for (int i = 0; i < procs; i++) {
        const PP *p = &s->p[i]; PS t = *s; PP *q = &t.p[i];
        switch (p->pc) {
        case PIDLE: q->pc = look == 1 ? PLOOK0 : PNEW; emit(&t, "host %d begins to publish", i); break;
        case PLOOK0: case PLOOK:
            if (!s->target) { q->pc = p->pc == PLOOK0 ? PNEW : look == 3 ? PREN : PSTAGE; emit(&t, "host %d looks at the target: not there", i); }
            else if (s->target == p->obj || accept == 2) { q->obj = s->target; q->pc = acceptsync && syncfirst ? PFSYNC : PSAY; emit(&t, "host %d looks at the target: file %d is there, accepted", i, s->target); }
            else { q->pc = PSTUCK; t.bad = 5; emit(&t, "host %d looks at the target: file %d is there: a collision", i, s->target); }
            break;
        case POWN1: case POWN2: { int g = p->pc - POWN1 + 1; u8 others = named_in(s, g) & (u8)~bit(p->dir);
            if (nonce && !p->listed) { q->rest = others; q->listed = 1; emit(&t, "host %d lists the leases of generation %d", i, g); break; }
            if (nonce && p->rest) {
                for (int d = 1; d <= MAXD; d++) if (p->rest & bit(d)) { PS v = t; v.p[i].rest &= (u8)~bit(d); dir_gone(&v, d); emit(&v, "host %d removes its other lease, directory %d", i, d); }
                break;
            }
            if (!nonce && others) dir_gone(&t, lowest(others));
            q->listed = 0; q->pc++; if (ownrev == 1 && p->pc == POWN2) q->pc = look == 2 ? PLOOK : PSTAGE; emit(&t, "host %d has removed its other leases of generation %d", i, g); break; }
        case PLEASE: q->gen = s->newest; q->pc = !nonce && named_in(s, q->gen) ? PTAKE : PMAKE; emit(&t, "host %d sees generation %d", i, q->gen); break;
        case PTAKE: { u8 d = named_in(s, p->gen); if (d) dir_gone(&t, lowest(d)); q->pc = PMAKE; emit(&t, "host %d removes the lease that was there", i); break; }
        case PMAKE:
            if (s->closed & bit(p->gen)) { q->pc = PLEASE; emit(&t, "host %d: mkdir gives ENOENT", i); break; }
            if (!nonce && named_in(s, p->gen)) { q->pc = PTAKE; emit(&t, "host %d: mkdir gives EEXIST", i); break; }
            if (s->ndir == MAXD) break;
            q->dir = ++t.ndir; t.named |= bit(q->dir); t.dirgen[q->dir] = p->gen; q->pc = PCHECK; emit(&t, "host %d makes its lease, directory %d in generation %d", i, q->dir, p->gen); break;
        case PCHECK:
            if (s->newest > p->gen) { q->pc = PLEASE; if (s->named & bit(p->dir)) dir_gone(&t, p->dir); q->dir = 0; emit(&t, "host %d finds a higher generation", i); }
            else { q->pc = ownrev == 1 ? POWN1 : look == 2 ? PLOOK : PSTAGE; emit(&t, "host %d: lease is good", i); }
            break;
        case PSTAGE:
            if (s->dead & bit(p->dir)) { q->pc = PLEASE; q->dir = q->obj = 0; emit(&t, "host %d: create gives ENOENT, fenced", i); break; }
            if (s->nobj == MAXO) break;
            q->obj = ++t.nobj; t.staged[p->dir] = q->obj; q->pc = PWRITE; emit(&t, "host %d creates file %d in directory %d", i, q->obj, p->dir); break;
        case PWRITE: t.complete |= bit(p->obj); q->pc = look == 3 ? PLOOK : PREN; emit(&t, "host %d writes and fdatasyncs file %d", i, p->obj); break;
        case PREN: {
            bool there = s->staged[p->dir] == p->obj && !(s->dead & bit(p->dir)), eexist_ = there && norepl && s->target;
            do_rename(&t, p->dir, 0);
            q->pc = eexist_ ? PLOOK : there ? (syncfirst ? PFSYNC : PSAY) : PDOUBT;
            emit(&t, eexist_ ? "host %d: rename gives EEXIST" : there ? "host %d RENAMES file %d to the target" : "host %d: rename of file %d gives ENOENT", i, p->obj);
            if (there && !eexist_ && s->losts) {
                t.losts--; q->pc = PDOUBT; emit(&t, "host %d RENAMES file %d to the target, the reply is lost, sent again: ENOENT", i, p->obj);
                if (s->dups) { t.dups--; t.dup = bypath && !nonce ? 0x10 | s->dirgen[p->dir] : p->dir; t.dupobj = uniq ? p->obj : 0; emit(&t, "host %d RENAMES file %d, reply lost, the request is still on its way once more: ENOENT", i, p->obj); }
            }
            if (there && s->losts && s->dups) { /* EIO: not executed yet, will be */
                t = *s; t.losts--; t.dups--; t.dup = bypath && !nonce ? 0x10 | s->dirgen[p->dir] : p->dir; t.dupobj = uniq ? p->obj : 0; q->pc = PDOUBT;
                emit(&t, "host %d: rename of file %d gives EIO, the request is still on its way", i, p->obj);
            }
            break; }
        case PDOUBT:
            if (doubt && s->target && (s->target == p->obj || accept == 2)) { q->obj = s->target; q->pc = acceptsync && syncfirst ? PFSYNC : PSAY; emit(&t, "host %d looks: file %d is at the target, accepted", i, s->target); }
            else { q->pc = look == 1 ? PLOOK0 : PNEW; q->dir = q->obj = 0; emit(&t, "host %d takes it as fenced: new lease, new check", i); }
            break;
        case PFSYNC: t.dtarget = s->target; q->pc = lookagain ? PAGAIN : PSAY; if (!syncfirst) q->pc = PANCH; emit(&t, "host %d fsyncs the target's directory", i); break;
        case PAGAIN:
            if (s->target == p->obj) { q->pc = PSAY; emit(&t, "host %d looks again: still there", i); }
            else if (s->target && accept == 2) { q->obj = s->target; q->pc = PFSYNC; emit(&t, "host %d looks again: another file is there, accepted", i); }
            else { q->pc = PNEW; q->dir = q->obj = 0; emit(&t, "host %d looks again: gone, begins again", i); }
            break;
        case PSAY: q->said = p->obj; q->pc = syncfirst ? PANCH : PFSYNC; emit(&t, "host %d says STORED (file %d)", i, p->obj); break;
        case PANCH:
            if (s->target != p->said && anchorcheck) { q->pc = PDONE; emit(&t, "host %d: the anchor is not its recipe, the table keeps its own data", i); break; }
            q->anch = s->target; q->pc = PDONE; if (q->anch != p->said) t.bad = 6;
            emit(&t, "host %d anchors the target (file %d) and relies on file %d", i, s->target, p->said); break;
        }
        if (s->crashes && p->pc && p->pc < PSAY) { t = *s; t.crashes--; *q = (PP){0}; emit(&t, "host %d crashes and restarts, the snapshot is still pending", i); }
    }
    if (s->dup) {
        PS t = *s; int d = s->dup & 0x10 ? lowest(named_in(s, s->dup & 15)) : s->dup; t.dup = t.dupobj = 0;
        if (d) do_rename(&t, d, s->dupobj);
        emit(&t, "the delayed request is executed: target is file %d", t.target);
    }
    PS t = *s; int d = lowest(named_in(s, 1));
    switch (s->rpc) {
    case RIDLE: t.newest = 2; t.rpc = RUNLINK; emit(&t, "a collector opens generation 2"); break;
    case RUNLINK:
        if (d && revfile) { if (s->srvs && !gsync && s->staged[d]) t.vst[d] = s->staged[d]; t.staged[d] = 0; }
        t.rpc = revdir ? RRMDIR : RCLOSE; emit(&t, "the revoker removes what is in the lease"); break;
    case RRMDIR:
        if (d && s->staged[d] && revfile) { t.rpc = RUNLINK; emit(&t, "the revoker: rmdir gives ENOTEMPTY"); break; }
        if (d) { if (s->srvs && !gsync) t.vdir |= bit(d); else t.vst[d] = 0; if (revfile) t.dead |= bit(d); t.named &= (u8)~bit(d); }
        t.rpc = RCLOSE; emit(&t, "the revoker removes the lease directory"); break;
    case RCLOSE:
        if (d && revdir) { t.rpc = RUNLINK; emit(&t, "the revoker: rmdir of leases/ gives ENOTEMPTY"); break; }
        t.closed |= bit(1); t.done |= bit(1); t.rpc = RDONE; if (gsync) { t.vdir = 0; memset(t.vst, 0, sizeof t.vst); } emit(&t, "the revoker is done with generation 1"); break;
    }
    if (s->srvs) {
        t = *s; t.srvs--; t.target = s->dtarget;
        for (int i = 0; i < 2; i++) if (t.p[i].said && t.p[i].said != t.target && t.dtarget != t.p[i].said) t.bad = 4;
        if (t.vdir) {
            if (!nonce) t.named &= (u8)~named_in(s, 1);
            for (int v = 1; v <= MAXD; v++) if (t.vdir & bit(v)) { t.dead &= (u8)~bit(v); t.named |= bit(v); t.staged[v] = t.vst[v]; }
            t.closed &= (u8)~bit(1);
        }
        else if (s->target && s->target != s->dtarget) for (int i = 1; i <= s->ndir; i++) if (!(s->dead & bit(i)))
            for (int j = 0; j < 2; j++) if (s->p[j].dir == i && s->p[j].obj == s->target && !s->staged[i]) t.staged[i] = s->target;
        t.vdir = 0; memset(t.vst, 0, sizeof t.vst);
        emit(&t, "the file server crashes and comes back: the target is file %d", t.target);
    }
    if (s->pows) {
        t = *s; t.pows--;
        for (int keep = 0; keep < 2; keep++) {
            PS v = t; if (!keep) v.target = s->dtarget; v.dtarget = v.target;
            for (int i = 0; i < 2; i++) if (v.p[i].said && v.p[i].said != v.target) v.bad = 4;
            for (int i = 0; i < 2; i++) if (v.p[i].pc < PSAY) v.p[i] = (PP){0};
            v.dup = 0; v.rpc = v.rpc > RIDLE && v.rpc < RDONE ? RUNLINK : v.rpc;
            emit(&v, "power loss: the target is file %d", v.target);
        }
    }
    for (int i = 0; i < 2; i++) if (s->p[i].said && s->p[i].pc == PDONE && !s->target) { t = *s; t.bad = 4; emit(&t, "(the snapshot is gone)"); }
}

/* ==== world 2: adoption ==== */
enum { AH = 3, AG = 3, AE = 4 };
enum { HOFF, HADOPT, HMAKE, HGENS, HREV, HLIST, HIDLE, HLEASE, HMKDIR, HCHECKG, HCHECKO, HPUB, HDEAD };
typedef struct { u8 pc, epoch, gen, seq, pubs, vo, vg, vs, seen, cure, listed; } AHost; /* v*: the newest that its cached listings are sure to show */
typedef struct { u8 newest, ep, own[AE], lease[AE], last, crashes, bad; AHost h[AH]; } AS; /* lease[e]: mask of generations */
static void adopt_init(void *s_) {
    AS *s = s_; s->newest = 1; s->crashes = (u8)acrash;
    for (int i = 0; i < hosts; i++) s->h[i] = (AHost){.pc = i ? HOFF : HIDLE, .pubs = (u8)apubs, .vg = 1};
}
static const char *adopt_check(const void *s_) {
    const AS *s = s_;
    return s->bad == 1 ? "I2: history of the VM forks: a publisher did not know the last snapshot" : s->bad == 2 ? "I2: two owners of one epoch" : NULL;
}
static void adopt_succ(const void *s_) {
    const AS *s = s_;
    for (int i = 0; i < hosts; i++) {
        const AHost *p = &s->h[i]; AS t = *s; AHost *q = &t.h[i];
        switch (p->pc) {
        case HOFF: q->pc = HADOPT; emit(&t, "host %d is told to adopt", i); break;
        case HADOPT: /* lists owners/, then creates epoch+1 */
            for (int e = fresh && freshown ? s->ep : p->vo; e <= s->ep; e++) {
                t = *s; q->seen = (u8)e; q->pc = HMAKE; emit(&t, "host %d lists owners/: epoch %d", i, e);
            }
            break;
        case HMAKE: {
            int e = p->seen + 1;
            q->seen = 0;
            if (e >= AE) break;
            if (s->ep >= e && excl) { q->vo = (u8)e; q->pc = HADOPT; emit(&t, "host %d: epoch %d exists already", i, e); break; }
            if (s->ep >= e) t.bad = 2; else t.ep = (u8)e;
            t.own[e] = (u8)i; q->epoch = q->vo = (u8)e; q->pc = listlast ? HGENS : HLIST;
            emit(&t, "host %d creates owner epoch %d", i, e);
            break; }
        case HGENS:
            for (int g = fresh && freshgen ? s->newest : p->vg; g <= s->newest; g++) {
                t = *s; q->seen = (u8)g; q->vg = (u8)g; q->cure = alllower ? 0 : (u8)(p->epoch - 1); q->pc = HREV;
                emit(&t, "host %d lists generations/: newest %d", i, g);
            }
            break;
        case HREV: /* one lower epoch a turn, in the generations that were listed */
            for (int miss = 0; miss <= !(fresh && freshlease); miss++) {
                t = *s;
                u8 mask = allgens ? (u8)((2u << p->seen) - 1) : bit(p->seen);
                if (!miss) t.lease[p->cure] &= (u8)~mask;
                q->cure++; if (q->cure == p->epoch) { q->cure = q->seen = 0; q->pc = listlast || p->listed ? HLIST : HIDLE; }
                if (!listlast) { if (q->pc == HLIST) q->pc = HIDLE; q->listed = 0; }
                emit(&t, "host %d revokes leases of epoch %d%s", i, p->cure, miss ? " but its listing does not show them" : "");
            }
            break;
        case HLIST:
            for (int n = fresh && freshsnap ? s->last : p->vs; n <= s->last; n++) {
                t = *s; q->seq = q->vs = (u8)n; q->pc = listlast ? HIDLE : HGENS; emit(&t, "host %d lists the VM's snapshots: last is %d", i, n);
            }
            break;
        case HIDLE: if (p->pubs) { q->pc = HLEASE; emit(&t, "host %d starts a snapshot", i); } break;
        case HLEASE:
            for (int g = fresh && freshgen ? s->newest : p->vg; g <= s->newest; g++) { t = *s; q->gen = q->vg = (u8)g; q->pc = HMKDIR; emit(&t, "host %d sees generation %d", i, g); }
            break;
        case HMKDIR: t.lease[p->epoch] |= bit(p->gen); q->pc = HCHECKG; emit(&t, "host %d makes its lease, epoch %d generation %d", i, p->epoch, p->gen); break;
        case HCHECKG:
            for (int g = fresh && freshgen ? s->newest : p->vg; g <= s->newest; g++) {
                t = *s; q->vg = (u8)g;
                if (g > p->gen) { t.lease[p->epoch] &= (u8)~bit(p->gen); q->gen = 0; q->pc = HLEASE; emit(&t, "host %d finds a higher generation", i); }
                else q->pc = HCHECKO, emit(&t, "host %d: generation is good", i);
            }
            break;
        case HCHECKO:
            for (int e = fresh && freshown ? s->ep : p->vo > p->epoch ? p->vo : p->epoch; e <= s->ep; e++) {
                t = *s; q->vo = (u8)e;
                if (e > p->epoch && ownercheck) { t.lease[p->epoch] &= (u8)~bit(p->gen); q->gen = 0; q->pc = HDEAD; emit(&t, "host %d finds owner epoch %d and stops", i, e); }
                else q->pc = HPUB, emit(&t, "host %d: owner epoch is good", i);
            }
            break;
        case HPUB:
            if (!(s->lease[p->epoch] & bit(p->gen))) { q->gen = 0; q->pc = HLEASE; emit(&t, "host %d: rename gives ENOENT, fenced", i); break; }
            if (p->seq != s->last) t.bad = 1;
            q->seq = ++t.last; q->vs = q->seq; q->pubs--; q->gen = 0; q->pc = HIDLE; emit(&t, "host %d PUBLISHES snapshot %d (knew %d)", i, t.last, p->seq);
            break;
        }
        if (s->crashes && p->pc > HMAKE && p->pc < HDEAD) { /* restart: the epoch is durable; the VM is listed anew */
            t = *s; t.crashes--; q->gen = q->seen = q->cure = 0; q->pc = p->epoch && redo ? HGENS : HLIST; if (!redo) q->pc = HLIST;
            emit(&t, "host %d crashes and restarts", i);
        }
    }
    if (s->newest < AG && s->newest < gens) { AS t = *s; t.newest++; emit(&t, "a collector opens generation %d", t.newest); }
}

/* ==== world 3: index manifests of one slot ==== */
enum { XN = 7, XF = 7 }; /* manifest numbers and file names; entry sets are masks of writers' tags */
enum { XOFF, XTAKE, XREAD, XWRITE, XPUB, XAFTER, XSWEEP, XDROP, XDEAD };
typedef struct { u8 pc, base, name, tag, set, ops, merge, dropped, wrote, tags[XF]; } XO; /* base: number its work builds on; set: files it names */
typedef struct {
    u8 man, manep[XN], mset[XN], mtag[XN][XF];   /* man: mask of manifests that exist; mset: names they name; mtag: the content they expect */
    u8 ftag[XF], fep[XF], cover[XF];            /* content (tag) of the file that has the name, 0: no file; epoch in its name; entries it holds */
    u8 nname, ntag, bad;
    XO o[2];
} XS;
static int xnewest(const XS *s) { int n = 0; for (int k = 1; k < XN; k++) if (s->man & bit(k)) n = k; return n; }
static void slot_init(void *s_) {
    XS *s = s_; s->man = bit(1); s->mset[1] = bit(1); s->mtag[1][1] = 1; s->ftag[1] = 1; s->cover[1] = bit(1); s->nname = 2; s->ntag = 2;
    s->o[0] = (XO){.pc = XREAD, .ops = (u8)sops}; s->o[1] = (XO){.pc = XOFF, .ops = (u8)sops};
}
static const char *slot_check(const void *s_) {
    const XS *s = s_; int n = xnewest(s);
    if (s->bad == 3) return "X3: entries of the newest manifest are lost by the next one";
    for (int f = 1; f < XF; f++) if (s->mset[n] & bit(f)) {
        if (!s->ftag[f]) return "X1: the newest manifest names a file that was removed";
        if (s->ftag[f] != s->mtag[n][f]) return "X2: the newest manifest names a file that was made again with other content";
    }
    for (int m = 1; m < XN && !idcheck; m++) if (s->man & bit(m)) for (int f = 1; f < XF; f++)
        if (s->mset[m] & bit(f) && s->ftag[f] && s->ftag[f] != s->mtag[m][f]) return "X2: a reader with an older manifest misreads a file that was made again";
    return NULL;
}
static void slot_succ(const void *s_) {
    const XS *s = s_;
    for (int i = 0; i < 2; i++) {
        const XO *p = &s->o[i]; XS t = *s; XO *q = &t.o[i]; int n = xnewest(s), next = p->base + 1;
        switch (p->pc) {
        case XOFF: q->pc = takeover ? XTAKE : XREAD; emit(&t, "owner %d is given the slot (epoch %d)", i, i); break;
        case XTAKE: /* list and publish in two turns: base is what it saw */
            if (!p->base) { q->base = (u8)n; q->set = s->mset[n]; memcpy(q->tags, s->mtag[n], XF); emit(&t, "owner %d reads manifest %d", i, n); break; }
            if (next >= XN) break;
            if (s->man & bit(next)) { q->base = 0; q->set = 0; memset(q->tags, 0, XF); emit(&t, "owner %d: manifest %d exists", i, next); break; }
            t.mset[next] = p->set; t.man |= bit(next); t.manep[next] = (u8)i; for (int f = 1; f < XF; f++) t.mtag[next][f] = t.mset[next] & bit(f) ? p->tags[f] : 0;
            q->base = (u8)next; q->pc = aftercheck ? XAFTER : XSWEEP; q->name = q->merge = 0; q->dropped = 0;
            emit(&t, "owner %d takes over by manifest %d", i, next); break;
        case XREAD:
            if (!p->ops) break;
            if (readcheck && s->manep[n] > i) { q->pc = XDEAD; emit(&t, "owner %d reads manifest %d of a higher epoch and stops", i, n); break; }
            q->base = (u8)n; q->set = s->mset[n]; memcpy(q->tags, s->mtag[n], XF); q->pc = XWRITE; emit(&t, "owner %d reads manifest %d", i, n); break;
        case XWRITE: {
            int f = unique ? s->nname : next;
            if (f >= XF || s->ntag > 7) break;
            if (unique) t.nname++;
            for (int m = 0; m < 2; m++) { /* a delta, or a merge of everything */
                XS u = t; XO *v = &u.o[i];
                u.ftag[f] = s->ntag; u.fep[f] = (u8)i; u.cover[f] = bit(s->ntag); u.ntag++;
                if (m) for (int k = 1; k < XF; k++) if (p->set & bit(k)) { if (!s->ftag[k]) goto skip; u.cover[f] |= s->cover[k]; }
                v->name = (u8)f; v->tag = s->ntag; v->merge = (u8)m; v->pc = XPUB; v->wrote |= bit(f);
                emit(&u, "owner %d writes file %d (content %d%s)%s", i, f, s->ntag, m ? ", merged" : "", s->ftag[f] ? " over one that was there" : "");
            skip:;
            }
            break; }
        case XPUB:
            if (next >= XN) break;
            if (s->man & bit(next)) {
                if (eexist && s->manep[n] > i) { q->pc = XDEAD; emit(&t, "owner %d: manifest %d exists, of a higher epoch: stops", i, next); }
                else { q->base = (u8)n; q->set = s->mset[n]; memcpy(q->tags, s->mtag[n], XF); if (p->merge) { q->pc = XREAD; q->name = 0; } emit(&t, "owner %d: manifest %d exists, composes again on %d", i, next, n); }
                break;
            }
            t.man |= bit(next); t.manep[next] = (u8)i; t.mset[next] = (u8)((p->merge ? 0 : p->set) | bit(p->name));
            for (int f = 1; f < XF; f++) t.mtag[next][f] = t.mset[next] & bit(f) ? p->tags[f] : 0;
            t.mtag[next][p->name] = p->tag; memcpy(q->tags, t.mtag[next], XF);
            q->dropped = (u8)(p->merge ? p->set : 0); q->base = (u8)next; q->set = t.mset[next]; q->ops--; q->pc = aftercheck ? XAFTER : XSWEEP;
            if (n == p->base) { u8 a = 0, b = 0; for (int k = 1; k < XF; k++) { if (s->mset[n] & bit(k)) a |= s->cover[k]; if (t.mset[next] & bit(k)) b |= s->cover[k]; } if (a & ~b) t.bad = 3; }
            emit(&t, "owner %d PUBLISHES manifest %d: files %02x", i, next, t.mset[next]); break;
        case XAFTER:
            if (n > p->base) { q->pc = XDEAD; emit(&t, "owner %d finds a higher manifest and stops", i); }
            else { q->pc = XSWEEP; emit(&t, "owner %d: its manifest is the newest", i); }
            break;
        case XSWEEP: /* one file a turn */
            for (int f = 1; f < XF; f++) if (s->ftag[f] && !(p->set & bit(f)) && (sweep == 0 || (s->fep[f] <= i && (sweep == 1 || (p->dropped | p->wrote) & bit(f))))) {
                t = *s; t.ftag[f] = t.cover[f] = t.fep[f] = 0; emit(&t, "owner %d sweeps file %d", i, f);
            }
            t = *s; q->pc = dropman ? XDROP : XREAD; q->name = q->tag = q->merge = q->dropped = 0; emit(&t, "owner %d ends its sweep", i); break;
        case XDROP:
            for (int m = 1; m < p->base; m++) if (s->man & bit(m)) { t.man &= (u8)~bit(m); t.mset[m] = 0; memset(t.mtag[m], 0, XF); t.manep[m] = 0; }
            q->pc = XREAD; q->base = q->set = 0; memset(q->tags, 0, XF); emit(&t, "owner %d removes manifests below %d", i, p->base); break;
        }
    }
}

/* ==== world 4: name entries ==== */
/* Two names in one directory. VM 0 (X) lives under name 0 and is host 0's, host 1 may adopt it; VM 1 (Y) is to be made by host 1,
 * VM 2 (Z) by host 0. An entry is id + 1, and who made it (its owner epoch) in the upper half. */
enum { NI = 3, NN = 2 };
enum { KIDLE, KLINK, KREC, KDEL, KDEL2, KBACK, KADOPT, KFENCE, KCLAIM, KREPAIR, KREPDEL, KDEAD };
enum { OPCREATE = 1, OPRENAME, OPREMOVE };
typedef struct { u8 pc, op, id, old, new, ver, seen, cur, ops, bel, linked; } NH;
typedef struct { u8 ent[NN], dent[NN], alive[NI], rname[NI], ver[NI], dalive[NI], drname[NI], owner[NI], fenced, adopts, crashes, pows, dups, dname, dseen, dhost, nonce, claimed; NH h[2]; } NS; /* d*: a removal that is still on its way once more */
static u8 entry(int id, int host, int nonce) { return (u8)((id + 1) | host << 2 | nonce << 3); }
static int eid(u8 e) { return (e & 3) - 1; }
static void names_init(void *s_) {
    NS *s = s_; s->ent[0] = s->dent[0] = entry(0, 0, 0); s->alive[0] = s->dalive[0] = 1; s->owner[1] = 1;
    s->adopts = (u8)nadopt; s->crashes = (u8)ncrash; s->pows = (u8)npow; s->dups = (u8)ndup;
    s->h[0] = (NH){.ops = (u8)nops, .bel = 5}; s->h[1] = (NH){.ops = (u8)nops, .bel = 2};
}
static const char *names_check(const void *s_) {
    const NS *s = s_;
    for (int i = 0; i < NI; i++) for (int j = 0; j < i; j++) if (s->alive[i] && s->alive[j] && s->rname[i] == s->rname[j]) return "N1: two VMs have one name";
    for (int i = 0; i < NI; i++) if (s->alive[i] && eid(s->ent[s->rname[i]]) != i) return "N2: a VM has no entry for its name";
    if (n3 == 1 && (s->h[0].pc == KIDLE || s->h[0].pc == KDEAD) && s->h[1].pc == KIDLE)
        for (int n = 0; n < NN; n++) { int i = eid(s->ent[n]); if (i >= 0 && !(s->alive[i] && s->rname[i] == n)) return "N3: a name is taken by nothing, in a quiet state"; }
    return NULL;
}
static void nsynced(NS *t) { if (!npow || nsync) { memcpy(t->dent, t->ent, NN); memcpy(t->dalive, t->alive, NI); memcpy(t->drname, t->rname, NI); } }
static void nend(NH *q, int pc) { q->pc = (u8)pc; q->op = q->id = q->old = q->new = q->ver = q->seen = q->cur = q->linked = 0; }
static bool isfenced(const NS *s, int host, int id) { return id == 0 && host == 0 && s->fenced; }
static u8 nextpc(const NH *p, int done) { /* the step after KLINK or KREC */
    if (p->op == OPREMOVE) return done == KREC ? (entryfirst == 2 ? KIDLE : KDEL) : KREC;
    if (entryfirst) return done == KLINK ? KREC : p->op == OPRENAME ? KDEL : KIDLE;
    return done == KREC ? KLINK : p->op == OPRENAME ? KDEL : KIDLE;
}
/* Removes the entry at a name; false: one more turn is needed. */
static bool entrydel(NS *t, NH *q, int host, int id, int n, u8 seen) {
    if (rmode == 0) { t->ent[n] = 0; return true; }
    if (rmode == 1) { /* read, then unlink */
        if (q->seen == 0xff) { t->ent[n] = 0; q->seen = 0; return true; }
        if (eid(t->ent[n]) != id) return true;
        q->seen = 0xff; return false;
    }
    if (rmode == 2) { if (eid(t->ent[n]) == id) t->ent[n] = 0; return true; }
    if (rmode == 3) { if (isfenced(t, host, id)) nend(q, KDEAD); else t->ent[n] = 0; return true; }
    if (t->ent[n] == seen) t->ent[n] = 0;
    return true;
}
static void names_succ(const void *s_) {
    const NS *s = s_;
    for (int i = 0; i < 2; i++) {
        const NH *p = &s->h[i]; NS t = *s; NH *q = &t.h[i];
        switch (p->pc) {
        case KIDLE:
            if (p->ops) for (int v = 0; v < NI; v++) if (p->bel & bit(v) && !(i == 0 && v == 0 && s->claimed)) for (int n = 0; n < NN + 1; n++) {
                t = *s; q->ops--; q->id = (u8)v; q->ver = s->ver[v]; q->old = s->rname[v]; q->new = (u8)n;
                if (n == NN) { if (!s->alive[v]) continue; q->op = OPREMOVE; q->new = 0; q->seen = s->ent[q->old]; q->pc = entryfirst == 2 ? KDEL : KREC; }
                else if (!s->alive[v]) { q->op = OPCREATE; q->pc = entryfirst ? KLINK : KREC; }
                else if (n != s->rname[v]) { q->op = OPRENAME; q->seen = s->ent[q->old]; q->pc = entryfirst ? KLINK : KREC; }
                else continue;
                emit(&t, "host %d begins to %s VM %d, name %d", i, q->op == OPREMOVE ? "remove" : q->op == OPRENAME ? "rename" : "create or undelete", v, n == NN ? q->old : n);
            }
            if (i == 1 && s->adopts) { t = *s; t.adopts--; q->pc = KADOPT; emit(&t, "host 1 is told to adopt VM 0"); }
            break;
        case KLINK:
            if (linkfence && isfenced(s, i, p->id)) { nend(q, KDEAD); emit(&t, "host %d: fenced before it makes an entry", i); break; }
            if (s->ent[p->new] && !(ownok && eid(s->ent[p->new]) == p->id)) { nend(q, KIDLE); if (!entryfirst) q->pc = KIDLE; emit(&t, "host %d: entry %d gives EEXIST", i, p->new); nsynced(&t); break; }
            if (!s->ent[p->new]) t.ent[p->new] = entry(p->id, i, rmode == 6 ? ++t.nonce : 0);
            q->linked = t.ent[p->new];
            q->pc = nextpc(p, KLINK); if (q->pc == KIDLE) nend(q, KIDLE);
            nsynced(&t); emit(&t, "host %d links entry %d -> VM %d", i, p->new, p->id); break;
        case KREC:
            if ((recmode == 3 && isfenced(s, i, p->id)) || ((recmode == 1 || recmode == 2) && s->ver[p->id] != p->ver)) {
                if (mvback && p->op != OPREMOVE) { q->pc = KBACK; q->seen = p->linked; } else nend(q, KDEAD);
                emit(&t, "host %d: the record of VM %d cannot be changed any more: fenced", i, p->id); break;
            }
            if (recmode == 1 || recmode == 2) t.ver[p->id]++;
            t.alive[p->id] = p->op != OPREMOVE; if (p->op != OPREMOVE) t.rname[p->id] = p->new;
            q->pc = nextpc(p, KREC); if (q->pc == KIDLE) nend(q, KIDLE);
            nsynced(&t); emit(&t, p->op == OPREMOVE ? "host %d moves the record of VM %d to trash" : "host %d publishes the record of VM %d: name %d", i, p->id, p->new); break;
        case KDEL: case KBACK: {
            int n = p->pc == KBACK ? p->new : p->old;
            bool end = entrydel(&t, q, i, p->id, n, p->seen);
            if (end && q->pc != KDEAD) { if (p->pc == KDEL && p->op == OPREMOVE && entryfirst == 2) q->pc = KREC; else nend(q, p->pc == KBACK ? KDEAD : KIDLE); }
            nsynced(&t);
            if (end && q->pc != KDEAD && s->dups) { NS v = t; v.dups--; v.dname = (u8)(n + 1); v.dseen = p->seen; v.dhost = (u8)(i | p->id << 1); emit(&v, "host %d removes entry %d, the reply is lost, the request is still on its way once more", i, n); }
            emit(&t, q->pc == KDEAD && p->pc == KDEL ? "host %d: fenced, leaves entry %d" : end ? "host %d removes entry %d (of VM %d)" : "host %d reads entry %d: it is of VM %d", i, n, p->id);
            break; }
        case KADOPT: t.owner[0] = 1; q->bel |= 1; q->pc = repwhen ? KFENCE : KREPAIR; emit(&t, "host 1 creates the owner epoch of VM 0"); break;
        case KFENCE: t.fenced = 1; q->pc = recmode == 2 ? KCLAIM : repwhen ? KREPAIR : KIDLE; emit(&t, "host 1 revokes host 0's lease of VM 0"); break;
        case KCLAIM: t.ver[0]++; t.claimed = 1; q->pc = repwhen ? KREPAIR : KIDLE; emit(&t, "host 1 claims a version of VM 0's record"); break;
        case KREPAIR: { /* one name a turn: entry and record are read */
            int n = p->cur, v = n < NN ? eid(s->ent[n]) : -1;
            if (n == NN) { nend(q, i == 1 && s->owner[0] == 1 && !s->fenced ? KFENCE : KIDLE); emit(&t, "host %d ends its repair", i); break; }
            q->cur++;
            if (repair && v >= 0 && !(s->alive[v] && s->rname[v] == n) && (repair == 2 || p->bel & bit(v)) && (rmode < 5 || (s->ent[n] >> 2 & 1) <= i)) { q->id = (u8)v; q->old = (u8)n; q->seen = s->ent[n]; q->pc = KREPDEL; }
            emit(&t, "host %d repairs: looks at entry %d", i, n); break; }
        case KREPDEL: {
            bool end = entrydel(&t, q, i, p->id, p->old, p->seen);
            if (end && q->pc != KDEAD) { q->pc = KREPAIR; q->seen = q->id = q->old = 0; }
            nsynced(&t); emit(&t, "host %d repairs: removes entry %d (of VM %d)%s", i, p->old, p->id, end ? "" : ", after reading it again"); break; }
        }
        if (s->crashes && p->pc > KIDLE && p->pc < KDEAD) {
            t = *s; t.crashes--; nend(q, i == 1 && s->owner[0] == 1 && (redo || !s->fenced) && repwhen ? KFENCE : KREPAIR);
            if (i == 0 && s->owner[0]) q->bel &= (u8)~1;
            if (i == 1 && s->owner[0] == 1) q->bel |= 1;
            emit(&t, "host %d crashes and restarts", i);
        }
    }
    if (s->dname) {
        NS t = *s; NH none = {0}; t.dname = t.dseen = t.dhost = 0;
        if (rmode == 1) t.ent[s->dname - 1] = 0; else entrydel(&t, &none, s->dhost & 1, s->dhost >> 1, s->dname - 1, s->dseen);
        nsynced(&t); emit(&t, "the delayed removal of entry %d is executed", s->dname - 1);
    }
    if (s->pows) for (int m = 0; m < 32; m++) { /* any part of what was not fsynced is undone */
        NS t = *s; t.pows--; bool some = false;
        for (int n = 0; n < NN; n++) if (m & 1 << n) { some |= t.ent[n] != t.dent[n]; t.ent[n] = t.dent[n]; }
        for (int v = 0; v < NI; v++) if (m & 4 << v) { some |= t.alive[v] != t.dalive[v] || t.rname[v] != t.drname[v]; t.alive[v] = t.dalive[v]; t.rname[v] = t.drname[v]; }
        if (m && !some) continue;
        memcpy(t.dent, t.ent, NN); memcpy(t.dalive, t.alive, NI); memcpy(t.drname, t.rname, NI);
        for (int i = 0; i < 2; i++) { nend(&t.h[i], i == 1 && s->owner[0] == 1 && !s->fenced && repwhen ? KFENCE : KREPAIR); if (i == 0 && s->owner[0]) t.h[i].bel &= (u8)~1; }
        emit(&t, "power loss: entries %02x %02x", t.ent[0], t.ent[1]);
    }
}

/* ---- engine ---- */
static const struct world { const char *name; size_t size; void (*init)(void *), (*succ)(const void *), (*canon)(void *); const char *(*check)(const void *); } *W;

static uint64_t hash(const u8 *s) {
    uint64_t h = 0x9E3779B97F4A7C15u, w;
    for (size_t i = 0; i < ssz; i += 8) memcpy(&w, s + i, 8), h = (h ^ w) * 0xD6E8FEB86659FD93u, h ^= h >> 32;
    return h;
}
static size_t lookup(const u8 *s, uint32_t parent, bool *fresh_) {
    size_t i = hash(s) & (tabsz - 1);
    for (; tab[i]; i = (i + 1) & (tabsz - 1))
        if (!memcmp(st + tab[i] * ssz, s, ssz)) { *fresh_ = false; return tab[i]; }
    *fresh_ = true; memcpy(st + ++nst * ssz, s, ssz); par[nst] = parent; tab[i] = (uint32_t)nst;
    return nst;
}
static uint32_t cur; static size_t badstate; static const char *why; static const u8 *want; static char label[256]; static bool found;
static void explore(const void *s, const char *fmt, ...) {
    (void)fmt; u8 t[STATE_MAX] __attribute__((aligned(8))) = {0}; bool isnew; memcpy(t, s, W->size); W->canon(t); edges++;
    size_t n = lookup(t, cur, &isnew);
    if (!isnew || badstate) return;
    const char *w = W->check(t);
    if (w) badstate = n, why = w;
}
static void match(const void *s, const char *fmt, ...) {
    u8 t[STATE_MAX] __attribute__((aligned(8))) = {0}; memcpy(t, s, W->size); W->canon(t);
    if (found || memcmp(t, want, ssz)) return;
    va_list ap; va_start(ap, fmt); vsnprintf(label, sizeof label, fmt, ap); va_end(ap); found = true;
}
static void trace(size_t n) {
    if (par[n]) trace(par[n]);
    if (!par[n]) return;
    found = false; want = st + n * ssz; emit = match; W->succ(st + par[n] * ssz);
    printf("   %s\n", label);
}
static const struct world worlds[] = {
    {"store", sizeof(S), store_init, successors, store_canon, store_check},
    {"pub", sizeof(PS), pub_init, pub_succ, nocanon, pub_check},
    {"adopt", sizeof(AS), adopt_init, adopt_succ, nocanon, adopt_check},
    {"slot", sizeof(XS), slot_init, slot_succ, nocanon, slot_check},
    {"names", sizeof(NS), names_init, names_succ, nocanon, names_check},
};
int main(int argc, char **argv) {
    for (int a = 1; a < argc; a++) {
        char *eq = strchr(argv[a], '='); int v = eq ? atoi(eq + 1) : 1;
        size_t len = eq ? (size_t)(eq - argv[a]) : strlen(argv[a]); bool ok = false;
#define X(n, d) if (len == strlen(#n) && !strncmp(argv[a], #n, len)) n = v, ok = true;
        KNOBS(X)
#undef X
        if (!ok) { fprintf(stderr, "unknown knob %s\n", argv[a]); return 3; }
    }
    W = &worlds[world]; ssz = (W->size + 7) / 8 * 8;
    maxst = (size_t)mstates * 1000000; for (tabsz = 1 << 20; tabsz < maxst * 3 / 2; tabsz *= 2) ;
#define MAP(sz) mmap(0, sz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    st = MAP((maxst + 100000) * ssz); par = MAP((maxst + 100000) * 4); tab = MAP(tabsz * 4);
    u8 s[STATE_MAX] __attribute__((aligned(8))) = {0};
    W->init(s);
    emit = explore; clock_t t0 = clock(); explore(s, "");
    par[1] = 0;
    for (cur = 1; cur <= nst && !badstate && nst < maxst; cur++) {
        u8 u[STATE_MAX] __attribute__((aligned(8))); memcpy(u, st + cur * ssz, ssz); W->succ(u);
    }
    double sec = (double)(clock() - t0) / CLOCKS_PER_SEC;
    for (int a = 1; a < argc; a++) printf("%s ", argv[a]);
    printf(": %zu states, %zu steps, %.1f s: %s\n", nst, edges, sec,
           badstate ? why : nst >= maxst ? "BOUND OF STATES REACHED, no violation so far" : "no violation");
    if (badstate) trace(badstate);
    return badstate ? 1 : nst >= maxst ? 2 : 0;
}
