/* SPDX-License-Identifier: Apache-2.0 */
/* RPC handlers of what puts sandboxes to sleep and wakes them. */
#define LOG_MODULE "rpc"
#include "agent/rpc_int.h"

#include "agent/life/phases.h"
#include "agent/life/snapshots.h"
#include "base/log.h"

static int take_change(struct slice id, struct slice request_id, uint64_t expected_revision,
    struct life_change *ret, struct err *e)
{
    *ret = (struct life_change){.request_id = request_id, .expected_revision = expected_revision};
    if (rpc_take_sandbox_id(id, &ret->id, e) < 0)
        return -1;
    log_context_set(log_context_request_id(), ret->id.text);
    return 0;
}

static int list_phases(
    struct arena *a, const struct phases *phases, struct rpc_list *ret, struct err *e)
{
    struct rpc_lister l = {.arena = a, .list = ret, .item_size = sizeof(struct agent_phase *)};
    for (size_t i = 0; i < phases->n; i++) {
        struct agent_phase *m = arena_alloc(a, sizeof *m);
        struct agent_phase **at = m ? rpc_lister_add(&l) : NULL;
        if (!at)
            return rpc_no_memory(e);
        *m = (struct agent_phase){
            .name = slice_cstr(phases->items[i].name), .duration_us = phases->items[i].us};
        *at = m;
    }
    return 0;
}

int rpc_pause_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_pause_request *r = req;
    struct agent_pause_response *out = resp;
    struct life_change c;
    struct life_info info;
    struct phases phases;
    if (take_change(r->sandbox_id, r->request_id, r->expected_revision, &c, e) < 0 ||
        life_pause(call->ctx, &c, &info, &phases, e) < 0)
        return -1;
    out->sandbox = rpc_sandbox_message(call->arena, &info);
    return out->sandbox ? list_phases(call->arena, &phases, &out->phases, e) : rpc_no_memory(e);
}

static int take_resume(const struct agent_resume_request *r, struct life_resume *ret, struct err *e)
{
    *ret =
        (struct life_resume){.has_timeout_sec = r->has_timeout_sec, .timeout_sec = r->timeout_sec};
    if (r->from.n > 0 && !slice_is(r->from, "last_generation"))
        return err_field(e, "from", "must be last_generation or nothing");
    if (r->mode.n > 0 && !slice_is(r->mode, "disk"))
        return err_field(e, "mode", "must be disk or nothing");
    ret->from_last = r->from.n > 0;
    ret->disk_only = r->mode.n > 0;
    return take_change(r->sandbox_id, r->request_id, r->expected_revision, &ret->change, e);
}

int rpc_resume_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_resume_request *r = req;
    struct agent_resume_response *out = resp;
    struct life_resume resume;
    struct life_info info;
    struct phases phases;
    if (take_resume(r, &resume, e) < 0 || life_resume(call->ctx, &resume, &info, &phases, e) < 0)
        return -1;
    out->sandbox = rpc_sandbox_message(call->arena, &info);
    return out->sandbox ? list_phases(call->arena, &phases, &out->phases, e) : rpc_no_memory(e);
}

static int take_snapshot_id(struct slice text, struct template_id *ret, struct err *e)
{
    return template_id_parse(text, ret) ? 0 : err_field(e, "snapshot_id", "not a template's id");
}

static struct agent_snapshot_info *snapshot_message(struct arena *a, const struct snapshot *s)
{
    struct agent_snapshot_info *m = arena_alloc(a, sizeof *m);
    char generation[UUID_TEXT + 1];
    if (!m)
        return NULL;
    uuid_format(&s->generation, generation);
    *m = (struct agent_snapshot_info){.snapshot_id = rpc_copy(a, s->id.text),
        .generation_id = rpc_copy(a, generation),
        .vcpus = s->vcpus,
        .memory_mb = s->memory_mb,
        .size_bytes = s->size_bytes,
        .default_user = rpc_copy(a, s->default_user),
        .created_at_ms = s->created_at_ms};
    return m;
}

int rpc_create_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_create_snapshot_request *r = req;
    struct agent_create_snapshot_response *out = resp;
    struct life_change c;
    struct template_id id;
    struct snapshot snapshot;
    struct life_info info;
    struct phases phases;
    if (take_snapshot_id(r->snapshot_id, &id, e) < 0 ||
        take_change(r->sandbox_id, r->request_id, r->expected_revision, &c, e) < 0 ||
        life_snapshot(call->ctx, &c, &id, &snapshot, &info, &phases, e) < 0)
        return -1;
    out->snapshot = snapshot_message(call->arena, &snapshot);
    out->sandbox = rpc_sandbox_message(call->arena, &info);
    return out->snapshot && out->sandbox ? list_phases(call->arena, &phases, &out->phases, e)
                                         : rpc_no_memory(e);
}

int rpc_delete_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct agent_delete_snapshot_request *r = req;
    struct template_id id;
    (void)resp;
    if (take_snapshot_id(r->snapshot_id, &id, e) < 0)
        return -1;
    return life_snapshot_delete(call->ctx, &id, e);
}

static void list_histogram(void *ctx, const struct histogram *h)
{
    struct rpc_lister *l = ctx;
    struct agent_histogram *m = arena_alloc(l->arena, sizeof *m);
    uint64_t *buckets = arena_alloc(l->arena, sizeof h->buckets);
    struct agent_histogram **at = m && buckets ? rpc_lister_add(l) : NULL;
    if (!at) {
        l->failed = true;
        return;
    }
    memcpy(buckets, h->buckets, sizeof h->buckets);
    *m = (struct agent_histogram){.name = slice_cstr(h->operation),
        .phase = slice_cstr(h->phase),
        .buckets = {.items = buckets, .n = HISTOGRAM_BUCKETS},
        .sum_us = h->sum_us,
        .count = h->count};
    *at = m;
}

int rpc_list_histograms(struct rpc_call *call, struct agent_list_response *out, struct err *e)
{
    struct rpc_lister l = {.arena = call->arena,
        .list = &out->histograms,
        .item_size = sizeof(struct agent_histogram *)};
    life_histograms(call->ctx, list_histogram, &l);
    return l.failed ? rpc_no_memory(e) : 0;
}
