/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of names on a real store and catalog: changes, remounts, lost catalogs, damaged records, crashes, a random model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/store_dirs.h"
#include "base/file.h"
#include "base/verr.h"
#include "format/ref.h"
#include "names/names.h"

/* ---- fixture ---- */

struct fixture {
    char dir[64], store_dir[96], state_dir[96];
    int state_fd;
    struct store *st;
    struct catalog *c;
    struct names *n;
    struct node root;
    int64_t now;
    unsigned bad, strange;
    char bad_text[700];
    struct verr err;
};

static int64_t test_real(void *ctx)
{
    struct fixture *f = ctx;
    return f->now += 1000000000;
}

static struct vclock test_clock(struct fixture *f)
{
    return (struct vclock){test_real, test_real, f};
}

static struct vclock clock_of_test;

static void note_bad(void *ctx, bool damaged, const char *what)
{
    struct fixture *f = ctx;
    f->bad++;
    f->strange += !damaged;
    snprintf(f->bad_text, sizeof f->bad_text, "%s", what);
}

static int open_all(struct fixture *f)
{
    clock_of_test = test_clock(f);
    f->bad = f->strange = 0;
    int r = store_open(f->store_dir, &f->st, &f->err);
    if (r == 0)
        r = catalog_open(f->state_fd, f->state_dir, &store_conf(f->st)->id, &f->c, &f->err);
    if (r == 0)
        r = names_open(f->st, f->c, &clock_of_test, &f->n, &f->err);
    if (r == 0)
        r = names_reconcile(f->n, note_bad, f, &f->err);
    if (r == 0)
        r = names_root(f->n, &f->root, &f->err);
    return r;
}

static void close_all(struct fixture *f)
{
    names_close(f->n);
    catalog_close(f->c, NULL);
    store_close(f->st);
    f->n = NULL;
    f->c = NULL;
    f->st = NULL;
}

static void wipe_catalog(struct fixture *f)
{
    unlinkat(f->state_fd, "catalog.sqlite", 0);
}

static void must(struct fixture *f, int r)
{
    if (r < 0)
        print_error("%s\n", verr_str(&f->err));
    assert_true(r >= 0);
}

static void remount(struct fixture *f, bool wipe)
{
    close_all(f);
    if (wipe)
        wipe_catalog(f);
    must(f, open_all(f));
}

