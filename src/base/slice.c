/* SPDX-License-Identifier: Apache-2.0 */
/* Byte runs: comparing, strict numbers, UTF-8, base64, hex. */
#include "base/slice.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool slice_eq_nocase(struct slice a, struct slice b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool slice_copy_cstr(struct slice s, char *dst, size_t dst_size)
{
    if (s.n >= dst_size || (s.n > 0 && memchr(s.p, '\0', s.n)))
        return false;
    if (s.n > 0)
        memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
    return true;
}

bool slice_parse_u64(struct slice s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 20 || (s.n > 1 && s.p[0] == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *ret = v;
    return true;
}

/* Length of the sequence that starts with `lead`, 0 when no sequence may start so. */
static size_t utf8_sequence_len(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef)
        return 3;
    if (lead >= 0xf0 && lead <= 0xf4)
        return 4;
    return 0;
}

/* Checks the first `have` bytes of a sequence of which `have` may be less than its length. */
static bool utf8_sequence_ok(const unsigned char *u, size_t have)
{
    for (size_t i = 1; i < have; i++)
        if ((u[i] & 0xc0) != 0x80)
            return false;
    if (have < 2)
        return true;
    if (u[0] == 0xe0 && u[1] < 0xa0)
        return false;
    if (u[0] == 0xed && u[1] > 0x9f)
        return false;
    if (u[0] == 0xf0 && u[1] < 0x90)
        return false;
    return !(u[0] == 0xf4 && u[1] > 0x8f);
}

bool utf8_valid(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_sequence_len(u[i]);
        if (len == 0 || len > n - i || !utf8_sequence_ok(u + i, len))
            return false;
        i += len;
    }
    return true;
}

size_t utf8_complete_prefix(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        size_t at = n - back;
        size_t len = utf8_sequence_len(u[at]);
        if ((u[at] & 0xc0) == 0x80)
            continue;
        return len > back && utf8_sequence_ok(u + at, back) ? at : n;
    }
    return n;
}

static const char b64_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encoded_len(size_t n)
{
    return (n + 2) / 3 * 4;
}

void base64_encode(const void *src, size_t n, char *dst)
{
    const unsigned char *u = src;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)u[i] << 16;
        if (left > 1)
            v |= (uint32_t)u[i + 1] << 8;
        if (left > 2)
            v |= u[i + 2];
        *dst++ = b64_alphabet[v >> 18];
        *dst++ = b64_alphabet[v >> 12 & 63];
        *dst++ = left > 1 ? b64_alphabet[v >> 6 & 63] : '=';
        *dst++ = left > 2 ? b64_alphabet[v & 63] : '=';
    }
}

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

long base64_decode(const char *src, size_t n, void *dst)
{
    unsigned char *out = dst;
    uint32_t acc = 0;
    int bits = 0;
    if (n % 4 == 0 && n > 0 && src[n - 1] == '=')
        n -= src[n - 2] == '=' ? 2 : 1;
    if (n % 4 == 1)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int v = b64_value(src[i]);
        if (v < 0)
            return -1;
        acc = acc << 6 | (uint32_t)v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (unsigned char)(acc >> bits);
        }
    }
    if (bits > 0 && (acc & ((1u << bits) - 1)) != 0)
        return -1;
    return (long)(out - (unsigned char *)dst);
}

void hex_encode(const void *src, size_t n, char *dst)
{
    const unsigned char *u = src;
    for (size_t i = 0; i < n; i++) {
        dst[2 * i] = "0123456789abcdef"[u[i] >> 4];
        dst[2 * i + 1] = "0123456789abcdef"[u[i] & 15];
    }
    dst[2 * n] = '\0';
}
