/* SPDX-License-Identifier: Apache-2.0 */
/* WebSocket frames, messages, close payloads and the handshake's digest. Pure functions. */
#include "http/ws_frame.h"

#include <assert.h>

#include "http/sha1.h"

enum {
    LENGTH_16 = 126, /* the 7 bits that announce a longer length field */
    LENGTH_64 = 127,
};

static int refuse(struct err *e, const char *why)
{
    return err_set(e, ERR_PROTOCOL, "WebSocket: %s", why);
}

static bool opcode_known(unsigned op)
{
    return op <= WS_OP_BINARY || (op >= WS_OP_CLOSE && op <= WS_OP_PONG);
}

static int check_first_bytes(const uint8_t *b, enum ws_side sender, struct err *e)
{
    unsigned op = b[0] & 0x0f;
    if (b[0] & 0x70)
        return refuse(e, "reserved bits are set");
    if (!opcode_known(op))
        return refuse(e, "unknown opcode");
    if (op >= WS_OP_CLOSE && !(b[0] & 0x80))
        return refuse(e, "a control frame is fragmented");
    if (op >= WS_OP_CLOSE && (b[1] & 0x7f) > WS_CONTROL_MAX)
        return refuse(e, "a control frame is too long");
    if ((b[1] & 0x80) != 0 && sender == WS_FROM_SERVER)
        return refuse(e, "a server masks its frame");
    if ((b[1] & 0x80) == 0 && sender == WS_FROM_CLIENT)
        return refuse(e, "a client does not mask its frame");
    return 0;
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* The shortest form is the only one (section 5.2). */
static bool length_minimal(unsigned seven, uint64_t length)
{
    if (seven == LENGTH_16)
        return length >= LENGTH_16;
    return seven != LENGTH_64 || (length > UINT16_MAX && length <= INT64_MAX);
}

ssize_t ws_frame_parse(
    const void *p, size_t n, enum ws_side sender, struct ws_frame *ret, struct err *e)
{
    const uint8_t *b = p;
    struct ws_frame f = {0};
    unsigned seven;
    size_t extra;
    size_t len;
    if (n < 2)
        return 0;
    if (check_first_bytes(b, sender, e) < 0)
        return -1;
    f.opcode = (enum ws_opcode)(b[0] & 0x0f);
    f.fin = (b[0] & 0x80) != 0;
    f.masked = (b[1] & 0x80) != 0;
    seven = b[1] & 0x7f;
    extra = seven == LENGTH_64 ? 8 : seven == LENGTH_16 ? 2 : 0;
    len = 2 + extra + (f.masked ? 4 : 0);
    if (n < len)
        return 0;
    f.length = extra ? big_endian(b + 2, extra) : seven;
    if (!length_minimal(seven, f.length))
        return refuse(e, "malformed length");
    if (f.masked)
        memcpy(f.mask, b + 2 + extra, 4);
    *ret = f;
    return (ssize_t)len;
}

size_t ws_frame_write(const struct ws_frame *f, uint8_t dst[WS_FRAME_HEAD_MAX])
{
    size_t extra = f->length > UINT16_MAX ? 8 : f->length >= LENGTH_16 ? 2 : 0;
    uint8_t seven = extra == 8 ? LENGTH_64 : extra == 2 ? LENGTH_16 : (uint8_t)f->length;
    assert(!ws_is_control(f->opcode) || (f->fin && f->length <= WS_CONTROL_MAX));
    dst[0] = (uint8_t)((f->fin ? 0x80 : 0) | f->opcode);
    dst[1] = (uint8_t)((f->masked ? 0x80 : 0) | seven);
    for (size_t i = 0; i < extra; i++)
        dst[2 + i] = (uint8_t)(f->length >> 8 * (extra - 1 - i));
    if (f->masked)
        memcpy(dst + 2 + extra, f->mask, 4);
    return 2 + extra + (f->masked ? 4 : 0);
}

void ws_mask(void *p, size_t n, const uint8_t mask[4], uint64_t offset)
{
    uint8_t *b = p;
    uint8_t turned[8];
    uint64_t eight;
    size_t i = 0;
    for (size_t k = 0; k < sizeof turned; k++)
        turned[k] = mask[(offset + k) % 4];
    memcpy(&eight, turned, sizeof eight);
    for (; n - i >= sizeof eight; i += sizeof eight) {
        uint64_t word;
        memcpy(&word, b + i, sizeof word);
        word ^= eight;
        memcpy(b + i, &word, sizeof word);
    }
    for (; i < n; i++)
        b[i] ^= turned[i % 4];
}

/* The first byte of a sequence of several: how many follow and what the next may be. */
static bool utf8_begin(struct ws_utf8 *u, uint8_t c)
{
    u->low = 0x80;
    u->high = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        u->need = 1;
        return true;
    }
    if (c >= 0xe0 && c <= 0xef) {
        u->need = 2;
        if (c == 0xe0)
            u->low = 0xa0; /* overlong below */
        if (c == 0xed)
            u->high = 0x9f; /* surrogates above */
        return true;
    }
    u->need = 3;
    if (c == 0xf0)
        u->low = 0x90;
    if (c == 0xf4)
        u->high = 0x8f; /* U+10FFFF */
    return c >= 0xf0 && c <= 0xf4;
}

