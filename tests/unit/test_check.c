/* SPDX-License-Identifier: Apache-2.0 */
/* check: verify finds damage and names whom it hits; rebuild makes index and catalog anew; dump reads every file. */
#include "../lib/mkstore.h"

#include "check/check.h"
#include "check/dump.h"
#include "fpindex/fpindex.h"
#include "live/live.h"
#include "names/names.h"
#include "store/snaps.h"
#include "store/store_internal.h"

#include "base/endian.h"
#include "base/hash.h"

#include <ctype.h>
#include <dirent.h>
#include <sys/stat.h>

/* ---- what verify told ---- */

enum { TOLD_MAX = 64 };
struct told_problem { int severity; char file[128], what[400], hits[512]; uint64_t total; };
struct told { struct told_problem p[TOLD_MAX]; unsigned n; };

static void keep(void *ctx, const struct check_problem *p)
{
    struct told *t = ctx;
    assert_true(t->n < TOLD_MAX);
    struct told_problem *k = &t->p[t->n++];
    k->severity = (int)p->severity;
    snprintf(k->file, sizeof k->file, "%s", p->file);
    snprintf(k->what, sizeof k->what, "%s", p->what);
    k->total = p->hits_total;
    for (unsigned i = 0; i < p->nhits; i++)
        snprintf(k->hits + strlen(k->hits), sizeof k->hits - strlen(k->hits), "%s%.120s;", p->hits[i].anchor ? "anchor " : "",
                 p->hits[i].name);
}

static struct check_report verify(struct mkstore *m, bool read_data, struct told *t)
{
    struct check_opts o = { .read_data = read_data, .problem = keep, .ctx = t };
    struct check_report rep;
    t->n = 0;
    memset(t->p, 0, sizeof t->p);
    MK_OK(check_verify(m->st, &o, &rep, &mk_err_));
    for (unsigned i = 0; i < t->n; i++)
        if (getenv("VARVE_TEST_VERBOSE") != NULL)
            print_message("%d %s: %s [%s]\n", t->p[i].severity, t->p[i].file, t->p[i].what, t->p[i].hits);
    return rep;
}

/* ---- fixture: two snapshots; the second shares its first segment with the first ---- */

struct fixture {
    struct mkstore m;
    uint64_t seed;
    uint8_t *data;
    uint64_t size;
    struct mksnap a, b;
    struct told told;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->seed = mk_seed();
    mk_open(&f->m, NULL);
    f->size = 2 * (uint64_t)SEG_BYTES + 100000;
    f->data = calloc(1, f->size);
    assert_non_null(f->data);
    mk_fill(f->data, f->size, &f->seed);
    mk_snapshot(&f->m, f->data, f->size, &f->a);

    f->b = (struct mksnap){ .segments = 3, .place = calloc(3, sizeof(uint64_t)) };
    assert_non_null(f->b.place);
    mk_fill(f->data + SEG_BYTES, f->size - SEG_BYTES, &f->seed);
    uint64_t place[2];
    mk_segments(&f->m, f->data + SEG_BYTES, f->size - SEG_BYTES, place);
    f->b.place[0] = f->a.place[0];
    f->b.place[1] = place[0];
    f->b.place[2] = place[1];
    f->b.rcp = mk_header(&f->m, f->size);
    snprintf(f->b.rcp.info.label, sizeof f->b.rcp.info.label, "second");
    MK_OK(mk_commit(&f->m, &f->b.rcp, f->b.place, &mk_err_));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mk_snap_free(&f->a);
    mk_snap_free(&f->b);
    mk_close(&f->m);
    free(f->data);
    free(f);
    return 0;
}

static const char name_a[] = "web/disk@20260921T141321Z.img", name_b[] = "web/disk@second.img";

/* First block of a segment. */
static uint64_t first_block(struct fixture *f, uint64_t place)
{
    struct segrcp rcp;
    MK_OK(segread_recipe(f->m.segread, place, &rcp, &mk_err_));
    uint64_t ref = rcp.runs[0].ref != REF_ZERO ? rcp.runs[0].ref : rcp.runs[1].ref;
    segrcp_release(&rcp);
    assert_true(ref_is_block(ref));
    return ref;
}

static struct footer_entry entry_of(struct fixture *f, uint64_t ref)
{
    struct footer_entry e;
    MK_OK(creader_entries(f->m.reader, ref, 1, &e, &mk_err_));
    return e;
}

static const struct told_problem *find(const struct fixture *f, const char *file)
{
    for (unsigned i = 0; i < f->told.n; i++)
        if (strstr(f->told.p[i].file, file) != NULL)
            return &f->told.p[i];
    return NULL;
}

/* ---- verify ---- */

static void a_sound_store_verifies_clean(void **state)
{
    struct fixture *f = *state;
    for (int data = 0; data < 2; data++) {
        struct check_report rep = verify(&f->m, data != 0, &f->told);
        assert_int_equal(rep.damaged, 0);
        assert_int_equal(rep.notices, 0);
        assert_int_equal(f->told.n, 0);
        assert_int_equal(rep.snapshots, 2);
        assert_int_equal(rep.containers, 4);
        assert_int_equal(rep.sections, 4);
        assert_int_equal(rep.recipes, 5);
        assert_int_equal(rep.nodes, 3);
        assert_int_equal(rep.snapshots_hit, 0);
        assert_int_equal(rep.bytes_read > 0, data);
    }
}

static void a_flipped_bit_in_a_frame_names_the_snapshots_it_hits(void **state)
{
    struct fixture *f = *state;
    uint64_t ref = first_block(f, f->b.place[1]);       /* of the second snapshot only */
    char path[256], name[32];
    mk_container_path(&f->m, ref, path);
    container_path(ref_container(ref), name);
    mk_flip(path, entry_of(f, ref).frame_off + CFRAME_BYTES + 20, 4);
    struct check_report rep = verify(&f->m, true, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 1);
    assert_non_null(strstr(f->told.p[0].file, name));
    assert_non_null(strstr(f->told.p[0].hits, name_b));
    assert_null(strstr(f->told.p[0].hits, name_a));
    assert_int_equal(f->told.p[0].total, 1);
    rep = verify(&f->m, false, &f->told);               /* structure only: no block is read */
    assert_int_equal(rep.damaged, 0);
}

static void a_shared_segment_hits_both_snapshots(void **state)
{
    struct fixture *f = *state;
    uint64_t ref = first_block(f, f->a.place[0]);
    char path[256];
    mk_container_path(&f->m, ref, path);
    mk_flip(path, entry_of(f, ref).frame_off + 60, 1);  /* header of the frame */
    struct check_report rep = verify(&f->m, true, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 2);
    assert_non_null(strstr(f->told.p[0].hits, name_a));
    assert_non_null(strstr(f->told.p[0].hits, name_b));
    assert_int_equal(f->told.p[0].total, 2);
}

