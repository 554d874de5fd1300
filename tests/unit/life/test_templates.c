/* SPDX-License-Identifier: Apache-2.0 */
/* Base templates: found, listed, damaged, being built. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/life/templates.h"
#include "base/io.h"

/* A digest of 73 characters; 71 are the most. */
#define LONG_DIGEST                                                                                \
    "{\"digest\":\"0123456789012345678901234567890123456789012345678901234567890123456789012"      \
    "\",\"default_user\":\"u\",\"size_bytes\":512}"

struct fixture {
    char root[64];
    char dir[96];
    struct host host;
    struct host_template listed[8]; /* of the last list() */
    size_t n_listed;
};

static void make_file(const struct fixture *f, const char *name, const char *text)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/images/%s", f->dir, name);
    if (io_replace_file(AT_FDCWD, path, text, strlen(text), 0644, &e) < 0)
        fail_msg("%s", e.msg);
}

static void make_folder(const struct fixture *f, const char *name)
{
    char path[256];
    struct err e = {0};
    (void)snprintf(path, sizeof path, "%s/images/%s", f->dir, name);
    if (io_mkdir_p(path, 0755, &e) < 0)
        fail_msg("%s", e.msg);
}

static void make_link(const struct fixture *f, const char *target, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/images/%s", f->dir, name);
    (void)unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static void make_image(const struct fixture *f, const char *digest, const char *user)
{
    char path[128];
    char text[256];
    make_folder(f, digest);
    (void)snprintf(path, sizeof path, "%s/rootfs.img", digest);
    make_file(f, path, "image");
    (void)snprintf(path, sizeof path, "%s/manifest.json", digest);
    (void)snprintf(text, sizeof text,
        "{\"name\":\"x\",\"digest\":\"%s\",\"size_bytes\":1048576,\"default_user\":\"%s\"}", digest,
        user);
    make_file(f, path, text);
}

/* The lock of a builder, as a script holds it; closing it is the builder's end. */
static int build_begin(const struct fixture *f, const char *name)
{
    char path[256];
    int fd;
    (void)snprintf(path, sizeof path, "%s/images/%s.building", f->dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char run[96];
    struct err e = {0};
    (void)snprintf(f->root, sizeof f->root, "/tmp/torpor-templates-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof f->dir, "%s/data", f->root);
    (void)snprintf(run, sizeof run, "%s/run", f->root);
    if (host_open(&f->host, f->dir, run, &e) < 0)
        fail_msg("%s", e.msg);
    make_folder(f, "");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    int rc;
    host_done(&f->host);
    rc = io_remove_tree(AT_FDCWD, f->root, &e);
    free(f);
    return rc;
}

static enum err_kind find_fails(const struct fixture *f, const char *name)
{
    struct host_template t = {.size_bytes = 77};
    struct err e = {0};
    assert_int_equal(host_template_find(&f->host, slice_cstr(name), &t, &e), -1);
    assert_int_equal(t.size_bytes, 77); /* untouched */
    return e.kind;
}

static void keep(void *ctx, const struct host_template *template)
{
    struct fixture *f = ctx;
    assert_true(f->n_listed < sizeof f->listed / sizeof *f->listed);
    f->listed[f->n_listed++] = *template;
}

static void list(struct fixture *f)
{
    struct err e = {0};
    f->n_listed = 0;
    if (host_templates_each(&f->host, keep, f, &e) < 0)
        fail_msg("%s", e.msg);
}

static void unknown_is_not_found(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(find_fails(f, "nothing"), ERR_NOT_FOUND);
    list(f);
    assert_int_equal(f->n_listed, 0);
}

static void bad_names_are_refused(void **state)
{
    struct fixture *f = *state;
    struct host_template t;
    struct err e = {0};
    assert_int_equal(host_template_find(&f->host, SLICE_LIT("../kernels"), &t, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_string_equal(e.where, "template");
    assert_int_equal(find_fails(f, ""), ERR_INVALID);
}

static void facts_of_an_image(void **state)
{
    struct fixture *f = *state;
    struct host_template t;
    struct stat st;
    char path[256];
    struct err e = {0};
    make_image(f, "0123", "someone");
    make_link(f, "0123", "one");
    assert_int_equal(host_template_find(&f->host, SLICE_LIT("one"), &t, &e), 0);
    (void)snprintf(path, sizeof path, "%s/images/0123/rootfs.img", f->host.dir);
    assert_string_equal(t.image, path);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks > 0);
    assert_int_equal(t.allocated_bytes, st.st_blocks * 512);
    assert_int_equal(t.size_bytes, 1048576);
    assert_string_equal(t.digest, "0123");
    assert_string_equal(t.default_user, "someone");
    assert_false(t.building);
    (void)snprintf(path, sizeof path, "%s/images/0123/manifest.json", f->host.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(t.created_at_ms / 1000, st.st_mtim.tv_sec);
    list(f);
    assert_int_equal(f->n_listed, 1);
    assert_string_equal(f->listed[0].name, "one");
    assert_string_equal(f->listed[0].digest, "0123");
}

/* A sparse image takes what is written of it, whatever its length. */
static void allocated_is_not_the_length(void **state)
{
    struct fixture *f = *state;
    struct host_template t;
    char path[256];
    struct err e = {0};
    make_image(f, "0123", "root");
    make_link(f, "0123", "one");
    (void)snprintf(path, sizeof path, "%s/images/0123/rootfs.img", f->dir);
    assert_int_equal(truncate(path, 1 << 30), 0);
    assert_int_equal(host_template_find(&f->host, SLICE_LIT("one"), &t, &e), 0);
    assert_true(t.allocated_bytes < 1 << 20);
}

static void damaged_is_refused_and_not_listed(void **state)
{
    static const char *const bad[] = {"", "{}", "not json",
        "{\"digest\":\"d\",\"default_user\":\"u\",\"size_bytes\":0}",
        "{\"digest\":\"d\",\"default_user\":\"u\",\"size_bytes\":513}",
        "{\"digest\":\"d\",\"default_user\":7,\"size_bytes\":512}", LONG_DIGEST};
    struct fixture *f = *state;
    make_image(f, "0123", "root");
    make_link(f, "0123", "broken");
    make_image(f, "4567", "root");
    make_link(f, "4567", "good");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_file(f, "0123/manifest.json", bad[i]);
        assert_int_equal(find_fails(f, "broken"), ERR_INVALID);
        list(f);
        assert_int_equal(f->n_listed, 1);
        assert_string_equal(f->listed[0].name, "good");
    }
}

static void image_that_is_no_file_is_refused(void **state)
{
    struct fixture *f = *state;
    make_image(f, "0123", "root");
    make_link(f, "0123", "one");
    make_link(f, "/dev/zero", "0123/rootfs.img");
    assert_int_equal(find_fails(f, "one"), ERR_INVALID);
}

static void first_image_is_being_built(void **state)
{
    struct fixture *f = *state;
    int lock = build_begin(f, "base");
    assert_int_equal(find_fails(f, "base"), ERR_TEMPLATE_BUILDING);
    assert_int_equal(find_fails(f, "other"), ERR_NOT_FOUND);
    list(f);
    assert_int_equal(f->n_listed, 1);
    assert_string_equal(f->listed[0].name, "base");
    assert_true(f->listed[0].building);
    assert_int_equal(f->listed[0].allocated_bytes, 0);
    (void)close(lock);
}

static void dead_builder_keeps_nobody_waiting(void **state)
{
    struct fixture *f = *state;
    (void)close(build_begin(f, "base"));
    assert_int_equal(find_fails(f, "base"), ERR_NOT_FOUND);
    list(f);
    assert_int_equal(f->n_listed, 0);
}

/* Asking must not keep a builder out. */
static void asking_leaves_the_lock_free(void **state)
{
    struct fixture *f = *state;
    int fd;
    (void)close(build_begin(f, "base"));
    assert_int_equal(find_fails(f, "base"), ERR_NOT_FOUND);
    fd = build_begin(f, "base");
    assert_true(fd >= 0);
    (void)close(fd);
}

static void older_image_is_used_while_a_new_one_is_built(void **state)
{
    struct fixture *f = *state;
    struct host_template t;
    struct err e = {0};
    int lock;
    make_image(f, "0123", "root");
    make_link(f, "0123", "base");
    lock = build_begin(f, "base");
    assert_int_equal(host_template_find(&f->host, SLICE_LIT("base"), &t, &e), 0);
    assert_false(t.building);
    list(f);
    assert_int_equal(f->n_listed, 1);
    assert_false(f->listed[0].building);
    make_image(f, "4567", "root");
    make_link(f, "4567", "base");
    assert_int_equal(host_template_find(&f->host, SLICE_LIT("base"), &t, &e), 0);
    assert_string_equal(t.digest, "4567");
    (void)close(lock);
}

/* Folders by digest, unfinished work and stamps are no templates. */
static void other_entries_are_not_listed(void **state)
{
    struct fixture *f = *state;
    make_image(f, "0123", "root");
    make_folder(f, ".work");
    make_file(f, ".base.inputs", "x");
    make_file(f, "notes", "x");
    make_file(f, ".building", "x");
    make_link(f, "nowhere", "dangling");
    list(f);
    assert_int_equal(f->n_listed, 0);
}

#define WITH_FOLDER(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(unknown_is_not_found),
        WITH_FOLDER(bad_names_are_refused),
        WITH_FOLDER(facts_of_an_image),
        WITH_FOLDER(allocated_is_not_the_length),
        WITH_FOLDER(damaged_is_refused_and_not_listed),
        WITH_FOLDER(image_that_is_no_file_is_refused),
        WITH_FOLDER(first_image_is_being_built),
        WITH_FOLDER(dead_builder_keeps_nobody_waiting),
        WITH_FOLDER(asking_leaves_the_lock_free),
        WITH_FOLDER(older_image_is_used_while_a_new_one_is_built),
        WITH_FOLDER(other_entries_are_not_listed),
    };
    return cmocka_run_group_tests_name("life/templates", tests, NULL, NULL);
}
