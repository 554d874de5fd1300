/* SPDX-License-Identifier: Apache-2.0 */
/* torpor doctor: runs the probes, looks at what runs, shows all of it. */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/api.h"
#include "cli/doctor.h"
#include "cli/home.h"
#include "cli/output.h"
#include "http/client.h"

enum { NAME_COLUMN = 18, JSON_MAX = 256 * 1024, ASK_MS = 5000, METRICS_MAX = 1024 * 1024 };

/* --- what runs --- */

static bool probe_process(struct doctor *d, const struct home *h, const char *name)
{
    struct note note;
    bool is_agent = strcmp(name, "agent") == 0;
    const char *title = is_agent ? "torpor-agent" : "torpor-control";
    bool alive = home_noted(h, name, &note) && note_is_alive(&note);
    if (alive)
        doctor_add(d, DOCTOR_OK, title, "", "", "running (pid %d)", (int)note.id.pid);
    else
        doctor_add(d, DOCTOR_WARN, title, "nothing is served", "make up, or torpor up",
            "not running for %s", h->home);
    return alive;
}

/* GET without what a 2xx would say. */
static int ask(struct api *api, const char *target, struct api_answer *ret, struct err *e)
{
    return api_call(
        api, &(struct api_call){.method = "GET", .target = target, .timeout_ms = ASK_MS}, ret, e);
}

/* The number in a line "name number" of metrics in Prometheus' text format; 0 when there is none.
 */
static long long metric(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) == 0 && line[n] == ' ')
            return strtoll(line + n, NULL, 10);
    }
    return 0;
}

/* What the agent has and the database has not: reported, and left alone. */
static void probe_unknown(struct doctor *d, struct api *api)
{
    AUTO_BUF struct buf text = BUF_INIT(METRICS_MAX);
    const struct http_response_head *head;
    struct err e = {0};
    long long unknown;
    if (api_begin(api, &(struct api_call){.method = "GET", .target = "/metrics"}, NULL,
            (struct slice){0}, HTTP_BODY_IS_SLICE, &e) < 0 ||
        api_head(api, &head, ASK_MS, &e) < 0 ||
        http_recv_body_all(api->conn, &text, deadline_in_ms(ASK_MS), &e) < 0) {
        doctor_add(d, DOCTOR_WARN, "unknown sandboxes", "", "", "cannot be asked for: %s", e.msg);
        return;
    }
    unknown = metric(text.p ? text.p : "", "torpor_unknown_sandboxes");
    if (unknown > 0)
        doctor_add(d, DOCTOR_WARN, "unknown sandboxes",
            "the agent has sandboxes that the database does not know; they are kept, and cost "
            "memory and disk",
            "restore the database; or end them with torpor down", "%lld", unknown);
    else
        doctor_add(d, DOCTOR_OK, "unknown sandboxes", "", "", "none");
}

static void probe_server(struct doctor *d)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer version = {0};
    AUTO_ANSWER struct api_answer ready = {0};
    struct err e = {0};
    if (api_open(&api, &e) < 0 || ask(&api, "/version", &version, &e) < 0) {
        doctor_add(d, DOCTOR_WARN, "api", "commands cannot reach it", "make up, or torpor up", "%s",
            e.msg);
        return;
    }
    doctor_add(d, DOCTOR_OK, "api", "", "", "http://%s:%u, version %s (this program: %s)",
        api.settings.host, (unsigned)api.settings.port, api_text(&version, version.json, "version"),
        TORPOR_VERSION);
    if (ask(&api, "/readyz", &ready, &e) < 0) {
        doctor_add(d, DOCTOR_WARN, "ready", "no sandbox can be made now",
            "look into the logs; torpor up starts what does not run", "%s", e.msg);
        return;
    }
    doctor_add(d, DOCTOR_OK, "ready", "", "", "database and agent answer");
    probe_unknown(d, &api);
}

static void probe_running(struct doctor *d, const struct home *h)
{
    struct utsname u;
    if (uname(&u) == 0)
        doctor_add(d, DOCTOR_OK, "kernel", "", "", "%s %s", u.sysname, u.release);
    (void)probe_process(d, h, "agent");
    (void)probe_process(d, h, "control");
    probe_server(d);
}

