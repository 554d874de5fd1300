/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is saved and restored by a real shim, of a program that stands for a VMM: what the
 * program sees afterwards is held against a model, page by page. Swap is not tried here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../vmm/vm_fixture.h"
#include "agent/vmm/shim_link.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "base/uuid.h"
#include "memory_guest.h"
#include "proto/limits.h"
#include "snap/checksum.h"
#include "snap/memory_map.h"

enum { PATIENCE_MS = 20000, BLOBS_MAX = 16 };

/* Every blob of a test, by name. */
static struct {
    struct uuid name;
    int fd;
} blobs[BLOBS_MAX];
static size_t n_blobs;

static uint8_t model[GUEST_PAGES];

struct machine {
    pid_t shim;
    int link;
    int monitor;
};

struct restore {
    uint32_t kind;
    uint32_t flags; /* SHIM_PLAN_OLD_PAGEMAP */
    int map;        /* -1: none */
    int hints;      /* -1: none */
};

static int64_t soon(void)
{
    return deadline_in_ms(PATIENCE_MS);
}

static int read_only(int fd)
{
    char path[32];
    int got;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    got = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(got >= 0);
    return got;
}

static int new_file(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void add_string(struct buf *dst, const char *s)
{
    buf_append(dst, s, strlen(s) + 1);
}

static void add_file(struct buf *dst, const char *source, const char *target)
{
    add_string(dst, SHIM_FILE_EXEC);
    add_string(dst, source);
    add_string(dst, target);
}

static int blob_of(const unsigned char *name)
{
    for (size_t i = 0; i < n_blobs; i++)
        if (memcmp(blobs[i].name.bytes, name, UUID_BYTES) == 0)
            return blobs[i].fd;
    fail_msg("a map names an unknown blob");
    return -1;
}

static struct memory_map map_of(int fd)
{
    struct err e = {0};
    struct memory_map m = {0};
    off_t n = lseek(fd, 0, SEEK_END);
    void *p = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED || memory_map_parse(p, (size_t)n, &m, &e) < 0)
        fail_msg("map: %s", e.msg);
    return m; /* stays mapped */
}

/* The descriptors of a plan beyond the fixed ones. */
static size_t add_source(const struct restore *r, struct shim_plan_head *head, int *fds)
{
    size_t n = 0;
    if (r->map >= 0) {
        struct memory_map map = map_of(r->map);
        head->flags |= SHIM_PLAN_RESTORE;
        head->n_blobs = (uint16_t)map.n_blobs;
        fds[n++] = read_only(r->map);
        for (size_t i = 0; i < map.n_blobs; i++)
            fds[n++] = read_only(blob_of(map.blobs[i].uuid));
    }
    if (r->hints >= 0) {
        head->flags |= SHIM_PLAN_HINTS;
        fds[n++] = read_only(r->hints);
    }
    return n;
}

static void send_plan(
    const struct fixture *f, int link, const char *monitor, const struct restore *r)
{
    static const char libc[] = "/lib/x86_64-linux-gnu/libc.so.6";
    static const char loader[] = "/lib64/ld-linux-x86-64.so.2";
    struct err e = {0};
    char listener[FIXTURE_PATH_MAX + 16];
    AUTO_BUF struct buf body = BUF_INIT(SHIM_BODY_MAX);
    AUTO_BUF struct buf all = BUF_INIT(1 << 20);
    int fds[SHIM_FDS_MAX];
    size_t n = SHIM_FD_COUNT;
    struct shim_plan_head head = {.magic = SHIM_PLAN_MAGIC,
        .version = SHIM_VERSION,
        .n_fds = SHIM_FD_COUNT,
        .n_args = 2,
        .n_files = 4,
        .flags = r->flags,
        .uid = FIXTURE_UID,
        .fsize_bytes = 1 << 20,
        .id = "sbaaaaaaaaaaaaaaaaaaaa",
        .tap = GUEST_TAP,
        .memory_bytes = (uint64_t)GUEST_PAGES * MEMORY_PAGE,
        .memory = r->kind};
    (void)snprintf(listener, sizeof listener, "%s/m.shim", f->dir);
    fds[SHIM_FD_LISTEN] = sock_listen_unix(listener, 0600, &e);
    fds[SHIM_FD_CONSOLE_DIR] = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fds[SHIM_FD_NETNS] = open(f->netns, O_RDONLY | O_CLOEXEC);
    fds[SHIM_FD_OVERLAY] = open(f->overlay, O_RDWR | O_CLOEXEC);
    fds[SHIM_FD_BASE] = open(f->base, O_RDONLY | O_CLOEXEC);
    fds[SHIM_FD_MONITOR] = sock_listen_unix(monitor, 0600, &e);
    n += add_source(r, &head, fds + n);
    add_string(&body, "/vmm");
    add_string(&body, "4096");
    add_file(&body, GUEST_PATH, "/vmm");
    add_file(&body, loader, loader);
    add_file(&body, libc, libc);
    add_file(&body, LIBRARY_PATH, SHIM_LIBRARY);
    head.body_bytes = (uint32_t)body.len;
    buf_append(&all, &head, sizeof head);
    buf_append_slice(&all, buf_slice(&body));
    assert_int_equal(sock_send_fds(link, all.p, all.len, fds, n, &e), 0);
    for (size_t i = 0; i < n; i++)
        (void)close(fds[i]);
}

