/* SPDX-License-Identifier: Apache-2.0 */
/* Memory maps: what is written is read, what is wrong is refused, every page is found. */
#include "snap_test.h"

#include "snap/memory_map.h"

#define PAGES(n) ((uint64_t)(n)*MEMORY_PAGE)
static const size_t crc_at = offsetof(struct memory_map_head, crc);

static const struct memory_map_blob two_blobs[] = {
    {.uuid = {1}, .bytes = PAGES(8)},
    {.uuid = {2}, .bytes = PAGES(4)},
};

/* 10 pages: zeros 0-1, blob 1 2-5, blob 2 6-7, zeros 8, blob 1 9. */
static void *small_map(size_t *ret_n)
{
    AUTO_CLOSE int fd = memory_file();
    struct memory_map_writer w;
    struct err e = {0};
    memory_map_writer_init(&w, fd, PAGES(10));
    assert_int_equal(memory_map_write(&w, PAGES(2), 0, 0, &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(4), 1, 0, &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(2), 2, PAGES(2), &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(1), 0, 0, &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(1), 1, PAGES(7), &e), 0);
    assert_int_equal(memory_map_write_end(&w, two_blobs, 2, &e), 0);
    return file_bytes(fd, ret_n);
}

static void test_round_trip(void **state)
{
    size_t n;
    AUTO_FREE void *p = small_map(&n);
    struct memory_map m;
    struct err e = {0};
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
    assert_int_equal(m.n_entries, 5);
    assert_int_equal(m.n_blobs, 2);
    assert_int_equal(m.memory_bytes, PAGES(10));
    assert_memory_equal(m.blobs, two_blobs, sizeof two_blobs);
    assert_int_equal(m.entries[2].blob, 2);
    assert_int_equal(m.entries[2].blob_offset, PAGES(2));
}

static void test_find(void **state)
{
    static const unsigned entry_of_page[10] = {0, 0, 1, 1, 1, 1, 2, 2, 3, 4};
    size_t n;
    AUTO_FREE void *p = small_map(&n);
    struct memory_map m;
    struct err e = {0};
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
    for (unsigned page = 0; page < 10; page++) {
        const struct memory_map_entry *want = &m.entries[entry_of_page[page]];
        assert_ptr_equal(memory_map_find(&m, PAGES(page)), want);
        assert_ptr_equal(memory_map_find(&m, PAGES(page + 1) - 1), want);
    }
}

