/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without libFuzzer, so that each test run tries it with any compiler.
 *
 *   TARGET FILE                     that input only, to repeat a failure
 *   TARGET FOLDER [SEED [COUNT]]    all files of the folder, then mutations of them, for
 *                                   FUZZ_DRIVER_MS milliseconds (environment, default 10000), or
 *                                   COUNT of them
 *
 * Theory of operation. The seed is random unless given, and printed. Mutation number i follows from
 * seed and i alone. When the target crashes, the input at hand is written to `crash-SEED-i` in the
 * working folder, by the sanitizer's death callback or by a signal handler, whichever comes first.
 * Inputs are copied to heap memory of their exact size: a read past the end is seen by the
 * sanitizer.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"

enum {
    INPUT_BYTES_MAX = 64 * 1024,
    INPUTS_MAX = 1024,
    BUDGET_MS = 10000,
    LOOK_EVERY = 64, /* mutations between looks at the clock */
    STEPS_MAX = 6    /* changes to one input */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Only in programs that are linked with a sanitizer. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static struct buf inputs[INPUTS_MAX];
static size_t n_inputs;

/* What is being tried, for the report of a crash. */
static struct {
    char name[64];
    const uint8_t *data;
    size_t size;
} now;

static void write_all(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put <= 0)
            return;
        at += put;
        n -= (size_t)put;
    }
}

