/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane dies at every step of a pause, a resume, and of making, overwriting and
 * deleting a snapshot.
 *
 * A step is a call of the database or of the agent by the request's own thread. A death comes
 * before a step or behind it; from then on nothing of the old service reaches anything. Then a new
 * service runs over the same database: the row must say what the host says, each template must have
 * its bytes, and the host no bytes without a template.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "control/service/agent.h"
#include "control/service/service.h"
#include "tmpdir.h"

enum { SNAPSHOTS_MAX = 64, PATIENCE_SEC = 20, STEPS_MAX = 64 };
enum death { BEFORE, BEHIND, DEATHS };

struct world {
    struct store base; /* what the service gets */
    struct agent agent;
    struct store *real;
    struct tmpdir dir;
    struct service *service;
    struct principal who;
    struct sandbox_id id; /* the one sandbox */

    pthread_mutex_t mutex; /* over what follows */
    pthread_cond_t changed;
    pthread_t victim;
    bool armed, dead;
    int steps, die_at;
    enum death death;
    int lists;
    uint64_t revision; /* of the sandbox, and of the host */
    bool there, paused;
    char snapshots[SNAPSHOTS_MAX][ID_TEXT_MAX + 1];
};

static struct world world;

/* --- dying --- */

enum gate { GO, REFUSE, GO_AND_DIE };

static enum gate gate_enter(void)
{
    MUTEX_GUARD(&world.mutex);
    if (world.dead)
        return REFUSE;
    if (!world.armed || !pthread_equal(pthread_self(), world.victim) ||
        ++world.steps != world.die_at)
        return GO;
    if (world.death == BEHIND)
        return GO_AND_DIE;
    world.dead = true;
    return REFUSE;
}

static int gate_leave(enum gate g, int rc, struct err *e)
{
    MUTEX_GUARD(&world.mutex);
    if (g == GO_AND_DIE)
        world.dead = true;
    return world.dead ? err_set(e, ERR_UNAVAILABLE, "dead") : rc;
}

/* An operation of the store with a gate before and behind it. */
#define GATED(name, params, ...)                                                                   \
    static int w_##name params                                                                     \
    {                                                                                              \
        enum gate gate_ = gate_enter();                                                            \
        return gate_leave(                                                                         \
            gate_, gate_ == REFUSE ? -1 : world.real->ops->name(world.real, __VA_ARGS__), e);      \
    }

GATED(host_see,
    (struct store * s, const struct host_row *host, struct host_row *ret, struct err *e), host, ret,
    e)
GATED(template_base,
    (struct store * s, struct slice name, int64_t now_ms, struct template_id *ret, struct err *e),
    name, now_ms, ret, e)
GATED(
    template_is_base, (struct store * s, struct slice name, bool *ret, struct err *e), name, ret, e)
GATED(template_get,
    (struct store * s, const struct team_id *team, struct slice name, struct template_row *ret,
        struct err *e),
    team, name, ret, e)
GATED(snapshot_begin, (struct store * s, const struct snapshot_removal *r, struct err *e), r, e)
GATED(snapshot_commit,
    (struct store * s, const struct template_row *row, bool overwrite, struct err *e), row,
    overwrite, e)
GATED(snapshot_delete,
    (struct store * s, const struct team_id *team, struct slice name, struct err *e), team, name, e)
GATED(removal_due,
    (struct store * s, const struct host_id *host, int64_t now_ms, struct removals_due *ret,
        struct err *e),
    host, now_ms, ret, e)
GATED(removal_delay, (struct store * s, const struct template_id *id, int64_t ms, struct err *e),
    id, ms, e)
GATED(removal_done, (struct store * s, const struct template_id *id, struct err *e), id, e)
GATED(sandbox_create,
    (struct store * s, const struct sandbox_row *row, const char *request_id, struct err *e), row,
    request_id, e)
GATED(sandbox_get,
    (struct store * s, const struct team_id *team, const struct sandbox_id *id, struct arena *a,
        struct sandbox_row *ret, struct err *e),
    team, id, a, ret, e)
GATED(sandbox_list_live,
    (struct store * s, const struct host_id *host, struct arena *a, struct sandbox_list *ret,
        struct err *e),
    host, a, ret, e)
