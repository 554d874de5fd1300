/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs: made, written, read. */
#include "base/uuid.h"

#include "base/rand.h"

static bool is_hyphen_place(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_new(struct uuid *ret)
{
    rand_bytes(ret->bytes, sizeof ret->bytes);
    ret->bytes[6] = (unsigned char)(0x40 | (ret->bytes[6] & 0x0f)); /* version 4: random */
    ret->bytes[8] = (unsigned char)(0x80 | (ret->bytes[8] & 0x3f)); /* RFC 9562's variant */
}

void uuid_format(const struct uuid *u, char dst[UUID_TEXT + 1])
{
    static const char digits[] = "0123456789abcdef";
    size_t nibble = 0;
    for (size_t i = 0; i < UUID_TEXT; i++) {
        unsigned byte = u->bytes[nibble / 2];
        if (is_hyphen_place(i)) {
            dst[i] = '-';
            continue;
        }
        dst[i] = digits[nibble % 2 == 0 ? byte >> 4 : byte & 15];
        nibble++;
    }
    dst[UUID_TEXT] = '\0';
}

/* -1 for everything but a lower-case hex digit. */
static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(struct slice s, struct uuid *ret)
{
    struct uuid u = {0};
    size_t nibble = 0;
    if (s.n != UUID_TEXT)
        return false;
    for (size_t i = 0; i < UUID_TEXT; i++) {
        int value = digit_value(s.p[i]);
        if (is_hyphen_place(i)) {
            if (s.p[i] != '-')
                return false;
            continue;
        }
        if (value < 0)
            return false;
        u.bytes[nibble / 2] = (unsigned char)(u.bytes[nibble / 2] << 4 | value);
        nibble++;
    }
    *ret = u;
    return true;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, UUID_BYTES) == 0;
}

bool uuid_is_none(const struct uuid *u)
{
    static const struct uuid none;
    return uuid_equal(u, &none);
}
