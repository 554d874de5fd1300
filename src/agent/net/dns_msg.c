/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages as far as a forwarder reads them (RFC 1035 section 4): header and question. Pure. */
#include "agent/net/dns_int.h"

#include <string.h>

enum {
    FLAG_QR = 0x80, /* byte 2 */
    MASK_OPCODE = 0x78,
    FLAG_TC = 0x02,
    FLAG_RD = 0x01,
    LABEL_MAX = 63,
    TYPE_IXFR = 251,
    TYPE_AXFR = 252,
    ADDITIONAL_MAX = 2, /* EDNS and a signature */
};

static unsigned get16(const unsigned char *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

unsigned dns_id(const unsigned char *p)
{
    return get16(p);
}

void dns_set_id(unsigned char *p, unsigned id)
{
    p[0] = (unsigned char)(id >> 8);
    p[1] = (unsigned char)id;
}

/* Length of the question that starts at `p`: labels without compression, type, class. 0 when it is
 * malformed or cut off. */
static size_t question_length(const unsigned char *p, size_t n)
{
    size_t at = 0;
    while (at < n && p[at] != 0) {
        if (p[at] > LABEL_MAX)
            return 0;
        at += 1 + (size_t)p[at];
    }
    at += 1;
    return at > DNS_NAME_MAX || at + 4 > n ? 0 : at + 4;
}

bool dns_query_acceptable(const unsigned char *p, size_t n, size_t *ret_question_len)
{
    size_t len;
    unsigned type;
    if (n < DNS_HEADER_BYTES || n > DNS_QUERY_MAX || (p[2] & (FLAG_QR | MASK_OPCODE)))
        return false;
    if (get16(p + 4) != 1 || get16(p + 6) != 0 || get16(p + 8) != 0 ||
        get16(p + 10) > ADDITIONAL_MAX)
        return false;
    len = question_length(p + DNS_HEADER_BYTES, n - DNS_HEADER_BYTES);
    if (len == 0)
        return false;
    type = get16(p + DNS_HEADER_BYTES + len - 4);
    if (type == TYPE_IXFR || type == TYPE_AXFR)
        return false;
    *ret_question_len = len;
    return true;
}

static unsigned char fold(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : c;
}

bool dns_answer_matches(const unsigned char *p, size_t n, unsigned id,
    const unsigned char *question, size_t question_len)
{
    if (n < DNS_HEADER_BYTES + question_len || dns_id(p) != id)
        return false;
    if ((p[2] & (FLAG_QR | MASK_OPCODE)) != FLAG_QR || get16(p + 4) != 1)
        return false;
    for (size_t i = 0; i < question_len; i++)
        if (fold(p[DNS_HEADER_BYTES + i]) != fold(question[i]))
            return false;
    return true;
}

static size_t make_answer(
    unsigned char *p, size_t question_len, unsigned char flags2, unsigned char rcode)
{
    p[2] = (unsigned char)(FLAG_QR | (p[2] & FLAG_RD) | flags2);
    p[3] = (unsigned char)(0x80 | rcode); /* recursion available */
    memset(p + 6, 0, 6);
    return DNS_HEADER_BYTES + question_len;
}

size_t dns_make_error(unsigned char *p, size_t question_len, enum dns_rcode rcode)
{
    return make_answer(p, question_len, 0, (unsigned char)rcode);
}

size_t dns_make_truncated(unsigned char *p, size_t question_len)
{
    return make_answer(p, question_len, FLAG_TC, 0);
}
