/* SPDX-License-Identifier: Apache-2.0 */
/* torpor snapshot create, ls, rm. */
#include <stdio.h>

#include "base/cleanup.h"
#include "cli/body.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/sandbox.h"
#include "cli/template.h"
#include "cli/timing.h"

enum {
    SNAPSHOT_TIMEOUT_MS = 360000, /* over the server's own bound for the host, 5 minutes */
    BODY_MAX = 1024,
};

static int check_name(struct cli *c, const char *name, struct err *e)
{
    return template_name_valid(slice_cstr(name))
               ? 0
               : cli_usage_error(c, e,
                     "'%.80s': a name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or "
                     "digit",
                     name);
}

/* --- create --- */

static int write_create(
    const char *name, const struct sandbox_id *id, struct buf *body, struct err *e)
{
    struct json_writer w;
    json_writer_init(&w, body);
    json_object_begin(&w);
    body_write_text(&w, "sandbox_id", id->text);
    body_write_text(&w, "name", name);
    json_object_end(&w);
    return body->failed ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

static int call_create(
    struct cli *c, struct api *api, const struct args *a, struct api_answer *answer, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(BODY_MAX);
    struct progress progress;
    struct sandbox_id id;
    int rc;
    if (sandbox_find(api, a->operands[0], &id, e) < 0 ||
        write_create(args_value(a, "name"), &id, &body, e) < 0)
        return -1;
    progress_start(&progress, c, "making a snapshot");
    api->progress = &progress;
    rc = api_call(api,
        &(struct api_call){.method = "POST",
            .target = args_flag(a, "overwrite") ? "/v1/snapshots?overwrite=true" : "/v1/snapshots",
            .json = buf_slice(&body),
            .timeout_ms = SNAPSHOT_TIMEOUT_MS},
        answer, e);
    progress_end(&progress);
    return rc;
}

static int run_create(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    const char *name = args_value(a, "name");
    const char *form = args_value(a, "output");
    if ((name && check_name(c, name, e) < 0) || api_open(&api, e) < 0 ||
        call_create(c, &api, a, &answer, e) < 0)
        return -1;
    if (form && strcmp(form, "json") == 0)
        output_json(c->out, answer.json);
    else
        (void)fprintf(c->out, "%s", api_text(&answer, answer.json, "name"));
    (void)fprintf(c->out, "\n");
    if (args_flag(a, "verbose"))
        timing_print(c, answer.server_timing);
    return EXIT_OK;
}

static const struct cli_option create_options[] = {
    {.name = "name", .value = "NAME", .help = "default template- and 8 characters"},
    {.name = "overwrite", .help = "take the place of the snapshot that has the name"},
    {.name = "output",
        .letter = 'o',
        .value = "FORM",
        .choices = "id json",
        .help = "id (default), its name, or json, all about it"},
    TIMING_OPTION, {0}};

const struct cli_command command_snapshot_create = {.name = "snapshot create",
    .arguments = "ID",
    .summary = "make a template of a sandbox, as it is now",
    .about =
        "Freezes a running sandbox for a moment, or takes a paused one, and makes a template of "
        "it, which\ntorpor create -t NAME spawns running sandboxes from. Prints its name.",
    .example = "torpor snapshot create sbq3 --name ready-to-go",
    .options = create_options,
    .words = "@sandbox",
    .args_min = 1,
    .args_max = 1,
    .run = run_create};

/* --- ls --- */

static int run_ls(struct cli *c, const struct args *a, struct err *e)
{
    return template_list(c, a, "snapshot", e);
}

static const struct cli_option ls_options[] = {OUTPUT_OPTION, {0}};

const struct cli_command command_snapshot_ls = {.name = "snapshot ls",
    .arguments = "",
    .summary = "list snapshots, newest first",
    .about = "Lists your team's snapshots. torpor template ls has the base templates, too.",
    .example = "torpor snapshot ls -o id",
    .options = ls_options,
    .run = run_ls};

/* --- rm --- */

static int run_rm(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    const char *name = a->operands[0];
    char target[TARGET_MAX];
    if (check_name(c, name, e) < 0 || api_open(&api, e) < 0)
        return -1;
    (void)snprintf(target, sizeof target, "/v1/snapshots/%s", name);
    return api_call(&api, &(struct api_call){.method = "DELETE", .target = target}, &answer, e);
}

const struct cli_command command_snapshot_rm = {.name = "snapshot rm",
    .arguments = "NAME",
    .summary = "delete a snapshot",
    .about = "Deletes a snapshot, by name or id. Sandboxes that came from it keep working.",
    .example = "torpor snapshot rm ready-to-go",
    .words = "@snapshot",
    .args_min = 1,
    .args_max = 1,
    .run = run_rm};
