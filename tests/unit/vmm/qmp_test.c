/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor client against a peer that has said everything in advance: the ids of commands are
 * known, 1 is the client's own qmp_capabilities.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/vmm/qmp.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

#define GREETING                                                                                   \
    "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n{\"return\":{},\"id\":1}\r\n"

struct talk {
    struct qmp *qmp;
    int peer;
};

static int64_t soon(void)
{
    return deadline_in_ms(5000);
}

static void say(const struct talk *t, const char *text)
{
    assert_int_equal(write(t->peer, text, strlen(text)), (ssize_t)strlen(text));
}

/* Returns what the client says about a peer that says `text` and, unless `stays`, leaves. */
static enum err_kind greet_with(const char *text, bool stays, int64_t deadline)
{
    struct err e = {0};
    struct talk t;
    int pair[2];
    char byte;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    t.peer = pair[1];
    say(&t, text);
    if (!stays)
        assert_int_equal(shutdown(t.peer, SHUT_WR), 0);
    assert_null(qmp_attach(pair[0], deadline, &e));
    while (recv(t.peer, &byte, 1, MSG_DONTWAIT) > 0)
        ;
    assert_int_equal(recv(t.peer, &byte, 1, MSG_DONTWAIT), 0); /* it has closed its end */
    (void)close(t.peer);
    return e.kind;
}

/* A greeted client; the first command it sends will have id 2. */
static int set_up(void **state)
{
    static struct talk t;
    struct err e = {0};
    char sent[128];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    t.peer = pair[1];
    say(&t, GREETING);
    t.qmp = qmp_attach(pair[0], soon(), &e);
    if (!t.qmp || read(t.peer, sent, sizeof sent) <= 0)
        return -1;
    *state = &t;
    return 0;
}

static int tear_down(void **state)
{
    struct talk *t = *state;
    t->qmp = qmp_close(t->qmp);
    if (t->peer >= 0)
        (void)close(t->peer);
    return 0;
}

static int execute(struct talk *t, const struct json_value **ret, struct err *e)
{
    return qmp_execute(
        t->qmp, &(struct qmp_command){.name = "query-status", .fd = -1}, ret, soon(), e);
}

static void assert_fails(struct talk *t, enum err_kind kind)
{
    struct err e = {0};
    const struct json_value *ret = NULL;
    assert_int_equal(execute(t, &ret, &e), -1);
    if (e.kind != kind)
        fail_msg("kind %d: %s", e.kind, e.msg);
    assert_null(ret);
}

static void test_greeting(void **state)
{
    (void)state;
    assert_int_equal(greet_with("{\"QMP\":{}}\n", false, soon()), ERR_UNAVAILABLE);
    assert_int_equal(greet_with("", false, soon()), ERR_UNAVAILABLE);
    assert_int_equal(greet_with("{\"hello\":1}\n", true, soon()), ERR_PROTOCOL);
    assert_int_equal(greet_with("HTTP/1.1 200 OK\r\n", true, soon()), ERR_PROTOCOL);
    assert_int_equal(greet_with("[]\n", true, soon()), ERR_PROTOCOL);
    assert_int_equal(greet_with("", true, deadline_in_ms(10)), ERR_TIMEOUT);
    assert_int_equal(greet_with("{\"QMP\":{}}\n", true, deadline_in_ms(10)), ERR_TIMEOUT);
    assert_int_equal(
        greet_with("{\"QMP\":{}}\n{\"id\":1,\"error\":{\"desc\":\"no\"}}\n", true, soon()),
        ERR_INTERNAL);
}

