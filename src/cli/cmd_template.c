/* SPDX-License-Identifier: Apache-2.0 */
/* torpor template ls, template build; the list is that of torpor snapshot ls, too. */
#include <limits.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/proc.h"
#include "cli/api.h"
#include "cli/home.h"
#include "cli/output.h"
#include "cli/template.h"

enum { LEVELS_MAX = 6 /* build/release/src/cli/torpor is 4 below its checkout */ };

/* --- ls --- */

static const char *const ls_titles[] = {"NAME", "TYPE", "CPU", "MEMORY", "SIZE", "AGE", "ID"};

static void add_size(struct table *t, const struct json_value *v, const char *key, int shift)
{
    char text[24];
    int64_t n = api_int(v, key, 0);
    format_bytes(n << shift, text);
    table_cell(t, "%s", n ? text : "-");
}

static void add_row(struct table *t, struct api_answer *answer, const struct json_value *v)
{
    int64_t vcpus = api_int(v, "vcpus", 0);
    char age[24];
    table_cell(t, "%s", api_text(answer, v, "name"));
    table_cell(t, "%s", api_text(answer, v, "type"));
    if (vcpus)
        table_cell(t, "%lld", (long long)vcpus);
    else
        table_cell(t, "-");
    add_size(t, v, "memory_mb", 20);
    add_size(t, v, "size_bytes", 0);
    format_age(parse_time(api_text(answer, v, "created_at")), clock_real_ms(), age);
    table_cell(t, "%s", age);
    table_cell(t, "%s", api_text(answer, v, "snapshot_id"));
}

/* What is shown of the pages so far. */
struct listing {
    struct cli *cli;
    enum output_form form;
    struct table table;
    size_t n;
};

static int show_page(struct listing *l, struct api_answer *page, struct err *e)
{
    if (!page->json || page->json->type != JSON_ARRAY)
        return err_set(e, ERR_PROTOCOL, "the server's list is no list");
    for (const struct json_value *v = page->json->first; v; v = v->next) {
        if (l->form == OUTPUT_ID)
            (void)fprintf(l->cli->out, "%s\n", api_text(page, v, "name"));
        if (l->form == OUTPUT_TABLE)
            add_row(&l->table, page, v);
        if (l->form == OUTPUT_JSON) {
            (void)fprintf(l->cli->out, "%s", l->n ? ",\n " : "[");
            output_json(l->cli->out, v);
        }
        l->n++;
    }
    return 0;
}

static int show_pages(struct listing *l, struct api *api, const char *type, struct err *e)
{
    char cursor[sizeof((struct api_answer *)0)->next_cursor] = "";
    do {
        AUTO_ANSWER struct api_answer page = {0};
        char target[sizeof cursor + 64];
        (void)snprintf(target, sizeof target, "/v1/snapshots?limit=1000%s%s%s%s",
            type ? "&type=" : "", type ? type : "", cursor[0] ? "&cursor=" : "", cursor);
        if (api_call(api, &(struct api_call){.method = "GET", .target = target}, &page, e) < 0 ||
            show_page(l, &page, e) < 0)
            return -1;
        memcpy(cursor, page.next_cursor, sizeof cursor);
    } while (cursor[0]);
    return 0;
}

int template_list(struct cli *c, const struct args *a, const char *type, struct err *e)
{
    AUTO_API struct api api = {0};
    struct listing l = {.cli = c, .form = output_form(c, a)};
    int rc;
    if (api_open(&api, e) < 0)
        return -1;
    table_init(&l.table, ls_titles, sizeof ls_titles / sizeof ls_titles[0]);
    rc = show_pages(&l, &api, type, e);
    if (rc == 0 && l.form == OUTPUT_JSON)
        (void)fprintf(c->out, "%s]\n", l.n ? "" : "[");
    if (rc == 0 && l.form == OUTPUT_TABLE && l.n > 0)
        table_print(&l.table, c->out, c->width);
    if (rc == 0 && l.form == OUTPUT_TABLE && l.n == 0)
        (void)fprintf(c->err, "No %ss.\n", type ? type : "template");
    table_done(&l.table);
    return rc;
}