/* Every byte of a container is under some checksum: wherever a bit flips, something is told. */
static void any_flipped_bit_in_a_container_is_found(void **state)
{
    struct fixture *f = *state;
    const uint64_t refs[] = { first_block(f, f->a.place[0]), f->a.place[0] };
    for (unsigned which = 0; which < 2; which++) {
        char path[256];
        size_t len;
        mk_container_path(&f->m, refs[which], path);
        uint8_t *file = mk_load(path, &len);
        for (unsigned i = 0; i < 40; i++) {
            uint64_t off = i < 8 ? i * 16 : i < 20 ? len - 1 - mk_random(&f->seed) % 5000 : mk_random(&f->seed) % len;
            uint8_t mask = (uint8_t)(1u << mk_random(&f->seed) % 8);
            mk_flip(path, off, mask);
            struct check_report rep = verify(&f->m, true, &f->told);
            if (rep.damaged == 0)
                fail_msg("bit %02x of byte %llu of %zu in %s", mask, (unsigned long long)off, len, path);
            assert_true(rep.snapshots_hit >= 1);
            mk_flip(path, off, mask);
        }
        free(file);
    }
    assert_int_equal(verify(&f->m, true, &f->told).damaged, 0);
}

static void a_missing_container_is_told_once(void **state)
{
    struct fixture *f = *state;
    char path[256];
    mk_container_path(&f->m, f->a.place[0], path);      /* recipes of the first snapshot, one of them shared */
    assert_int_equal(unlink(path), 0);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 2);
    assert_int_equal(f->told.p[0].total, 2);
}

static void missing_blocks_are_told(void **state)
{
    struct fixture *f = *state;
    char path[256];
    mk_container_path(&f->m, first_block(f, f->b.place[1]), path);
    assert_int_equal(unlink(path), 0);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 1);
    assert_non_null(strstr(f->told.p[0].hits, name_b));
}

static void a_damaged_recipe_file_is_told_with_its_snapshot(void **state)
{
    struct fixture *f = *state;
    char path[256];
    mk_recipe_path(&f->m, &f->a.rcp, ".rcp", path);
    mk_flip(path, SNAPRCP_PAGE + 24, 1);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 1);
    assert_non_null(strstr(f->told.p[0].file, "snapshots/"));
    assert_non_null(strstr(f->told.p[0].hits, name_a));
    mk_flip(path, SNAPRCP_PAGE + 24, 1);
    mk_flip(path, 300, 1);
    rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 1);
}

/* A header that is whole in itself, around other runs. */
static void runs_without_their_digest_are_told(void **state)
{
    struct fixture *f = *state;
    char path[256];
    size_t len;
    struct snaprcp hdr;
    const char *why = "";
    mk_recipe_path(&f->m, &f->a.rcp, ".rcp", path);
    uint8_t *file = mk_load(path, &len);
    assert_int_equal(snaprcp_decode(file, &hdr, &why), 0);
    hdr.runs_digest[5] ^= 1;
    assert_int_equal(snaprcp_encode(&hdr, file), 0);
    mk_store_bytes(path, file, len);
    free(file);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_non_null(strstr(f->told.p[0].what, "digest"));
    assert_non_null(strstr(f->told.p[0].hits, name_a));
}

static struct mksnap snapshot_of_recipe(struct fixture *f, struct segrcp *rcp)
{
    struct mksnap s = { .segments = 1, .place = calloc(1, sizeof(uint64_t)) };
    struct cwriter *w;
    assert_non_null(s.place);
    MK_OK(cwriter_open(f->m.st, CONTAINER_RECIPES, f->m.flags, REF_NONE, &w, &mk_err_));
    s.place[0] = mk_recipe(&f->m, w, rcp);
    MK_OK(cwriter_seal(w, &mk_err_));
    cwriter_free(w);
    s.rcp = mk_header(&f->m, rcp->bytes);
    snprintf(s.rcp.info.label, sizeof s.rcp.info.label, "odd");
    MK_OK(mk_commit(&f->m, &s.rcp, s.place, &mk_err_));
    return s;
}

static void recipes_that_do_not_fit_their_blocks_are_told(void **state)
{
    struct fixture *f = *state;
    for (unsigned fault = 0; fault < 3; fault++) {
        struct segrcp rcp;
        MK_OK(segread_recipe(f->m.segread, f->a.place[0], &rcp, &mk_err_));
        if (fault == 0) {
            rcp.digest[0] ^= 1;
        } else if (fault == 1) {
            rcp.prefix[rcp.nblocks / 2] ^= 1;
        } else {    /* one byte from a block to the next */
            uint32_t i = 0;
            while (i + 1 < rcp.nblocks && rcp.len1[i] + 1 >= BLOCK_MAX)
                i++;
            rcp.len1[i]++;
            rcp.len1[i + 1]--;
            rcp.data_pages = segrcp_data_pages(&rcp);
        }
        struct mksnap s = snapshot_of_recipe(f, &rcp);
        segrcp_release(&rcp);
        struct check_report rep = verify(&f->m, true, &f->told);
        assert_int_equal(rep.damaged, 1);
        assert_non_null(strstr(f->told.p[0].what, "segment recipe 0"));
        assert_non_null(strstr(f->told.p[0].hits, "web/disk@odd.img"));
        assert_int_equal(rep.snapshots_hit, 1);
        MK_OK(snaps_trash(f->m.st, &s.rcp.info.ref, &mk_err_));
        mk_snap_free(&s);
    }
}

/* Frame, digest and recipe are all right: only the fingerprint, which other disks would find the block by, is not. */
static void a_block_under_a_wrong_fingerprint_is_told(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "a block that is not what it is called";
    struct fp fp = { .b = { 9, 9, 9, 9 } };
    struct segrcp_run run = { .count = 1 };
    uint16_t len1 = sizeof text - 1;
    uint32_t prefix = 0x09090909;
    struct segrcp rcp = { .bytes = sizeof text, .nruns = 1, .nblocks = 1, .runs = &run, .len1 = &len1, .prefix = &prefix };
    struct cwriter *w;
    MK_OK(fper_segment(f->m.fper, text, sizeof text, rcp.digest, &mk_err_));
    MK_OK(cwriter_open(f->m.st, CONTAINER_BLOCKS, f->m.flags, REF_NONE, &w, &mk_err_));
    MK_OK(cwriter_append(w, &fp, text, sizeof text, &run.ref, &mk_err_));
    MK_OK(cwriter_seal(w, &mk_err_));
    cwriter_free(w);
    rcp.data_pages = segrcp_data_pages(&rcp);
    struct mksnap s = snapshot_of_recipe(f, &rcp);
    struct check_report rep = verify(&f->m, true, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_non_null(strstr(f->told.p[0].what, "fingerprint"));
    assert_non_null(strstr(f->told.p[0].hits, "web/disk@odd.img"));
    assert_int_equal(rep.snapshots_hit, 1);
    mk_snap_free(&s);
}

/* What no snapshot uses is no damage: a collection may have taken its blocks. */
static void recipes_that_nobody_uses_are_no_damage(void **state)
{
    struct fixture *f = *state;
    char path[256];
    MK_OK(snaps_trash(f->m.st, &f->b.rcp.info.ref, &mk_err_));
    mk_container_path(&f->m, first_block(f, f->b.place[1]), path);
    assert_int_equal(unlink(path), 0);
    struct check_report rep = verify(&f->m, true, &f->told);
    assert_int_equal(rep.damaged, 0);
    assert_int_equal(rep.snapshots, 1);
}

static void an_anchor_is_verified_when_its_snapshot_is_gone(void **state)
{
    struct fixture *f = *state;
    char path[256];
    MK_OK(snaps_anchor(f->m.st, &f->m.disk.id, &f->b.rcp.info.ref, &mk_err_));
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.anchors, 0);       /* the same file as the snapshot */
    MK_OK(snaps_trash(f->m.st, &f->b.rcp.info.ref, &mk_err_));
    rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.anchors, 1);
    assert_int_equal(rep.damaged, 0);
    mk_container_path(&f->m, first_block(f, f->b.place[1]), path);
    assert_int_equal(unlink(path), 0);
    rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, 1);
    assert_non_null(strstr(f->told.p[0].hits, "anchor "));
}

