/* SPDX-License-Identifier: Apache-2.0 */
/* torpor create, ls, rm, ping. */
#include <string.h>

#include "base/clock.h"
#include "cli/body.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/sandbox.h"
#include "proto/limits.h"

enum {
    CREATE_TIMEOUT_MS = LIMIT_BOOT_MS + LIMIT_BOOT_QUEUE_MS + 60000,
    QUERY_MAX = 64 * 1024,
    METADATA_CELL_MAX = 512,
};

/* --- create --- */

static int write_create_numbers(
    struct cli *c, const struct args *a, struct json_writer *w, struct err *e)
{
    static const struct {
        const char *option, *field, *units;
    } numbers[] = {{"vcpus", "vcpus", ""}, {"memory", "memory_mb", "M=1 G=1024"},
        {"timeout", "timeout_sec", "s=1 m=60 h=3600 d=86400"}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t v;
        int rc = args_number(c, a, numbers[i].option, numbers[i].units, &v, e);
        if (rc < 0)
            return -1;
        if (rc > 0) {
            json_key(w, numbers[i].field);
            json_int(w, v);
        }
    }
    return 0;
}

static int write_create(struct cli *c, const struct args *a, struct buf *body, struct err *e)
{
    struct json_writer w;
    json_writer_init(&w, body);
    json_object_begin(&w);
    body_write_text(&w, "template", args_value(a, "template"));
    if (write_create_numbers(c, a, &w, e) < 0 || body_write_pairs(c, a, "env", "env", &w, e) < 0 ||
        body_write_pairs(c, a, "metadata", "metadata", &w, e) < 0)
        return -1;
    json_object_end(&w);
    return body->failed ? err_set(e, ERR_TOO_LARGE, "env and metadata are too large") : 0;
}

static int run_create(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    AUTO_BUF struct buf body = BUF_INIT(LIMIT_BODY_JSON_BYTES);
    const char *form = args_value(a, "output");
    struct progress progress;
    int rc;
    if (write_create(c, a, &body, e) < 0 || api_open(&api, e) < 0)
        return -1;
    progress_start(&progress, c, "creating a sandbox");
    api.progress = &progress;
    rc = api_call(&api,
        &(struct api_call){.method = "POST",
            .target = "/v1/sandboxes",
            .json = buf_slice(&body),
            .timeout_ms = CREATE_TIMEOUT_MS},
        &answer, e);
    progress_end(&progress);
    if (rc < 0)
        return -1;
    if (form && strcmp(form, "json") == 0)
        output_json(c->out, answer.json);
    else
        (void)fprintf(c->out, "%s", api_text(&answer, answer.json, "id"));
    (void)fprintf(c->out, "\n");
    return EXIT_OK;
}

static const struct cli_option create_options[] = {
    {.name = "template",
        .letter = 't',
        .value = "NAME",
        .help = "what it boots, or the snapshot it is spawned from, default minimal"},
    {.name = "vcpus", .letter = 'c', .value = "N", .help = "virtual CPUs, default 1"},
    {.name = "memory", .letter = 'm', .value = "MIB", .help = "memory, e.g. 512 or 2G"},
    {.name = "timeout", .value = "SEC", .help = "pause it when idle that long, e.g. 600 or 10m"},
    {.name = "env",
        .letter = 'e',
        .value = "KEY=VALUE",
        .many = true,
        .help = "for all its processes"},
    {.name = "metadata", .value = "KEY=VALUE", .many = true, .help = "for you, see ls --metadata"},
    {.name = "output",
        .letter = 'o',
        .value = "FORM",
        .choices = "id json",
        .help = "id (default) or json, all about it"},
    {0}};

const struct cli_command command_create = {.name = "create",
    .arguments = "",
    .summary = "boot a sandbox and print its id",
    .about =
        "Boots a sandbox, or spawns it from a snapshot (whose CPUs and memory it then has), waits "
        "until\ncommands can run in it, and prints its id.",
    .example = "id=$(torpor create --memory 1G --metadata owner=me)",
    .options = create_options,
    .run = run_create};