static void fixture_init(struct fixture *f)
{
    struct store_conf conf;
    memset(f, 0, sizeof *f);
    f->now = INT64_C(1700000000) * 1000000000;
    strcpy(f->dir, "/tmp/varve-names-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->store_dir, sizeof f->store_dir, "%s/store", f->dir);
    snprintf(f->state_dir, sizeof f->state_dir, "%s/state", f->dir);
    assert_int_equal(mkdir(f->state_dir, 0700), 0);
    f->state_fd = open(f->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    storeconf_default(&conf);
    must(f, store_init(f->store_dir, &conf, (uid_t)-1, (gid_t)-1, &f->err));
    must(f, open_all(f));
}

static void fixture_free(struct fixture *f)
{
    close_all(f);
    close(f->state_fd);
    tree_remove(AT_FDCWD, f->dir);
}

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    fixture_init(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    free(*state);
    return 0;
}

/* ---- helpers ---- */

static struct node make(struct fixture *f, const struct node *parent, const char *name, enum node_kind kind)
{
    struct node n;
    bool revived;
    must(f, names_create(f->n, &parent->id, name, kind, 0640, 7, 8, &n, &revived, &f->err));
    return n;
}

static struct snaprcp header_of(struct fixture *f, const struct node *disk, uint64_t seq, const char *label)
{
    struct snaprcp h;
    memset(&h, 0, sizeof h);
    h.store = store_conf(f->st)->id;
    h.info.ref.disk = disk->id;
    h.vm = disk->parent;
    h.info.ref.snap = vid_random();
    h.info.host = vid_random();
    h.info.group = vid_random();
    h.info.ref.seq = seq;
    h.epoch = 1;
    h.info.group_members = 1;
    h.info.size = 2 * (uint64_t)SEG_BYTES;
    h.nruns = 1;
    h.info.alloc_bytes = 4096;
    h.info.freeze_ns = 5;
    h.info.name_s = 1700000000 + (int64_t)seq;
    h.info.levels.fresh = SEG_BYTES;
    h.info.dirty_segments = 1;
    h.info.mode = disk->mode & 0555;
    h.info.uid = disk->uid;
    h.info.gid = disk->gid;
    snprintf(h.info.label, sizeof h.info.label, "%s", label);
    return h;
}

/* What another host, or this one before a crash, leaves of a published snapshot: the recipe. */
static void publish_header(struct fixture *f, const struct snaprcp *h)
{
    uint8_t page[SNAPRCP_PAGE];
    char file[SNAP_FILE_MAX];
    assert_int_equal(snaprcp_encode(h, page), 0);
    store_snap_file(h->info.ref.seq, &h->info.ref.snap, ".rcp", file);
    int fd = store_disk_dir(f->st, DIR_SNAPSHOTS, &h->info.ref.disk, true, &f->err);
    must(f, fd);
    must(f, file_publish(fd, file, page, sizeof page));
    close(fd);
}

static struct snaprow row_of(const struct snaprcp *h, const struct node *disk)
{
    struct snaprow s;
    memset(&s, 0, sizeof s);
    s.info.ref.snap = h->info.ref.snap;
    s.info.ref.disk = h->info.ref.disk;
    s.info.host = h->info.host;
    s.info.group = h->info.group;
    s.info.ref.seq = h->info.ref.seq;
    s.state = SNAPST_STORED;
    s.info.mode = disk->mode & 0555;
    s.info.uid = disk->uid;
    s.info.gid = disk->gid;
    s.info.size = h->info.size;
    s.info.alloc_bytes = h->info.alloc_bytes;
    s.info.dirty_segments = 1;
    s.info.freeze_ns = h->info.freeze_ns;
    s.info.name_s = h->info.name_s;
    s.info.levels = h->info.levels;
    memcpy(s.info.label, h->info.label, sizeof s.info.label);
    return s;
}

/* Recipe and row, as after a backup. */
static struct snaprow snapshot(struct fixture *f, const struct node *disk, uint64_t seq, const char *label)
{
    struct snaprcp h = header_of(f, disk, seq, label);
    struct snaprow s = row_of(&h, disk);
    publish_header(f, &h);
    must(f, catalog_snap_put(f->c, &s, &f->err));
    return s;
}

struct lines { char **v; size_t n; const char *prefix; struct fixture *f; bool modes; };

static void add_line(struct lines *l, const char *text)
{
    l->v = realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = strdup(text);
}

static void free_lines(struct lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    memset(l, 0, sizeof *l);
}

static int list_line(void *ctx, const char *name, const struct entry *e)
{
    struct lines *l = ctx;
    char text[1024];
    uint32_t mode = e->kind == ENTRY_SNAP ? e->snap.info.mode : e->node.mode;
    if (l->modes)
        snprintf(text, sizeof text, "%s%s%s %o%s", l->prefix, name, e->kind == ENTRY_DIR ? "/" : "", mode,
                 e->kind == ENTRY_SNAP && e->snap.info.protected_ ? " protected" : "");
    else
        snprintf(text, sizeof text, "%s%s%s", l->prefix, name, e->kind == ENTRY_DIR ? "/" : "");
    add_line(l, text);
    struct entry found;
    const struct vid *parent = &e->node.parent;
    must(l->f, names_lookup(l->f->n, parent, name, &found, &l->f->err));   /* what is listed can be looked up, and is the same */
    assert_int_equal(found.kind, e->kind);
    assert_true(vid_eq(&found.node.id, &e->node.id));
    if (e->kind == ENTRY_SNAP)
        assert_true(vid_eq(&found.snap.info.ref.snap, &e->snap.info.ref.snap));
    if (e->kind == ENTRY_DIR) {
        char prefix[1024];
        const char *outer = l->prefix;
        snprintf(prefix, sizeof prefix, "%s%s/", outer, name);
        l->prefix = prefix;
        must(l->f, names_list(l->f->n, &e->node.id, list_line, l, &l->f->err));
        l->prefix = outer;
    }
    return 0;
}

static void list_tree(struct fixture *f, struct lines *l, bool modes)
{
    *l = (struct lines){.prefix = "", .f = f, .modes = modes};
    must(f, names_list(f->n, &f->root.id, list_line, l, &f->err));
}

static char *join(const struct lines *l)
{
    size_t len = 1;
    for (size_t i = 0; i < l->n; i++)
        len += strlen(l->v[i]) + 1;
    char *text = calloc(1, len);
    for (size_t i = 0; i < l->n; i++)
        strcat(strcat(text, l->v[i]), " ");
    return text;
}

static char *tree_text(struct fixture *f)
{
    struct lines l;
    list_tree(f, &l, false);
    char *text = join(&l);
    free_lines(&l);
    return text;
}

static void assert_tree(struct fixture *f, const char *wanted)
{
    char *text = tree_text(f);
    assert_string_equal(text, wanted);
    free(text);
}

/* What a name means; the answers of the last few calls stay valid. */
static const struct entry *look(struct fixture *f, const struct node *parent, const char *name)
{
    static struct entry answers[8];
    static unsigned next;
    struct entry *e = &answers[next++ % 8];
    memset(e, 0, sizeof *e);
    must(f, names_lookup(f->n, &parent->id, name, e, &f->err));
    return e;
}

static int lookup_code(struct fixture *f, const struct node *parent, const char *name)
{
    struct entry e;
    return names_lookup(f->n, &parent->id, name, &e, &f->err);
}

static void overwrite_record(struct fixture *f, const struct vid *id, const char *text)
{
    char hex[VID_HEX];
    vid_hex(id, hex);
    must(f, file_replace(store_dirfd(f->st, DIR_NODES), hex, text, strlen(text)));
}

/* ---- names ---- */

static void snapshot_names_are_split_and_joined(void **state)
{
    (void)state;
    static const struct { const char *name; int r; const char *disk, *label; int64_t name_s; } table[] = {
        {"disk@20261122T030000Z.img", 1, "disk.img", "", 1795316400},
        {"disk@19700101T000000Z", 1, "disk", "", 0},
        {"disk@before-upgrade.img", 1, "disk.img", "before-upgrade", 0},
        {"disk@a.b.img", 1, "disk.img", "a.b", 0},
        {"disk@v1", 1, "disk", "v1", 0},
        {"disk@v1.2", 1, "disk.2", "v1", 0},
        {"a.b@x.img", 1, "a.b.img", "x", 0},
        {".hidden@x.img", 1, ".hidden.img", "x", 0},
        {".hidden@x", 1, ".hidden", "x", 0},
        {"disk@x.", 1, "disk.", "x", 0},
        {"disk@20261122T030000Z.a.img", 1, "disk.img", "20261122T030000Z.a", 0},
        {"disk.img", 0, NULL, NULL, 0},
        {"", 0, NULL, NULL, 0},
        {"a.b@x", -EINVAL, NULL, NULL, 0},              /* the snapshot of a.b is a@x.b */
        {"@x.img", -EINVAL, NULL, NULL, 0},
        {"disk@.img", -EINVAL, NULL, NULL, 0},
        {"disk@", -EINVAL, NULL, NULL, 0},
        {"disk@a@b.img", -EINVAL, NULL, NULL, 0},
        {"disk@a b.img", -EINVAL, NULL, NULL, 0},
        {"disk@caf\xc3\xa9.img", -EINVAL, NULL, NULL, 0},
        {"disk@20261322T030000Z.img", -EINVAL, NULL, NULL, 0},     /* no such month: not a label either */
        {"disk@20261122T240000Z.img", -EINVAL, NULL, NULL, 0},
        {"disk@00000000T000000Z.img", -EINVAL, NULL, NULL, 0},
        {"disk@1234567890123456789012345678901234567890123456789012345678901234.img", 1, "disk.img",
         "1234567890123456789012345678901234567890123456789012345678901234", 0},
        {"disk@12345678901234567890123456789012345678901234567890123456789012345.img", -EINVAL, NULL, NULL, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct snapname s;
        char back[NODE_NAME_MAX + 1];
        if (snapname_parse(table[i].name, &s) != table[i].r)
            fail_msg("%s: %d", table[i].name, snapname_parse(table[i].name, &s));
        if (table[i].r != 1)
            continue;
        assert_string_equal(s.disk, table[i].disk);
        assert_string_equal(s.label, table[i].label);
        assert_int_equal(s.name_s, table[i].name_s);
        assert_int_equal(snapname_make(s.disk, s.label, s.name_s, back), 0);
        assert_string_equal(back, table[i].name);
    }
}

static void disk_names_leave_room_for_snapshots(void **state)
{
    (void)state;
    char name[400], label[65], out[NODE_NAME_MAX + 1];
    memset(name, 'x', sizeof name);
    memset(label, 'l', sizeof label);
    label[64] = '\0';
    name[189] = '\0';
    assert_int_equal(names_check_disk_name(name), 0);
    assert_int_equal(snapname_make(name, label, 0, out), 0);
    name[189] = 'x';
    name[190] = '\0';
    assert_int_equal(names_check_disk_name(name), -ENAMETOOLONG);
    name[190] = 'x';
    name[255] = '\0';
    assert_int_equal(snapname_make(name, label, 0, out), -ENAMETOOLONG);
    assert_int_equal(names_check_disk_name("a@b"), -EINVAL);
    assert_int_equal(names_check_disk_name("a/b"), -EINVAL);
    assert_int_equal(names_check_disk_name(".."), -EINVAL);
    assert_int_equal(names_check_disk_name(""), -EINVAL);
}

/* ---- changes ---- */

static void tree_is_made_listed_and_found_again(void **state)
{
    struct fixture *f = *state;
    assert_tree(f, "");
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK), got;
    make(f, &web, "boot", NODE_DISK);
    assert_true(disk.mode == 0640 && disk.uid == 7 && disk.gid == 8 && disk.version == 1);
    snapshot(f, &disk, 1, "");
    snapshot(f, &disk, 2, "second");
    const char *wanted = "web/ web/boot web/disk.img web/disk@20231114T221321Z.img web/disk@second.img ";
    for (int pass = 0; pass < 3; pass++) {
        assert_tree(f, wanted);
        assert_int_equal(f->bad, 0);
        assert_int_equal(names_by_ino(f->n, NAMES_ROOT_INO, &got, &f->err), 0);
        assert_true(vid_is_zero(&got.parent));
        assert_int_equal(names_by_ino(f->n, vid_ino(&disk.id), &got, &f->err), 0);
        assert_string_equal(got.name, "disk.img");
        struct entry e = *look(f, &web, "disk@second.img");
        struct snaprow s;
        assert_int_equal(names_snap_by_ino(f->n, vid_ino(&e.snap.info.ref.snap), &s, &f->err), 0);
        assert_int_equal(s.info.ref.seq, 2);
        assert_int_equal(s.info.mode, 0440);
        assert_int_equal(s.info.uid, 7);
        assert_int_equal(lookup_code(f, &web, "nothing"), -ENOENT);
        assert_int_equal(lookup_code(f, &web, "disk@third.img"), -ENOENT);
        assert_int_equal(lookup_code(f, &web, "a@b@c"), -ENOENT);
        remount(f, pass == 1);
    }
}

static void unfit_names_are_refused(void **state)
{
    struct fixture *f = *state;
    struct node n, web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "d", NODE_DISK);
    char longest[300];
    memset(longest, 'n', sizeof longest);
    longest[255] = '\0';
    assert_int_equal(names_create(f->n, &web.id, "a@b", NODE_DISK, 0600, 0, 0, &n, NULL, &f->err), -EINVAL);
    assert_int_equal(names_create(f->n, &web.id, "a@b", NODE_DIR, 0700, 0, 0, &n, NULL, &f->err), -EINVAL);
    assert_int_equal(names_create(f->n, &web.id, longest, NODE_DISK, 0600, 0, 0, &n, NULL, &f->err), -ENAMETOOLONG);
    assert_int_equal(names_create(f->n, &web.id, longest, NODE_DIR, 0700, 0, 0, &n, NULL, &f->err), 0);
    longest[255] = 'n';
    longest[256] = '\0';
    assert_int_equal(names_create(f->n, &web.id, longest, NODE_DIR, 0700, 0, 0, &n, NULL, &f->err), -ENAMETOOLONG);
    assert_int_equal(names_create(f->n, &web.id, "d", NODE_DISK, 0600, 0, 0, &n, NULL, &f->err), -EEXIST);
    assert_int_equal(names_create(f->n, &disk.id, "x", NODE_DISK, 0600, 0, 0, &n, NULL, &f->err), -ENOTDIR);
    const struct vid nobody = vid_random();
    assert_int_equal(names_create(f->n, &nobody, "x", NODE_DISK, 0600, 0, 0, &n, NULL, &f->err), -ENOENT);
    assert_int_equal(names_rename(f->n, &disk.id, &web.id, "a@b", &f->err), -EINVAL);
}

static void attributes_are_durable_and_special_bits_stay_off_disks(void **state)
{
    struct fixture *f = *state;
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK), got;
    struct node v = {.mode = 06755, .uid = 42, .gid = 43, .mtime_ns = 99, .atime_ns = 98, .flags = NODE_GONE | NODE_SELECTIVE};
    assert_int_equal(names_setattr(f->n, &disk.id, SET_MODE | SET_UID | SET_MTIME | SET_ATIME, &v, &got, &f->err), 0);
    assert_true(got.mode == 0755 && got.uid == 42 && got.gid == 8 && got.mtime_ns == 99 && got.atime_ns == 98 && got.version == 2);
    assert_true(got.ctime_ns > disk.ctime_ns);
    assert_int_equal(names_setattr(f->n, &web.id, SET_MODE | SET_FLAGS, &v, &got, &f->err), 0);
    assert_true(got.mode == 06755 && got.flags == NODE_SELECTIVE);
    assert_int_equal(names_setattr(f->n, &f->root.id, SET_GID, &v, NULL, &f->err), 0);
    for (int pass = 0; pass < 2; pass++) {
        remount(f, pass == 1);
        got = look(f, &web, "disk.img")->node;
        assert_true(got.mode == 0755 && got.uid == 42 && got.gid == 8 && got.mtime_ns == 99);
        got = look(f, &f->root, "web")->node;
        assert_true(got.mode == 06755 && got.flags == NODE_SELECTIVE);
        assert_int_equal(f->root.gid, 43);
    }
}

