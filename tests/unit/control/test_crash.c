/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane dies at every step of a create, a destroy and an undo.
 *
 * Every call of the database and of the agent that a request makes is a step. A death comes before
 * a step or behind it; from then on nothing of the old service reaches anything, as if the process
 * was killed. What the agent was asked for last may be done at once, may take a while, or may even
 * arrive after the next service's first look. Then a new service runs over the same database, and
 * both sides must agree: no half sandbox, nobody else touched, the next create works.
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

enum { BOXES_MAX = 1024, PATIENCE_SEC = 20, LATE_LISTS = 3, STEPS_MAX = 64 };

enum death {
    BEFORE,      /* the step is not done */
    BEHIND,      /* it is done, its answer is lost */
    BEHIND_SLOW, /* the agent is still at it when the next service looks first */
    BEHIND_LATE, /* the agent gets to know of it after the next service has looked */
    DEATHS
};

struct box {
    char id[ID_TEXT_MAX + 1];
    int shown_at;   /* the host has it from that list on */
    int running_at; /* and it runs from that list on */
    int gone_at;    /* 0: stays */
    uint64_t changed_at;
};

struct world {
    struct store base; /* what the service gets */
    struct agent agent;
    struct store *real;
    struct tmpdir dir;
    struct service *service;
    struct principal who;

    pthread_mutex_t mutex; /* over what follows */
    pthread_cond_t changed;
    pthread_t victim;
    bool armed, dead, agent_fails;
    int steps, die_at;
    enum death death;
    int lists; /* that were answered */
    uint64_t host_revision;
    struct box boxes[BOXES_MAX];
    size_t n_boxes;
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
    if (world.death != BEFORE)
        return GO_AND_DIE;
    world.dead = true;
    return REFUSE;
}

static int gate_leave(enum gate g, int rc, struct err *e)
{
    MUTEX_GUARD(&world.mutex);
    if (g == GO_AND_DIE)
        world.dead = true;
    /* What another thread had on its way when the process died ends with it, too. */
    return world.dead ? err_set(e, ERR_UNAVAILABLE, "dead") : rc;
}

#define GATED(e, call)                                                                             \
    ({                                                                                             \
        enum gate gate_ = gate_enter();                                                            \
        gate_leave(gate_, gate_ == REFUSE ? -1 : (call), (e));                                     \
    })

/* --- the database, with a gate before each call --- */

static int w_check(struct store *s, struct err *e)
{
    return GATED(e, world.real->ops->check(world.real, e));
}

static int w_host_see(
    struct store *s, const struct host_row *host, struct host_row *ret, struct err *e)
{
    return GATED(e, world.real->ops->host_see(world.real, host, ret, e));
}

static int w_template_base(
    struct store *s, struct slice name, int64_t now_ms, struct template_id *ret, struct err *e)
{
    return GATED(e, world.real->ops->template_base(world.real, name, now_ms, ret, e));
}

static int w_create(
    struct store *s, const struct sandbox_row *row, const char *request_id, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_create(world.real, row, request_id, e));
}

static int w_get(struct store *s, const struct team_id *team, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_get(world.real, team, id, a, ret, e));
}

static int w_list(struct store *s, const struct sandbox_query *q, struct arena *a,
    struct sandbox_list *ret, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_list(world.real, q, a, ret, e));
}

static int w_list_live(struct store *s, const struct host_id *host, struct arena *a,
    struct sandbox_list *ret, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_list_live(world.real, host, a, ret, e));
}

static int w_change(struct store *s, const struct sandbox_id *id,
    const struct sandbox_change *change, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_change(world.real, id, change, e));
}

static int w_touch(struct store *s, const struct touch *touches, size_t n, struct err *e)
{
    return GATED(e, world.real->ops->touch(world.real, touches, n, e));
}

static int w_purge(struct store *s, int64_t before_ms, size_t *ret, struct err *e)
{
    return GATED(e, world.real->ops->sandbox_purge(world.real, before_ms, ret, e));
}

