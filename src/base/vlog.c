/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vlog.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>

static int sink_syslog;
static enum vlog_level max_shown = VLOG_INFO;

void vlog_open(int to_syslog, enum vlog_level max_level)
{
    sink_syslog = to_syslog;
    max_shown = max_level;
    if (to_syslog)
        openlog("varve", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

__attribute__((format(printf, 3, 0)))
static void vlog_line(enum vlog_level level, const char *topic, const char *fmt, va_list ap)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    if (sink_syslog) {
        syslog(priorities[level], "%s: %s", topic, text);
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
