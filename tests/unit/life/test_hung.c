/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMMs and guests that hang in the middle of something: whoever destroys the sandbox waits for
 * nobody.
 */
#include <pthread.h>

#include "base/cleanup.h"
#include "fixture.h"

/* What is under way, on a thread of its own, when it hangs. */
enum doing { CREATES, PAUSES, SNAPSHOTS, RESUMES };

struct hung {
    struct fixture *f;
    struct sandbox_id id;
    enum doing doing;
    enum err_kind kind;
    pthread_t thread;
};

static enum err_kind create_kind(struct fixture *f, const struct sandbox_id *id)
{
    struct life_create c = request();
    struct life_info info;
    struct err e = {0};
    c.id = *id;
    return life_create(f->life, &c, &info, &e) < 0 ? e.kind : ERR_NONE;
}

static void *do_it(void *arg)
{
    struct hung *h = arg;
    const struct life_resume r = resume_request(&h->id);
    switch (h->doing) {
    case CREATES:
        h->kind = create_kind(h->f, &h->id);
        break;
    case PAUSES:
        h->kind = pause_kind(h->f, &h->id);
        break;
    case SNAPSHOTS:
        h->kind = snapshot_kind(h->f, &h->id);
        break;
    case RESUMES:
        h->kind = resume_kind(h->f, &r);
        break;
    }
    return NULL;
}

/* Begins it, and returns when it hangs in `call`. */
static void hang_in(struct fixture *f, struct hung *h, enum doing doing, enum fake_call call)
{
    *h = (struct hung){.f = f, .doing = doing, .id = request().id};
    if (doing != CREATES)
        h->id = create_ok(f);
    if (doing == RESUMES)
        (void)pause_ok(f, &h->id);
    fakes_forget_stops();
    fakes.hang = call;
    assert_int_equal(pthread_create(&h->thread, NULL, do_it, h), 0);
    assert_int_equal(fakes_wait_stop(), 0);
}

static void destroy_does_not_wait_for_what_hangs(void **state)
{
    static const struct {
        enum doing doing;
        enum fake_call call;
    } cases[] = {{CREATES, FAKE_READY}, {PAUSES, FAKE_PREPARE}, {PAUSES, FAKE_PAUSE},
        {PAUSES, FAKE_SAVE_MEMORY}, {SNAPSHOTS, FAKE_PREPARE}, {SNAPSHOTS, FAKE_SAVE_MEMORY},
        {RESUMES, FAKE_LOAD}, {RESUMES, FAKE_WAKE}};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct hung h;
        hang_in(f, &h, cases[i].doing, cases[i].call);
        destroy_ok(f, &h.id);
        assert_int_equal(pthread_join(h.thread, NULL), 0);
        assert_int_not_equal(h.kind, ERR_NONE);
        assert_nothing_left(f, &h.id);
        fakes.hang = FAKE_NONE;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE_TEST(destroy_does_not_wait_for_what_hangs),
    };
    return cmocka_run_group_tests_name("life hung", tests, NULL, NULL);
}