GATED(sandbox_change,
    (struct store * s, const struct sandbox_id *id, const struct sandbox_change *change,
        struct err *e),
    id, change, e)
GATED(
    touch, (struct store * s, const struct touch *touches, size_t n, struct err *e), touches, n, e)
GATED(sandbox_purge, (struct store * s, int64_t before_ms, size_t *ret, struct err *e), before_ms,
    ret, e)

static const struct store_ops gated_store = {
    .host_see = w_host_see,
    .template_base = w_template_base,
    .template_is_base = w_template_is_base,
    .template_get = w_template_get,
    .snapshot_begin = w_snapshot_begin,
    .snapshot_commit = w_snapshot_commit,
    .snapshot_delete = w_snapshot_delete,
    .removal_due = w_removal_due,
    .removal_delay = w_removal_delay,
    .removal_done = w_removal_done,
    .sandbox_create = w_sandbox_create,
    .sandbox_get = w_sandbox_get,
    .sandbox_list_live = w_sandbox_list_live,
    .sandbox_change = w_sandbox_change,
    .touch = w_touch,
    .sandbox_purge = w_sandbox_purge,
};

/* --- the host; the mutex is held --- */

static struct agent_sandbox_info *info(struct arena *arena)
{
    struct agent_sandbox_info *i = arena_alloc(arena, sizeof *i);
    *i = (struct agent_sandbox_info){
        .sandbox_id = slice_cstr(world.id.text),
        .status = world.paused ? SLICE_LIT("paused") : SLICE_LIT("running"),
        .vcpus = 1,
        .memory_mb = 512,
        .revision = world.revision,
        .status_since_ms = 1000,
    };
    return i;
}

static char *find_snapshot(struct slice id)
{
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
        if (slice_is(id, world.snapshots[i]))
            return world.snapshots[i];
    return NULL;
}

static int host_snapshot(const struct agent_create_snapshot_request *req,
    struct agent_create_snapshot_response *resp, struct arena *arena)
{
    char *at = find_snapshot(SLICE_LIT(""));
    assert_non_null(at);
    assert_true(slice_copy_cstr(req->snapshot_id, at, ID_TEXT_MAX + 1));
    resp->snapshot = arena_alloc(arena, sizeof *resp->snapshot);
    *resp->snapshot = (struct agent_snapshot_info){
        .snapshot_id = slice_cstr(arena_strndup(arena, at, ID_TEXT_MAX)),
        .vcpus = 1,
        .memory_mb = 512,
    };
    return 0;
}

static int host_list(
    const struct agent_list_request *req, struct agent_list_response *resp, struct arena *arena)
{
    static const struct slice names[] = {SLICE_LIT("minimal")};
    struct agent_sandbox_info **infos = arena_calloc(arena, 1, sizeof *infos);
    infos[0] = info(arena);
    resp->sandboxes = (struct rpc_list){infos, world.there ? 1 : 0};
    resp->host_id = SLICE_LIT("hostaaaaaaaaaaaaaaaaaaaa");
    resp->cluster_id = SLICE_LIT("c1");
    resp->agent_epoch = 1;
    resp->host_revision = world.revision + 1;
    resp->full = req->since_revision == 0;
    resp->templates = (struct rpc_list){(void *)(uintptr_t)names, 1};
    world.lists++;
    (void)pthread_cond_broadcast(&world.changed);
    return 0;
}

static int host_move(bool paused, struct agent_sandbox_info **ret, struct arena *arena)
{
    world.paused = paused;
    world.revision += 2;
    *ret = info(arena);
    return 0;
}

