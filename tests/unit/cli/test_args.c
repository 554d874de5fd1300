/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands: parsing, and help and completion that say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/args.h"

enum { WORDS_MAX = 16 };
static char program[] = "torpor";

/* A run's streams in memory. */
struct capture {
    char *out, *err;
    size_t n_out, n_err;
    struct cli cli;
};

static void capture_open(struct capture *c)
{
    *c = (struct capture){.out = NULL};
    c->cli = (struct cli){.in_fd = -1, .in_is_tty = true, .width = 80};
    c->cli.out = open_memstream(&c->out, &c->n_out);
    c->cli.err = open_memstream(&c->err, &c->n_err);
}

static void capture_done(struct capture *c)
{
    (void)fclose(c->cli.out);
    (void)fclose(c->cli.err);
    free(c->out);
    free(c->err);
}
#define AUTO_CAPTURE __attribute__((cleanup(capture_done)))

/* Runs "torpor <line>", words at blanks. */
static int run(struct capture *c, const char *line)
{
    char text[512];
    char *argv[WORDS_MAX] = {program};
    int argc = 1;
    (void)snprintf(text, sizeof text, "%s", line);
    for (char *p = strtok(text, " "); p && argc < WORDS_MAX - 1; p = strtok(NULL, " "))
        argv[argc++] = p;
    c->cli.is_usage = false;
    argc = cli_run(&c->cli, argc, argv);
    (void)fflush(c->cli.out);
    (void)fflush(c->cli.err);
    return argc;
}

static int parse(const struct cli_command *command, const char *line, struct args *ret)
{
    static char text[512];
    static char *argv[WORDS_MAX];
    struct cli c = {.in_fd = -1};
    struct err e = {0};
    int argc = 1;
    argv[0] = program;
    (void)snprintf(text, sizeof text, "%s", line);
    for (char *p = strtok(text, " "); p && argc < WORDS_MAX - 1; p = strtok(NULL, " "))
        argv[argc++] = p;
    argv[argc] = NULL;
    return args_parse(&c, command, argc, argv, ret, &e) < 0 ? -1 : 0;
}

static void every_command_is_complete(void **state)
{
    for (size_t i = 0; i < cli_n_commands; i++) {
        const struct cli_command *c = cli_commands[i];
        assert_non_null(c->run);
        assert_non_null(c->arguments);
        assert_true(strlen(c->summary) > 10 && c->summary[strlen(c->summary) - 1] != '.');
        assert_true(strlen(c->about) > 20);
        assert_non_null(strstr(c->example, "torpor"));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(c->name, cli_commands[j]->name);
    }
}

/* No option of a command has a name or a letter twice, and all have help. */
static void options_are_distinct(void **state)
{
    for (size_t i = 0; i < cli_n_commands; i++) {
        const struct cli_option *o, *other;
        for (size_t j = 0; (o = args_option_at(cli_commands[i], j)); j++) {
            assert_non_null(o->help);
            for (size_t k = 0; k < j; k++) {
                other = args_option_at(cli_commands[i], k);
                assert_string_not_equal(o->name, other->name);
                assert_true(!o->letter || o->letter != other->letter);
            }
        }
    }
}

static void help_shows_the_table(void **state)
{
    for (size_t i = 0; i < cli_n_commands; i++) {
        AUTO_CAPTURE struct capture c;
        const struct cli_option *o;
        char text[256];
        capture_open(&c);
        (void)snprintf(text, sizeof text, "%s --help", cli_commands[i]->name);
        assert_int_equal(run(&c, text), EXIT_OK);
        assert_non_null(strstr(c.out, cli_commands[i]->about));
        assert_non_null(strstr(c.out, cli_commands[i]->example));
        assert_non_null(strstr(c.out, "Exit status:"));
        for (size_t j = 0; (o = args_option_at(cli_commands[i], j)); j++) {
            (void)snprintf(text, sizeof text, "--%s%s%s", o->name, o->value ? " " : "",
                o->value ? o->value : "");
            assert_non_null(strstr(c.out, text));
            assert_non_null(strstr(c.out, o->help));
        }
        for (char *line = strtok(c.out, "\n"); line; line = strtok(NULL, "\n"))
            if (strlen(line) > 100)
                fail_msg("longer than 100 columns: %s", line);
    }
}

static void help_of_the_program_lists_all(void **state)
{
    AUTO_CAPTURE struct capture c;
    capture_open(&c);
    assert_int_equal(run(&c, "help"), EXIT_OK);
    for (size_t i = 0; i < cli_n_commands; i++) {
        assert_non_null(strstr(c.out, cli_commands[i]->name));
        assert_non_null(strstr(c.out, cli_commands[i]->summary));
    }
}

static void completion_shows_the_table(void **state)
{
    static const char *const shells[] = {"completion bash", "completion zsh"};
    for (size_t s = 0; s < ARRAY_LEN(shells); s++) {
        AUTO_CAPTURE struct capture c;
        capture_open(&c);
        assert_int_equal(run(&c, shells[s]), EXIT_OK);
        for (size_t i = 0; i < cli_n_commands; i++) {
            const struct cli_option *o;
            char text[64];
            const char *at;
            (void)snprintf(text, sizeof text, "    '%s')\n", cli_commands[i]->name);
            at = strstr(c.out, text);
            assert_non_null(at);
            for (size_t j = 0; (o = args_option_at(cli_commands[i], j)); j++) {
                (void)snprintf(text, sizeof text, "--%s", o->name);
                at = strstr(at, text);
                assert_non_null(at);
            }
        }
    }
}

