/* SPDX-License-Identifier: Apache-2.0 */
/* After the mount the daemon needs nothing of root: it becomes the owner of STORE, without capabilities, for good. sandbox.c
 * then takes away what every process can do. */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void fill_standard_fds(void)
{
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR)) {
        if (fd > STDERR_FILENO) {
            close(fd);
            return;
        }
    }
}

void allow_open_files(void)
{
    struct rlimit l;
    enum { NEEDED = 256 };      /* the least that tests/mount/370 has tried: parts of the limit go to all that keeps files open (base/limits.h) */
    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return;
    const rlim_t had = l.rlim_cur;
    l.rlim_cur = l.rlim_max;
    if (had != l.rlim_max && setrlimit(RLIMIT_NOFILE, &l) < 0) {
        vlog(VLOG_WARN, "mount", "the limit of open files stays at what the caller had: %s", strerror(errno));
        l.rlim_cur = had;
    }
    if (l.rlim_cur < NEEDED)
        vlog(VLOG_WARN, "mount", "the limit of open files is %llu and cannot be raised here: at least %d are needed, or opens and writes may fail. "
             "Raise it by LimitNOFILE= in the unit, or by ulimit -n as root", (unsigned long long)l.rlim_cur, NEEDED);
}

static int drop_capabilities(void)
{
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
            return -errno;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

int drop_privileges(uid_t uid, gid_t gid, struct verr *err)
{
    umask(077);
    if (geteuid() == 0) {
        /* Bounding set first: it needs CAP_SETPCAP. With uid 0 the sets must be emptied by hand, setuid does not do it. */
        for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
            if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
                return verr_set(err, errno, "cannot drop capability %d from the bounding set: %s", cap, strerror(errno));
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            return verr_set(err, errno, "cannot become uid %u, gid %u: %s", (unsigned)uid, (unsigned)gid, strerror(errno));
    }
    int r = drop_capabilities();
    if (r < 0)
        return verr_set(err, -r, "cannot drop capabilities: %s", strerror(-r));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return verr_set(err, errno, "cannot set no_new_privs: %s", strerror(errno));
#ifndef __SANITIZE_ADDRESS__ /* the leak checker attaches to its own process at exit */
    const struct rlimit no_core = {0, 0};
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0)
        return verr_set(err, errno, "cannot forbid core dumps: %s", strerror(errno));
#endif
    return 0;
}
