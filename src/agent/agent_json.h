/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of JSON that status and history have in common. */
#ifndef VARVE_AGENT_AGENT_JSON_H
#define VARVE_AGENT_AGENT_JSON_H

#include "agent/agent_internal.h"
#include "base/vjson.h"

json_t *agent_levels_json(const struct snap_levels *l);
json_t *agent_flags_json(uint32_t flags);
const char *agent_state_text(uint32_t state);
struct process_memory { uint64_t rss, rss_anon, rss_peak; };
void agent_memory(struct process_memory *m);
/* RFC 3339, UTC, in seconds. */
void agent_time_text(int64_t ns, char out[32]);
/* The same for a time of the monotonic clock. */
void agent_mono_text(struct agent *a, int64_t mono_ns, char out[32]);
/* Items whose last attempt failed, in order of their disks. v is malloc'ed. */
struct agent_failures { struct work_failure *v; unsigned n; };
int agent_failures(struct agent *a, struct agent_failures *out, struct verr *err);
/* What failed, why, when, and when it is tried again. */
json_t *agent_failure_json(struct agent *a, const struct work_failure *f);
/* A store that was put back from an older copy: {"found": time, "lost_disks": number} and, with paths, "disks": [{"path", "segments",
 * "lost_segments"}]; null: it was not, or all is mended. For health: lost_disks > 0 is critical. */
json_t *agent_lost_json(struct agent *a, bool paths);
/* What a check of health asks beside the disks: {"room", "damaged_reads": {"count", "last"}, "last_verify": {"time", "age_seconds",
 * "damaged", "snapshots"} or null, "store_made", "store_age_seconds", "put_back" (agent_lost_json without paths)}. */
json_t *agent_condition_json(struct agent *a);
/* Takes doc over (NULL: -ENOMEM). *text: malloc'ed, ends in a newline. */
int agent_json_text(json_t *doc, char **text, size_t *len, struct verr *err);

#endif