static int host_call(
    enum agent_method m, const void *req, void *resp, struct arena *arena, struct err *e)
{
    char *at;
    MUTEX_GUARD(&world.mutex);
    switch (m) {
    case AGENT_CREATE:
        world.there = true;
        assert_true(
            sandbox_id_parse(((const struct agent_create_request *)req)->sandbox_id, &world.id));
        return host_move(false, &((struct agent_create_response *)resp)->sandbox, arena);
    case AGENT_PAUSE:
        return host_move(true, &((struct agent_pause_response *)resp)->sandbox, arena);
    case AGENT_RESUME:
        return host_move(false, &((struct agent_resume_response *)resp)->sandbox, arena);
    case AGENT_CREATE_SNAPSHOT:
        return host_snapshot(req, resp, arena);
    case AGENT_DELETE_SNAPSHOT:
        at = find_snapshot(((const struct agent_delete_snapshot_request *)req)->snapshot_id);
        if (at)
            at[0] = '\0';
        return 0;
    case AGENT_LIST:
        return host_list(req, resp, arena);
    default:
        return err_set(e, ERR_AGENT, "not in this test");
    }
}

static int w_call(struct agent *a, enum agent_method m, const void *req, void *resp,
    struct arena *arena, int64_t timeout_ms, struct err *e)
{
    enum gate g = gate_enter();
    return gate_leave(g, g == REFUSE ? -1 : host_call(m, req, resp, arena, e), e);
}

static const struct agent_ops gated_agent = {.call = w_call};

/* --- lives of the service --- */

static void wait_lists(int n)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_SEC;
    MUTEX_GUARD(&world.mutex);
    n += world.lists;
    while (world.lists < n)
        if (pthread_cond_timedwait(&world.changed, &world.mutex, &until) != 0) {
            print_error("the service does not look at its agent\n");
            abort();
        }
}

/* `doubt_ms`: after which an unanswered snapshot is removed. */
static void service_begin(int doubt_ms)
{
    struct err e = {0};
    struct service_config config = {.store = &world.base,
        .agent = &world.agent,
        .poll_ms = 2,
        .gap_ms = 1,
        .full_every_ms = 1,
        .snapshot_doubt_ms = doubt_ms};
    {
        MUTEX_GUARD(&world.mutex);
        world.dead = false;
        world.armed = false;
    }
    if (service_open(&config, &world.service, &e) < 0)
        fail_msg("%s", e.msg);
    wait_lists(2);
}

static int pause_it(void)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct slept slept;
    struct err e = {0};
    arena_init(&arena, 1 << 20);
    return service_pause(world.service, &world.who, &world.id, &arena, &slept, &e);
}

static int resume_it(void)
{
    CLEANUP(arena_done) struct arena arena = {0};
    const struct resume_params p = {.disk_only = false};
    struct slept slept;
    struct err e = {0};
    arena_init(&arena, 1 << 20);
    return service_resume(world.service, &world.who, &world.id, &p, &arena, &slept, &e);
}

static int snapshot(bool overwrite)
{
    const struct snapshot_params p = {
        .sandbox = world.id, .name = SLICE_LIT("n"), .overwrite = overwrite};
    struct snapshot_made made;
    struct err e = {0};
    return service_snapshot_create(world.service, &world.who, &p, &made, &e);
}

static int snapshot_it(void)
{
    return snapshot(/* overwrite= */ false);
}

static int overwrite_it(void)
{
    return snapshot(/* overwrite= */ true);
}

static int delete_it(void)
{
    struct err e = {0};
    return service_snapshot_delete(world.service, &world.who, SLICE_LIT("n"), &e);
}

/* The host has exactly the templates' bytes, and the row says what the host says. */
static bool all_agree(void)
{
    CLEANUP(arena_done) struct arena arena = {0};
    const struct template_query q = {.team = world.who.team, .limit = SNAPSHOTS_MAX};
    struct template_rows list;
    struct sandbox_row row;
    struct err e = {0};
    size_t n = 0;
    arena_init(&arena, 4 << 20);
    assert_int_equal(world.real->ops->template_list(world.real, &q, &arena, &list, &e), 0);
    assert_int_equal(
        world.real->ops->sandbox_get(world.real, NULL, &world.id, &arena, &row, &e), 0);
    MUTEX_GUARD(&world.mutex);
    for (size_t i = 0; i < list.n; i++)
        assert_non_null(find_snapshot(slice_cstr(list.rows[i].id.text))); /* at any time */
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
        n += world.snapshots[i][0] != '\0';
    return n == list.n && row.status == (world.paused ? SANDBOX_PAUSED : SANDBOX_RUNNING);
}