/* Asked for by a background thread; there are no snapshots here. */
static int w_removal_due(struct store *s, const struct host_id *host, int64_t now_ms,
    struct removals_due *ret, struct err *e)
{
    return world.real->ops->removal_due(world.real, host, now_ms, ret, e);
}

static int w_template_get(struct store *s, const struct team_id *team, struct slice name,
    struct template_row *ret, struct err *e)
{
    return GATED(e, world.real->ops->template_get(world.real, team, name, ret, e));
}

static const struct store_ops gated_store = {
    .removal_due = w_removal_due,
    .template_get = w_template_get,
    .check = w_check,
    .host_see = w_host_see,
    .template_base = w_template_base,
    .sandbox_create = w_create,
    .sandbox_get = w_get,
    .sandbox_list = w_list,
    .sandbox_list_live = w_list_live,
    .sandbox_change = w_change,
    .touch = w_touch,
    .sandbox_purge = w_purge,
};

/* --- the host; the mutex is held --- */

static bool is_there(const struct box *b)
{
    return b->shown_at <= world.lists && (b->gone_at == 0 || world.lists < b->gone_at);
}

static struct box *box_find(struct slice id)
{
    for (size_t i = 0; i < world.n_boxes; i++)
        if (slice_is(id, world.boxes[i].id))
            return &world.boxes[i];
    return NULL;
}

static struct agent_sandbox_info *box_info(const struct box *b, struct arena *arena)
{
    struct agent_sandbox_info *info = arena_alloc(arena, sizeof *info);
    bool running = b->running_at <= world.lists;
    *info = (struct agent_sandbox_info){
        .sandbox_id = slice_cstr(b->id),
        .status = running ? SLICE_LIT("running") : SLICE_LIT("pending"),
        .template = SLICE_LIT("minimal"),
        .vcpus = 1,
        .memory_mb = 512,
        .revision = running ? 2 : 1,
        .status_since_ms = 1000,
    };
    return info;
}

static int host_create(const struct agent_create_request *req, struct agent_create_response *resp,
    struct arena *arena, bool dies, struct err *e)
{
    struct box *b;
    int wait = dies && world.death >= BEHIND_SLOW ? LATE_LISTS : 0;
    MUTEX_GUARD(&world.mutex);
    if (world.agent_fails)
        return err_set(e, ERR_NO_CAPACITY, "no room");
    assert_true(world.n_boxes < BOXES_MAX);
    b = &world.boxes[world.n_boxes++];
    *b = (struct box){
        .shown_at = world.lists + (world.death == BEHIND_LATE ? wait : 0),
        .running_at = world.lists + wait,
        .changed_at = ++world.host_revision,
    };
    assert_true(slice_copy_cstr(req->sandbox_id, b->id, sizeof b->id));
    resp->sandbox = box_info(b, arena);
    resp->sandbox->status = SLICE_LIT("running");
    resp->sandbox->revision = 2;
    return 0;
}

static int host_destroy(const struct agent_destroy_request *req, bool dies)
{
    MUTEX_GUARD(&world.mutex);
    struct box *b = box_find(req->sandbox_id);
    bool late = dies && world.death >= BEHIND_SLOW;
    if (b && b->gone_at == 0)
        b->gone_at = world.lists + (late ? LATE_LISTS : 0);
    if (b && !late)
        b->gone_at = world.lists > 0 ? world.lists : 1;
    world.host_revision++;
    return 0;
}

