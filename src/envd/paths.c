/* SPDX-License-Identifier: Apache-2.0 */
/* Resolves paths by text only. What the user may reach is decided by the kernel when they are
 * opened (envd/identity.h), so ".." needs no guarding here. */
#include "envd/paths.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "proto/limits.h"

/* Drops the last component of the path of `len` bytes; returns the new length. */
static size_t drop_component(const char *dst, size_t len)
{
    while (len > 0 && dst[len - 1] != '/')
        len--;
    return len > 0 ? len - 1 : 0;
}

/* Appends "/part" to the clean path of `len` bytes in `dst`, or what "." and ".." mean. */
static size_t add_component(char *dst, size_t len, struct slice part)
{
    if (part.n == 0 || slice_is(part, "."))
        return len;
    if (slice_is(part, ".."))
        return drop_component(dst, len);
    dst[len] = '/';
    memcpy(dst + len + 1, part.p, part.n);
    return len + 1 + part.n;
}

/* Cleans `src`, an absolute path of less than PATH_MAX bytes; the result is never longer. */
static void clean(const char *src, char *dst)
{
    size_t len = 0;
    while (*src) {
        size_t n = strcspn(src, "/");
        len = add_component(dst, len, slice_of(src, n));
        src += n + (src[n] == '/');
    }
    if (len == 0)
        dst[len++] = '/';
    dst[len] = '\0';
}

int path_resolve(const char *home, struct slice path, char *dst, struct err *e)
{
    char whole[PATH_MAX];
    bool tilde = path.n > 0 && path.p[0] == '~' && (path.n == 1 || path.p[1] == '/');
    int n;
    if (path.n == 0)
        return err_field(e, "path", "the path is empty");
    if (memchr(path.p, '\0', path.n))
        return err_field(e, "path", "the path has a NUL byte");
    if (path.n > LIMIT_PATH_MAX)
        return err_field(e, "path", "the path is longer than %d bytes", LIMIT_PATH_MAX);
    if (tilde)
        path = slice_of(path.p + 1, path.n - 1);
    else if (path.p[0] == '/')
        home = NULL;
    n = snprintf(
        whole, sizeof whole, "%s%s%.*s", home ? home : "", home ? "/" : "", (int)path.n, path.p);
    if (n >= (int)sizeof whole)
        return err_field(e, "path", "the path is longer than %d bytes", LIMIT_PATH_MAX);
    clean(whole, dst);
    return 0;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}
