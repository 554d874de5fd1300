/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of a command line by the table of commands, with getopt_long(3). */
#include "cli/args.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTIONS_MAX = 32, /* of one command, --help included */
    CODE_OPERAND = 1, /* what getopt_long returns for an argument in its "-" mode */
    CODE_BASE = 256,  /* beyond all letters: option i is CODE_BASE + i */
};

const struct cli_option args_help_option = {
    .name = "help", .letter = 'h', .help = "show this and exit"};

const struct cli_option *args_option_at(const struct cli_command *command, size_t i)
{
    size_t n = 0;
    while (command->options && command->options[n].name)
        n++;
    if (i < n)
        return &command->options[i];
    return i == n ? &args_help_option : NULL;
}

/* True when `name` is the word argv[1], or the two words argv[1] and argv[2]. */
static bool is_named(const char *name, int argc, char **argv, int *ret_words)
{
    const char *blank = strchr(name, ' ');
    size_t n = blank ? (size_t)(blank - name) : strlen(name);
    if (argc < (blank ? 3 : 2) || strlen(argv[1]) != n || memcmp(argv[1], name, n) != 0)
        return false;
    if (blank && strcmp(argv[2], blank + 1) != 0)
        return false;
    *ret_words = blank ? 2 : 1;
    return true;
}

const struct cli_command *args_find_command(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < cli_n_commands; i++)
        if (is_named(cli_commands[i]->name, argc, argv, ret_words))
            return cli_commands[i];
    return NULL;
}

/* The table in getopt_long's form. */
struct getopt_tables {
    struct option options[OPTIONS_MAX + 1];
    char letters[OPTIONS_MAX * 2 + 3];
};

static void fill_tables(const struct cli_command *command, struct getopt_tables *t)
{
    const struct cli_option *o;
    char *p = t->letters;
    memset(t, 0, sizeof *t);
    *p++ = '-'; /* arguments are returned where they stand */
    *p++ = ':'; /* a missing value is told from an unknown option */
    for (size_t i = 0; i < OPTIONS_MAX && (o = args_option_at(command, i)); i++) {
        t->options[i] = (struct option){.name = o->name,
            .has_arg = o->value ? required_argument : no_argument,
            .val = CODE_BASE + (int)i};
        if (o->letter)
            *p++ = o->letter;
        if (o->letter && o->value)
            *p++ = ':';
    }
}

static const struct cli_option *find_option(const struct cli_command *command, int code)
{
    const struct cli_option *o;
    if (code >= CODE_BASE)
        return args_option_at(command, (size_t)(code - CODE_BASE));
    for (size_t i = 0; (o = args_option_at(command, i)); i++)
        if (o->letter == code)
            return o;
    return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    while (*choices) {
        size_t len = strcspn(choices, " ");
        if (len == n && memcmp(choices, value, n) == 0)
            return true;
        choices += len + (choices[len] == ' ');
    }
    return false;
}

static int take_option(
    struct cli *c, struct args *a, const struct cli_option *o, const char *value, struct err *e)
{
    if (o == &args_help_option) {
        a->help = true;
        return 0;
    }
    for (size_t i = 0; i < a->n_given && !o->many; i++)
        if (a->given[i].option == o)
            return cli_usage_error(c, e, "--%s is given twice", o->name);
    if (o->choices && !is_choice(o->choices, value))
        return cli_usage_error(c, e, "--%s %s: must be one of: %s", o->name, value, o->choices);
    a->given[a->n_given++] = (struct args_given){o, o->value ? value : NULL};
    return 0;
}

static int bad_option(struct cli *c, int code, char **argv, struct err *e)
{
    if (code == ':')
        return cli_usage_error(c, e, "%s needs a value", argv[optind - 1]);
    if (optopt > 0 && optopt < CODE_BASE)
        return cli_usage_error(c, e, "unknown option -%c", optopt);
    if (optopt >= CODE_BASE)
        return cli_usage_error(c, e, "%s takes no value", argv[optind - 1]);
    return cli_usage_error(c, e, "unknown option %s", argv[optind - 1]);
}