static void test_command(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    const struct json_value *ret;
    const struct qmp_command c = {.name = "getfd", .arguments = "{\"fdname\":\"a\"}", .fd = -1};
    char sent[256] = "";
    say(t, "{\"event\":\"STOP\",\"data\":{}}\r\n{\"return\":{\"status\":\"paused\"},\"id\":2}\r\n");
    assert_int_equal(qmp_execute(t->qmp, &c, &ret, soon(), &e), 0);
    assert_true(slice_is(json_get(ret, "status")->string, "paused"));
    assert_true(read(t->peer, sent, sizeof sent - 1) > 0);
    assert_string_equal(
        sent, "{\"execute\":\"getfd\",\"id\":2,\"arguments\":{\"fdname\":\"a\"}}\r\n");
    say(t, "{\"return\":{},\"id\":3}\n");
    assert_int_equal(execute(t, NULL, &e), 0);
}

static int receive_fd(int peer)
{
    char text[256];
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {text, sizeof text};
    struct msghdr m = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control};
    const struct cmsghdr *c;
    int fd;
    assert_true(recvmsg(peer, &m, MSG_CMSG_CLOEXEC) > 0);
    c = CMSG_FIRSTHDR(&m);
    assert_non_null(c);
    assert_int_equal(c->cmsg_type, SCM_RIGHTS);
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static void test_descriptor_goes_along(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    struct stat mine;
    struct stat theirs;
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int got = -1;
    say(t, "{\"return\":{},\"id\":2}\n");
    assert_int_equal(
        qmp_execute(t->qmp, &(struct qmp_command){.name = "getfd", .fd = null}, NULL, soon(), &e),
        0);
    got = receive_fd(t->peer);
    assert_int_equal(fstat(null, &mine), 0);
    assert_int_equal(fstat(got, &theirs), 0);
    assert_int_equal(mine.st_rdev, theirs.st_rdev);
}

static void test_refusal_has_their_words(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    say(t, "{\"id\":2,\"error\":{\"class\":\"GenericError\",\"desc\":\"node is busy\"}}\n");
    assert_int_equal(execute(t, NULL, &e), -1);
    assert_int_equal(e.kind, ERR_INTERNAL);
    assert_non_null(strstr(e.msg, "node is busy"));
    say(t, "{\"id\":3,\"error\":7}\n");
    assert_fails(t, ERR_INTERNAL);
    say(t, "{\"id\":4,\"return\":{}}\n"); /* the connection goes on */
    assert_int_equal(execute(t, NULL, &e), 0);
}

static void test_answers_of_others_are_passed_over(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    const struct json_value *ret;
    say(t, "{\"return\":1,\"id\":1}\n{\"return\":2}\n{\"return\":3,\"id\":\"2\"}\n"
           "{\"return\":4,\"id\":-2}\n{\"return\":5,\"id\":2}\n");
    assert_int_equal(execute(t, &ret, &e), 0);
    assert_int_equal(ret->integer, 5);
}

static void test_no_protocol(void **state)
{
    struct talk *t = *state;
    say(t, "{\"id\":2}\n");
    assert_fails(t, ERR_PROTOCOL);
    say(t, "{\"id\":3,\"return\":{},\"return\":{}}\n"); /* keys twice */
    assert_fails(t, ERR_PROTOCOL);
    say(t, "{\"id\":4,\"return\":\"\xff\"}\n");
    assert_fails(t, ERR_PROTOCOL);
    say(t, "17\n");
    assert_fails(t, ERR_PROTOCOL);
}

static void test_line_too_long(void **state)
{
    struct talk *t = *state;
    static char line[70 << 10];
    memset(line, ' ', sizeof line - 1);
    say(t, line);
    assert_fails(t, ERR_PROTOCOL);
}

static void test_flood_of_events_ends(void **state)
{
    struct talk *t = *state;
    static const char event[] = "{\"event\":\"X\"}\n";
    static char flood[2000 * (sizeof event - 1) + 1];
    for (size_t at = 0; at + 1 < sizeof flood; at += sizeof event - 1)
        memcpy(flood + at, event, sizeof event - 1);
    say(t, flood);
    assert_fails(t, ERR_PROTOCOL);
}

