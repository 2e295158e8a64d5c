/* SPDX-License-Identifier: Apache-2.0 */
/* Text that people and their programs give: store.conf, names of snapshots and their files, mount options, varve.conf, sizes. */
#include "fuzz.h"

#include "base/verr.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "format/storeconf.h"
#include "names/names.h"
#include "names/names_internal.h"
#include "store/store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

const char fuzz_family[] = "text";
static int conf_fd = -1;

void fuzz_setup(void)
{
    conf_fd = memfd_create("varve.conf", MFD_CLOEXEC);
    if (conf_fd < 0)
        abort();
}

/* A copy with an end, as such texts come to the parsers. */
static char *text_of(const uint8_t *p, size_t len)
{
    char *s = malloc(len + 1);
    if (s == NULL)
        abort();
    if (len > 0)
        memcpy(s, p, len);
    s[len] = '\0';
    return s;
}

static size_t lines(const char *const *v, unsigned n, unsigned i, uint8_t *out)
{
    if (i >= n)
        return 0;
    size_t len = strlen(v[i]);
    memcpy(out, v[i], len);
    return len;
}

/* ---- store.conf ---- */

static size_t conf_seed(unsigned i, uint8_t *out)
{
    struct store_conf c = {.id = fuzz_id(1), .version = STORE_VERSION, .fingerprint = STORECONF_SHA256, .block_bytes = 4096, .cdc = true,
                           .slots = 1, .partitions = 16, .created = 1790000000};
    memset(c.digest_key, 0x5a, sizeof c.digest_key);
    if (i == 1) {
        c.fingerprint = STORECONF_SHA1;
        c.cdc = false;
        c.slots = c.partitions = 4096;
        c.created = -1;
    }
    return i > 1 ? 0 : storeconf_encode(&c, (char *)out);
}

static void conf_mend(uint8_t *p, size_t len)
{
    enum { LINE = 12 + 16 + 1 };
    char text[32];
    if (len <= LINE)
        return;
    snprintf(text, sizeof text, "# checksum: %016llx\n", (unsigned long long)hash64(p, len - LINE));
    memcpy(p + len - LINE, text, LINE);
}

static bool conf_feed(const uint8_t *p, size_t len)
{
    struct store_conf c, again;
    char why[128] = "", text[STORECONF_MAX];
    if (storeconf_decode((const char *)p, len, &c, why) < 0) {
        FUZZ_CHECK(why[0] != '\0' && strnlen(why, sizeof why) < sizeof why);
        return false;
    }
    memset(&again, 0, sizeof again);
    size_t n = storeconf_encode(&c, text);
    FUZZ_CHECK(n > 0 && storeconf_decode(text, n, &again, why) == 0);
    FUZZ_CHECK(vid_eq(&c.id, &again.id) && c.block_bytes == again.block_bytes && c.slots == again.slots && c.partitions == again.partitions &&
               c.created == again.created && c.cdc == again.cdc && c.fingerprint == again.fingerprint &&
               memcmp(c.digest_key, again.digest_key, sizeof c.digest_key) == 0);
    return true;
}

/* ---- names of snapshots ---- */

static size_t snapname_seed(unsigned i, uint8_t *out)
{
    static const char *const v[] = {"disk@v1.img", "disk@20261125T194714Z.img", "a@b", ".img@x.2", "disk@v1.2"};
    return lines(v, sizeof v / sizeof v[0], i, out);
}

/* A name has one form only: what is taken apart and put together again is the same name. */
static bool snapname_feed(const uint8_t *p, size_t len)
{
    char *s = text_of(p, len), back[NODE_NAME_MAX + 1];
    struct snapname sn;
    int r = snapname_parse(s, &sn);
    FUZZ_CHECK(r == 1 || r == 0 || r == -EINVAL);
    FUZZ_CHECK(r != 0 || strchr(s, '@') == NULL);
    if (r == 1) {
        FUZZ_CHECK(snapname_make(sn.disk, sn.label, sn.name_s, back) == 0 && strcmp(back, s) == 0);
        FUZZ_CHECK(strchr(sn.disk, '@') == NULL && strchr(sn.disk, '/') == NULL && (sn.label[0] == '\0' || snapname_label_ok(sn.label)));
    }
    struct snapname whole;
    if (snapname_parse_whole(s, &whole) == 1)
        FUZZ_CHECK(snapname_make(whole.disk, whole.label, whole.name_s, back) == 0 && strcmp(back, s) == 0);
    if (names_check_disk_name(s) == 0)
        FUZZ_CHECK(s[0] != '\0' && strlen(s) <= 189 && snapname_make(s, "l", 0, back) == 0);
    free(s);
    return r == 1;
}

