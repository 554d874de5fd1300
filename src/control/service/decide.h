/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reconciler does about one sandbox: pure functions of what the database and the host say.
 *
 * Absence is not evidence: only a full reply to a question for everything, from the host (and the
 * cluster) that the row names, can make a sandbox `lost`, and a later report takes that back. Only
 * a row that is over destroys anything; what the database does not know is reported and left alone.
 * A create whose control plane died is kept when the host has it: a row that says "pending" may as
 * well come from an old copy of the database, and what it names may have been in use for long.
 */
#ifndef TORPOR_CONTROL_SERVICE_DECIDE_H
#define TORPOR_CONTROL_SERVICE_DECIDE_H

#include "control/store/rows.h"

enum reconcile_action {
    RECONCILE_NOTHING,
    RECONCILE_APPLY,   /* the host's state goes into the row */
    RECONCILE_PAUSED,  /* auto-paused, no more is said: the row becomes paused, reason idle */
    RECONCILE_LOST,    /* the row becomes stopped, reason lost */
    RECONCILE_FAIL,    /* a create that died on the way: the row becomes error, create_failed */
    RECONCILE_DESTROY, /* the row is over, the host still has it: destroyed on the host */
    RECONCILE_UNKNOWN, /* the host has it, the database has not: reported */
    RECONCILE_ACTION_COUNT
};

/* Who answered, and how much the answer says. */
struct reconcile_reply {
    struct host_id host;
    const char *cluster_id;
    const char *known_cluster_id; /* of that host in the database */
    bool complete;                /* everything was asked for, and the host left nothing out */
};

/* Who was heard, and how far: of the last reply, and of this one. */
struct reconcile_seen {
    struct host_id host;
    uint64_t agent_epoch;
    uint64_t host_revision;
};
enum reconcile_trust {
    TRUST_FULLY,   /* what the reply leaves out is not there, if everything was asked for */
    TRUST_NAMED,   /* another host or a new life of the agent: only what it names counts */
    TRUST_OUTDATED /* older than what was heard before: likewise, and everything is asked for */
};
enum reconcile_trust reconcile_trust(
    const struct reconcile_seen *before, const struct reconcile_seen *now);

/* What the host says of one sandbox. */
struct reconcile_report {
    enum sandbox_status status;
    enum sandbox_reason reason;
    uint64_t revision;
    bool row_is_older;     /* the row was as it is before the question was asked */
    bool only_auto_paused; /* named among the auto-paused and nowhere else: the rest is unset */
};

/* A row that says `pausing` or `resuming` is one whose call ended without an answer: what the host
 * says of it counts, also where nothing has happened there since; but then only if the row was
 * older than the question.
 *
 * `row` NULL: the database has none. `said` NULL: the reply does not name the sandbox. A
 * transition under way must not be judged: the caller holds the sandbox's lock. */
enum reconcile_action reconcile_decide(const struct reconcile_reply *reply,
    const struct sandbox_row *row, const struct reconcile_report *said);

/* True when nothing of the row's state has changed between two readings. */
bool reconcile_row_same(const struct sandbox_row *a, const struct sandbox_row *b);

/* True for states that nothing leaves: destroyed, client_gone, create_failed. */
bool sandbox_row_is_over(const struct sandbox_row *row);

#endif
