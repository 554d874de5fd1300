/* SPDX-License-Identifier: Apache-2.0 */
/* The Connect protocol's forms that server and client share: content types, envelopes, errors. */
#ifndef TORPOR_RPC_WIRE_INT_H
#define TORPOR_RPC_WIRE_INT_H

#include "json/json.h"
#include "rpc/message.h"

enum {
    RPC_ENVELOPE_BYTES = 5, /* a byte of flags, four of length (big endian) */
    RPC_FLAG_COMPRESSED = 1,
    RPC_FLAG_END = 2,
    RPC_ERROR_BYTES_MAX = 64 * 1024 /* an error body or end envelope that we read */
};

/* "application/json" and its like. */
const char *rpc_content_type(enum rpc_codec codec, bool is_stream);
/* Reads a Content-Type header, with charset=utf-8 as its only allowed parameter; false for a type
 * that is not of this protocol. */
bool rpc_content_type_parse(struct slice header, enum rpc_codec *ret_codec, bool *ret_is_stream);

struct rpc_envelope {
    uint8_t flags;
    uint32_t length;
};
struct rpc_envelope rpc_envelope_parse(const unsigned char head[RPC_ENVELOPE_BYTES]);
/* Begins an envelope at the end of `out`; rpc_envelope_end sets its length, with what
 * rpc_envelope_begin returned. Over 4 GiB is ERR_TOO_LARGE. */
size_t rpc_envelope_begin(struct buf *out, uint8_t flags);
int rpc_envelope_end(struct buf *out, size_t start, struct err *e);

/* Writes {"code":..., "message":...}. */
void rpc_error_write(struct json_writer *w, const struct err *why);
/* Fills `e` from such an object, with the exact kind where `kind_name` is one of ours, and `field`
 * as `where`. `v` may be NULL or anything: `fallback` is the kind when it holds no code. Returns
 * -1. */
int rpc_error_read(const struct json_value *v, struct slice kind_name, struct slice field,
    enum err_kind fallback, struct err *e);

/* Whether text may be a header's value: printable ASCII. */
bool rpc_is_header_safe(const char *text);

/* Names of the headers, and of the end envelope's metadata, that carry our exact kind and field. */
#define RPC_HEADER_KIND "Torpor-Error"
#define RPC_HEADER_FIELD "Torpor-Field"

#endif
