/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping sandboxes, for tests. */
#include "sleep.h"

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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

enum { PROGRAM_MAX = 32 << 20, PATH_BYTES = 512 };

void restart_agent(struct stack *s)
{
    if (s->agent > 0)
        assert_int_equal(stack_end(&s->agent, SIGTERM), 0);
    stack_start_agent(s);
}

unsigned test_seed(void)
{
    const char *text = getenv("TORPOR_SEED");
    unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)clock_real_ms();
    print_message("# TORPOR_SEED=%u\n", seed);
    return seed;
}

void kill_hard(pid_t pid)
{
    struct proc_id id;
    struct err e = {0};
    AUTO_CLOSE int fd = -1;
    assert_true(pid > 0);
    assert_int_equal(proc_identify(pid, &id, &e), 0);
    fd = proc_open(&id, &e);
    assert_true(fd >= 0);
    assert_int_equal(proc_signal(fd, SIGKILL, &e), 0);
    assert_int_equal(proc_wait_gone(fd, deadline_in_ms(10000), &e), 0);
}

/* --- calls --- */

void sh_in(const struct stack *s, const char *id, const char *script, struct reply *ret)
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
    exec_in(s, id, body.p, ret);
}

void act(
    const struct stack *s, const char *id, const char *verb, const char *body, struct reply *ret)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/%s", id, verb);
    api(s, "POST", path, body, ret);
}

static void must(struct reply *r, const char *what, int status)
{
    if (r->status != status)
        fail_msg("%s answered %d: %.*s", what, r->status, (int)r->body.len, r->body.p);
}

void pause_sandbox(const struct stack *s, const char *id)
{
    AUTO_REPLY struct reply r = {0};
    act(s, id, "pause", NULL, &r);
    must(&r, "pause", 200);
    assert_string_equal(reply_text(&r, "status"), "paused");
}

void resume_sandbox(const struct stack *s, const char *id)
{
    AUTO_REPLY struct reply r = {0};
    act(s, id, "resume", NULL, &r);
    must(&r, "resume", 200);
    assert_string_equal(reply_text(&r, "status"), "running");
}

void make_snapshot(const struct stack *s, const char *id, const char *name, const char *query)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    char body[160];
    (void)snprintf(path, sizeof path, "/v1/snapshots%s", query);
    (void)snprintf(body, sizeof body, "{\"sandbox_id\":\"%s\",\"name\":\"%s\"}", id, name);
    api(s, "POST", path, body, &r);
    must(&r, "snapshot", 201);
    assert_string_equal(reply_text(&r, "name"), name);
    assert_string_equal(reply_text(&r, "type"), "snapshot");
}

void delete_snapshot(const struct stack *s, const char *name)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/snapshots/%s", name);
    api(s, "DELETE", path, NULL, &r);
    must(&r, "delete of a template", 204);
}

void spawn_from(const struct stack *s, const char *template, char ret_id[32])
{
    char body[128];
    (void)snprintf(body, sizeof body, "{\"template\":\"%s\"}", template);
    create_sandbox(s, body, ret_id);
}

/* --- status --- */

void look(const struct stack *s, const char *id, char status[16], char reason[32])
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", id);
    api(s, "GET", path, NULL, &r);
    must(&r, "get", 200);
    (void)snprintf(status, 16, "%s", reply_text(&r, "status"));
    (void)snprintf(reason, 32, "%s", reply_text(&r, "state_reason"));
}

void wait_status(const struct stack *s, const char *id, const char *wanted,
    const char *wanted_reason, int within_ms)
{
    int64_t deadline = deadline_in_ms(within_ms);
    char status[16];
    char reason[32];
    do
        look(s, id, status, reason);
    while (strcmp(status, wanted) != 0 && clock_mono_ms() < deadline);
    if (strcmp(status, wanted) != 0)
        stack_show_logs(s);
    assert_string_equal(status, wanted);
    assert_string_equal(reason, wanted_reason);
}

