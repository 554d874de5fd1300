/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of the sandbox.
 *
 * Theory of operation. One mutex guards all of it, held only to copy. The variables live in an
 * arena of their own that a change builds aside and swaps in, so a reader sees the old set or the
 * new one, and a failed change leaves the old. Nothing here is written to disk: it arrives anew
 * with every boot, and a snapshot carries it in memory.
 */
#include "envd/settings.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* LIMIT_ENV_MAX variables of LIMIT_ENV_VALUE_MAX are 4 MiB; their keys and NULs fit in the rest. */
enum { VARS_BYTES_MAX = 5 << 20, OWN_VARS = 3 };

struct settings {
    pthread_mutex_t lock;
    char token[SETTINGS_TOKEN_MAX + 1];
    char default_user[SETTINGS_USER_MAX + 1];
    char default_workdir[SETTINGS_WORKDIR_MAX + 1];
    char sandbox_id[SETTINGS_ID_MAX + 1];
    char template_id[SETTINGS_ID_MAX + 1];
    struct arena vars_arena;
    struct settings_var *vars;
    size_t n_vars;
};

struct settings *settings_new(void)
{
    struct settings *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return NULL;
    }
    memcpy(s->default_user, "root", sizeof "root");
    arena_init(&s->vars_arena, VARS_BYTES_MAX);
    return s;
}

void settings_free(struct settings *s)
{
    if (!s)
        return;
    arena_done(&s->vars_arena);
    (void)pthread_mutex_destroy(&s->lock);
    explicit_bzero(s->token, sizeof s->token);
    free(s);
}

static struct settings_var *copy_vars(struct arena *a, const struct settings_var *vars, size_t n)
{
    struct settings_var *copy = arena_calloc(a, n + 1, sizeof *copy);
    if (!copy)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        copy[i].key = slice_of(arena_strndup(a, vars[i].key.p, vars[i].key.n), vars[i].key.n);
        copy[i].value =
            slice_of(arena_strndup(a, vars[i].value.p, vars[i].value.n), vars[i].value.n);
        if (!copy[i].key.p || !copy[i].value.p)
            return NULL;
    }
    return copy;
}

static void set_text(struct slice text, char *dst, size_t dst_size)
{
    if (text.p) {
        bool fits = slice_copy_cstr(text, dst, dst_size);
        assert(fits);
    }
}

int settings_change(struct settings *s, const struct settings_change *c, struct err *e)
{
    struct arena fresh;
    struct settings_var *vars = NULL;
    arena_init(&fresh, VARS_BYTES_MAX);
    if (c->replaces_vars) {
        vars = copy_vars(&fresh, c->vars, c->n_vars);
        if (!vars) {
            arena_done(&fresh);
            return err_set(e, ERR_NOMEM, "no memory for the environment");
        }
    }
    MUTEX_GUARD(&s->lock);
    set_text(c->token, s->token, sizeof s->token);
    set_text(c->default_user, s->default_user, sizeof s->default_user);
    set_text(c->default_workdir, s->default_workdir, sizeof s->default_workdir);
    set_text(c->sandbox_id, s->sandbox_id, sizeof s->sandbox_id);
    set_text(c->template_id, s->template_id, sizeof s->template_id);
    if (c->replaces_vars) {
        arena_done(&s->vars_arena);
        s->vars_arena = fresh;
        s->vars = vars;
        s->n_vars = c->n_vars;
    }
    return 0;
}

static bool equal_in_constant_time(const char *a, const char *b, size_t n)
{
    volatile unsigned char diff = 0;
    for (size_t i = 0; i < n; i++)
        diff = diff | (unsigned char)(a[i] ^ b[i]);
    return diff == 0;
}

enum settings_access settings_check_token(struct settings *s, struct slice token)
{
    size_t n;
    MUTEX_GUARD(&s->lock);
    n = strlen(s->token);
    if (n == 0)
        return SETTINGS_NO_TOKEN_YET;
    if (token.n != n || !equal_in_constant_time(s->token, token.p, n))
        return SETTINGS_DENIED;
    return SETTINGS_GRANTED;
}

void settings_default_user(struct settings *s, char dst[SETTINGS_USER_MAX + 1])
{
    MUTEX_GUARD(&s->lock);
    (void)snprintf(dst, sizeof s->default_user, "%s", s->default_user);
}

void settings_default_workdir(struct settings *s, char dst[SETTINGS_WORKDIR_MAX + 1])
{
    MUTEX_GUARD(&s->lock);
    (void)snprintf(dst, sizeof s->default_workdir, "%s", s->default_workdir);
}

/* The variables by which programs of E2B users find out where they run. */
static size_t own_vars(const struct settings *s, struct settings_var dst[OWN_VARS])
{
    size_t n = 0;
    dst[n++] = (struct settings_var){SLICE_LIT("E2B_SANDBOX"), SLICE_LIT("true")};
    if (s->sandbox_id[0])
        dst[n++] = (struct settings_var){SLICE_LIT("E2B_SANDBOX_ID"), slice_cstr(s->sandbox_id)};
    if (s->template_id[0])
        dst[n++] = (struct settings_var){SLICE_LIT("E2B_TEMPLATE_ID"), slice_cstr(s->template_id)};
    return n;
}

int settings_vars(struct settings *s, struct arena *a, const struct settings_var **ret,
    size_t *ret_n, struct err *e)
{
    struct settings_var *all;
    struct settings_var *copy;
    size_t n;
    MUTEX_GUARD(&s->lock);
    all = arena_calloc(a, OWN_VARS + s->n_vars, sizeof *all);
    if (!all)
        return err_set(e, ERR_TOO_LARGE, "the environment does not fit in the request's memory");
    n = own_vars(s, all);
    if (s->n_vars > 0)
        memcpy(all + n, s->vars, s->n_vars * sizeof *all);
    n += s->n_vars;
    copy = copy_vars(a, all, n);
    if (!copy)
        return err_set(e, ERR_TOO_LARGE, "the environment does not fit in the request's memory");
    *ret = copy;
    *ret_n = n;
    return 0;
}
