/* SPDX-License-Identifier: Apache-2.0 */
#include "template.h"

#include "../lib/mkround.h"

#include <sys/stat.h>

struct vid t_disk, t_vm, t_host;
struct t_snap t_stored, t_pending;
static char made[160], work[160], store_at[200], state_at[200];

const char *t_store(void) { return store_at; }
const char *t_state(void) { return state_at; }
int t_statefd(void) { return dir_open(AT_FDCWD, state_at); }


static int root_entry(void *ctx, const struct vid *id)
{
    *(struct vid *)ctx = *id;
    return 0;
}

static struct vid find_root(struct store *st)
{
    struct vid id = {{0}};
    OOM_MUST(store_node_each(st, root_entry, &id, err));
    return id;
}

static void make_nodes(struct mkround *m)
{
    struct vid root = find_root(m->st);
    struct node vm = {.id = m->disk[0].vm, .parent = root, .version = 1, .kind = NODE_DIR, .mode = 0755, .name = "web"};
    struct node disk = {.id = m->disk[0].id, .parent = vm.id, .version = 1, .kind = NODE_DISK, .mode = 0640, .name = "disk.img"};
    OOM_MUST(store_node_create(m->st, &vm, err));
    OOM_MUST(store_node_create(m->st, &disk, err));
}

/* A directory with disks is a STATE only if it says of which store. */
static void name_store(struct mkround *m)
{
    char hex[VID_HEX];
    vid_hex(&store_conf(m->st)->id, hex);
    OOM_MUST(file_replace(m->statefd, "store", hex, strlen(hex)));
}

static void keep(struct t_snap *s, const struct mkround *m)
{
    s->ref = m->job[0].pend.ref;
    s->data = malloc(T_SIZE);
    if (s->data == NULL)
        abort();
    memcpy(s->data, m->disk[0].frozen, T_SIZE);
}

static void make(void)
{
    static struct mkround m;
    struct mkr_options o = {.slots = T_SLOTS, .partitions = 2};
    snprintf(made, sizeof made, "%s/made", oom_dir());
    snprintf(work, sizeof work, "%s/work", oom_dir());
    snprintf(store_at, sizeof store_at, "%s/store", work);
    snprintf(state_at, sizeof state_at, "%s/state", work);
    close(dir_make(AT_FDCWD, made));
    char *dir = strdup(made);
    if (dir == NULL || strlen(dir) >= sizeof m.dir)
        abort();
    mkr_init(&m, dir, &o);
    free(dir);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, T_SIZE);
    make_nodes(&m);
    name_store(&m);
    mkr_write_seed(d, 0, 400000, 1);
    mkr_write_seed(d, SEG_BYTES + 5000, 100000, 2);
    mkr_write_seed(d, 2 * SEG_BYTES + 100000, 8192, 3);
    if (!mkr_backup(&m, 0, 1))
        abort();
    keep(&t_stored, &m);
    mkr_write_seed(d, 0, 100000, 2);            /* a duplicate of what is there */
    mkr_write_seed(d, SEG_BYTES, 70000, 4);
    mkr_freeze(&m, 0);
    keep(&t_pending, &m);
    t_disk = d->id;
    t_vm = d->vm;
    t_host = m.env.host;
    mkr_leave(&m);
}

void t_prepare(void)
{
    if (made[0] == '\0')
        make();
    oom_copy(made, work);
}

void t_prepare_empty(void)
{
    if (made[0] == '\0')
        make();
    OOM_MUST(tree_remove(AT_FDCWD, work));
    close(dir_make(AT_FDCWD, work));
    close(dir_make(AT_FDCWD, state_at));
}

int t_open(struct t_open *o, struct verr *err)
{
    memset(o, 0, sizeof *o);
    int r = store_open(store_at, &o->st, err);
    if (r == 0)
        r = creader_new(o->st, 1 << 20, &o->reader, err);
    if (r == 0)
        r = segread_new(o->reader, 4, &o->segread, err);
    return r;
}

void t_close(struct t_open *o)
{
    segread_free(o->segread);
    creader_free(o->reader);
    store_close(o->st);
}

int t_live_open(const struct t_open *o, bool trusted, struct live_set **set, struct live **l, struct verr *err)
{
    struct live_env env = {.state_dirfd = t_statefd(), .source = segread_source(o->segread), .clock = &vclock_system, .trusted = trusted, .open_max = 4};
    if (env.state_dirfd < 0)
        return verr_set(err, -env.state_dirfd, "state: %s", strerror(-env.state_dirfd));
    int r = live_set_open(&env, set, err);
    close(env.state_dirfd);
    return r < 0 ? r : live_get(*set, &t_disk, l, err);
}

int t_compare(const struct t_open *o, const struct t_snap *s, struct verr *err)
{
    static uint8_t buf[T_SIZE + 1];
    struct snap *snap = NULL;
    int r = snap_open(o->st, o->segread, &s->ref, &snap, err);
    if (r < 0)
        return r;
    ssize_t n = snap_read(snap, 0, buf, sizeof buf, err);
    off_t hole = n < 0 ? 0 : snap_seek(snap, 0, true, err);
    snap_close(snap);
    if (n < 0 || hole < 0)
        return n < 0 ? (int)n : (int)hole;
    OOM_CHECK(n == T_SIZE && memcmp(buf, s->data, T_SIZE) == 0);
    return 0;
}

static int no_leftover(void *ctx, const char *name)
{
    (void)ctx;
    OOM_CHECK(oom_io() || strstr(name, "damaged") == NULL);
    return 0;
}

static void check_dir(const char *below, const char *sub)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", below, sub);
    int fd = dir_open(AT_FDCWD, path);
    if (fd < 0)
        return;
    OOM_MUST(dir_each(fd, no_leftover, NULL));
    close(fd);
}

static bool still_pending(struct live *l)
{
    static uint8_t buf[T_SIZE + 1];
    struct snapinfo p;
    struct verr err = {0};
    if (live_pending_by_seq(l, t_pending.ref.seq, &p, &err) < 0)
        return false;
    OOM_CHECK(live_pending_read(l, t_pending.ref.seq, 0, buf, sizeof buf, &err) == T_SIZE && memcmp(buf, t_pending.data, T_SIZE) == 0);
    return true;
}

void t_check_all(void)
{
    struct t_open o;
    struct live_set *set = NULL;
    struct live *l = NULL;
    OOM_MUST(t_open(&o, err));
    OOM_MUST(t_compare(&o, &t_stored, err));
    OOM_MUST(t_live_open(&o, false, &set, &l, err));
    if (!still_pending(l))
        OOM_MUST(t_compare(&o, &t_pending, err));
    live_put(l);
    OOM_MUST(live_set_close(set, err));
    t_close(&o);
    check_dir(store_at, "index/0000");
    check_dir(state_at, "");
    check_dir(store_at, "nodes");
}
