/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a call: the first byte chooses what the rest is: a message of one of the tables in
 * one of the codecs, or what a peer says in headers and errors. What is accepted must survive
 * encoding and decoding again.
 */
#include <assert.h>
#include <stdint.h>

#include "../unit/rpc/sample.h"
#include "base/cleanup.h"
#include "rpc/agent_v1.h"
#include "rpc/process_v1.h"
#include "rpc/wire_int.h"

enum { ARENA_BYTES = 4 << 20, TEXT_BYTES_MAX = 16 << 20, CHOICE_PROTO = 0x80, CHOICE_WIRE = 0x40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct rpc_message *const tables[] = {
    &sample_message,
    &process_start_request_message,
    &process_start_response_message,
    &agent_create_request_message,
    &agent_list_request_message,
    &agent_list_response_message,
    &agent_update_request_message,
    &agent_exec_request_message,
    &agent_exec_response_message,
    &agent_write_file_request_message,
};

/* Encodes, decodes, encodes again: both texts must be the same. */
static void check_stable(
    const struct rpc_message *m, enum rpc_codec codec, const void *msg, struct arena *a)
{
    AUTO_BUF struct buf first = BUF_INIT(TEXT_BYTES_MAX);
    AUTO_BUF struct buf second = BUF_INIT(TEXT_BYTES_MAX);
    struct err e = {0};
    void *back = arena_alloc(a, m->size);
    assert(rpc_encode(m, codec, msg, &first, &e) == 0);
    if (!back || rpc_decode(m, codec, buf_slice(&first), a, back, &e) < 0) {
        assert(!back || e.kind == ERR_TOO_LARGE);
        return;
    }
    assert(rpc_encode(m, codec, back, &second, &e) == 0);
    assert(slice_eq(buf_slice(&first), buf_slice(&second)));
}

static void try_message(
    const struct rpc_message *m, enum rpc_codec codec, struct slice bytes, struct arena *a)
{
    struct err e = {0};
    void *msg = arena_alloc(a, m->size);
    assert(msg);
    if (rpc_decode(m, codec, bytes, a, msg, &e) < 0) {
        assert(e.kind == ERR_INVALID || e.kind == ERR_TOO_LARGE);
        return;
    }
    assert(message_eq(m, msg, msg));
    check_stable(m, codec, msg, a);
    if (codec == RPC_CODEC_PROTO)
        check_stable(m, RPC_CODEC_JSON, msg, a);
}

static void try_wire(struct slice bytes, struct arena *a)
{
    const struct json_value *v = NULL;
    enum rpc_codec codec;
    struct err e = {0};
    bool is_stream;
    (void)rpc_content_type_parse(bytes, &codec, &is_stream);
    if (json_parse(bytes, a, &v, &e) < 0)
        v = NULL;
    assert(rpc_error_read(v, bytes, bytes, ERR_PROTOCOL, &e) == -1);
    assert(e.kind != ERR_NONE && e.msg[0] && rpc_code_from_kind(e.kind)[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice bytes;
    struct arena a;
    if (size == 0)
        return 0;
    bytes = slice_of((const char *)data + 1, size - 1);
    arena_init(&a, ARENA_BYTES);
    if (data[0] & CHOICE_WIRE)
        try_wire(bytes, &a);
    else
        try_message(tables[data[0] % 0x20 % ARRAY_LEN(tables)],
            data[0] & CHOICE_PROTO ? RPC_CODEC_PROTO : RPC_CODEC_JSON, bytes, &a);
    arena_done(&a);
    return 0;
}