/* --- ls --- */

static const char *const ls_titles[] = {
    "ID", "STATUS", "TEMPLATE", "CPU", "MEMORY", "AGE", "ACTIVE", "METADATA"};

struct listing {
    struct cli *cli;
    enum output_form form;
    struct table table;
    size_t n;
    int64_t now_ms;
};

static void write_metadata(const struct json_value *metadata, char dst[METADATA_CELL_MAX])
{
    const struct json_value *v = metadata && metadata->type == JSON_OBJECT ? metadata->first : NULL;
    size_t n = 0;
    dst[0] = '\0';
    for (; v && n < METADATA_CELL_MAX; v = v->next)
        if (v->type == JSON_STRING)
            n += (size_t)snprintf(dst + n, METADATA_CELL_MAX - n, "%s%.*s=%.*s", n ? " " : "",
                (int)v->key.n, v->key.p, (int)v->string.n, v->string.p);
}

static void add_row(struct listing *l, struct api_answer *page, const struct json_value *v)
{
    struct table *t = &l->table;
    const char *reason = api_text(page, v, "state_reason");
    char text[METADATA_CELL_MAX];
    table_cell(t, "%s", api_text(page, v, "id"));
    table_cell(t, "%s%s%s%s", api_text(page, v, "status"), *reason ? " (" : "", reason,
        *reason ? ")" : "");
    table_cell(t, "%s", api_text(page, v, "template"));
    table_cell(t, "%lld", (long long)api_int(v, "vcpus", 0));
    format_bytes(api_int(v, "memory_mb", 0) << 20, text);
    table_cell(t, "%s", text);
    format_age(parse_time(api_text(page, v, "created_at")), l->now_ms, text);
    table_cell(t, "%s", text);
    format_age(parse_time(api_text(page, v, "last_active_at")), l->now_ms, text);
    table_cell(t, "%s", text);
    write_metadata(json_get(v, "metadata"), text);
    table_cell(t, "%s", text);
}

static int show(void *ctx, struct api_answer *page, const struct json_value *v, struct err *e)
{
    struct listing *l = ctx;
    if (l->form == OUTPUT_ID)
        (void)fprintf(l->cli->out, "%s\n", api_text(page, v, "id"));
    if (l->form == OUTPUT_TABLE)
        add_row(l, page, v);
    if (l->form == OUTPUT_JSON) {
        (void)fprintf(l->cli->out, "%s", l->n ? ",\n " : "[");
        output_json(l->cli->out, v);
    }
    l->n++;
    return 0;
}

static int write_query(struct cli *c, const struct args *a, struct buf *query, struct err *e)
{
    const char *status = args_value(a, "status");
    const char *text;
    size_t at = 0;
    if (status && args_flag(a, "all"))
        return cli_usage_error(c, e, "--all and --status exclude each other");
    if (args_flag(a, "all"))
        status = SANDBOX_STATUSES_ALL;
    if (status)
        query_append(query, "status", slice_cstr(status));
    while ((text = args_next(a, "metadata", &at))) {
        char name[LIMIT_METADATA_KEY_MAX + 16];
        struct slice key, value;
        if (args_pair(c, "metadata", text, &key, &value, e) < 0)
            return -1;
        if (key.n > LIMIT_METADATA_KEY_MAX)
            return cli_usage_error(
                c, e, "--metadata: a key has at most %d bytes", LIMIT_METADATA_KEY_MAX);
        (void)snprintf(name, sizeof name, "metadata.%.*s", (int)key.n, key.p);
        query_append(query, name, value);
    }
    buf_append_cstr(query, "");
    return query->failed ? err_set(e, ERR_TOO_LARGE, "the filters are too long") : 0;
}