static void removed_disk_with_snapshots_is_gone_and_comes_back_with_its_history(void **state)
{
    struct fixture *f = *state;
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK), again;
    bool revived;
    struct snaprow s = snapshot(f, &disk, 1, "one");
    assert_int_equal(names_remove(f->n, &disk.id, &f->err), 0);
    for (int pass = 0; pass < 3; pass++) {
        assert_tree(f, "web/ web/disk@one.img ");
        assert_int_equal(lookup_code(f, &web, "disk.img"), -ENOENT);
        assert_int_equal(names_remove(f->n, &web.id, &f->err), -ENOTEMPTY);
        assert_int_equal(names_create(f->n, &web.id, "disk.img", NODE_DIR, 0700, 0, 0, &again, &revived, &f->err), -EEXIST);
        remount(f, pass == 1);
    }
    f->now -= INT64_C(3600000000000);
    assert_int_equal(names_create(f->n, &web.id, "disk.img", NODE_DISK, 0600, 1, 2, &again, &revived, &f->err), 0);
    assert_true(revived);
    assert_true(vid_eq(&again.id, &disk.id));
    assert_true(again.mode == 0600 && again.uid == 1 && again.gid == 2 && again.flags == 0);
    assert_true(again.btime_ns > disk.btime_ns);        /* (id, btime) is never the same again */
    assert_tree(f, "web/ web/disk.img web/disk@one.img ");
    assert_int_equal(names_remove(f->n, &disk.id, &f->err), 0);
    assert_int_equal(names_snap_remove(f->n, &s, &f->err), 0);     /* the last one takes the record with it */
    assert_tree(f, "web/ ");
    struct node rec;
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), -ENOENT);
    assert_int_equal(names_create(f->n, &web.id, "disk.img", NODE_DISK, 0600, 1, 2, &again, &revived, &f->err), 0);
    assert_false(revived);
    assert_false(vid_eq(&again.id, &disk.id));
    assert_int_equal(names_remove(f->n, &again.id, &f->err), 0);
    assert_int_equal(names_remove(f->n, &web.id, &f->err), 0);
    assert_int_equal(names_remove(f->n, &f->root.id, &f->err), -EBUSY);
    remount(f, true);
    assert_tree(f, "");
}

static void gone_disk_with_pending_snapshots_survives_a_lost_catalog(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK), rec;
    struct snaprcp h = header_of(f, &disk, 1, "");
    struct snaprow s = row_of(&h, &disk);
    s.state = SNAPST_PENDING;
    must(f, catalog_snap_put(f->c, &s, &f->err));
    assert_int_equal(names_remove(f->n, &disk.id, &f->err), 0);
    remount(f, true);       /* the pending snapshot is in a journal of the agent only, now */
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), 0);
    must(f, catalog_snap_put(f->c, &s, &f->err));
    remount(f, false);
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), 0);
    assert_tree(f, "disk@20231114T221321Z.img ");
    must(f, catalog_snap_del(f->c, &s.info.ref.snap, &f->err));
    remount(f, false);      /* known to be gone, and nothing is left of it */
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), -ENOENT);

    /* Power was lost: STORE says gone, the catalog has neither that nor the pending snapshot yet. */
    disk = make(f, &f->root, "disk.img", NODE_DISK);
    disk.flags = NODE_GONE;
    disk.version++;
    must(f, store_node_update(f->st, &disk, &f->err));
    remount(f, false);
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), 0);
    remount(f, false);
    assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), -ENOENT);
}

static void pending_and_failed_rows_are_left_alone_until_their_recipe_is_there(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK);
    struct snaprcp a = header_of(f, &disk, 1, ""), b = header_of(f, &disk, 2, ""), c = header_of(f, &disk, 3, "");
    struct snaprow ra = row_of(&a, &disk), rb = row_of(&b, &disk), rc = row_of(&c, &disk), got;
    ra.state = SNAPST_PENDING;
    rb.state = SNAPST_FAILED;
    rb.info.mode = 0400;
    must(f, catalog_snap_put(f->c, &ra, &f->err));
    must(f, catalog_snap_put(f->c, &rb, &f->err));
    must(f, catalog_snap_put(f->c, &rc, &f->err));      /* said to be stored, but there is no recipe */
    struct node bare = make(f, &f->root, "bare.img", NODE_DISK);
    struct snaprcp d = header_of(f, &bare, 1, ""), e = header_of(f, &bare, 2, "");
    struct snaprow rd = row_of(&d, &bare), re = row_of(&e, &bare);
    re.state = SNAPST_PENDING;
    must(f, catalog_snap_put(f->c, &rd, &f->err));      /* of a disk that has no directory of recipes at all */
    must(f, catalog_snap_put(f->c, &re, &f->err));
    b.info.alloc_bytes = 8192;
    b.info.mode = 0400;
    publish_header(f, &b);
    remount(f, false);
    must(f, catalog_snap_by_id(f->c, &ra.info.ref.snap, &got, &f->err));
    assert_int_equal(got.state, SNAPST_PENDING);
    must(f, catalog_snap_by_id(f->c, &rb.info.ref.snap, &got, &f->err));
    assert_int_equal(got.state, SNAPST_STORED);
    assert_int_equal(got.info.alloc_bytes, 8192);
    assert_int_equal(got.info.mode, 0400);
    assert_int_equal(catalog_snap_by_id(f->c, &rc.info.ref.snap, &got, &f->err), -ENOENT);
    assert_int_equal(catalog_snap_by_id(f->c, &rd.info.ref.snap, &got, &f->err), -ENOENT);
    assert_int_equal(catalog_snap_by_id(f->c, &re.info.ref.snap, &got, &f->err), 0);
}

static void rename_moves_and_replaces_empty_directories_only(void **state)
{
    struct fixture *f = *state;
    struct node a = make(f, &f->root, "a", NODE_DIR), b = make(f, &f->root, "b", NODE_DIR), sub = make(f, &a, "sub", NODE_DIR);
    struct node disk = make(f, &sub, "d.img", NODE_DISK), empty = make(f, &f->root, "empty", NODE_DIR), rec;
    snapshot(f, &disk, 1, "s");
    assert_int_equal(names_rename(f->n, &a.id, &sub.id, "x", &f->err), -EINVAL);
    assert_int_equal(names_rename(f->n, &a.id, &a.id, "x", &f->err), -EINVAL);
    assert_int_equal(names_rename(f->n, &f->root.id, &a.id, "x", &f->err), -EBUSY);
    assert_int_equal(names_rename(f->n, &b.id, &f->root.id, "a", &f->err), -ENOTEMPTY);
    assert_int_equal(names_rename(f->n, &disk.id, &f->root.id, "empty", &f->err), -EISDIR);
    assert_int_equal(names_rename(f->n, &b.id, &sub.id, "d.img", &f->err), -ENOTDIR);
    assert_int_equal(names_rename(f->n, &a.id, &f->root.id, "a", &f->err), 0);
    assert_int_equal(names_rename(f->n, &disk.id, &b.id, "e.raw", &f->err), 0);     /* history goes with it */
    assert_tree(f, "a/ a/sub/ b/ b/e.raw b/e@s.raw empty/ ");
    assert_int_equal(names_rename(f->n, &b.id, &f->root.id, "empty", &f->err), 0);
    assert_tree(f, "a/ a/sub/ empty/ empty/e.raw empty/e@s.raw ");
    assert_int_equal(store_node_load(f->st, &empty.id, &rec, &f->err), -ENOENT);
    must(f, store_node_load(f->st, &b.id, &rec, &f->err));
    assert_true(vid_eq(&rec.replaces, &empty.id));
    struct node other = make(f, &b, "other.img", NODE_DISK);
    assert_int_equal(names_rename(f->n, &other.id, &b.id, "e.raw", &f->err), -EEXIST);
    assert_int_equal(names_remove(f->n, &disk.id, &f->err), 0);
    assert_int_equal(names_rename(f->n, &other.id, &b.id, "e.raw", &f->err), -EEXIST);     /* its history is still there */
    for (int pass = 0; pass < 2; pass++) {
        remount(f, pass == 1);
        assert_tree(f, "a/ a/sub/ empty/ empty/e@s.raw empty/other.img ");
    }
}

static void replaced_disk_keeps_id_and_history(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK), temp = make(f, &f->root, ".disk.img.tmp", NODE_DISK);
    struct node v = {.mode = 0444, .uid = 77}, dir = make(f, &f->root, "dir", NODE_DIR), got;
    snapshot(f, &disk, 1, "s");
    must(f, names_setattr(f->n, &temp.id, SET_MODE | SET_UID, &v, NULL, &f->err));
    assert_int_equal(names_replace(f->n, &dir.id, &temp.id, &f->err), -EINVAL);
    assert_int_equal(names_replace(f->n, &temp.id, &disk.id, &f->err), 0);
    for (int pass = 0; pass < 3; pass++) {
        got = look(f, &f->root, "disk.img")->node;
        assert_true(vid_eq(&got.id, &disk.id) && got.mode == 0444 && got.uid == 77 && vid_eq(&got.replaces, &temp.id));
        assert_tree(f, "dir/ disk.img disk@s.img ");
        remount(f, pass == 1);
    }
    must(f, names_remove(f->n, &disk.id, &f->err));
    temp = make(f, &f->root, "temp", NODE_DISK);
    assert_int_equal(names_replace(f->n, &temp.id, &disk.id, &f->err), 0);      /* onto a removed one: it comes back */
    assert_tree(f, "dir/ disk.img disk@s.img ");
}

