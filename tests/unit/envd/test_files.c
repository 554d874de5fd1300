/* SPDX-License-Identifier: Apache-2.0 */
/* GET and POST /files, over the wire. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define OCTET WITH_TOKEN "Content-Type: application/octet-stream\r\n"
#define FORM WITH_TOKEN "Content-Type: multipart/form-data; boundary=XX\r\n"

static const struct slice nothing = {0};

static struct answer get(struct harness *h, const char *path)
{
    char target[TEXT_MAX];
    (void)snprintf(target, sizeof target, "/files?path=%s", path);
    return harness_ask(h, "GET", target, WITH_TOKEN, nothing);
}

static struct answer put(struct harness *h, const char *query, struct slice body)
{
    char target[TEXT_MAX];
    (void)snprintf(target, sizeof target, "/files?%s", query);
    return harness_ask(h, "POST", target, OCTET, body);
}

static void assert_put(struct harness *h, const char *query, const char *body, int want)
{
    AUTO_ANSWER struct answer a = put(h, query, slice_cstr(body));
    if (a.status != want)
        fail_msg("POST %s: %d instead of %d: %s", query, a.status, want, a.body.p ? a.body.p : "");
}

static void assert_file(struct harness *h, const char *name, const char *want)
{
    AUTO_FREE char *got = harness_read(h, name);
    if (!got)
        fail_msg("%s is not there", name);
    assert_string_equal(got, want);
}

static struct stat look(struct harness *h, const char *name)
{
    char path[TEXT_MAX];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", h->dir, name);
    if (lstat(path, &st) < 0)
        fail_msg("%s is not there", path);
    return st;
}

/* Bytes that differ everywhere, so that a lost or doubled chunk shows. */
static char *make_bytes(size_t n)
{
    char *p = malloc(n);
    uint32_t v = 1;
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        v = v * 1664525 + 1013904223;
        p[i] = (char)(v >> 24);
    }
    return p;
}

static void test_round_trip_of_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 3000001};
    AUTO_FREE char *bytes = make_bytes(3000001);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        AUTO_ANSWER struct answer up = put(*state, "path=big", slice_of(bytes, sizes[i]));
        AUTO_ANSWER struct answer down = get(*state, "big");
        char length[64];
        assert_int_equal(up.status, 200);
        assert_int_equal(down.status, 200);
        assert_true(down.complete);
        assert_int_equal(down.body.len, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(down.body.p, bytes, sizes[i]);
        (void)snprintf(length, sizeof length, "Content-Length: %zu\r\n", sizes[i]);
        assert_non_null(strcasestr(down.head.p, length));
    }
}

static void test_upload_answer(void **state)
{
    struct harness *h = *state;
    AUTO_ANSWER struct answer a = put(h, "path=a/b%20c.txt", SLICE_LIT("hi"));
    char want[TEXT_MAX];
    (void)snprintf(want, sizeof want,
        "[{\"name\":\"b c.txt\",\"path\":\"%s/a/b c.txt\",\"type\":\"file\"}]", h->home);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.p, want);
    assert_file(h, "home/a/b c.txt", "hi");
    assert_int_equal(look(h, "home/a/b c.txt").st_mode & 07777, 0644);
    assert_int_equal(look(h, "home/a").st_mode & 07777, 0755);
}

static void test_download_errors(void **state)
{
    struct harness *h = *state;
    char want[TEXT_MAX];
    AUTO_ANSWER struct answer missing = get(h, "none.txt");
    AUTO_ANSWER struct answer folder = get(h, "~");
    AUTO_ANSWER struct answer below_file = get(h, "/etc/passwd/x");
    AUTO_ANSWER struct answer device = get(h, "/dev/null");
    AUTO_ANSWER struct answer no_path = harness_ask(h, "GET", "/files", WITH_TOKEN, nothing);
    AUTO_ANSWER struct answer nul = get(h, "a%00b");
    (void)snprintf(want, sizeof want, "path '%s/none.txt' does not exist", h->home);
    assert_int_equal(missing.status, 404);
    assert_message(&missing, want);
    (void)snprintf(want, sizeof want, "path '%s' is a directory", h->home);
    assert_int_equal(folder.status, 400);
    assert_message(&folder, want);
    assert_int_equal(below_file.status, 404);
    assert_int_equal(device.status, 400);
    assert_int_equal(no_path.status, 400);
    assert_int_equal(nul.status, 400);
}

