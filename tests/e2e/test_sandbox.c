/* SPDX-License-Identifier: Apache-2.0 */
/* One real sandbox through the public API: exec, files, its shape, its network, its confinement. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "capture.h"
#include "http/client.h"
#include "probe.h"
#include "stack.h"

static struct stack stack;
static char id[32];
static char host_ip[32];
static const char *unavailable;

static int setup(void **state)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    unavailable = stack_unavailable();
    if (unavailable)
        return 0;
    internet_init(PROBE_PUBLIC);
    stack_start(&stack);
    create_sandbox(&stack,
        "{\"template\":\"minimal\",\"env\":{\"GREETING\":\"hello\"},\"metadata\":{\"owner\":"
        "\"e2e\"}}",
        id);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "GET", path, NULL, &r);
    (void)snprintf(host_ip, sizeof host_ip, "%s", reply_text(&r, "host_ip"));
    return 0;
}

static int teardown(void **state)
{
    AUTO_BUF struct buf left = BUF_INIT(1 << 20);
    if (unavailable)
        return 0;
    delete_sandbox(&stack, id);
    (void)stack_end(&stack.control, SIGTERM);
    assert_int_equal(stack_end(&stack.agent, SIGTERM), 0);
    stack_stop_all(&stack);
    host_picture(&stack, &left);
    if (left.len > 0)
        fail_msg("left on the host:\n%s", left.p);
    stack_stop(&stack);
    internet_done();
    return 0;
}

#define NEEDS_STACK()                                                                              \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void shape_of_a_running_sandbox(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_REPLY struct reply list = {0};
    char path[96];
    NEEDS_STACK();
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "GET", path, NULL, &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_text(&r, "status"), "running");
    assert_string_equal(reply_text(&r, "template"), "minimal");
    assert_int_equal(reply_int(&r, "vcpus"), 1);
    assert_int_equal(reply_int(&r, "memory_mb"), 512);
    assert_string_equal(reply_text(&r, "metadata.owner"), "e2e");
    assert_string_not_equal(reply_text(&r, "started_at"), "");
    assert_null(json_get(r.json, "env"));
    api(&stack, "GET", "/v1/sandboxes", NULL, &list);
    assert_int_equal(list.status, 200);
    assert_int_equal(list.json->count, 1);
}

/* Runs a command line in busybox' shell. */
static void sh(const char *script, struct reply *r)
{
    AUTO_BUF struct buf body = BUF_INIT(1 << 20);
    struct json_writer w;
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_key(&w, "cmd");
    json_cstr(&w, "/bin/sh");
    json_key(&w, "args");
    json_array_begin(&w);
    json_cstr(&w, "-c");
    json_cstr(&w, script);
    json_array_end(&w);
    json_object_end(&w);
    exec_in(&stack, id, body.p, r);
}

static void exec_gives_output_and_code(void **state)
{
    AUTO_REPLY struct reply r = {0};
    NEEDS_STACK();
    sh("echo out; echo err >&2; exit 7", &r);
    assert_string_equal(reply_text(&r, "stdout"), "out\n");
    assert_string_equal(reply_text(&r, "stderr"), "err\n");
    assert_int_equal(reply_int(&r, "exit_code"), 7);
    assert_string_equal(reply_text(&r, "encoding"), "utf-8");
    assert_string_equal(reply_text(&r, "sandbox_id"), id);
    assert_true(reply_int(&r, "duration_ms") >= 0);
}

static void exec_sees_environment_folder_and_input(void **state)
{
    AUTO_REPLY struct reply r = {0};
    NEEDS_STACK();
    exec_in(&stack, id,
        "{\"cmd\":\"sh\",\"args\":[\"-c\",\"echo $GREETING $MORE $(pwd) $(id -u); cat\"],"
        "\"env\":{\"MORE\":\"world\"},\"cwd\":\"/tmp\",\"stdin\":\"from outside\"}",
        &r);
    assert_string_equal(reply_text(&r, "stdout"), "hello world /tmp 0\nfrom outside");
}

static void exec_as_another_user(void **state)
{
    AUTO_REPLY struct reply r = {0};
    NEEDS_STACK();
    exec_in(&stack, id,
        "{\"cmd\":\"sh\",\"args\":[\"-c\",\"id -u; id -g; pwd; cat /etc/shadow 2>/dev/null | wc "
        "-c\"],"
        "\"user\":\"user\"}",
        &r);
    assert_string_equal(reply_text(&r, "stdout"), "1000\n1000\n/home/user\n0\n");
}

