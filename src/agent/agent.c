/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing of STATE and STORE: the lock, the identity files, the user that the daemon becomes. */
#include "agent/agent_internal.h"

#include "base/file.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL_FILE = 4096, STATX_MNT_ID_UNIQUE_BIT = 0x4000 };

void agent_conf_default(struct agent_conf *conf)
{
    memset(conf, 0, sizeof *conf);
    conf->memory = DEDUP_MEMORY_DEFAULT;
    conf->frame_cache = (size_t)16 << 20;
    conf->cache_limit = (uint64_t)8 << 30;
    conf->clock = &vclock_system;
}

/* One line of text in a file of STATE. */
static int read_line(int dirfd, const char *name, char *out, size_t cap)
{
    uint8_t *data;
    size_t len;
    int r = file_load(dirfd, name, SMALL_FILE, &data, &len);
    if (r < 0)
        return r;
    len = strcspn((char *)data, "\n");
    if (len >= cap)
        r = -EBADMSG;
    else
        memcpy(out, data, len), out[len] = '\0';
    free(data);
    return r;
}

/* STATE belongs to one store: a foreign one would mix two histories. 1: it is new, and empty; -errno: it is none of this store. */
static int look_at_store(struct agent *a, struct verr *err)
{
    char hex[VID_HEX], have[64];
    vid_hex(&store_conf(a->store)->id, hex);
    int r = read_line(a->state_fd, "store", have, sizeof have);
    if (r == -ENOENT) {
        r = agent_state_check_new(a, err);
        return r < 0 ? r : 1;
    }
    if (r == -EBADMSG || r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return verr_set(err, EBADMSG, "%s/store: damaged; it should hold the id of the store, %s", a->state_path, hex);
    if (r < 0)
        return verr_set(err, -r, "%s/store: cannot be read: %s", a->state_path, strerror(-r));
    if (strcmp(have, hex) != 0)
        return verr_set(err, EBADMSG, "state directory %s belongs to store %s, not to %s (%s): give another -o state=DIR", a->state_path,
                        have, hex, store_path(a->store));
    return 0;
}

/* The lock is held. */
static int claim_state(struct agent *a, struct verr *err)
{
    char hex[VID_HEX];
    int r = look_at_store(a, err);
    if (r <= 0)
        return r;
    a->goes = true;
    vid_hex(&store_conf(a->store)->id, hex);
    r = file_replace(a->state_fd, "store", hex, strlen(hex));
    return r == 0 ? 0 : verr_set(err, -r, "%s/store: cannot write: %s", a->state_path, strerror(-r));
}

/*
 * A second copy of store.conf, for `varve init --restore-conf`. A mount without it works as well as one with it, so one that cannot be
 * written is said and refuses nothing.
 */
static void keep_conf(const struct agent *a)
{
    char text[STORECONF_MAX];
    uint8_t *have = NULL;
    size_t len = storeconf_encode(store_conf(a->store), text), n = 0;
    int r = file_load(a->state_fd, STATE_CONF, STORECONF_MAX, &have, &n);
    if (r < 0 || n != len || memcmp(have, text, len) != 0)
        r = file_replace(a->state_fd, STATE_CONF, text, len);
    if (r < 0)
        vlog(VLOG_WARN, "agent", "%s/" STATE_CONF ": the second copy of store.conf cannot be written: %s", a->state_path, strerror(-r));
    if (have != NULL)
        explicit_bzero(have, n);
    free(have);
    explicit_bzero(text, sizeof text);
}

static int load_host(struct agent *a, struct verr *err)
{
    if (a->conf.host != NULL)
        snprintf(a->host_name, sizeof a->host_name, "%s", a->conf.host);
    else if (gethostname(a->host_name, sizeof a->host_name - 1) < 0)
        snprintf(a->host_name, sizeof a->host_name, "localhost");
    char hex[64];
    int r = read_line(a->state_fd, "host", hex, sizeof hex);
    if (r == 0)
        return vid_parse(hex, &a->host) == 0 ? 0 : verr_set(err, EBADMSG, "%s/host: not a host id (32 hex digits): restore the file; a new "
                                                              "id would fence this host from its own disks", a->state_path);
    if (r != -ENOENT)
        return verr_set(err, -r, "%s/host: %s", a->state_path, strerror(-r));
    a->host = vid_random();
    vid_hex(&a->host, hex);
    r = file_replace(a->state_fd, "host", hex, strlen(hex));
    return r == 0 ? 0 : verr_set(err, -r, "%s/host: cannot write: %s", a->state_path, strerror(-r));
}

/*
 * The page cache of the last run is still there if two things are the same: the boot, and the mount of STATE's filesystem (a forced
 * shutdown and remount loses unsynced pages within one boot). Kernels before 6.8 have no unique mount id; the plain id and the device
 * number stand in. In doubt this fails: a made-up text could equal that of another run, or differ from our own.
 */
static int instance_text(const struct agent *a, char *out, size_t cap, struct verr *err)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    char boot[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, boot, sizeof boot - 1);
    int error = n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    boot[strcspn(boot, "\n")] = '\0';
    if (boot[0] == '\0')
        return verr_set(err, error != 0 ? error : EIO, "%s: cannot be read, so nobody knows what survived the last stop: %s", path,
                        error != 0 ? strerror(error) : "it is empty");
    struct statx stx;
    if (statx(a->state_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID_UNIQUE_BIT, &stx) < 0)
        return verr_set(err, errno, "state directory %s: %s", a->state_path, strerror(errno));
    snprintf(out, cap, "boot %s mount %llu%s dev %llx", boot, (unsigned long long)stx.stx_mnt_id,
             (stx.stx_mask & STATX_MNT_ID_UNIQUE_BIT) != 0 ? " unique" : "",
             (unsigned long long)stx.stx_dev_major << 32 | stx.stx_dev_minor);
    return 0;
}

