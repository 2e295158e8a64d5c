/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, progress bars and the list of mounts: what several commands need of the outside. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/mounts.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

int parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0)
        return -EINVAL;
    end += *end == ' ';
    const char *unit = *end != '\0' ? strchr(units, toupper((unsigned char)*end)) : NULL;
    end += unit != NULL;
    bool thousands = unit != NULL && strcasecmp(end, "b") == 0;
    if (*end != '\0' && !thousands && strcasecmp(end, unit != NULL ? "ib" : "b") != 0)
        return -EINVAL;
    uint64_t factor = 1;
    for (const char *u = units; unit != NULL && u <= unit; u++)
        factor *= thousands ? 1000 : 1024;
    return __builtin_mul_overflow(n, factor, out) ? -EINVAL : 0;
}

void format_size(uint64_t bytes, char out[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    unsigned u = 0;
    for (; v >= 1000 && u < 6; u++)
        v /= 1024;
    snprintf(out, 16, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
}

/* The rate is that since the first call. */
static void show_rate(const struct progress *p, uint64_t done, uint64_t total, int64_t now)
{
    char a[16], b[16], rate[16];
    double seconds = (double)(now - p->begin_ms) / 1000, per_second = seconds > 0 ? (double)(done - p->first) / seconds : 0;
    format_size(done, a);
    format_size(total, b);
    format_size((uint64_t)per_second, rate);
    fprintf(stderr, "  %s of %s", a, b);
    if (per_second >= 1) {
        double left = (double)(total - done) / per_second;
        fprintf(stderr, ", %s/s, %.0f:%02d left", rate, (left - (double)((uint64_t)left % 60)) / 60, (int)((uint64_t)left % 60));
    }
    fprintf(stderr, "\033[K");
}

void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    enum { WIDTH = 40, EVERY_MS = 100 };
    if (!isatty(STDERR_FILENO) || total == 0)
        return;
    int64_t now = vclock_mono_ns(&vclock_system) / 1000000;
    if (p->shown && now - p->last_ms < EVERY_MS && done < total)
        return;
    if (done > total)
        done = total;
    if (!p->shown || done < p->first) {
        p->begin_ms = now;
        p->first = done;
    }
    p->shown = true;
    p->last_ms = now;
    int fill = (int)((double)done / (double)total * WIDTH);
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < fill ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3d %%", p->title, bar, (int)((double)done * 100 / (double)total));
    if (p->bytes)
        show_rate(p, done, total, now);
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    p->shown = false;
}

struct our_mounts { const char *store; int (*fn)(void *ctx, const char *mountpoint); void *ctx; int count; };

static int our_mount(void *ctx, const struct mount_line *m)
{
    struct our_mounts *o = ctx;
    if (strcmp(m->type, "fuse.varve") != 0 || (o->store != NULL && strcmp(m->source, o->store) != 0))
        return 0;
    o->count++;
    return o->fn(o->ctx, m->point);
}

int each_mount(int (*fn)(void *ctx, const char *mountpoint), void *ctx)
{
    return each_mount_of(NULL, fn, ctx);
}

int each_mount_of(const char *store, int (*fn)(void *ctx, const char *mountpoint), void *ctx)
{
    struct our_mounts o = {.store = store, .fn = fn, .ctx = ctx};
    int r = mounts_each(0, our_mount, &o);
    return r < 0 ? r : o.count;
}
