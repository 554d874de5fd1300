/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts for bash and zsh, made from the table of commands.
 *
 * The bash script is one function with a case for each command: options, choices of the option
 * before, words of its arguments. Ids of sandboxes come from `torpor ls --all -o id`, names of
 * snapshots from `torpor snapshot ls -o id`. zsh runs the
 * same function through its bashcompinit.
 */
#include <string.h>

#include "cli/args.h"
#include "cli/cli.h"

/* All names but the second words, each once. */
static void print_first_words(FILE *out)
{
    const char *last = "";
    for (size_t i = 0; i < cli_n_commands; i++) {
        const char *name = cli_commands[i]->name;
        int n = (int)strcspn(name, " ");
        if (strncmp(last, name, (size_t)n) == 0 && strlen(last) >= (size_t)n)
            continue;
        (void)fprintf(out, "%s%.*s", i ? " " : "", n, name);
        last = name;
    }
}

static void print_second_words(FILE *out, const char *first)
{
    size_t n = strlen(first);
    for (size_t i = 0; i < cli_n_commands; i++)
        if (strncmp(cli_commands[i]->name, first, n) == 0 && cli_commands[i]->name[n] == ' ')
            (void)fprintf(out, "%s ", cli_commands[i]->name + n + 1);
}

static void print_choices(FILE *out, const struct cli_command *command)
{
    const struct cli_option *o;
    for (size_t i = 0; (o = args_option_at(command, i)); i++) {
        if (!o->value)
            continue;
        (void)fprintf(out, "        ");
        if (o->letter)
            (void)fprintf(out, "-%c|", o->letter);
        (void)fprintf(
            out, "--%s) words='%s'; options='' ;;\n", o->name, o->choices ? o->choices : "");
    }
}

static void print_case(FILE *out, const struct cli_command *command)
{
    const struct cli_option *o;
    const char *words = command->words ? command->words : "";
    (void)fprintf(out, "    '%s')\n        options='", command->name);
    for (size_t i = 0; (o = args_option_at(command, i)); i++)
        (void)fprintf(out, "%s--%s", i ? " " : "", o->name);
    (void)fprintf(out, "'\n");
    if (strstr(words, "@sandbox"))
        (void)fprintf(out, "        words=$(torpor ls --all -o id 2>/dev/null)\n");
    else if (strstr(words, "@snapshot"))
        (void)fprintf(out, "        words=$(torpor snapshot ls -o id 2>/dev/null)\n");
    else if (words[0] && words[0] != '@')
        (void)fprintf(out, "        words='%s'\n", words);
    if (strstr(words, "@file"))
        (void)fprintf(out, "        files=1\n");
    (void)fprintf(out, "        case $before in\n");
    print_choices(out, command);
    (void)fprintf(out, "        esac ;;\n");
}

/* A command whose second word is one, too. */
static void print_group(FILE *out, const char *first)
{
    (void)fprintf(out,
        "    if [ \"$command\" = %s ]; then\n"
        "        if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
        "            COMPREPLY=($(compgen -W '",
        first);
    print_second_words(out, first);
    (void)fprintf(out,
        "' -- \"$word\"))\n            return\n        fi\n"
        "        command=\"%s ${COMP_WORDS[2]}\"\n    fi\n",
        first);
}

static void print_bash(FILE *out)
{
    (void)fprintf(out,
        "# bash completion for torpor. Load it with: . <(torpor completion bash)\n"
        "_torpor() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
        "    local command=${COMP_WORDS[1]} options='' words='' files=''\n"
        "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
        "        COMPREPLY=($(compgen -W '");
    print_first_words(out);
    (void)fprintf(out, " --help --version' -- \"$word\"))\n        return\n    fi\n");
    print_group(out, "snapshot");
    print_group(out, "template");
    (void)fprintf(out, "    case $command in\n");
    for (size_t i = 0; i < cli_n_commands; i++)
        print_case(out, cli_commands[i]);
    (void)fprintf(out, "    esac\n"
                       "    case $word in\n"
                       "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
                       "    *) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")\n"
                       "        $([ -n \"$files\" ] && compgen -f -- \"$word\")) ;;\n"
                       "    esac\n"
                       "}\n"
                       "complete -F _torpor torpor\n");
}

static int run_completion(struct cli *c, const struct args *a, struct err *e)
{
    if (strcmp(a->operands[0], "zsh") == 0)
        (void)fprintf(c->out, "#compdef torpor\n"
                              "autoload -U +X compinit && compinit\n"
                              "autoload -U +X bashcompinit && bashcompinit\n");
    else if (strcmp(a->operands[0], "bash") != 0)
        return cli_usage_error(c, e, "'%s': must be bash or zsh", a->operands[0]);
    print_bash(c->out);
    return EXIT_OK;
}

const struct cli_command command_completion = {.name = "completion",
    .arguments = "bash|zsh",
    .summary = "print a completion script for a shell",
    .about = "Prints a script that completes commands, options, their values and ids of sandboxes.",
    .example = ". <(torpor completion bash)",
    .words = "bash zsh",
    .args_min = 1,
    .args_max = 1,
    .run = run_completion};