/* What two daemons with copies of one STATE leave behind. */
static void a_sequence_number_with_two_recipes_is_damage(void **state)
{
    struct fixture *f = *state;
    const uint64_t place[] = {REF_ZERO};
    struct snaprcp hdr[3];
    for (unsigned i = 0; i < 3; i++) {
        hdr[i] = mk_header(&f->m, SEG_BYTES);
        hdr[i].info.ref.seq = hdr[0].info.ref.seq;
        MK_OK(mk_commit(&f->m, &hdr[i], place, &mk_err_));
    }
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 1);       /* the number, once */
    assert_non_null(strstr(f->told.p[0].what, "more than one recipe"));
}

static void leftovers_are_notices(void **state)
{
    struct fixture *f = *state;
    char path[512], hex[VID_HEX];
    struct commit *c = NULL;
    struct snaprcp hdr = mk_header(&f->m, SEG_BYTES);
    vid_hex(&f->m.disk.id, hex);
    MK_OK(commit_begin(f->m.st, &hdr, &c, &mk_err_));
    snprintf(path, sizeof path, "%s/snapshots/%s/README", f->m.path, hex);
    mk_store_bytes(path, "x", 1);
    snprintf(path, sizeof path, "%s/snapshots/%s/.tmp-1234", f->m.path, hex);
    mk_store_bytes(path, "x", 1);
    mk_recipe_path(&f->m, &hdr, ".attr", path);
    mk_store_bytes(path, "x", 1);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 0);
    assert_int_equal(rep.notices, 4);
    assert_non_null(find(f, "README"));
    assert_non_null(find(f, "/leases/"));
    assert_non_null(find(f, ".attr"));
    commit_abort(c);
}

static void damaged_names_and_side_files_are_told(void **state)
{
    struct fixture *f = *state;
    char path[512], hex[VID_HEX];
    struct snapattr a = { .snap = f->a.rcp.info.ref.snap, .version = 1 };
    MK_OK(mk_side_save(&f->m, &f->a.rcp.info.ref, &a, &mk_err_));
    assert_int_equal(verify(&f->m, false, &f->told).side_files, 1);
    mk_recipe_path(&f->m, &f->a.rcp, ".attr", path);
    mk_flip(path, 20, 1);
    vid_hex(&f->m.vm.id, hex);
    snprintf(path, sizeof path, "%s/nodes/%s", f->m.path, hex);
    mk_flip(path, 40, 1);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_int_equal(rep.damaged, 2);
    assert_non_null(find(f, ".attr"));
    assert_non_null(find(f, hex));
    assert_int_equal(unlink(path), 0);
    rep = verify(&f->m, false, &f->told);       /* now the disk has no directory */
    assert_int_equal(rep.damaged, 2);
    vid_hex(&f->m.disk.id, hex);
    assert_non_null(find(f, "nodes/"));
    assert_non_null(strstr(find(f, "nodes/")->file, hex));
}

static void problems_beyond_the_limit_are_counted(void **state)
{
    struct fixture *f = *state;
    char path[256];
    mk_container_path(&f->m, first_block(f, f->b.place[1]), path);
    assert_int_equal(unlink(path), 0);
    mk_container_path(&f->m, f->a.place[0], path);
    assert_int_equal(unlink(path), 0);
    struct check_opts o = { .max_problems = 1, .problem = keep, .ctx = &f->told };
    struct check_report rep;
    f->told.n = 0;
    MK_OK(check_verify(f->m.st, &o, &rep, &mk_err_));
    assert_int_equal(rep.damaged, 2);
    assert_int_equal(f->told.n, 1);
    assert_int_equal(rep.snapshots_hit, 2);
}

static void each_snapshot_is_counted_once(void **state)
{
    struct fixture *f = *state;
    char path[256];
    uint64_t x = f->b.place[1];
    const uint64_t place[] = { x, REF_ZERO, x, REF_ZERO, x };
    for (unsigned i = 0; i < CHECK_HITS_MAX + 8; i++) {
        struct snaprcp hdr = mk_header(&f->m, 5 * (uint64_t)SEG_BYTES);
        MK_OK(mk_commit(&f->m, &hdr, place, &mk_err_));
    }
    mk_container_path(&f->m, first_block(f, x), path);
    assert_int_equal(unlink(path), 0);
    struct check_opts o = { .problem = keep, .ctx = &f->told };
    struct check_report rep;
    f->told.n = 0;
    MK_OK(check_verify(f->m.st, &o, &rep, &mk_err_));
    assert_int_equal(rep.damaged, 1);
    assert_int_equal(rep.snapshots_hit, CHECK_HITS_MAX + 9);
    assert_int_equal(f->told.p[0].total, CHECK_HITS_MAX + 9);

    /* One of them is damaged itself, too, behind the run that is bad: still one snapshot. */
    mk_recipe_path(&f->m, &f->b.rcp, ".rcp", path);
    mk_flip(path, 4000, 1);
    f->told.n = 0;
    MK_OK(check_verify(f->m.st, &o, &rep, &mk_err_));
    assert_int_equal(rep.damaged, 2);
    assert_int_equal(rep.snapshots_hit, CHECK_HITS_MAX + 9);
}

static int stop_at_once(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    (void)ctx, (void)what, (void)done, (void)total;
    return 1;
}

static void verify_can_be_stopped(void **state)
{
    struct fixture *f = *state;
    struct check_opts o = { .progress = stop_at_once };
    struct check_report rep;
    assert_int_equal(check_verify(f->m.st, &o, &rep, NULL), -EINTR);
}

/* ---- verify: what publishing depends on ---- */

/* Every byte, one after the other: damage in that file, and a text that says what it hinders. */
static void flip_every_byte(struct fixture *f, const char *path, const char *file, const char *hinders)
{
    size_t len;
    free(mk_load(path, &len));
    for (size_t off = 0; off < len; off++) {
        mk_flip(path, off, (uint8_t)(1u << off % 8));
        struct check_report rep = verify(&f->m, false, &f->told);
        if (rep.damaged != 1 || rep.notices != 0 || rep.snapshots_hit != 0)
            fail_msg("byte %zu of %zu in %s: %llu damaged", off, len, path, (unsigned long long)rep.damaged);
        assert_string_equal(f->told.p[0].file, file);
        if (strstr(f->told.p[0].what, hinders) == NULL)
            fail_msg("byte %zu of %s: %s", off, path, f->told.p[0].what);
        mk_flip(path, off, (uint8_t)(1u << off % 8));
    }
    assert_int_equal(verify(&f->m, false, &f->told).damaged, 0);
}

static void any_flipped_byte_of_an_owner_record_is_damage(void **state)
{
    struct fixture *f = *state;
    char path[512], file[128], hex[VID_HEX];
    uint64_t epoch;
    MK_OK(owner_claim(f->m.st, &f->m.vm.id, &f->m.host, &epoch, &mk_err_));
    assert_int_equal(verify(&f->m, false, &f->told).owners, 1);
    vid_hex(&f->m.vm.id, hex);
    snprintf(file, sizeof file, "owners/%s.0000000000000001", hex);
    snprintf(path, sizeof path, "%s/%s", f->m.path, file);
    flip_every_byte(f, path, file, "nothing of this VM can be published");

    /* After an adoption nobody reads it any more. */
    MK_OK(owner_publish(f->m.st, &f->m.vm.id, 2, &f->m.host));
    assert_int_equal(verify(&f->m, false, &f->told).owners, 2);
    flip_every_byte(f, path, file, "nothing relies on this one");
}