static struct shim_msg receive(const struct machine *m)
{
    struct err e = {0};
    struct shim_msg msg;
    if (shim_receive(m->link, soon(), &msg, &e) < 0)
        fail_msg("%s", e.msg);
    return msg;
}

static struct shim_msg launch(const struct fixture *f, const struct restore *r, struct machine *ret)
{
    struct err e = {0};
    char monitor[FIXTURE_PATH_MAX + 16];
    struct shim_msg msg;
    int pair[2];
    char *const argv[] = {
        (char *)"torpor-shim", (char *)"sbaaaaaaaaaaaaaaaaaaaa", (char *)f->dir, NULL};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    {
        const int fds[] = {-1, 2, 2, pair[1]};
        const struct proc_spawn p = {.path = SHIM_PATH, .argv = argv, .fds = fds, .n_fds = 4};
        assert_int_equal(proc_spawn(&p, &ret->shim, &e), 0);
    }
    (void)close(pair[1]);
    ret->link = pair[0];
    ret->monitor = -1;
    (void)snprintf(monitor, sizeof monitor, "%s/m.vmm", f->dir);
    send_plan(f, ret->link, monitor, r);
    msg = receive(ret);
    if (msg.type == SHIM_MSG_STARTED)
        ret->monitor = sock_connect_unix(monitor, &e);
    return msg;
}

static struct machine start(const struct fixture *f, const struct restore *r)
{
    struct machine m;
    struct shim_msg msg = launch(f, r, &m);
    if (msg.type != SHIM_MSG_STARTED)
        fail_msg("not started: %s", msg.text);
    return m;
}

static void send_message(const struct machine *m, enum shim_msg_type type, const struct uuid *name,
    const int *fds, size_t n)
{
    struct err e = {0};
    struct shim_msg msg = {
        .magic = SHIM_MSG_MAGIC, .version = SHIM_VERSION, .type = (uint16_t)type};
    if (name)
        memcpy(msg.uuid, name->bytes, UUID_BYTES);
    assert_int_equal(sock_send_fds(m->link, &msg, sizeof msg, fds, n, &e), 0);
}

static void reap(struct machine *m)
{
    struct err e = {0};
    int status;
    assert_int_equal(proc_reap(m->shim, &status, &e), 0);
    (void)close(m->link);
    if (m->monitor >= 0)
        (void)close(m->monitor);
}

static void stop(struct machine *m)
{
    send_message(m, SHIM_MSG_KILL, NULL, NULL, 0);
    assert_int_equal(receive(m).type, SHIM_MSG_STATE);
    assert_int_equal(receive(m).type, SHIM_MSG_EXITED);
    send_message(m, SHIM_MSG_ACK, NULL, NULL, 0);
    reap(m);
}

static uint64_t answer(const struct machine *m)
{
    struct err e = {0};
    uint64_t got;
    if (io_read_full(m->monitor, &got, sizeof got, soon(), &e) < 0)
        fail_msg("guest: %s (%s)", e.msg, receive(m).text);
    return got;
}

static void fill(const struct machine *m, uint64_t page, uint64_t n, uint8_t value)
{
    struct err e = {0};
    const struct order o = {.what = ORDER_FILL, .page = page, .n = n, .value = value};
    memset(model + page, value, n);
    assert_int_equal(io_write_full(m->monitor, &o, sizeof o, soon(), &e), 0);
    (void)answer(m);
}

