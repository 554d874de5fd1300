/* SPDX-License-Identifier: Apache-2.0 */
/* A whole control plane over a faked agent, and a client that talks to it over loopback. */
#ifndef TORPOR_TESTS_CONTROL_API_FIXTURE_H
#define TORPOR_TESTS_CONTROL_API_FIXTURE_H

#include "control/control.h"
#include "control/store/store.h"
#include "fake_agent.h"
#include "json/json.h"
#include "tmpdir.h"

struct fixture {
    struct tmpdir dir;
    struct fake_agent agent;
    struct control *control;
    uint16_t port;
    char key[64]; /* what requests carry; "" for none */
    char default_key[64];
};

struct answer {
    int status;
    struct buf body;
    struct arena arena;
    const struct json_value *json; /* NULL when the body is no JSON */
    char allow[64], retry_after[16], request_id[128], next_cursor[128], content_type[64];
    char server_timing[256];
};

/* How often the reconciler asks for everything; set before the setup. Default 1: with each poll. */
extern int fixture_full_every_ms;
/* At most between two polls. */
extern int fixture_poll_ms;

/* cmocka's setup and teardown. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
void fixture_stop_control(struct fixture *f);
void fixture_start_control(struct fixture *f);
/* Makes another team; stores the text of its key. The store is opened beside the server's. */
void fixture_other_team(struct fixture *f, char ret_key[64], struct key_row *ret_row);
void fixture_delete_key(struct fixture *f, const struct key_row *key);

/* One request on a connection of its own. `body` NULL: none. `content_type` NULL: JSON. `extra` is
 * one more header line or NULL. The answer is checked for what every answer must have. */
struct request {
    const char *method;
    const char *target;
    const char *content_type;
    const char *extra_name, *extra_value;
    struct slice body;
};
void ask(struct fixture *f, const struct request *r, struct answer *ret);
void answer_done(struct answer *a);
#define AUTO_ANSWER __attribute__((cleanup(answer_done))) struct answer

/* A request on a thread of its own, for what must happen meanwhile. */
struct asker {
    pthread_t thread;
    struct fixture *f;
    struct request request;
    char target[256];
    struct answer answer;
};
/* `r->target` is copied. */
void asker_start(struct asker *k, struct fixture *f, const struct request *r);
/* Waits for the answer; answer_done is the caller's. */
void asker_join(struct asker *k);

/* Short forms; each frees the answer. */
void get(struct fixture *f, const char *target, struct answer *ret);
void post(struct fixture *f, const char *target, const char *body, struct answer *ret);

/* Text of a member, path with dots: "error.details.field". "" when it is not there; numbers and
 * booleans as JSON writes them. Lives in the answer. */
const char *member(struct answer *a, const char *path);

/* Checks status and error code; then, unless NULL, details.field. */
void assert_error(struct answer *a, int status, const char *code, const char *field);

/* Makes a sandbox and stores its id. */
void make_sandbox(struct fixture *f, char ret_id[ID_TEXT_MAX + 1]);
/* "/v1/sandboxes/<id><tail>" in a static buffer of the calling thread. */
const char *at(const char *id, const char *tail);
/* Sends raw bytes and returns the status of what comes back, 0 when nothing does. */
int ask_raw(struct fixture *f, const char *bytes, size_t n, struct buf *ret_answer);
int connect_raw(struct fixture *f);

#endif