static void write_deletions(struct fixture *f, uint64_t generation, const uint64_t *refs, uint64_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/generations/%016llx", f->m.path, (unsigned long long)generation);
    int dir = dir_make(AT_FDCWD, path);
    assert_true(dir >= 0);
    assert_int_equal(tree_remove(dir, "deletions"), 0);
    snprintf(path, sizeof path, "generations/%016llx", (unsigned long long)generation);
    MK_OK(deletion_log_write(f->m.st->b, path, &store_conf(f->m.st)->id, generation, refs, n));
    close(dir);
}

static void any_flipped_byte_of_a_deletion_log_is_damage(void **state)
{
    struct fixture *f = *state;
    static const char *const file[] = { "generations/0000000000000001/deletions", "generations/0000000000000002/deletions" };
    const uint64_t refs[] = { ref_make(70000, 1), ref_make(70000, 2), ref_make(70001, 0) };
    char path[2][256];
    for (unsigned i = 0; i < 2; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", f->m.path, file[i]);
    write_deletions(f, 1, refs, 3);
    flip_every_byte(f, path[0], file[0], "no host can publish anything");
    write_deletions(f, 2, refs, 2);
    assert_int_equal(verify(&f->m, false, &f->told).generations, 2);
    flip_every_byte(f, path[0], file[0], "nothing relies on this one");
    flip_every_byte(f, path[1], file[1], "no host can publish anything");
    assert_int_equal(unlink(path[1]), 0);
    assert_int_equal(verify(&f->m, false, &f->told).damaged, 1);
    assert_string_equal(f->told.p[0].file, file[1]);
}

static void records_of_a_newer_version_are_told_as_such(void **state)
{
    struct fixture *f = *state;
    char path[256];
    size_t len;
    snprintf(path, sizeof path, "%s/generations/0000000000000001/deletions", f->m.path);
    uint8_t *log = mk_load(path, &len);
    put_le32(log + 8, 2);
    put_le64(log + len - 8, hash64(log, len - 8));
    mk_store_bytes(path, log, len);
    free(log);
    assert_int_equal(verify(&f->m, false, &f->told).damaged, 1);
    assert_non_null(strstr(f->told.p[0].what, "use that version"));
}

static void names_that_stop_publishing_are_damage_and_others_are_notices(void **state)
{
    struct fixture *f = *state;
    char path[512], hex[VID_HEX];
    vid_hex(&f->m.vm.id, hex);
    snprintf(path, sizeof path, "%s/owners/README", f->m.path);
    mk_store_bytes(path, "x", 1);
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_true(rep.damaged == 0 && rep.notices == 1);
    snprintf(path, sizeof path, "%s/owners/%s.old", f->m.path, hex);
    mk_store_bytes(path, "x", 1);
    snprintf(path, sizeof path, "%s/generations/backup", f->m.path);
    mk_store_bytes(path, "x", 1);
    rep = verify(&f->m, false, &f->told);
    assert_true(rep.damaged == 2 && rep.notices == 1);
    assert_non_null(strstr(find(f, ".old")->what, "can be published"));
    assert_non_null(strstr(find(f, "generations/")->what, "can be published"));
    struct vid vm = f->m.vm.id;
    uint64_t epoch;
    assert_int_equal(owner_claim(f->m.st, &vm, &f->m.host, &epoch, NULL), -EBADMSG);   /* what verify says is so */
}

/* ---- verify: trash ---- */

/* The only name in a directory, in front of it the directory. */
static int only_name(void *ctx, const char *name)
{
    char *path = ctx;
    snprintf(path + strlen(path), 200, "/%.190s", name);
    return 0;
}

static void trash_that_cannot_be_read_is_a_notice(void **state)
{
    struct fixture *f = *state;
    char path[512];
    size_t len;
    MK_OK(snaps_trash(f->m.st, &f->b.rcp.info.ref, &mk_err_));
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_true(rep.damaged == 0 && rep.notices == 0 && rep.trash == 1);
    snprintf(path, sizeof path, "%s/trash", f->m.path);
    MK_OK(dir_each(store_dirfd(f->m.st, DIR_TRASH), only_name, path));
    free(mk_load(path, &len));
    for (unsigned i = 0; i < 60; i++) {
        uint64_t off = i < 20 ? i : i < 40 ? SNAPRCP_PAGE + i : mk_random(&f->seed) % len;
        mk_flip(path, off, 0x10);
        rep = verify(&f->m, false, &f->told);
        if (rep.damaged != 0 || rep.notices != 1 || rep.trash != 0)
            fail_msg("byte %llu of %zu", (unsigned long long)off, len);
        assert_non_null(strstr(f->told.p[0].what, "no collection frees anything"));
        mk_flip(path, off, 0x10);
    }
    assert_int_equal(truncate(path, SNAPRCP_PAGE), 0);
    assert_int_equal(verify(&f->m, false, &f->told).notices, 1);
    assert_int_equal(unlink(path), 0);

    snprintf(path, sizeof path, "%s/trash/what is this", f->m.path);
    mk_store_bytes(path, "x", 1);
    assert_int_equal(verify(&f->m, false, &f->told).notices, 1);
    assert_int_equal(unlink(path), 0);
}

static void side_files_and_anchors_in_trash_are_read(void **state)
{
    struct fixture *f = *state;
    struct snapattr a = { .snap = f->a.rcp.info.ref.snap, .version = 1 };
    MK_OK(mk_side_save(&f->m, &f->a.rcp.info.ref, &a, &mk_err_));
    /* for another "disk" */
    MK_OK(snaps_anchor(f->m.st, &f->m.vm.id, &f->b.rcp.info.ref, &mk_err_));
    MK_OK(snaps_unanchor(f->m.st, &f->m.vm.id, &f->b.rcp.info.ref, NULL, NULL, &mk_err_));
    MK_OK(snaps_trash(f->m.st, &f->a.rcp.info.ref, &mk_err_));
    struct check_report rep = verify(&f->m, false, &f->told);
    assert_true(rep.damaged == 0 && rep.notices == 0 && rep.trash == 3);
}

/* ---- verify: files of somebody else ---- */

static void stray_files_are_notices_and_end_nothing(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = { "nodes/README", "containers/README", "containers/000001/lost+found", "index/README" };
    char path[512];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", f->m.path, names[i]);
        mk_store_bytes(path, "x", 1);
    }
    struct check_report rep = verify(&f->m, true, &f->told);
    assert_true(rep.damaged == 0 && rep.notices == 4 && rep.index_notices == 0);
    assert_true(rep.containers == 4 && rep.nodes == 3);
    for (unsigned i = 0; i < 4; i++)
        assert_non_null(find(f, names[i]));
    struct check_opts o = { .problem = keep, .ctx = &f->told };
    struct check_rebuilt rebuilt;
    f->told.n = 0;
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, &o, &rebuilt, &mk_err_));
    assert_int_equal(rebuilt.containers, 2);
    assert_int_equal(f->told.n, 2);
    assert_int_equal(f->told.p[0].severity, CHECK_NOTICE);
}

/* ---- verify: the index ---- */

