/* SPDX-License-Identifier: Apache-2.0 */
/* What the http library's thread model costs: throughput, idle connections, blocked streams. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "http/server.h"
#include "load.h"

enum {
    CONNECTIONS = 64,
    ROUNDS = 5,
    ROUND_MS = 700,
    IDLE = 10000,
    IDLE_MIB_MAX = 30,
    BLOCKED = 1500,
    BLOCKED_CONNECTIONS = 8,
    PATIENCE_MS = 20000,
};

/* "/block" says that it began and waits until its client leaves. */
static void handle(struct http_exchange *x, void *ctx)
{
    struct err e = {0};
    if (!slice_is(http_request(x)->path, "/block")) {
        (void)http_reply(x, 200, "text/plain", SLICE_LIT(LOAD_BODY));
        return;
    }
    if (http_reply_begin(x, 200, "text/plain", /* length= */ -1, &e) == 0 &&
        http_reply_write(x, LOAD_BODY, sizeof LOAD_BODY - 1, &e) == 0)
        (void)io_wait(http_fd(x), POLLRDHUP, DEADLINE_NEVER, &e);
}

static void serve_ours(int listen_fd, int stop_fd)
{
    struct http_server_config config = {.listen_fd = listen_fd,
        .handler = handle,
        .threads_max = BLOCKED + 100,
        .connections_max = 2 * IDLE};
    struct err e = {0};
    char byte;
    struct http_server *s = http_server_start(&config, &e);
    if (!s) {
        (void)fprintf(stderr, "bench: %s\n", e.msg);
        exit(1);
    }
    (void)io_read(stop_fd, &byte, 1, DEADLINE_NEVER, &e);
    http_server_stop(s);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, compare);
    return v[n / 2];
}

static void throughput(void)
{
    static struct samples ours_us;
    static struct samples raw_us;
    struct served ours;
    struct served raw;
    double ours_rate[ROUNDS];
    double raw_rate[ROUNDS];
    double ratio;
    served_start(&ours, serve_ours);
    served_start(&raw, serve_raw);
    for (int i = 0; i < ROUNDS; i++) {
        ours_rate[i] = load_run(&ours, CONNECTIONS, ROUND_MS, &ours_us);
        raw_rate[i] = load_run(&raw, CONNECTIONS, ROUND_MS, &raw_us);
    }
    served_stop(&ours);
    served_stop(&raw);
    ratio = median(ours_rate, ROUNDS) / median(raw_rate, ROUNDS);
    report_ratio("one request of 64 keep-alive connections, against a bare epoll loop", &ours_us,
        &raw_us, 1 / 0.6);
    printf("    %.0f requests/s; raw %.0f requests/s\n", median(ours_rate, ROUNDS),
        median(raw_rate, ROUNDS));
    report_value("requests/s of 64 keep-alive connections, ours over raw", ratio, "", ">= 0.6",
        ratio >= 0.6);
}

/* The answer has come. */
static bool wait_answer(int fd)
{
    char text[1024];
    size_t n = 0;
    struct err e = {0};
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    while (n < sizeof text - 1) {
        ssize_t got = io_read(fd, text + n, sizeof text - 1 - n, deadline, &e);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        if (strstr(text, LOAD_BODY))
            return true;
    }
    return false;
}

/* Opens `n` connections whose GET `path` was answered. Returns how many. */
static int open_many(const struct served *s, int *fds, int n, const char *path)
{
    for (int i = 0; i < n; i++) {
        fds[i] = load_open(s, path);
        if (fds[i] < 0 || !wait_answer(fds[i]))
            return i;
    }
    return n;
}

static void close_many(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        (void)close(fds[i]);
}

static void idle_memory(void)
{
    static int fds[IDLE];
    struct served s;
    long before;
    double added;
    int n;
    served_start(&s, serve_ours);
    (void)open_many(&s, fds, 1, "/");
    before = served_resident_kib(&s);
    n = open_many(&s, fds + 1, IDLE - 1, "/") + 1;
    added = (double)(served_resident_kib(&s) - before) / 1024;
    close_many(fds, n);
    served_stop(&s);
    if (n < IDLE)
        report_unmeasured("resident memory of 10,000 idle connections", "could not open them");
    else
        report_value("resident memory that 10,000 idle connections add", added, "MiB", "<= 30",
            added <= IDLE_MIB_MAX);
}

static void blocked_streams(void)
{
    static struct samples none;
    static struct samples beside;
    static int fds[BLOCKED];
    struct served s;
    double ratio;
    int n;
    served_start(&s, serve_ours);
    (void)load_run(&s, BLOCKED_CONNECTIONS, ROUND_MS, &(struct samples){0});
    (void)load_run(&s, BLOCKED_CONNECTIONS, ROUND_MS, &none);
    n = open_many(&s, fds, BLOCKED, "/block");
    (void)load_run(&s, BLOCKED_CONNECTIONS, ROUND_MS, &beside);
    close_many(fds, n);
    served_stop(&s);
    if (n < BLOCKED) {
        report_unmeasured("short requests beside 1,500 blocked streams", "could not open them");
        return;
    }
    ratio = (double)samples_percentile(&beside, 99) / (double)samples_percentile(&none, 99);
    report_ratio("one request beside 1,500 blocked streams, against none", &beside, &none, 2);
    report_value("the same, p99 over p99", ratio, "", "<= 2", ratio <= 2);
}

void bench_http(void)
{
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    throughput();
    blocked_streams();
    if (files.rlim_cur < IDLE + 100)
        report_unmeasured("resident memory of 10,000 idle connections", "RLIMIT_NOFILE too low");
    else
        idle_memory();
}