/* What memory without the library needs before the guest runs; it has mapped it by then. */
static void fill_from_source(const struct machine *m)
{
    fill(m, 0, 0, 0);
    send_message(m, SHIM_MSG_FILL, NULL, NULL, 0);
    assert_int_equal(receive(m).type, SHIM_MSG_STATE);
}

static struct machine restore(const struct fixture *f, const struct restore *r)
{
    struct machine m = start(f, r);
    if (r->kind == SHIM_MEMORY_COPIED)
        fill_from_source(&m);
    return m;
}

static void order_compare(const struct machine *m)
{
    struct err e = {0};
    const struct order o = {.what = ORDER_COMPARE};
    assert_int_equal(io_write_full(m->monitor, &o, sizeof o, soon(), &e), 0);
    assert_int_equal(io_write_full(m->monitor, model, sizeof model, soon(), &e), 0);
}

static void compare(const struct machine *m)
{
    order_compare(m);
    assert_int_equal(answer(m), 0);
}

/* Returns the map's descriptor; the blob is kept, its sums are checked. */
static int save(const struct machine *m, struct shim_msg *ret)
{
    int fds[] = {new_file(), new_file(), new_file()};
    AUTO_CLOSE int expected = new_file();
    char a[4096];
    char b[4096];
    ssize_t n;
    struct err e = {0};
    uuid_new(&blobs[n_blobs].name);
    blobs[n_blobs].fd = fds[0];
    send_message(m, SHIM_MSG_SAVE, &blobs[n_blobs].name, fds, 3);
    *ret = receive(m);
    if (ret->type != SHIM_MSG_SAVED)
        fail_msg("not saved: %s", ret->text);
    assert_int_equal(checksum_file(fds[0], expected, &blobs[n_blobs].name, &e), 0);
    n = pread(expected, a, sizeof a, 0);
    assert_int_equal(pread(fds[1], b, sizeof b, 0), n);
    assert_memory_equal(a, b, (size_t)n);
    assert_int_equal(lseek(fds[0], 0, SEEK_END), ret->pages_stored * MEMORY_PAGE);
    n_blobs++;
    (void)close(fds[1]);
    return fds[2];
}

static int save_durably(const struct machine *m, struct shim_msg *ret)
{
    int map = save(m, ret);
    send_message(m, SHIM_MSG_COMMIT, NULL, NULL, 0);
    assert_int_equal(receive(m).type, SHIM_MSG_STATE);
    return map;
}

static void clean(void)
{
    for (size_t i = 0; i < n_blobs; i++)
        (void)close(blobs[i].fd);
    n_blobs = 0;
    memset(model, 0, sizeof model);
}

static void expect_numbers(
    const struct shim_msg *m, uint64_t stored, uint64_t zero, uint64_t referred)
{
    assert_int_equal(m->pages_stored, stored);
    assert_int_equal(m->pages_zero, zero);
    assert_int_equal(m->pages_referred, referred);
}

/* The bound holds for the static program; a sanitizer's runtime has its own memory. Anonymous, as
 * pages of the program's file count as private and dirty too while it is not on the disk yet. */
static void expect_small(const struct machine *m, long most_kib)
{
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    const char *at;
    long kib = -1;
    fixture_read_proc(m->shim, "smaps_rollup", &text);
    buf_append_char(&text, '\0');
    at = strstr(text.p, "Anonymous:");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "Anonymous: %ld kB", &kib), 1);
    (void)printf("shim: Anonymous %ld KiB\n", kib);
    if (SHIM_STATIC)
        assert_in_range(kib, 1, most_kib);
}

/* Whether this kernel can say what was written behind a userfaultfd (WP_ASYNC, Linux 6.7). */
static bool kernel_tracks_writes(void)
{
    struct uffdio_api api = {.api = UFFD_API, .features = 1 << 15};
    AUTO_CLOSE int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    assert_true(fd >= 0);
    return ioctl(fd, UFFDIO_API, &api) == 0;
}

/* A page written as it was is stored again, unless pages are compared. */
static bool finds_by_comparing(uint32_t kind, uint32_t flags)
{
    if (kind == SHIM_MEMORY_UFFD)
        return (flags & SHIM_PLAN_OLD_PAGEMAP) || !kernel_tracks_writes();
    return kind == SHIM_MEMORY_COPIED;
}