static void rebuild_index(struct fixture *f)
{
    struct check_rebuilt rep;
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, NULL, &rep, &mk_err_));
    assert_true(rep.entries > 20);
}

static void put_delta(struct fixture *f, struct fp fp, uint64_t ref)
{
    const struct store_conf *c = store_conf(f->m.st);
    struct fpindex *ix;
    struct fpdelta *d;
    MK_OK(fpindex_open(store_index(f->m.st), "index", storeconf_partition(c, fp.b) / c->partitions, c->partitions, 3, &ix, &mk_err_));
    MK_OK(fpdelta_begin(ix, &d, &mk_err_));
    MK_OK(fpdelta_add(d, fp.b, ref, &mk_err_));
    MK_OK(fpdelta_commit(d, &mk_err_));
    fpindex_close(ix);
}

struct paths { char path[32][512]; unsigned n; const char *dir; };

static int add_path(void *ctx, const char *name)
{
    struct paths *p = ctx;
    assert_true(p->n < 32);
    snprintf(p->path[p->n++], sizeof p->path[0], "%.300s/%.200s", p->dir, name);
    return 0;
}

static void index_files(struct fixture *f, struct paths *p)
{
    char dir[2][256];
    p->n = 0;
    for (unsigned slot = 0; slot < 2; slot++) {
        snprintf(dir[slot], sizeof dir[slot], "%s/index/%04u", f->m.path, slot);
        p->dir = dir[slot];
        int fd = dir_open(AT_FDCWD, dir[slot]);
        assert_true(fd >= 0);
        MK_OK(dir_each(fd, add_path, p));
        close(fd);
    }
}

static void a_sound_index_verifies_clean(void **state)
{
    struct fixture *f = *state;
    rebuild_index(f);
    put_delta(f, entry_of(f, first_block(f, f->b.place[1])).fp, REF_NONE);     /* a tombstone is no reference */
    for (int data = 0; data < 2; data++) {
        struct check_report rep = verify(&f->m, data != 0, &f->told);
        assert_true(rep.damaged == 0 && rep.notices == 0);
        assert_true(rep.index_files > 1 && rep.index_entries > 20);
    }
}

static void any_flipped_byte_of_the_index_is_a_notice(void **state)
{
    struct fixture *f = *state;
    struct paths p;
    rebuild_index(f);
    put_delta(f, entry_of(f, first_block(f, f->b.place[1])).fp, ref_make(99999, 1));
    index_files(f, &p);
    assert_true(p.n > 2);
    for (unsigned i = 0; i < 240; i++) {
        size_t len;
        const char *path = p.path[i % p.n];
        free(mk_load(path, &len));
        uint64_t off = i < 60 ? i * 8 % 128 : mk_random(&f->seed) % len;
        uint8_t mask = (uint8_t)(1u << mk_random(&f->seed) % 8);
        mk_flip(path, off, mask);
        struct check_report rep = verify(&f->m, false, &f->told);
        if (rep.damaged != 0 || rep.notices != 1 || rep.index_notices != 1)
            fail_msg("byte %llu of %zu in %s", (unsigned long long)off, len, path);
        assert_non_null(strstr(path, f->told.p[0].file));
        assert_non_null(strstr(f->told.p[0].what, "index: "));
        assert_non_null(strstr(f->told.p[0].what, "; varve rebuild --index mends it"));
        mk_flip(path, off, mask);
    }
    index_files(f, &p);
    for (unsigned i = 0; i < p.n; i++)
        assert_null(strstr(p.path[i], ".damaged"));         /* verify changes nothing */
    assert_int_equal(truncate(p.path[0], PAGE_BYTES + 1), 0);
    assert_int_equal(verify(&f->m, false, &f->told).notices, 1);
    rebuild_index(f);
    assert_int_equal(verify(&f->m, true, &f->told).notices, 0);
}

/* Pages whose checksum is right: what is wrong is what they say. */
static void index_pages_that_say_something_wrong_are_told(void **state)
{
    struct fixture *f = *state;
    static const char *const what[] = { "do not ascend", "another partition", "a reference is none", "fence" };
    struct paths p;
    rebuild_index(f);
    index_files(f, &p);
    /* One with a single page of entries: which ones have that depends on the seed. */
    const char *path = NULL;
    struct stat st;
    for (unsigned i = 0; i < p.n && path == NULL; i++)
        if (stat(p.path[i], &st) == 0 && st.st_size == 3 * PAGE_BYTES)
            path = p.path[i];
    assert_non_null(path);
    for (unsigned fault = 0; fault < 4; fault++) {
        size_t len;
        uint8_t *file = mk_load(path, &len), *page = file + PAGE_BYTES, *entry = page + 16;
        uint8_t *before = malloc(len), swap[32];
        assert_non_null(before);
        memcpy(before, file, len);
        if (fault == 0) {
            memcpy(swap, entry + 32, 32);
            memcpy(entry + 32, entry + 64, 32);
            memcpy(entry + 64, swap, 32);
        } else if (fault == 1) {
            size_t last = (size_t)get_le16(page + 8) - 1;
            entry[last * 32] = 0xff;
        } else if (fault == 2) {
            put_le64(entry + 24, REF_NONE);
        } else {
            page += PAGE_BYTES;
            page[16] ^= 1;
        }
        put_le64(page, hash64_seed(page + 8, PAGE_BYTES - 8, get_le64(file + 72)));
        mk_store_bytes(path, file, len);
        struct check_report rep = verify(&f->m, false, &f->told);
        assert_true(rep.damaged == 0 && rep.notices == 1);
        if (strstr(f->told.p[0].what, what[fault]) == NULL)
            fail_msg("%s: %s", what[fault], f->told.p[0].what);
        mk_store_bytes(path, before, len);
        free(before);
        free(file);
    }
}

static void wrong_references_in_the_index_are_a_notice(void **state)
{
    struct fixture *f = *state;
    uint64_t ref = first_block(f, f->b.place[1]), place;
    struct fp fp = entry_of(f, ref).fp;
    uint8_t own[20000];
    for (unsigned i = 0; i < sizeof own; i++)
        own[i] = (uint8_t)mk_random(&f->seed);
    f->m.flags = CONTAINER_PRIVATE;
    mk_segments(&f->m, own, sizeof own, &place);
    uint64_t private = first_block(f, place);
    rebuild_index(f);
    const struct { struct fp fp; uint64_t ref; } wrong[] = {
        { fp, ref_make(99999, 1) }, { fp, ref + 1 }, { fp, ref_make(ref_container(ref), 1 << 20) }, { fp, f->a.place[0] },
        { entry_of(f, private).fp, private },
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_delta(f, wrong[i].fp, wrong[i].ref);
        struct check_report rep = verify(&f->m, true, &f->told);
        if (rep.damaged != 0 || rep.notices != 1 || rep.index_notices != 1)
            fail_msg("wrong reference %u: %llu notices", i, (unsigned long long)rep.notices);
        assert_non_null(strstr(f->told.p[0].what, "1 entries lead to other blocks"));
        assert_int_equal(verify(&f->m, false, &f->told).notices, 0);        /* structure only */
        put_delta(f, wrong[i].fp, i < 4 ? ref : REF_NONE);                 /* the newest counts */
        assert_int_equal(verify(&f->m, true, &f->told).notices, 0);
    }
}

/* Blocks that come while verify runs are in no container that it has walked. */
static int add_meanwhile(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct fixture *f = ctx;
    if (strcmp(what, "containers") != 0 || done != total)
        return 0;
    uint64_t place;
    mk_segments(&f->m, f->data, 30000, &place);
    rebuild_index(f);
    return 0;
}