/*
 * The name of this run is written before anything changes, but only after every disk that may not be believed has been recovered
 * as such: a start after a crash during recovery must find the old name. A clean stop leaves the name: it synced what counts, so a
 * reboot loses nothing; but vol and cache files were never synced, and after a reboot they must not be believed.
 */
static int check_instance(struct agent *a, struct verr *err)
{
    char now[256], have[256];
    int r = instance_text(a, now, sizeof now, err);
    if (r < 0)
        return r;
    r = read_line(a->state_fd, "instance", have, sizeof have);
    a->trusted = r == 0 && strcmp(have, now) == 0;
    if (!a->trusted && faccessat(a->state_fd, "disks", F_OK, 0) == 0)
        vlog(VLOG_INFO, "agent", "%s/instance is not of this run of the system: of live images only what was fsynced is believed", a->state_path);
    /* Distrust of STATE costs what was frozen and not yet synced. It needs a reason: the name is missing, or is no name. */
    if (r == 0 || r == -ENOENT || r == -EBADMSG || r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return 0;
    return verr_set(err, -r, "%s/instance: cannot be read: %s", a->state_path, strerror(-r));
}

int agent_instance_write(struct agent *a, struct verr *err)
{
    char now[256];
    int r = instance_text(a, now, sizeof now, err);
    if (r < 0)
        return r;
    r = file_replace(a->state_fd, "instance", now, strlen(now));
    return r == 0 ? 0 : verr_set(err, -r, "%s/instance: cannot write: %s", a->state_path, strerror(-r));
}

static void agent_destroy(struct agent *a)
{
    agent_temp_remove(a);
    for (uint32_t i = 0; a->slots != NULL && i < a->nslots; i++)
        if (a->slots[i] != NULL)
            fpindex_close(a->slots[i]);
    free(a->slots);
    bus_close(a->bus);
    ingest_free(a->ingest);
    pool_free(a->pool);
    segread_free(a->segread);
    creader_free(a->reader);
    store_close(a->store);
    known_close(a->known);
    if (a->rounds_fd >= 0)
        close(a->rounds_fd);
    if (a->lock_fd >= 0)
        close(a->lock_fd); /* releases the lock: last */
    if (a->state_fd >= 0)
        close(a->state_fd);
    free(a->state_path);
    agent_rows_free(a);
    work_free(a->work);
    turns_free(a->turns);
    pthread_cond_destroy(&a->wake);
    pthread_mutex_destroy(&a->lock);
    agent_events_close(a);
    pthread_mutex_destroy(&a->lost.lock);
    free(a->lost.disks);
    pthread_mutex_destroy(&a->check_lock);
    pthread_mutex_destroy(&a->rows_lock);
    free(a);
}

static struct agent *agent_new(const struct agent_conf *conf)
{
    struct agent *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->conf = *conf;
    a->state_fd = a->lock_fd = a->rounds_fd = a->events.fd = -1;
    if (a->conf.clock == NULL)
        a->conf.clock = &vclock_system;
    pthread_mutex_init(&a->check_lock, NULL);
    pthread_mutex_init(&a->rows_lock, NULL);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->lost.lock, NULL);
    pthread_mutex_init(&a->events.lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&a->wake, &attr);
    pthread_condattr_destroy(&attr);
    a->start_ns = vclock_mono_ns(a->conf.clock);
    a->work = work_new(a->conf.clock, agent_wake, a);
    a->turns = turns_new();
    if (a->work == NULL || a->turns == NULL) {
        agent_destroy(a);
        return NULL;
    }
    return a;
}

