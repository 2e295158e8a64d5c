/* SPDX-License-Identifier: Apache-2.0 */
/* vlog: the daemon's log. To stderr with -f, else to syslog; where stderr is systemd's journal, lines keep their priority. Rooms below
 * `agent` fill verr instead, except for what no caller is told. */
#ifndef VARVE_BASE_VLOG_H
#define VARVE_BASE_VLOG_H

enum vlog_level { VLOG_ERROR = 0, VLOG_WARN, VLOG_INFO, VLOG_DEBUG };

/* Chooses the sink and the highest level shown. Call before threads start. */
void vlog_open(int to_syslog, enum vlog_level max_level);

/* One line, no newline at its end; control characters of names in it are escaped (base/quote.h). `topic` is the module or stage ("fs",
 * "stage_1a"). Thread-safe. Keeps errno. */
void vlog(enum vlog_level level, const char *topic, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* What a line on stderr begins with: where stderr is systemd's journal, the mark that it takes the priority from ("<4>", sd-daemon(3));
 * else "". The first call is made before threads start. */
const char *vlog_mark(enum vlog_level level);

/* A state that must never be: logs and aborts. For our own bugs only, never for bytes from outside. */
void vbug(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