static void blocks_that_come_meanwhile_are_right(void **state)
{
    struct fixture *f = *state;
    struct check_opts o = { .read_data = true, .problem = keep, .progress = add_meanwhile, .ctx = f };
    struct check_report rep;
    o.problem = NULL;
    mk_fill(f->data, f->size, &f->seed);
    for (unsigned i = 0; i < 30000; i++)
        f->data[i] = (uint8_t)mk_random(&f->seed);
    rebuild_index(f);
    MK_OK(check_verify(f->m.st, &o, &rep, &mk_err_));
    assert_true(rep.damaged == 0 && rep.notices == 0);
}

/* ---- rebuild ---- */

struct lookup { const uint8_t *key; uint64_t ref; bool given; };

static int next_key(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct lookup *l = ctx;
    if (l->given)
        return 0;
    l->given = true;
    memcpy(key, l->key, FPKEY_BYTES);
    return 1;
}

static int take_answer(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct lookup *l = ctx;
    assert_memory_equal(key, l->key, FPKEY_BYTES);
    l->ref = ref;
    return 0;
}

static uint64_t find_in_index(struct mkstore *m, const struct fp *fp)
{
    const struct store_conf *c = store_conf(m->st);
    uint32_t partition = storeconf_partition(c, fp->b);
    struct lookup l = { .key = fp->b, .ref = REF_NONE };
    struct fpindex *ix;
    MK_OK(fpindex_open(store_index(m->st), "index", partition / c->partitions, c->partitions, 3, &ix, &mk_err_));
    MK_OK(fpindex_compare(ix, partition % c->partitions, 1, FPINDEX_AUTO, 1 << 20, next_key, take_answer, &l, &mk_err_));
    fpindex_close(ix);
    return l.ref;
}

struct compare { struct mkstore *m; uint64_t seen, except; bool wanted; };

static int compare_entry(void *ctx, uint64_t ref, const struct footer_entry *e)
{
    struct compare *c = ctx;
    struct footer_entry found;
    uint64_t got = find_in_index(c->m, &e->fp);
    c->seen++;
    if (!c->wanted || ref == c->except) {
        assert_int_equal(got, REF_NONE);
        return 0;
    }
    assert_int_not_equal(got, REF_NONE);    /* of equal blocks, any one */
    MK_OK(creader_entries(c->m->reader, got, 1, &found, &mk_err_));
    assert_true(fp_eq(&found.fp, &e->fp));
    return 0;
}

static int compare_container(void *ctx, uint64_t number)
{
    struct compare *c = ctx;
    struct container_info info;
    MK_OK(container_walk(c->m->reader, number, &info, NULL, NULL, &mk_err_));
    c->wanted = info.type == CONTAINER_BLOCKS && (info.flags & CONTAINER_SHARED) != 0;
    MK_OK(container_walk(c->m->reader, number, &info, compare_entry, c, &mk_err_));
    return 0;
}

static void index_is_made_anew_from_footers(void **state)
{
    struct fixture *f = *state;
    struct check_rebuilt rep;
    char path[256];
    /* Blocks of a selective VM stay out. */
    uint8_t *own = malloc(200000);
    assert_non_null(own);
    for (unsigned i = 0; i < 200000; i++)
        own[i] = (uint8_t)mk_random(&f->seed);
    f->m.flags = CONTAINER_PRIVATE;
    uint64_t place;
    mk_segments(&f->m, own, 200000, &place);
    free(own);
    snprintf(path, sizeof path, "%s/index", f->m.path);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(tree_remove(AT_FDCWD, path), 0);
        assert_int_equal(mkdir(path, 0700), 0);
        struct store *before = f->m.st;
        MK_OK(store_open(f->m.path, &f->m.st, &mk_err_));
        mk_reopen_reader(&f->m);
        store_close(before);
        MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), round == 0 ? 0 : 70000, NULL, &rep, &mk_err_));
        assert_int_equal(rep.containers, 2);
        assert_int_equal(rep.slots, 2);
        assert_int_equal(rep.skipped, 0);
        struct compare c = { .m = &f->m, .except = REF_NONE };
        MK_OK(container_each(f->m.st, compare_container, &c, &mk_err_));
        assert_true(c.seen > rep.entries);
    }
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, NULL, &rep, &mk_err_));   /* again, over what is there */
    struct compare c = { .m = &f->m, .except = REF_NONE };
    MK_OK(container_each(f->m.st, compare_container, &c, &mk_err_));
}

static void condemned_blocks_stay_out_of_the_index(void **state)
{
    struct fixture *f = *state;
    struct check_rebuilt rep;
    uint64_t ref = first_block(f, f->b.place[1]);
    uint8_t log[64] = "varveDEL";
    char path[256];
    put_le32(log + 8, 1);
    memcpy(log + 16, store_conf(f->m.st)->id.b, VID_BYTES);
    put_le64(log + 32, 1);
    put_le64(log + 40, 1);
    put_le64(log + 48, ref);
    put_le64(log + 56, hash64(log, 56));
    snprintf(path, sizeof path, "%s/generations/0000000000000001/deletions", f->m.path);
    mk_store_bytes(path, log, sizeof log);
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, NULL, &rep, &mk_err_));
    assert_int_equal(rep.condemned, 1);
    assert_int_equal(find_in_index(&f->m, &(struct fp){ .b = {0} }), REF_NONE);
    assert_int_not_equal(find_in_index(&f->m, &(struct footer_entry){ .fp = entry_of(f, ref).fp }.fp), ref);
}

static void a_damaged_container_is_left_out_of_the_index(void **state)
{
    struct fixture *f = *state;
    struct check_rebuilt rep;
    struct check_opts o = { .problem = keep, .ctx = &f->told };
    char path[256];
    size_t len;
    mk_container_path(&f->m, first_block(f, f->b.place[1]), path);
    free(mk_load(path, &len));
    mk_flip(path, len - CTRAILER_BYTES - 2000, 1);
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, &o, &rep, &mk_err_));
    assert_int_equal(rep.skipped, 1);
    assert_int_equal(rep.containers, 1);
    assert_int_equal(f->told.n, 1);
}

static void expect_names(struct fixture *f, int state_dir, const char *state_path)
{
    struct catalog *c;
    struct names *n;
    struct entry e;
    MK_OK(catalog_open(state_dir, state_path, &store_conf(f->m.st)->id, &c, &mk_err_));
    MK_OK(names_open(f->m.st, c, &vclock_system, &n, &mk_err_));
    MK_OK(names_lookup(n, &f->m.vm.parent, "web", &e, &mk_err_));
    assert_int_equal(e.kind, ENTRY_DIR);
    MK_OK(names_lookup(n, &f->m.vm.id, "disk.img", &e, &mk_err_));
    assert_true(vid_eq(&e.node.id, &f->m.disk.id));
    MK_OK(names_lookup(n, &f->m.vm.id, "disk@second.img", &e, &mk_err_));
    assert_int_equal(e.kind, ENTRY_SNAP);
    assert_true(vid_eq(&e.snap.info.ref.snap, &f->b.rcp.info.ref.snap));
    MK_OK(names_lookup(n, &f->m.vm.id, strchr(name_a, '/') + 1, &e, &mk_err_));
    assert_true(vid_eq(&e.snap.info.ref.snap, &f->a.rcp.info.ref.snap));
    names_close(n);
    MK_OK(catalog_close(c, &mk_err_));
}