/* A source with a history becomes a removed disk. It comes back under its id, and no start takes it for replaced again. */
static void replacing_disk_leaves_its_history_under_its_name(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK), temp = make(f, &f->root, "new.img", NODE_DISK), rec;
    bool revived = false;
    snapshot(f, &disk, 1, "d");
    snapshot(f, &temp, 1, "n");
    assert_int_equal(names_replace(f->n, &temp.id, &disk.id, &f->err), 0);
    for (int pass = 0; pass < 3; pass++) {
        assert_tree(f, "disk.img disk@d.img new@n.img ");
        must(f, store_node_load(f->st, &temp.id, &rec, &f->err));
        assert_true((rec.flags & NODE_GONE) != 0);
        must(f, store_node_load(f->st, &disk.id, &rec, &f->err));
        assert_true(vid_is_zero(&rec.replaces));
        remount(f, pass == 1);
    }
    must(f, names_create(f->n, &f->root.id, "new.img", NODE_DISK, 0600, 0, 0, &rec, &revived, &f->err));
    assert_true(revived && vid_eq(&rec.id, &temp.id));
    for (int pass = 0; pass < 3; pass++) {
        assert_tree(f, "disk.img disk@d.img new.img new@n.img ");
        remount(f, pass == 1);
    }
    /* And back: onto the disk that has replaced it, and onto it while it is removed. */
    assert_int_equal(names_replace(f->n, &disk.id, &temp.id, &f->err), 0);
    assert_tree(f, "disk@d.img new.img new@n.img ");
    assert_int_equal(names_replace(f->n, &temp.id, &disk.id, &f->err), 0);
    for (int pass = 0; pass < 2; pass++) {
        assert_tree(f, "disk.img disk@d.img new@n.img ");
        remount(f, true);
    }
    must(f, names_remove(f->n, &disk.id, &f->err));
    remount(f, true);
    assert_tree(f, "disk@d.img new@n.img ");
}

/* ---- snapshots ---- */

static void labels_notes_and_owners_are_durable(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK);
    struct snaprow a = snapshot(f, &disk, 1, ""), b = snapshot(f, &disk, 2, "b"), got;
    const bool yes = true, no = false;
    const uint32_t mode = 0666, uid = 5;
    assert_int_equal(names_snap_relabel(f->n, &a.info.ref.snap, "b", &f->err), -EEXIST);
    assert_int_equal(names_snap_relabel(f->n, &a.info.ref.snap, "a b", &f->err), -EINVAL);
    assert_int_equal(names_snap_relabel(f->n, &a.info.ref.snap, "20261122T030000Z", &f->err), -EINVAL);
    assert_int_equal(names_snap_relabel(f->n, &a.info.ref.snap, "", &f->err), -EINVAL);
    assert_int_equal(names_snap_relabel(f->n, &b.info.ref.snap, "b", &f->err), 0);
    assert_int_equal(names_snap_relabel(f->n, &a.info.ref.snap, "first.one", &f->err), 0);
    assert_int_equal(names_snap_set(f->n, &a.info.ref.snap, "a note\n\xff", &yes, &mode, &uid, NULL, &f->err), 0);
    for (int pass = 0; pass < 3; pass++) {
        assert_tree(f, "disk.img disk@first.one.img disk@b.img ");
        got = look(f, &f->root, "disk@first.one.img")->snap;
        assert_true(vid_eq(&got.info.ref.snap, &a.info.ref.snap) && got.info.protected_ && got.info.mode == 0444 && got.info.uid == 5 &&
                    got.info.gid == 8);
        assert_string_equal(got.info.note, "a note\n\xff");
        assert_int_equal(names_snap_remove(f->n, &got, &f->err), -EPERM);
        remount(f, pass == 1);
    }
    assert_int_equal(names_snap_set(f->n, &a.info.ref.snap, NULL, &no, NULL, NULL, NULL, &f->err), 0);
    assert_int_equal(names_snap_remove(f->n, &a, &f->err), 0);
    assert_int_equal(names_snap_remove(f->n, &a, &f->err), -ENOENT);
    assert_tree(f, "disk.img disk@b.img ");
    remount(f, true);
    assert_tree(f, "disk.img disk@b.img ");
    b.state = SNAPST_PENDING;
    must(f, catalog_snap_put(f->c, &b, &f->err));
    assert_int_equal(names_snap_relabel(f->n, &b.info.ref.snap, "c", &f->err), -EBUSY);
}

static void flags_follow_the_side_file(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK);
    struct snaprcp h = header_of(f, &disk, 1, "");
    struct snapattr a = {.snap = h.info.ref.snap, .version = 1, .label = "x", .clear_flags = SNAP_PROVISIONAL, .set_flags = SNAP_PARTIAL};
    uint8_t data[SNAPATTR_BYTES];
    char file[SNAP_FILE_MAX];
    h.info.flags = SNAP_PROVISIONAL;
    publish_header(f, &h);
    remount(f, false);
    assert_int_equal(look(f, &f->root, "disk@20231114T221321Z.img")->snap.info.flags, SNAP_PROVISIONAL);
    size_t len = snapattr_encode(&a, data);
    assert_true(len > 0);
    store_snap_file(1, &h.info.ref.snap, ".attr", file);
    int fd = store_disk_dir(f->st, DIR_SNAPSHOTS, &disk.id, false, &f->err);
    must(f, file_replace(fd, file, data, len));
    remount(f, false);
    assert_int_equal(look(f, &f->root, "disk@x.img")->snap.info.flags, SNAP_PARTIAL);
    /* A damaged side file is reported and what was known stays; without a row the recipe speaks. */
    must(f, file_replace(fd, file, "junk", 4));
    remount(f, false);
    assert_int_equal(f->bad, 1);
    assert_int_equal(look(f, &f->root, "disk@x.img")->snap.info.flags, SNAP_PARTIAL);
    remount(f, true);
    assert_int_equal(f->bad, 1);
    assert_int_equal(look(f, &f->root, "disk@20231114T221321Z.img")->snap.info.flags, SNAP_PROVISIONAL);
    close(fd);
}

static void label_with_a_dot_belongs_to_the_disk_that_exists(void **state)
{
    struct fixture *f = *state;
    struct node plain = make(f, &f->root, "disk", NODE_DISK), dotted;
    struct snaprow s = snapshot(f, &plain, 1, "v1.2"), t;
    assert_true(vid_eq(&look(f, &f->root, "disk@v1.2")->snap.info.ref.snap, &s.info.ref.snap));
    dotted = make(f, &f->root, "disk.2", NODE_DISK);
    assert_true(vid_eq(&look(f, &f->root, "disk@v1.2")->snap.info.ref.snap, &s.info.ref.snap));   /* it has no such snapshot */
    t = snapshot(f, &dotted, 1, "");
    assert_int_equal(names_snap_relabel(f->n, &t.info.ref.snap, "v1", &f->err), -EEXIST);     /* would be the same name */
    assert_int_equal(names_snap_relabel(f->n, &t.info.ref.snap, "v2", &f->err), 0);
    assert_int_equal(names_snap_relabel(f->n, &s.info.ref.snap, "v2.2", &f->err), -EEXIST);
    assert_tree(f, "disk disk@v1.2 disk.2 disk@v2.2 ");
}

static void equal_labels_and_times_are_kept_apart(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK);
    for (uint64_t i = 1; i <= 4; i++) {
        struct snaprcp h = header_of(f, &disk, i, i <= 2 ? "same" : "");
        h.info.name_s = 1700000000;
        publish_header(f, &h);
    }
    for (int pass = 0; pass < 3; pass++) {
        remount(f, pass == 1);
        assert_tree(f, "disk.img disk@same.img disk@20231114T221320Z.img disk@20231114T221321Z.img disk@20231114T221322Z.img ");
    }
}

static int stop_at_five(void *ctx, const char *name, const struct entry *e)
{
    (void)name;
    (void)e;
    return ++*(unsigned *)ctx == 5;
}

static int check_order(void *ctx, const char *name, const struct entry *e)
{
    struct { uint64_t seq; char disk[64]; unsigned n; } *o = ctx;
    o->n++;
    if (e->kind == ENTRY_DISK) {
        assert_true(strcmp(o->disk, name) < 0);
        snprintf(o->disk, sizeof o->disk, "%s", name);
        o->seq = 0;
    } else {
        assert_string_equal(e->node.name, o->disk);
        assert_true(e->snap.info.ref.seq > o->seq);
        o->seq = e->snap.info.ref.seq;
    }
    return 0;
}

static void long_directories_are_listed_in_batches(void **state)
{
    struct fixture *f = *state;
    struct node vm = make(f, &f->root, "vm", NODE_DIR);
    unsigned stopped = 0;
    must(f, catalog_begin(f->c, &f->err));
    for (unsigned d = 0; d < 100; d++) {
        struct node disk = {.id = vid_random(), .parent = vm.id, .version = 1, .kind = NODE_DISK, .mode = 0600};
        snprintf(disk.name, sizeof disk.name, "d%03u.img", d);
        must(f, catalog_node_put(f->c, &disk, &f->err));
        for (uint64_t seq = 1; seq <= (d == 50 ? 5000 : d % 3); seq++) {
            struct snaprcp h = header_of(f, &disk, seq, "");
            struct snaprow s = row_of(&h, &disk);
            must(f, catalog_snap_put(f->c, &s, &f->err));
        }
    }
    must(f, catalog_commit(f->c, &f->err));
    struct { uint64_t seq; char disk[64]; unsigned n; } order = {0};
    must(f, names_list(f->n, &vm.id, check_order, &order, &f->err));
    assert_int_equal(order.n, 100 + 99 + 5000 - 50 % 3);
    assert_int_equal(names_list(f->n, &vm.id, stop_at_five, &stopped, &f->err), 0);
    assert_int_equal(stopped, 5);
}

/* ---- what other hosts and damage leave ---- */

static struct node foreign(struct fixture *f, const struct node *parent, const char *name, enum node_kind kind, int64_t btime)
{
    struct node n = {.id = vid_random(), .parent = parent->id, .version = 1, .kind = kind, .mode = 0600, .btime_ns = btime};
    snprintf(n.name, sizeof n.name, "%s", name);
    must(f, store_node_create(f->st, &n, &f->err));
    return n;
}

