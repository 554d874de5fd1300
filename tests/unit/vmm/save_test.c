/* SPDX-License-Identifier: Apache-2.0 */
/* Saving with a shim and a monitor that have said everything in advance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/vmm/qmp.h"
#include "agent/vmm/vmm_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/shim.h"

struct fakes {
    struct vmm vmm;
    int shim;
    int monitor;
};

static int64_t soon(void)
{
    return deadline_in_ms(5000);
}

static void qemu_says(const struct fakes *f, const char *text)
{
    assert_int_equal(write(f->monitor, text, strlen(text)), (ssize_t)strlen(text));
}

static void shim_says(const struct fakes *f, enum shim_msg_type type, int errnum, uint64_t pages)
{
    const struct shim_msg m = {.magic = SHIM_MSG_MAGIC,
        .version = SHIM_VERSION,
        .type = (uint16_t)type,
        .errnum = errnum,
        .pages_stored = pages};
    assert_int_equal(write(f->shim, &m, sizeof m), sizeof m);
}

static void expect_request(const struct fakes *f, enum shim_msg_type type)
{
    struct shim_msg m;
    assert_int_equal(recv(f->shim, &m, sizeof m, MSG_WAITALL | MSG_DONTWAIT), sizeof m);
    assert_int_equal(m.type, type);
}

static int set_up(void **state)
{
    static struct fakes f;
    struct err e = {0};
    int link[2];
    int monitor[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) < 0)
        return -1;
    f = (struct fakes){.shim = link[1], .monitor = monitor[1]};
    f.vmm = (struct vmm){.link = link[0], .version = SHIM_VERSION, .can_save = true};
    qemu_says(&f, "{\"QMP\":{}}\n{\"return\":{},\"id\":1}\n");
    f.vmm.qmp = qmp_attach(monitor[0], soon(), &e);
    *state = &f;
    return f.vmm.qmp ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fakes *f = *state;
    (void)qmp_close(f->vmm.qmp);
    (void)close(f->vmm.link);
    (void)close(f->shim);
    (void)close(f->monitor);
    return 0;
}

static int save(
    struct fakes *f, int cancel_fd, int64_t deadline, struct vmm_saved *ret, struct err *e)
{
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct vmm_save s = {
        .blob_fd = null, .sums_fd = null, .map_fd = null, .cancel_fd = cancel_fd};
    return vmm_save_memory(&f->vmm, &s, ret, deadline, e);
}

static void test_saved(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    struct vmm_saved saved;
    shim_says(f, SHIM_MSG_SAVED, 0, 7);
    assert_int_equal(save(f, -1, soon(), &saved, &e), 0);
    assert_int_equal(saved.pages_stored, 7);
    shim_says(f, SHIM_MSG_SAVE_FAILED, ENOSPC, 0);
    assert_int_equal(save(f, -1, soon(), &saved, &e), -1);
    assert_int_equal(e.kind, ERR_NO_SPACE);
}

/* Says nothing until it is to break off. */
static void *serve_cancel(void *arg)
{
    const struct fakes *f = arg;
    struct shim_msg m;
    while (recv(f->shim, &m, sizeof m, MSG_WAITALL) == sizeof m && m.type != SHIM_MSG_CANCEL)
        ;
    shim_says(f, SHIM_MSG_SAVE_FAILED, ECANCELED, 0);
    return NULL;
}

static void start_shim(struct fakes *f, pthread_t *ret)
{
    assert_int_equal(pthread_create(ret, NULL, serve_cancel, f), 0);
}

/* The shim is not asked again before it has said that the save that took too long is over. */
static void test_late_save_is_no_reply_to_the_next(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    struct vmm_saved saved;
    pthread_t thread;
    start_shim(f, &thread);
    assert_int_equal(save(f, -1, deadline_in_ms(10), &saved, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(pthread_join(thread, NULL), 0);
    shim_says(f, SHIM_MSG_SAVED, 0, 9);
    assert_int_equal(save(f, -1, soon(), &saved, &e), 0);
    assert_int_equal(saved.pages_stored, 9);
}

#define RETURN(value, id) "{\"return\":" value ",\"id\":" id "}\n"

/* All that the client has said. A message with a descriptor ends a recv(2). */
static void read_sent(const struct fakes *f, char *dst, size_t n)
{
    size_t len = 0;
    ssize_t got;
    while ((got = recv(f->monitor, dst + len, n - 1 - len, MSG_DONTWAIT)) > 0)
        len += (size_t)got;
    dst[len] = '\0';
}

/* As after an earlier agent's swap: this handle knows of none. */
static void test_swap_asks_where_the_disk_writes(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    char sent[2048];
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    qemu_says(f, RETURN("\"root-77\"", "2") RETURN("{\"fd\":9,\"fdset-id\":5}", "3")
                     RETURN("{}", "4") RETURN("{}", "5") RETURN("{}", "6"));
    assert_int_equal(vmm_swap_overlay(&f->vmm, null, soon(), &e), 0);
    read_sent(f, sent, sizeof sent);
    assert_non_null(strstr(sent, "/dev/fdset/5"));
    assert_non_null(strstr(sent, "{\"node\":\"root-77\",\"overlay\":\"root-"));
}

/* The answer goes into a command: nothing but names of ours. */
static void test_swap_refuses_other_names(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    qemu_says(f, RETURN("\"root-1\\\",\\\"x\"", "2"));
    assert_int_equal(vmm_swap_overlay(&f->vmm, null, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

static void test_cancelled_by_descriptor(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    struct vmm_saved saved;
    pthread_t thread;
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    start_shim(f, &thread);
    assert_int_equal(save(f, pipe_fds[0], soon(), &saved, &e), -1);
    assert_int_equal(e.kind, ERR_CANCELED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
}

static void test_commit(void **state)
{
    struct fakes *f = *state;
    struct err e = {0};
    shim_says(f, SHIM_MSG_STATE, 0, 0);
    assert_int_equal(vmm_save_commit(&f->vmm, soon(), &e), 0);
    expect_request(f, SHIM_MSG_COMMIT);
    f->vmm.can_save = false;
    f->vmm.qmp = qmp_close(f->vmm.qmp);
    assert_int_equal(vmm_pause(&f->vmm, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    assert_int_equal(vmm_save_commit(&f->vmm, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_saved),
        TEST(test_late_save_is_no_reply_to_the_next),
        TEST(test_cancelled_by_descriptor),
        TEST(test_swap_asks_where_the_disk_writes),
        TEST(test_swap_refuses_other_names),
        TEST(test_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