/* Boot, three live snapshots, and two restores on top of each other. */
static void go_round(const struct fixture *f, uint32_t kind, uint32_t flags)
{
    struct restore r = {.kind = kind, .flags = flags, .map = -1, .hints = -1};
    struct machine m = start(f, &r);
    struct shim_msg got;
    int maps[4];
    clean();
    compare(&m);
    fill(&m, 0, 1000, 1);
    fill(&m, 2000, 10, 2);
    maps[0] = save_durably(&m, &got);
    expect_numbers(&got, 1010, 0, 0);
    assert_int_equal(got.map_blobs, 1);
    fill(&m, 5, 1, 3);
    fill(&m, 6, 1, 9);
    fill(&m, 6, 1, 1);
    fill(&m, 10, 10, 0);
    fill(&m, 3000, 10, 0);
    (void)close(save(&m, &got)); /* not committed: the next one may not refer to it */
    expect_numbers(&got, 1, 10, 999);
    n_blobs--;
    (void)close(blobs[n_blobs].fd);
    maps[1] = save_durably(&m, &got);
    expect_numbers(&got, 1, 10, 999);
    assert_int_equal(got.map_blobs, 2);
    compare(&m);
    maps[2] = save_durably(&m, &got);
    expect_numbers(&got, 0, 0, 1000);
    assert_int_equal(got.map_blobs, 2);
    stop(&m);
    r.map = maps[2];
    m = restore(f, &r);
    compare(&m);
    fill(&m, 7, 1, 4);
    fill(&m, 8, 1, 1); /* as it was */
    fill(&m, 30, 1, 0);
    fill(&m, 3500, 100, 7);
    maps[3] = save_durably(&m, &got);
    expect_numbers(&got, finds_by_comparing(kind, flags) ? 101 : 102, 1, 0);
    assert_int_equal(got.map_blobs, 3);
    compare(&m);
    expect_small(&m, 256);
    stop(&m);
    r.map = maps[3];
    m = restore(f, &r);
    compare(&m);
    stop(&m);
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        (void)close(maps[i]);
}

static void test_private(void **state)
{
    go_round(*state, SHIM_MEMORY_PRIVATE, 0);
}

static void test_private_old(void **state)
{
    go_round(*state, SHIM_MEMORY_PRIVATE, SHIM_PLAN_OLD_PAGEMAP);
}

static void test_uffd(void **state)
{
    go_round(*state, SHIM_MEMORY_UFFD, 0);
}

static void test_uffd_old(void **state)
{
    go_round(*state, SHIM_MEMORY_UFFD, SHIM_PLAN_OLD_PAGEMAP);
}

static void test_copied(void **state)
{
    go_round(*state, SHIM_MEMORY_COPIED, 0);
}

static void test_copied_old(void **state)
{
    go_round(*state, SHIM_MEMORY_COPIED, SHIM_PLAN_OLD_PAGEMAP);
}

/* A machine of patterns, saved. */
static int make_generation(const struct fixture *f, uint32_t kind)
{
    const struct restore r = {.kind = kind, .map = -1, .hints = -1};
    struct machine m = start(f, &r);
    struct shim_msg got;
    int map;
    clean();
    fill(&m, 0, 3000, 1);
    map = save_durably(&m, &got);
    stop(&m);
    return map;
}

static void test_hints(void **state)
{
    const struct fixture *f = *state;
    AUTO_CLOSE int map = make_generation(f, SHIM_MEMORY_UFFD);
    AUTO_CLOSE int hints = new_file();
    struct restore r = {.kind = SHIM_MEMORY_UFFD, .map = map, .hints = -1};
    struct machine m = start(f, &r);
    struct shim_msg got;
    compare(&m);
    send_message(&m, SHIM_MSG_HINTS, NULL, &hints, 1);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_SAVED);
    assert_int_equal(got.pages_stored, GUEST_PAGES);
    assert_true(got.faults >= GUEST_PAGES / 16);
    assert_int_equal(got.pages_ahead, 0);
    stop(&m);
    r.hints = hints;
    m = start(f, &r);
    compare(&m);
    send_message(&m, SHIM_MSG_STATUS, NULL, NULL, 0);
    got = receive(&m);
    assert_int_equal(got.faults, 0);
    assert_int_equal(got.pages_ahead, GUEST_PAGES);
    stop(&m);
}

