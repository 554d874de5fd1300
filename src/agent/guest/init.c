/* SPDX-License-Identifier: Apache-2.0 */
/* The init handshake: everything a guest must know before it counts as running. */
#include "agent/guest/guest_int.h"

#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rand.h"
#include "http/status.h"
#include "json/json.h"
#include "rpc/message.h"

enum {
    ENTROPY_BYTES = 64,
    INIT_BODY_MAX = 8 << 20, /* LIMIT_ENV_MAX values of LIMIT_ENV_VALUE_MAX, escaped */
};

static void write_env(struct json_writer *w, const struct guest_identity *id)
{
    json_key(w, "envVars");
    json_object_begin(w);
    for (size_t i = 0; i < id->n_env; i++) {
        json_key_slice(w, id->env[i].key);
        json_string(w, id->env[i].value);
    }
    json_object_end(w);
}

static void write_member(struct json_writer *w, const char *key, const char *value)
{
    json_key(w, key);
    json_cstr(w, value);
}

static void write_machine(struct json_writer *w, const struct guest_identity *id)
{
    unsigned char machine[16];
    char machine_hex[33];
    rand_bytes(machine, sizeof machine);
    hex_encode(machine, sizeof machine, machine_hex);
    write_member(w, "hostname", id->sandbox_id);
    write_member(w, "machineId", machine_hex);
}

static void write_body(
    struct buf *out, const struct guest *g, const struct guest_identity *id, bool wakes)
{
    struct json_writer w;
    unsigned char entropy[ENTROPY_BYTES];
    char now[CLOCK_RFC3339_MAX];
    rand_bytes(entropy, sizeof entropy);
    clock_format_rfc3339(clock_real_ms(), now);
    json_writer_init(&w, out);
    json_object_begin(&w);
    write_member(&w, "accessToken", guest_token(g));
    write_member(&w, "timestamp", now);
    json_key(&w, "entropy");
    json_base64(&w, slice_of((const char *)entropy, sizeof entropy));
    if (!id->keeps_machine)
        write_machine(&w, id);
    write_member(&w, "sandboxId", id->sandbox_id);
    write_member(&w, "templateId", id->template);
    write_member(&w, "defaultUser", id->default_user);
    if (!id->keeps_env)
        write_env(&w, id);
    if (wakes) {
        json_key(&w, "wake");
        json_bool(&w, true);
    }
    json_object_end(&w);
}

int guest_init(
    struct guest *g, const struct guest_identity *identity, int64_t deadline, struct err *e)
{
    return guest_send_init(g, identity, /* wakes= */ false, deadline, e);
}

int guest_send_init(struct guest *g, const struct guest_identity *identity, bool wakes,
    int64_t deadline, struct err *e)
{
    AUTO_BUF struct buf body = BUF_INIT(INIT_BODY_MAX);
    const struct http_header headers[] = {
        /* first, because without a secret only the others go out */
        {SLICE_LIT("X-Snapshot-Secret"), slice_cstr(identity->secret ? identity->secret : "")},
        {SLICE_LIT("Content-Type"), SLICE_LIT("application/json")},
        {SLICE_LIT("X-Access-Token"), slice_cstr(guest_token(g))},
    };
    const struct http_response_head *head;
    struct http_conn *c;
    int rc = 0;
    size_t without = identity->secret ? 0 : 1;
    write_body(&body, g, identity, wakes);
    if (body.failed)
        return err_set(e, ERR_TOO_LARGE, "the environment is too large");
    c = guest_call(g,
        &(struct http_call){.method = "POST",
            .target = "/init",
            .host = "guest",
            .headers = headers + without,
            .n_headers = ARRAY_LEN(headers) - without,
            .body = buf_slice(&body),
            .body_length = HTTP_BODY_IS_SLICE},
        &head, deadline, e);
    if (!c)
        return err_wrap(e, "init handshake");
    if (head->status != HTTP_NO_CONTENT && head->status != HTTP_OK) {
        (void)guest_answer_error(c, head, deadline, e);
        rc = err_wrap(e, "init handshake");
    } else {
        guest_set_mode(g, GUEST_RUNS);
    }
    guest_conn_release(g, c);
    return rc;
}