/* Always everything that changed; each list is a tick of the host's clock. */
static int host_list(
    const struct agent_list_request *req, struct agent_list_response *resp, struct arena *arena)
{
    static const struct slice names[] = {SLICE_LIT("minimal")};
    MUTEX_GUARD(&world.mutex);
    struct agent_sandbox_info **infos = arena_calloc(arena, BOXES_MAX, sizeof *infos);
    for (size_t i = 0; i < world.n_boxes; i++)
        if (is_there(&world.boxes[i]))
            infos[resp->sandboxes.n++] = box_info(&world.boxes[i], arena);
    resp->sandboxes.items = infos;
    resp->host_id = SLICE_LIT("hostaaaaaaaaaaaaaaaaaaaa");
    resp->cluster_id = SLICE_LIT("c1");
    resp->agent_epoch = 1;
    resp->host_revision = world.host_revision;
    resp->full = req->since_revision == 0;
    resp->templates = (struct rpc_list){(void *)(uintptr_t)names, 1};
    if (req->since_revision != UINT64_MAX)
        world.lists++;
    (void)pthread_cond_broadcast(&world.changed);
    return 0;
}

static int host_call(
    enum agent_method m, const void *req, void *resp, struct arena *arena, bool dies, struct err *e)
{
    if (m == AGENT_CREATE)
        return host_create(req, resp, arena, dies, e);
    if (m == AGENT_DESTROY)
        return host_destroy(req, dies);
    return host_list(req, resp, arena);
}

static int w_call(struct agent *a, enum agent_method m, const void *req, void *resp,
    struct arena *arena, int64_t timeout_ms, struct err *e)
{
    enum gate g = gate_enter();
    return gate_leave(g, g == REFUSE ? -1 : host_call(m, req, resp, arena, g == GO_AND_DIE, e), e);
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

static void service_begin(void)
{
    struct err e = {0};
    struct service_config config = {
        .store = &world.base, .agent = &world.agent, .poll_ms = 2, .gap_ms = 1, .full_every_ms = 1};
    {
        MUTEX_GUARD(&world.mutex);
        world.dead = false;
        world.armed = false;
    }
    if (service_open(&config, &world.service, &e) < 0)
        fail_msg("%s", e.msg);
    wait_lists(2);
}

static int try_create(struct sandbox_row *ret)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct err e = {0};
    const struct create_params p = {.template = SLICE_LIT("minimal"), .vcpus = 1, .memory_mb = 512};
    arena_init(&arena, 1 << 20);
    return service_create(world.service, &world.who, &p, &arena, ret, &e);
}

static void must_create(struct sandbox_row *ret)
{
    assert_int_equal(try_create(ret), 0);
    assert_int_equal(ret->status, SANDBOX_RUNNING);
}

static bool host_has(const struct sandbox_id *id)
{
    MUTEX_GUARD(&world.mutex);
    const struct box *b = box_find(slice_cstr(id->text));
    return b && is_there(b);
}

/* Both sides say the same of that row. */
static bool row_agrees(const struct sandbox_row *row)
{
    switch (row->status) {
    case SANDBOX_RUNNING:
        return host_has(&row->id);
    case SANDBOX_STOPPED:
    case SANDBOX_ERROR:
        return !host_has(&row->id);
    default:
        return false;
    }
}

/* All rows agree, and the host has nothing that has no row. */
static bool all_agree(void)
{
    CLEANUP(arena_done) struct arena arena = {0};
    struct sandbox_query q = {.team = world.who.team, .limit = BOXES_MAX};
    struct sandbox_list list;
    struct err e = {0};
    size_t there = 0, running = 0;
    arena_init(&arena, 64 << 20);
    memset(q.statuses, true, sizeof q.statuses);
    assert_int_equal(world.real->ops->sandbox_list(world.real, &q, &arena, &list, &e), 0);
    for (size_t i = 0; i < list.n; i++) {
        if (!row_agrees(&list.rows[i]))
            return false;
        running += list.rows[i].status == SANDBOX_RUNNING;
    }
    MUTEX_GUARD(&world.mutex);
    for (size_t i = 0; i < world.n_boxes; i++)
        there += is_there(&world.boxes[i]);
    return there == running;
}

static void wait_agreement(const char *what)
{
    wait_lists(LATE_LISTS + 3); /* whatever was late is there by now */
    for (int i = 0; i < 2000; i++) {
        if (all_agree())
            return;
        wait_lists(1);
    }
    fail_msg("%s, death %d at step %d: both sides disagree", what, (int)world.death, world.die_at);
}

