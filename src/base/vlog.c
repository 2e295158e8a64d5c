/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vlog.h"

#include "base/quote.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2 * QUOTED_MAX + 1024 };      /* two paths, and what happened */

static int sink_syslog;
static enum vlog_level max_shown = VLOG_INFO;

void vlog_open(int to_syslog, enum vlog_level max_level)
{
    sink_syslog = to_syslog;
    max_shown = max_level;
    vlog_mark(VLOG_ERROR);
    if (to_syslog)
        openlog("varve", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

/* systemd says in the environment which file is the journal; a stderr that was redirected since is another one. */
static bool stderr_is_journal(void)
{
    struct stat st;
    char now[64];
    const char *stream = getenv("JOURNAL_STREAM");      /* DEVICE:INODE */
    if (stream == NULL || fstat(STDERR_FILENO, &st) < 0)
        return false;
    snprintf(now, sizeof now, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(stream, now) == 0;
}

const char *vlog_mark(enum vlog_level level)
{
    static const char *const marks[] = {"<3>", "<4>", "<6>", "<7>"};
    static enum {UNKNOWN, JOURNAL, OTHER} sink;
    if (sink == UNKNOWN)
        sink = stderr_is_journal() ? JOURNAL : OTHER;
    return sink == JOURNAL ? marks[level] : "";
}

__attribute__((format(printf, 3, 0)))
static void vlog_line(enum vlog_level level, const char *topic, const char *fmt, va_list ap)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    char raw[LINE_MAX_BYTES], text[LINE_MAX_BYTES];
    vsnprintf(raw, sizeof raw, fmt, ap);
    quote_line(raw, text, sizeof text);
    if (sink_syslog) {
        syslog(priorities[level], "%s: %s", topic, text);
        return;
    }
    const char *mark = vlog_mark(level);
    if (mark[0] != '\0') {      /* the journal has its own time */
        fprintf(stderr, "%s%s: %s\n", mark, topic, text);
        return;
    }
    struct timespec ts;
    struct tm tm;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(stderr, "%s %s %s: %s\n", stamp, names[level], topic, text);
}

void vlog(enum vlog_level level, const char *topic, const char *fmt, ...)
{
    if (level > max_shown)
        return;
    int keep = errno;
    va_list ap;
    va_start(ap, fmt);
    vlog_line(level, topic, fmt, ap);
    va_end(ap);
    errno = keep;
}

void vbug(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vlog_line(VLOG_ERROR, "BUG", fmt, ap);
    va_end(ap);
    abort();
}
