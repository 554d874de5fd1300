/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, as a program, against a whole Torpor and a real VM. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/rand.h"
#include "stack.h"

enum { OUT_MAX = 64 << 20, WORDS_MAX = 32, FILE_BYTES = 5 << 20 };

static struct stack stack;
static bool started;
static char id[32];

/* A run of torpor. */
struct run {
    struct buf out, err;
    int status;
};

static void run_done(struct run *r)
{
    buf_done(&r->out);
    buf_done(&r->err);
}
#define AUTO_RUN __attribute__((cleanup(run_done)))

static int open_temporary(const char *name)
{
    char path[128];
    int fd;
    (void)snprintf(path, sizeof path, "%s/%s", stack.root, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void read_temporary(const char *name, struct buf *ret)
{
    char path[128];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/%s", stack.root, name);
    *ret = BUF_INIT(OUT_MAX);
    if (io_read_file(AT_FDCWD, path, ret, &e) < 0)
        fail_msg("%s", e.msg);
}

/* Runs `torpor WORDS...` with this standard input. */
static void torpor(struct run *r, const char *input, const char *const *words)
{
    const char *argv[WORDS_MAX] = {TORPOR_PROGRAM};
    char url[64], key[96];
    char *const envp[] = {url, key, NULL};
    AUTO_CLOSE int in = open_temporary("cli.in");
    AUTO_CLOSE int out = open_temporary("cli.out");
    AUTO_CLOSE int err = open_temporary("cli.err");
    struct err e = {0};
    pid_t pid;
    size_t n = 1;
    (void)snprintf(url, sizeof url, "TORPOR_URL=http://127.0.0.1:%d", stack.port);
    (void)snprintf(key, sizeof key, "TORPOR_API_KEY=%s", stack.key);
    for (; *words && n < WORDS_MAX - 1; words++)
        argv[n++] = *words;
    assert_int_equal(write(in, input, strlen(input)), strlen(input));
    assert_int_equal(lseek(in, 0, SEEK_SET), 0);
    if (proc_spawn(&(struct proc_spawn){.path = TORPOR_PROGRAM,
                       .argv = (char *const *)(uintptr_t)argv,
                       .envp = envp,
                       .fds = (const int[]){in, out, err},
                       .n_fds = 3},
            &pid, &e) < 0 ||
        proc_reap(pid, &r->status, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(WIFEXITED(r->status));
    r->status = WEXITSTATUS(r->status);
    read_temporary("cli.out", &r->out);
    read_temporary("cli.err", &r->err);
}

#define TORPOR(r, input, ...) torpor(&(r), input, (const char *const[]){__VA_ARGS__, NULL})

static void assert_status(const struct run *r, int status)
{
    if (r->status != status)
        fail_msg("exit status %d instead of %d: %s", r->status, status, r->err.p ? r->err.p : "");
}

static const char *text(const struct buf *b)
{
    return b->p ? b->p : "";
}

static int setup(void **state)
{
    AUTO_RUN struct run r = {0};
    const char *why = stack_unavailable();
    if (why) {
        print_message("# skip: %s\n", why);
        return 0;
    }
    stack_start(&stack);
    started = true;
    TORPOR(r, "", "create", "--memory", "256M", "-e", "GREETING=hello", "--metadata", "owner=me");
    assert_status(&r, 0);
    (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(text(&r.out), "\n"), text(&r.out));
    assert_int_equal(strlen(id), 22);
    return 0;
}

static int teardown(void **state)
{
    if (started)
        stack_stop(&stack);
    return 0;
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (!started)                                                                              \
            skip();                                                                                \
    } while (0)

static void ls_shows_it(void **state)
{
    AUTO_RUN struct run table = {0};
    AUTO_RUN struct run other = {0};
    NEEDS_STACK();
    TORPOR(table, "", "ls", "-o", "table", "--metadata", "owner=me");
    assert_status(&table, 0);
    assert_non_null(strstr(text(&table.out), id));
    assert_non_null(strstr(text(&table.out), "256 MiB"));
    TORPOR(other, "", "ls", "--metadata", "owner=you");
    assert_string_equal(text(&other.out), "[]\n");
}

static void exec_becomes_the_command(void **state)
{
    AUTO_RUN struct run r = {0};
    char prefix[8];
    NEEDS_STACK();
    (void)snprintf(prefix, sizeof prefix, "%.7s", id);
    TORPOR(r, "line\n", "exec", prefix, "-e", "MORE=x", "--", "sh", "-c",
        "cat; echo $GREETING$MORE; echo oops >&2; exit 9");
    assert_status(&r, 9);
    assert_string_equal(text(&r.out), "line\nhellox\n");
    assert_string_equal(text(&r.err), "oops\n");
}

static void exec_output_is_binary_safe(void **state)
{
    AUTO_RUN struct run r = {0};
    NEEDS_STACK();
    TORPOR(r, "", "exec", id, "--", "printf", "\\377\\000\\376");
    assert_status(&r, 0);
    assert_int_equal(r.out.len, 3);
    assert_memory_equal(r.out.p, "\377\0\376", 3);
}

static void exec_out_of_time(void **state)
{
    AUTO_RUN struct run r = {0};
    NEEDS_STACK();
    TORPOR(r, "", "exec", id, "--timeout", "1", "--", "sh", "-c", "echo so far; sleep 60");
    assert_status(&r, 124);
    assert_string_equal(text(&r.out), "so far\n");
    assert_non_null(strstr(text(&r.err), "out of time"));
}

static void files_come_back_as_they_went(void **state)
{
    AUTO_RUN struct run in = {0};
    AUTO_RUN struct run out = {0};
    AUTO_RUN struct run missing = {0};
    AUTO_BUF struct buf back = {0};
    AUTO_FREE char *bytes = malloc(FILE_BYTES);
    AUTO_CLOSE int fd = -1;
    struct err e = {0};
    char local[128], remote[64], returned[128];
    NEEDS_STACK();
    assert_non_null(bytes);
    rand_bytes(bytes, FILE_BYTES);
    fd = open_temporary("file");
    assert_int_equal(io_write_full(fd, bytes, FILE_BYTES, DEADLINE_NEVER, &e), 0);
    (void)snprintf(local, sizeof local, "%s/file", stack.root);
    (void)snprintf(returned, sizeof returned, "%s/returned", stack.root);
    (void)snprintf(remote, sizeof remote, "%s:/tmp/new/", id);
    TORPOR(in, "", "cp", local, remote);
    assert_status(&in, 0);
    (void)snprintf(remote, sizeof remote, "%s:/tmp/new/file", id);
    TORPOR(out, "", "cp", remote, returned);
    assert_status(&out, 0);
    read_temporary("returned", &back);
    assert_int_equal(back.len, FILE_BYTES);
    assert_memory_equal(back.p, bytes, FILE_BYTES);
    (void)snprintf(remote, sizeof remote, "%s:/nope", id);
    TORPOR(missing, "", "cp", remote, "-");
    assert_status(&missing, 3);
    assert_int_equal(missing.out.len, 0);
}

static void ping_and_templates(void **state)
{
    AUTO_RUN struct run ping = {0};
    AUTO_RUN struct run templates = {0};
    NEEDS_STACK();
    TORPOR(ping, "", "ping", id);
    assert_status(&ping, 0);
    TORPOR(templates, "", "template", "ls", "-o", "id");
    assert_status(&templates, 0);
    assert_non_null(strstr(text(&templates.out), "minimal\n"));
}

static void errors_are_told_apart(void **state)
{
    AUTO_RUN struct run vcpus = {0};
    AUTO_RUN struct run name = {0};
    AUTO_RUN struct run unknown = {0};
    NEEDS_STACK();
    TORPOR(vcpus, "", "create", "--vcpus", "99");
    assert_status(&vcpus, 1);
    assert_non_null(strstr(text(&vcpus.err), "field vcpus, allowed: 1..32"));
    TORPOR(name, "", "create", "--template", "nope");
    assert_status(&name, 3);
    TORPOR(unknown, "", "exec", "sbzzzzzzzzzzzzzzzzzzzz", "true");
    assert_status(&unknown, 3);
}

/* The last one: it ends the sandbox. */
static void rm_goes_on(void **state)
{
    AUTO_RUN struct run r = {0};
    AUTO_RUN struct run ls = {0};
    char expected[40];
    NEEDS_STACK();
    TORPOR(r, "", "rm", "sbzzzzzzzzzzzzzzzzzzzz", id);
    assert_status(&r, 3);
    (void)snprintf(expected, sizeof expected, "%s\n", id);
    assert_string_equal(text(&r.out), expected);
    TORPOR(ls, "", "ls", "-o", "id");
    assert_string_equal(text(&ls.out), "");
    assert_int_equal(find_vmm(id), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ls_shows_it),
        cmocka_unit_test(exec_becomes_the_command),
        cmocka_unit_test(exec_output_is_binary_safe),
        cmocka_unit_test(exec_out_of_time),
        cmocka_unit_test(files_come_back_as_they_went),
        cmocka_unit_test(ping_and_templates),
        cmocka_unit_test(errors_are_told_apart),
        cmocka_unit_test(rm_goes_on),
    };
    return cmocka_run_group_tests_name("e2e/cli", tests, setup, teardown);
}
