/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent's last answer said about the host itself: who it is, its templates, its room. */
#ifndef TORPOR_CONTROL_SERVICE_CATALOG_H
#define TORPOR_CONTROL_SERVICE_CATALOG_H

#include <pthread.h>

#include "control/service/service.h"
#include "rpc/agent_v1.h"

enum { CATALOG_MAX = 64 };

struct catalog_template {
    char name[LIMIT_NAME_MAX + 1];
    char default_user[TEMPLATE_USER_MAX + 1];
    int64_t size_bytes;
    int64_t created_at_ms;
    bool building;
};

struct catalog {
    pthread_mutex_t mutex;
    struct host_id host; /* empty: never heard of it */
    struct catalog_template templates[CATALOG_MAX];
    size_t n_templates;
    bool has_capacity;
    struct agent_capacity capacity;
    struct phase_histogram histograms[HISTOGRAMS_MAX];
    size_t n_histograms;
    int64_t seen_mono_ms;                       /* when it answered last */
    int64_t asked_mono_ms;                      /* when that answer was asked for */
    bool up;                                    /* the last look at it worked */
    char unknown[UNKNOWN_MAX][ID_TEXT_MAX + 1]; /* on the host, not in the database */
    size_t n_unknown;                           /* may be more than are named */
};

void catalog_init(struct catalog *c);
void catalog_done(struct catalog *c);
/* Takes over an answer that was asked for at `asked_mono_ms`, unless a newer one was taken. */
void catalog_fill(struct catalog *c, const struct host_id *host,
    const struct agent_list_response *said, int64_t asked_mono_ms);
/* The look at the agent failed. */
void catalog_note_down(struct catalog *c);
/* Finds a template; false when there is none of that name. */
bool catalog_find(struct catalog *c, struct slice name, struct catalog_template *ret);
/* Copies all; `dst` has CATALOG_MAX. Returns how many. */
size_t catalog_copy(struct catalog *c, struct catalog_template *dst);
/* A full look found exactly the `n` unknown ones; the first UNKNOWN_MAX of them are named. */
void catalog_set_unknown(struct catalog *c, char (*ids)[ID_TEXT_MAX + 1], size_t n);
/* A look at changes found one more, if it is one more. */
void catalog_add_unknown(struct catalog *c, const char *id);

#endif