static void exec_refuses_what_cannot_run(void **state)
{
    static const struct {
        const char *body;
        const char *field;
    } bad[] = {
        {"{\"cmd\":\"/no/such/program\"}", "cmd"},
        {"{\"cmd\":\"/etc/passwd\"}", "cmd"},
        {"{\"cmd\":\"true\",\"cwd\":\"/no/such/folder\"}", "cwd"},
        {"{\"cmd\":\"true\",\"user\":\"nobody-here\"}", "user"},
        {"{\"cmd\":\"\"}", "cmd"},
        {"{\"cmd\":\"true\",\"timeout_sec\":0}", "timeout_sec"},
        {"{\"cmd\":\"true\",\"unknown\":1}", "unknown"},
    };
    char path[96];
    NEEDS_STACK();
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", id);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_REPLY struct reply r = {0};
        api(&stack, "POST", path, bad[i].body, &r);
        if (r.status != 400)
            fail_msg("%s: %d %.*s", bad[i].body, r.status, (int)r.body.len, r.body.p);
        assert_string_equal(reply_text(&r, "error.details.field"), bad[i].field);
    }
}

static void exec_timeout_kills_the_group_and_keeps_output(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_REPLY struct reply after = {0};
    NEEDS_STACK();
    exec_in(&stack, id,
        "{\"cmd\":\"sh\",\"args\":[\"-c\",\"echo before; sleep 1111 & sleep "
        "1112\"],\"timeout_sec\":1}",
        &r);
    assert_string_equal(reply_text(&r, "stdout"), "before\n");
    assert_int_equal(reply_int(&r, "exit_code"), 124);
    assert_true(json_get(r.json, "timed_out")->boolean);
    sh("ps | grep 'sleep 111[12]' | grep -vc grep", &after);
    assert_string_equal(reply_text(&after, "stdout"), "0\n");
}

static void exec_killed_by_a_signal(void **state)
{
    AUTO_REPLY struct reply r = {0};
    NEEDS_STACK();
    sh("kill -SEGV $$", &r);
    assert_int_equal(reply_int(&r, "exit_code"), 139);
    assert_string_equal(reply_text(&r, "signal"), "SIGSEGV");
}

static void exec_binary_and_large_output(void **state)
{
    AUTO_REPLY struct reply binary = {0};
    AUTO_REPLY struct reply large = {0};
    NEEDS_STACK();
    sh("printf '\\377\\000x'", &binary);
    assert_string_equal(reply_text(&binary, "encoding"), "base64");
    assert_string_equal(reply_text(&binary, "stdout"), "/wB4");
    sh("head -c 20000000 /dev/zero | tr '\\0' a", &large);
    assert_true(json_get(large.json, "truncated")->boolean);
    assert_int_equal(json_get(large.json, "stdout")->string.n, 16 << 20);
    assert_int_equal(reply_int(&large, "exit_code"), 0);
}

static void orphans_are_reaped(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_REPLY struct reply after = {0};
    NEEDS_STACK();
    sh("for i in 1 2 3 4 5; do (setsid sh -c 'exit 3' &) ; done; sleep 0.5", &r);
    sh("ps -o stat | grep -c Z", &after);
    assert_string_equal(reply_text(&after, "stdout"), "0\n");
}

static void read_back(const char *path, struct reply *r)
{
    char url[96];
    AUTO_BUF struct buf body = BUF_INIT(8192);
    (void)snprintf(url, sizeof url, "/v1/sandboxes/%s/files/read", id);
    buf_printf(&body, "{\"path\":\"%s\"}", path);
    api(&stack, "POST", url, body.p, r);
}

static void files_round_trip(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_REPLY struct reply owner = {0};
    AUTO_BUF struct buf content = BUF_INIT(8 << 20);
    NEEDS_STACK();
    for (size_t i = 0; i < 5u << 20; i++)
        buf_append_char(&content, (char)(i * 31 + i / 257));
    write_file(&stack, id, "/tmp/deep/er/file.bin", buf_slice(&content));
    read_back("/tmp/deep/er/file.bin", &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.body.len, content.len);
    assert_memory_equal(r.body.p, content.p, content.len);
    sh("stat -c '%a %u' /tmp/deep/er/file.bin; ls /tmp/deep/er", &owner);
    assert_string_equal(reply_text(&owner, "stdout"), "644 0\nfile.bin\n");
}

