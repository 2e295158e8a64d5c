/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.conf <-> struct store_conf. Parsed by hand and strictly: a wrong or forgotten key would make a store whose blocks
 * nobody finds again, so nothing is guessed, ignored or taken from a default.
 */
#include "format/storeconf.h"

#include "base/endian.h"
#include "base/hash.h"
#include "base/hex.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SLOTS_MAX = 4096, PARTITIONS_MAX = 4096, WHY_BYTES = 128, VALUE_MAX = STORECONF_VALUE - 1 };

static const char checksum_head[] = "# checksum: ";
enum { CHECKSUM_HEAD = sizeof checksum_head - 1, CHECKSUM_LINE = CHECKSUM_HEAD + 16 + 1 };

void storeconf_default(struct store_conf *c)
{
    *c = (struct store_conf){
        .id = vid_random(), .version = STORE_VERSION, .fingerprint = STORECONF_SHA256,
        .block_bytes = 4096, .cdc = true, .slots = 1, .partitions = 16,
    };
    random_bytes(c->digest_key, sizeof c->digest_key);
}

uint32_t storeconf_partition(const struct store_conf *c, const uint8_t *fp)
{
    unsigned bits = 0;
    for (uint64_t n = (uint64_t)c->slots * c->partitions; n > 1; n >>= 1)
        bits++;
    return bits == 0 ? 0 : (uint32_t)(get_be64(fp) >> (64 - bits));
}

/* ---- values ---- */

