/* SPDX-License-Identifier: Apache-2.0 */
/* A command's options and arguments, as they were given. Strings belong to argv. */
#ifndef TORPOR_CLI_ARGS_H
#define TORPOR_CLI_ARGS_H

#include <stdint.h>

#include "base/slice.h"
#include "cli/cli.h"

struct args {
    const struct cli_command *command;
    struct args_given {
        const struct cli_option *option;
        const char *value; /* NULL for an option without one */
    } * given;
    size_t n_given;
    const char **operands;
    size_t n_operands;
    bool help; /* --help was among them; nothing was checked then */
};

/* Every command has this one beside its own. */
extern const struct cli_option args_help_option;

/* The options of a command one after the other, with --help last; NULL behind it. */
const struct cli_option *args_option_at(const struct cli_command *command, size_t i);

/* The command that argv[1] (and argv[2]) name, and how many words that took; NULL when none. */
const struct cli_command *args_find_command(int argc, char **argv, int *ret_words);

/* Parses what follows the command's name. Usage errors are marked as such in `c`. On success
 * args_done frees the lists. */
int args_parse(struct cli *c, const struct cli_command *command, int argc, char **argv,
    struct args *ret, struct err *e);
void args_done(struct args *a);

/* The value of an option that was given (the last one), else NULL. */
const char *args_value(const struct args *a, const char *name);
bool args_flag(const struct args *a, const char *name);
/* The next value of an option that may be given often, at or behind *at; NULL: no more. */
const char *args_next(const struct args *a, const char *name, size_t *at);

/* A whole number, optionally with a unit: `units` is a list such as "s=1 m=60 h=3600". An option
 * that was not given leaves `ret` alone and returns 0; 1 when it was set. */
int args_number(struct cli *c, const struct args *a, const char *name, const char *units,
    int64_t *ret, struct err *e);

/* Cuts "key=value"; a usage error without '=' or with an empty key. */
int args_pair(struct cli *c, const char *option, const char *text, struct slice *ret_key,
    struct slice *ret_value, struct err *e);

#endif
