/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of a mount: defaults < varve.conf < -o. One table holds names and parsers; docs/man/varve.conf.5 explains them. */
#ifndef VARVE_CLI_OPTIONS_H
#define VARVE_CLI_OPTIONS_H

#include "agent/agent.h"
#include "fs/fs.h"

#include <stdio.h>

struct mount_options {
    struct agent_conf agent;
    struct fs_conf fs;
    char *state, *host, *config;        /* owned */
    bool debug;
};

void options_init(struct mount_options *o);
void options_release(struct mount_options *o);
/* Reads varve.conf: section [mount], then [mount "STORE"], whose settings win wherever they stand. store: the canonical path of the store
 * that is mounted, or NULL. missing_ok: an absent file is no error. -EINVAL: some lines are wrong, and `say` (may be NULL) got a line of
 * text for each. */
int options_load(struct mount_options *o, const char *file, const char *store, bool missing_ok, FILE *say, struct verr *err);
/* Sets a key of varve.conf. -ENOENT: there is no such key; -EINVAL: *accepts says what it takes; -ENOMEM. */
int options_set(struct mount_options *o, const char *key, const char *value, const char **accepts);
/* Comma-separated -o text. Options of mount(8) and fstab are swallowed; unknown ones of ours are named in err (-EINVAL). */
int options_parse(struct mount_options *o, const char *text, struct verr *err);
/* The value of config= in an -o text (malloc'ed), or NULL: it is read before the others apply. */
char *options_find_config(const char *text);

#endif
