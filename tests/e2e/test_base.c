/* SPDX-License-Identifier: Apache-2.0 */
/* The image "base" in a real sandbox, and what a create answers while the image is being built. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
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

#include "base/cleanup.h"
#include "stack.h"

static struct stack stack;
static char id[32];
static const char *unavailable;

/* Where the stack's images are; a link to those of the test data. */
static void images_path(char dst[160], const char *name)
{
    (void)snprintf(dst, 160, "%s/images%s", stack.dir, name);
}

static int setup(void **state)
{
    char path[160];
    unavailable = stack_unavailable();
    if (unavailable)
        return 0;
    stack_start(&stack);
    images_path(path, "/base/rootfs.img");
    if (access(path, R_OK) < 0) {
        unavailable = "no image base: make it with `make test-data`";
        stack_stop(&stack);
        return 0;
    }
    create_sandbox(&stack, "{\"template\":\"base\",\"env\":{\"GREETING\":\"hello\"}}", id);
    return 0;
}

static int teardown(void **state)
{
    if (unavailable)
        return 0;
    delete_sandbox(&stack, id);
    stack_stop(&stack);
    return 0;
}

#define NEEDS_BASE()                                                                               \
    do {                                                                                           \
        if (unavailable) {                                                                         \
            print_message("skip: %s\n", unavailable);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* Runs a command line in bash as the default user; it must print `expected` and exit with 0. */
static void prints(const char *script, const char *expected)
{
    AUTO_REPLY struct reply r = {0};
    AUTO_BUF struct buf body = BUF_INIT(1 << 16);
    struct json_writer w;
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_key(&w, "cmd");
    json_cstr(&w, "/bin/bash");
    json_key(&w, "args");
    json_array_begin(&w);
    json_cstr(&w, "-c");
    json_cstr(&w, script);
    json_array_end(&w);
    json_object_end(&w);
    exec_in(&stack, id, body.p, &r);
    if (reply_int(&r, "exit_code") != 0 || strcmp(reply_text(&r, "stdout"), expected) != 0)
        fail_msg("%s: %.*s", script, (int)r.body.len, r.body.p);
}

static void default_user_is_user(void **state)
{
    NEEDS_BASE();
    prints("id -un; id -u; echo $HOME; stat -c %U $HOME", "user\n1000\n/home/user\nuser\n");
}

static void user_may_become_root(void **state)
{
    NEEDS_BASE();
    prints("stat -c '%a %u' /usr/bin/sudo; sudo -n id -u", "4755 0\n0\n");
}

/* By a file capability: the image keeps them. */
static void ping_works_for_user(void **state)
{
    NEEDS_BASE();
    prints("stat -c %a /usr/bin/ping; /usr/sbin/getcap /usr/bin/ping",
        "755\n/usr/bin/ping cap_net_raw=ep\n");
    prints("ping -c 1 -W 5 127.0.0.1 >/dev/null && echo ok", "ok\n");
}

static void tools_are_there(void **state)
{
    NEEDS_BASE();
    prints("python -c 'import sys, json, ssl; print(sys.version_info[0], 6*7)'", "3 42\n");
    prints("cd /tmp && git init -q repo && git -C repo rev-parse --is-inside-work-tree", "true\n");
    prints("for p in curl less ps ip; do command -v $p >/dev/null || echo no $p; done", "");
    prints("curl -s file:///etc/hostname | wc -l", "1\n");
}

static void apt_works(void **state)
{
    NEEDS_BASE();
    prints("grep -c ^deb /etc/apt/sources.list", "3\n");
    prints("sudo -n apt-get check -qq && apt-get -s -qq upgrade >/dev/null && echo ok", "ok\n");
}

static void environment_reaches_it(void **state)
{
    NEEDS_BASE();
    prints("echo $GREETING", "hello\n");
}

static void identity_is_the_sandbox(void **state)
{
    char expected[96];
    NEEDS_BASE();
    (void)snprintf(expected, sizeof expected, "%s\n33\nnameserver 169.254.0.22\n", id);
    prints("hostname; wc -c < /etc/machine-id; cat /etc/resolv.conf", expected);
}

static void create_answers(int status, const char *code)
{
    AUTO_REPLY struct reply r = {0};
    api(&stack, "POST", "/v1/sandboxes", "{\"template\":\"base\"}", &r);
    if (r.status != status || strcmp(reply_text(&r, "error.code"), code) != 0)
        fail_msg("expected %d %s: %d %.*s", status, code, r.status, (int)r.body.len, r.body.p);
}

/* A folder of images in which there is none yet, with and without a builder. */
static void first_build_is_waited_for(void **state)
{
    char images[160];
    char aside[160];
    char marker[160];
    int lock;
    NEEDS_BASE();
    images_path(images, "");
    images_path(aside, ".aside");
    images_path(marker, "/base.building");
    assert_int_equal(rename(images, aside), 0);
    assert_int_equal(mkdir(images, 0755), 0);
    lock = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(lock >= 0);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    create_answers(503, "template_building");
    (void)close(lock); /* the builder is dead */
    create_answers(404, "not_found");
    assert_int_equal(unlink(marker), 0);
    assert_int_equal(rmdir(images), 0);
    assert_int_equal(rename(aside, images), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_user_is_user),
        cmocka_unit_test(user_may_become_root),
        cmocka_unit_test(ping_works_for_user),
        cmocka_unit_test(tools_are_there),
        cmocka_unit_test(apt_works),
        cmocka_unit_test(environment_reaches_it),
        cmocka_unit_test(identity_is_the_sandbox),
        cmocka_unit_test(first_build_is_waited_for),
    };
    return cmocka_run_group_tests_name("e2e/base", tests, setup, teardown);
}
