/* SPDX-License-Identifier: Apache-2.0 */
#include "base/limits.h"

#include <sys/resource.h>

unsigned files_allowed(unsigned part, unsigned most)
{
    enum { LEAST = 8 };
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur / part > most)
        return most;
    return l.rlim_cur / part < LEAST ? LEAST : (unsigned)(l.rlim_cur / part);
}