/* Parts that continue each other are one entry, whether buffered or not. */
static void test_joins_parts(void **state)
{
    const struct memory_map_blob one = {.uuid = {1}, .bytes = PAGES(100)};
    AUTO_CLOSE int fd = memory_file();
    AUTO_FREE void *p = NULL;
    struct memory_map_writer w;
    struct memory_map m;
    struct err e = {0};
    size_t n;
    memory_map_writer_init(&w, fd, PAGES(9));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(memory_map_write(&w, PAGES(1), 1, PAGES(i), &e), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(memory_map_write(&w, PAGES(1), 0, 0, &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(1), 1, PAGES(3), &e), 0);
    assert_int_equal(memory_map_write(&w, PAGES(1), 1, PAGES(5), &e), 0); /* does not continue */
    assert_int_equal(memory_map_write(&w, PAGES(1), 1, PAGES(6), &e), 0);
    assert_int_equal(memory_map_write_end(&w, &one, 1, &e), 0);
    p = file_bytes(fd, &n);
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
    assert_int_equal(m.n_entries, 4);
    assert_int_equal(m.entries[0].length, PAGES(3));
    assert_int_equal(m.entries[1].length, PAGES(3));
    assert_int_equal(m.entries[3].length, PAGES(2));
}

/* More entries than the writer buffers, some growing across a flush. */
static void test_many_entries(void **state)
{
    enum { N = MEMORY_MAP_WRITER_ENTRIES * 3 + 7 };
    const struct memory_map_blob one = {.uuid = {1}, .bytes = PAGES(2 * N)};
    AUTO_CLOSE int fd = memory_file();
    AUTO_FREE void *p = NULL;
    struct memory_map_writer w;
    struct memory_map m;
    struct err e = {0};
    size_t n;
    memory_map_writer_init(&w, fd, PAGES(2 * N));
    for (unsigned i = 0; i < N; i++) {
        uint64_t at = i % 2 ? PAGES(2 * i) : 0;
        assert_int_equal(memory_map_write(&w, PAGES(1), i % 2, at, &e), 0);
        at = i % 2 ? at + PAGES(1) : 0;
        assert_int_equal(memory_map_write(&w, PAGES(1), i % 2, at, &e), 0);
    }
    assert_int_equal(memory_map_write_end(&w, &one, 1, &e), 0);
    p = file_bytes(fd, &n);
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
    assert_int_equal(m.n_entries, N);
    for (unsigned i = 0; i < N; i++) {
        assert_ptr_equal(memory_map_find(&m, PAGES(2 * i + 1)), &m.entries[i]);
        assert_int_equal(m.entries[i].blob_offset, i % 2 ? PAGES(2 * i) : 0);
    }
}

static void test_damage(void **state)
{
    size_t n;
    AUTO_FREE unsigned char *p = small_map(&n);
    struct memory_map m;
    struct err e = {0};
    for (size_t bit = 0; bit < n * 8; bit++) {
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_true(memory_map_parse(p, n, &m, &e) < 0);
        p[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_true(memory_map_parse(p, cut, &m, &e) < 0);
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
}

/* One change each to a map that is summed rightly afterwards. */
struct lie {
    void (*tell)(struct memory_map_head *, struct memory_map_entry *, struct memory_map_blob *);
    enum err_kind kind;
};

#define LIE(name, change)                                                                          \
    static void name(                                                                              \
        struct memory_map_head *h, struct memory_map_entry *en, struct memory_map_blob *b)         \
    {                                                                                              \
        (void)h;                                                                                   \
        (void)en;                                                                                  \
        (void)b;                                                                                   \
        change;                                                                                    \
    }
LIE(other_version, h->version++)
LIE(other_entry, h->entry_bytes += 8)
LIE(other_page, h->page_bytes *= 2)
LIE(unknown_feature, h->incompatible = 1)
LIE(too_many_blobs, h->n_blobs = MEMORY_MAP_BLOBS_MAX + 1)
LIE(all_entries, h->n_entries = UINT64_MAX)
LIE(entry_more, h->n_entries++)
LIE(entry_less, h->n_entries--)
LIE(more_memory, h->memory_bytes += MEMORY_PAGE)
LIE(less_memory, h->memory_bytes -= MEMORY_PAGE)
LIE(half_a_page, h->memory_bytes += 8)
LIE(no_memory, h->memory_bytes = 0)
LIE(head_field, h->reserved = 1)
LIE(overlap, en[2].offset -= MEMORY_PAGE)
LIE(gap, en[2].offset += MEMORY_PAGE)
LIE(late_start, en[0].offset = MEMORY_PAGE)
LIE(empty_entry, en[0].length = 0)
LIE(cut_entry, en[0].length -= 1)
LIE(endless_entry, en[4].length = UINT64_MAX - MEMORY_PAGE + 1)
LIE(foreign_blob, en[1].blob = 3)
LIE(beyond_blob, en[1].blob_offset = PAGES(5))
LIE(far_beyond_blob, en[1].blob_offset = UINT64_MAX - MEMORY_PAGE + 1)
LIE(cut_offset, en[1].blob_offset = 1)
LIE(offset_in_zeros, en[0].blob_offset = PAGES(1))
LIE(entry_field, en[0].reserved = 1)
LIE(nameless_blob, memset(b[0].uuid, 0, UUID_BYTES))
LIE(same_blob, memcpy(b[1].uuid, b[0].uuid, UUID_BYTES))
LIE(shrunk_blob, b[0].bytes = PAGES(8) - 1)

static void test_lies(void **state)
{
    static const struct lie lies[] = {{other_version, ERR_UNSUPPORTED},
        {other_entry, ERR_UNSUPPORTED}, {other_page, ERR_UNSUPPORTED},
        {unknown_feature, ERR_UNSUPPORTED}, {too_many_blobs, ERR_INVALID},
        {all_entries, ERR_INVALID}, {entry_more, ERR_INVALID}, {entry_less, ERR_INVALID},
        {more_memory, ERR_INVALID}, {less_memory, ERR_INVALID}, {half_a_page, ERR_INVALID},
        {no_memory, ERR_INVALID}, {head_field, ERR_INVALID}, {overlap, ERR_INVALID},
        {gap, ERR_INVALID}, {late_start, ERR_INVALID}, {empty_entry, ERR_INVALID},
        {cut_entry, ERR_INVALID}, {endless_entry, ERR_INVALID}, {foreign_blob, ERR_INVALID},
        {beyond_blob, ERR_INVALID}, {far_beyond_blob, ERR_INVALID}, {cut_offset, ERR_INVALID},
        {offset_in_zeros, ERR_INVALID}, {entry_field, ERR_INVALID}, {nameless_blob, ERR_INVALID},
        {same_blob, ERR_INVALID}, {shrunk_blob, ERR_INVALID}};
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        size_t n;
        AUTO_FREE unsigned char *p = small_map(&n);
        struct memory_map_head *h = (void *)p;
        struct memory_map_entry *en = (void *)(p + sizeof *h);
        struct memory_map m;
        struct err e = {0};
        lies[i].tell(h, en, (void *)(en + 5));
        sum_again(p, n, crc_at);
        if (memory_map_parse(p, n, &m, &e) == 0 || e.kind != lies[i].kind ||
            strstr(e.msg, "damaged"))
            fail_msg("lie %zu: kind %d, %s", i, (int)e.kind, e.msg);
    }
}

static void test_ignores_compatible_features(void **state)
{
    size_t n;
    AUTO_FREE unsigned char *p = small_map(&n);
    struct memory_map_head *h = (void *)p;
    struct memory_map m;
    struct err e = {0};
    h->compatible = UINT64_MAX;
    sum_again(p, n, crc_at);
    assert_int_equal(memory_map_parse(p, n, &m, &e), 0);
}

static void test_writer_refuses(void **state)
{
    AUTO_CLOSE int fd = memory_file();
    struct memory_map_writer w;
    struct err e = {0};
    memory_map_writer_init(&w, fd, PAGES(4));
    assert_true(memory_map_write(&w, 0, 0, 0, &e) < 0);
    assert_true(memory_map_write(&w, 100, 0, 0, &e) < 0);
    assert_true(memory_map_write(&w, PAGES(5), 0, 0, &e) < 0);
    assert_true(memory_map_write(&w, PAGES(1), 0, PAGES(1), &e) < 0);
    assert_true(memory_map_write(&w, PAGES(1), 1, 7, &e) < 0);
    assert_true(memory_map_write(&w, PAGES(1), MEMORY_MAP_BLOBS_MAX + 1, 0, &e) < 0);
    assert_int_equal(memory_map_write(&w, PAGES(3), 0, 0, &e), 0);
    assert_true(memory_map_write_end(&w, NULL, 0, &e) < 0); /* a page is missing */
    assert_int_equal(memory_map_write(&w, PAGES(1), 0, 0, &e), 0);
    assert_true(memory_map_write(&w, PAGES(1), 0, 0, &e) < 0); /* one too many */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW), 0);
    assert_true(memory_map_write_end(&w, NULL, 0, &e) < 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_joins_parts),
        cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_ignores_compatible_features),
        cmocka_unit_test(test_writer_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
