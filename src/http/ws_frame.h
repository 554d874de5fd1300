/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSocket frames (RFC 6455 section 5) as pure functions: bytes in, facts out. Strict: what the
 * RFC forbids is refused with the close code that says why. No extension is ever agreed on, so the
 * reserved bits must be zero.
 */
#ifndef TORPOR_HTTP_WS_FRAME_H
#define TORPOR_HTTP_WS_FRAME_H

#include <sys/types.h>

#include "base/err.h"
#include "base/slice.h"

enum {
    WS_FRAME_HEAD_MAX = 14,
    WS_CONTROL_MAX = 125,               /* payload of a control frame */
    WS_REASON_MAX = WS_CONTROL_MAX - 2, /* of a close frame */
    WS_KEY_CHARS = 24,                  /* base64 of 16 bytes */
    WS_ACCEPT_CHARS = 28                /* base64 of a SHA-1 digest */
};

enum ws_opcode {
    WS_OP_CONTINUATION = 0,
    WS_OP_TEXT = 1,
    WS_OP_BINARY = 2,
    WS_OP_CLOSE = 8,
    WS_OP_PING = 9,
    WS_OP_PONG = 10
};

/* Close codes that we send or tell apart (section 7.4.1). */
enum ws_code {
    WS_CODE_NORMAL = 1000,
    WS_CODE_GOING_AWAY = 1001,
    WS_CODE_PROTOCOL = 1002,
    WS_CODE_NO_STATUS = 1005, /* never on the wire: the close frame had none */
    WS_CODE_ABNORMAL = 1006,  /* never on the wire: no close frame came */
    WS_CODE_NOT_UTF8 = 1007,
    WS_CODE_POLICY = 1008,
    WS_CODE_TOO_BIG = 1009,
    WS_CODE_INTERNAL = 1011,
    WS_CODE_TRY_LATER = 1013
};

/* Who sent a frame: clients must mask, servers must not. */
enum ws_side { WS_FROM_CLIENT, WS_FROM_SERVER };

struct ws_frame {
    enum ws_opcode opcode;
    bool fin;
    bool masked;
    uint8_t mask[4];
    uint64_t length; /* of the payload */
};

/* Parses one frame header at the start of `p`. Returns its length (> 0), 0 when more bytes are
 * needed, -1 with ERR_PROTOCOL. */
ssize_t ws_frame_parse(
    const void *p, size_t n, enum ws_side sender, struct ws_frame *ret, struct err *e);
/* Writes a header, returns its length. */
size_t ws_frame_write(const struct ws_frame *f, uint8_t dst[WS_FRAME_HEAD_MAX]);
static inline bool ws_is_control(enum ws_opcode op)
{
    return op >= WS_OP_CLOSE;
}
/* Masks or unmasks in place bytes that begin `offset` bytes into their payload. */
void ws_mask(void *p, size_t n, const uint8_t mask[4], uint64_t offset);

/* UTF-8 in pieces, strict as utf8_valid. Zero it to begin. */
struct ws_utf8 {
    uint8_t need; /* continuation bytes still to come; 0 at a character's end */
    uint8_t low;  /* bounds of the next one */
    uint8_t high;
};
/* False at the first byte that cannot continue the text. */
bool ws_utf8_feed(struct ws_utf8 *u, const void *p, size_t n);

/* The message that frames make up. Zero it to begin. */
struct ws_assembly {
    bool open;             /* inside a fragmented message */
    enum ws_opcode opcode; /* of its first frame */
    uint64_t length;       /* payload bytes of it that were announced so far */
    struct ws_utf8 utf8;   /* where it is a text */
};
/* Takes in a frame's header. ERR_PROTOCOL when it may not come here, ERR_TOO_LARGE when the message
 * passes `max` bytes. */
int ws_assembly_frame(struct ws_assembly *a, const struct ws_frame *f, uint64_t max, struct err *e);
/* Takes in unmasked payload bytes of a data frame; `last`: the message ends with them.
 * ERR_INVALID for what is not UTF-8 in a text. */
int ws_assembly_data(struct ws_assembly *a, const void *p, size_t n, bool last, struct err *e);

/* True for a code that may stand in a close frame. */
bool ws_code_valid(unsigned code);
/* Parses a close frame's payload: WS_CODE_NO_STATUS when empty. ERR_PROTOCOL for a bad code or
 * length, ERR_INVALID for a reason that is not UTF-8. `ret_reason` points into `payload`. */
int ws_close_parse(
    struct slice payload, unsigned *ret_code, struct slice *ret_reason, struct err *e);
/* The code that tells the peer about an error of these functions. */
unsigned ws_code_of(const struct err *e);

/* Sec-WebSocket-Accept for a key (section 4.2.2); NUL behind it. */
void ws_accept_value(struct slice key, char dst[WS_ACCEPT_CHARS + 1]);
/* True for base64 of exactly 16 bytes. */
bool ws_key_valid(struct slice key);

#endif
