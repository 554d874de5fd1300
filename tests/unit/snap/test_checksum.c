/* SPDX-License-Identifier: Apache-2.0 */
/* CRC32C against known values and itself; files of sums, whole and damaged. */
#include "snap_test.h"

#include "snap/snap_int.h"

static const struct uuid blob = {{1, 2, 3}};

/* RFC 3720 B.4, and the check value of the CRC catalogues. */
static void test_known(void **state)
{
    unsigned char zeros[32] = {0};
    unsigned char ones[32];
    unsigned char up[32];
    memset(ones, 0xff, sizeof ones);
    for (unsigned i = 0; i < sizeof up; i++)
        up[i] = (unsigned char)i;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, zeros, sizeof zeros), 0x8a9136aa);
    assert_int_equal(crc32c(0, ones, sizeof ones), 0x62a8ab43);
    assert_int_equal(crc32c(0, up, sizeof up), 0x46dd794e);
    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c_by_table(0, "123456789", 9), 0xe3069283);
}

static void fill(unsigned char *p, size_t n)
{
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = (unsigned char)(x >> 24);
    }
}

/* Every length and alignment up to some, both ways, in one piece and in two that are joined. */
static void test_ways_agree(void **state)
{
    unsigned char p[80];
    fill(p, sizeof p);
    for (size_t from = 0; from < 9; from++) {
        for (size_t n = 0; n + from <= sizeof p; n++) {
            uint32_t want = crc32c_by_table(0, p + from, n);
            size_t cut = n / 3;
            uint32_t first = crc32c(0, p + from, cut);
            uint32_t second = crc32c(0, p + from + cut, n - cut);
            if (crc32c_has_instruction())
                assert_int_equal(crc32c_by_instruction(0, p + from, n), want);
            assert_int_equal(crc32c(first, p + from + cut, n - cut), want);
            assert_int_equal(crc32c_join(first, second, n - cut), want);
        }
    }
}

/* `n` bytes in pieces of `piece`, and what checksum_file makes of the same. */
static void round_trip(size_t n, size_t piece)
{
    AUTO_FREE unsigned char *p = malloc(n + 1);
    AUTO_CLOSE int fd = memory_file();
    AUTO_CLOSE int file_fd = memory_file();
    AUTO_CLOSE int blob_fd = memory_file();
    AUTO_FREE void *sums = NULL;
    AUTO_FREE void *file_sums = NULL;
    struct checksum_writer w;
    struct checksums c;
    struct err e = {0};
    size_t n_sums;
    size_t n_file_sums;
    fill(p, n);
    checksum_writer_init(&w, fd, &blob);
    for (size_t at = 0; at < n; at += piece)
        assert_int_equal(checksum_write(&w, p + at, n - at < piece ? n - at : piece, &e), 0);
    assert_int_equal(checksum_write_end(&w, &e), 0);
    sums = file_bytes(fd, &n_sums);
    assert_int_equal(checksums_parse(sums, n_sums, &c, &e), 0);
    assert_int_equal(c.blob_bytes, n);
    assert_true(uuid_equal(&c.blob, &blob));
    assert_int_equal(c.n_sums, (n + CHECKSUM_BLOCK - 1) / CHECKSUM_BLOCK);
    for (uint64_t i = 0; i < c.n_sums; i++) {
        size_t at = i * CHECKSUM_BLOCK;
        size_t len = n - at < CHECKSUM_BLOCK ? n - at : CHECKSUM_BLOCK;
        assert_int_equal(checksums_verify(&c, i, p + at, len, &e), 0);
        p[at + len / 2] ^= 1;
        assert_true(checksums_verify(&c, i, p + at, len, &e) < 0);
        assert_int_equal(e.kind, ERR_IO);
        p[at + len / 2] ^= 1;
        assert_true(checksums_verify(&c, i, p + at, len - 1, &e) < 0);
    }
    assert_true(checksums_verify(&c, c.n_sums, p, 0, &e) < 0);
    assert_int_equal(pwrite(blob_fd, p, n, 0), n);
    assert_int_equal(checksum_file(blob_fd, file_fd, &blob, &e), 0);
    file_sums = file_bytes(file_fd, &n_file_sums);
    assert_int_equal(n_file_sums, n_sums);
    assert_memory_equal(file_sums, sums, n_sums);
}

static void test_round_trip(void **state)
{
    round_trip(0, 1);
    round_trip(1, 1);
    round_trip(CHECKSUM_BLOCK - 1, 4096);
    round_trip(CHECKSUM_BLOCK, CHECKSUM_BLOCK);
    round_trip(CHECKSUM_BLOCK + 1, 1000);
    round_trip(3 * CHECKSUM_BLOCK + 5, 2 * CHECKSUM_BLOCK + 3);
    /* More blocks than the writer buffers. */
    round_trip((CHECKSUM_WRITER_SUMS + 3) * (size_t)CHECKSUM_BLOCK, 1 << 20);
}

static void *small_file(size_t *ret_n)
{
    AUTO_CLOSE int fd = memory_file();
    struct checksum_writer w;
    struct err e = {0};
    checksum_writer_init(&w, fd, &blob);
    assert_int_equal(checksum_write(&w, "bytes", 5, &e), 0);
    assert_int_equal(checksum_write_end(&w, &e), 0);
    return file_bytes(fd, ret_n);
}

static void test_damage(void **state)
{
    size_t n;
    AUTO_FREE unsigned char *p = small_file(&n);
    struct checksums c;
    struct err e = {0};
    for (size_t bit = 0; bit < n * 8; bit++) {
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_true(checksums_parse(p, n, &c, &e) < 0);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_true(checksums_parse(p, cut, &c, &e) < 0);
    assert_int_equal(checksums_parse(p, n, &c, &e), 0);
}

/* Heads that are summed rightly but say what cannot be. */
static void test_lies(void **state)
{
    size_t n;
    AUTO_FREE unsigned char *p = small_file(&n);
    struct checksum_head *h = (void *)p;
    const size_t crc_at = offsetof(struct checksum_head, crc);
    struct checksums c;
    struct err e = {0};
    h->version = CHECKSUM_VERSION + 1;
    sum_again(p, n, crc_at);
    assert_true(checksums_parse(p, n, &c, &e) < 0);
    assert_int_equal(e.kind, ERR_UNSUPPORTED);
    h->version = CHECKSUM_VERSION;
    for (int i = 0; i < 2; i++) {
        h->blob_bytes = i == 0 ? CHECKSUM_BLOCK + 1 : UINT64_MAX;
        sum_again(p, n, crc_at);
        assert_true(checksums_parse(p, n, &c, &e) < 0);
        assert_int_equal(e.kind, ERR_INVALID);
    }
}

static void test_write_fails(void **state)
{
    AUTO_CLOSE int pipe_like = memory_file();
    struct checksum_writer w;
    struct err e = {0};
    checksum_writer_init(&w, pipe_like, &blob);
    assert_int_equal(fcntl(pipe_like, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW), 0);
    assert_int_equal(checksum_write(&w, "x", 1, &e), 0);
    assert_true(checksum_write_end(&w, &e) < 0);
    assert_true(checksum_file(-1, pipe_like, &blob, &e) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_ways_agree),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_write_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