/* --- the sweep --- */

struct scenario {
    const char *name;
    bool agent_fails;
    bool with_sandbox;                      /* it begins with a sandbox that runs */
    void (*run)(const struct sandbox_id *); /* the request in which the service dies */
};

static void run_create(const struct sandbox_id *unused)
{
    struct sandbox_row row;
    (void)try_create(&row);
}

static void run_destroy(const struct sandbox_id *id)
{
    struct err e = {0};
    (void)service_destroy(world.service, &world.who, id, &e);
}

static void run_undo(const struct sandbox_id *id)
{
    service_undo_create(world.service, id);
}

static const struct scenario scenarios[] = {
    {"create", false, false, run_create},
    {"create that fails", true, false, run_create},
    {"destroy", false, true, run_destroy},
    {"undo", false, true, run_undo},
};

static void arm(int die_at, enum death death, bool agent_fails)
{
    MUTEX_GUARD(&world.mutex);
    world.steps = 0;
    world.die_at = die_at;
    world.death = death;
    world.agent_fails = agent_fails;
    world.victim = pthread_self();
    world.armed = true;
}

/* True when the death came. */
static bool disarm(void)
{
    MUTEX_GUARD(&world.mutex);
    world.armed = false;
    world.agent_fails = false;
    return world.dead;
}

/* One life that ends at that step, and the next one. False when there is no such step. */
static bool die_once(
    const struct scenario *s, int die_at, enum death death, const struct sandbox_row *bystander)
{
    struct sandbox_row row = {.id = {""}}, next;
    struct err e = {0};
    bool died;
    service_begin();
    if (s->with_sandbox)
        must_create(&row);
    arm(die_at, death, s->agent_fails);
    s->run(&row.id);
    died = disarm();
    world.service = service_close(world.service);
    service_begin();
    wait_agreement(s->name);
    assert_true(host_has(&bystander->id));
    must_create(&next);
    assert_int_equal(service_destroy(world.service, &world.who, &next.id, &e), 0);
    assert_false(host_has(&next.id));
    if (s->with_sandbox) { /* whoever asked asks again */
        assert_int_equal(service_destroy(world.service, &world.who, &row.id, &e), 0);
        assert_false(host_has(&row.id));
    }
    world.service = service_close(world.service);
    return died;
}

static void sweep(const struct scenario *s, const struct sandbox_row *bystander)
{
    for (int death = 0; death < DEATHS; death++) {
        int die_at = 1;
        while (die_once(s, die_at, (enum death)death, bystander))
            assert_true(++die_at < STEPS_MAX);
        assert_true(die_at > 2); /* there were steps to die at */
    }
}

static void no_death_leaves_half_a_sandbox(void **state)
{
    struct sandbox_row bystander;
    service_begin();
    must_create(&bystander);
    world.service = service_close(world.service);
    for (size_t i = 0; i < ARRAY_LEN(scenarios); i++)
        sweep(&scenarios[i], &bystander);
}

static int setup(void **state)
{
    char path[TMPDIR_PATH_MAX + 32];
    char text[KEY_TEXT_MAX + 1];
    struct team_row team = {.name = "t", .created_at_ms = 1};
    struct key_row key;
    struct err e = {0};
    log_set_level(LOG_ERR);
    world = (struct world){
        .base = {&gated_store}, .agent = {&gated_agent}, .host_revision = 1, .lists = 1};
    (void)pthread_mutex_init(&world.mutex, NULL);
    (void)pthread_cond_init(&world.changed, NULL);
    tmpdir_make(&world.dir);
    team_id_new(&team.id);
    if (sqlite_store_open(tmpdir_file(&world.dir, "control.db", path), &world.real, &e) < 0 ||
        key_new(&team.id, "k", &key, text, &e) < 0 ||
        world.real->ops->team_create(world.real, &team, &key, &e) < 0)
        return -1;
    world.who = (struct principal){team.id, key.id};
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_death_leaves_half_a_sandbox)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