void stays(const struct stack *s, const char *id, const char *wanted, int ms)
{
    int64_t until = deadline_in_ms(ms);
    char status[16];
    char reason[32];
    do {
        look(s, id, status, reason);
        assert_string_equal(status, wanted);
    } while (clock_mono_ms() < until);
}

/* --- the program in the guest --- */

void hold_start(const struct stack *s, const char *id, unsigned mib)
{
    AUTO_BUF struct buf program = BUF_INIT(PROGRAM_MAX);
    AUTO_REPLY struct reply r = {0};
    struct err e = {0};
    char script[96];
    if (io_read_file(AT_FDCWD, GUEST_HOLD, &program, &e) < 0)
        fail_msg("%s", e.msg);
    write_file(s, id, "/tmp/guest-hold", buf_slice(&program));
    (void)snprintf(
        script, sizeof script, "chmod 755 /tmp/guest-hold && /tmp/guest-hold serve %u", mib);
    sh_in(s, id, script, &r);
    if (reply_int(&r, "exit_code") != 0)
        fail_msg("guest-hold: %.*s", (int)r.body.len, r.body.p);
}

void hold(const struct stack *s, const char *id, const char *command, char ret[HOLD_LINE])
{
    AUTO_REPLY struct reply r = {0};
    char script[128];
    const char *answer;
    (void)snprintf(script, sizeof script, "/tmp/guest-hold %s", command);
    sh_in(s, id, script, &r);
    answer = reply_text(&r, "stdout");
    if (reply_int(&r, "exit_code") != 0 || !answer[0] || strcmp(answer, "unknown\n") == 0)
        fail_msg("guest-hold %s: %.*s", command, (int)r.body.len, r.body.p);
    (void)snprintf(ret, HOLD_LINE, "%.*s", (int)strcspn(answer, "\n"), answer);
}

void hold_check(const struct stack *s, const char *id, char ret[HOLD_LINE])
{
    size_t pages;
    size_t wrong;
    size_t first;
    size_t blocks;
    unsigned wrong_blocks;
    hold(s, id, "check", ret);
    if (sscanf(ret, "pages=%zu wrong=%zu first=%zu blocks=%zu wrong=%u", &pages, &wrong, &first,
            &blocks, &wrong_blocks) != 5 ||
        pages == 0 || wrong > 0 || wrong_blocks > 0)
        fail_msg("the guest sees %s", ret);
}

void hold_is(const struct stack *s, const char *id, const char *expected)
{
    char now[HOLD_LINE];
    hold_check(s, id, now);
    assert_string_equal(now, expected);
}

/* --- the host --- */

static void add_folder(const char *path, struct disk_use *use, struct buf *names)
{
    DIR *d = opendir(path);
    struct dirent *ent;
    while (d && (ent = readdir(d))) {
        char below[PATH_BYTES];
        struct stat st;
        if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
            continue;
        if ((size_t)snprintf(below, sizeof below, "%s/%s", path, ent->d_name) >= sizeof below)
            fail_msg("a long path");
        if (lstat(below, &st) < 0 || st.st_nlink == 0)
            continue; /* it went meanwhile, or as it was looked at */
        use->files++;
        if (names)
            buf_printf(names, "%s\n", below);
        if (S_ISDIR(st.st_mode))
            add_folder(below, use, names);
        else /* A file of several names is in each with its part, so that it counts once. */
            use->bytes += (long long)st.st_blocks * 512 / (long long)st.st_nlink;
    }
    if (d)
        (void)closedir(d);
}

void disk_use(const struct stack *s, struct disk_use *ret, struct buf *ret_names)
{
    static const char *const folders[] = {"blobs", "generations", "sandboxes", "templates"};
    *ret = (struct disk_use){0};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", s->dir, folders[i]);
        add_folder(path, ret, ret_names);
    }
}
