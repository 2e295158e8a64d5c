/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storemodel.c: exhaustive small-model check of varve's store-safety protocol (docs/ARCHITECTURE.md, src/store/publish.h).
 *
 * Plain words.  Two publishers (hosts), up to two collectors and a user who removes snapshots take turns in every
 * possible order.  One turn is one thing the store does atomically: a mkdir, a link, a rename, one directory read,
 * one container rewrite.  Any process may stop for ever between two of its turns (crash), or sleep as long as it
 * likes and go on (zombie): that is nothing but another order.  Breadth-first search visits every reachable state
 * once, so the first broken invariant comes with a shortest trace.
 *
 *  block     a bit.  All blocks have the same bytes, so every reference is a tempting hint for every publisher; a
 *            hint may be any reference ever issued, live or freed (index, CDS, Kafka and summaries are that bad).
 *  root      a file in snapshots/, anchors/ or trash/ with the set of blocks it needs.
 *  log       the cumulative deletion log of the newest generation;  unc: what its opener un-condemned in step (4).
 *  lease     a directory per (publisher, generation); link() out of it fails once it is gone.
 *  table     what a live image relies on; level 1 copies these references into the next recipe UNCHECKED (clean
 *            segments are not in the publish check), the anchor alone keeps them alive.
 *
 * Invariants: I1 nothing in snapshots/, anchors/ or a live table needs a freed block.  I2 with adopt, a VM's history
 * is one chain: who publishes knows the last published snapshot.  I3 from every state each publisher, left alone,
 * publishes whatever the hints say.  I4 from every quiet state, i4runs collections leave exactly what is needed.
 *
 * Build: cc -O2 -o storemodel storemodel.c     Run: ./storemodel SCENARIO [KNOB...] (a knob is NAME or NAME=N, below)
 * Exit 0: no violation within the bounds; 1: violation, shortest trace printed; 2: bound of states reached.
 * Bounds (knobs): refs, gens, pubs, revs, rms, cols.  What they cut off is not explored: the result is about small cases.
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
enum { NF = 7, NP = 2, NC = 2, MAXREF = 8 };

/* Knobs: bounds first, then the rules (1 = as the design or the fix says), then how rough the environment is. */
#define KNOBS(X) \
    X(start, 0)     /* 0: a snapshot exists and host 0's image is anchored to it; 1: that snapshot has expired, the anchor stays; \
                       2: a snapshot that shares its block, no anchor, and a collector about to open after a first read that missed it */ \
    X(refs, 3)      /* references that may be issued in all; 0 and 1 exist at the start (1 is garbage) */ \
    X(gens, 3)      /* generations that may be opened, the first included */ \
    X(pubs, 1) X(revs, 1) X(rms, 1) /* publications and reverts/clones/deletions per publisher; removals by the user */ \
    X(cols, 2)      /* collectors */ \
    X(npub, 2)      /* publishers that act */ \
    X(order, 0)     /* order of reading roots: 0 S,A,T (design)  1 A,S,T  2 T,A,S  3 S,T,A  4 A,T,S  5 T,S,A */ \
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
    X(mstates, 60)  /* give up after that many million states */
#define X(n, v) static int n = v;
KNOBS(X)
#undef X

enum { NONE, SNAP, TRASH, ANCH, ANCHV = ANCH + NP, GONE = ANCHV + NP }; /* ANCH+i: of host i; ANCHV: not fsynced yet */
enum { IDLE, LEASE, MKDIR, CHECK, LOG, FOOT, LINK, NEWANCH, FSYNC, TABLE, UNANCH, OFF, AREVOKE, ALIST, DEAD };
enum { CIDLE, READ1, OPEN, REVOKE, READ2, LATE, FREE, REWRITE, EMPTY };

enum { PADDING = 5 };
typedef struct { u8 place, refs, stamp; } File;
typedef struct { u8 pc, gen, d, logm, foot, tbl, anc, nanc, snap, lease, pubs, revs, pseq; } Pub;
typedef struct { u8 pc, g, cur, m, D, L, F, img, tl; } Col;
typedef struct {
    u8 newest, nref, live, log, unc, seal[MAXREF], epoch, lastseq, rms, powers, bad;
    File f[NF];
    Pub p[NP];
    Col c[NC];
    u8 unused[PADDING];
} __attribute__((aligned(8))) S; /* a multiple of 8 bytes, no hidden padding: states are compared with memcmp */

