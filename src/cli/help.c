/* SPDX-License-Identifier: Apache-2.0 */
/* --help, the commands `help` and `version`: all from the table. */
#include <string.h>

#include "cli/args.h"
#include "cli/cli.h"

enum { COLUMN = 26 };

static const char common_exits[] =
    "  0 done, 1 the API or something else failed, 2 wrong command line, 3 not found,\n"
    "  4 no capacity or not available, 124 out of time\n";

static void print_option(FILE *out, const struct cli_option *o)
{
    char left[128];
    (void)snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
        o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->value ? " " : "",
        o->value ? o->value : "");
    (void)fprintf(out, "  %-*s", COLUMN, left);
    if (strlen(left) >= COLUMN)
        (void)fprintf(out, "\n  %-*s", COLUMN, "");
    (void)fprintf(out, "%s%s\n", o->help, o->many ? " (may be repeated)" : "");
}

static void print_command(FILE *out, const struct cli_command *command)
{
    const struct cli_option *o;
    (void)fprintf(out, "Usage: torpor %s [OPTION]...%s%s\n\n%s\n\nOptions:\n", command->name,
        command->arguments[0] ? " " : "", command->arguments, command->about);
    for (size_t i = 0; (o = args_option_at(command, i)); i++)
        print_option(out, o);
    (void)fprintf(out, "\nExample:\n  %s\n\nExit status:\n%s", command->example,
        command->exits ? command->exits : common_exits);
}

static void print_program(FILE *out)
{
    (void)fprintf(out, "Usage: torpor COMMAND [OPTION]... [ARGUMENT]...\n\n"
                       "Runs code that you do not trust in sandboxes, each a virtual machine of "
                       "its own.\n\nCommands:\n");
    for (size_t i = 0; i < cli_n_commands; i++)
        (void)fprintf(out, "  %-16s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    (void)fprintf(out,
        "\nThe server and the key come from TORPOR_URL and TORPOR_API_KEY, else from the file env\n"
        "of TORPOR_DIR (by default ./var, then /var/lib/torpor).\n\n"
        "torpor COMMAND --help says more about each.\n");
}

void help_print(FILE *out, const struct cli_command *command)
{
    if (command)
        print_command(out, command);
    else
        print_program(out);
}

static int run_help(struct cli *c, const struct args *a, struct err *e)
{
    const struct cli_command *command = NULL;
    char *argv[3] = {0};
    int words;
    if (a->n_operands > 0) {
        for (size_t i = 0; i < a->n_operands; i++)
            argv[i + 1] = (char *)(uintptr_t)a->operands[i];
        command = args_find_command((int)a->n_operands + 1, argv, &words);
        if (!command)
            return cli_usage_error(c, e, "there is no command '%s'", a->operands[0]);
    }
    help_print(c->out, command);
    return EXIT_OK;
}

const struct cli_command command_help = {.name = "help",
    .arguments = "[COMMAND]",
    .summary = "show what there is, or the help of a command",
    .about = "Shows all commands, or the same as torpor COMMAND --help.",
    .example = "torpor help exec",
    .args_max = 2,
    .run = run_help};

static int run_version(struct cli *c, const struct args *a, struct err *e)
{
    (void)fprintf(c->out, "torpor %s\n", TORPOR_VERSION);
    return EXIT_OK;
}

const struct cli_command command_version = {.name = "version",
    .arguments = "",
    .summary = "show the version of this program",
    .about = "Shows the version of this program. torpor doctor shows those of the others.",
    .example = "torpor version",
    .run = run_version};