static const char *alias(const char *name, const char *mark, const struct node *n)
{
    static char text[4][300];
    static int next;
    char hex[VID_HEX];
    vid_hex(&n->id, hex);
    char *out = text[next++ % 4];
    snprintf(out, sizeof text[0], "%s~%s%.4s", name, mark, hex);
    return out;
}

static void one_name_of_two_hosts_is_shown_as_two(void **state)
{
    struct fixture *f = *state;
    struct node vm = make(f, &f->root, "vm", NODE_DIR), rec;
    struct node young = foreign(f, &vm, "disk.img", NODE_DISK, 200), old = foreign(f, &vm, "disk.img", NODE_DISK, 100);
    const char *other = alias("disk.img", "", &young);
    struct node v = {.mode = 0444};
    for (int pass = 0; pass < 3; pass++) {
        remount(f, pass == 1);
        assert_int_equal(f->bad, 0);
        assert_true(vid_eq(&look(f, &vm, "disk.img")->node.id, &old.id));
        assert_true(vid_eq(&look(f, &vm, other)->node.id, &young.id));
    }
    /* Its snapshots follow the shown name; changes do not write the shown name into the record. */
    snapshot(f, &young, 1, "x");
    char snap[300];
    assert_int_equal(snapname_make(other, "x", 0, snap), 0);
    assert_true(vid_eq(&look(f, &vm, snap)->node.id, &young.id));
    must(f, names_setattr(f->n, &young.id, SET_MODE, &v, NULL, &f->err));
    must(f, store_node_load(f->st, &young.id, &rec, &f->err));
    assert_string_equal(rec.name, "disk.img");
    assert_true(rec.mode == 0444 && vid_eq(&look(f, &vm, other)->node.id, &young.id));
    /* When the name becomes free, the other keeps the one it is known by. */
    must(f, names_remove(f->n, &old.id, &f->err));
    struct node fresh = make(f, &vm, "disk.img", NODE_DISK);
    remount(f, true);
    assert_true(vid_eq(&look(f, &vm, "disk.img")->node.id, &fresh.id));
    assert_true(vid_eq(&look(f, &vm, other)->node.id, &young.id));
}

static void live_disk_has_the_name_before_a_gone_one(void **state)
{
    struct fixture *f = *state;
    struct node gone = make(f, &f->root, "disk.img", NODE_DISK);
    snapshot(f, &gone, 1, "x");
    must(f, names_remove(f->n, &gone.id, &f->err));
    struct node live = foreign(f, &f->root, "disk.img", NODE_DISK, INT64_MAX);
    remount(f, false);
    char snap[300];
    assert_true(vid_eq(&look(f, &f->root, "disk.img")->node.id, &live.id));
    assert_int_equal(snapname_make(alias("disk.img", "", &gone), "x", 0, snap), 0);
    assert_true(vid_eq(&look(f, &f->root, snap)->node.id, &gone.id));
}

static void names_that_change_hands_between_starts_do_not_collide(void **state)
{
    struct fixture *f = *state;
    struct node a = make(f, &f->root, "a", NODE_DIR), b = make(f, &f->root, "b", NODE_DIR);
    const char *const names[] = {"b", "a"};
    struct node *const nodes[] = {&a, &b};
    for (int i = 0; i < 2; i++) {       /* another host has swapped the names */
        strcpy(nodes[i]->name, names[i]);
        nodes[i]->version++;
        must(f, store_node_update(f->st, nodes[i], &f->err));
    }
    remount(f, false);
    assert_true(vid_eq(&look(f, &f->root, "b")->node.id, &a.id));
    assert_true(vid_eq(&look(f, &f->root, "a")->node.id, &b.id));
    assert_int_equal(f->bad, 0);
}

static void orphans_and_circles_are_shown_in_the_root(void **state)
{
    struct fixture *f = *state;
    struct node nowhere = {.id = vid_random()};
    struct node orphan = foreign(f, &nowhere, "web", NODE_DIR, 1), child = foreign(f, &orphan, "disk.img", NODE_DISK, 1);
    struct node a = make(f, &f->root, "a", NODE_DIR), b = make(f, &a, "b", NODE_DIR), c = make(f, &b, "c", NODE_DIR);
    struct node on_disk = foreign(f, &child, "odd", NODE_DIR, 1);
    a.parent = c.id;        /* one host moved a below c, while another moved c below a */
    a.version++;
    must(f, store_node_update(f->st, &a, &f->err));
    for (int pass = 0; pass < 3; pass++) {
        remount(f, pass == 1);
        look(f, &f->root, alias("odd", "lost-", &on_disk));
        struct entry e = *look(f, &f->root, alias("web", "lost-", &orphan));
        look(f, &e.node, "disk.img");
        struct node *const circle[] = {&a, &b, &c};
        int first = 0;
        for (int i = 1; i < 3; i++)
            if (memcmp(circle[i]->id.b, circle[first]->id.b, VID_BYTES) < 0)
                first = i;
        e = *look(f, &f->root, alias(circle[first]->name, "lost-", circle[first]));
        e = *look(f, &e.node, circle[(first + 1) % 3]->name);
        e = *look(f, &e.node, circle[(first + 2) % 3]->name);
        assert_int_equal(lookup_code(f, &e.node, circle[first]->name), -ENOENT);
    }
    struct entry e = *look(f, &f->root, alias("web", "lost-", &orphan));
    must(f, names_rename(f->n, &e.node.id, &f->root.id, "web", &f->err));      /* and put where it belongs */
    remount(f, true);
    e = *look(f, &f->root, "web");
    look(f, &e.node, "disk.img");
}

static void record_removed_by_another_host_goes(void **state)
{
    struct fixture *f = *state;
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK), v = {.mode = 0600};
    make(f, &web, "other.img", NODE_DISK);
    must(f, store_node_remove(f->st, &disk.id, &f->err));
    assert_int_equal(names_setattr(f->n, &disk.id, SET_MODE, &v, NULL, &f->err), -ENOENT);
    assert_tree(f, "web/ web/other.img ");
    must(f, store_node_remove(f->st, &look(f, &web, "other.img")->node.id, &f->err));
    remount(f, false);
    assert_tree(f, "web/ ");
    /* The root's record is lost: what is in it is not. */
    must(f, store_node_remove(f->st, &f->root.id, &f->err));
    remount(f, false);
    assert_tree(f, "web/ ");
    remount(f, true);
    assert_tree(f, "web/ ");
    must(f, store_node_remove(f->st, &web.id, &f->err));
    close_all(f);
    wipe_catalog(f);
    assert_int_equal(open_all(f), -ENOENT);
}

static void damaged_record_is_reported_and_others_work(void **state)
{
    struct fixture *f = *state;
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK);
    struct node good = make(f, &f->root, "good.img", NODE_DISK), v = {.mode = 0400};
    snapshot(f, &disk, 1, "x");
    overwrite_record(f, &disk.id, "junk");
    remount(f, false);
    assert_int_equal(f->bad, 1);
    assert_non_null(strstr(f->bad_text, "nodes/"));
    assert_tree(f, "good.img web/ web/disk.img web/disk@x.img ");      /* what the catalog knew of it */
    assert_int_equal(names_setattr(f->n, &disk.id, SET_MODE, &v, NULL, &f->err), -EBADMSG);
    assert_int_equal(names_setattr(f->n, &good.id, SET_MODE, &v, NULL, &f->err), 0);
    remount(f, true);
    assert_int_equal(f->bad, 2);
    char wanted[200], hex[VID_HEX];
    vid_hex(&disk.id, hex);
    snprintf(wanted, sizeof wanted, "good.img web/ web/lost-%.8s@x ", hex);     /* its snapshots are still in reach */
    assert_tree(f, wanted);
    remount(f, false);
    assert_tree(f, wanted);
    disk.version = 9;       /* the record is put back from somewhere */
    must(f, store_node_update(f->st, &disk, &f->err));
    remount(f, false);
    assert_int_equal(f->bad, 0);
    assert_tree(f, "good.img web/ web/disk.img web/disk@x.img ");
    overwrite_record(f, &web.id, "");
    remount(f, true);
    snprintf(wanted, sizeof wanted, "%s disk@x.img~lost-%.4s good.img ", alias("disk.img", "lost-", &disk), hex);
    assert_tree(f, wanted);
}

/* Lost is not removed: the record of the disk stays, and its history comes back with the files. */
static void removed_disk_whose_snapshots_are_lost_keeps_its_record(void **state)
{
    struct fixture *f = *state;
    struct node web = make(f, &f->root, "web", NODE_DIR), disk = make(f, &web, "disk.img", NODE_DISK), rec;
    struct snaprow s = snapshot(f, &disk, 1, "one");
    char file[SNAP_FILE_MAX];
    assert_int_equal(names_remove(f->n, &disk.id, &f->err), 0);
    int fd = store_disk_dir(f->st, DIR_SNAPSHOTS, &disk.id, false, &f->err);
    must(f, fd);
    store_snap_file(1, &s.info.ref.snap, ".rcp", file);
    assert_int_equal(renameat(fd, file, f->state_fd, "aside"), 0);
    for (int pass = 0; pass < 2; pass++) {
        remount(f, false);
        assert_int_equal(f->bad, pass == 0);        /* told once: then its row is gone */
        assert_tree(f, "web/ ");
        assert_int_equal(store_node_load(f->st, &disk.id, &rec, &f->err), 0);
    }
    assert_int_equal(renameat(f->state_fd, "aside", fd, file), 0);
    close(fd);
    remount(f, false);
    assert_tree(f, "web/ web/disk@one.img ");
}