static void files_refused(void **state)
{
    AUTO_REPLY struct reply missing = {0};
    AUTO_REPLY struct reply folder = {0};
    NEEDS_STACK();
    read_back("/no/such/file", &missing);
    assert_int_equal(missing.status, 404);
    assert_string_equal(reply_text(&missing, "error.code"), "not_found");
    read_back("/tmp", &folder);
    assert_int_equal(folder.status, 400);
    assert_string_equal(reply_text(&folder, "error.details.field"), "path");
}

/* Straight to the guest agent, as another process on the host could try. */
static int envd_status(const char *target, const char *token)
{
    const struct http_header header = {SLICE_LIT("X-Access-Token"), slice_cstr(token)};
    const struct http_response_head *head;
    struct err e = {0};
    int64_t deadline = deadline_in_ms(10000);
    int fd = sock_connect_tcp(host_ip, 49983, deadline, &e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, &e);
    int status;
    if (!c)
        fail_msg("%s", e.msg);
    assert_int_equal(http_send(c,
                         &(struct http_call){.method = "GET",
                             .target = target,
                             .host = "guest",
                             .headers = &header,
                             .n_headers = token ? 1 : 0,
                             .body_length = HTTP_BODY_IS_SLICE},
                         deadline, &e),
        0);
    assert_int_equal(http_recv_head(c, &head, deadline, &e), 0);
    status = head->status;
    (void)http_conn_free(c);
    return status;
}

static void guest_agent_refuses_without_the_token(void **state)
{
    NEEDS_STACK();
    assert_int_equal(envd_status("/health", NULL), 204);
    assert_int_equal(envd_status("/files?path=/etc/passwd", NULL), 401);
    assert_int_equal(envd_status("/files?path=/etc/passwd", "wrong"), 401);
}

static void guest_knows_who_it_is(void **state)
{
    AUTO_REPLY struct reply r = {0};
    char expected[64];
    long long drift;
    NEEDS_STACK();
    sh("hostname; grep -c $(hostname) /etc/hosts; wc -c < /etc/machine-id", &r);
    (void)snprintf(expected, sizeof expected, "%s\n1\n33\n", id);
    assert_string_equal(reply_text(&r, "stdout"), expected);
    {
        AUTO_REPLY struct reply now = {0};
        sh("date +%s", &now);
        drift = strtoll(reply_text(&now, "stdout"), NULL, 10) - clock_real_ms() / 1000;
        assert_true(drift >= -2 && drift <= 2);
    }
}

/* A line "Key:\tvalue" of /proc/PID/status. */
static void proc_status(pid_t pid, const char *key, char dst[64])
{
    char path[64];
    AUTO_BUF struct buf text = BUF_INIT(1 << 16);
    struct err e = {0};
    const char *p;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    assert_int_equal(io_read_file(AT_FDCWD, path, &text, &e), 0);
    p = strstr(text.p, key);
    assert_non_null(p);
    p += strlen(key) + 1;
    p += strspn(p, "\t ");
    (void)snprintf(dst, 64, "%.*s", (int)strcspn(p, "\n"), p);
}

static void vmm_is_confined(void **state)
{
    static const struct {
        const char *key;
        const char *value;
    } expected[] = {{"CapEff", "0000000000000000"}, {"CapPrm", "0000000000000000"},
        {"CapInh", "0000000000000000"}, {"CapBnd", "0000000000000000"},
        {"CapAmb", "0000000000000000"}, {"NoNewPrivs", "1"}, {"Seccomp", "2"}, {"Groups", ""}};
    pid_t pid;
    char text[64];
    unsigned uid[4] = {0};
    NEEDS_STACK();
    pid = find_vmm(id);
    assert_true(pid > 0);
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        proc_status(pid, expected[i].key, text);
        if (strncmp(text, expected[i].value, strlen(expected[i].value)) != 0)
            fail_msg("%s is %s", expected[i].key, text);
    }
    proc_status(pid, "Uid", text);
    assert_int_equal(sscanf(text, "%u %u %u %u", &uid[0], &uid[1], &uid[2], &uid[3]), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(uid[i], uid[0]);
    assert_true(uid[0] >= 0x70000000 + stack.instance * 4096);
    assert_true(uid[0] < 0x70000000 + stack.instance * 4096 + 4096);
}