static void test_users(void **state)
{
    struct harness *h = *state;
    AUTO_ANSWER struct answer unknown =
        harness_ask(h, "GET", "/files?path=x&username=nobody-here", WITH_TOKEN, nothing);
    assert_int_equal(unknown.status, 401);
    assert_message(&unknown, "error looking up user 'nobody-here': no such user");
    assert_put(h, "path=x&username=broken", "x", 401);
    assert_put(h, "path=x&username=me", "x", 200);
    assert_file(h, "home/x", "x");
}

static void test_files_without_a_size(void **state)
{
    AUTO_ANSWER struct answer proc = get(*state, "/proc/self/status");
    AUTO_ANSWER struct answer sys = get(*state, "/sys/kernel/mm/transparent_hugepage/enabled");
    assert_int_equal(proc.status, 200);
    assert_true(proc.complete);
    assert_non_null(strstr(proc.body.p, "Name:"));
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) == 0) {
        assert_int_equal(sys.status, 200);
        assert_true(sys.complete);
        assert_true(sys.body.len > 0 && sys.body.len < 4096);
    }
}

/* /proc/kallsyms: size 0, and longer than one chunk. */
static void test_long_file_without_a_size(void **state)
{
    AUTO_ANSWER struct answer a = {0};
    if (access("/proc/kallsyms", R_OK) != 0)
        skip_because("this kernel has no kallsyms");
    a = get(*state, "/proc/kallsyms");
    assert_int_equal(a.status, 200);
    assert_true(a.complete);
    assert_true(a.body.len > 65536);
    assert_int_equal(a.body.p[a.body.len - 1], '\n');
    assert_non_null(strcasestr(a.head.p, "Transfer-Encoding: chunked"));
}

static void test_traversal_is_a_path(void **state)
{
    struct harness *h = *state;
    AUTO_ANSWER struct answer a = get(h, "../etc/passwd");
    assert_int_equal(a.status, 200);
    assert_put(h, "path=../beside.txt", "x", 200);
    assert_file(h, "beside.txt", "x");
}

static void test_overwrite_keeps_mode(void **state)
{
    struct harness *h = *state;
    char path[TEXT_MAX];
    harness_write(h, "home/script", "old and longer than the new one");
    (void)snprintf(path, sizeof path, "%s/script", h->home);
    assert_int_equal(chmod(path, 0751), 0);
    assert_put(h, "path=script&mode=600", "new", 200);
    assert_file(h, "home/script", "new");
    assert_int_equal(look(h, "home/script").st_mode & 07777, 0751);
    assert_int_equal(harness_count(h, "home"), 1);
}

static void test_mode_of_new_file(void **state)
{
    struct harness *h = *state;
    assert_put(h, "path=a&mode=755", "x", 200);
    assert_int_equal(look(h, "home/a").st_mode & 07777, 0755);
    assert_put(h, "path=b&mode=0600", "x", 200);
    assert_int_equal(look(h, "home/b").st_mode & 07777, 0600);
    assert_put(h, "path=s&mode=4711", "x", 200);
    assert_int_equal(look(h, "home/s").st_mode & 07777, 04711);
    assert_put(h, "path=c&mode=17777", "x", 400);
    assert_put(h, "path=c&mode=9", "x", 400);
    assert_put(h, "path=c&mode=", "x", 400);
    assert_put(h, "path=c&mode=00000755", "x", 400);
    assert_int_equal(harness_count(h, "home"), 3);
}

static void test_symbolic_link_is_followed(void **state)
{
    struct harness *h = *state;
    char from[TEXT_MAX];
    harness_write(h, "real", "old");
    (void)snprintf(from, sizeof from, "%s/link", h->home);
    assert_int_equal(symlink("../real", from), 0);
    assert_put(h, "path=link", "new", 200);
    assert_true(S_ISLNK(look(h, "home/link").st_mode));
    assert_file(h, "real", "new");
}

static void test_upload_refused(void **state)
{
    struct harness *h = *state;
    char path[TEXT_MAX];
    AUTO_ANSWER struct answer folder = put(h, "path=/", SLICE_LIT("x"));
    assert_int_equal(folder.status, 400);
    assert_message(&folder, "path '/' is a directory");
    harness_write(h, "home/file", "whole");
    assert_put(h, "path=file/below", "x", 400);
    assert_put(h, "path=", "x", 400);
    assert_put(h, "", "x", 400);
    (void)snprintf(path, sizeof path, "%s/fifo", h->home);
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_put(h, "path=fifo", "x", 400);
    assert_put(h, "path=~", "x", 400);
    assert_file(h, "home/file", "whole");
    assert_int_equal(harness_count(h, "home"), 2);
}