static size_t count_tree(struct fixture *f)
{
    struct lines l;
    list_tree(f, &l, false);
    size_t n = l.n;
    free_lines(&l);
    return n;
}

/* More than any list of the reconciliation holds at first, and than any batch. */
static void hundreds_of_disks_survive_a_lost_catalog(void **state)
{
    enum { DISKS = 280, RECORDS = 200, SNAPS = 70, LOST = 100 };
    struct fixture *f = *state;
    struct node vm = make(f, &f->root, "vm", NODE_DIR);
    struct vid id[DISKS];
    for (unsigned d = 0; d < DISKS; d++) {
        struct node disk = {.id = vid_random(), .parent = vm.id, .version = 1, .kind = NODE_DISK, .mode = 0600};
        snprintf(disk.name, sizeof disk.name, "d%03u.img", d);
        id[d] = disk.id;
        if (d < RECORDS)
            must(f, store_node_create(f->st, &disk, &f->err));
        for (uint64_t seq = 1; seq <= (d == 0 ? SNAPS : 1); seq++) {
            struct snaprcp h = header_of(f, &disk, seq, "");
            publish_header(f, &h);
        }
    }
    const size_t all = 1 + RECORDS + DISKS - 1 + SNAPS;
    remount(f, true);
    assert_int_equal(f->bad, DISKS - RECORDS);      /* shown as lost-ID, and told */
    assert_int_equal(count_tree(f), all);
    remount(f, false);
    assert_int_equal(count_tree(f), all);
    for (unsigned d = RECORDS - LOST; d < RECORDS; d++) {
        char hex[VID_HEX];
        vid_hex(&id[d], hex);
        must(f, tree_remove(store_dirfd(f->st, DIR_SNAPSHOTS), hex));
    }
    remount(f, false);
    assert_int_equal(f->bad, LOST + DISKS - RECORDS);
    assert_int_equal(count_tree(f), all - LOST);
}

static void damaged_root_record_does_not_hide_the_tree(void **state)
{
    struct fixture *f = *state;
    make(f, &f->root, "web", NODE_DIR);
    make(f, &f->root, "disk.img", NODE_DISK);
    overwrite_record(f, &f->root.id, "junk");
    for (int pass = 0; pass < 2; pass++) {
        remount(f, pass == 1);
        assert_true(f->bad > 0);
        assert_tree(f, "disk.img web/ ");
    }
    assert_int_equal(f->root.mode, 0755);
}

static void damaged_recipe_is_reported_and_others_work(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK), other = make(f, &f->root, "other.img", NODE_DISK);
    struct snaprcp h = header_of(f, &disk, 1, "bad"), alien = header_of(f, &disk, 2, "alien"), good = header_of(f, &disk, 3, "good");
    char file[SNAP_FILE_MAX];
    publish_header(f, &h);
    publish_header(f, &good);
    uint8_t page[SNAPRCP_PAGE];
    alien.info.ref.disk = other.id;
    assert_int_equal(snaprcp_encode(&alien, page), 0);
    int fd = store_disk_dir(f->st, DIR_SNAPSHOTS, &disk.id, false, &f->err);
    store_snap_file(2, &alien.info.ref.snap, ".rcp", file);      /* a recipe of another disk under this one's name */
    must(f, file_publish(fd, file, page, sizeof page));
    store_snap_file(1, &h.info.ref.snap, ".rcp", file);
    must(f, file_replace(fd, file, "junk", 4));
    must(f, file_replace(fd, "stray", "junk", 4));
    close(fd);
    remount(f, false);
    assert_int_equal(f->bad, 3);
    assert_tree(f, "disk.img disk@good.img other.img ");
}

static void stray_file_among_the_records_is_reported_and_the_tree_is_shown(void **state)
{
    struct fixture *f = *state;
    struct node disk = make(f, &f->root, "disk.img", NODE_DISK);
    snapshot(f, &disk, 1, "x");
    must(f, file_replace(store_dirfd(f->st, DIR_NODES), "README", "junk", 4));
    for (int pass = 0; pass < 2; pass++) {
        remount(f, pass == 1);
        assert_int_equal(f->bad, 1);
        assert_int_equal(f->strange, 1);
        assert_tree(f, "disk.img disk@x.img ");
    }
}

/* What crashes between the records of a rename leave. A disk becomes a removed one, with its snapshots; what it is replaced by forgets it,
 * so that it can come back. */
static void replaced_record_ends_at_the_start(void **state)
{
    struct fixture *f = *state;
    struct node a = make(f, &f->root, "a", NODE_DIR), b = make(f, &f->root, "b", NODE_DIR), disk = make(f, &f->root, "disk.img", NODE_DISK);
    struct node c = make(f, &f->root, "c.img", NODE_DISK), d = make(f, &f->root, "d", NODE_DIR);
    struct node e = make(f, &f->root, "e.img", NODE_DISK), rec;
    bool revived;
    snapshot(f, &disk, 1, "x");
    struct node *const by[] = {&a, &c, &d};
    const struct node *const old[] = {&b, &disk, &f->root};
    for (int i = 0; i < 3; i++) {
        by[i]->replaces = old[i]->id;
        by[i]->version++;
        must(f, store_node_update(f->st, by[i], &f->err));
    }
    remount(f, true);
    assert_tree(f, "a/ c.img d/ disk@x.img e.img ");
    assert_int_equal(f->bad, 1);
    assert_int_equal(store_node_load(f->st, &b.id, &rec, &f->err), -ENOENT);
    must(f, store_node_load(f->st, &c.id, &c, &f->err));
    assert_true(vid_is_zero(&c.replaces));
    must(f, names_create(f->n, &f->root.id, "disk.img", NODE_DISK, 0600, 0, 0, &rec, &revived, &f->err));
    assert_true(revived);
    remount(f, false);
    assert_tree(f, "a/ c.img d/ disk.img disk@x.img e.img ");
    /* One without snapshots may have some that only its journal knows: its record goes at the start after the next. */
    c.replaces = e.id;
    c.version++;
    must(f, store_node_update(f->st, &c, &f->err));
    remount(f, true);
    assert_tree(f, "a/ c.img d/ disk.img disk@x.img ");
    must(f, store_node_load(f->st, &e.id, &rec, &f->err));
    assert_true((rec.flags & NODE_GONE) != 0);
    remount(f, false);
    assert_int_equal(store_node_load(f->st, &e.id, &rec, &f->err), -ENOENT);
}

static void replaced_record_whose_removal_failed_does_not_come_back(void **state)
{
    struct fixture *f = *state;
    struct node a = make(f, &f->root, "a", NODE_DIR), one = make(f, &f->root, "one", NODE_DIR);
    struct node two = make(f, &f->root, "two", NODE_DIR), rec;
    must(f, names_rename(f->n, &a.id, &f->root.id, "one", &f->err));
    must(f, store_node_create(f->st, &one, &f->err));       /* what a failed removal would have left */
    must(f, names_rename(f->n, &a.id, &f->root.id, "two", &f->err));
    assert_int_equal(store_node_load(f->st, &one.id, &rec, &f->err), -ENOENT);
    must(f, store_node_create(f->st, &two, &f->err));
    must(f, names_remove(f->n, &a.id, &f->err));
    assert_int_equal(store_node_load(f->st, &two.id, &rec, &f->err), -ENOENT);
    remount(f, true);
    assert_tree(f, "");
}

/* ---- crashes: this program runs itself with a fault point set ---- */

#ifdef VARVE_FAULTS

struct scenario {
    const char *name;
    void (*prepare)(struct fixture *f);
    int (*act)(struct fixture *f);
    const char *before, *after;
};

static void prepare_tree(struct fixture *f)
{
    struct node a = make(f, &f->root, "a", NODE_DIR), disk;
    make(f, &f->root, "e", NODE_DIR);
    disk = make(f, &a, "d.img", NODE_DISK);
    make(f, &a, "new.img", NODE_DISK);
    snapshot(f, &disk, 1, "s");
}
#define TREE "a/ a/d.img a/d@s.img a/new.img e/ "

static const struct entry *at(struct fixture *f, const char *dir, const char *name)
{
    const struct entry *e = look(f, &f->root, dir);
    return name == NULL ? e : look(f, &e->node, name);
}

static int act_create(struct fixture *f)
{
    struct node n;
    return names_create(f->n, &at(f, "a", NULL)->node.id, "x.img", NODE_DISK, 0600, 0, 0, &n, NULL, NULL);
}

static int act_gone(struct fixture *f)
{
    return names_remove(f->n, &at(f, "a", "d.img")->node.id, NULL);
}

static int act_remove(struct fixture *f)
{
    return names_remove(f->n, &at(f, "a", "new.img")->node.id, NULL);
}

static int act_rename(struct fixture *f)
{
    return names_rename(f->n, &at(f, "a", NULL)->node.id, &f->root.id, "e", NULL);
}

static int act_replace(struct fixture *f)
{
    return names_replace(f->n, &at(f, "a", "new.img")->node.id, &at(f, "a", "d.img")->node.id, NULL);
}

/* The source has a history, too. */
static void prepare_both(struct fixture *f)
{
    prepare_tree(f);
    snapshot(f, &at(f, "a", "new.img")->node, 1, "n");
}

static int act_relabel(struct fixture *f)
{
    return names_snap_relabel(f->n, &at(f, "a", "d@s.img")->snap.info.ref.snap, "t", NULL);
}

static int act_expire(struct fixture *f)
{
    const struct snaprow s = at(f, "a", "d@s.img")->snap;
    return names_snap_remove(f->n, &s, NULL);
}

