/* SPDX-License-Identifier: Apache-2.0 */
/* The first sandbox. */
#include "cli/first.h"

#include "base/clock.h"
#include "cli/progress.h"
#include "cli/sandbox.h"

enum { CREATE_MS = 180000 };

static const char hello[] =
    "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"echo \\\"Hello from $(hostname): "
    "$(uname -srm), $(id -un), $(nproc) CPU\\\"\"]}";
/* A program that counts, and the question how far it is. */
static const char count[] =
    "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"(i=0; while i=$((i+1)); do echo $i >/tmp/count; sleep "
    "0.05; done) >/dev/null 2>&1 & sleep 0.3; echo its program has counted to $(cat "
    "/tmp/count)\"]}";
static const char count_again[] =
    "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"a=$(cat /tmp/count); sleep 0.2; b=$(cat /tmp/count); "
    "rm /tmp/count; test $b -gt $a && echo the program went on from $a to $b\"]}";

static int create(struct host_run *r, struct api *api, struct sandbox_id *ret, struct err *e)
{
    AUTO_ANSWER struct api_answer answer = {0};
    struct progress progress;
    int64_t began = clock_mono_ms();
    int rc;
    progress_start(&progress, r->cli, "booting");
    api->progress = &progress;
    rc = api_call(api,
        &(struct api_call){.method = "POST",
            .target = "/v1/sandboxes",
            .json = SLICE_LIT("{\"template\":\"minimal\"}"),
            .timeout_ms = CREATE_MS},
        &answer, e);
    progress_end(&progress);
    api->progress = NULL;
    if (rc < 0)
        return err_wrap(e, "the first sandbox was not created");
    if (!sandbox_id_parse(slice_cstr(api_text(&answer, answer.json, "id")), ret))
        return err_set(e, ERR_PROTOCOL, "the first sandbox has no id");
    host_say(r, "  %s is %s after %lld ms", ret->text, api_text(&answer, answer.json, "status"),
        (long long)(clock_mono_ms() - began));
    return 0;
}

/* Runs a command and says what it said. */
static int ask(struct host_run *r, struct api *api, const struct sandbox_id *id, const char *body,
    struct err *e)
{
    AUTO_ANSWER struct api_answer answer = {0};
    char target[TARGET_MAX];
    const char *out;
    sandbox_target(id, "/exec", target);
    if (api_call(api,
            &(struct api_call){.method = "POST", .target = target, .json = slice_cstr(body)},
            &answer, e) < 0)
        return err_wrap(e, "a command was not run");
    out = api_text(&answer, answer.json, "stdout");
    if (api_int(answer.json, "exit_code", -1) != 0)
        return err_set(e, ERR_INTERNAL, "a command failed: %.100s%.100s", out,
            api_text(&answer, answer.json, "stderr"));
    host_say(r, "  %.*s", (int)strcspn(out, "\n"), out);
    return 0;
}

/* POST to `suffix`; stores how long it took. */
static int change(struct api *api, const struct sandbox_id *id, const char *suffix, int64_t *ret_ms,
    struct err *e)
{
    AUTO_ANSWER struct api_answer answer = {0};
    char target[TARGET_MAX];
    int64_t began = clock_mono_ms();
    sandbox_target(id, suffix, target);
    if (api_call(api,
            &(struct api_call){.method = "POST", .target = target, .timeout_ms = CREATE_MS},
            &answer, e) < 0)
        return -1;
    *ret_ms = clock_mono_ms() - began;
    return 0;
}

/* To sleep and back, with a program that must not notice. */
static int nap(struct host_run *r, struct api *api, const struct sandbox_id *id, struct err *e)
{
    int64_t asleep_ms;
    int64_t awake_ms;
    if (ask(r, api, id, count, e) < 0)
        return -1;
    if (change(api, id, "/pause", &asleep_ms, e) < 0)
        return err_wrap(e, "the first sandbox was not put to sleep");
    if (change(api, id, "/resume", &awake_ms, e) < 0)
        return err_wrap(e, "the first sandbox did not wake");
    host_say(r, "  put it to sleep in %lld ms and woke it in %lld ms", (long long)asleep_ms,
        (long long)awake_ms);
    return ask(r, api, id, count_again, e);
}

static int destroy(struct host_run *r, struct api *api, const struct sandbox_id *id, struct err *e)
{
    AUTO_ANSWER struct api_answer answer = {0};
    char target[TARGET_MAX];
    sandbox_target(id, "", target);
    if (api_call(api, &(struct api_call){.method = "DELETE", .target = target}, &answer, e) < 0)
        return err_wrap(e, "the first sandbox was not destroyed");
    host_say(r, "  destroyed it");
    return 0;
}

int first_sandbox(struct host_run *r, struct err *e)
{
    AUTO_API struct api api = {0};
    struct sandbox_id id;
    if (settings_parse_url(r->url, &api.settings, e) < 0)
        return -1;
    (void)snprintf(api.settings.key, sizeof api.settings.key, "%s", r->key);
    host_say(r, "creating a first sandbox (a real VM; without usable KVM this takes some seconds)");
    if (create(r, &api, &id, e) == 0 && ask(r, &api, &id, hello, e) == 0 &&
        nap(r, &api, &id, e) == 0 && destroy(r, &api, &id, e) == 0)
        return 0;
    daemon_show_log(r, "agent");
    daemon_show_log(r, "control");
    return err_wrap(e, "Torpor is running (torpor down stops it), but");
}
