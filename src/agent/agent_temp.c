/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A STATE that goes again. A read-only mount shows what is stored, and needs a place for its catalog only: a directory of its own in
 * /var/tmp, which goes at its end. So it never touches the STATE of a host, its live images and its pending snapshots, and needs no lock.
 * And a start that fails leaves nothing of a STATE that it made.
 */
#include "agent/agent_internal.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_MARK "varve-ro."
enum { TRIES = 8 };

/* ---- what killed daemons left ---- */

/* A directory is locked for as long as its daemon runs. One that was made this moment may not be yet: its maker tries again. */
static int sweep_one(void *ctx, const char *name)
{
    int dirfd = *(const int *)ctx;
    struct stat st;
    if (strncmp(name, TEMP_MARK, sizeof TEMP_MARK - 1) != 0)
        return 0;
    int fd = dir_open(dirfd, name);
    if (fd < 0)
        return 0;
    if (fstat(fd, &st) == 0 && (st.st_mode & 077) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && tree_remove(dirfd, name) == 0)
        vlog(VLOG_INFO, "agent", AGENT_TEMP_DIR "/%s: a read-only mount that was killed had left it: removed", name);
    close(fd);
    return 0;
}

static void sweep(void)
{
    int fd = dir_open(AT_FDCWD, AGENT_TEMP_DIR);
    if (fd < 0)
        return;
    (void)dir_each(fd, sweep_one, &fd);
    close(fd);
}

/* ---- a read-only mount ---- */

/* -EAGAIN: another start has taken it for one that was left. */
static int make_one(char *path)
{
    if (mkdtemp(path) == NULL)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0 && access(path, F_OK) == 0)
        return fd;
    int r = -errno;
    if (fd >= 0)
        close(fd);
    rmdir(path);
    return r == -EWOULDBLOCK || r == -ENOENT ? -EAGAIN : r;
}

int agent_temp_make(struct agent *a, struct verr *err)
{
    char path[sizeof AGENT_TEMP_DIR "/" TEMP_MARK "XXXXXX"];
    int r = -EAGAIN;
    sweep();
    for (int i = 0; r == -EAGAIN && i < TRIES; i++) {
        snprintf(path, sizeof path, AGENT_TEMP_DIR "/" TEMP_MARK "XXXXXX");
        r = make_one(path);
    }
    if (r < 0)
        return verr_set(err, -r, "a read-only mount keeps its catalog in " AGENT_TEMP_DIR ": cannot make a directory there: %s", strerror(-r));
    a->state_fd = r;
    a->made = 1;
    a->goes = true;
    a->state_path = strdup(path);
    if (a->state_path != NULL)
        return agent_state_check_owner(a, err);
    rmdir(path);
    return verr_set(err, ENOMEM, "out of memory");
}

static int any_entry(void *ctx, const char *name)
{
    (void)ctx;
    return name[0] == '.' ? 0 : 1;
}

void agent_temp_tell(struct agent *a)
{
    char state[PATH_MAX], text[PATH_MAX + 256];
    agent_state_name(a, state);
    int fd = dir_open(AT_FDCWD, state), disks = fd < 0 ? -1 : dir_open(fd, "disks");
    if (disks >= 0 && dir_each(disks, any_entry, NULL) > 0) {
        snprintf(text, sizeof text, "read-only: %s, with this host's live images and pending snapshots, is left alone; what is stored can be read",
                 state);
        agent_notice(a, text);
        agent_event(a, "%s", text);
    }
    if (disks >= 0)
        close(disks);
    if (fd >= 0)
        close(fd);
}

/* ---- what goes again ---- */

static int remove_entry(void *ctx, const char *name)
{
    /* What a new STATE may hold is not ours (agent_state_check_new). */
    if (name[0] != '.' && strcmp(name, "lost+found") != 0)
        (void)tree_remove(*(const int *)ctx, name);
    return 0;
}

void agent_temp_remove(struct agent *a)
{
    if (a->goes && a->state_fd >= 0)
        (void)dir_each(a->state_fd, remove_entry, &a->state_fd);
    agent_made_remove(a->state_path, a->made);
}

void agent_made_remove(const char *path, unsigned levels)
{
    char part[PATH_MAX];
    if (path == NULL || snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return;
    for (; levels > 0 && rmdir(part) == 0; levels--) {
        char *slash = strrchr(part, '/');
        if (slash == NULL || slash == part)
            return;
        *slash = '\0';
    }
}

void agent_state_keep(struct agent *a)
{
    a->goes = a->conf.read_only;
    a->made = a->conf.read_only ? 1 : 0;
}

const char *agent_made(const struct agent *a, unsigned *levels)
{
    *levels = a->made;
    return a->state_path;
}