/* Every line by itself is within bounds, together they are not. */
static void test_large_events_fit_one_by_one(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    static char event[4000];
    (void)snprintf(event, sizeof event, "{\"event\":\"%*s\"}\n", 3900, "X");
    for (int i = 0; i < 40; i++)
        say(t, event);
    say(t, "{\"id\":2,\"return\":{}}\n");
    assert_int_equal(execute(t, NULL, &e), 0);
}

static void test_peer_leaves(void **state)
{
    struct talk *t = *state;
    say(t, "{\"id\":2,\"ret");
    assert_int_equal(shutdown(t->peer, SHUT_WR), 0);
    assert_fails(t, ERR_UNAVAILABLE);
    (void)close(t->peer);
    t->peer = -1;
    assert_fails(t, ERR_UNAVAILABLE); /* and nobody is killed by SIGPIPE */
}

static void test_silence_ends_at_the_deadline(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    const struct qmp_command c = {.name = "stop", .fd = -1};
    assert_int_equal(qmp_execute(t->qmp, &c, NULL, deadline_in_ms(10), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
}

#define MIGRATION(status) "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"" status "\"}}\n"

static void test_migration(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    say(t, MIGRATION("failed") "{\"id\":2,\"return\":{}}\n"); /* of an earlier one */
    assert_int_equal(execute(t, NULL, &e), 0);
    qmp_migration_begin(t->qmp);
    say(t, "{\"event\":7}\n{\"event\":\"MIGRATION\"}\n{\"event\":\"MIGRATION\",\"data\":4}\n"
           "{\"event\":\"MIGRATION\",\"data\":{\"status\":[]}}\n" MIGRATION("active")
               MIGRATION("completed"));
    assert_int_equal(qmp_migration_wait(t->qmp, soon(), &e), 0);
    qmp_migration_begin(t->qmp);
    say(t, MIGRATION("failed"));
    assert_int_equal(qmp_migration_wait(t->qmp, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_INTERNAL);
    qmp_migration_begin(t->qmp);
    assert_int_equal(qmp_migration_wait(t->qmp, deadline_in_ms(10), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_int_equal(shutdown(t->peer, SHUT_WR), 0);
    assert_int_equal(qmp_migration_wait(t->qmp, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
}

/* The end may come before the answer to the command that began it. */
static void test_migration_that_ends_early(void **state)
{
    struct talk *t = *state;
    struct err e = {0};
    qmp_migration_begin(t->qmp);
    say(t, MIGRATION("completed") "{\"id\":2,\"return\":{}}\n");
    assert_int_equal(execute(t, NULL, &e), 0);
    assert_int_equal(qmp_migration_wait(t->qmp, deadline_in_ms(10), &e), 0);
}

static void test_nobody_listens(void **state)
{
    struct err e = {0};
    (void)state;
    assert_null(qmp_open("/nonexistent/monitor", soon(), &e));
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
}

/* A VMM that takes no connection: those that were given up stay in its queue until it is full. */
static void test_full_queue_ends_at_the_deadline(void **state)
{
    char path[64] = "/tmp/torpor-qmp-XXXXXX";
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)state;
    assert_non_null(mkdtemp(path));
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s/s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    for (int i = 0; i < 4; i++) {
        struct err e = {0};
        assert_null(qmp_open(a.sun_path, deadline_in_ms(10), &e));
        assert_int_equal(e.kind, ERR_TIMEOUT);
    }
    (void)unlink(a.sun_path);
    (void)rmdir(path);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),
        TEST(test_command),
        TEST(test_descriptor_goes_along),
        TEST(test_refusal_has_their_words),
        TEST(test_answers_of_others_are_passed_over),
        TEST(test_no_protocol),
        TEST(test_line_too_long),
        TEST(test_flood_of_events_ends),
        TEST(test_large_events_fit_one_by_one),
        TEST(test_peer_leaves),
        TEST(test_silence_ends_at_the_deadline),
        TEST(test_migration),
        TEST(test_migration_that_ends_early),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_full_queue_ends_at_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
