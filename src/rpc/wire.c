/* SPDX-License-Identifier: Apache-2.0 */
/* Forms of the Connect protocol (connectrpc.com/docs/protocol). */
#include "rpc/wire_int.h"

#include <arpa/inet.h>
#include <stdio.h>

static const char *const content_types[2][2] = {
    [RPC_CODEC_JSON] = {"application/json", "application/connect+json"},
    [RPC_CODEC_PROTO] = {"application/proto", "application/connect+proto"},
};

const char *rpc_content_type(enum rpc_codec codec, bool is_stream)
{
    return content_types[codec][is_stream];
}

static struct slice trim(struct slice s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = slice_of(s.p + 1, s.n - 1);
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* What follows the type: nothing, or "; charset=utf-8". */
static bool parameters_are_fine(struct slice s)
{
    s = trim(s);
    return s.n == 0 || slice_eq_nocase(s, SLICE_LIT("charset=utf-8")) ||
           slice_eq_nocase(s, SLICE_LIT("charset=\"utf-8\""));
}

bool rpc_content_type_parse(struct slice header, enum rpc_codec *ret_codec, bool *ret_is_stream)
{
    const char *semicolon = header.n > 0 ? memchr(header.p, ';', header.n) : NULL;
    struct slice type = header;
    if (semicolon) {
        type.n = (size_t)(semicolon - header.p);
        if (!parameters_are_fine(slice_of(semicolon + 1, header.n - type.n - 1)))
            return false;
    }
    type = trim(type);
    for (int i = 0; i < 4; i++) {
        if (!slice_eq_nocase(type, slice_cstr(content_types[i / 2][i % 2])))
            continue;
        *ret_codec = (enum rpc_codec)(i / 2);
        *ret_is_stream = i % 2 != 0;
        return true;
    }
    return false;
}

struct rpc_envelope rpc_envelope_parse(const unsigned char head[RPC_ENVELOPE_BYTES])
{
    uint32_t length;
    memcpy(&length, head + 1, sizeof length);
    return (struct rpc_envelope){.flags = head[0], .length = ntohl(length)};
}

size_t rpc_envelope_begin(struct buf *out, uint8_t flags)
{
    const char head[RPC_ENVELOPE_BYTES] = {(char)flags};
    size_t start = out->len;
    buf_append(out, head, sizeof head);
    return start;
}

int rpc_envelope_end(struct buf *out, size_t start, struct err *e)
{
    size_t length;
    uint32_t wire;
    if (out->failed)
        return err_set(e, ERR_TOO_LARGE, "message longer than %zu bytes", out->max);
    length = out->len - start - RPC_ENVELOPE_BYTES;
    if (length > UINT32_MAX)
        return err_set(e, ERR_TOO_LARGE, "message too long for an envelope");
    wire = htonl((uint32_t)length);
    memcpy(out->p + start + 1, &wire, sizeof wire);
    return 0;
}

void rpc_error_write(struct json_writer *w, const struct err *why)
{
    json_object_begin(w);
    json_key(w, "code");
    json_cstr(w, rpc_code_from_kind(why->kind));
    if (why->msg[0]) {
        json_key(w, "message");
        json_cstr(w, why->msg);
    }
    json_object_end(w);
}

static struct slice string_member(const struct json_value *v, const char *key)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_STRING ? m->string : SLICE_LIT("");
}

int rpc_error_read(const struct json_value *v, struct slice kind_name, struct slice field,
    enum err_kind fallback, struct err *e)
{
    struct slice code = string_member(v, "code");
    struct slice message = string_member(v, "message");
    enum err_kind kind = kind_name.n > 0 ? err_kind_from_name(kind_name.p, kind_name.n) : ERR_NONE;
    if (kind == ERR_NONE)
        kind = code.n > 0 ? rpc_kind_from_code(code) : fallback;
    if (message.n == 0)
        message = code.n > 0 ? code : SLICE_LIT("the call failed and does not say why");
    if (message.n >= ERR_MSG_MAX)
        message.n = utf8_complete_prefix(message.p, ERR_MSG_MAX - 1);
    err_set(e, kind, "%.*s", (int)message.n, message.p);
    (void)slice_copy_cstr(field, e->where, sizeof e->where);
    return -1;
}

bool rpc_is_header_safe(const char *text)
{
    for (const char *p = text; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            return false;
    return true;
}