/* ---- names of files in STORE ---- */

static size_t snapfile_seed(unsigned i, uint8_t *out)
{
    struct vid id = fuzz_id(3);
    if (i > 0)
        return 0;
    store_snap_file(77, &id, "rcp", (char *)out);
    return strlen((const char *)out);
}

static bool snapfile_feed(const uint8_t *p, size_t len)
{
    char *s = text_of(p, len), back[SNAP_FILE_MAX];
    uint64_t seq;
    struct vid id;
    bool ok = store_snap_file_parse(s, "rcp", &seq, &id) == 0;
    if (ok) {
        store_snap_file(seq, &id, "rcp", back);
        FUZZ_CHECK(strcmp(back, s) == 0);
    }
    if (vid_parse(s, &id) == 0) {
        char hex[VID_HEX];
        vid_hex(&id, hex);
        FUZZ_CHECK(strcmp(hex, s) == 0);
    }
    free(s);
    return ok;
}

/* ---- mount options ---- */

static size_t options_seed(unsigned i, uint8_t *out)
{
    static const char *const v[] = {
        "rw,nosuid,state=/var/lib/varve,host=a,memory=64M,frame_cache=8M,cache_size=1G,layer_limit=0,threads=4,debug,sync_close=no,blocks=dense",
        "ro,config=/etc/varve.conf,_netdev,x-systemd.automount,sync_close", "",
    };
    return i == 2 ? 0 : lines(v, 2, i, out);
}

static bool options_feed(const uint8_t *p, size_t len)
{
    char *s = text_of(p, len), *config = options_find_config(s);
    struct mount_options o;
    struct verr err = {0};
    options_init(&o);
    int r = options_parse(&o, s, &err);
    FUZZ_CHECK(r == 0 || (r == -EINVAL && err.code == EINVAL && err.text[0] != '\0'));
    FUZZ_CHECK(o.state == NULL || o.state[0] == '/');
    FUZZ_CHECK(o.fs.threads <= 256);
    if (r == 0 && o.config != NULL)
        FUZZ_CHECK(config != NULL);
    options_release(&o);
    free(config);
    free(s);
    return r == 0;
}

/* ---- varve.conf ---- */

static size_t file_seed(unsigned i, uint8_t *out)
{
    static const char *const v[] = {
        "[mount]\nstate = /var/lib/varve\nmemory = 64M\n; a comment\nthreads=8\nblocks = real\n",
        "# nothing\n\n[mount]\nhost = h1\nsync_close = yes\ndebug = no\n",
        "[mount \"/srv/varve\"]\nthreads = 3\n[mount \"/other\"]\n  memory: 8 MiB\n[mount]\r\nblocks = dense ; dense\r\n",
    };
    return lines(v, 3, i, out);
}

static bool file_feed(const uint8_t *p, size_t len)
{
    struct mount_options o;
    struct verr err = {0};
    char path[64];
    if (ftruncate(conf_fd, 0) < 0 || pwrite(conf_fd, p, len, 0) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", conf_fd);
    options_init(&o);
    int r = options_load(&o, path, "/srv/varve", false, NULL, &err);
    FUZZ_CHECK(r == 0 || (r == -EINVAL && err.code == EINVAL && err.text[0] != '\0'));
    options_release(&o);
    return r == 0;
}

/* ---- sizes ---- */

static size_t size_seed(unsigned i, uint8_t *out)
{
    static const char *const v[] = {"35M", "2g", "1048576", "16777215T", "0", "7 KB", "3MiB", "9b"};
    return lines(v, sizeof v / sizeof v[0], i, out);
}

static bool size_feed(const uint8_t *p, size_t len)
{
    char *s = text_of(p, len), text[16];
    uint64_t n;
    bool ok = parse_size(s, &n) == 0;
    if (ok)
        format_size(n, text);
    free(s);
    return ok;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"store-conf", 0, 0, conf_seed, conf_mend, conf_feed},
    {"snapshot-name", 0, 0, snapname_seed, NULL, snapname_feed},
    {"recipe-name", 0, 0, snapfile_seed, NULL, snapfile_feed},
    {"mount-options", 0, 0, options_seed, NULL, options_feed},
    {"varve-conf", 0, 0, file_seed, NULL, file_feed},
    {"size", 0, 0, size_seed, NULL, size_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
