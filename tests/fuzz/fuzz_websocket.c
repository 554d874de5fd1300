/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSocket frames: the first byte chooses the sender and the size of the pieces. However the bytes
 * are cut up, the frames, the messages and the refusal must be the same; a header that is accepted
 * is the one that we would write.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "http/ws_frame.h"

enum { MESSAGE_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a run over all bytes came to. */
struct seen {
    size_t frames;
    size_t messages;
    uint64_t bytes;
    int refused; /* the error's kind, 0: none */
};

static void check_written_alike(const struct ws_frame *f, const uint8_t *p, size_t len)
{
    uint8_t head[WS_FRAME_HEAD_MAX];
    size_t n = ws_frame_write(f, head);
    assert(n == len && memcmp(head, p, n) == 0);
}

static void take_close(const struct ws_frame *f, const uint8_t *payload, size_t n)
{
    unsigned code;
    struct slice reason;
    struct err e = {0};
    if (f->opcode != WS_OP_CLOSE || n < f->length)
        return;
    if (ws_close_parse(slice_of((const char *)payload, n), &code, &reason, &e) == 0)
        assert(code == WS_CODE_NO_STATUS || ws_code_valid(code));
    else
        assert(e.kind == ERR_PROTOCOL || e.kind == ERR_INVALID);
}

/* The payload that is there, in pieces; 0 or -1 as ws_assembly_data. */
static int feed(struct ws_assembly *a, const struct ws_frame *f, const uint8_t *p, size_t n,
    size_t piece, struct err *e)
{
    size_t at = 0;
    do {
        size_t give = n - at < piece ? n - at : piece;
        at += give;
        if (ws_assembly_data(a, p + at - give, give, f->fin && at == f->length, e) < 0)
            return -1;
    } while (at < n);
    return 0;
}

/* One frame at `p`. > 0: bytes of it that are there, 0: incomplete, -1: refused. */
static ssize_t take_frame(struct ws_assembly *a, uint8_t *p, size_t n, enum ws_side sender,
    size_t piece, struct seen *seen, struct err *e)
{
    struct ws_frame f;
    size_t have;
    ssize_t len = ws_frame_parse(p, n, sender, &f, e);
    if (len <= 0)
        return len;
    check_written_alike(&f, p, (size_t)len);
    for (ssize_t part = 0; part < len; part++) {
        struct ws_frame part_frame;
        assert(ws_frame_parse(p, (size_t)part, sender, &part_frame, e) == 0);
    }
    if (ws_assembly_frame(a, &f, MESSAGE_MAX, e) < 0)
        return -1;
    have = f.length < n - (size_t)len ? (size_t)f.length : n - (size_t)len;
    if (f.masked)
        ws_mask(p + len, have, f.mask, 0);
    if (ws_is_control(f.opcode))
        take_close(&f, p + len, have);
    else if (feed(a, &f, p + len, have, piece, e) < 0)
        return -1;
    seen->frames++;
    seen->messages += f.fin && have == f.length && !ws_is_control(f.opcode);
    seen->bytes += have;
    return len + (ssize_t)have;
}

static struct seen run(const uint8_t *data, size_t size, enum ws_side sender, size_t piece)
{
    struct ws_assembly a = {0};
    struct seen seen = {0};
    struct err e = {0};
    size_t at = 0;
    ssize_t n = 1;
    uint8_t *copy = malloc(size ? size : 1);
    assert(copy);
    if (size > 0)
        memcpy(copy, data, size);
    while (at < size && n > 0) {
        n = take_frame(&a, copy + at, size - at, sender, piece, &seen, &e);
        at += n > 0 ? (size_t)n : 0;
        assert(a.length <= MESSAGE_MAX || n < 0);
    }
    if (n < 0) {
        seen.refused = (int)e.kind;
        assert(e.kind == ERR_PROTOCOL || e.kind == ERR_INVALID || e.kind == ERR_TOO_LARGE);
        assert(ws_code_valid(ws_code_of(&e)));
    }
    free(copy);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole;
    struct seen cut;
    enum ws_side sender;
    if (size == 0)
        return 0;
    sender = data[0] & 1 ? WS_FROM_CLIENT : WS_FROM_SERVER;
    whole = run(data + 1, size - 1, sender, size);
    cut = run(data + 1, size - 1, sender, (size_t)(data[0] >> 1) % 7 + 1);
    assert(memcmp(&whole, &cut, sizeof whole) == 0);
    return 0;
}