static int read_all(struct cli *c, struct args *a, int argc, char **argv, struct err *e)
{
    struct getopt_tables t;
    int code;
    fill_tables(a->command, &t);
    opterr = 0;
    optind = 0; /* start over: this may not be the first use in the process */
    while ((code = getopt_long(argc, argv, t.letters, t.options, NULL)) != -1) {
        const struct cli_option *o;
        if (code == CODE_OPERAND) {
            a->operands[a->n_operands++] = optarg;
            if (a->command->options_end && (int)a->n_operands >= a->command->options_end)
                break;
            continue;
        }
        o = code == '?' || code == ':' ? NULL : find_option(a->command, code);
        if (!o)
            return bad_option(c, code, argv, e);
        if (take_option(c, a, o, optarg, e) < 0)
            return -1;
    }
    for (int i = optind; i < argc; i++)
        a->operands[a->n_operands++] = argv[i];
    return 0;
}

static int check_count(struct cli *c, const struct args *a, struct err *e)
{
    const struct cli_command *command = a->command;
    if ((int)a->n_operands < command->args_min)
        return cli_usage_error(
            c, e, "%s is missing", command->arguments[0] ? command->arguments : "an argument");
    if (command->args_max >= 0 && (int)a->n_operands > command->args_max)
        return cli_usage_error(c, e, "unexpected argument '%s'", a->operands[command->args_max]);
    return 0;
}

int args_parse(struct cli *c, const struct cli_command *command, int argc, char **argv,
    struct args *ret, struct err *e)
{
    struct args a = {.command = command,
        .given = calloc((size_t)argc * 2 + 1, sizeof *a.given),
        .operands = calloc((size_t)argc + 1, sizeof *a.operands)};
    int rc = -1;
    if (!a.given || !a.operands)
        (void)err_set(e, ERR_NOMEM, "out of memory");
    else if (read_all(c, &a, argc, argv, e) == 0)
        rc = a.help ? 0 : check_count(c, &a, e);
    if (rc == 0)
        *ret = a;
    else
        args_done(&a);
    return rc;
}

void args_done(struct args *a)
{
    free(a->given);
    free(a->operands);
    *a = (struct args){0};
}

const char *args_next(const struct args *a, const char *name, size_t *at)
{
    while (*at < a->n_given) {
        const struct args_given *g = &a->given[(*at)++];
        if (strcmp(g->option->name, name) == 0)
            return g->value ? g->value : "";
    }
    return NULL;
}

const char *args_value(const struct args *a, const char *name)
{
    const char *last = NULL;
    const char *v;
    size_t at = 0;
    while ((v = args_next(a, name, &at)))
        last = v;
    return last;
}

bool args_flag(const struct args *a, const char *name)
{
    return args_value(a, name) != NULL;
}

/* The factor of a unit in a list "s=1 m=60"; 0 when it is not there. The empty unit is 1. */
static int64_t unit_factor(const char *units, struct slice unit)
{
    if (unit.n == 0)
        return 1;
    while (*units) {
        size_t n = strcspn(units, "=");
        if (slice_eq(unit, slice_of(units, n)))
            return strtoll(units + n + 1, NULL, 10);
        units += strcspn(units, " ");
        units += *units == ' ';
    }
    return 0;
}

int args_number(struct cli *c, const struct args *a, const char *name, const char *units,
    int64_t *ret, struct err *e)
{
    const char *v = args_value(a, name);
    size_t n;
    uint64_t number;
    int64_t factor;
    int64_t product;
    if (!v)
        return 0;
    n = strspn(v, "0123456789");
    factor = unit_factor(units, slice_cstr(v + n));
    if (factor == 0 || !slice_parse_u64(slice_of(v, n), &number) || number > INT64_MAX ||
        __builtin_mul_overflow((int64_t)number, factor, &product))
        return cli_usage_error(
            c, e, "--%s %s: must be a whole number%s%s", name, v, *units ? ", units: " : "", units);
    *ret = product;
    return 1;
}

int args_pair(struct cli *c, const char *option, const char *text, struct slice *ret_key,
    struct slice *ret_value, struct err *e)
{
    const char *eq = strchr(text, '=');
    if (!eq || eq == text)
        return cli_usage_error(c, e, "--%s %s: must be KEY=VALUE", option, text);
    *ret_key = slice_of(text, (size_t)(eq - text));
    *ret_value = slice_cstr(eq + 1);
    return 0;
}