/* RFC 3339 where four digits hold the year, else plain seconds. */
static void created_text(int64_t seconds, char out[32])
{
    struct tm tm;
    time_t t = (time_t)seconds;
    if (seconds < 0 || seconds > INT64_C(253402300799) || gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(out, 32, "%" PRId64, seconds);
}

/* Decimal without sign, blanks or leading zeros. */
static bool number_get(const char *s, uint64_t *out)
{
    uint64_t v = 0;
    if (*s == '\0' || (s[0] == '0' && s[1] != '\0'))
        return false;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

/* The text must be what created_text would write for the same second: this refuses 30 February without a calendar here. */
static bool created_get(const char *s, int64_t *out)
{
    struct tm tm = {0};
    char again[32], end;
    uint64_t seconds;
    bool negative = s[0] == '-';
    /* NOLINTNEXTLINE(cert-err34-c): no number of that width is out of range */
    if (sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d%c", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) == 7) {
        tm.tm_year -= 1900;
        tm.tm_mon -= 1;
        int64_t t = timegm(&tm);
        created_text(t, again);
        if (strcmp(again, s) != 0)
            return false;
        *out = t;
        return true;
    }
    if (!number_get(s + negative, &seconds) || seconds > INT64_MAX || (negative && seconds == 0))
        return false;
    *out = negative ? -(int64_t)seconds : (int64_t)seconds;
    return true;
}

static bool version_set(struct store_conf *c, const char *v)
{
    uint64_t n;
    if (!number_get(v, &n) || n != STORE_VERSION)
        return false;
    c->version = (uint32_t)n;
    return true;
}

static bool id_set(struct store_conf *c, const char *v)
{
    return vid_parse(v, &c->id) == 0 && !vid_is_zero(&c->id);
}

static bool fingerprint_set(struct store_conf *c, const char *v)
{
    c->fingerprint = strcmp(v, "sha256") == 0 ? STORECONF_SHA256 : strcmp(v, "sha1") == 0 ? STORECONF_SHA1 : 0;
    return c->fingerprint != 0;
}

static bool block_set(struct store_conf *c, const char *v)
{
    uint64_t n;
    if (!number_get(v, &n) || (n != 4096 && n != 8192 && n != 16384))
        return false;
    c->block_bytes = (uint32_t)n;
    return true;
}

static bool chunking_set(struct store_conf *c, const char *v)
{
    c->cdc = strcmp(v, "cdc") == 0;
    return c->cdc || strcmp(v, "fixed") == 0;
}

static bool power_of_two(const char *v, uint32_t max, uint32_t *out)
{
    uint64_t n;
    if (!number_get(v, &n) || n < 1 || n > max || (n & (n - 1)) != 0)
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool slots_set(struct store_conf *c, const char *v) { return power_of_two(v, SLOTS_MAX, &c->slots); }
static bool partitions_set(struct store_conf *c, const char *v) { return power_of_two(v, PARTITIONS_MAX, &c->partitions); }
static bool created_set(struct store_conf *c, const char *v) { return created_get(v, &c->created); }

static bool key_set(struct store_conf *c, const char *v)
{
    return hex_bytes(v, c->digest_key, sizeof c->digest_key) == 0 && v[2 * sizeof c->digest_key] == '\0';
}

static void put_word(char out[STORECONF_VALUE], const char *word) { snprintf(out, STORECONF_VALUE, "%s", word); }
static void put_number(char out[STORECONF_VALUE], uint32_t n) { snprintf(out, STORECONF_VALUE, "%" PRIu32, n); }

static void version_get(const struct store_conf *c, char out[STORECONF_VALUE]) { put_number(out, c->version); }
static void id_get(const struct store_conf *c, char out[STORECONF_VALUE]) { vid_hex(&c->id, out); }
static void block_get(const struct store_conf *c, char out[STORECONF_VALUE]) { put_number(out, c->block_bytes); }
static void chunking_get(const struct store_conf *c, char out[STORECONF_VALUE]) { put_word(out, c->cdc ? "cdc" : "fixed"); }
static void slots_get(const struct store_conf *c, char out[STORECONF_VALUE]) { put_number(out, c->slots); }
static void partitions_get(const struct store_conf *c, char out[STORECONF_VALUE]) { put_number(out, c->partitions); }
static void key_get(const struct store_conf *c, char out[STORECONF_VALUE]) { hex_print(c->digest_key, sizeof c->digest_key, out); }
static void time_get(const struct store_conf *c, char out[STORECONF_VALUE]) { created_text(c->created, out); }

static void fingerprint_get(const struct store_conf *c, char out[STORECONF_VALUE])
{
    put_word(out, c->fingerprint == STORECONF_SHA256 ? "sha256" : c->fingerprint == STORECONF_SHA1 ? "sha1" : "");
}

/* All keys, in the order in which they are written: encoder, decoder and the options of init go by this table. */
static const struct conf_key {
    const char *name;
    bool (*set)(struct store_conf *c, const char *value);           /* may leave the field changed when it refuses */
    void (*get)(const struct store_conf *c, char out[STORECONF_VALUE]);
    const char *want;
    struct store_option option;     /* .name is NULL: nobody chooses it */
} keys[] = {
    {"version", version_set, version_get, "1", {0}},
    {"id", id_set, id_get, "32 hex digits, not all zero", {0}},
    {"fingerprint", fingerprint_set, fingerprint_get, "sha256 or sha1",
     {"fingerprint", "sha256|sha1", "sha1 only to study the paper", false}},
    {"block", block_set, block_get, "4096, 8192 or 16384", {"block", "4K|8K|16K", "average block size", true}},
    {"chunking", chunking_set, chunking_get, "cdc or fixed", {"chunking", "cdc|fixed", "content-defined blocks, or fixed ones", false}},
    {"slots", slots_set, slots_get, "a power of two from 1 to 4096", {0}},
    {"partitions", partitions_set, partitions_get, "a power of two from 1 to 4096",
     {"partitions", "N", "index partitions, a power of two", false}},
    {"digest-key", key_set, key_get, "64 hex digits", {0}},
    {"created", created_set, time_get, "YYYY-MM-DDTHH:MM:SSZ or seconds", {0}},
};
enum { KEYS = sizeof keys / sizeof keys[0] };

const struct store_option *storeconf_option(unsigned i)
{
    for (unsigned k = 0; k < KEYS; k++)
        if (keys[k].option.name != NULL && i-- == 0)
            return &keys[k].option;
    return NULL;
}

static const struct conf_key *key_named(const char *name, size_t len)
{
    for (unsigned k = 0; k < KEYS; k++)
        if (strlen(keys[k].name) == len && memcmp(keys[k].name, name, len) == 0)
            return &keys[k];
    return NULL;
}

void storeconf_get(const struct store_conf *c, const char *name, char out[STORECONF_VALUE])
{
    const struct conf_key *key = key_named(name, strlen(name));
    out[0] = '\0';
    if (key != NULL)
        key->get(c, out);
}

int storeconf_set(struct store_conf *c, const char *name, const char *value, const char **want)
{
    const struct conf_key *key = key_named(name, strlen(name));
    struct store_conf changed = *c;
    if (want != NULL)
        *want = key == NULL ? "nothing: there is no such key" : key->want;
    if (key == NULL || !key->set(&changed, value))
        return -EINVAL;
    *c = changed;
    return 0;
}

/* ---- text out ---- */

size_t storeconf_encode(const struct store_conf *c, char out[STORECONF_MAX])
{
    struct store_conf back = {0};
    int n = snprintf(out, STORECONF_MAX,
                     "# varve chunk store. Written once, read by every host; never edit it: each of these values decides\n"
                     "# how the data beside it are found and read. The last line is a checksum of all lines before it.\n"
                     "[store]\n");
    for (unsigned k = 0; k < KEYS; k++) {
        char value[STORECONF_VALUE];
        keys[k].get(c, value);
        if (!keys[k].set(&back, value))     /* nothing is written that decode would refuse */
            return 0;
        n += snprintf(out + n, STORECONF_MAX - (size_t)n, "%s = %s\n", keys[k].name, value);
        if (n + CHECKSUM_LINE >= STORECONF_MAX)
            return 0;
    }
    size_t len = (size_t)n;
    snprintf(out + len, STORECONF_MAX - len, "%s%016" PRIx64 "\n", checksum_head, hash64(out, len));
    return len + CHECKSUM_LINE;
}

/* ---- text in ---- */

static int __attribute__((format(printf, 2, 3))) bad(char *why, const char *fmt, ...)
{
    if (why != NULL) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(why, WHY_BYTES, fmt, ap);
        va_end(ap);
    }
    return -EBADMSG;
}

/* Text of a file as it may stand in an error message: cut, and without control characters. */
static const char *shown(const char *s, size_t n, char out[33])
{
    size_t len = n < 32 ? n : 32;
    for (size_t i = 0; i < len; i++)
        out[i] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    out[len] = '\0';
    return out;
}

struct line {
    const char *key, *value;    /* borrowed from the text; key == NULL: no "key = value" */
    size_t key_len, value_len;
    bool blank;                 /* empty or a comment */
};

static void trim(const char **s, size_t *n)
{
    while (*n > 0 && (**s == ' ' || **s == '\t'))
        (*s)++, (*n)--;
    while (*n > 0 && ((*s)[*n - 1] == ' ' || (*s)[*n - 1] == '\t'))
        (*n)--;
}

/* Takes the next line off text (each ends in a newline). false at the end. */
static bool next_line(const char **text, size_t *len, const char **raw, size_t *raw_len, struct line *out)
{
    const char *nl = *len == 0 ? NULL : memchr(*text, '\n', *len);
    if (nl == NULL)
        return false;
    *raw = *text;
    *raw_len = (size_t)(nl - *text);
    *len -= *raw_len + 1;
    *text = nl + 1;
    trim(raw, raw_len);
    *out = (struct line){.blank = *raw_len == 0 || **raw == '#' || **raw == ';'};
    const char *eq = out->blank || **raw == '[' ? NULL : memchr(*raw, '=', *raw_len);
    if (eq != NULL) {
        out->key = *raw;
        out->key_len = (size_t)(eq - *raw);
        out->value = eq + 1;
        out->value_len = *raw_len - out->key_len - 1;
        trim(&out->key, &out->key_len);
        trim(&out->value, &out->value_len);
    }
    return true;
}

/* Length of what stands before the checksum line, or -EBADMSG. */
static int body_len(const char *text, size_t len, size_t *body, char *why)
{
    if (len == 0 || len >= STORECONF_MAX)
        return bad(why, "file is empty or longer than %d bytes", STORECONF_MAX - 1);
    if (len < CHECKSUM_LINE || text[len - 1] != '\n' || memcmp(text + len - CHECKSUM_LINE, checksum_head, CHECKSUM_HEAD) != 0)
        return bad(why, "no checksum line at the end (torn or edited?)");
    size_t n = len - CHECKSUM_LINE;
    char want[17];
    snprintf(want, sizeof want, "%016" PRIx64, hash64(text, n));
    if ((n > 0 && text[n - 1] != '\n') || memcmp(text + n + CHECKSUM_HEAD, want, 16) != 0)
        return bad(why, "checksum is wrong (damaged or edited?)");
    *body = n;
    return 0;
}

/* A newer version may have other keys, so it must be recognised before any of them is looked at. */
static bool is_newer(const char *text, size_t len)
{
    struct line l;
    const char *raw;
    size_t raw_len;
    while (next_line(&text, &len, &raw, &raw_len, &l)) {
        char value[VALUE_MAX + 1];
        uint64_t n;
        if (l.key == NULL || l.key_len != 7 || memcmp(l.key, "version", 7) != 0 || l.value_len > VALUE_MAX)
            continue;
        memcpy(value, l.value, l.value_len);
        value[l.value_len] = '\0';
        return number_get(value, &n) && n > STORE_VERSION;
    }
    return false;
}

static int take_key(struct store_conf *c, const struct line *l, unsigned number, unsigned *seen, char *why)
{
    char word[33], value[STORECONF_VALUE];
    const struct conf_key *key = key_named(l->key, l->key_len);
    if (key == NULL)
        return bad(why, "line %u: unknown key '%s'", number, shown(l->key, l->key_len, word));
    unsigned bit = 1u << (key - keys);
    if (*seen & bit)
        return bad(why, "line %u: key '%s' stands twice", number, key->name);
    *seen |= bit;
    bool fits = l->value_len <= VALUE_MAX && memchr(l->value, '\0', l->value_len) == NULL;
    if (fits) {
        memcpy(value, l->value, l->value_len);
        value[l->value_len] = '\0';
    }
    if (!fits || !key->set(c, value))
        return bad(why, "line %u: %s must be %s, not '%s'", number, key->name, key->want, shown(l->value, l->value_len, word));
    return 0;
}

int storeconf_decode(const char *text, size_t len, struct store_conf *out, char why[128])
{
    size_t body = 0;
    int r = body_len(text, len, &body, why);
    if (r < 0)
        return r;
    if (is_newer(text, body)) {
        bad(why, "made by a newer version of varve");
        return -ENOTSUP;
    }
    struct store_conf c = {0};
    struct line l;
    const char *raw;
    char word[33];
    size_t raw_len;
    unsigned seen = 0, number = 0;
    bool in_section = false;
    while (next_line(&text, &body, &raw, &raw_len, &l)) {
        number++;
        if (l.blank)
            continue;
        if (!in_section && raw_len == 7 && memcmp(raw, "[store]", 7) == 0) {
            in_section = true;
            continue;
        }
        if (*raw == '[')
            return bad(why, "line %u: unexpected section '%s'", number, shown(raw, raw_len, word));
        if (l.key == NULL || !in_section)
            return bad(why, "line %u: expected %s, not '%s'", number, in_section ? "key = value" : "[store]", shown(raw, raw_len, word));
        r = take_key(&c, &l, number, &seen, why);
        if (r < 0)
            return r;
    }
    for (unsigned k = 0; k < KEYS; k++) {
        if (!(seen & 1u << k))
            return bad(why, "key '%s' is missing", keys[k].name);
    }
    *out = c;
    return 0;
}
