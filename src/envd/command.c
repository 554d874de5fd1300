/* SPDX-License-Identifier: Apache-2.0 */
/* Turns process configurations into argument vectors. Everything lives in the request's arena. */
#include "envd/command.h"

#include <limits.h>
#include <string.h>

#include "base/cleanup.h"
#include "envd/paths.h"
#include "envd/settings.h"
#include "envd/users.h"
#include "proto/limits.h"
#include "rpc/process_v1.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { PATH_FOLDERS_MAX = 64, USER_VARS = 5 };

static int too_large(struct err *e)
{
    return err_set(e, ERR_TOO_LARGE, "the command does not fit in the request's memory");
}

static bool has_nul(struct slice s)
{
    return s.n > 0 && memchr(s.p, '\0', s.n);
}

struct env {
    struct arena *arena;
    char **vars; /* "KEY=value", room for the bound */
    size_t n;
    size_t max;
};

static char **find_var(struct env *env, struct slice key)
{
    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->vars[i], key.p, key.n) == 0 && env->vars[i][key.n] == '=')
            return &env->vars[i];
    return NULL;
}

static int set_var(struct env *env, struct slice key, struct slice value, struct err *e)
{
    char **slot = find_var(env, key);
    char *var = arena_alloc(env->arena, key.n + value.n + 2);
    if (!var || (!slot && env->n == env->max))
        return too_large(e);
    memcpy(var, key.p, key.n);
    var[key.n] = '=';
    if (value.n > 0)
        memcpy(var + key.n + 1, value.p, value.n);
    if (!slot)
        slot = &env->vars[env->n++];
    *slot = var;
    return 0;
}

static int set_user_vars(struct env *env, const struct user *u, struct err *e)
{
    const struct {
        const char *key;
        const char *value;
    } vars[USER_VARS] = {
        {"PATH", PATH_DEFAULT},
        {"HOME", u->home},
        {"USER", u->name},
        {"LOGNAME", u->name},
        {"SHELL", u->shell},
    };
    for (size_t i = 0; i < USER_VARS; i++)
        if (set_var(env, slice_cstr(vars[i].key), slice_cstr(vars[i].value), e) < 0)
            return -1;
    return 0;
}

static int set_request_var(struct env *env, const struct rpc_entry *var, struct err *e)
{
    if (var->key.n == 0 || var->key.n > LIMIT_ENV_KEY_MAX || has_nul(var->key) ||
        memchr(var->key.p, '=', var->key.n))
        return err_field(e, "env", "env has a key that no variable may have");
    if (var->value.n > LIMIT_ENV_VALUE_MAX || has_nul(var->value))
        return err_field(e, "env", "the value of %.*s is too long or has a NUL byte",
            (int)var->key.n, var->key.p);
    return set_var(env, var->key, var->value, e);
}

static int build_env(struct env *env, const struct user *u, struct settings *s,
    const struct rpc_list *request, struct err *e)
{
    const struct settings_var *vars;
    const struct rpc_entry *entries = request->items;
    size_t n;
    if (request->n > LIMIT_ENV_MAX)
        return err_field(e, "env", "env has more than %d variables", LIMIT_ENV_MAX);
    if (settings_vars(s, env->arena, &vars, &n, e) < 0)
        return -1;
    env->max = USER_VARS + n + request->n;
    env->vars = arena_calloc(env->arena, env->max + 1, sizeof *env->vars);
    if (!env->vars)
        return too_large(e);
    if (set_user_vars(env, u, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (set_var(env, vars[i].key, vars[i].value, e) < 0)
            return -1;
    for (size_t i = 0; i < request->n; i++)
        if (set_request_var(env, &entries[i], e) < 0)
            return -1;
    return 0;
}

static int build_argv(
    const struct process_config *config, struct arena *a, char ***ret, struct err *e)
{
    const struct slice *args = config->args.items;
    char **argv;
    if (config->args.n > LIMIT_EXEC_ARGS_MAX)
        return err_field(e, "args", "more than %d arguments", LIMIT_EXEC_ARGS_MAX);
    argv = arena_calloc(a, config->args.n + 2, sizeof *argv);
    if (!argv || !(argv[0] = arena_strndup(a, config->cmd.p, config->cmd.n)))
        return too_large(e);
    for (size_t i = 0; i < config->args.n; i++) {
        if (has_nul(args[i]))
            return err_field(e, "args", "argument %zu has a NUL byte", i);
        argv[i + 1] = arena_strndup(a, args[i].p, args[i].n);
        if (!argv[i + 1])
            return too_large(e);
    }
    *ret = argv;
    return 0;
}

/* One candidate for each folder of `path`; an empty one means the working folder. */
static int search_path(
    const char *path, const char *cmd, struct arena *a, char **programs, struct err *e)
{
    for (size_t i = 0; i < PATH_FOLDERS_MAX; i++) {
        size_t n = strcspn(path, ":");
        programs[i] =
            n > 0 ? arena_printf(a, "%.*s/%s", (int)n, path, cmd) : arena_printf(a, "./%s", cmd);
        if (!programs[i])
            return too_large(e);
        if (!path[n])
            break;
        path += n + 1;
    }
    return 0;
}

static int build_programs(char *cmd, struct env *env, char ***ret, struct err *e)
{
    char **programs = arena_calloc(env->arena, PATH_FOLDERS_MAX + 1, sizeof *programs);
    char **path = find_var(env, SLICE_LIT("PATH"));
    if (!programs)
        return too_large(e);
    programs[0] = cmd;
    if (!strchr(cmd, '/') &&
        search_path(*path + sizeof "PATH=" - 1, cmd, env->arena, programs, e) < 0)
        return -1;
    *ret = programs;
    return 0;
}

static int build_cwd(const struct process_config *config, const struct user *u, struct settings *s,
    struct arena *a, struct command *ret, struct err *e)
{
    bool asked = config->has_cwd && config->cwd.n > 0;
    char path[PATH_MAX];
    if (asked) {
        if (path_resolve(u->home, config->cwd, path, e) < 0) {
            memcpy(e->where, "cwd", sizeof "cwd");
            return err_wrap(e, "cwd");
        }
    } else {
        settings_default_workdir(s, path);
    }
    ret->cwd = arena_strndup(a, path[0] ? path : u->home, strlen(path[0] ? path : u->home));
    ret->cwd_else = asked ? NULL : "/";
    return ret->cwd ? 0 : too_large(e);
}

int command_build(const struct process_config *config, const struct user *u, struct settings *s,
    struct arena *a, struct command *ret, struct err *e)
{
    struct env env = {.arena = a};
    if (config->cmd.n == 0 || config->cmd.n > LIMIT_PATH_MAX || has_nul(config->cmd))
        return err_field(e, "cmd", "cmd is empty, too long or has a NUL byte");
    if (build_env(&env, u, s, &config->envs, e) < 0 || build_argv(config, a, &ret->argv, e) < 0)
        return -1;
    ret->envp = env.vars;
    if (build_programs(ret->argv[0], &env, &ret->programs, e) < 0)
        return -1;
    return build_cwd(config, u, s, a, ret, e);
}
