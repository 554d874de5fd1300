/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, and the way from argv to one of them and to the exit status. */
#include "cli/cli.h"

#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/args.h"

const struct cli_command *const cli_commands[] = {
    &command_up,
    &command_down,
    &command_doctor,
    &command_create,
    &command_ls,
    &command_exec,
    &command_cp,
    &command_pause,
    &command_resume,
    &command_rm,
    &command_ping,
    &command_snapshot_create,
    &command_snapshot_ls,
    &command_snapshot_rm,
    &command_template_ls,
    &command_template_build,
    &command_completion,
    &command_version,
    &command_help,
};
const size_t cli_n_commands = ARRAY_LEN(cli_commands);

int cli_usage_error(struct cli *c, struct err *e, const char *fmt, ...)
{
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    c->is_usage = true;
    return err_set(e, ERR_INVALID, "%s", msg);
}

int cli_exit_status(enum err_kind kind)
{
    switch (kind) {
    case ERR_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case ERR_NO_CAPACITY:
    case ERR_UNAVAILABLE:
    case ERR_TEMPLATE_BUILDING:
    case ERR_RATE_LIMITED:
    case ERR_QUOTA:
        return EXIT_UNAVAILABLE;
    case ERR_TIMEOUT:
        return EXIT_TIMEOUT;
    default:
        return EXIT_ERROR;
    }
}

/* Prints the error of a command (NULL: before one was found). Returns the exit status. */
static int fail(struct cli *c, const struct cli_command *command, const struct err *e)
{
    const char *name = command ? command->name : "";
    (void)fprintf(c->err, "torpor%s%s: %s\n", *name ? " " : "", name, e->msg);
    if (!c->is_usage)
        return cli_exit_status(e->kind);
    (void)fprintf(c->err, "Try: torpor%s%s --help\n", *name ? " " : "", name);
    return EXIT_USAGE;
}

static int unknown_command(struct cli *c, int argc, char **argv)
{
    struct err e = {0};
    if (strcmp(argv[1], "template") == 0)
        (void)cli_usage_error(c, &e, "template needs one of: build, ls");
    else if (strcmp(argv[1], "snapshot") == 0)
        (void)cli_usage_error(c, &e, "snapshot needs one of: create, ls, rm");
    else
        (void)cli_usage_error(c, &e, "there is no command '%s'", argv[1]);
    return fail(c, NULL, &e);
}

static int run_command(struct cli *c, const struct cli_command *command, int argc, char **argv)
{
    CLEANUP(args_done) struct args a = {0};
    struct err e = {0};
    int rc = args_parse(c, command, argc, argv, &a, &e);
    if (rc == 0 && a.help) {
        help_print(c->out, command);
        return EXIT_OK;
    }
    if (rc == 0)
        rc = command->run(c, &a, &e);
    return rc < 0 ? fail(c, command, &e) : rc;
}

static bool is_one_of(const char *s, const char *a, const char *b)
{
    return strcmp(s, a) == 0 || strcmp(s, b) == 0;
}

/* What was written must have arrived: `torpor ls >/full/disk` is an error. */
static int flush(struct cli *c, int status)
{
    bool bad = fflush(c->out) != 0 || ferror(c->out);
    if (bad && status == EXIT_OK) {
        (void)fprintf(c->err, "torpor: cannot write to standard output\n");
        return EXIT_ERROR;
    }
    return status;
}

int cli_run(struct cli *c, int argc, char **argv)
{
    const struct cli_command *command;
    int words;
    if (argc < 2) {
        help_print(c->err, NULL);
        return EXIT_USAGE;
    }
    if (is_one_of(argv[1], "--help", "-h")) {
        help_print(c->out, NULL);
        return flush(c, EXIT_OK);
    }
    if (is_one_of(argv[1], "--version", "-V"))
        return flush(c, run_command(c, &command_version, 1, argv));
    command = args_find_command(argc, argv, &words);
    if (!command)
        return unknown_command(c, argc, argv);
    return flush(c, run_command(c, command, argc - words, argv + words));
}