static int open_store(struct agent *a, struct verr *err)
{
    int r = store_open(a->conf.store, &a->store, err);
    if (r == 0 && a->conf.read_only)
        store_refuse_changes(a->store);
    if (r == 0 && !a->conf.read_only && store_read_only(a->store))
        r = verr_set(err, EROFS, "store %s lies on a read-only filesystem: mount it with -o ro to read what is stored, or make the filesystem "
                     "writable", store_path(a->store));
    return r;
}

/* Nothing is made in a STATE before it is known to be of this store. */
static int open_state(struct agent *a, struct verr *err)
{
    int r = a->conf.read_only ? agent_temp_make(a, err) : agent_state_open(a, err);
    if (r == 0)
        r = look_at_store(a, err);
    if (r >= 0)
        r = agent_state_close_to_others(a, err);
    if (r == 0)
        r = agent_lock_take(a, err);
    if (r == 0)
        r = claim_state(a, err);
    if (r == 0)
        keep_conf(a);
    if (r == 0)
        r = load_host(a, err);
    return r == 0 ? check_instance(a, err) : r;
}

static int open_rooms(struct agent *a, struct verr *err)
{
    int fd = dir_make(a->state_fd, "disks");
    a->rounds_fd = dir_make(a->state_fd, "rounds");
    if (fd >= 0)
        close(fd);
    if (fd < 0 || a->rounds_fd < 0)
        return verr_set(err, fd < 0 ? -fd : -a->rounds_fd, "%s: cannot make disks/ and rounds/", a->state_path);
    return known_open(a->state_fd, &a->known, err);
}

int agent_open(const struct agent_conf *conf, struct agent **out, struct verr *err)
{
    struct agent *a = agent_new(conf);
    if (a == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    int r = open_store(a, err);
    if (r == 0)
        r = open_state(a, err);
    if (r == 0)
        r = open_rooms(a, err);
    if (r == 0)
        r = agent_state_give(a, err);
    if (r < 0) {
        agent_destroy(a);
        return r;
    }
    if (conf->read_only)
        agent_temp_tell(a);
    *out = a;
    return 0;
}

void agent_notice(const struct agent *a, const char *text)
{
    vlog(VLOG_INFO, "agent", "%s", text);
    if (a->conf.notice != NULL)
        a->conf.notice(a->conf.notice_ctx, text);
}

void agent_owner(const struct agent *a, uid_t *uid, gid_t *gid)
{
    *uid = a->uid;
    *gid = a->gid;
}

static void stop_thread(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    bool started = a->started;
    a->stopping = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
    agent_closing(a);
    if (started) {
        pthread_join(a->thread, NULL);
        pthread_join(a->timer, NULL);
    }
    agent_waits_end(a);
}

int agent_close(struct agent *a, struct verr *err)
{
    if (a == NULL)
        return 0;
    stop_thread(a);
    int r = 0;
    if (a->pool != NULL)
        pool_serial_wait(&a->ahead_serial);
    if (a->live != NULL)
        r = live_set_close(a->live, err);
    names_close(a->names);
    if (a->catalog != NULL) {
        int rc = catalog_close(a->catalog, r == 0 ? err : NULL);
        if (r == 0)
            r = rc;
    }
    agent_destroy(a);
    return r;
}

int agent_run(struct agent *a, struct verr *err)
{
    int r = thread_start(&a->thread, agent_thread, a);
    if (r != 0)
        return verr_set(err, r, "cannot start the agent's thread: %s", strerror(r));
    r = thread_start(&a->timer, agent_timer, a);
    if (r != 0) {
        pthread_mutex_lock(&a->lock);
        a->stopping = true;
        pthread_cond_broadcast(&a->wake);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
        return verr_set(err, r, "cannot start the agent's timer: %s", strerror(r));
    }
    a->started = true;
    agent_state_keep(a);
    return 0;
}

struct names *agent_names(struct agent *a) { return a->names; }
struct live_set *agent_live(struct agent *a) { return a->live; }
struct store *agent_store(struct agent *a) { return a->store; }
struct segread *agent_segread(struct agent *a) { return a->segread; }
struct catalog *agent_catalog(struct agent *a) { return a->catalog; }
const char *agent_host(const struct agent *a) { return a->host_name; }
const struct vid *agent_host_id(const struct agent *a) { return &a->host; }
const char *agent_state_path(const struct agent *a) { return a->state_path; }
int agent_state_fd(const struct agent *a) { return a->state_fd; }
bool agent_read_only(const struct agent *a) { return a->conf.read_only; }
