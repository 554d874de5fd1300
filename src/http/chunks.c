/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding of the chunked transfer coding (RFC 9112 section 7.1), one byte of framing at a time.
 *
 * Extensions and trailers are checked for syntax, bounded and dropped. `line` counts the bytes of
 * the current size line, then those of all trailers together.
 */
#include "http/http_int.h"

enum {
    SIZE_DIGITS_MAX = 16,
    SIZE_LINE_MAX = 256, /* with extensions, which nobody uses */
    TRAILERS_MAX = 8 * 1024,
};

enum chunk_state {
    SIZE_FIRST, /* 0: a zeroed struct begins here */
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    ENDED,
};

static int malformed(struct err *e)
{
    return err_set(e, ERR_INVALID, "malformed chunked body");
}

static int hex_digit(unsigned char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

static int add_digit(struct http_chunks *c, int digit, struct err *e)
{
    if (digit < 0 || c->line > SIZE_DIGITS_MAX || c->size >> 59)
        return malformed(e);
    c->size = c->size << 4 | (uint64_t)digit;
    c->state = SIZE;
    return 0;
}

/* A byte of the size line, behind which its data or the trailers begin. */
static int step_size(struct http_chunks *c, unsigned char ch, struct err *e)
{
    if (++c->line > SIZE_LINE_MAX)
        return malformed(e);
    if (c->state == SIZE_LF) {
        if (ch != '\n')
            return malformed(e);
        c->state = c->size > 0 ? DATA : TRAILER_FIRST;
        c->left = c->size;
        c->line = 0;
        c->size = 0;
        return 0;
    }
    if (c->state != SIZE_FIRST && ch == '\r')
        c->state = SIZE_LF;
    else if (c->state == SIZE && ch == ';')
        c->state = EXTENSION;
    else if (c->state == EXTENSION)
        return http_is_field_char(ch) ? 0 : malformed(e);
    else
        return add_digit(c, hex_digit(ch), e);
    return 0;
}

static int step_trailer(struct http_chunks *c, unsigned char ch, struct err *e)
{
    bool ok = true;
    if (++c->line > TRAILERS_MAX)
        return err_set(e, ERR_INVALID, "trailers too large");
    if (c->state == TRAILER_FIRST && ch == '\r')
        c->state = LAST_LF;
    else if (c->state == TRAILER_NAME && ch == ':')
        c->state = TRAILER_VALUE;
    else if (c->state == TRAILER_VALUE && ch == '\r')
        c->state = TRAILER_LF;
    else if (c->state == TRAILER_VALUE)
        ok = http_is_field_char(ch);
    else {
        ok = http_is_token_char(ch);
        c->state = TRAILER_NAME;
    }
    return ok ? 0 : malformed(e);
}

static int step(struct http_chunks *c, unsigned char ch, struct err *e)
{
    switch ((enum chunk_state)c->state) {
    case SIZE_FIRST:
    case SIZE:
    case EXTENSION:
    case SIZE_LF:
        return step_size(c, ch, e);
    case DATA_CR:
        c->state = DATA_LF;
        return ch == '\r' ? 0 : malformed(e);
    case DATA_LF:
        c->state = SIZE_FIRST;
        return ch == '\n' ? 0 : malformed(e);
    case TRAILER_LF:
        c->state = TRAILER_FIRST;
        return ch == '\n' ? 0 : malformed(e);
    case LAST_LF:
        c->state = ENDED;
        return ch == '\n' ? 0 : malformed(e);
    default:
        return step_trailer(c, ch, e);
    }
}

ssize_t http_chunks_feed(struct http_chunks *c, const char *p, size_t n, struct slice *ret_data,
    bool *ret_end, struct err *e)
{
    size_t at = 0;
    struct slice run = {p, 0};
    while (at < n && c->state != DATA && c->state != ENDED)
        if (step(c, (unsigned char)p[at++], e) < 0)
            return -1;
    if (c->state == DATA && at < n) {
        run = slice_of(p + at, c->left < n - at ? (size_t)c->left : n - at);
        c->left -= run.n;
        at += run.n;
        if (c->left == 0)
            c->state = DATA_CR;
    }
    *ret_data = run;
    *ret_end = c->state == ENDED;
    return (ssize_t)at;
}
