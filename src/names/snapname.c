/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapname: names of snapshots: NAME@SUFFIX.EXT for a disk NAME.EXT, where .EXT begins at the last dot of the disk's name and a
 * dot in front does not count (".img" has no extension). A name that snapname_make would write differently is refused, so that
 * no snapshot can be reached under two names.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TIME_LEN = 16, SUFFIX_ROOM = LABEL_MAX + 2 };

/* The extension with its dot; "" if there is none. */
static const char *extension(const char *disk)
{
    const char *dot = strrchr(disk, '.');
    return dot == NULL || dot == disk ? disk + strlen(disk) : dot;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool has_time_form(const char *text, size_t len)
{
    if (len != TIME_LEN || text[8] != 'T' || text[15] != 'Z')
        return false;
    for (size_t i = 0; i < TIME_LEN - 1; i++)
        if (i != 8 && !is_digit(text[i]))
            return false;
    return true;
}

static int number(const char *text, int digits)
{
    int v = 0;
    for (int i = 0; i < digits; i++)
        v = v * 10 + (text[i] - '0');
    return v;
}

/* The seconds of a time in a name. A time that no calendar has gives another time's seconds; take_apart notices by writing the name
 * again. Negative before 1970. */
static int64_t time_parse(const char *text)
{
    struct tm tm = {.tm_year = number(text, 4) - 1900, .tm_mon = number(text + 4, 2) - 1, .tm_mday = number(text + 6, 2),
                    .tm_hour = number(text + 9, 2), .tm_min = number(text + 11, 2), .tm_sec = number(text + 13, 2)};
    return timegm(&tm);
}

static bool label_chars(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

static bool label_sound(const char *text, size_t len)
{
    return len >= 1 && len <= LABEL_MAX && label_chars(text, len) && !has_time_form(text, len);
}

bool snapname_label_ok(const char *label)
{
    return label_sound(label, strnlen(label, LABEL_MAX + 1));
}

/* Splits the name into disk = [name, at) + ext and suffix = (at, ext). 1, or -EINVAL. */
static int take_apart(const char *name, const char *at, const char *ext, struct snapname *out)
{
    struct snapname s;
    memset(&s, 0, sizeof s);
    const char *suffix = at + 1;
    size_t base = (size_t)(at - name), len = (size_t)(ext - suffix);
    memcpy(s.disk, name, base);
    memcpy(s.disk + base, ext, strlen(ext) + 1);
    if (has_time_form(suffix, len)) {
        s.name_s = time_parse(suffix);
    } else if (label_sound(suffix, len)) {
        memcpy(s.label, suffix, len);
    } else {
        return -EINVAL;
    }
    char back[NODE_NAME_MAX + 1];
    if (snapname_make(s.disk, s.label, s.name_s, back) < 0 || strcmp(back, name) != 0)
        return -EINVAL;
    *out = s;
    return 1;
}

/* Finds the only '@'. 1; 0: there is none; -EINVAL: there are several. */
static int find_at(const char *name, const char **at)
{
    *at = strchr(name, '@');
    if (*at == NULL)
        return 0;
    if (*at == name || strchr(*at + 1, '@') != NULL || strchr(name, '/') != NULL || strnlen(name, NODE_NAME_MAX + 1) > NODE_NAME_MAX)
        return -EINVAL;
    return 1;
}

int snapname_parse(const char *name, struct snapname *out)
{
    const char *at;
    int r = find_at(name, &at);
    if (r <= 0)
        return r;
    const char *dot = strrchr(at + 1, '.');
    return take_apart(name, at, dot != NULL ? dot : at + strlen(at), out);
}

int snapname_parse_whole(const char *name, struct snapname *out)
{
    const char *at;
    int r = find_at(name, &at);
    if (r <= 0)
        return r;
    if (strchr(at + 1, '.') == NULL)
        return 0;
    return take_apart(name, at, at + strlen(at), out);
}

int snapname_make(const char *disk, const char *label, int64_t name_s, char *out)
{
    char time[TIME_LEN + 1];
    time_name(name_s, time);
    const char *ext = extension(disk);
    char text[2 * NODE_NAME_MAX];
    int n = snprintf(text, sizeof text, "%.*s@%s%s", (int)(ext - disk), disk, label[0] != '\0' ? label : time, ext);
    if (n < 0 || n > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(out, text, (size_t)n + 1);
    return 0;
}

int names_check_node_name(const char *name)
{
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '@') != NULL || strchr(name, '/') != NULL)
        return -EINVAL;
    return strnlen(name, NODE_NAME_MAX + 1) > NODE_NAME_MAX ? -ENAMETOOLONG : 0;
}

int names_check_disk_name(const char *name)
{
    int r = names_check_node_name(name);
    if (r < 0)
        return r;
    return strlen(name) + SUFFIX_ROOM > NODE_NAME_MAX ? -ENAMETOOLONG : 0;
}