/* ---- the search: states in one array, an open-addressing table of indices, a parent for the trace ---- */
static S *st; static uint32_t *tab, *par; static size_t nst, maxst, tabsz;
static void (*emit)(const S *, const char *, ...); static bool solo; static size_t edges;

static uint64_t hash(const S *s) {
    const uint64_t *w = (const uint64_t *)s; uint64_t h = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < sizeof *s / 8; i++) h = (h ^ w[i]) * 0xD6E8FEB86659FD93u, h ^= h >> 32;
    return h;
}
static u8 bit(int i) { return (u8)(1u << i); }
static void swapname(u8 *name, int a, int b) { if (*name == a + 1) *name = (u8)(b + 1); else if (*name == b + 1) *name = (u8)(a + 1); }
static void swapslots(S *t, int a, int b) {
    File x = t->f[a]; t->f[a] = t->f[b]; t->f[b] = x;
    for (int i = 0; i < NP; i++) { swapname(&t->p[i].anc, a, b); swapname(&t->p[i].nanc, a, b); swapname(&t->p[i].snap, a, b); }
    for (int n = 0; n < NC; n++) { u8 *m = &t->c[n].tl; if (!(*m & bit(a)) != !(*m & bit(b))) *m ^= bit(a) | bit(b); }
}
static void canon(S *t) { /* one representative for states that can only behave alike */
    int lo = t->newest; /* the oldest generation that any collection still works on, or will */
    for (int n = 0; n < NC; n++) if (t->c[n].pc && t->c[n].g < lo) lo = t->c[n].g;
    for (int r = 0; r < t->nref; r++) if (t->seal[r] < lo || !(t->live & bit(r))) t->seal[r] = 0;
    for (int i = 0; i < NP; i++) t->p[i].lease &= (u8)(bit(t->p[i].gen) | -(1 << t->newest));
    for (int k = 0; k < NF; k++) if (t->f[k].stamp && !record && t->f[k].stamp + trashgens <= lo + 1) t->f[k].stamp = 0;
    for (int k = 1; k < NF && !filewise; k++)
        for (int j = k; j && memcmp(&t->f[j - 1], &t->f[j], sizeof(File)) > 0; j--) swapslots(t, j - 1, j);
    if (memcmp(&t->c[0], &t->c[1], sizeof(Col)) > 0) { Col x = t->c[0]; t->c[0] = t->c[1]; t->c[1] = x; }
}
static size_t lookup(const S *s, uint32_t parent, bool *fresh) {
    size_t i = hash(s) & (tabsz - 1);
    for (; tab[i]; i = (i + 1) & (tabsz - 1))
        if (!memcmp(&st[tab[i]], s, sizeof *s)) { *fresh = false; return tab[i]; }
    *fresh = true; st[++nst] = *s; par[nst] = parent; tab[i] = (uint32_t)nst;
    return nst;
}

/* ---- small helpers on the store ---- */
static bool isanch(int place, int i) { return place == ANCH + i || place == ANCHV + i; }
static void clearslot(S *t, int k) { /* the name is gone; nobody may take a later file in this slot for it */
    t->f[k] = (File){0};
    for (int i = 0; i < NP; i++) if (t->p[i].snap == k + 1) t->p[i].snap = 0;
    for (int i = 0; i < NC; i++) t->c[i].tl &= (u8)~bit(k);
}
static void totrash(S *t, int k, int stamp) {
    if (trashgens < 0) { clearslot(t, k); return; }
    t->f[k].place = TRASH; t->f[k].stamp = record ? 0 : (u8)stamp;
    for (int i = 0; i < NP; i++) if (t->p[i].snap == k + 1) t->p[i].snap = 0;
}
static int newref(S *t, int sealed_in) {
    if (t->nref >= (solo ? MAXREF : refs)) return -1;
    t->seal[t->nref] = (u8)sealed_in; t->live |= bit(t->nref);
    return t->nref++;
}
static u8 needed(const S *s) {
    u8 m = 0;
    for (int k = 0; k < NF; k++) if (s->f[k].place != NONE && s->f[k].place != TRASH) m |= s->f[k].refs;
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
        q->pc = prelease && !p->gen ? LEASE : LINK; /* the hint, as late as can be: any reference that passes, or a new block */
        for (int h = 0; h <= s->nref; h++) {
            S u = t; Pub *v = &u.p[i]; v->logm = v->foot = 0; v->d = bit(h);
            if (h == s->nref ? newref(&u, p->gen ? p->gen : s->newest) < 0 : (q->logm & bit(h)) || !(q->foot & bit(h))) continue;
            emit(&u, h == s->nref ? "host %d reads %s: hint fails, new block %d" : "host %d reads %s: hint to block %d passes", i,
                 islog ? "the deletion log" : "the footers", h);
        }
        break; }
    case LINK:
        if (!(p->lease & bit(p->gen))) {
            q->gen = 0; q->pc = LEASE; if (recheck && !prelease) q->d = 0;
            emit(&t, "host %d: link gives ENOENT, fenced", i); break;
        }
        for (int keep = 0; keep <= (p->tbl != 0); keep++) EACHFREE(k, s) { /* keep: level 1, clean segments by the table */
            t = *s;
            t.f[k] = (File){SNAP, (u8)((keep ? p->tbl : 0) | p->d), 0};
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
        q->d = q->logm = q->foot = q->nanc = q->snap = q->gen = 0; q->pc = UNANCH;
        if (p->pc == AREVOKE || p->pc == ALIST) q->pc = adoptredo ? AREVOKE : ALIST;
        if (q->pc == p->pc) return;
        emit(&t, "host %d crashes and restarts", i);
    }
}

