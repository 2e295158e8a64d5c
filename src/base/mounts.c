/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mounts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_octal(const char *s)
{
    return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7';
}

/* The kernel writes blanks, tabs, newlines and backslashes of a field as \ooo; all other bytes, a form feed too, stand for themselves. */
static void unescape(char *s)
{
    char *out = s;
    while (*s != '\0') {
        if (s[0] == '\\' && is_octal(s + 1)) {
            *out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 4;
        } else {
            *out++ = *s++;
        }
    }
    *out = '\0';
}

/* Fields: id, parent, major:minor, root, mount point, options, tags... " - " type, source, options of the superblock. */
static bool parse(char *line, struct mount_line *m)
{
    enum { ID, DEVICE = 2, POINT = 4, FIELDS = 5 };
    char *field[FIELDS], *type = strstr(line, " - "), *rest = line, *end;
    line[strcspn(line, "\n")] = '\0';
    if (type == NULL)
        return false;
    *type = '\0';
    type += 3;
    for (int i = 0; i < FIELDS; i++)
        if ((field[i] = strsep(&rest, " ")) == NULL)
            return false;
    m->id = strtoul(field[ID], NULL, 10);
    m->major = (unsigned)strtoul(field[DEVICE], &end, 10);
    m->minor = *end == ':' ? (unsigned)strtoul(end + 1, NULL, 10) : 0;
    m->type = strsep(&type, " ");
    char *source = strsep(&type, " ");
    if (source == NULL)
        return false;
    unescape(field[POINT]);
    unescape(source);
    m->point = field[POINT];
    m->source = source;
    return true;
}

int mounts_each(int pid, int (*fn)(void *ctx, const struct mount_line *m), void *ctx)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mountinfo", pid);
    FILE *f = fopen(pid == 0 ? "/proc/self/mountinfo" : path, "re");
    if (f == NULL)
        return -errno;
    char *line = NULL;
    size_t cap = 0;
    struct mount_line m;
    int r = 0;
    while (r == 0 && getline(&line, &cap, f) > 0)
        if (parse(line, &m))
            r = fn(ctx, &m);
    if (r == 0 && ferror(f))
        r = -errno;
    free(line);
    fclose(f);
    return r;
}