static void prepare_gone(struct fixture *f)
{
    prepare_tree(f);
    must(f, names_remove(f->n, &at(f, "a", "d.img")->node.id, &f->err));
}

static int act_revive(struct fixture *f)
{
    struct node n;
    return names_create(f->n, &at(f, "a", NULL)->node.id, "d.img", NODE_DISK, 0600, 0, 0, &n, NULL, NULL);
}

static const struct scenario scenarios[] = {
    {"create", prepare_tree, act_create, TREE, "a/ a/d.img a/d@s.img a/new.img a/x.img e/ "},
    {"gone", prepare_tree, act_gone, TREE, "a/ a/d@s.img a/new.img e/ "},
    {"remove", prepare_tree, act_remove, TREE, "a/ a/d.img a/d@s.img e/ "},
    {"rename", prepare_tree, act_rename, TREE, "e/ e/d.img e/d@s.img e/new.img "},
    {"replace", prepare_tree, act_replace, TREE, "a/ a/d.img a/d@s.img e/ "},
    {"replace_both", prepare_both, act_replace, "a/ a/d.img a/d@s.img a/new.img a/new@n.img e/ ", "a/ a/d.img a/d@s.img a/new@n.img e/ "},
    {"relabel", prepare_tree, act_relabel, TREE, "a/ a/d.img a/d@t.img a/new.img e/ "},
    {"expire", prepare_tree, act_expire, TREE, "a/ a/d.img a/new.img e/ "},
    {"revive", prepare_gone, act_revive, "a/ a/d@s.img a/new.img e/ ", TREE},
    {"expire_gone", prepare_gone, act_expire, "a/ a/d@s.img a/new.img e/ ", "a/ a/new.img e/ "},
};
enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

static const char *const points[] = {
    "names.create.after_record", "names.save.after_record", "names.drop.after_record", "names.rename.after_record",
    "names.rename.after_remove", "names.replace.after_record", "names.replace.after_end", "names.replace.after_clear", "names.snap_attr.after_file", "names.snap_remove.after_trash",
    "names.reconcile.after_remove", "names.reconcile.after_gone", "catalog.commit.before", "store.trash.between", "base.dir_sync",
};

/* The child: mounts the store that the parent left and does the deed. */
static int crash_child(const char *scenario, const char *dir)
{
    struct fixture f;
    memset(&f, 0, sizeof f);
    f.now = INT64_C(1700001000) * 1000000000;
    snprintf(f.store_dir, sizeof f.store_dir, "%s/store", dir);
    snprintf(f.state_dir, sizeof f.state_dir, "%s/state", dir);
    f.state_fd = open(f.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = open_all(&f);
    for (int i = 0; r == 0 && i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, scenario) == 0)
            r = scenarios[i].act(&f);
    close_all(&f);
    return r == 0 ? 0 : 3;
}