/* ---- a collector ---- */
static bool readroots(S *t, Col *c) { /* one directory (or one file) a turn; true when all were read */
    static const u8 ord[6][3] = {{SNAP, ANCH, TRASH}, {ANCH, SNAP, TRASH}, {TRASH, ANCH, SNAP},
                                 {SNAP, TRASH, ANCH}, {ANCH, TRASH, SNAP}, {TRASH, SNAP, ANCH}};
    int dir = filewise ? c->cur / NF : c->cur, from = filewise ? c->cur % NF : 0, to = filewise ? from + 1 : NF;
    for (int k = from; k < to; k++) {
        int pl = t->f[k].place >= ANCH ? ANCH : t->f[k].place;
        if (pl != ord[order][dir]) continue;
        c->m |= t->f[k].refs;
        if (pl == TRASH) c->tl |= bit(k);
    }
    return ++c->cur == (filewise ? 3 * NF : 3);
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
        t.newest++; t.log = c->L; t.unc = 0; c->pc = revokefirst ? READ2 : REVOKE; c->cur = 0;
        emit(&t, "collector OPENS generation %d, log %02x", t.newest, t.log); break;
    case REVOKE: {
        u8 mask = revoke == 0 ? 0 : revoke == 2 ? bit(c->g) : (u8)((2u << c->g) - 1);
        t.p[c->cur].lease &= (u8)~mask;
        if (++c->cur == NP) { c->cur = 0; c->pc = revokefirst ? OPEN : late == 1 ? LATE : READ2; }
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
            for (int k = 0; k < NF; k++) if (c->tl & bit(k) && t.f[k].place == TRASH && !t.f[k].stamp) t.f[k].stamp = (u8)(c->g + 1);
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
            if (s->f[k].place == TRASH && (record ? s->f[k].stamp && s->f[k].stamp < c->g + 1 : s->f[k].stamp + trashgens <= c->g + 1))
                clearslot(&t, k);
        t.c[n] = (Col){0}; emit(&t, "collector empties old trash"); break;
    }
    if (!solo && old != CIDLE && old != EMPTY) { t = *s; t.c[n] = (Col){0}; emit(&t, "a collector crashes"); }
}

static void successors(const S *s) {
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
                q->d = q->logm = q->foot = q->nanc = q->snap = q->gen = 0; if (q->pc != IDLE) q->pc = UNANCH;
            }
        memset(t.c, 0, sizeof t.c);
        emit(&t, "power loss");
    }
}

/* ---- I3 and I4: one process alone, from a state ---- */
static bool s3ok; static int s3who, s3depth;
static void s3emit(const S *t, const char *fmt, ...) {
    (void)fmt;
    if (t->p[s3who].pc == NEWANCH || t->p[s3who].pc == DEAD) return; /* published (or rightly stopped) */
    if (++s3depth > 24) { s3ok = false; s3depth--; return; }
    S u = *t; publisher(&u, s3who); s3depth--;
}
static bool i3(const S *s) {
    s3ok = true; solo = true; void (*keep)(const S *, const char *, ...) = emit; emit = s3emit;
    for (s3who = 0; s3who < npub && s3ok; s3who++) if (s->p[s3who].pubs && s->p[s3who].pc <= LINK) { s3depth = 0; publisher(s, s3who); }
    emit = keep; solo = false; return s3ok;
}
static S s4; static bool s4moved;
static void s4emit(const S *t, const char *fmt, ...) { (void)fmt; s4 = *t; s4moved = true; }
static bool i4(const S *s) {
    for (int i = 0; i < npub; i++) if (s->p[i].pc != IDLE && s->p[i].pc != DEAD && s->p[i].pc != OFF) return true;
    for (int n = 0; n < NC; n++) if (s->c[n].pc != CIDLE) return true;
    solo = true; void (*keep)(const S *, const char *, ...) = emit; emit = s4emit; s4 = *s;
    for (int run = 0; run < i4runs; run++)
        do { S u = s4; s4moved = false; collector(&u, 0); } while (s4moved && s4.c[0].pc != CIDLE);
    emit = keep; solo = false; return s4.live == needed(&s4);
}