/* --- output --- */

static void print_item(const struct cli *c, const struct doctor_item *item)
{
    static const char *const colors[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool color = c->out_is_tty;
    (void)fprintf(c->out, "%s%-8s%s%-*s%s\n", color ? colors[item->level] : "",
        doctor_level_name(item->level), color ? "\033[0m" : "", NAME_COLUMN, item->name,
        item->what);
    if (item->means[0])
        (void)fprintf(c->out, "%-*s%s\n", 8 + NAME_COLUMN, "", item->means);
    if (item->how[0])
        (void)fprintf(c->out, "%-*sto get it: %s\n", 8 + NAME_COLUMN, "", item->how);
}

static void print_all(const struct cli *c, const struct doctor *d)
{
    size_t counts[DOCTOR_LEVEL_COUNT] = {0};
    for (size_t i = 0; i < d->n_items; i++) {
        counts[d->items[i].level]++;
        print_item(c, &d->items[i]);
    }
    (void)fprintf(c->out, "\n%s (%zu ok, %zu warnings, %zu missing)\n",
        doctor_can_run(d) ? "Sandboxes can run here." : "Sandboxes cannot run here.",
        counts[DOCTOR_OK], counts[DOCTOR_WARN], counts[DOCTOR_MISSING]);
}

static void write_member(struct json_writer *w, const char *key, const char *value)
{
    json_key(w, key);
    json_cstr(w, value);
}

static void print_json(const struct cli *c, const struct doctor *d)
{
    AUTO_BUF struct buf text = BUF_INIT(JSON_MAX);
    struct json_writer w;
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, "can_run");
    json_bool(&w, doctor_can_run(d));
    json_key(&w, "checks");
    json_array_begin(&w);
    for (size_t i = 0; i < d->n_items; i++) {
        json_object_begin(&w);
        write_member(&w, "name", d->items[i].name);
        write_member(&w, "level", doctor_level_name(d->items[i].level));
        write_member(&w, "what", d->items[i].what);
        write_member(&w, "means", d->items[i].means);
        write_member(&w, "how", d->items[i].how);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);
    (void)fprintf(c->out, "%s\n", text.p ? text.p : "");
}

static void probe_all(struct doctor *d, const struct home *home)
{
    doctor_probe_vmm(d);
    doctor_probe_memory(d);
    doctor_probe_disk(d);
    doctor_probe_net(d);
    doctor_probe_limits(d);
    doctor_probe_files(d);
    doctor_probe_trial(d);
    probe_running(d, home);
}

static int run_doctor(struct cli *c, const struct args *a, struct err *e)
{
    struct home home;
    const char *net = getenv("TORPOR_NET");
    const char *form = args_value(a, "output");
    AUTO_FREE struct doctor *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (home_find(&home, e) < 0)
        return -1;
    d->root = "";
    d->ops = &doctor_real_ops;
    d->net = net && net[0] ? net : "10.11.0.0/16";
    (void)snprintf(d->data, sizeof d->data, "%s", home.data);
    probe_all(d, &home);
    if (form && strcmp(form, "json") == 0)
        print_json(c, d);
    else
        print_all(c, d);
    return doctor_can_run(d) ? EXIT_OK : EXIT_ERROR;
}

static const struct cli_option doctor_options[] = {{.name = "output",
                                                       .letter = 'o',
                                                       .value = "FORM",
                                                       .choices = "table json",
                                                       .help = "table (default) or json"},
    {0}};

const struct cli_command command_doctor = {.name = "doctor",
    .arguments = "",
    .summary = "show what this host can do, and what it lacks",
    .about = "Looks at processor, KVM, QEMU, memory, disk, network and limits of this host, and at "
             "what runs:\nok, warn (works, with less) or missing (sandboxes cannot run), what that "
             "means, and how to get\nit. It changes nothing. As root it sees more.",
    .example = "torpor doctor -o json | jq '.checks[] | select(.level != \"ok\")'",
    .exits = "  0 sandboxes can run here, 1 they cannot, 2 wrong command line\n",
    .options = doctor_options,
    .run = run_doctor};
