/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages: a guest's question and a resolver's answer, both any bytes. The input is the
 * question's length in two bytes, the question, the answer. A question that is passed on is one
 * that our own answers repeat; an answer that is passed back is one to this question.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/net/dns_int.h"

enum { LENGTH_BYTES = 2, QR = 0x80, OPCODE = 0x78, TC = 0x02 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly this size, so that a byte too many is seen. */
static unsigned char *copy(const uint8_t *p, size_t n)
{
    unsigned char *c = malloc(n ? n : 1);
    assert(c);
    if (n)
        memcpy(c, p, n);
    return c;
}

static unsigned get16(const unsigned char *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

/* One name of whole labels, then type and class, and nothing that a resolver may do for us alone.
 */
static void check_question(const unsigned char *p, size_t n, size_t len)
{
    size_t at = DNS_HEADER_BYTES;
    assert(n <= DNS_QUERY_MAX && len >= 5 && len <= DNS_QUESTION_MAX);
    assert(DNS_HEADER_BYTES + len <= n);
    assert(!(p[2] & (QR | OPCODE)) && get16(p + 4) == 1);
    while (p[at] != 0)
        at += 1 + (size_t)p[at];
    assert(at + 5 == DNS_HEADER_BYTES + len);
    assert(get16(p + at + 1) != 251 && get16(p + at + 1) != 252);
}

/* Our own answers: to this question, and no question themselves. */
static void check_made(const unsigned char *query, size_t n, size_t len)
{
    const unsigned char *question = query + DNS_HEADER_BYTES;
    unsigned id = dns_id(query);
    size_t unused;
    for (int truncated = 0; truncated < 2; truncated++) {
        unsigned char *p = copy(query, n);
        size_t made = truncated ? dns_make_truncated(p, len) : dns_make_error(p, len, DNS_SERVFAIL);
        assert(made == DNS_HEADER_BYTES + len && made <= n);
        assert(dns_answer_matches(p, made, id, question, len));
        assert(!dns_query_acceptable(p, made, &unused));
        assert(!(p[2] & TC) == !truncated);
        dns_set_id(p, id ^ 1);
        assert(dns_id(p) == (id ^ 1));
        assert(!dns_answer_matches(p, made, id, question, len));
        free(p);
    }
}

/* What answers has this question's id, says that it is an answer, and repeats the question. */
static void check_answer(
    const unsigned char *p, size_t n, const unsigned char *query, size_t question_len)
{
    if (!dns_answer_matches(p, n, dns_id(query), query + DNS_HEADER_BYTES, question_len))
        return;
    assert(n >= DNS_HEADER_BYTES + question_len && dns_id(p) == dns_id(query));
    assert((p[2] & (QR | OPCODE)) == QR && get16(p + 4) == 1);
    for (size_t i = DNS_HEADER_BYTES; i < DNS_HEADER_BYTES + question_len; i++)
        assert(((p[i] ^ query[i]) & ~0x20) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t question_len = SIZE_MAX;
    if (size < LENGTH_BYTES)
        return 0;
    size_t n = get16(data);
    if (n > size - LENGTH_BYTES)
        n = size - LENGTH_BYTES;
    unsigned char *query = copy(data + LENGTH_BYTES, n);
    unsigned char *answer = copy(data + LENGTH_BYTES + n, size - LENGTH_BYTES - n);
    if (dns_query_acceptable(query, n, &question_len)) {
        check_question(query, n, question_len);
        check_made(query, n, question_len);
        check_answer(answer, size - LENGTH_BYTES - n, query, question_len);
    } else {
        assert(question_len == SIZE_MAX);
        if (n >= DNS_HEADER_BYTES) /* refused with a bare header, whatever it was */
            assert(dns_make_error(query, 0, DNS_REFUSED) == DNS_HEADER_BYTES);
    }
    free(query);
    free(answer);
    return 0;
}