static void wait_agreement(const char *what)
{
    for (int i = 0; i < 5000; i++) {
        if (all_agree())
            return;
        wait_lists(1);
    }
    fail_msg("%s, death %d at step %d: both sides disagree", what, (int)world.death, world.die_at);
}

/* --- the sweep --- */

struct scenario {
    const char *name;
    bool paused;       /* the sandbox sleeps at first */
    bool has_snapshot; /* and there is a snapshot */
    int (*run)(void);
};
static const struct scenario scenarios[] = {
    {"pause", false, false, pause_it},
    {"resume", true, false, resume_it},
    {"snapshot", false, false, snapshot_it},
    {"snapshot of a sleeper", true, false, snapshot_it},
    {"overwrite", false, true, overwrite_it},
    {"delete", false, true, delete_it},
};

static void prepare(const struct scenario *s)
{
    if (world.paused)
        assert_int_equal(resume_it(), 0);
    (void)delete_it();
    if (s->has_snapshot)
        assert_int_equal(snapshot_it(), 0);
    if (s->paused)
        assert_int_equal(pause_it(), 0);
    wait_agreement("preparing");
}

/* One life that ends at that step, and the next one. False when there is no such step. */
static bool die_once(const struct scenario *s, int die_at, enum death death)
{
    bool died;
    service_begin(/* doubt_ms= */ 600000);
    prepare(s);
    world.service = service_close(world.service);
    service_begin(/* doubt_ms= */ 1);
    {
        MUTEX_GUARD(&world.mutex);
        world.steps = 0;
        world.die_at = die_at;
        world.death = death;
        world.victim = pthread_self();
        world.armed = true;
    }
    (void)s->run();
    {
        MUTEX_GUARD(&world.mutex);
        world.armed = false;
        died = world.dead;
    }
    world.service = service_close(world.service);
    service_begin(/* doubt_ms= */ 600000);
    wait_agreement(s->name);
    assert_int_equal(overwrite_it(), 0); /* all goes on working */
    assert_int_equal(world.paused ? resume_it() : pause_it(), 0);
    world.service = service_close(world.service);
    return died;
}

static void no_death_leaves_half_a_thing(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(scenarios); i++)
        for (int death = 0; death < DEATHS; death++) {
            int die_at = 1;
            while (die_once(&scenarios[i], die_at, (enum death)death))
                assert_true(++die_at < STEPS_MAX);
            assert_true(die_at > 2); /* there were steps to die at */
        }
}

static void make_sandbox(void)
{
    CLEANUP(arena_done) struct arena arena = {0};
    const struct create_params p = {.template = SLICE_LIT("minimal"), .vcpus = 1, .memory_mb = 512};
    struct sandbox_row row;
    struct err e = {0};
    arena_init(&arena, 1 << 20);
    if (service_create(world.service, &world.who, &p, &arena, &row, &e) < 0)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    char path[TMPDIR_PATH_MAX + 32];
    char text[KEY_TEXT_MAX + 1];
    struct team_row team = {.name = "t", .created_at_ms = 1};
    struct key_row key;
    struct err e = {0};
    log_set_level(LOG_ERR);
    world = (struct world){.base = {&gated_store}, .agent = {&gated_agent}};
    (void)pthread_mutex_init(&world.mutex, NULL);
    (void)pthread_cond_init(&world.changed, NULL);
    tmpdir_make(&world.dir);
    team_id_new(&team.id);
    if (sqlite_store_open(tmpdir_file(&world.dir, "control.db", path), &world.real, &e) < 0 ||
        key_new(&team.id, "k", &key, text, &e) < 0 ||
        world.real->ops->team_create(world.real, &team, &key, &e) < 0)
        return -1;
    world.who = (struct principal){team.id, key.id};
    service_begin(/* doubt_ms= */ 600000);
    make_sandbox();
    world.service = service_close(world.service);
    return 0;
}

static int teardown(void **state)
{
    (void)store_close(world.real);
    tmpdir_remove(&world.dir);
    (void)pthread_cond_destroy(&world.changed);
    (void)pthread_mutex_destroy(&world.mutex);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_death_leaves_half_a_thing)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