/* 1 it was killed, 0 it came to its end. */
static int run_child(const struct fixture *f, const char *scenario, const char *fault)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("VARVE_FAULT", fault, 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
        execl("/proc/self/exe", "test_names", "--crash", scenario, f->dir, (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 1;
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3);
    return 0;
}

static bool crash_once(const struct scenario *s, const char *fault)
{
    struct fixture f;
    fixture_init(&f);
    s->prepare(&f);
    assert_tree(&f, s->before);
    close_all(&f);
    bool killed = run_child(&f, s->name, fault) == 1;
    must(&f, open_all(&f));
    char *text = tree_text(&f);
    if (strcmp(text, s->after) != 0 && strcmp(text, s->before) != 0)
        fail_msg("%s with %s: %s", s->name, fault, text);
    if (!killed && strstr(fault, "=kill") != NULL)
        assert_string_equal(text, s->after);
    assert_int_equal(f.bad, 0);
    for (int wipe = 0; wipe < 2; wipe++) {      /* what a start has settled on does not change at the next one */
        remount(&f, wipe == 1);
        assert_tree(&f, text);
    }
    free(text);
    fixture_free(&f);
    return killed;
}

static void crash_anywhere_leaves_the_old_or_the_new_tree(void **state)
{
    (void)state;
    char fault[128];
    unsigned kills = 0;
    for (int i = 0; i < SCENARIOS; i++) {
        for (size_t p = 0; p < sizeof points / sizeof points[0]; p++) {
            bool killed = true;
            for (unsigned nth = 1; killed && nth < 12; nth++) {
                snprintf(fault, sizeof fault, "%s:%u=kill", points[p], nth);
                killed = crash_once(&scenarios[i], fault);
                kills += killed;
            }
        }
        for (unsigned nth = 1; nth <= 4; nth++) {       /* an error that is reported, not a crash */
            snprintf(fault, sizeof fault, "base.dir_sync:%u=5", nth);
            crash_once(&scenarios[i], fault);
        }
    }
    assert_true(kills >= 2 * SCENARIOS);
}

#endif

/* ---- random model ---- */

enum { M_NODES = 40, M_SNAPS = 5 };
struct msnap { bool used, protected_; uint64_t seq; char label[8]; int64_t name_s; uint32_t mode; struct vid id; };
struct mnode {
    bool used, live, dir;
    int parent;
    char name[16];
    uint32_t mode;
    struct vid id;
    uint64_t next_seq;
    struct msnap snaps[M_SNAPS];
};
struct model { struct fixture *f; struct mnode v[M_NODES]; uint64_t rng; };

static unsigned rnd(struct model *m, unsigned below)
{
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return (unsigned)(m->rng >> 20) % below;
}

static const char *const model_names[] = {"a", "b.img", "c.d.img", "e", "f.raw", "g"};
static const char *const model_labels[] = {"l1", "l2", "l3"};

static int m_find(const struct model *m, int parent, const char *name)
{
    for (int i = 1; i < M_NODES; i++)
        if (m->v[i].used && m->v[i].parent == parent && strcmp(m->v[i].name, name) == 0)
            return i;
    return -1;
}

static int m_pick(struct model *m, int kind, bool gone_too)     /* 0 directory, 1 disk; -1 none */
{
    for (int tries = 0; tries < 60; tries++) {
        int i = (int)rnd(m, M_NODES);
        if (m->v[i].used && m->v[i].dir == (kind == 0) && (m->v[i].live || gone_too))
            return i;
    }
    return kind == 0 ? 0 : -1;
}

static unsigned m_snap_count(const struct mnode *n)
{
    unsigned count = 0;
    for (int i = 0; i < M_SNAPS; i++)
        count += n->snaps[i].used;
    return count;
}

static bool m_has_children(const struct model *m, int dir)
{
    for (int i = 1; i < M_NODES; i++)
        if (m->v[i].used && m->v[i].parent == dir)
            return true;
    return false;
}

static void m_create(struct model *m)
{
    int free_slot = -1, parent = m_pick(m, 0, false);
    const char *name = model_names[rnd(m, 6)];
    bool dir = rnd(m, 3) == 0, revived = false;
    uint32_t mode = dir ? 0700 + rnd(m, 64) : 0600 + rnd(m, 64);
    for (int i = 1; i < M_NODES; i++)
        if (!m->v[i].used)
            free_slot = i;
    int there = m_find(m, parent, name);
    if (free_slot < 0)
        return;
    int wanted = there >= 0 && (m->v[there].live || dir) ? -EEXIST : 0;
    struct node n;
    int r = names_create(m->f->n, &m->v[parent].id, name, dir ? NODE_DIR : NODE_DISK, mode, 0, 0, &n, &revived, &m->f->err);
    assert_int_equal(r, wanted);
    if (r < 0)
        return;
    assert_int_equal(revived, there >= 0);
    if (there >= 0) {
        assert_true(vid_eq(&n.id, &m->v[there].id));
        m->v[there].live = true;
        m->v[there].mode = mode;
        return;
    }
    m->v[free_slot] = (struct mnode){.used = true, .live = true, .dir = dir, .parent = parent, .mode = mode, .id = n.id, .next_seq = 1};
    strcpy(m->v[free_slot].name, name);
}

static void m_remove(struct model *m)
{
    int i = m_pick(m, (int)rnd(m, 2), false);
    if (i <= 0)
        return;
    struct mnode *x = &m->v[i];
    int r = names_remove(m->f->n, &x->id, &m->f->err);
    if (x->dir && m_has_children(m, i)) {
        assert_int_equal(r, -ENOTEMPTY);
        return;
    }
    assert_int_equal(r, 0);
    if (m_snap_count(x) > 0)
        x->live = false;
    else
        x->used = false;
}

static bool m_below(const struct model *m, int node, int dir)
{
    for (int i = dir; i > 0; i = m->v[i].parent)
        if (i == node)
            return true;
    return false;
}

static void m_rename(struct model *m)
{
    int i = m_pick(m, (int)rnd(m, 2), false), parent = m_pick(m, 0, false), wanted = 0;
    const char *name = model_names[rnd(m, 6)];
    if (i <= 0)
        return;
    struct mnode *x = &m->v[i];
    int there = m_find(m, parent, name);
    bool same = there == i;
    if (same)
        wanted = 0;
    else if (x->dir && m_below(m, i, parent))
        wanted = -EINVAL;
    else if (there >= 0 && !m->v[there].live)
        wanted = -EEXIST;
    else if (there >= 0 && !m->v[there].dir)
        wanted = x->dir ? -ENOTDIR : -EEXIST;
    else if (there >= 0 && !x->dir)
        wanted = -EISDIR;
    else if (there >= 0 && m_has_children(m, there))
        wanted = -ENOTEMPTY;
    int r = names_rename(m->f->n, &x->id, &m->v[parent].id, name, &m->f->err);
    assert_int_equal(r, wanted);
    if (r < 0 || same)
        return;
    if (there >= 0)
        m->v[there].used = false;
    x->parent = parent;
    strcpy(x->name, name);
}

static void m_replace(struct model *m)
{
    int from = m_pick(m, 1, false), to = m_pick(m, 1, true);
    if (from < 0 || to < 0)
        return;
    assert_int_equal(names_replace(m->f->n, &m->v[from].id, &m->v[to].id, &m->f->err), 0);
    if (from == to)
        return;
    m->v[from].live = false;
    m->v[from].used = m_snap_count(&m->v[from]) > 0;
    m->v[to].live = true;
    m->v[to].mode = m->v[from].mode;
}

static void m_chmod(struct model *m)
{
    int i = m_pick(m, (int)rnd(m, 2), false);
    if (i < 0)
        return;
    struct node v = {.mode = rnd(m, 01000)};
    must(m->f, names_setattr(m->f->n, &m->v[i].id, SET_MODE, &v, NULL, &m->f->err));
    m->v[i].mode = v.mode;
}

static bool m_label_taken(const struct mnode *n, const char *label)
{
    for (int i = 0; i < M_SNAPS; i++)
        if (n->snaps[i].used && strcmp(n->snaps[i].label, label) == 0)
            return true;
    return false;
}

static void m_snapshot(struct model *m)
{
    int i = m_pick(m, 1, false);
    if (i < 0 || m_snap_count(&m->v[i]) == M_SNAPS)
        return;
    struct mnode *x = &m->v[i];
    struct msnap *s = x->snaps;
    while (s->used)
        s++;
    const char *label = rnd(m, 2) ? model_labels[rnd(m, 3)] : "";
    if (label[0] != '\0' && m_label_taken(x, label))
        return;
    struct node disk = {.id = x->id, .parent = m->v[x->parent].id, .mode = x->mode};
    struct snaprcp h = header_of(m->f, &disk, x->next_seq, label);
    publish_header(m->f, &h);
    *s = (struct msnap){.used = true, .seq = x->next_seq++, .name_s = h.info.name_s, .mode = x->mode & 0555, .id = h.info.ref.snap};
    strcpy(s->label, label);
    if (rnd(m, 4) == 0) {
        remount(m->f, rnd(m, 2) == 0);      /* the row comes from the recipe */
    } else {
        struct snaprow row = row_of(&h, &disk);
        row.info.uid = row.info.gid = 0;
        must(m->f, catalog_snap_put(m->f->c, &row, &m->f->err));
    }
}

static void m_snap_change(struct model *m)
{
    int i = m_pick(m, 1, true);
    struct mnode *x = i < 0 ? NULL : &m->v[i];
    struct msnap *s = i < 0 ? NULL : &x->snaps[rnd(m, M_SNAPS)];
    if (s == NULL || !s->used)
        return;
    struct snaprow row = {.info.ref.snap = s->id};
    const char *label = model_labels[rnd(m, 3)];
    bool flip = !s->protected_;
    int wanted;
    switch (rnd(m, 4)) {
    case 0:
        wanted = strcmp(s->label, label) != 0 && m_label_taken(x, label) ? -EEXIST : 0;
        assert_int_equal(names_snap_relabel(m->f->n, &s->id, label, &m->f->err), wanted);
        if (wanted == 0)
            strcpy(s->label, label);
        break;
    case 1:
        must(m->f, names_snap_set(m->f->n, &s->id, NULL, &flip, NULL, NULL, NULL, &m->f->err));
        s->protected_ = flip;
        break;
    default:
        assert_int_equal(names_snap_remove(m->f->n, &row, &m->f->err), s->protected_ ? -EPERM : 0);
        if (s->protected_)
            break;
        s->used = false;
        if (!x->live && m_snap_count(x) == 0)
            x->used = false;
    }
}

static void m_path(const struct model *m, int i, char *out, size_t cap)
{
    char up[900] = "";
    if (i == 0) {
        out[0] = '\0';
        return;
    }
    m_path(m, m->v[i].parent, up, sizeof up);
    snprintf(out, cap, "%s%s/", up, m->v[i].name);
}

static void m_lines(struct model *m, struct lines *l)
{
    *l = (struct lines){.f = m->f};
    for (int i = 1; i < M_NODES; i++) {
        const struct mnode *x = &m->v[i];
        char dir[1000], text[1400], name[NODE_NAME_MAX + 1];
        if (!x->used)
            continue;
        m_path(m, x->parent, dir, sizeof dir);
        snprintf(text, sizeof text, "%s%s%s %o", dir, x->name, x->dir ? "/" : "", x->mode);
        if (x->live)
            add_line(l, text);
        for (int k = 0; k < M_SNAPS; k++) {
            const struct msnap *s = &x->snaps[k];
            if (!s->used)
                continue;
            assert_int_equal(snapname_make(x->name, s->label, s->name_s, name), 0);
            snprintf(text, sizeof text, "%s%s %o%s", dir, name, s->mode, s->protected_ ? " protected" : "");
            add_line(l, text);
        }
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void m_compare(struct model *m)
{
    struct lines real, wanted;
    list_tree(m->f, &real, true);
    m_lines(m, &wanted);
    if (real.n > 0)
        qsort(real.v, real.n, sizeof *real.v, by_text);
    if (wanted.n > 0)
        qsort(wanted.v, wanted.n, sizeof *wanted.v, by_text);
    for (size_t i = 0; i < real.n || i < wanted.n; i++)
        assert_string_equal(i < real.n ? real.v[i] : "(nothing)", i < wanted.n ? wanted.v[i] : "(nothing)");
    free_lines(&real);
    free_lines(&wanted);
}

static void random_changes_and_remounts_agree_with_a_model(void **state)
{
    static void (*const ops[])(struct model *) = {m_create, m_create, m_create, m_remove, m_rename, m_rename, m_replace, m_chmod,
                                                  m_snapshot, m_snapshot, m_snap_change, m_snap_change};
    struct fixture *f = *state;
    struct model *m = calloc(1, sizeof *m);
    const char *seed = getenv("VARVE_SEED");
    if (seed != NULL)
        m->rng = strtoull(seed, NULL, 0);
    else
        random_bytes(&m->rng, sizeof m->rng);
    m->rng |= 1;
    print_message("VARVE_SEED=%" PRIu64 "\n", m->rng);
    m->f = f;
    m->v[0] = (struct mnode){.used = true, .live = true, .dir = true, .parent = -1, .id = f->root.id, .mode = 0755};
    for (int step = 0; step < 1500; step++) {
        ops[rnd(m, sizeof ops / sizeof ops[0])](m);
        if (step % 50 == 49)
            m_compare(m);
        if (step % 100 == 99) {
            remount(f, false);
            assert_int_equal(f->bad, 0);
            m_compare(m);
        }
    }
    free(m);
}

/* ---- threads ---- */

static void *churn(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 30; i++) {
        struct node n;
        bool revived;
        if (names_create(f->n, &f->root.id, "contested", NODE_DIR, 0700, 0, 0, &n, &revived, NULL) == 0)
            names_remove(f->n, &n.id, NULL);
        struct entry e;
        names_lookup(f->n, &f->root.id, "contested", &e, NULL);
    }
    return NULL;
}

static void threads_may_change_the_tree_together(void **state)
{
    struct fixture *f = *state;
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, churn, f), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    assert_tree(f, "");
    remount(f, true);
    assert_tree(f, "");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
#ifdef VARVE_FAULTS
    if (argc == 4 && strcmp(argv[1], "--crash") == 0)
        return crash_child(argv[2], argv[3]);
#endif
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshot_names_are_split_and_joined),
        cmocka_unit_test(disk_names_leave_room_for_snapshots),
        T(tree_is_made_listed_and_found_again),
        T(unfit_names_are_refused),
        T(attributes_are_durable_and_special_bits_stay_off_disks),
        T(removed_disk_with_snapshots_is_gone_and_comes_back_with_its_history),
        T(gone_disk_with_pending_snapshots_survives_a_lost_catalog),
        T(pending_and_failed_rows_are_left_alone_until_their_recipe_is_there),
        T(rename_moves_and_replaces_empty_directories_only),
        T(replaced_disk_keeps_id_and_history),
        T(replacing_disk_leaves_its_history_under_its_name),
        T(labels_notes_and_owners_are_durable),
        T(flags_follow_the_side_file),
        T(label_with_a_dot_belongs_to_the_disk_that_exists),
        T(equal_labels_and_times_are_kept_apart),
        T(long_directories_are_listed_in_batches),
        T(one_name_of_two_hosts_is_shown_as_two),
        T(live_disk_has_the_name_before_a_gone_one),
        T(names_that_change_hands_between_starts_do_not_collide),
        T(orphans_and_circles_are_shown_in_the_root),
        T(record_removed_by_another_host_goes),
        T(removed_disk_whose_snapshots_are_lost_keeps_its_record),
        T(hundreds_of_disks_survive_a_lost_catalog), T(damaged_record_is_reported_and_others_work),
        T(damaged_root_record_does_not_hide_the_tree),
        T(damaged_recipe_is_reported_and_others_work),
        T(stray_file_among_the_records_is_reported_and_the_tree_is_shown),
        T(replaced_record_ends_at_the_start),
        T(replaced_record_whose_removal_failed_does_not_come_back),
#ifdef VARVE_FAULTS
        cmocka_unit_test(crash_anywhere_leaves_the_old_or_the_new_tree),
#endif
        T(random_changes_and_remounts_agree_with_a_model),
        T(threads_may_change_the_tree_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