static void test_cancel(void **state)
{
    const struct restore r = {.kind = SHIM_MEMORY_PRIVATE, .map = -1, .hints = -1};
    struct machine m = start(*state, &r);
    struct shim_msg got;
    struct err e = {0};
    struct shim_msg both[2] = {
        {.magic = SHIM_MSG_MAGIC, .version = SHIM_VERSION, .type = SHIM_MSG_SAVE, .uuid = {1}},
        {.magic = SHIM_MSG_MAGIC, .version = SHIM_VERSION, .type = SHIM_MSG_CANCEL}};
    int fds[] = {new_file(), new_file(), new_file()};
    clean();
    fill(&m, 0, GUEST_PAGES, 1);
    assert_int_equal(sock_send_fds(m.link, both, sizeof both, fds, 3, &e), 0);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_SAVE_FAILED);
    assert_int_equal(got.errnum, ECANCELED);
    send_message(&m, SHIM_MSG_SAVE, NULL, fds, 2);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_SAVE_FAILED);
    assert_int_equal(got.errnum, EINVAL);
    (void)close(save(&m, &got));
    expect_numbers(&got, GUEST_PAGES, 0, 0);
    stop(&m);
    for (int i = 0; i < 3; i++)
        (void)close(fds[i]);
}

/* Shorter than the map says: refused before there is a VM, or the end of the VM. */
static void test_short_blob(void **state)
{
    const struct fixture *f = *state;
    AUTO_CLOSE int map = make_generation(f, SHIM_MEMORY_UFFD);
    const struct restore r = {.kind = SHIM_MEMORY_UFFD, .map = map, .hints = -1};
    struct machine m = start(f, &r);
    struct shim_msg got;
    assert_int_equal(ftruncate(blobs[0].fd, 100 * MEMORY_PAGE), 0);
    order_compare(&m);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_EXITED);
    if (!strstr(got.text, "a page of its memory could not be served"))
        fail_msg("says \"%s\"", got.text);
    send_message(&m, SHIM_MSG_ACK, NULL, NULL, 0);
    reap(&m);
    got = launch(f, &r, &m);
    assert_int_equal(got.type, SHIM_MSG_FAILED);
    assert_non_null(strstr(got.text, "and not the"));
    reap(&m);
}

/* Memory that waits to be filled is not saved as it is, and none is filled that the library maps.
 */
static void test_fill_in_its_time(void **state)
{
    const struct fixture *f = *state;
    AUTO_CLOSE int map = make_generation(f, SHIM_MEMORY_COPIED);
    struct restore r = {.kind = SHIM_MEMORY_COPIED, .map = map, .hints = -1};
    struct machine m = start(f, &r);
    int fds[] = {new_file(), new_file(), new_file()};
    struct shim_msg got;
    fill(&m, 0, 0, 0);
    send_message(&m, SHIM_MSG_SAVE, &blobs[0].name, fds, 3);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_REFUSED);
    assert_int_equal(got.refusal, SHIM_REFUSAL_MEMORY);
    assert_int_equal(got.flags, SHIM_STATE_COPIED);
    stop(&m);
    r.kind = SHIM_MEMORY_PRIVATE;
    m = start(f, &r);
    fill(&m, 0, 0, 0);
    send_message(&m, SHIM_MSG_FILL, NULL, NULL, 0);
    got = receive(&m);
    assert_int_equal(got.type, SHIM_MSG_REFUSED);
    assert_int_equal(got.refusal, SHIM_REFUSAL_TYPE);
    assert_int_equal(got.flags, 0);
    compare(&m);
    stop(&m);
    for (int i = 0; i < 3; i++)
        (void)close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_private, fixture_tidy),
        cmocka_unit_test_teardown(test_private_old, fixture_tidy),
        cmocka_unit_test_teardown(test_uffd, fixture_tidy),
        cmocka_unit_test_teardown(test_uffd_old, fixture_tidy),
        cmocka_unit_test_teardown(test_copied, fixture_tidy),
        cmocka_unit_test_teardown(test_copied_old, fixture_tidy),
        cmocka_unit_test_teardown(test_fill_in_its_time, fixture_tidy),
        cmocka_unit_test_teardown(test_hints, fixture_tidy),
        cmocka_unit_test_teardown(test_cancel, fixture_tidy),
        cmocka_unit_test_teardown(test_short_blob, fixture_tidy),
    };
    const char *missing = fixture_missing();
    if (missing) {
        (void)printf("skipped: %s\n", missing);
        return 77;
    }
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
