/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and deleting snapshots.
 *
 * Theory of operation
 * Before the host is asked for a snapshot, its id goes among the removals of the database, due when
 * the call can no longer be under way. When the snapshot is there, one transaction takes it from
 * the removals, makes the row of the template, and puts the one that it replaces among them. So
 * whatever dies on whichever line, there is never a template without bytes, and bytes without a
 * template are among the removals, which discard.c works off. A lost answer needs no settling: what
 * nobody was told of is removed.
 */
#include "control/service/service_int.h"

#include <stdio.h>

#define LOG_MODULE "service"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"

enum {
    SNAPSHOT_MS = 300000, /* as long as a pause */
    INFO_ARENA_BYTES = 64 * 1024,
    NAME_RANDOM_CHARS = 8,
};
static const char name_prefix[] = "template-";

/* Base templates have their names in every team, also before the host has built them. */
static int check_name_free(
    struct service *s, const struct principal *who, const struct snapshot_params *p, struct err *e)
{
    struct template_row row;
    bool is_base = false;
    if (service_is_base(s, p->name, &is_base, e) < 0)
        return -1;
    if (is_base && p->overwrite)
        return err_set(e, ERR_FORBIDDEN, "base templates cannot be overwritten");
    if (is_base ||
        (!p->overwrite && s->store->ops->template_get(s->store, &who->team, p->name, &row, e) == 0))
        return err_set(
            e, ERR_EXISTS, "there is a template %.*s already", (int)p->name.n, p->name.p);
    if (!p->overwrite && e->kind != ERR_NOT_FOUND)
        return -1;
    *e = (struct err){0};
    return 0;
}

static bool is_generation_id(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f') ||
                s.p[i] == '-'))
            return false;
    return s.n <= GENERATION_ID_MAX;
}

/* What the host says of a snapshot goes into its row. */
static int take_info(
    const struct agent_snapshot_info *info, struct template_row *row, struct err *e)
{
    if (!info || !slice_is(info->snapshot_id, row->id.text) ||
        !is_generation_id(info->generation_id) || info->vcpus < 1 || info->memory_mb < 1 ||
        !slice_copy_cstr(info->default_user, row->default_user, sizeof row->default_user))
        return err_set(e, ERR_AGENT, "the agent's answer is no snapshot");
    (void)slice_copy_cstr(info->generation_id, row->generation, sizeof row->generation);
    row->vcpus = info->vcpus;
    row->memory_mb = info->memory_mb;
    row->size_bytes = info->size_bytes > 0 ? info->size_bytes : 0;
    return 0;
}

/* The sandbox may have another revision after a snapshot. What is lost here, the next look at the
 * host finds. */
static void take_sandbox(
    struct service *s, const struct sandbox_row *row, const struct agent_sandbox_info *info)
{
    char message[ERR_MSG_MAX];
    char host_ip[HOST_IP_MAX + 1];
    struct sandbox_change change;
    struct err e = {0};
    if (!info || info->revision <= row->revision ||
        !service_change_from_info(info, &change, message, host_ip))
        return;
    if (s->store->ops->sandbox_change(s->store, &row->id, &change, &e) < 0)
        log_warn("the sandbox is not updated error=\"%s\"", e.msg);
    lock_note_change(&s->locks);
}

static int ask_host(struct service *s, const struct sandbox_row *box, struct template_row *row,
    struct phase_list *phases, struct err *e)
{
    CLEANUP(arena_done) struct arena arena = {0};
    char call_id[CALL_ID_MAX + 1];
    struct agent_create_snapshot_response resp = {0};
    struct agent_create_snapshot_request req = {
        .sandbox_id = slice_cstr(box->id.text),
        .snapshot_id = slice_cstr(row->id.text),
        .request_id = {call_id, CALL_ID_MAX},
    };
    arena_init(&arena, INFO_ARENA_BYTES);
    call_id_new(call_id);
    if (agent_call(s->agent, AGENT_CREATE_SNAPSHOT, &req, &resp, &arena, SNAPSHOT_MS, e) < 0)
        return -1;
    service_take_phases(&resp.phases, phases);
    take_sandbox(s, box, resp.sandbox);
    return take_info(resp.snapshot, row, e);
}

