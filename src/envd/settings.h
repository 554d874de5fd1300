/* SPDX-License-Identifier: Apache-2.0 */
/* What /init told us: token, environment, default user and folder, ids. Safe from any thread. */
#ifndef TORPOR_ENVD_SETTINGS_H
#define TORPOR_ENVD_SETTINGS_H

#include "base/arena.h"
#include "base/err.h"

enum {
    SETTINGS_TOKEN_MAX = 256,
    SETTINGS_USER_MAX = 64,
    SETTINGS_WORKDIR_MAX = 1023,
    SETTINGS_ID_MAX = 128
};

struct settings;

struct settings_var {
    struct slice key;
    struct slice value;
};

/* A change; a slice with p == NULL leaves what was. Texts are checked by the caller (init.c)
 * against the bounds above and for NUL bytes. */
struct settings_change {
    struct slice token;
    struct slice default_user;
    struct slice default_workdir;
    struct slice sandbox_id;
    struct slice template_id;
    bool replaces_vars;
    const struct settings_var *vars;
    size_t n_vars;
};

enum settings_access {
    SETTINGS_NO_TOKEN_YET, /* before the first change that sets one */
    SETTINGS_DENIED,
    SETTINGS_GRANTED
};

/* NULL when out of memory. Free with settings_free; NULL is fine there. */
struct settings *settings_new(void);
void settings_free(struct settings *s);

/* All of it or, with ERR_NOMEM, nothing. */
int settings_change(struct settings *s, const struct settings_change *c, struct err *e);

/* Compares in time that depends on the lengths only. */
enum settings_access settings_check_token(struct settings *s, struct slice token);

/* The default user's name, "root" until one was set. */
void settings_default_user(struct settings *s, char dst[SETTINGS_USER_MAX + 1]);
/* The default folder of processes, "" until one was set: then it is the user's home. */
void settings_default_workdir(struct settings *s, char dst[SETTINGS_WORKDIR_MAX + 1]);

/* Copies the variables for every process into the arena, those that name the sandbox first.
 * ERR_TOO_LARGE when the arena is full. */
int settings_vars(struct settings *s, struct arena *a, const struct settings_var **ret,
    size_t *ret_n, struct err *e);

#endif
