/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE as a directory: found or made, checked that it is ours, given to the owner of STORE. The code runs as root in a
 * tree that a less privileged account (the daemon of the last run) may write to. So it uses no path below STATE, follows no link, and
 * refuses what is not plainly ours.
 */
#include "agent/agent_internal.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 8 };         /* disks/ID/FILE is three deep */

/* part cannot be made: what was made above it goes again. */
static int not_made(const char *path, char *part, unsigned made, int error, struct verr *err)
{
    verr_set(err, error, "state directory %s: cannot make %s: %s", path, part, strerror(error));
    char *slash = strrchr(part, '/');
    if (slash != NULL)
        *slash = '\0';
    agent_made_remove(part, made);
    return -error;
}

/* mkdir -p: STATE's default lies below a directory that nothing else makes. *made: how many directories of the path, from its end. */
static int make_path(const char *path, unsigned *made, struct verr *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return verr_set(err, ENAMETOOLONG, "state directory %s: the path is empty or too long", path);
    memcpy(part, path, n + 1);
    for (char *p = part + 1; ; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char keep = *p;
        *p = '\0';
        if (mkdir(part, strcmp(part, path) == 0 ? 0700 : 0755) == 0)
            ++*made;
        else if (errno != EEXIST)
            return not_made(path, part, *made, errno, err);
        *p = keep;
        if (keep == '\0')
            return 0;
    }
}

/* Another user that owns STATE, or may write to it, could exchange its files while we use them. */
int agent_state_check_owner(struct agent *a, struct verr *err)
{
    struct stat state;
    int r = store_owner(a->store, &a->uid, &a->gid);
    if (r < 0)
        return verr_set(err, -r, "%s: %s", store_path(a->store), strerror(-r));
    if (fstat(a->state_fd, &state) < 0)
        return verr_set(err, errno, "state directory %s: %s", a->state_path, strerror(errno));
    if (state.st_uid != 0 && state.st_uid != a->uid && state.st_uid != geteuid())
        return verr_set(err, EPERM, "state directory %s belongs to uid %u, neither root nor the owner of %s (uid %u): give another "
                        "-o state=DIR, or chown it", a->state_path, (unsigned)state.st_uid, store_path(a->store), (unsigned)a->uid);
    if (state.st_mode & 022)
        return verr_set(err, EPERM, "state directory %s can be written to by others (mode %03o): chmod 0700 it, or give another "
                        "-o state=DIR", a->state_path, (unsigned)state.st_mode & 0777);
    return 0;
}

int agent_state_close_to_others(struct agent *a, struct verr *err)
{
    struct stat state;
    if (fstat(a->state_fd, &state) < 0 || ((state.st_mode & 077) != 0 && fchmod(a->state_fd, 0700) < 0))
        return verr_set(err, errno, "state directory %s: cannot close it to others: %s", a->state_path, strerror(errno));
    return 0;
}

void agent_state_name(const struct agent *a, char out[PATH_MAX])
{
    char hex[VID_HEX];
    vid_hex(&store_conf(a->store)->id, hex);
    if (a->conf.state == NULL)
        snprintf(out, PATH_MAX, "/var/lib/varve/%s", hex);
    else
        snprintf(out, PATH_MAX, "%s", a->conf.state);
}