static void denied_ranges_stay_denied(void **state)
{
    static const char *const denied[] = {"10.0.0.1", "10.255.255.254", "172.16.0.1",
        "172.31.255.254", "192.168.0.1", "192.168.255.254", "100.64.0.1", "169.254.169.254",
        "169.254.0.22", "169.254.0.20", "127.0.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "0.0.0.1"};
    static const char *const allowed[] = {"udp 198.51.100.1 > " PROBE_PUBLIC,
        "tcp 198.51.100.1 > " PROBE_PUBLIC, "icmp 198.51.100.1 > " PROBE_PUBLIC};
    AUTO_BUF struct buf probe = BUF_INIT(32 << 20);
    AUTO_BUF struct buf args = BUF_INIT(1 << 16);
    AUTO_BUF struct buf seen = BUF_INIT(1 << 20);
    AUTO_REPLY struct reply r = {0};
    char other[32];
    char path[96];
    char other_ip[32];
    struct err e = {0};
    AUTO_CLOSE int capture = -1;
    NEEDS_STACK();
    create_sandbox(&stack, "{\"memory_mb\":256}", other);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", other);
    {
        AUTO_REPLY struct reply info = {0};
        api(&stack, "GET", path, NULL, &info);
        (void)snprintf(other_ip, sizeof other_ip, "%s", reply_text(&info, "host_ip"));
    }
    assert_string_not_equal(other_ip, host_ip);
    assert_int_equal(io_read_file(AT_FDCWD, GUEST_PROBE, &probe, &e), 0);
    write_file(&stack, id, "/tmp/guest-probe", buf_slice(&probe));
    buf_printf(&args, "chmod 755 /tmp/guest-probe; /tmp/guest-probe %s %s %s", PROBE_PUBLIC,
        other_ip, host_ip);
    for (size_t i = 0; i < ARRAY_LEN(denied); i++)
        buf_printf(&args, " %s", denied[i]);
    capture = capture_open();
    sh(args.p, &r);
    assert_string_equal(reply_text(&r, "stdout"), "done\n");
    capture_read(capture, &seen);
    delete_sandbox(&stack, other);
    /* What may go out does go out, so the capture would have shown the rest. */
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (!seen.p || !strstr(seen.p, allowed[i]))
            fail_msg("missing: %s\n%s", allowed[i], seen.p ? seen.p : "");
    for (char *line = strtok(seen.p, "\n"); line; line = strtok(NULL, "\n"))
        if (!strstr(line, PROBE_PUBLIC) || strncmp(line, "forged", 6) == 0)
            fail_msg("left the guest: %s", line);
}

static void patch_and_ping(void **state)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_REPLY struct reply ping = {0};
    char path[96];
    NEEDS_STACK();
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(&stack, "PATCH", path, "{\"timeout_sec\":120,\"metadata\":{\"owner\":null,\"a\":\"b\"}}",
        &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(reply_int(&r, "timeout_sec"), 120);
    assert_string_equal(reply_text(&r, "metadata.a"), "b");
    assert_null(json_get(json_get(r.json, "metadata"), "owner"));
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/ping", id);
    api(&stack, "POST", path, NULL, &ping);
    assert_int_equal(ping.status, 204);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shape_of_a_running_sandbox),
        cmocka_unit_test(exec_gives_output_and_code),
        cmocka_unit_test(exec_sees_environment_folder_and_input),
        cmocka_unit_test(exec_as_another_user),
        cmocka_unit_test(exec_refuses_what_cannot_run),
        cmocka_unit_test(exec_timeout_kills_the_group_and_keeps_output),
        cmocka_unit_test(exec_killed_by_a_signal),
        cmocka_unit_test(exec_binary_and_large_output),
        cmocka_unit_test(orphans_are_reaped),
        cmocka_unit_test(files_round_trip),
        cmocka_unit_test(files_refused),
        cmocka_unit_test(guest_agent_refuses_without_the_token),
        cmocka_unit_test(guest_knows_who_it_is),
        cmocka_unit_test(vmm_is_confined),
        cmocka_unit_test(denied_ranges_stay_denied),
        cmocka_unit_test(patch_and_ping),
    };
    return cmocka_run_group_tests_name("e2e/sandbox", tests, setup, teardown);
}