/* The host has answered, so what it may have made is removed at once. */
static void give_up(struct service *s, const struct template_id *id)
{
    struct err e = {0};
    if (s->store->ops->removal_delay(s->store, id, 0, &e) < 0)
        log_warn("a snapshot is removed late template_id=%s error=\"%s\"", id->text, e.msg);
    discarder_kick(&s->discarder);
}

static int make_snapshot(struct service *s, const struct sandbox_row *box, struct template_row *row,
    const struct snapshot_params *p, struct phase_list *phases, struct err *e)
{
    const struct snapshot_removal removal = {
        .id = row->id,
        .host = row->host,
        .not_before_ms = row->created_at_ms + s->config.snapshot_doubt_ms,
    };
    if (s->store->ops->snapshot_begin(s->store, &removal, e) < 0)
        return -1;
    if (ask_host(s, box, row, phases, e) < 0) {
        if (service_host_refused(e))
            give_up(s, &row->id);
        return e->kind == ERR_NOT_FOUND
                   ? err_set(e, ERR_UNAVAILABLE, "the host does not know the sandbox")
                   : -1;
    }
    if (s->store->ops->snapshot_commit(s->store, row, p->overwrite, e) < 0) {
        give_up(s, &row->id);
        return -1;
    }
    if (p->overwrite)
        discarder_kick(&s->discarder);
    log_info(
        "snapshot made template_id=%s name=%s team=%s", row->id.text, row->name, row->team.text);
    return 0;
}

static int check_sleepable(const struct sandbox_row *row, struct err *e)
{
    return row->status == SANDBOX_RUNNING || row->status == SANDBOX_PAUSED
               ? 0
               : service_bad_state(row, "running or paused", e);
}

static void fill_row(const struct principal *who, const struct sandbox_row *box,
    const struct snapshot_params *p, struct template_row *ret)
{
    *ret = (struct template_row){
        .team = who->team,
        .host = box->host,
        .created_at_ms = clock_real_ms(),
    };
    template_id_new(&ret->id);
    if (p->name.n > 0) {
        (void)slice_copy_cstr(p->name, ret->name, sizeof ret->name);
        return;
    }
    memcpy(ret->name, name_prefix, sizeof name_prefix);
    rand_base32(ret->name + sizeof name_prefix - 1, NAME_RANDOM_CHARS);
    ret->name[sizeof name_prefix - 1 + NAME_RANDOM_CHARS] = '\0';
}

int service_snapshot_create(struct service *s, const struct principal *who,
    const struct snapshot_params *p, struct snapshot_made *ret, struct err *e)
{
    struct sandbox_row box;
    struct template_row row;
    AUTO_LOCK lock = {0};
    if (p->name.n > 0 && check_name_free(s, who, p, e) < 0)
        return -1;
    if (service_lock_settled(s, who, &p->sandbox, &lock, &box, e) < 0 ||
        check_sleepable(&box, e) < 0 || service_check_host(s, &box, e) < 0)
        return -1;
    fill_row(who, &box, p, &row);
    if (make_snapshot(s, &box, &row, p, &ret->phases, e) < 0)
        return -1;
    service_entry_from_row(&row, &ret->entry);
    return 0;
}

int service_snapshot_delete(
    struct service *s, const struct principal *who, struct slice name_or_id, struct err *e)
{
    bool is_base = false;
    if (service_is_base(s, name_or_id, &is_base, e) < 0)
        return -1;
    if (is_base)
        return err_set(e, ERR_FORBIDDEN, "base templates cannot be deleted");
    if (s->store->ops->snapshot_delete(s->store, &who->team, name_or_id, e) < 0)
        return -1;
    log_info("snapshot deleted name=%.*s team=%s", (int)name_or_id.n, name_or_id.p, who->team.text);
    discarder_kick(&s->discarder);
    return 0;
}
