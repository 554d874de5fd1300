/* SPDX-License-Identifier: Apache-2.0 */
/* Server, key and folder. */
#include "cli/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

enum { ENV_FILE_MAX = 64 * 1024, PORT_HTTP = 80 };

static const char *setting(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static int bad_url(const char *url, const char *why, struct err *e)
{
    return err_set(e, ERR_INVALID, "TORPOR_URL=%.100s: %s", url, why);
}

int settings_parse_url(const char *url, struct settings *ret, struct err *e)
{
    const char *p = url;
    size_t n;
    uint64_t port = PORT_HTTP;
    if (strncmp(url, "https://", 8) == 0)
        return bad_url(url, "TLS is not supported, use http:// on the host or through a tunnel", e);
    if (strncmp(url, "http://", 7) != 0)
        return bad_url(url, "must begin with http://", e);
    p += 7;
    n = strcspn(p, ":/");
    if (n == 0 || !slice_copy_cstr(slice_of(p, n), ret->host, sizeof ret->host))
        return bad_url(url, "there is no host in it", e);
    p += n;
    if (*p == ':') {
        n = strcspn(p + 1, "/");
        if (!slice_parse_u64(slice_of(p + 1, n), &port) || port < 1 || port > UINT16_MAX)
            return bad_url(url, "that is not a port", e);
        p += n + 1;
    }
    if (*p && strcmp(p, "/") != 0)
        return bad_url(url, "must be http://HOST[:PORT]", e);
    ret->port = (uint16_t)port;
    return 0;
}

/* The value of NAME=value in the text of an env file; false when it is not there. */
static bool env_file_value(const struct buf *text, const char *name, char *dst, size_t dst_size)
{
    size_t n = strlen(name);
    const char *line = text->p;
    while (line && *line) {
        size_t len = strcspn(line, "\n");
        if (len > n && memcmp(line, name, n) == 0 && line[n] == '=')
            return slice_copy_cstr(slice_of(line + n + 1, len - n - 1), dst, dst_size);
        line += len + (line[len] == '\n');
    }
    return false;
}

static int read_env_file(struct buf *text, struct err *e)
{
    static const char *const defaults[] = {"var", "/var/lib/torpor"};
    const char *dir = setting("TORPOR_DIR");
    char path[PATH_MAX];
    for (size_t i = 0; i < (dir ? 1 : 2); i++) {
        (void)snprintf(path, sizeof path, "%s/env", dir ? dir : defaults[i]);
        if (io_read_file(AT_FDCWD, path, text, e) == 0)
            return 0;
        if (e->errnum != ENOENT && e->errnum != ENOTDIR)
            return err_wrap(e, "the address and the key are in a file that cannot be read");
    }
    if (dir)
        return err_set(e, ERR_INVALID,
            "no server known: there is no %s; is it up (torpor up)? Or set TORPOR_URL and "
            "TORPOR_API_KEY",
            path);
    return err_set(e, ERR_INVALID,
        "no server known: set TORPOR_URL and TORPOR_API_KEY, or TORPOR_DIR to the folder of an "
        "installation (looked for ./var/env and /var/lib/torpor/env)");
}

int settings_find(struct settings *ret, struct err *e)
{
    AUTO_BUF struct buf text = BUF_INIT(ENV_FILE_MAX);
    struct settings s = {.port = 0};
    const char *url = setting("TORPOR_URL");
    const char *key = setting("TORPOR_API_KEY");
    char from_file[SETTINGS_HOST_MAX + 32];
    if (url && !key)
        return err_set(e, ERR_INVALID, "TORPOR_URL is set, but TORPOR_API_KEY is not");
    if ((!url || !key) && read_env_file(&text, e) < 0)
        return -1;
    if (!url) {
        if (!env_file_value(&text, "TORPOR_URL", from_file, sizeof from_file))
            return err_set(e, ERR_INVALID, "the env file holds no TORPOR_URL");
        url = from_file;
    }
    if (key && !slice_copy_cstr(slice_cstr(key), s.key, sizeof s.key))
        return err_set(e, ERR_INVALID, "TORPOR_API_KEY is too long");
    if (!key && !env_file_value(&text, "TORPOR_API_KEY", s.key, sizeof s.key))
        return err_set(e, ERR_INVALID, "the env file holds no TORPOR_API_KEY");
    if (settings_parse_url(url, &s, e) < 0)
        return -1;
    *ret = s;
    return 0;
}

int settings_home(char ret[PATH_MAX], struct err *e)
{
    const char *dir = setting("TORPOR_DIR");
    char cwd[PATH_MAX];
    if (!dir)
        dir = access("var", F_OK) == 0 ? "var" : "/var/lib/torpor";
    if (dir[0] == '/')
        cwd[0] = '\0';
    else if (!getcwd(cwd, sizeof cwd))
        return err_sys(e, errno, "working folder");
    if (snprintf(ret, PATH_MAX, "%s%s%s", cwd, cwd[0] ? "/" : "", dir) >= PATH_MAX)
        return err_set(e, ERR_INVALID, "TORPOR_DIR is too long");
    for (size_t n = strlen(ret); n > 1 && ret[n - 1] == '/'; n--)
        ret[n - 1] = '\0';
    return 0;
}
