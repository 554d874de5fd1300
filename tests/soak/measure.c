/* SPDX-License-Identifier: Apache-2.0 */
/* What a Torpor without sandboxes holds. */
#include "soak.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
    RSS_NOISE_KIB = 1024, /* arenas of the allocator, pages of SQLite */
    FDS_NOISE = 4,        /* kept connections */
    THREADS_NOISE = 4,    /* of an elastic pool */
    NOISE_PERCENT = 10,
};

static long status_of(pid_t pid, const char *field)
{
    AUTO_BUF struct buf text = BUF_INIT(65536);
    char path[64];
    const char *at;
    struct err e = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (io_read_file(AT_FDCWD, path, &text, &e) < 0 || !(at = strstr(text.p, field)))
        return -1;
    return strtol(at + strlen(field), NULL, 10);
}

static long fds_of(pid_t pid)
{
    char path[64];
    long n = 0;
    DIR *d;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        (void)closedir(d);
    return n - 2;
}

static long lines_of(const struct buf *b)
{
    long n = 0;
    for (size_t i = 0; i < b->len; i++)
        n += b->p[i] == '\n';
    return n;
}

void measure(const struct stack *s, struct measured *ret)
{
    AUTO_BUF struct buf picture = BUF_INIT(1 << 22);
    host_picture(s, &picture);
    *ret = (struct measured){
        .agent_kib = status_of(s->agent, "VmRSS:"),
        .control_kib = status_of(s->control, "VmRSS:"),
        .agent_fds = fds_of(s->agent),
        .control_fds = fds_of(s->control),
        .agent_threads = status_of(s->agent, "Threads:"),
        .control_threads = status_of(s->control, "Threads:"),
        .host_objects = lines_of(&picture),
    };
    disk_use(s, &ret->disk, NULL);
}

void measure_print_head(void)
{
    printf("%8s %22s %16s %16s %20s %6s\n", "second", "agent, control KiB", "descriptors",
        "threads", "disk files, bytes", "host");
}

void measure_print(int64_t second, const struct measured *m)
{
    printf("%8lld %11ld %10ld %8ld %7ld %8ld %7ld %8lld %11lld %6ld\n", (long long)second,
        m->agent_kib, m->control_kib, m->agent_fds, m->control_fds, m->agent_threads,
        m->control_threads, m->disk.files, m->disk.bytes, m->host_objects);
    (void)fflush(stdout);
}

static int grew(const char *what, long long a, long long b, long long noise)
{
    if (b <= a + noise + a * NOISE_PERCENT / 100)
        return 0;
    printf("GROWN: %s from %lld to %lld\n", what, a, b);
    return 1;
}

int measure_compare(const struct measured *a, const struct measured *b)
{
    return grew("memory of the agent, KiB", a->agent_kib, b->agent_kib, RSS_NOISE_KIB) +
           grew("memory of the control plane, KiB", a->control_kib, b->control_kib, RSS_NOISE_KIB) +
           grew("descriptors of the agent", a->agent_fds, b->agent_fds, FDS_NOISE) +
           grew("descriptors of the control plane", a->control_fds, b->control_fds, FDS_NOISE) +
           grew("threads of the agent", a->agent_threads, b->agent_threads, THREADS_NOISE) +
           grew("threads of the control plane", a->control_threads, b->control_threads,
               THREADS_NOISE) +
           grew("files", a->disk.files, b->disk.files, 0) +
           grew("bytes on disk", a->disk.bytes, b->disk.bytes, 0) +
           grew("links, namespaces, rules, processes", a->host_objects, b->host_objects, 0);
}