static void show_end(const struct listing *l)
{
    if (l->form == OUTPUT_JSON)
        (void)fprintf(l->cli->out, "%s]\n", l->n ? "" : "[");
    if (l->form == OUTPUT_TABLE && l->n > 0)
        table_print(&l->table, l->cli->out, l->cli->width);
    if (l->form == OUTPUT_TABLE && l->n == 0)
        (void)fprintf(l->cli->err, "No sandboxes.\n");
}

static int run_ls(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_BUF struct buf query = BUF_INIT(QUERY_MAX);
    struct listing l = {.cli = c, .form = output_form(c, a), .now_ms = clock_real_ms()};
    int rc;
    if (write_query(c, a, &query, e) < 0 || api_open(&api, e) < 0)
        return -1;
    table_init(&l.table, ls_titles, sizeof ls_titles / sizeof ls_titles[0]);
    rc = sandbox_list(&api, query.p ? query.p : "", show, &l, e);
    if (rc == 0)
        show_end(&l);
    table_done(&l.table);
    return rc;
}

static const struct cli_option ls_options[] = {
    {.name = "all", .letter = 'a', .help = "also stopped and failed ones"},
    {.name = "status", .letter = 's', .value = "STATUS", .help = "only these, with commas between"},
    {.name = "metadata", .value = "KEY=VALUE", .many = true, .help = "only those that have it"},
    OUTPUT_OPTION, {0}};

const struct cli_command command_ls = {.name = "ls",
    .arguments = "",
    .summary = "list sandboxes, newest first",
    .about = "Lists sandboxes, newest first: all but stopped and failed ones.",
    .example = "torpor ls --status running,paused --metadata owner=me",
    .options = ls_options,
    .run = run_ls};

/* --- rm, ping --- */

static int call_one(struct api *api, const char *method, const char *text, const char *suffix,
    struct sandbox_id *ret_id, struct err *e)
{
    AUTO_ANSWER struct api_answer answer = {0};
    char target[TARGET_MAX];
    if (sandbox_find(api, text, ret_id, e) < 0)
        return -1;
    sandbox_target(ret_id, suffix, target);
    return api_call(api, &(struct api_call){.method = method, .target = target}, &answer, e);
}

static int run_rm(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    int status = EXIT_OK;
    if (api_open(&api, e) < 0)
        return -1;
    for (size_t i = 0; i < a->n_operands; i++) {
        struct sandbox_id id;
        struct err one = {0};
        if (call_one(&api, "DELETE", a->operands[i], "", &id, &one) == 0) {
            (void)fprintf(c->out, "%s\n", id.text);
            continue;
        }
        (void)fprintf(c->err, "torpor rm: %s: %s\n", a->operands[i], one.msg);
        if (status == EXIT_OK)
            status = cli_exit_status(one.kind);
    }
    return status;
}

const struct cli_command command_rm = {.name = "rm",
    .arguments = "ID...",
    .summary = "destroy sandboxes",
    .about = "Destroys sandboxes in whatever state they are, and prints the id of each. Goes on "
             "after a failure;\nthe exit status is that of the first. The start of an id is enough "
             "where only one has it.",
    .example = "torpor ls -o id --metadata owner=me | xargs torpor rm",
    .words = "@sandbox",
    .args_min = 1,
    .args_max = -1,
    .run = run_rm};

static int run_ping(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    struct sandbox_id id;
    if (api_open(&api, e) < 0 || call_one(&api, "POST", a->operands[0], "/ping", &id, e) < 0)
        return -1;
    return EXIT_OK;
}

const struct cli_command command_ping = {.name = "ping",
    .arguments = "ID",
    .summary = "reset a sandbox's inactivity timer",
    .about = "Tells that a sandbox is still needed: its inactivity timer starts anew.",
    .example = "torpor ping sbq3",
    .words = "@sandbox",
    .args_min = 1,
    .args_max = 1,
    .run = run_ping};