/* A client that leaves half-way changes nothing and leaves nothing. */
static void test_broken_upload(void **state)
{
    struct harness *h = *state;
    int fd = harness_connect(h);
    AUTO_ANSWER struct answer a = {0};
    harness_write(h, "home/kept", "old");
    harness_send(fd, SLICE_LIT("POST /files?path=kept HTTP/1.1\r\nHost: x\r\n" OCTET
                               "Content-Length: 100000\r\n\r\nonly this"));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    a = harness_answer(fd); /* the connection's end: the server is done with the request */
    assert_int_not_equal(a.status, 200);
    (void)close(fd);
    assert_file(h, "home/kept", "old");
    assert_int_equal(harness_count(h, "home"), 1);
}

static void test_broken_chunks(void **state)
{
    struct harness *h = *state;
    AUTO_CLOSE int fd = harness_connect(h);
    AUTO_ANSWER struct answer a = {0};
    harness_send(fd, SLICE_LIT("POST /files?path=new HTTP/1.1\r\nHost: x\r\n" OCTET
                               "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"));
    a = harness_answer(fd);
    assert_int_equal(a.status, 400);
    assert_int_equal(harness_count(h, "home"), 0);
}

static void test_chunked_upload(void **state)
{
    struct harness *h = *state;
    AUTO_CLOSE int fd = harness_connect(h);
    AUTO_ANSWER struct answer a = {0};
    harness_send(
        fd, SLICE_LIT("POST /files?path=new HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" OCTET
                      "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
    a = harness_answer(fd);
    assert_int_equal(a.status, 200);
    assert_file(h, "home/new", "hello world");
}

/* A file system of 64 KiB: the upload that does not fit leaves what was. */
static void test_no_space(void **state)
{
    struct harness *h = *state;
    AUTO_FREE char *bytes = make_bytes(1 << 20);
    AUTO_ANSWER struct answer a = {0};
    if (geteuid() != 0 || mount("torpor-test", h->home, "tmpfs", 0, "size=64k") < 0)
        skip_because("mounting a small file system needs root and CAP_SYS_ADMIN");
    assert_put(h, "path=f", "old", 200);
    a = put(h, "path=f", slice_of(bytes, 1 << 20));
    assert_int_equal(a.status, 507);
    assert_file(h, "home/f", "old");
    assert_int_equal(harness_count(h, "home"), 1);
    assert_int_equal(umount2(h->home, MNT_DETACH), 0);
}

static void test_multipart(void **state)
{
    struct harness *h = *state;
    AUTO_ANSWER struct answer a = harness_ask(h, "POST", "/files", FORM,
        SLICE_LIT("--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nskipped\r\n"
                  "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d/one\"\r\n"
                  "Content-Type: text/plain\r\n\r\n1\r\n"
                  "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"two\"\r\n\r\n"
                  "\r\n--XX--\r\n"));
    char want[2 * TEXT_MAX];
    assert_int_equal(a.status, 200);
    (void)snprintf(want, sizeof want,
        "[{\"name\":\"one\",\"path\":\"%s/d/one\",\"type\":\"file\"},"
        "{\"name\":\"two\",\"path\":\"%s/two\",\"type\":\"file\"}]",
        h->home, h->home);
    assert_string_equal(a.body.p, want);
    assert_file(h, "home/d/one", "1");
    assert_file(h, "home/two", "");
}

#define PART(rest) "--XX\r\nContent-Disposition: form-data; name=\"file\"" rest "\r\n\r\nx\r\n"

static void assert_form(struct harness *h, const char *target, const char *body, int want)
{
    AUTO_ANSWER struct answer a = harness_ask(h, "POST", target, FORM, slice_cstr(body));
    if (a.status != want)
        fail_msg("%s: %d instead of %d: %s", body, a.status, want, a.body.p ? a.body.p : "");
}

static void test_multipart_paths(void **state)
{
    struct harness *h = *state;
    assert_form(h, "/files?path=here", PART("; filename=\"there\"") "--XX--\r\n", 200);
    assert_form(h, "/files?path=plain", PART("") "--XX--\r\n", 200);
    assert_form(h, "/files", PART("") "--XX--\r\n", 400);
    assert_form(h, "/files?path=two", PART("; filename=a") PART("; filename=b") "--XX--\r\n", 400);
    assert_form(h, "/files", "--XX--\r\n", 400);
    assert_form(h, "/files?path=cut", PART("; filename=a"), 400);
    assert_file(h, "home/here", "x");
    assert_file(h, "home/plain", "x");
    assert_null(harness_read(h, "home/there"));
    assert_null(harness_read(h, "home/cut"));
    assert_int_equal(harness_count(h, "home"), 3); /* the first of the two is there, whole */
}

static void test_wrong_content_type(void **state)
{
    AUTO_ANSWER struct answer a = harness_ask(
        *state, "POST", "/files?path=x", WITH_TOKEN "Content-Type: text/plain\r\n", SLICE_LIT("x"));
    assert_int_equal(a.status, 415);
}

/* --- what needs root: acting as somebody else --- */

static void test_other_user(void **state)
{
    struct harness *h = *state;
    struct stat st;
    if (geteuid() != 0)
        skip_because("only root can act as another user");
    assert_put(h, "path=deep/er/f&username=user", "x", 200);
    st = look(h, "user/deep/er/f");
    assert_int_equal(st.st_uid, 1000);
    assert_int_equal(st.st_gid, 1000);
    assert_int_equal(look(h, "user/deep").st_uid, 1000);
}

static void test_overwrite_keeps_owner(void **state)
{
    struct harness *h = *state;
    char query[TEXT_MAX];
    struct stat st;
    if (geteuid() != 0)
        skip_because("only root can act as another user");
    assert_put(h, "path=f&username=user", "x", 200);
    (void)snprintf(query, sizeof query, "path=%s/user/f&username=root", h->dir);
    assert_put(h, query, "by root", 200);
    st = look(h, "user/f");
    assert_int_equal(st.st_uid, 1000);
    assert_file(h, "user/f", "by root");
}

static void test_rights_of_user(void **state)
{
    struct harness *h = *state;
    char path[TEXT_MAX];
    char query[2 * TEXT_MAX];
    AUTO_ANSWER struct answer secret = {0};
    if (geteuid() != 0)
        skip_because("only root can act as another user");
    harness_write(h, "home/secret", "root's");
    (void)snprintf(path, sizeof path, "%s/secret", h->home);
    assert_int_equal(chmod(path, 0600), 0);
    (void)snprintf(query, sizeof query, "/files?username=user&path=%s", path);
    secret = harness_ask(h, "GET", query, WITH_TOKEN, nothing);
    assert_int_equal(secret.status, 403);
    (void)snprintf(query, sizeof query, "username=user&path=%s", path);
    assert_put(h, query, "mine now", 403);
    (void)snprintf(query, sizeof query, "username=user&path=%s/new", h->home);
    assert_put(h, query, "x", 403);
    assert_int_equal(harness_count(h, "home"), 1);
    assert_file(h, "home/secret", "root's");
    /* Group rights count: 50 is a supplementary group of the user. */
    assert_int_equal(chown(path, 0, 50), 0);
    assert_int_equal(chmod(path, 04660), 0);
    (void)snprintf(query, sizeof query, "username=user&path=%s", path);
    assert_put(h, query, "shared", 200);
    assert_file(h, "home/secret", "shared");
    assert_int_equal(look(h, "home/secret").st_uid, 0);
    assert_int_equal(look(h, "home/secret").st_gid, 50);
    assert_int_equal(look(h, "home/secret").st_mode & 07777, 0660); /* not a set-uid root file */
}

#define WITH_SERVICE(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, harness_set_up_initialised, harness_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVICE(test_round_trip_of_sizes),
        WITH_SERVICE(test_upload_answer),
        WITH_SERVICE(test_download_errors),
        WITH_SERVICE(test_users),
        WITH_SERVICE(test_files_without_a_size),
        WITH_SERVICE(test_long_file_without_a_size),
        WITH_SERVICE(test_traversal_is_a_path),
        WITH_SERVICE(test_overwrite_keeps_mode),
        WITH_SERVICE(test_mode_of_new_file),
        WITH_SERVICE(test_symbolic_link_is_followed),
        WITH_SERVICE(test_upload_refused),
        WITH_SERVICE(test_broken_upload),
        WITH_SERVICE(test_broken_chunks),
        WITH_SERVICE(test_chunked_upload),
        WITH_SERVICE(test_no_space),
        WITH_SERVICE(test_multipart),
        WITH_SERVICE(test_multipart_paths),
        WITH_SERVICE(test_wrong_content_type),
        WITH_SERVICE(test_other_user),
        WITH_SERVICE(test_overwrite_keeps_owner),
        WITH_SERVICE(test_rights_of_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
