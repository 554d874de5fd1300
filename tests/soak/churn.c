/* SPDX-License-Identifier: Apache-2.0 */
/* One worker: sandboxes through their lives, one round after the other. */
#include "soak.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"

enum {
    HOLD_MIB = 4,
    STEPS_MAX = 6,          /* of a round, between create and destroy */
    AFTER_START_MS = 15000, /* a program that has just started may still recover */
    SETTLE_MS = 90000,
    AGAIN_MS = 500,
    PROGRAM_MAX = 8 << 20,
};

const char *const soak_op_names[OP_COUNT] = {"create", "exec", "check", "pause", "resume",
    "snapshot", "spawn", "delete snapshot", "destroy", "kill VMM", "kill shim", "resume from last"};

struct worker {
    struct soak *soak;
    unsigned number;
    unsigned random;
    char id[32];    /* of the round's sandbox, "" for none */
    bool holds;     /* guest-hold runs in it */
    bool slept;     /* it has a generation */
    bool disturbed; /* something explained went wrong in this round */
};

static unsigned below(struct worker *w, unsigned n)
{
    return (unsigned)rand_r(&w->random) % n;
}

static bool was_disturbed(const struct soak *soak, int64_t since_ms)
{
    int64_t dead = atomic_load(&soak->dead_since_ms);
    int64_t alive = atomic_load(&soak->alive_since_ms);
    return dead != 0 || (alive != 0 && since_ms < alive + AFTER_START_MS);
}

/* One call; true when it answered as it should. What went wrong is counted, and told unless it is
 * explained. */
static bool call(
    struct worker *w, enum soak_op op, const struct api_request *q, int wanted, struct reply *ret)
{
    struct soak *soak = w->soak;
    struct api_request request = *q;
    struct err e = {0};
    int64_t began = clock_mono_ms();
    int rc;
    request.key = soak->stack.key;
    rc = api_ask(&soak->stack, &request, ret, &e);
    atomic_fetch_add(&soak->n[op], 1);
    if (rc == 0 && ret->status == wanted)
        return true;
    if (was_disturbed(soak, began)) {
        atomic_fetch_add(&soak->explained, 1);
        w->disturbed = true;
        return false;
    }
    atomic_fetch_add(&soak->unexplained, 1);
    printf("UNEXPLAINED: worker %u, %s of %s after %lld ms: %d %.*s%s\n", w->number,
        soak_op_names[op], w->id, (long long)(clock_mono_ms() - began), rc == 0 ? ret->status : 0,
        rc == 0 ? (int)ret->body.len : 0, rc == 0 && ret->body.p ? ret->body.p : "",
        rc < 0 ? e.msg : "");
    (void)fflush(stdout);
    return false;
}

static bool call_json(struct worker *w, enum soak_op op, const char *path, const char *body,
    int wanted, struct reply *ret)
{
    return call(w, op,
        &(struct api_request){.method = "POST",
            .path = path,
            .content_type = body ? "application/json" : NULL,
            .body = slice_cstr(body)},
        wanted, ret);
}

static bool post(struct worker *w, enum soak_op op, const char *verb, const char *body, int wanted)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/%s", w->id, verb);
    return call_json(w, op, path, body, wanted, &r);
}

static void lost(struct worker *w, const char *why, const char *detail)
{
    atomic_fetch_add(&w->soak->lost, 1);
    printf("LOST: worker %u, %s: %s %s\n", w->number, w->id, why, detail);
    (void)fflush(stdout);
}

/* --- inside --- */

static bool run(struct worker *w, enum soak_op op, const char *script, char *ret, size_t size)
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    char body[256];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/exec", w->id);
    (void)snprintf(body, sizeof body, "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"%s\"]}", script);
    if (!call_json(w, op, path, body, 200, &r))
        return false;
    (void)snprintf(ret, size, "%s", reply_text(&r, "stdout"));
    return true;
}