/* ---- driver ---- */
static uint32_t cur; static size_t badstate; static const char *why; static const S *want; static char label[256]; static bool found;
static void explore(const S *s, const char *fmt, ...) {
    (void)fmt; S t = *s; bool fresh; canon(&t); edges++;
    size_t n = lookup(&t, cur, &fresh);
    if (!fresh || badstate) return;
    if (t.bad) badstate = n, why = "I2: history of the VM forks: a publisher did not know the last snapshot";
    else if (needed(&t) & ~t.live) badstate = n, why = "I1: a root or a live table needs a freed block";
    else if (check3 && !i3(&t)) badstate = n, why = "I3: a publisher left alone does not publish";
    else if (check4 && !i4(&t)) badstate = n, why = "I4: collections in a quiet store leave garbage";
}
static void match(const S *s, const char *fmt, ...) {
    S t = *s; canon(&t);
    if (found || memcmp(&t, want, sizeof t)) return;
    va_list ap; va_start(ap, fmt); vsnprintf(label, sizeof label, fmt, ap); va_end(ap); found = true;
}
static void trace(size_t n) {
    if (par[n]) trace(par[n]);
    if (!par[n]) return;
    found = false; want = &st[n]; emit = match; successors(&st[par[n]]);
    printf("   %s\n", label);
}
int main(int argc, char **argv) {
    for (int a = 1; a < argc; a++) {
        char *eq = strchr(argv[a], '='); int v = eq ? atoi(eq + 1) : 1;
        size_t len = eq ? (size_t)(eq - argv[a]) : strlen(argv[a]); bool ok = false;
#define X(n, d) if (len == strlen(#n) && !strncmp(argv[a], #n, len)) n = v, ok = true;
        KNOBS(X)
#undef X
        if (!ok) { fprintf(stderr, "unknown knob %s\n", argv[a]); return 3; }
    }
    maxst = (size_t)mstates * 1000000; for (tabsz = 1 << 20; tabsz < maxst * 3 / 2; tabsz *= 2) ;
#define MAP(sz) mmap(0, sz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    st = MAP((maxst + 100000) * sizeof *st); par = MAP((maxst + 100000) * 4); tab = MAP(tabsz * 4);
    S s = {.newest = 1, .nref = 2, .live = 3, .rms = (u8)rms, .powers = (u8)power};
    _Static_assert(sizeof(S) == 88, "hidden padding would break memcmp");
    if (!start) s.f[0] = (File){SNAP, 1, 0};
    s.f[1] = (File){ANCH, 1, 0}; /* a snapshot and the anchor of host 0's live image */
    s.p[0] = (Pub){.pc = IDLE, .tbl = 1, .anc = 2, .pubs = (u8)pubs, .revs = (u8)revs};
    s.p[1] = (Pub){.pc = adopt ? OFF : IDLE, .pubs = (u8)pubs, .revs = (u8)revs};
    if (start == 2) {
        s.f[0] = (File){SNAP, 3, 0}; s.f[1] = (File){0}; s.p[0].tbl = s.p[0].anc = 0;
        s.c[0] = (Col){.pc = OPEN, .g = 1, .D = 1, .L = 1};
    }
    canon(&s);
    emit = explore; clock_t t0 = clock(); explore(&s, "");
    par[1] = 0;
    for (cur = 1; cur <= nst && !badstate && nst < maxst; cur++) { S u = st[cur]; successors(&u); }
    double sec = (double)(clock() - t0) / CLOCKS_PER_SEC;
    for (int a = 1; a < argc; a++) printf("%s ", argv[a]);
    printf(": %zu states, %zu steps, %.1f s: %s\n", nst, edges, sec,
           badstate ? why : nst >= maxst ? "BOUND OF STATES REACHED, no violation so far" : "no violation");
    if (badstate) trace(badstate);
    return badstate ? 1 : nst >= maxst ? 2 : 0;
}
