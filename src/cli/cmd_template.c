/* SPDX-License-Identifier: Apache-2.0 */
/* torpor template ls, template build. */
#include <limits.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/proc.h"
#include "cli/api.h"
#include "cli/home.h"
#include "cli/output.h"

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

static int run_template_ls(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    AUTO_TABLE struct table table = {0};
    enum output_form form = output_form(c, a);
    table_init(&table, ls_titles, sizeof ls_titles / sizeof ls_titles[0]);
    if (api_open(&api, e) < 0 ||
        api_call(&api, &(struct api_call){.method = "GET", .target = "/v1/snapshots"}, &answer, e) <
            0)
        return -1;
    if (!answer.json || answer.json->type != JSON_ARRAY)
        return err_set(e, ERR_PROTOCOL, "the server's list is no list");
    if (form == OUTPUT_JSON) {
        output_json(c->out, answer.json);
        (void)fprintf(c->out, "\n");
        return EXIT_OK;
    }
    for (const struct json_value *v = answer.json->first; v; v = v->next) {
        add_row(&table, &answer, v);
        if (form == OUTPUT_ID)
            (void)fprintf(c->out, "%s\n", api_text(&answer, v, "name"));
    }
    if (form == OUTPUT_TABLE)
        table_print(&table, c->out, c->width);
    return EXIT_OK;
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
