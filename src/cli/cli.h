/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torpor, the command line: what its parts share.
 *
 * A command is one row: its name, options, help and the function that runs it. Parsing, --help and
 * the completion scripts all read the same row, so they cannot differ. The program has one thread.
 */
#ifndef TORPOR_CLI_CLI_H
#define TORPOR_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* Exit statuses; docs/cli.md promises them. */
enum {
    EXIT_OK = 0,
    EXIT_ERROR = 1,
    EXIT_USAGE = 2,
    EXIT_NOT_FOUND = 3,
    EXIT_UNAVAILABLE = 4,
    EXIT_TIMEOUT = 124
};

/* Where a run reads and writes. */
struct cli {
    FILE *out;
    FILE *err;
    int in_fd;
    bool in_is_tty;
    bool out_is_tty;
    bool err_is_tty;
    int width;     /* columns of the terminal behind `out` */
    bool is_usage; /* the error is the caller's command line: exit 2, and a hint to --help */
};

struct args;

struct cli_option {
    const char *name;    /* long form; NULL ends a list */
    char letter;         /* short form, 0: none */
    const char *value;   /* how --help names its value; NULL: it has none */
    const char *choices; /* the values it takes, with blanks between; NULL: any */
    bool many;           /* may be given several times */
    const char *help;
};

struct cli_command {
    const char *name;      /* "create"; "template build" is one name of two words */
    const char *arguments; /* as --help shows them */
    const char *summary;   /* one line, no full stop */
    const char *about;     /* what it does, for --help */
    const char *example;
    const char *exits; /* what its exit statuses mean beside the common ones; may be NULL */
    const struct cli_option *options;
    const char *words; /* completion of its arguments: words, "@sandbox", "@snapshot",
                        * "@file"; NULL: none */
    int args_min;
    int args_max;    /* -1: any number */
    int options_end; /* options end before this argument (1 is the first); 0: they may be anywhere
                      */
    /* Returns the exit status, or -1 with an error that the caller prints. */
    int (*run)(struct cli *c, const struct args *a, struct err *e);
};

/* All commands in the order of help. */
extern const struct cli_command *const cli_commands[];
extern const size_t cli_n_commands;

/* The whole program: finds the command, runs it, prints the error. Returns the exit status. */
int cli_run(struct cli *c, int argc, char **argv);

/* Sets a usage error. Returns -1. */
int cli_usage_error(struct cli *c, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The exit status of an error. */
int cli_exit_status(enum err_kind kind);

/* The rows, each in the file that runs it. */
extern const struct cli_command command_up, command_down, command_doctor, command_create,
    command_ls, command_exec, command_cp, command_pause, command_resume, command_rm, command_ping,
    command_snapshot_create, command_snapshot_ls, command_snapshot_rm, command_template_ls,
    command_template_build, command_completion, command_version, command_help;

/* Help of the program (command NULL) or of one command. */
void help_print(FILE *out, const struct cli_command *command);

#endif
