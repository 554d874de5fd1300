/* SPDX-License-Identifier: Apache-2.0 */
/* torpor pause, resume. */
#include "base/cleanup.h"
#include "cli/body.h"
#include "cli/progress.h"
#include "cli/sandbox.h"
#include "cli/timing.h"

enum {
    SLEEP_TIMEOUT_MS = 360000, /* over the server's own bound for the host, 5 minutes */
    BODY_MAX = 256,
};

/* One call to a sandbox that takes its time; then its phases, where they are asked for. */
static int change(
    struct cli *c, const struct args *a, const char *suffix, struct slice json, struct err *e)
{
    AUTO_API struct api api = {0};
    AUTO_ANSWER struct api_answer answer = {0};
    struct progress progress;
    struct sandbox_id id;
    char target[TARGET_MAX];
    int rc;
    if (api_open(&api, e) < 0 || sandbox_find(&api, a->operands[0], &id, e) < 0)
        return -1;
    sandbox_target(&id, suffix, target);
    progress_start(&progress, c, suffix[1] == 'p' ? "pausing" : "resuming");
    api.progress = &progress;
    rc = api_call(&api,
        &(struct api_call){
            .method = "POST", .target = target, .json = json, .timeout_ms = SLEEP_TIMEOUT_MS},
        &answer, e);
    progress_end(&progress);
    if (rc < 0)
        return -1;
    if (args_flag(a, "verbose"))
        timing_print(c, answer.server_timing);
    return EXIT_OK;
}

static int run_pause(struct cli *c, const struct args *a, struct err *e)
{
    return change(c, a, "/pause", slice_of(NULL, 0), e);
}

static const struct cli_option pause_options[] = {TIMING_OPTION, {0}};

const struct cli_command command_pause = {.name = "pause",
    .arguments = "ID",
    .summary = "put a sandbox to sleep",
    .about =
        "Saves a running sandbox with its memory to disk and stops it: it then needs no memory "
        "and no CPU.\nNothing in it is killed; torpor resume goes on where it was.",
    .example = "torpor pause sbq3 -v",
    .options = pause_options,
    .words = "@sandbox",
    .args_min = 1,
    .args_max = 1,
    .run = run_pause};

static int run_resume(struct cli *c, const struct args *a, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(BODY_MAX);
    struct json_writer w;
    json_writer_init(&w, &body);
    json_object_begin(&w);
    body_write_text(&w, "from", args_flag(a, "from-last-generation") ? "last_generation" : NULL);
    body_write_text(&w, "mode", args_flag(a, "disk-only") ? "disk" : NULL);
    json_object_end(&w);
    if (body.failed)
        return err_set(e, ERR_NOMEM, "out of memory");
    return change(c, a, "/resume", buf_slice(&body), e);
}

static const struct cli_option resume_options[] = {
    {.name = "from-last-generation",
        .help = "one that stopped by accident, as it was when it slept last"},
    {.name = "disk-only", .help = "boot its disk, without its memory"}, TIMING_OPTION, {0}};

const struct cli_command command_resume = {.name = "resume",
    .arguments = "ID",
    .summary = "wake a sandbox",
    .about = "Wakes a paused sandbox where it was: same processes, same memory, same files.\n"
             "One that is stopped because its VM exited or was lost comes back with "
             "--from-last-generation.",
    .example = "torpor resume sbq3",
    .options = resume_options,
    .words = "@sandbox",
    .args_min = 1,
    .args_max = 1,
    .run = run_resume};
