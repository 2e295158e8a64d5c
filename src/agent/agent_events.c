/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what happened to disks and snapshots, and for whom. Each is a line of the log, and kept: the last ones in memory, for
 * .varve/events, and in STATE/events, so that they survive the daemon. They are for people: what cannot be written or read is left out, and
 * no operation fails of it. The file is not synced; after a loss of power the newest lines may be missing.
 */
#include "agent/agent_json.h"
#include "agent/agent_text.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/hex.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS_FILE "events"
#define EVENTS_BEFORE "events.old"
enum { FILE_BYTES = 256 << 10, SUM_DIGITS = 16, SUM = SUM_DIGITS + 1, LINE_BYTES = SUM + EVENT_TEXT + 1 };

/* ---- lines of STATE/events: checksum, blank, the line of .varve/events ---- */

/* In a->events.lock, or before there are other threads. Takes line over. */
static void remember(struct agent *a, char *line)
{
    char **at = &a->events.line[a->events.count++ % EVENTS_MAX];
    free(*at);
    *at = line;
}

/* A line that is torn, or is none of ours, is passed over. */
static void load_line(struct agent *a, const char *line, size_t n)
{
    char raw[EVENT_TEXT], text[EVENT_TEXT];
    uint64_t sum;
    if (n <= SUM || n - SUM >= sizeof raw || line[SUM_DIGITS] != ' ' || hex_number(line, SUM_DIGITS, &sum) < 0
        || sum != hash64(line + SUM, n - SUM))
        return;
    memcpy(raw, line + SUM, n - SUM);
    raw[n - SUM] = '\0';
    remember(a, strdup(quote_line(raw, text, sizeof text)));
}

/* The length of the file without a torn last line. */
static uint64_t load_file(struct agent *a, const char *name)
{
    uint8_t *data;
    size_t len;
    if (file_load(a->state_fd, name, FILE_BYTES + LINE_BYTES, &data, &len) < 0)
        return 0;
    size_t begin = 0;
    for (const uint8_t *nl; (nl = memchr(data + begin, '\n', len - begin)) != NULL; begin = (size_t)(nl - data) + 1)
        load_line(a, (char *)data + begin, (size_t)(nl - data) - begin);
    free(data);
    return begin;
}

/* ---- writing ---- */

static void stop_keeping(struct agent *a, int error)
{
    if (a->events.fd >= 0)
        close(a->events.fd);
    a->events.fd = -1;
    vlog(VLOG_WARN, "agent", "%s/" EVENTS_FILE ": %s: events are not kept there until the next start", a->state_path, strerror(error));
}

static int open_file(struct agent *a, int flags)
{
    struct stat st;
    int fd = openat(a->state_fd, EVENTS_FILE, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    int error = fd < 0 ? errno : EINVAL;
    if (fd >= 0)
        close(fd);
    return -error;
}

/* The last FILE_BYTES become the file before; what was there goes. */
static int begin_anew(struct agent *a)
{
    if (renameat(a->state_fd, EVENTS_FILE, a->state_fd, EVENTS_BEFORE) < 0 && errno != ENOENT)
        return -errno;
    int fd = open_file(a, O_TRUNC);
    if (fd < 0)
        return fd;
    close(a->events.fd);
    a->events.fd = fd;
    a->events.bytes = 0;
    return 0;
}

/* A line that did not fit is written over by the next one: there may be room again. */
static void append(struct agent *a, const char *line)
{
    char text[LINE_BYTES + 1];
    if (a->events.fd < 0)
        return;
    size_t n = (size_t)snprintf(text, sizeof text, "%016" PRIx64 " %s\n", hash64(line, strlen(line)), line);
    int r = a->events.bytes + n > FILE_BYTES ? begin_anew(a) : 0;
    if (r == 0)
        r = pwrite_bulk(a->events.fd, text, n, (off_t)a->events.bytes);     /* the rest of a full STATE is for what must go on */
    if (r == 0)
        a->events.bytes += n;
    else if (r != -ENOSPC && r != -EDQUOT)
        stop_keeping(a, -r);
}

void agent_events_open(struct agent *a)
{
    load_file(a, EVENTS_BEFORE);
    a->events.bytes = load_file(a, EVENTS_FILE);
    int fd = open_file(a, 0);
    if (fd >= 0 && ftruncate(fd, (off_t)a->events.bytes) < 0) {
        int error = errno;
        close(fd);
        fd = -error;
    }
    a->events.fd = fd < 0 ? -1 : fd;
    if (fd < 0)
        stop_keeping(a, -fd);
}

void agent_events_close(struct agent *a)
{
    if (a->events.fd >= 0)
        close(a->events.fd);
    for (unsigned i = 0; i < EVENTS_MAX; i++)
        free(a->events.line[i]);
    pthread_mutex_destroy(&a->events.lock);
}

/* ---- what happens ---- */

static void keep_event(struct agent *a, enum vlog_level level, const char *what)
{
    char text[EVENT_TEXT], stamp[32];
    agent_time_text(vclock_real_ns(a->conf.clock), stamp);
    size_t n = (size_t)snprintf(text, sizeof text, "%s ", stamp);
    quote_line(what, text + n, sizeof text - n);
    pthread_mutex_lock(&a->events.lock);
    remember(a, strdup(text));
    append(a, text);
    pthread_mutex_unlock(&a->events.lock);
    vlog(level, "event", "%s", text + n);
}

void agent_event(struct agent *a, const char *fmt, ...)
{
    char text[EVENT_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    keep_event(a, VLOG_DEBUG, text);
}

static _Thread_local int64_t caller = AGENT_ITSELF;

void agent_caller(int64_t uid) { caller = uid; }

void agent_say(struct agent *a, enum vlog_level level, const char *path, const char *fmt, ...)
{
    char what[EVENT_TEXT - QUOTED_MAX - 40], text[EVENT_TEXT], who[32] = "varve";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (caller != AGENT_ITSELF)
        snprintf(who, sizeof who, "uid %lld", (long long)caller);
    snprintf(text, sizeof text, "%s: %s (by %s)", path == NULL ? "the tree" : QUOTED(path), what, who);
    keep_event(a, level, text);
}

int agent_events(struct agent *a, char **text, size_t *len, struct verr *err)
{
    struct text out = {0};
    pthread_mutex_lock(&a->events.lock);
    uint64_t first = a->events.count > EVENTS_MAX ? a->events.count - EVENTS_MAX : 0;
    int r = text_print(&out, err, "%s", "");
    for (uint64_t i = first; r == 0 && i < a->events.count; i++)
        if (a->events.line[i % EVENTS_MAX] != NULL)
            r = text_print(&out, err, "%s\n", a->events.line[i % EVENTS_MAX]);
    pthread_mutex_unlock(&a->events.lock);
    if (r < 0) {
        free(out.text);
        return r;
    }
    *text = out.text;
    *len = out.len;
    return 0;
}