static void catalog_is_made_anew_from_the_store(void **state)
{
    struct fixture *f = *state;
    char path[128], file[256];
    snprintf(path, sizeof path, "%s/state", f->m.dir);
    int dir = dir_make(AT_FDCWD, path);
    assert_true(dir >= 0);
    MK_OK(check_rebuild_catalog(f->m.st, dir, path, &vclock_system, NULL, &mk_err_));
    expect_names(f, dir, path);
    snprintf(file, sizeof file, "%s/catalog.sqlite", path);
    mk_store_bytes(file, "not a database at all", 21);
    snprintf(file, sizeof file, "%s/catalog.sqlite-wal", path);
    mk_store_bytes(file, "nor a log", 9);
    MK_OK(check_rebuild_catalog(f->m.st, dir, path, &vclock_system, NULL, &mk_err_));
    expect_names(f, dir, path);
    close(dir);
}

/* ---- dump ---- */

/* A strict reader of JSON: position behind the value, or NULL. */
static const char *json_value(const char *p);

static const char *json_space(const char *p)
{
    while (*p == ' ' || *p == '\n')
        p++;
    return p;
}

static const char *json_string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    while (*p != '"') {
        if ((unsigned char)*p < 0x20)
            return NULL;
        if (*p == '\\' && strchr("\"\\/bfnrt", p[1]) == NULL) {
            if (p[1] != 'u' || !isxdigit(p[2]) || !isxdigit(p[3]) || !isxdigit(p[4]) || !isxdigit(p[5]))
                return NULL;
        }
        p += *p == '\\' ? 2 : 1;
    }
    return p + 1;
}

static const char *json_list(const char *p, char end, bool keys)
{
    p = json_space(p + 1);
    if (*p == end)
        return p + 1;
    for (;;) {
        if (keys) {
            p = json_string(p);
            if (p == NULL || *(p = json_space(p)) != ':')
                return NULL;
            p = json_space(p + 1);
        }
        p = json_value(p);
        if (p == NULL)
            return NULL;
        p = json_space(p);
        if (*p == end)
            return p + 1;
        if (*p != ',')
            return NULL;
        p = json_space(p + 1);
    }
}

static const char *json_value(const char *p)
{
    if (*p == '{')
        return json_list(p, '}', true);
    if (*p == '[')
        return json_list(p, ']', false);
    if (*p == '"')
        return json_string(p);
    if (strncmp(p, "true", 4) == 0)
        return p + 4;
    if (strncmp(p, "false", 5) == 0)
        return p + 5;
    const char *start = p;
    p += *p == '-';
    while (isdigit((unsigned char)*p))
        p++;
    return p > start ? p : NULL;
}

static int dump(const char *path, bool json, char **text, struct verr *err)
{
    size_t len = 0;
    FILE *out = open_memstream(text, &len);
    assert_non_null(out);
    int r = dump_file(path, json, out, err);
    fclose(out);
    return r;
}

/* Both forms; the JSON is one valid document. Returns the JSON. */
static char *dump_both(const char *path, int want)
{
    char *text, *json;
    struct verr err = {0};
    int r = dump(path, false, &text, &err);
    if (r != want)
        fail_msg("%s: %d, %s", path, r, verr_str(&err));
    free(text);
    assert_int_equal(dump(path, true, &json, &err), want);
    const char *end = json_value(json);
    if (end == NULL || *json_space(end) != '\0')
        fail_msg("%s: this is no JSON: %s", path, json);
    return json;
}

static void expect_dump(const char *path, const char *field)
{
    char *json = dump_both(path, 0);
    if (strstr(json, field) == NULL)
        fail_msg("%s: no %s in %s", path, field, json);
    free(json);
}

static void files_of_the_store_are_dumped(void **state)
{
    struct fixture *f = *state;
    char path[512], hex[VID_HEX];
    snprintf(path, sizeof path, "%s/store.conf", f->m.path);
    expect_dump(path, "\"block_bytes\": 4096");
    mk_recipe_path(&f->m, &f->b.rcp, ".rcp", path);
    expect_dump(path, "\"label\": \"second\"");
    mk_container_path(&f->m, first_block(f, f->a.place[0]), path);
    expect_dump(path, "\"type\": \"blocks\"");
    mk_container_path(&f->m, f->a.place[0], path);
    expect_dump(path, "\"recipes_decoded\": true");
    expect_dump(path, "\"data_pages\"");
    vid_hex(&f->m.vm.id, hex);
    snprintf(path, sizeof path, "%s/nodes/%s", f->m.path, hex);
    expect_dump(path, "\"name\": \"web\"");
    snprintf(path, sizeof path, "%s/generations/0000000000000001/deletions", f->m.path);
    expect_dump(path, "\"refs\": []");
    uint64_t epoch;
    MK_OK(owner_claim(f->m.st, &f->m.vm.id, &f->m.host, &epoch, &mk_err_));
    snprintf(path, sizeof path, "%s/owners/%s.0000000000000001", f->m.path, hex);
    expect_dump(path, "\"epoch\": 1");
    struct snapattr a = { .snap = f->a.rcp.info.ref.snap, .version = 7 };
    snprintf(a.note, sizeof a.note, "a \"note\"\n\xc3\xa4 \xff \x9b");
    MK_OK(mk_side_save(&f->m, &f->a.rcp.info.ref, &a, &mk_err_));
    mk_recipe_path(&f->m, &f->a.rcp, ".attr", path);
    expect_dump(path, "\"note\": \"a \\\"note\\\"\\n\xc3\xa4 \\uefff \\uef9b\"");
}

static void a_container_outside_its_store_is_dumped_without_recipes(void **state)
{
    struct fixture *f = *state;
    char path[256];
    size_t len;
    mk_container_path(&f->m, f->a.place[0], path);
    uint8_t *file = mk_load(path, &len);
    snprintf(path, sizeof path, "%s/copy", f->m.dir);
    mk_store_bytes(path, file, len);
    expect_dump(path, "\"recipes_decoded\": false");
    mk_store_bytes(path, file, len - 1);            /* its only section is not sealed any more: a torn tail */
    expect_dump(path, "\"sealed\": false");
    free(file);
}

static void index_files_are_dumped(void **state)
{
    struct fixture *f = *state;
    struct check_rebuilt rep;
    char path[512];
    unsigned seen = 0;
    MK_OK(check_rebuild_index(f->m.st, store_dirfd(f->m.st, DIR_INDEX), 0, NULL, &rep, &mk_err_));
    struct fpindex *ix;
    struct fpdelta *d;
    uint8_t key[FPKEY_BYTES] = { 1, 2, 3 };
    MK_OK(fpindex_open(store_index(f->m.st), "index", 0, 4, 3, &ix, &mk_err_));
    MK_OK(fpdelta_begin(ix, &d, &mk_err_));
    MK_OK(fpdelta_add(d, key, ref_make(77, 5), &mk_err_));
    MK_OK(fpdelta_commit(d, &mk_err_));
    fpindex_close(ix);
    for (unsigned slot = 0; slot < 2; slot++) {
        char sub[512];
        DIR *dir = NULL;
        for (unsigned form = 0; form < 3 && dir == NULL; form++) {
            snprintf(sub, sizeof sub, form == 0 ? "%s/index/%u" : form == 1 ? "%s/index/%04u" : "%s/index/%04x", f->m.path, slot);
            dir = opendir(sub);
        }
        assert_non_null(dir);
        struct dirent *e;
        while ((e = readdir(dir)) != NULL) {
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%.200s/%.200s", sub, e->d_name);
            expect_dump(path, strncmp(e->d_name, "delta", 5) == 0 ? "\"index_kind\": \"delta\"" : "\"index_kind\": \"base\"");
            seen++;
        }
        closedir(dir);
    }
    assert_true(seen >= 2);
}

