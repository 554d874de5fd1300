/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The field tables against the .proto files, both ways: protoc compiles the files to a descriptor
 * set at build time, which our own decoder reads. Each message of the files must have a table and
 * each table a message, with the same fields in every respect.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "descriptor.h"
#include "rpc/agent_v1.h"
#include "rpc/process_v1.h"

enum { MESSAGES_MAX = 128, FILE_BYTES_MAX = 1 << 20, ARENA_BYTES = 4 << 20 };

/* What a .proto file says of one message. */
struct described {
    char name[128]; /* with the package */
    const struct fd_message *message;
};

static struct arena arena;
static struct described described[MESSAGES_MAX];
static size_t n_described;
static const struct rpc_message *tables[MESSAGES_MAX];
static size_t n_tables;
static const char *descriptor_path;

static const struct rpc_message *const roots[] = {
    &agent_sandbox_info_message,
    &agent_create_request_message,
    &agent_create_response_message,
    &agent_destroy_request_message,
    &agent_destroy_response_message,
    &agent_list_request_message,
    &agent_list_response_message,
    &agent_ping_request_message,
    &agent_ping_response_message,
    &agent_update_request_message,
    &agent_update_response_message,
    &agent_pause_request_message,
    &agent_pause_response_message,
    &agent_resume_request_message,
    &agent_resume_response_message,
    &agent_snapshot_info_message,
    &agent_create_snapshot_request_message,
    &agent_create_snapshot_response_message,
    &agent_delete_snapshot_request_message,
    &agent_delete_snapshot_response_message,
    &agent_exec_request_message,
    &agent_exec_response_message,
    &agent_read_file_request_message,
    &agent_read_file_response_message,
    &agent_write_file_request_message,
    &agent_write_file_response_message,
    &process_start_request_message,
    &process_start_response_message,
};

static void describe(const char *scope, const struct fd_message *m)
{
    struct fd_message *const *nested = m->nested.items;
    struct described *d = &described[n_described++];
    assert_true(n_described <= MESSAGES_MAX);
    (void)snprintf(d->name, sizeof d->name, "%s.%s", scope, m->name.p);
    d->message = m;
    for (size_t i = 0; i < m->nested.n; i++)
        describe(d->name, nested[i]);
}

static void collect_table(const struct rpc_message *m)
{
    for (size_t i = 0; i < n_tables; i++)
        if (tables[i] == m)
            return;
    assert_true(n_tables < MESSAGES_MAX);
    tables[n_tables++] = m;
    for (size_t i = 0; i < m->n_fields; i++)
        if (m->fields[i].message)
            collect_table(m->fields[i].message);
}

static int read_all(void **state)
{
    static struct fd_set set;
    AUTO_BUF struct buf bytes = BUF_INIT(FILE_BYTES_MAX);
    struct fd_file *const *files;
    struct err e = {0};
    (void)state;
    arena_init(&arena, ARENA_BYTES);
    if (io_read_file(AT_FDCWD, descriptor_path, &bytes, &e) < 0 ||
        rpc_decode(&fd_set_message, RPC_CODEC_PROTO, buf_slice(&bytes), &arena, &set, &e) < 0) {
        (void)fprintf(stderr, "%s: %s: %s\n", descriptor_path, e.where, e.msg);
        return -1;
    }
    files = set.files.items;
    for (size_t i = 0; i < set.files.n; i++) {
        struct fd_message *const *messages = files[i]->messages.items;
        for (size_t j = 0; j < files[i]->messages.n; j++)
            describe(files[i]->package.p, messages[j]);
    }
    for (size_t i = 0; i < ARRAY_LEN(roots); i++)
        collect_table(roots[i]);
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static const struct fd_message *find_described(const char *name)
{
    for (size_t i = 0; i < n_described; i++)
        if (strcmp(described[i].name, name) == 0)
            return described[i].message;
    return NULL;
}

static bool is_map_entry(const struct fd_message *m)
{
    return m->options && m->options->map_entry;
}

static void every_message_has_a_table(void **state)
{
    (void)state;
    assert_true(n_described > 20);
    for (size_t i = 0; i < n_described; i++) {
        bool found = is_map_entry(described[i].message);
        for (size_t j = 0; j < n_tables; j++)
            found = found || strcmp(tables[j]->name, described[i].name) == 0;
        if (!found)
            fail_msg("%s has no table", described[i].name);
    }
}

static void names_are_used_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++)
        for (size_t j = i + 1; j < n_tables; j++)
            assert_string_not_equal(tables[i]->name, tables[j]->name);
}

static const struct fd_field *find_field(const struct fd_message *m, uint32_t number)
{
    struct fd_field *const *fields = m->fields.items;
    for (size_t i = 0; i < m->fields.n; i++)
        if (fields[i]->number == (int32_t)number)
            return fields[i];
    return NULL;
}