bool ws_utf8_feed(struct ws_utf8 *u, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) {
        if (u->need == 0) {
            if (b[i] >= 0x80 && !utf8_begin(u, b[i]))
                return false;
            continue;
        }
        if (b[i] < u->low || b[i] > u->high)
            return false;
        u->need--;
        u->low = 0x80;
        u->high = 0xbf;
    }
    return true;
}

int ws_assembly_frame(struct ws_assembly *a, const struct ws_frame *f, uint64_t max, struct err *e)
{
    if (ws_is_control(f->opcode))
        return 0;
    if (f->opcode == WS_OP_CONTINUATION && !a->open)
        return refuse(e, "a continuation of nothing");
    if (f->opcode != WS_OP_CONTINUATION && a->open)
        return refuse(e, "a new message inside a fragmented one");
    if (f->opcode != WS_OP_CONTINUATION)
        *a = (struct ws_assembly){.open = true, .opcode = f->opcode};
    if (f->length > max || a->length > max - f->length)
        return err_set(
            e, ERR_TOO_LARGE, "WebSocket: message longer than %llu bytes", (unsigned long long)max);
    a->length += f->length;
    return 0;
}

int ws_assembly_data(struct ws_assembly *a, const void *p, size_t n, bool last, struct err *e)
{
    bool ok =
        a->opcode != WS_OP_TEXT || (ws_utf8_feed(&a->utf8, p, n) && (!last || a->utf8.need == 0));
    if (last)
        a->open = false;
    return ok ? 0 : err_set(e, ERR_INVALID, "WebSocket: a text that is not UTF-8");
}

/* Registered codes, and the ranges for libraries (3000) and applications (4000). Those that only
 * programs tell each other (1004 to 1006, 1015) are never sent. */
bool ws_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

int ws_close_parse(
    struct slice payload, unsigned *ret_code, struct slice *ret_reason, struct err *e)
{
    unsigned code = WS_CODE_NO_STATUS;
    struct slice reason = slice_of(NULL, 0);
    if (payload.n == 1)
        return refuse(e, "half a close code");
    if (payload.n >= 2) {
        code = (unsigned)big_endian((const uint8_t *)payload.p, 2);
        reason = slice_of(payload.p + 2, payload.n - 2);
        if (!ws_code_valid(code))
            return refuse(e, "a close code that must not be sent");
    }
    if (!utf8_valid(reason.p, reason.n))
        return err_set(e, ERR_INVALID, "WebSocket: a close reason that is not UTF-8");
    *ret_code = code;
    *ret_reason = reason;
    return 0;
}

unsigned ws_code_of(const struct err *e)
{
    if (e->kind == ERR_INVALID)
        return WS_CODE_NOT_UTF8;
    if (e->kind == ERR_TOO_LARGE)
        return WS_CODE_TOO_BIG;
    return e->kind == ERR_PROTOCOL ? WS_CODE_PROTOCOL : WS_CODE_INTERNAL;
}

void ws_accept_value(struct slice key, char dst[WS_ACCEPT_CHARS + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* section 1.3 */
    char text[WS_KEY_CHARS + sizeof guid];
    uint8_t digest[SHA1_BYTES];
    assert(key.n == WS_KEY_CHARS);
    memcpy(text, key.p, key.n);
    memcpy(text + key.n, guid, sizeof guid - 1);
    sha1_digest(text, key.n + sizeof guid - 1, digest);
    base64_encode(digest, sizeof digest, dst);
    dst[WS_ACCEPT_CHARS] = '\0';
}

bool ws_key_valid(struct slice key)
{
    uint8_t bytes[WS_KEY_CHARS / 4 * 3 + 3];
    return key.n == WS_KEY_CHARS && key.p[WS_KEY_CHARS - 2] == '=' &&
           key.p[WS_KEY_CHARS - 1] == '=' && base64_decode(key.p, key.n, bytes) == 16;
}