/* Same files, one byte changed: an error that names the file, and still one document. */
static void damaged_files_are_told_where_and_why(void **state)
{
    struct fixture *f = *state;
    char path[3][256], hex[VID_HEX];
    mk_recipe_path(&f->m, &f->b.rcp, ".rcp", path[0]);
    mk_container_path(&f->m, first_block(f, f->a.place[0]), path[1]);
    vid_hex(&f->m.vm.id, hex);
    snprintf(path[2], sizeof path[2], "%s/nodes/%s", f->m.path, hex);
    for (unsigned i = 0; i < 3; i++) {
        size_t len;
        free(mk_load(path[i], &len));
        for (unsigned k = 0; k < 60; k++) {
            uint64_t off = k < 20 ? k * 13 % len : mk_random(&f->seed) % len;
            mk_flip(path[i], off, 0x20);
            struct verr err = {0};
            char *text;
            int r = dump(path[i], true, &text, &err);
            if (r == 0)
                fail_msg("byte %llu of %zu in %s", (unsigned long long)off, len, path[i]);
            assert_non_null(strstr(verr_str(&err), path[i]));
            if (*text != '\0') {
                const char *end = json_value(text);
                assert_non_null(end);
                assert_non_null(strstr(text, "\"error\""));
            }
            free(text);
            mk_flip(path[i], off, 0x20);
        }
    }
}

static void foreign_files_are_refused(void **state)
{
    struct fixture *f = *state;
    char path[256], *text;
    struct verr err = {0};
    snprintf(path, sizeof path, "%s/foreign", f->m.dir);
    mk_store_bytes(path, "#!/bin/sh\n", 10);
    assert_int_equal(dump(path, false, &text, &err), -EBADMSG);
    assert_int_equal(*text, '\0');
    free(text);
    assert_int_equal(dump(path, true, &text, &err), -EBADMSG);
    assert_non_null(strstr(text, "\"error\": "));
    assert_non_null(json_value(text));
    free(text);
    mk_store_bytes(path, "", 0);
    assert_int_equal(dump(path, true, &text, &err), -EBADMSG);
    free(text);
    assert_int_equal(dump(f->m.dir, true, &text, &err), -EBADMSG);
    free(text);
    assert_int_equal(dump("/nowhere/at/all", true, &text, &err), -ENOENT);
    free(text);
}

/* ---- dump of STATE ---- */

static void files_of_a_live_image_are_dumped(void **state)
{
    struct fixture *f = *state;
    char path[512], sub[256], hex[VID_HEX];
    struct live_set *set;
    struct live *l;
    struct live_env env = { .source = segread_source(f->m.segread), .clock = &vclock_system, .trusted = true, .open_max = 4 };
    snprintf(sub, sizeof sub, "%s/state", f->m.dir);
    env.state_dirfd = dir_make(AT_FDCWD, sub);
    assert_true(env.state_dirfd >= 0);
    struct vid disk = vid_random();
    vid_hex(&disk, hex);
    MK_OK(live_set_open(&env, &set, &mk_err_));
    MK_OK(live_create(set, &disk, 1, 0, &l, &mk_err_));
    MK_OK(live_write(l, 5000, "hello", 5, &mk_err_));
    struct freeze_req req = { .label = "frozen" };
    struct snapinfo p;
    MK_OK(live_freeze(&l, 1, &req, &p, &mk_err_));
    MK_OK(live_write(l, 3 * (uint64_t)SEG_BYTES, "world", 5, &mk_err_));
    MK_OK(live_pending_seal(l, p.ref.seq, &mk_err_));
    MK_OK(live_fsync(l, &mk_err_));
    unsigned journals = 0, tables = 0, maps = 0, vols = 0;
    snprintf(sub, sizeof sub, "%s/state/disks/%s", f->m.dir, hex);
    DIR *dir = opendir(sub);
    assert_non_null(dir);
    struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        snprintf(path, sizeof path, "%.200s/%.200s", sub, e->d_name);
        if (strcmp(e->d_name, "journal") == 0)
            journals++, expect_dump(path, "\"label\": \"frozen\"");
        else if (strncmp(e->d_name, "table-", 6) == 0)
            tables++, expect_dump(path, hex);
        else if (strstr(e->d_name, ".map") != NULL)
            maps++, expect_dump(path, hex);
        else if (strstr(e->d_name, ".vol") != NULL)
            vols++, expect_dump(path, hex);
    }
    closedir(dir);
    assert_true(journals == 1 && tables >= 1 && maps >= 1 && vols >= 1);
    live_put(l);
    MK_OK(live_set_close(set, &mk_err_));
    close(env.state_dirfd);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(a_sound_store_verifies_clean),
        EACH(a_flipped_bit_in_a_frame_names_the_snapshots_it_hits),
        EACH(a_shared_segment_hits_both_snapshots),
        EACH(any_flipped_bit_in_a_container_is_found),
        EACH(a_missing_container_is_told_once),
        EACH(missing_blocks_are_told),
        EACH(a_damaged_recipe_file_is_told_with_its_snapshot),
        EACH(runs_without_their_digest_are_told),
        EACH(recipes_that_do_not_fit_their_blocks_are_told),
        EACH(a_block_under_a_wrong_fingerprint_is_told),
        EACH(recipes_that_nobody_uses_are_no_damage),
        EACH(an_anchor_is_verified_when_its_snapshot_is_gone),
        EACH(a_sequence_number_with_two_recipes_is_damage), EACH(leftovers_are_notices),
        EACH(damaged_names_and_side_files_are_told),
        EACH(problems_beyond_the_limit_are_counted),
        EACH(each_snapshot_is_counted_once),
        EACH(verify_can_be_stopped),
        EACH(any_flipped_byte_of_an_owner_record_is_damage),
        EACH(any_flipped_byte_of_a_deletion_log_is_damage),
        EACH(records_of_a_newer_version_are_told_as_such),
        EACH(names_that_stop_publishing_are_damage_and_others_are_notices),
        EACH(trash_that_cannot_be_read_is_a_notice),
        EACH(side_files_and_anchors_in_trash_are_read),
        EACH(stray_files_are_notices_and_end_nothing),
        EACH(a_sound_index_verifies_clean),
        EACH(any_flipped_byte_of_the_index_is_a_notice),
        EACH(index_pages_that_say_something_wrong_are_told),
        EACH(wrong_references_in_the_index_are_a_notice),
        EACH(blocks_that_come_meanwhile_are_right),
        EACH(index_is_made_anew_from_footers),
        EACH(condemned_blocks_stay_out_of_the_index),
        EACH(a_damaged_container_is_left_out_of_the_index),
        EACH(catalog_is_made_anew_from_the_store),
        EACH(files_of_the_store_are_dumped),
        EACH(a_container_outside_its_store_is_dumped_without_recipes),
        EACH(index_files_are_dumped),
        EACH(damaged_files_are_told_where_and_why),
        EACH(foreign_files_are_refused),
        EACH(files_of_a_live_image_are_dumped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
