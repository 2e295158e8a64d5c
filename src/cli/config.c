/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config: reads varve.conf. libinih splits lines into keys and values; the lines come from here, because it tells its handler no line
 * number, keeps 49 bytes of a section's name only, and takes the rest of a line of 200 bytes for a line of its own.
 *
 * The file is read twice. The first time every line is checked, whatever store it is for, and the keys of [mount] are set; the second
 * time those of [mount "STORE"], so that they win wherever they stand.
 */
#include "base/quote.h"
#include "base/verr.h"
#include "cli/options.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_MAX = 1 << 20 };

enum section {
    SECTION_NONE,           /* before the first one */
    SECTION_WRONG,          /* its name is wrong, which was said */
    SECTION_ALL,            /* [mount] */
    SECTION_OURS,           /* [mount "STORE"] of the store that is mounted */
    SECTION_OTHER,
};

struct config {
    struct mount_options *o;
    struct mount_options other;     /* where settings of other stores go that are only checked */
    const char *file, *store;
    FILE *say;                      /* may be NULL */
    const char *at;                 /* the rest of the text */
    unsigned line;
    enum section section;
    bool second;                    /* the second reading, which reports nothing */
    bool no_memory;
    unsigned wrong;
};

static void complain(struct config *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct config *c, const char *fmt, ...)
{
    va_list ap;
    if (c->second)
        return;
    c->wrong++;
    if (c->say == NULL)
        return;
    char text[1024], line[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(c->say, "%s, line %u: %s\n", QUOTED(c->file), c->line, quote_line(text, line, sizeof line));
}

/* ---- sections ---- */

static bool is_our_store(const struct config *c, const char *path)
{
    char full[PATH_MAX];
    return c->store != NULL && strcmp(realpath(path, full) != NULL ? full : path, c->store) == 0;
}

/* line: begins with '['; is changed. */
static enum section section_of(struct config *c, char *line)
{
    char *end = strrchr(line, ']');
    if (end == NULL) {
        complain(c, "%s has no ']'", line);
        return SECTION_WRONG;
    }
    *end = '\0';
    const char *name = line + 1;
    size_t n = strlen(name);
    if (strcmp(name, "mount") == 0)
        return SECTION_ALL;
    if (strncmp(name, "mount \"/", 8) == 0 && n > 9 && name[n - 1] == '"') {
        *strrchr(line, '"') = '\0';
        return is_our_store(c, line + strlen("[mount \"")) ? SECTION_OURS : SECTION_OTHER;
    }
    complain(c, "unknown section [%s]: give [mount], or [mount \"/PATH/OF/STORE\"]", name);
    return SECTION_WRONG;
}

/* ---- lines ---- */

/* The line as libinih is to see it: a section becomes an empty line, and so does a line that is wrong. */
static const char *checked_line(struct config *c, char *line, size_t room)
{
    char *s = line + strspn(line, " \t\r\v\f");
    if (c->line == 1 && strncmp(s, "\xef\xbb\xbf", 3) == 0)
        s += 3;
    s[strcspn(s, "\r")] = '\0';
    if (s[0] == '\0' || s[0] == '#' || s[0] == ';')
        return "";
    if (s[0] == '[')
        c->section = section_of(c, s);
    else if (strpbrk(s, "=:") == NULL)
        complain(c, "\"%s\" is neither [section] nor key = value", s);
    else if (strlen(s) >= room)
        complain(c, "longer than %zu bytes", room - 1);
    else
        return s;
    return "";
}

static char *next_line(char *out, int size, void *user)
{
    struct config *c = user;
    size_t len = strcspn(c->at, "\n");
    const char *nl = strchr(c->at, '\n');
    if (*c->at == '\0')
        return NULL;
    char *line = strndup(c->at, len);
    c->line++;
    c->at += len + (nl != NULL);
    if (line == NULL) {
        c->no_memory = true;
        return NULL;
    }
    snprintf(out, (size_t)size, "%s", checked_line(c, line, (size_t)size));
    free(line);
    return out;
}

/* ---- keys ---- */

static int set_key(void *user, const char *section, const char *name, const char *value)
{
    struct config *c = user;
    (void)section;
    bool ours = c->section == SECTION_ALL ? !c->second : c->section == SECTION_OURS && c->second;
    if (c->section == SECTION_NONE) {
        complain(c, "%s stands in no section: write [mount] above it", name);
        return 1;
    }
    if (c->section == SECTION_WRONG || (c->second && !ours))
        return 1;
    const char *accepts = NULL;
    int r = options_set(ours ? c->o : &c->other, name, value, &accepts);
    if (r == -ENOMEM)
        c->no_memory = true;
    else if (r == -ENOENT)
        complain(c, "unknown key \"%s\" (see varve.conf(5))", name);
    else if (r < 0)
        complain(c, "%s = %s: give %s", name, value, accepts);
    return 1;
}

static void read_once(struct config *c, const char *text, bool second)
{
    c->at = text;
    c->line = 0;
    c->section = SECTION_NONE;
    c->second = second;
    if (ini_parse_stream(next_line, c, set_key, c) == -2)
        c->no_memory = true;
}

/* Reads up to the first NUL byte or the end. */
static int read_text(FILE *fp, char **text)
{
    struct stat st;
    size_t cap = 0;
    if (fstat(fileno(fp), &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (st.st_size > CONFIG_MAX)
        return -EFBIG;
    errno = 0;
    ssize_t n = getdelim(text, &cap, '\0', fp);
    if (n < 0 && !feof(fp))
        return errno != 0 ? -errno : -EIO;
    if (n < 0) {
        free(*text);
        *text = strdup("");
    }
    if (*text == NULL)
        return -ENOMEM;
    return n > 0 && (*text)[n - 1] == '\0' ? -EILSEQ : 0;
}

static int load_text(const char *file, char **text, struct verr *err)
{
    FILE *fp = fopen(file, "re");
    int r = fp == NULL ? -errno : read_text(fp, text);
    if (fp != NULL)
        fclose(fp);
    if (r == -EILSEQ)
        return verr_set(err, EINVAL, "%s: is no configuration: it holds a NUL byte", file);
    return r < 0 ? verr_set(err, -r, "%s: cannot read the configuration: %s", file, strerror(-r)) : 0;
}

int options_load(struct mount_options *o, const char *file, const char *store, bool missing_ok, FILE *say, struct verr *err)
{
    char *text = NULL;
    struct verr why = {0};
    struct config c = {.o = o, .file = file, .store = store, .say = say};
    int r = load_text(file, &text, &why);
    if (r < 0) {
        free(text);
        return r == -ENOENT && missing_ok ? 0 : verr_set(err, why.code, "%s", why.text);
    }
    options_init(&c.other);
    read_once(&c, text, false);
    if (c.wrong == 0)
        read_once(&c, text, true);
    options_release(&c.other);
    free(text);
    if (c.no_memory)
        return verr_set(err, ENOMEM, "%s: out of memory", file);
    return c.wrong == 0 ? 0 : verr_set(err, EINVAL, "%s: %u of its lines %s wrong", file, c.wrong, c.wrong == 1 ? "is" : "are");
}
