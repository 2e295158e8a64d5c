/* SPDX-License-Identifier: Apache-2.0 */
/* dump: finds out the kind of a file by its magic, and calls the function that prints it. */
#include "check/dump.h"

#include "base/file.h"
#include "base/quote.h"
#include "check/dump_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct kind {
    const char *magic, *name;
    int (*fn)(struct dump *d, struct verr *err);
} kinds[] = {
    { "varveCON", "container", dump_container },
    { "VARVSNAP", "snapshot recipe", dump_snapshot },
    { "VARVATTR", "side file", dump_side_file },
    { "VARVNODE", "node record", dump_node },
    { "# varve chunk store.", "store.conf", dump_store_conf },
    { "varveOWN", "owner record", dump_owner },
    { "varveDEL", "deletion log", dump_deletions },
    { "VARVEIDX", "index file", dump_index },
    { "VARVHEAD", "journal", dump_journal },
    { "VARVTABL", "table", dump_table },
    { "VARVEMAP", "map", dump_map },
    { "VARVEVOL", "vol", dump_vol },
};

int dump_read(struct dump *d, uint64_t off, void *buf, size_t n, struct verr *err)
{
    ssize_t got = pread_full(d->fd, buf, n, (off_t)off);
    if (got < 0)
        return verr_set(err, (int)-got, "%s: reading at %" PRIu64 ": %s", d->path, off, strerror((int)-got));
    if ((size_t)got != n)
        return verr_set(err, EBADMSG, "%s: ends at %" PRIu64 ", %zu bytes are missing", d->path, off + (uint64_t)got, n - (size_t)got);
    return 0;
}

int dump_load(struct dump *d, uint8_t **data, size_t *len, struct verr *err)
{
    if (d->size > DUMP_WHOLE_MAX)
        return verr_set(err, EBADMSG, "%s: %" PRIu64 " bytes are more than such a file can have", d->path, d->size);
    uint8_t *p = malloc((size_t)d->size + 1);
    if (p == NULL)
        return verr_set(err, ENOMEM, "%s: out of memory", d->path);
    int r = dump_read(d, 0, p, (size_t)d->size, err);
    if (r < 0) {
        free(p);
        return r;
    }
    p[d->size] = '\0';
    *data = p;
    *len = (size_t)d->size;
    return 0;
}

void dump_note(int *r, int code, struct verr *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (*r < 0)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    *r = verr_set(err, code, "%s", text);
}

static const struct kind *recognise(const struct dump *d)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (memcmp(d->head, kinds[i].magic, strlen(kinds[i].magic)) == 0)
            return &kinds[i];
    return NULL;
}

static int dump_open(struct dump *d, struct verr *err)
{
    struct stat st;
    d->fd = open(d->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (d->fd < 0)
        return verr_set(err, errno, "%s: %s", d->path, strerror(errno));
    if (fstat(d->fd, &st) < 0)
        return verr_set(err, errno, "%s: %s", d->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return verr_set(err, EBADMSG, "%s: is not a regular file", d->path);
    d->size = (uint64_t)st.st_size;
    ssize_t got = pread_full(d->fd, d->head, sizeof d->head, 0);
    return got < 0 ? verr_set(err, (int)-got, "%s: %s", d->path, strerror((int)-got)) : 0;
}

static int dump_as(struct dump *d, const struct kind *kind, bool json, FILE *out, struct verr *err)
{
    struct verr why = {0};
    char path[sizeof why.text];
    out_begin(&d->out, out, json);
    unsigned depth = d->out.depth;
    if (json)
        out_u64(&d->out, "schema", 1);
    out_text(&d->out, "file", d->path);
    out_text(&d->out, "kind", kind->name);
    out_u64(&d->out, "bytes", d->size);
    int r = kind->fn(d, &why);
    while (d->out.depth > depth)      /* the function gave up in the middle */
        out_end(&d->out);
    if (r < 0)
        out_text(&d->out, "error", verr_str(&why));
    int end = out_finish(&d->out);
    quote_line(d->path, path, sizeof path);     /* as it stands in why */
    if (r < 0)
        return strncmp(verr_str(&why), path, strlen(path)) == 0 ? verr_set(err, -r, "%s", verr_str(&why))
                                                                : verr_set(err, -r, "%s: %s", d->path, verr_str(&why));
    if (end == -ENOMEM)
        return verr_set(err, ENOMEM, "%s: out of memory", d->path);
    return end < 0 ? verr_set(err, EIO, "%s: the output cannot be written", d->path) : 0;
}

/* Nothing of the file was printed: its document is the refusal, so that the output of several files has one for each. */
static void print_refusal(struct dump *d, FILE *out, const struct verr *why)
{
    out_begin(&d->out, out, true);
    out_u64(&d->out, "schema", 1);
    out_text(&d->out, "file", d->path);
    out_text(&d->out, "error", verr_str(why));
    out_finish(&d->out);
}

int dump_file(const char *path, bool json, FILE *out, struct verr *err)
{
    struct dump d = { .path = path };
    int r = dump_open(&d, err);
    if (r == 0) {
        const struct kind *kind = recognise(&d);
        if (kind != NULL)
            r = dump_as(&d, kind, json, out, err);
        else
            r = verr_set(err, EBADMSG, "%s: begins with no magic of ours: not a file of varve, or damaged at its beginning", path);
    }
    if (r < 0 && json && d.out.file == NULL)
        print_refusal(&d, out, err);
    if (d.fd >= 0)
        close(d.fd);
    return r;
}
