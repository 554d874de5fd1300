/* SPDX-License-Identifier: Apache-2.0 */
/* What the host and the agent hold. */
#include "host.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"

enum { TEXT_MAX = 1 << 20, LINES_MAX = 8192, PATH_BYTES = 512 };

/* Text by the line. */
struct lines {
    char *items[LINES_MAX];
    size_t n;
};

static void add_line(struct lines *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_line(struct lines *l, const char *format, ...)
{
    va_list args;
    assert_true(l->n < LINES_MAX);
    va_start(args, format);
    assert_true(vasprintf(&l->items[l->n], format, args) >= 0);
    va_end(args);
    l->n++;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends them in order, and forgets them. */
static void put_lines(struct lines *l, struct buf *ret)
{
    qsort(l->items, l->n, sizeof l->items[0], compare_lines);
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(ret, "%s\n", l->items[i]);
        free(l->items[i]);
    }
    l->n = 0;
}

/* --- the kernel --- */

static void add_mounts(const struct stack *s, struct lines *l)
{
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    char netns[48];
    char run[128];
    struct err e = {0};
    (void)snprintf(netns, sizeof netns, "/run/netns/tp%u-", s->instance);
    (void)snprintf(run, sizeof run, "%s/%u/", s->run_base, s->instance);
    assert_int_equal(io_read_file(AT_FDCWD, "/proc/self/mountinfo", &text, &e), 0);
    for (char *line = strtok(text.p, "\n"); line; line = strtok(NULL, "\n")) {
        char at[PATH_BYTES];
        if (sscanf(line, "%*s %*s %*s %*s %511s", at) == 1 &&
            (strstr(at, netns) || strstr(at, run) || strstr(at, s->root)))
            add_line(l, "mount %s", at);
    }
}

static void add_loops(const struct stack *s, struct lines *l)
{
    DIR *d = opendir("/sys/block");
    const struct dirent *ent;
    while (d && (ent = readdir(d))) {
        AUTO_BUF struct buf file = BUF_INIT(4096);
        char path[PATH_BYTES];
        struct err e = {0};
        (void)snprintf(path, sizeof path, "/sys/block/%.64s/loop/backing_file", ent->d_name);
        if (strncmp(ent->d_name, "loop", 4) == 0 && io_read_file(AT_FDCWD, path, &file, &e) == 0 &&
            file.p && strstr(file.p, s->root))
            add_line(l, "loop %s", strtok(file.p, "\n"));
    }
    if (d)
        (void)closedir(d);
}

/* Each rule and each element is a line; sets have no order. */
static void add_nft(const struct stack *s, struct lines *l)
{
    char name[16];
    const char *const argv[] = {"/usr/sbin/nft", "list", "table", "inet", name, NULL};
    AUTO_BUF struct buf text = BUF_INIT(TEXT_MAX);
    char *save = NULL;
    (void)snprintf(name, sizeof name, "tp%u", s->instance);
    host_capture(argv, &text);
    for (char *p = text.p ? strtok_r(text.p, ",{}\n", &save) : NULL; p;
         p = strtok_r(NULL, ",{}\n", &save)) {
        while (isspace((unsigned char)*p))
            p++;
        if (*p)
            add_line(l, "nft %s", p);
    }
}

void host_kernel_picture(const struct stack *s, struct buf *ret)
{
    static struct lines lines;
    add_mounts(s, &lines);
    add_loops(s, &lines);
    add_nft(s, &lines);
    put_lines(&lines, ret);
}

/* --- the agent --- */

/* Calls `each` with what every descriptor of the agent refers to. */
static void each_descriptor(
    const struct stack *s, void (*each)(void *ctx, const char *target), void *ctx)
{
    char path[PATH_BYTES];
    DIR *d;
    const struct dirent *ent;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)s->agent);
    d = opendir(path);
    assert_non_null(d);
    while ((ent = readdir(d))) {
        char target[PATH_BYTES];
        ssize_t n = readlinkat(dirfd(d), ent->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue; /* closed meanwhile, or "." */
        target[n] = '\0';
        each(ctx, target);
    }
    (void)closedir(d);
}

static void add_descriptor(void *ctx, const char *target)
{
    if (strncmp(target, "socket:", 7) != 0)
        add_line(ctx, "fd %.*s", (int)strcspn(target, "0123456789"), target);
}

void agent_descriptors(const struct stack *s, struct buf *ret)
{
    static struct lines lines;
    each_descriptor(s, add_descriptor, &lines);
    put_lines(&lines, ret);
}

static void count_socket(void *ctx, const char *target)
{
    *(size_t *)ctx += strncmp(target, "socket:", 7) == 0;
}

size_t agent_sockets(const struct stack *s)
{
    size_t n = 0;
    each_descriptor(s, count_socket, &n);
    return n;
}

/* --- comparing --- */

/* How often it is there. */
static size_t count_line(const char *text, const char *line, size_t n)
{
    size_t count = 0;
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n')
        count += strcspn(p, "\n") == n && strncmp(p, line, n) == 0;
    return count;
}

static void print_missing(const char *mark, const char *from, const char *to)
{
    for (const char *p = from; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        size_t n = strcspn(p, "\n");
        if (count_line(from, p, n) > count_line(to, p, n))
            print_message("# %s %.*s\n", mark, (int)n, p);
    }
}

void print_difference(const char *before, const char *now)
{
    print_missing("gone:", before, now);
    print_missing("left:", now, before);
}

unsigned remove_unlisted(const char *folder, const struct buf *listed)
{
    DIR *d = opendir(folder);
    const struct dirent *ent;
    unsigned n = 0;
    assert_non_null(d);
    while ((ent = readdir(d))) {
        char id[64];
        const char *dot = strchr(ent->d_name, '.');
        if (!dot || dot == ent->d_name || strcmp(dot, ".json") != 0)
            continue;
        (void)snprintf(id, sizeof id, "%.*s", (int)(dot - ent->d_name), ent->d_name);
        if (listed->p && strstr(listed->p, id))
            continue;
        assert_int_equal(unlinkat(dirfd(d), ent->d_name, 0), 0);
        n++;
    }
    (void)closedir(d);
    return n;
}