static void usage_errors_exit_with_2(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {{"bogus", "no command 'bogus'"}, {"template", "build, ls"},
        {"snapshot", "create, ls, rm"}, {"snapshot rm ../x", "a name has 1 to 64"},
        {"snapshot create sbaaa --name .x", "a name has"}, {"pause", "ID is missing"},
        {"resume a b", "unexpected argument 'b'"}, {"template bogus", "build, ls"},
        {"ls --bogus", "unknown option --bogus"}, {"ls -x", "unknown option -x"},
        {"ls extra", "unexpected argument 'extra'"}, {"ls --status", "--status needs a value"},
        {"ls --all=1", "--all=1 takes no value"}, {"ls -o yaml", "must be one of: table json id"},
        {"ls --status running --status paused", "given twice"}, {"rm", "ID... is missing"},
        {"exec sbaaa", "is missing"}, {"create --vcpus two", "whole number"},
        {"create --vcpus 1G", "whole number"}, {"create --memory 1T", "units: M=1 G=1024"},
        {"create --timeout 999999999999999d", "whole number"},
        {"create --env NOPE", "must be KEY=VALUE"}, {"create --env =x", "must be KEY=VALUE"},
        {"ls --all --status paused", "exclude each other"}, {"cp a b", "one of the two"},
        {"cp sbaaa:a sbbbb:b", "one of the two"}, {"completion fish", "must be bash or zsh"},
        {"template build other", "must be minimal or base"},
        {"template build minimal --force", "--force is for base"}, {"help bogus", "no command"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_CAPTURE struct capture c;
        capture_open(&c);
        if (run(&c, bad[i].line) != EXIT_USAGE)
            fail_msg("%s: did not exit with 2", bad[i].line);
        if (!strstr(c.err, bad[i].says) || !strstr(c.err, "Try: torpor"))
            fail_msg("%s: said %s", bad[i].line, c.err);
        assert_int_equal(c.n_out, 0);
    }
}

static void nothing_at_all_shows_help(void **state)
{
    AUTO_CAPTURE struct capture c;
    capture_open(&c);
    assert_int_equal(run(&c, ""), EXIT_USAGE);
    assert_non_null(strstr(c.err, "Commands:"));
}

static void options_of_the_command_stay_its_own(void **state)
{
    static const char *const lines[] = {"--timeout 5 sbaaa ls -l --all",
        "sbaaa --timeout 5 ls -l --all", "sbaaa --timeout 5 -- ls -l --all",
        "--timeout=5 -- sbaaa ls -l --all"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        CLEANUP(args_done) struct args a = {0};
        assert_int_equal(parse(&command_exec, lines[i], &a), 0);
        assert_int_equal(a.n_operands, 4);
        assert_string_equal(a.operands[0], "sbaaa");
        assert_string_equal(a.operands[1], "ls");
        assert_string_equal(a.operands[2], "-l");
        assert_string_equal(a.operands[3], "--all");
        assert_string_equal(args_value(&a, "timeout"), "5");
    }
}

static void many_values_come_in_order(void **state)
{
    CLEANUP(args_done) struct args a = {0};
    size_t at = 0;
    assert_int_equal(parse(&command_create, "-e A=1 --env B=2 -e A=3", &a), 0);
    assert_string_equal(args_next(&a, "env", &at), "A=1");
    assert_string_equal(args_next(&a, "env", &at), "B=2");
    assert_string_equal(args_next(&a, "env", &at), "A=3");
    assert_null(args_next(&a, "env", &at));
    assert_null(args_value(&a, "metadata"));
}

static void numbers_have_units(void **state)
{
    struct cli c = {.in_fd = -1};
    struct err e = {0};
    int64_t v = -1;
    CLEANUP(args_done) struct args a = {0};
    assert_int_equal(parse(&command_create, "--timeout 10m --memory 2G", &a), 0);
    assert_int_equal(args_number(&c, &a, "timeout", "s=1 m=60", &v, &e), 1);
    assert_int_equal(v, 600);
    assert_int_equal(args_number(&c, &a, "memory", "M=1 G=1024", &v, &e), 1);
    assert_int_equal(v, 2048);
    assert_int_equal(args_number(&c, &a, "vcpus", "", &v, &e), 0);
    assert_int_equal(v, 2048);
}

static void kinds_have_exit_statuses(void **state)
{
    static const struct {
        enum err_kind kind;
        int status;
    } expected[] = {{ERR_NOT_FOUND, 3}, {ERR_NO_CAPACITY, 4}, {ERR_UNAVAILABLE, 4},
        {ERR_TEMPLATE_BUILDING, 4}, {ERR_TIMEOUT, 124}, {ERR_INVALID, 1}, {ERR_UNAUTHORIZED, 1},
        {ERR_AGENT, 1}, {ERR_BAD_STATE, 1}};
    for (size_t i = 0; i < ARRAY_LEN(expected); i++)
        assert_int_equal(cli_exit_status(expected[i].kind), expected[i].status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_is_complete),
        cmocka_unit_test(options_are_distinct),
        cmocka_unit_test(help_shows_the_table),
        cmocka_unit_test(help_of_the_program_lists_all),
        cmocka_unit_test(completion_shows_the_table),
        cmocka_unit_test(usage_errors_exit_with_2),
        cmocka_unit_test(nothing_at_all_shows_help),
        cmocka_unit_test(options_of_the_command_stay_its_own),
        cmocka_unit_test(many_values_come_in_order),
        cmocka_unit_test(numbers_have_units),
        cmocka_unit_test(kinds_have_exit_statuses),
    };
    return cmocka_run_group_tests_name("cli/args", tests, NULL, NULL);
}
