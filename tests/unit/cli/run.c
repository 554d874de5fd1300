/* SPDX-License-Identifier: Apache-2.0 */
/* Running command lines. Standard output is a real file: cp writes to its descriptor. */
#include "run.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORDS_MAX = 32 };

static FILE *open_memory(void)
{
    int fd = memfd_create("stream", MFD_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w+");
    assert_non_null(f);
    return f;
}

static char *close_memory(FILE *f, size_t *ret_n)
{
    long n;
    char *text;
    (void)fflush(f);
    n = lseek(fileno(f), 0, SEEK_END);
    text = calloc(1, (size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(pread(fileno(f), text, (size_t)n, 0), n);
    (void)fclose(f);
    *ret_n = (size_t)n;
    return text;
}

void run_torpor(struct run *r, const char *const *argv, const char *input, bool is_tty)
{
    static char program[] = "torpor";
    char *words[WORDS_MAX] = {program};
    int argc = 1;
    struct cli c = {.in_fd = memfd_create("stdin", MFD_CLOEXEC),
        .in_is_tty = !input,
        .out_is_tty = is_tty,
        .width = 80,
        .out = open_memory(),
        .err = open_memory()};
    if (input) {
        assert_int_equal(write(c.in_fd, input, strlen(input)), strlen(input));
        assert_int_equal(lseek(c.in_fd, 0, SEEK_SET), 0);
    }
    for (; *argv && argc < WORDS_MAX - 1; argv++)
        words[argc++] = (char *)(uintptr_t)*argv;
    r->status = cli_run(&c, argc, words);
    (void)close(c.in_fd);
    r->out = close_memory(c.out, &r->n_out);
    r->err = close_memory(c.err, &r->n_err);
}

void run_done(struct run *r)
{
    free(r->out);
    free(r->err);
}
