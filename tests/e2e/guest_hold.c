/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that lives in a guest over its pauses and holds what a snapshot must bring back: memory
 * with a known content in every page, a file without a name, a timer, a connection, a counter.
 *
 * usage: guest-hold serve MIB   starts it and returns: it listens on HOLD_PORT of the loopback
 *        guest-hold COMMAND     sends it one command and prints the answer
 *
 * Commands: fill GEN; change GEN FROM STEP; zero FROM STEP; drop FROM STEP; check; clock; random;
 * connect ADDRESS PORT; connection. FROM and STEP count pages: FROM, FROM + STEP, and so on.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    WORDS = PAGE / 8,
    HOLD_PORT = 7070,
    TICK_MS = 50,
    LINE_MAX_BYTES = 256,
    BLOCKS_MAX = 64
};

static uint64_t *memory;
static size_t n_pages;
static uint32_t *expected; /* generation of each page; 0: zeros */
static int file_fd;        /* each change writes one block of it, in turn */
static uint32_t file_generations[BLOCKS_MAX];
static size_t n_blocks;
static size_t next_block;
static unsigned long commands; /* that changed something */
static int connection = -1;
static atomic_ulong ticks;
static atomic_ulong worst_ticks; /* that came at once */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t word_of(size_t page, uint32_t generation, size_t word)
{
    return generation == 0 ? 0 : mix((uint64_t)page << 20 | word) + generation * 0x9e3779b9u;
}

static void write_page(size_t page, uint32_t generation)
{
    for (size_t w = 0; w < WORDS; w++)
        memory[page * WORDS + w] = word_of(page, generation, w);
    expected[page] = generation;
}

static void write_block(uint32_t generation)
{
    uint64_t block[WORDS];
    size_t b = next_block++ % BLOCKS_MAX;
    for (size_t w = 0; w < WORDS; w++)
        block[w] = word_of(b, generation, w);
    if (pwrite(file_fd, block, PAGE, (off_t)(b * PAGE)) != PAGE)
        exit(3);
    file_generations[b] = generation;
    if (b == n_blocks)
        n_blocks++;
}

static void change(uint32_t generation, size_t from, size_t step)
{
    commands++;
    for (size_t p = from; step > 0 && p < n_pages; p += step)
        write_page(p, generation);
    write_block(generation);
}

static void zero(size_t from, size_t step, int drop)
{
    commands++;
    for (size_t p = from; step > 0 && p < n_pages; p += step) {
        if (drop)
            (void)madvise(memory + p * WORDS, PAGE, MADV_DONTNEED);
        else
            memset(memory + p * WORDS, 0, PAGE);
        expected[p] = 0;
    }
}

static unsigned wrong_blocks(void)
{
    uint64_t block[WORDS];
    struct stat st;
    unsigned wrong = fstat(file_fd, &st) < 0 || (size_t)st.st_size != n_blocks * PAGE;
    for (size_t b = 0; b < n_blocks; b++) {
        if (pread(file_fd, block, PAGE, (off_t)(b * PAGE)) != PAGE)
            exit(3);
        for (size_t w = 0; w < WORDS; w++)
            if (block[w] != word_of(b, file_generations[b], w)) {
                wrong++;
                break;
            }
    }
    return wrong;
}

/* Compares every page; the sum is of what is there, not of what should be. */
static void check(char *answer)
{
    uint64_t sum = 0;
    size_t wrong = 0;
    size_t first = 0;
    for (size_t p = 0; p < n_pages; p++) {
        int bad = 0;
        for (size_t w = 0; w < WORDS; w++) {
            uint64_t v = memory[p * WORDS + w];
            bad |= v != word_of(p, expected[p], w);
            sum = (sum << 7 | sum >> 57) + v;
        }
        if (bad && wrong++ == 0)
            first = p;
    }
    (void)snprintf(answer, LINE_MAX_BYTES,
        "pages=%zu wrong=%zu first=%zu blocks=%zu wrong=%u commands=%lu sum=%016llx\n", n_pages,
        wrong, first, n_blocks, wrong_blocks(), commands, (unsigned long long)sum);
}

static void tell_clock(char *answer)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    (void)snprintf(answer, LINE_MAX_BYTES, "%lld %lu %lu %d\n",
        (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000, atomic_load(&ticks),
        atomic_exchange(&worst_ticks, 0) * TICK_MS, (int)getpid());
}

