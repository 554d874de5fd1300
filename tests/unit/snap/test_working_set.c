/* SPDX-License-Identifier: Apache-2.0 */
/* Working sets: bitmaps become runs and are read back; wrong ones are refused. */
#include "snap_test.h"

#include "snap/memory_map.h"
#include "snap/working_set.h"

#define PAGES(n) ((uint64_t)(n)*MEMORY_PAGE)

static void *write_set(const uint64_t *bitmap, uint64_t n_pages, uint64_t want, size_t *ret_n)
{
    AUTO_CLOSE int fd = memory_file();
    uint64_t pages = 0;
    struct err e = {0};
    assert_int_equal(working_set_write(fd, bitmap, PAGES(n_pages), &pages, &e), 0);
    assert_int_equal(pages, want);
    return file_bytes(fd, ret_n);
}

static bool has_page(const struct working_set *s, uint64_t page)
{
    for (size_t i = 0; i < s->n_runs; i++)
        if (PAGES(page) >= s->runs[i].offset && PAGES(page) < s->runs[i].offset + s->runs[i].length)
            return true;
    return false;
}

static void round_trip(const uint64_t *bitmap, uint64_t n_pages, size_t want_runs)
{
    struct working_set s;
    struct err e = {0};
    uint64_t set = 0;
    AUTO_FREE void *p = NULL;
    size_t n;
    for (uint64_t i = 0; i < n_pages; i++)
        set += bitmap[i / 64] >> i % 64 & 1;
    p = write_set(bitmap, n_pages, set, &n);
    assert_int_equal(working_set_parse(p, n, &s, &e), 0);
    assert_int_equal(s.n_runs, want_runs);
    assert_int_equal(s.memory_bytes, PAGES(n_pages));
    for (uint64_t i = 0; i < n_pages; i++)
        assert_int_equal(has_page(&s, i), bitmap[i / 64] >> i % 64 & 1);
}

static void test_round_trip(void **state)
{
    const uint64_t none[2] = {0};
    const uint64_t all[2] = {UINT64_MAX, UINT64_MAX};
    const uint64_t across[3] = {1ull << 63, 1, 1ull << 63};
    const uint64_t mixed[2] = {0xf0f1, 1ull << 40 | 3};
    uint64_t every_second[8];
    memset(every_second, 0x55, sizeof every_second);
    round_trip(none, 128, 0);
    round_trip(all, 128, 1);
    round_trip(all, 70, 1); /* bits beyond the memory do not count */
    round_trip(across, 192, 2);
    round_trip(across, 191, 1);
    round_trip(mixed, 128, 5);
    round_trip(every_second, 512, 256); /* more runs than the writer buffers */
    round_trip(none, 0, 0);
}

static void test_damage(void **state)
{
    const uint64_t bitmap[1] = {0x31};
    size_t n;
    AUTO_FREE unsigned char *p = write_set(bitmap, 64, 3, &n);
    struct working_set s;
    struct err e = {0};
    for (size_t bit = 0; bit < n * 8; bit++) {
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_true(working_set_parse(p, n, &s, &e) < 0);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_true(working_set_parse(p, cut, &s, &e) < 0);
}

static void refused(size_t at, uint64_t value, enum err_kind kind)
{
    const uint64_t bitmap[1] = {0x31};
    size_t n;
    AUTO_FREE unsigned char *p = write_set(bitmap, 64, 3, &n);
    struct working_set s;
    struct err e = {0};
    memcpy(p + at, &value, at == offsetof(struct working_set_head, version) ? 2 : 8);
    sum_again(p, n, offsetof(struct working_set_head, crc));
    assert_true(working_set_parse(p, n, &s, &e) < 0);
    assert_int_equal(e.kind, kind);
    assert_null(strstr(e.msg, "damaged"));
}

static void test_lies(void **state)
{
    const size_t first = sizeof(struct working_set_head);
    const size_t second = first + sizeof(struct working_set_run);
    refused(offsetof(struct working_set_head, version), 2, ERR_UNSUPPORTED);
    refused(offsetof(struct working_set_head, memory_bytes), 100, ERR_INVALID);
    refused(offsetof(struct working_set_head, memory_bytes), PAGES(5), ERR_INVALID);
    refused(second, 0, ERR_INVALID);                 /* before the first */
    refused(second, PAGES(64), ERR_INVALID);         /* beyond the memory */
    refused(second, UINT64_MAX - 4095, ERR_INVALID); /* overflows */
    refused(first, 1, ERR_INVALID);
    refused(first + 8, 0, ERR_INVALID);
    refused(first + 8, 1, ERR_INVALID);
    refused(first + 8, PAGES(65), ERR_INVALID);
    refused(first + 8, UINT64_MAX - 4095, ERR_INVALID);
}

static void test_write_fails(void **state)
{
    const uint64_t bitmap[1] = {1};
    uint64_t pages = 77;
    struct err e = {0};
    assert_true(working_set_write(-1, bitmap, PAGES(64), &pages, &e) < 0);
    assert_true(working_set_write(-1, bitmap, 100, &pages, &e) < 0);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(pages, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_write_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