/* Async-signal-safe. */
static void report_crash(void)
{
    int fd;
    if (!now.data)
        return;
    fd = open(now.name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    write_all(fd, now.data, now.size);
    (void)close(fd);
    write_all(STDERR_FILENO, "the input is in ", 16);
    write_all(STDERR_FILENO, now.name, strlen(now.name));
    write_all(STDERR_FILENO, "\n", 1);
    now.data = NULL;
}

static void on_signal(int sig)
{
    report_crash();
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void watch_for_crashes(void)
{
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(report_crash);
    else
        (void)signal(SIGSEGV, on_signal);
    (void)signal(SIGABRT, on_signal);
}

static void try_input(const char *name, const void *data, size_t size)
{
    AUTO_FREE uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    (void)snprintf(now.name, sizeof now.name, "%s", name);
    now.size = size;
    now.data = copy;
    (void)LLVMFuzzerTestOneInput(copy, size);
    now.data = NULL;
}

static void load(int dirfd, const char *name)
{
    struct err e = {0};
    struct buf *b = &inputs[n_inputs];
    *b = BUF_INIT(INPUT_BYTES_MAX);
    if (n_inputs == INPUTS_MAX || io_read_file(dirfd, name, b, &e) < 0) {
        (void)fprintf(stderr, "%s: %s\n", name, e.kind ? e.msg : "too many inputs");
        exit(2);
    }
    n_inputs++;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_input(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void load_folder(const char *path)
{
    AUTO_CLOSE int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent **names = NULL;
    int n = dirfd < 0 ? -1 : scandir(path, &names, is_input, by_name);
    if (n <= 0) {
        (void)fprintf(stderr, "%s: no inputs\n", path);
        exit(2);
    }
    for (int i = 0; i < n; i++) {
        load(dirfd, names[i]->d_name);
        free(names[i]);
    }
    free(names);
}

/* --- mutation --- */

/* SplitMix64: every seed gives a good sequence, also 0, 1, 2... */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* A number below `n`, more often a small one. */
static size_t small_random(uint64_t *state, size_t n)
{
    size_t top = next_random(state) % n;
    return next_random(state) % (top + 1);
}

struct mutant {
    uint8_t data[INPUT_BYTES_MAX];
    size_t size;
};

static void insert_bytes(struct mutant *m, size_t at, const void *src, size_t n)
{
    if (n > sizeof m->data - m->size)
        n = sizeof m->data - m->size;
    memmove(m->data + at + n, m->data + at, m->size - at);
    memcpy(m->data + at, src, n);
    m->size += n;
}

static void remove_bytes(struct mutant *m, size_t at, size_t n)
{
    if (n > m->size - at)
        n = m->size - at;
    memmove(m->data + at, m->data + at + n, m->size - at - n);
    m->size -= n;
}

/* A run from another input. */
static void insert_other(struct mutant *m, size_t at, uint64_t *state)
{
    const struct buf *from = &inputs[next_random(state) % n_inputs];
    size_t start;
    if (from->len == 0)
        return;
    start = next_random(state) % from->len;
    insert_bytes(m, at, from->p + start, small_random(state, from->len - start) + 1);
}

/* A run of the input once more. */
static void insert_again(struct mutant *m, size_t at, uint64_t *state)
{
    uint8_t run[64];
    size_t n = small_random(state, sizeof run) + 1;
    if (n > m->size - at)
        n = m->size - at;
    memcpy(run, m->data + at, n);
    insert_bytes(m, at, run, n);
}

static void mutate_once(struct mutant *m, uint64_t *state)
{
    static const uint8_t edges[] = {0, 1, 0x0a, 0x0d, 0x20, 0x22, 0x2d, 0x5c, 0x7f, 0x80, 0xff};
    size_t at = m->size ? next_random(state) % m->size : 0;
    uint8_t byte = (uint8_t)next_random(state);
    if (byte & 1)
        byte = edges[next_random(state) % sizeof edges];
    if (m->size == 0) {
        insert_bytes(m, 0, &byte, 1);
        return;
    }
    switch (next_random(state) % 7) {
    case 0:
        m->data[at] ^= (uint8_t)(1u << (next_random(state) % 8));
        break;
    case 1:
        m->data[at] = byte;
        break;
    case 2:
        insert_bytes(m, at, &byte, 1);
        break;
    case 3:
        remove_bytes(m, at, small_random(state, m->size) + 1);
        break;
    case 4:
        insert_again(m, at, state);
        break;
    case 5:
        insert_other(m, at, state);
        break;
    default: /* number by one: lengths and digits */
        m->data[at] = (uint8_t)(m->data[at] + (next_random(state) % 2 ? 1 : 255));
    }
}

static void try_mutant(uint64_t seed, uint64_t number)
{
    static struct mutant m;
    char name[64];
    uint64_t state = seed ^ number * UINT64_C(0xd1342543de82ef95);
    const struct buf *from = &inputs[next_random(&state) % n_inputs];
    size_t steps = small_random(&state, STEPS_MAX) + 1;
    if (from->len > 0)
        memcpy(m.data, from->p, from->len);
    m.size = from->len;
    for (size_t i = 0; i < steps; i++)
        mutate_once(&m, &state);
    (void)snprintf(
        name, sizeof name, "crash-%llu-%llu", (unsigned long long)seed, (unsigned long long)number);
    try_input(name, m.data, m.size);
}

static uint64_t parse_number(const char *text, uint64_t absent)
{
    uint64_t v;
    if (!text)
        return absent;
    if (!slice_parse_u64(slice_cstr(text), &v)) {
        (void)fprintf(stderr, "%s: not a number\n", text);
        exit(2);
    }
    return v;
}

static bool is_folder(const char *path)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0;
}

/* Mutations until the time is up, `count` of them when not 0. Returns how many there were. */
static uint64_t try_mutants(uint64_t seed, uint64_t count, uint64_t budget_ms)
{
    int64_t deadline = deadline_in_ms((int64_t)budget_ms);
    uint64_t i = 0;
    for (; count == 0 || i < count; i++) {
        if (count == 0 && i % LOOK_EVERY == 0 && clock_mono_ms() >= deadline)
            break;
        try_mutant(seed, i);
    }
    return i;
}

static void run_folder(const char *path, uint64_t seed, uint64_t count)
{
    uint64_t budget_ms = parse_number(getenv("FUZZ_DRIVER_MS"), BUDGET_MS);
    load_folder(path);
    (void)printf("%zu inputs, seed %llu\n", n_inputs, (unsigned long long)seed);
    (void)fflush(stdout);
    for (size_t i = 0; i < n_inputs; i++)
        try_input("crash-corpus", inputs[i].p ? inputs[i].p : "", inputs[i].len);
    (void)printf("%llu mutations\n", (unsigned long long)try_mutants(seed, count, budget_ms));
}

int main(int argc, char **argv)
{
    uint32_t random_seed;
    if (argc < 2 || argc > 4) {
        (void)fprintf(stderr, "usage: %s FILE | FOLDER [SEED [COUNT]]\n", argv[0]);
        return 2;
    }
    watch_for_crashes();
    rand_bytes(&random_seed, sizeof random_seed);
    if (is_folder(argv[1])) {
        run_folder(argv[1], parse_number(argc > 2 ? argv[2] : NULL, random_seed),
            parse_number(argc > 3 ? argv[3] : NULL, 0));
    } else {
        load(AT_FDCWD, argv[1]);
        try_input("crash-file", inputs[0].p ? inputs[0].p : "", inputs[0].len);
    }
    for (size_t i = 0; i < n_inputs; i++)
        buf_done(&inputs[i]);
    return 0;
}