/* The message that ".package.Message" names. */
static const struct fd_message *referred(const struct fd_field *d)
{
    return d->type == FD_MESSAGE ? find_described(d->type_name.p + 1) : NULL;
}

static enum rpc_type type_of(const struct fd_field *d)
{
    switch (d->type) {
    case FD_DOUBLE:
        return RPC_DOUBLE;
    case FD_INT64:
        return RPC_INT64;
    case FD_UINT64:
        return RPC_UINT64;
    case FD_INT32:
        return RPC_INT32;
    case FD_BOOL:
        return RPC_BOOL;
    case FD_STRING:
        return RPC_STRING;
    case FD_BYTES:
        return RPC_BYTES;
    case FD_UINT32:
        return RPC_UINT32;
    case FD_ENUM:
        return RPC_ENUM;
    case FD_SINT32:
        return RPC_SINT32;
    case FD_MESSAGE:
        return referred(d) && is_map_entry(referred(d)) ? RPC_MAP : RPC_MESSAGE;
    default:
        fail_msg("%s: a type that the codecs have not: %d", d->name.p, d->type);
        return RPC_BOOL;
    }
}

static enum rpc_label label_of(const struct fd_field *d)
{
    if (d->label == FD_LABEL_REPEATED)
        return type_of(d) == RPC_MAP ? RPC_SINGULAR : RPC_REPEATED;
    if (d->proto3_optional)
        return RPC_OPTIONAL;
    return d->has_oneof_index ? RPC_ONEOF : RPC_SINGULAR;
}

static void compare_reference(const struct rpc_field *f, const struct fd_field *d)
{
    if (f->type == RPC_MESSAGE) {
        assert_non_null(f->message);
        assert_string_equal(f->message->name, d->type_name.p + 1);
    }
    if (f->type == RPC_MAP) {
        assert_int_equal(find_field(referred(d), 1)->type, FD_STRING);
        assert_int_equal(find_field(referred(d), 2)->type, FD_STRING);
    }
}

static void compare_field(const struct rpc_message *m, const struct rpc_field *f,
    const struct fd_message *described_message)
{
    const struct fd_field *d = find_field(described_message, f->number);
    if (!d)
        fail_msg("%s: the .proto file has no field %u", m->name, f->number);
    assert_string_equal(f->name, d->name.p);
    assert_string_equal(f->json_name, d->json_name.p);
    if (f->type != type_of(d))
        fail_msg("%s.%s is of another type", m->name, f->name);
    if (f->label != label_of(d))
        fail_msg("%s.%s has another label", m->name, f->name);
    if (f->label == RPC_ONEOF)
        assert_int_equal(f->oneof, d->oneof_index);
    compare_reference(f, d);
}

static void every_table_is_its_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++) {
        const struct rpc_message *m = tables[i];
        const struct fd_message *d = find_described(m->name);
        if (!d)
            fail_msg("%s is in no .proto file", m->name);
        assert_int_equal(m->n_fields, d->fields.n);
        for (size_t j = 0; j < m->n_fields; j++)
            compare_field(m, &m->fields[j], d);
    }
}

/* Size of what lies at a field's offset. */
static size_t place_size(const struct rpc_field *f)
{
    bool is_list = f->label == RPC_REPEATED || f->type == RPC_MAP;
    if (is_list)
        return sizeof(struct rpc_list);
    if (f->type == RPC_STRING || f->type == RPC_BYTES)
        return sizeof(struct slice);
    if (f->type == RPC_BOOL)
        return sizeof(bool);
    if (f->type == RPC_INT64 || f->type == RPC_UINT64 || f->type == RPC_DOUBLE)
        return sizeof(int64_t);
    return f->type == RPC_MESSAGE ? sizeof(void *) : sizeof(int32_t);
}

static void mark_used(const struct rpc_message *m, size_t offset, size_t n, bool *used)
{
    for (size_t i = offset; i < offset + n; i++) {
        if (i >= m->size || used[i])
            fail_msg("%s: fields lie over each other", m->name);
        used[i] = true;
    }
}

static void fields_do_not_overlap(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++) {
        const struct rpc_message *m = tables[i];
        bool used[1024] = {false};
        assert_true(m->size <= sizeof used);
        for (size_t j = 0; j < m->n_fields; j++) {
            const struct rpc_field *f = &m->fields[j];
            assert_true(j == 0 || m->fields[j - 1].number < f->number);
            mark_used(m, f->offset, place_size(f), used);
            if (f->label == RPC_OPTIONAL || f->label == RPC_ONEOF)
                mark_used(m, f->presence, sizeof(bool), used);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_a_table),
        cmocka_unit_test(every_table_is_its_message),
        cmocka_unit_test(names_are_used_once),
        cmocka_unit_test(fields_do_not_overlap),
    };
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s DESCRIPTOR_SET\n", argv[0]);
        return 2;
    }
    descriptor_path = argv[1];
    return cmocka_run_group_tests(tests, read_all, free_all);
}
