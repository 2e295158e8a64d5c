/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include "base/verr.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- setters: 0, -EINVAL for a bad value, -ENOMEM ---- */

static int set_text(char **slot, const char *value)
{
    char *copy = strdup(value);
    if (copy == NULL)
        return -ENOMEM;
    free(*slot);
    *slot = copy;
    return 0;
}

static int set_bool(bool *slot, const char *value)
{
    if (value == NULL || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 || strcmp(value, "1") == 0)
        *slot = true;
    else if (strcmp(value, "no") == 0 || strcmp(value, "false") == 0 || strcmp(value, "0") == 0)
        *slot = false;
    else
        return -EINVAL;
    return 0;
}

static int set_state(struct mount_options *o, const char *v) { return v[0] == '/' ? set_text(&o->state, v) : -EINVAL; }
static int set_host(struct mount_options *o, const char *v) { return v[0] != '\0' && strlen(v) < 256 ? set_text(&o->host, v) : -EINVAL; }
static int set_config(struct mount_options *o, const char *v) { return set_text(&o->config, v); }
static int set_sync_close(struct mount_options *o, const char *v) { return set_bool(&o->fs.sync_close, v); }
static int set_debug(struct mount_options *o, const char *v) { return set_bool(&o->debug, v); }

static int set_blocks(struct mount_options *o, const char *v)
{
    if (strcmp(v, "real") != 0 && strcmp(v, "dense") != 0)
        return -EINVAL;
    o->fs.blocks_dense = v[0] == 'd';
    return 0;
}

/* Seconds, to the millisecond. */
static int set_settle(struct mount_options *o, const char *v)
{
    char *end;
    double s = strtod(v, &end);
    if (v[0] < '0' || v[0] > '9' || *end != '\0' || !(s <= 3600))
        return -EINVAL;
    o->fs.settle_ns = (int64_t)(s * 1000) * 1000000;
    return 0;
}

static int set_bytes(uint64_t *slot, const char *v, uint64_t min)
{
    uint64_t n;
    if (parse_size(v, &n) < 0 || n < min)
        return -EINVAL;
    *slot = n;
    return 0;
}

static int set_memory(struct mount_options *o, const char *v)
{
    uint64_t n;
    int r = set_bytes(&n, v, 2 << 20);
    if (r == 0)
        o->agent.memory = (size_t)n;
    return r;
}

static int set_frames(struct mount_options *o, const char *v)
{
    uint64_t n;
    int r = set_bytes(&n, v, 1 << 20);
    if (r == 0)
        o->agent.frame_cache = (size_t)n;
    return r;
}

static int set_cache(struct mount_options *o, const char *v) { return set_bytes(&o->agent.cache_limit, v, 0); }
static int set_layers(struct mount_options *o, const char *v) { return set_bytes(&o->agent.layer_limit, v, 0); }

static int set_threads(struct mount_options *o, const char *v)
{
    char *end;
    unsigned long n = strtoul(v, &end, 10);
    if (*v == '\0' || *end != '\0' || n < 1 || n > 256)
        return -EINVAL;
    o->fs.threads = (unsigned)n;
    return 0;
}

static int set_workers(struct mount_options *o, const char *v)
{
    char *end;
    unsigned long n = strtoul(v, &end, 10);
    if (*v == '\0' || *end != '\0' || n < 1 || n > 64)
        return -EINVAL;
    o->agent.workers = (unsigned)n;
    return 0;
}

static const struct setting {
    const char *name;
    int (*set)(struct mount_options *o, const char *value);
    bool flag;          /* may stand without a value */
    bool in_file;
    const char *accepts;
} settings[] = {
    {"state", set_state, false, true, "an absolute path"},
    {"host", set_host, false, true, "a name of up to 255 bytes"},
    {"config", set_config, false, false, "a path"},
    {"sync_close", set_sync_close, true, true, "yes or no"},
    {"settle", set_settle, false, true, "seconds, 0 to 3600"},
    {"blocks", set_blocks, false, true, "real or dense"},
    {"memory", set_memory, false, true, "a size of at least 2M, such as 64M"},
    {"frame_cache", set_frames, false, true, "a size of at least 1M, such as 64M"},
    {"cache_size", set_cache, false, true, "a size such as 8G; 0 for none"},
    {"layer_limit", set_layers, false, true, "a size such as 8G; 0 for no bound"},
    {"threads", set_threads, false, true, "1 to 256"},
    {"workers", set_workers, false, true, "1 to 64"},
    {"debug", set_debug, true, true, "yes or no"},
};

static const struct setting *find_setting(const char *name)
{
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

void options_init(struct mount_options *o)
{
    memset(o, 0, sizeof *o);
    agent_conf_default(&o->agent);
    o->fs.settle_ns = INT64_C(2) * 1000000000;
}

void options_release(struct mount_options *o)
{
    free(o->state);
    free(o->host);
    free(o->config);
}

int options_set(struct mount_options *o, const char *key, const char *value, const char **accepts)
{
    const struct setting *s = find_setting(key);
    if (s == NULL || !s->in_file)
        return -ENOENT;
    *accepts = s->accepts;
    return s->set(o, value);
}

/* ---- -o ---- */

/* Options that mount(8), fstab and systemd add: varve has no use for them, or sets them in any case. */
static bool swallowed(const char *name)
{
    static const char *const exact[] = {
        "_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "defaults", "rw", "dev", "nodev", "suid",
        "nosuid", "exec", "noexec", "async", "sync", "atime", "noatime", "relatime", "norelatime", "diratime", "nodiratime", "strictatime",
        "lazytime", "nolazytime", "allow_other", "default_permissions", "dirsync", "silent", "loud", "mand", "nomand",
    };
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++)
        if (strcmp(name, exact[i]) == 0)
            return true;
    return strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0 || strncmp(name, "comment=", 8) == 0 || name[0] == '\0';
}

static int parse_one(struct mount_options *o, char *word, struct verr *err)
{
    if (swallowed(word))
        return 0;
    if (strcmp(word, "ro") == 0) {
        o->fs.read_only = true;
        return 0;
    }
    char *value = strchr(word, '=');
    if (value != NULL)
        *value++ = '\0';
    const struct setting *s = find_setting(word);
    if (s == NULL)
        return verr_set(err, EINVAL, "unknown mount option \"%s\" (varve mount --help lists them)", word);
    if (value == NULL && !s->flag)
        return verr_set(err, EINVAL, "mount option %s needs a value: %s", word, s->accepts);
    int r = s->set(o, value);
    if (r == -EINVAL)
        return verr_set(err, EINVAL, "mount option %s=%s: give %s", word, value == NULL ? "" : value, s->accepts);
    return r < 0 ? verr_set(err, ENOMEM, "out of memory") : 0;
}

int options_parse(struct mount_options *o, const char *text, struct verr *err)
{
    char *copy = strdup(text), *rest = NULL;
    if (copy == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    int r = 0;
    for (char *word = strtok_r(copy, ",", &rest); word != NULL && r == 0; word = strtok_r(NULL, ",", &rest))
        r = parse_one(o, word, err);
    free(copy);
    return r;
}

char *options_find_config(const char *text)
{
    for (const char *p = text; p != NULL && *p != '\0';) {
        size_t n = strcspn(p, ",");
        if (strncmp(p, "config=", 7) == 0)
            return strndup(p + 7, n - 7);
        p += n + (p[n] == ',');
    }
    return NULL;
}
