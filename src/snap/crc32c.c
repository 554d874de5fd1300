/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC32C: the CPU's instruction where there is one, a small table elsewhere.
 *
 * The polynomial is Castagnoli's, 0x1EDC6F41, bits reflected as in RFC 3720 (iSCSI): the lowest bit
 * of a word is the highest power of x. Sums start and end inverted, so sums of pieces chain.
 */
#include "snap/checksum.h"

#include <assert.h>
#include <string.h>

#include "snap/snap_int.h"

#define POLYNOMIAL 0x82f63b78u /* reflected */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats here are little-endian");

uint32_t crc32c_by_table(uint32_t crc, const void *p, size_t n)
{
    /* Remainders of the 16 values of four bits. */
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc,
        0x5125dad3, 0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const unsigned char *bytes = p;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
bool crc32c_has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) uint32_t crc32c_by_instruction(
    uint32_t crc, const void *p, size_t n)
{
    const unsigned char *bytes = p;
    uint64_t sum = ~crc;
    for (; n >= 8; n -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        sum = __builtin_ia32_crc32di(sum, word);
    }
    for (; n > 0; n--)
        sum = __builtin_ia32_crc32qi((uint32_t)sum, *bytes++);
    return ~(uint32_t)sum;
}
#else
bool crc32c_has_instruction(void)
{
    return false;
}

uint32_t crc32c_by_instruction(uint32_t crc, const void *p, size_t n)
{
    return crc32c_by_table(crc, p, n);
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    return crc32c_has_instruction() ? crc32c_by_instruction(crc, p, n) : crc32c_by_table(crc, p, n);
}

/* Product of two polynomials modulo ours; the highest bit is x to the 0. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t power = 1u << 31; power != 0; power >>= 1) {
        if (a & power)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t n_second)
{
    uint32_t shift = 1u << 31;        /* 1 */
    uint32_t square = 1u << (31 - 8); /* x to the 8: one byte further */
    for (; n_second != 0; n_second >>= 1) {
        if (n_second & 1)
            shift = multiply(shift, square);
        square = multiply(square, square);
    }
    return multiply(shift, first) ^ second;
}