static int run_template_ls(struct cli *c, const struct args *a, struct err *e)
{
    return template_list(c, a, /* type= */ NULL, e);
}

static const struct cli_option ls_options[] = {OUTPUT_OPTION, {0}};

const struct cli_command command_template_ls = {.name = "template ls",
    .arguments = "",
    .summary = "list what sandboxes can be made from",
    .about = "Lists base templates and snapshots.",
    .example = "torpor template ls",
    .options = ls_options,
    .run = run_template_ls};

/* --- build --- */

/* images/NAME.sh of the checkout that this program was built in, else of <data>/libexec. */
static int find_script(const char *name, const struct home *h, char dst[PATH_MAX], struct err *e)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    for (int i = 0; i < LEVELS_MAX; i++) {
        char *slash = strrchr(self, '/');
        if (!slash)
            break;
        *slash = '\0';
        if (snprintf(dst, PATH_MAX, "%s/images/%s.sh", self, name) < PATH_MAX &&
            access(dst, X_OK) == 0)
            return 0;
    }
    if (snprintf(dst, PATH_MAX, "%s/libexec/images/%s.sh", h->data, name) < PATH_MAX &&
        access(dst, X_OK) == 0)
        return 0;
    return err_set(e, ERR_NOT_FOUND,
        "there is no script for %s: neither images/%s.sh of a checkout above this program, nor %s",
        name, name, dst);
}

/* Runs it with its words on our standard error and output. */
static int run_script(const char *script, const char *data, bool force, struct err *e)
{
    const char *with_force[] = {script, "--force", data, NULL};
    const char *without[] = {script, data, NULL};
    const char *const *argv = force ? with_force : without;
    int fds[] = {-1, STDOUT_FILENO, STDERR_FILENO};
    pid_t pid;
    int status;
    if (proc_spawn(&(struct proc_spawn){.path = script,
                       .argv = (char *const *)(uintptr_t)argv,
                       .envp = environ,
                       .fds = fds,
                       .n_fds = 3},
            &pid, e) < 0 ||
        proc_reap(pid, &status, e) < 0)
        return -1;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, ERR_INTERNAL, "%s failed", script);
    return EXIT_OK;
}

static int run_template_build(struct cli *c, const struct args *a, struct err *e)
{
    const char *name = a->operands[0];
    struct home home;
    char script[PATH_MAX];
    if (strcmp(name, "minimal") != 0 && strcmp(name, "base") != 0)
        return cli_usage_error(c, e, "'%s': must be minimal or base", name);
    if (strcmp(name, "minimal") == 0 && args_flag(a, "force"))
        return cli_usage_error(
            c, e, "--force is for base: minimal is made anew whenever a byte of it would differ");
    if (geteuid() != 0)
        return err_set(e, ERR_FORBIDDEN, "needs root: the files of an image belong to its users");
    if (home_find(&home, e) < 0 || find_script(name, &home, script, e) < 0)
        return -1;
    (void)fflush(c->out);
    return run_script(script, home.data, args_flag(a, "force"), e);
}

static const struct cli_option build_options[] = {
    {.name = "force", .letter = 'f', .help = "also when there is one that is up to date"}, {0}};

const struct cli_command command_template_build = {.name = "template build",
    .arguments = "minimal|base",
    .summary = "make a base template's image on this host (as root)",
    .about =
        "Makes the image of a base template in the data folder of this host's installation\n"
        "(TORPOR_DIR), from Debian packages. minimal is busybox alone, made in a second; base is "
        "Debian\nwith bash, python3, git and curl.",
    .example = "torpor template build base",
    .options = build_options,
    .words = "minimal base",
    .args_min = 1,
    .args_max = 1,
    .run = run_template_build};