static void tell_random(char *answer)
{
    unsigned char r[16];
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r)
        exit(3);
    for (size_t i = 0; i < sizeof r; i++)
        (void)snprintf(answer + 2 * i, 4, "%02x\n", r[i]);
}

static void open_connection(const char *address, unsigned port, char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    (void)inet_pton(AF_INET, address, &a.sin_addr);
    connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(connection, (struct sockaddr *)&a, sizeof a) == 0)
        (void)strcpy(answer, "open\n");
    else
        (void)snprintf(answer, LINE_MAX_BYTES, "refused %d\n", errno);
}

static void tell_connection(char *answer)
{
    struct pollfd p = {.fd = connection, .events = POLLIN | POLLRDHUP};
    (void)strcpy(answer, poll(&p, 1, 0) > 0 ? "closed\n" : "open\n");
}

static void obey(const char *line, char *answer)
{
    unsigned generation;
    size_t from;
    size_t step;
    char address[64];
    unsigned port;
    (void)strcpy(answer, "done\n");
    if (sscanf(line, "fill %u", &generation) == 1)
        change(generation, 0, 1);
    else if (sscanf(line, "change %u %zu %zu", &generation, &from, &step) == 3)
        change(generation, from, step);
    else if (sscanf(line, "zero %zu %zu", &from, &step) == 2)
        zero(from, step, /* drop= */ 0);
    else if (sscanf(line, "drop %zu %zu", &from, &step) == 2)
        zero(from, step, /* drop= */ 1);
    else if (sscanf(line, "connect %63s %u", address, &port) == 2)
        open_connection(address, port, answer);
    else if (strcmp(line, "connection") == 0)
        tell_connection(answer);
    else if (strcmp(line, "check") == 0)
        check(answer);
    else if (strcmp(line, "clock") == 0)
        tell_clock(answer);
    else if (strcmp(line, "random") == 0)
        tell_random(answer);
    else
        (void)strcpy(answer, "unknown\n");
}

static void *count_ticks(void *arg)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    const struct itimerspec every = {{0, TICK_MS * 1000000L}, {0, TICK_MS * 1000000L}};
    uint64_t n;
    (void)arg;
    (void)timerfd_settime(fd, 0, &every, NULL);
    while (read(fd, &n, sizeof n) == (ssize_t)sizeof n) {
        atomic_fetch_add(&ticks, n);
        if (n > atomic_load(&worst_ticks))
            atomic_store(&worst_ticks, n);
    }
    exit(3);
}

static int listen_here(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons(HOLD_PORT),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0)
        exit(2);
    return fd;
}

static void make_things(size_t mib)
{
    static const char name[] = "/tmp/guest-hold.unnamed";
    pthread_t t;
    n_pages = mib << 20 >> 12;
    memory = mmap(NULL, n_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expected = calloc(n_pages, sizeof *expected);
    file_fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (memory == MAP_FAILED || !expected || file_fd < 0 || unlink(name) < 0 ||
        pthread_create(&t, NULL, count_ticks, NULL) != 0)
        exit(2);
}

static void serve_one(int fd)
{
    char line[LINE_MAX_BYTES];
    char answer[LINE_MAX_BYTES];
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof line && (got = read(fd, line + n, sizeof line - 1 - n)) > 0) {
        n += (size_t)got;
        if (line[n - 1] == '\n')
            break;
    }
    line[n > 0 ? n - 1 : 0] = '\0';
    obey(line, answer);
    (void)!write(fd, answer, strlen(answer));
}

static int serve(size_t mib)
{
    int listener = listen_here();
    int null = open("/dev/null", O_RDWR);
    pid_t pid = fork();
    if (pid != 0) {
        printf("%d\n", (int)pid);
        return pid < 0;
    }
    (void)setsid();
    for (int fd = 0; fd < 3; fd++)
        (void)dup2(null, fd);
    make_things(mib);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        serve_one(fd);
        (void)close(fd);
    }
}

static int ask(char **words)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons(HOLD_PORT),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char text[LINE_MAX_BYTES];
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        perror("connect");
        return 1;
    }
    text[0] = '\0';
    for (; *words; words++) {
        strncat(text, *words, sizeof text - 2 - strlen(text));
        strcat(text, words[1] ? " " : "\n");
    }
    (void)!write(fd, text, strlen(text));
    while ((n = read(fd, text, sizeof text)) > 0)
        (void)!write(1, text, (size_t)n);
    return n < 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(strtoul(argv[2], NULL, 10));
    return argc > 1 ? ask(argv + 1) : 2;
}
