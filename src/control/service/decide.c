/* SPDX-License-Identifier: Apache-2.0 */
/* The reconciler's decisions. */
#include "control/service/decide.h"

bool sandbox_row_is_over(const struct sandbox_row *row)
{
    if (row->status == SANDBOX_STOPPED)
        return row->reason == REASON_DESTROYED || row->reason == REASON_CLIENT_GONE;
    return row->status == SANDBOX_ERROR && row->reason == REASON_CREATE_FAILED;
}

bool reconcile_row_same(const struct sandbox_row *a, const struct sandbox_row *b)
{
    return a->status == b->status && a->reason == b->reason && a->revision == b->revision &&
           a->status_since_ms == b->status_since_ms;
}

enum reconcile_trust reconcile_trust(
    const struct reconcile_seen *before, const struct reconcile_seen *now)
{
    /* Its revisions are others, and the rows read before may be those of another host. */
    if (strcmp(before->host.text, now->host.text) != 0 || before->agent_epoch != now->agent_epoch)
        return TRUST_NAMED;
    return now->host_revision < before->host_revision ? TRUST_OUTDATED : TRUST_FULLY;
}

static bool is_lost(const struct sandbox_row *row)
{
    return row->status == SANDBOX_STOPPED && row->reason == REASON_LOST;
}

/* Its call ended and nobody knows how. */
static bool is_unsettled(const struct sandbox_row *row)
{
    return row->status == SANDBOX_PAUSING || row->status == SANDBOX_RESUMING;
}

/* Without a revision, only an answer that names everything is sure to be newer than the row. */
static enum reconcile_action decide_auto_paused(
    const struct reconcile_reply *reply, const struct sandbox_row *row)
{
    bool runs = row->status == SANDBOX_RUNNING || row->status == SANDBOX_PAUSING ||
                row->status == SANDBOX_RESUMING;
    return reply->complete && (runs || is_lost(row)) ? RECONCILE_PAUSED : RECONCILE_NOTHING;
}

static enum reconcile_action decide_reported(const struct reconcile_reply *reply,
    const struct sandbox_row *row, const struct reconcile_report *said)
{
    if (sandbox_row_is_over(row))
        return RECONCILE_DESTROY; /* also where a destroy has begun and something could not go */
    if (said->only_auto_paused)
        return decide_auto_paused(reply, row);
    if (row->status == SANDBOX_PENDING)
        return said->status == SANDBOX_PENDING ? RECONCILE_NOTHING : RECONCILE_APPLY;
    if (said->revision > row->revision)
        return RECONCILE_APPLY;
    /* Of a host that lost its power a transition may not have outlived it: its word, behind that of
     * the row, is the last there will be. */
    if (said->revision < row->revision)
        return is_unsettled(row) && said->row_is_older && reply->complete ? RECONCILE_APPLY
                                                                          : RECONCILE_NOTHING;
    if (is_unsettled(row))
        return said->row_is_older ? RECONCILE_APPLY : RECONCILE_NOTHING;
    return is_lost(row) ? RECONCILE_APPLY : RECONCILE_NOTHING;
}

static enum reconcile_action decide_absent(const struct sandbox_row *row)
{
    switch (row->status) {
    case SANDBOX_PENDING:
        return RECONCILE_FAIL;
    case SANDBOX_RUNNING:
    case SANDBOX_PAUSING:
    case SANDBOX_RESUMING:
        return RECONCILE_LOST;
    case SANDBOX_PAUSED: /* needs no host to be what it is */
    case SANDBOX_STOPPED:
    case SANDBOX_ERROR:
    case SANDBOX_STATUS_COUNT:
        break;
    }
    return RECONCILE_NOTHING;
}

enum reconcile_action reconcile_decide(const struct reconcile_reply *reply,
    const struct sandbox_row *row, const struct reconcile_report *said)
{
    if (strcmp(reply->cluster_id, reply->known_cluster_id) != 0)
        return RECONCILE_NOTHING;
    if (!row)
        return said ? RECONCILE_UNKNOWN : RECONCILE_NOTHING;
    if (strcmp(row->host.text, reply->host.text) != 0)
        return RECONCILE_NOTHING;
    if (said)
        return decide_reported(reply, row, said);
    return reply->complete ? decide_absent(row) : RECONCILE_NOTHING;
}
