/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/sandboxes/{id}/pause and /resume. */
#include "control/api/body.h"

struct resume_body {
    struct slice from;
    struct slice mode;
};

static const char from_allowed[] = "last_generation";
static const char mode_allowed[] = "disk";

static bool check_from(struct slice s)
{
    return slice_is(s, from_allowed);
}

static bool check_mode(struct slice s)
{
    return slice_is(s, mode_allowed);
}

static const struct body_field resume_fields[] = {
    {.name = "from",
        .kind = BODY_STRING,
        .offset = offsetof(struct resume_body, from),
        .valid = check_from,
        .allowed = from_allowed},
    {.name = "mode",
        .kind = BODY_STRING,
        .offset = offsetof(struct resume_body, mode),
        .valid = check_mode,
        .allowed = mode_allowed},
};

int sandbox_pause(struct call *c, struct err *e)
{
    struct slept slept = {0};
    if (service_pause(c->service, &c->who, &c->id, c->arena, &slept, e) < 0)
        return -1;
    reply_phases(c, &slept.phases);
    return reply_sandbox(c, HTTP_OK, &slept.row, e);
}

int sandbox_resume(struct call *c, struct err *e)
{
    struct resume_body b = {.from = {0}};
    struct resume_params p;
    struct slept slept = {0};
    if (body_read_optional(c, resume_fields, ARRAY_LEN(resume_fields), &b, e) < 0)
        return -1;
    p = (struct resume_params){.last_generation = b.from.n > 0, .disk_only = b.mode.n > 0};
    if (service_resume(c->service, &c->who, &c->id, &p, c->arena, &slept, e) < 0)
        return -1;
    reply_phases(c, &slept.phases);
    return reply_sandbox(c, HTTP_OK, &slept.row, e);
}