static bool put_hold(struct worker *w)
{
    AUTO_BUF struct buf program = BUF_INIT(PROGRAM_MAX);
    AUTO_BUF struct buf body = BUF_INIT(PROGRAM_MAX);
    AUTO_REPLY struct reply r = {0};
    char path[96];
    struct err e = {0};
    if (io_read_file(AT_FDCWD, GUEST_HOLD, &program, &e) < 0)
        fail_msg("%s", e.msg);
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s/files/write", w->id);
    buf_append_cstr(&body,
        "--soak\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/tmp/guest-hold\r\n"
        "--soak\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
    buf_append_slice(&body, buf_slice(&program));
    buf_append_cstr(&body, "\r\n--soak--\r\n");
    return call(w, OP_EXEC,
        &(struct api_request){.method = "POST",
            .path = path,
            .content_type = "multipart/form-data; boundary=soak",
            .body = buf_slice(&body)},
        204, &r);
}

static void start_hold(struct worker *w)
{
    char script[96];
    char said[HOLD_LINE];
    (void)snprintf(
        script, sizeof script, "chmod 755 /tmp/guest-hold && /tmp/guest-hold serve %d", HOLD_MIB);
    w->holds = put_hold(w) && run(w, OP_EXEC, script, said, sizeof said);
}

/* Every page and block of the guest's memory is as it was left. */
static void check(struct worker *w)
{
    char said[HOLD_LINE] = "";
    if (!w->holds || !run(w, OP_CHECK, "/tmp/guest-hold check", said, sizeof said))
        return;
    if (!strstr(said, " wrong=0 ") || !strstr(said, "blocks"))
        lost(w, "its memory is", said);
}

static void change(struct worker *w)
{
    char script[96];
    char said[HOLD_LINE];
    if (!w->holds)
        return;
    (void)snprintf(script, sizeof script, "/tmp/guest-hold change %u %u %u", 2 + below(w, 1000),
        below(w, 20), 3 + below(w, 9));
    (void)run(w, OP_EXEC, script, said, sizeof said);
}

/* --- its life --- */

static void get_status(struct worker *w, char ret[16])
{
    AUTO_REPLY struct reply r = {0};
    char path[96];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", w->id);
    ret[0] = '\0';
    if (api_ask(&w->soak->stack,
            &(struct api_request){.method = "GET", .path = path, .key = w->soak->stack.key}, &r,
            &e) == 0)
        (void)snprintf(ret, 16, "%s", r.status == 200 ? reply_text(&r, "status") : "");
}

static bool is_settled(const char *status)
{
    return strcmp(status, "running") == 0 || strcmp(status, "paused") == 0 ||
           strcmp(status, "stopped") == 0;
}

static bool wait_settled(struct worker *w, const char *wanted, char ret[16])
{
    int64_t deadline = deadline_in_ms(SETTLE_MS);
    do {
        get_status(w, ret);
        if (is_settled(ret) && (!wanted || strcmp(ret, wanted) == 0))
            return true;
        (void)poll(NULL, 0, AGAIN_MS);
    } while (clock_mono_ms() < deadline);
    return false;
}

/* A program of Torpor was dead: the sandbox must have outlived it, awake or asleep. */
static void look_after(struct worker *w)
{
    char status[16];
    w->disturbed = false;
    if (!wait_settled(w, NULL, status)) {
        lost(w, "after a disturbance it is", status);
        return;
    }
    if (strcmp(status, "stopped") == 0)
        lost(w, "after a disturbance it is", status);
    if (strcmp(status, "paused") == 0)
        (void)post(w, OP_RESUME, "resume", NULL, 200);
    check(w);
}

static void sleep_and_wake(struct worker *w)
{
    change(w);
    if (!post(w, OP_PAUSE, "pause", NULL, 200))
        return;
    w->slept = true;
    if (post(w, OP_RESUME, "resume", NULL, 200))
        check(w);
}

static void snapshot_and_spawn(struct worker *w)
{
    AUTO_REPLY struct reply made = {0};
    AUTO_REPLY struct reply spawned = {0};
    AUTO_REPLY struct reply gone = {0};
    struct worker child = *w;
    char body[160];
    char path[96];
    (void)snprintf(
        body, sizeof body, "{\"sandbox_id\":\"%s\",\"name\":\"soak-%u\"}", w->id, w->number);
    if (!call_json(w, OP_SNAPSHOT, "/v1/snapshots?overwrite=true", body, 201, &made))
        return;
    (void)snprintf(body, sizeof body, "{\"template\":\"soak-%u\"}", w->number);
    if (call_json(w, OP_SPAWN, "/v1/sandboxes", body, 201, &spawned)) {
        (void)snprintf(child.id, sizeof child.id, "%s", reply_text(&spawned, "id"));
        check(&child);
        (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", child.id);
        (void)call(&child, OP_DESTROY, &(struct api_request){.method = "DELETE", .path = path}, 204,
            &gone);
        w->disturbed |= child.disturbed;
    }
    (void)snprintf(path, sizeof path, "/v1/snapshots/soak-%u", w->number);
    if (below(w, 2) == 0) {
        AUTO_REPLY struct reply r = {0};
        (void)call(w, OP_DELETE_SNAPSHOT, &(struct api_request){.method = "DELETE", .path = path},
            204, &r);
    }
}

/* The VM dies; what it had at its last pause is still there. */
static void kill_vm(struct worker *w)
{
    char status[16];
    bool shim = below(w, 3) == 0;
    pid_t vmm = find_vmm(w->id);
    pid_t victim = vmm > 0 && shim ? parent_of(vmm) : vmm;
    if (victim <= 1 || kill(victim, SIGKILL) < 0)
        return;
    atomic_fetch_add(&w->soak->n[shim ? OP_KILL_SHIM : OP_KILL_VMM], 1);
    if (!wait_settled(w, "stopped", status)) {
        lost(w, "its VM was killed, and it is", status);
        return;
    }
    if (w->slept && post(w, OP_RESUME_LAST, "resume", "{\"from\":\"last_generation\"}", 200))
        check(w);
    else
        w->holds = false;
}

static bool runs(struct worker *w)
{
    char status[16];
    return wait_settled(w, NULL, status) && strcmp(status, "running") == 0;
}

static void step(struct worker *w)
{
    char said[HOLD_LINE];
    switch (below(w, 8)) {
    case 0:
        kill_vm(w);
        break;
    case 1:
    case 2:
        snapshot_and_spawn(w);
        break;
    case 3:
        if (run(w, OP_EXEC, "echo soak; ps | wc -l", said, sizeof said) &&
            strncmp(said, "soak\n", 5) != 0)
            lost(w, "an exec said", said);
        break;
    default:
        sleep_and_wake(w);
        break;
    }
}

/* Until it is gone: nothing else ends a round. */
static void destroy(struct worker *w)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/v1/sandboxes/%s", w->id);
    for (int i = 0; i < 20; i++) {
        AUTO_REPLY struct reply r = {0};
        if (call(w, OP_DESTROY, &(struct api_request){.method = "DELETE", .path = path}, 204, &r))
            break;
        (void)poll(NULL, 0, AGAIN_MS);
    }
    w->id[0] = '\0';
}

static void one_round(struct worker *w)
{
    AUTO_REPLY struct reply r = {0};
    unsigned n = 1 + below(w, STEPS_MAX);
    w->id[0] = '\0';
    w->holds = w->slept = w->disturbed = false;
    if (!call_json(w, OP_CREATE, "/v1/sandboxes", "{}", 201, &r)) {
        (void)poll(NULL, 0, AGAIN_MS);
        return;
    }
    (void)snprintf(w->id, sizeof w->id, "%s", reply_text(&r, "id"));
    start_hold(w);
    for (unsigned i = 0; i < n; i++) {
        if (w->disturbed)
            look_after(w);
        if (!runs(w))
            break;
        step(w);
    }
    destroy(w);
}

void churn(struct soak *soak, unsigned worker, unsigned seed)
{
    struct worker w = {.soak = soak, .number = worker, .random = seed + worker};
    while (!atomic_load(&soak->ending)) {
        if (!atomic_load(&soak->stand_still)) {
            one_round(&w);
            continue;
        }
        atomic_fetch_add(&soak->standing, 1);
        while (atomic_load(&soak->stand_still))
            (void)poll(NULL, 0, AGAIN_MS / 10);
        atomic_fetch_sub(&soak->standing, 1);
    }
}