int agent_state_open(struct agent *a, struct verr *err)
{
    char path[PATH_MAX];
    agent_state_name(a, path);
    int r = make_path(path, &a->made, err);
    if (r < 0)
        return r;
    a->state_path = realpath(path, NULL);
    if (a->state_path == NULL)
        return verr_set(err, errno, "state directory %s: %s", path, strerror(errno));
    a->state_fd = open(a->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (a->state_fd < 0)
        return verr_set(err, errno, "state directory %s: %s", a->state_path, strerror(errno));
    return agent_state_check_owner(a, err);
}

static int foreign_entry(void *ctx, const char *name)
{
    char *found = ctx;
    if (name[0] == '.' || strcmp(name, "lock") == 0 || strcmp(name, "lost+found") == 0)
        return 0;
    snprintf(found, NAME_MAX + 1, "%s", name);
    return 1;
}

int agent_state_check_new(struct agent *a, struct verr *err)
{
    char found[NAME_MAX + 1], hex[VID_HEX];
    vid_hex(&store_conf(a->store)->id, hex);
    int r = dir_each(a->state_fd, foreign_entry, found);
    if (r > 0)
        return verr_set(err, ENOTEMPTY, "state directory %s is no state of varve (no file \"store\"), but holds %s: give an empty or new "
                        "directory; if the file was lost, and it is the state of this store, write %s into it", a->state_path, found, hex);
    return r < 0 ? verr_set(err, -r, "state directory %s: cannot list it: %s", a->state_path, strerror(-r)) : 0;
}

/* ---- giving STATE to its user ---- */

struct giving {
    struct agent *a;
    struct verr *err;
    const char *at;             /* path below STATE of the directory, for messages */
    int dirfd, depth;
    dev_t dev;
};

static int give_dir(const struct giving *up, int fd, const char *at);

static int refuse(const struct giving *g, const char *name, const char *why)
{
    return verr_set(g->err, EPERM, "state directory %s: %s%s: %s: move it away", g->a->state_path, g->at, name, why);
}

static int trouble(const struct giving *g, const char *name, int error)
{
    return verr_set(g->err, error, "state directory %s: %s%s: %s", g->a->state_path, g->at, name, strerror(error));
}

/* fd is the file itself (O_PATH or open): this changes its owner, whatever its name leads to by now. */
static int give_one(const struct giving *g, int fd, const struct stat *st, const char *name)
{
    struct agent *a = g->a;
    if (st->st_dev != g->dev)
        return refuse(g, name, "another filesystem is mounted there");
    if (st->st_uid != 0 && st->st_uid != a->uid)
        return refuse(g, name, "belongs to neither root nor the owner of the store");
    if (st->st_uid == a->uid && st->st_gid == a->gid)
        return 0;
    /* The file's other name may lie outside of STATE, and root may own the file for a reason. */
    if (S_ISREG(st->st_mode) && st->st_nlink != 1)
        return refuse(g, name, "has another name (hard link)");
    if (fchownat(fd, "", a->uid, a->gid, AT_EMPTY_PATH) < 0)
        return verr_set(g->err, errno, "state directory %s: cannot give %s%s to uid %u, the owner of %s: %s", a->state_path, g->at, name,
                        (unsigned)a->uid, store_path(a->store), strerror(errno));
    return 0;
}

static int give_entry(void *ctx, const char *name)
{
    const struct giving *g = ctx;
    char at[PATH_MAX];
    struct stat st;
    int fd = openat(g->dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : trouble(g, name, errno);
    int r = fstat(fd, &st) < 0 ? trouble(g, name, errno) : 0;
    if (r == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        r = refuse(g, name, "is neither file nor directory");
    if (r == 0)
        r = give_one(g, fd, &st, name);
    if (r == 0 && S_ISDIR(st.st_mode) && strcmp(name, "lost+found") != 0) {
        int dir = openat(g->dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat now;
        if (dir < 0 || fstat(dir, &now) < 0)
            r = trouble(g, name, errno);
        else if (now.st_ino != st.st_ino || now.st_dev != st.st_dev)
            r = refuse(g, name, "is being exchanged");
        else if (snprintf(at, sizeof at, "%s%s/", g->at, name) >= (int)sizeof at)
            r = refuse(g, name, "too deep");
        else
            r = give_dir(g, dir, at);
        if (dir >= 0)
            close(dir);
    }
    close(fd);
    return r;
}

static int give_dir(const struct giving *up, int fd, const char *at)
{
    struct giving g = *up;
    g.dirfd = fd;
    g.at = at;
    if (++g.depth > DEPTH_MAX)
        return refuse(&g, "", "too deep");
    int r = dir_each(fd, give_entry, &g);
    return r < 0 && g.err->code == 0 ? trouble(&g, "", -r) : r;
}

int agent_state_give(struct agent *a, struct verr *err)
{
    struct stat st;
    struct verr own = {0};
    struct giving g = {.a = a, .err = err != NULL ? err : &own, .at = "", .dirfd = a->state_fd};
    if (geteuid() != 0)
        return 0;
    if (fstat(a->state_fd, &st) < 0)
        return verr_set(err, errno, "state directory %s: %s", a->state_path, strerror(errno));
    g.dev = st.st_dev;
    /* The directory last: until then only root can change what lies directly in it. */
    int r = give_dir(&g, a->state_fd, "");
    return r < 0 ? r : give_one(&g, a->state_fd, &st, "");
}
