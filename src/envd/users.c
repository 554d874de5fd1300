/* SPDX-License-Identifier: Apache-2.0 */
/* Looks users up. Our own parser: libc's would ask name services, which a static program has not.
 */
#include "envd/users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/io.h"

enum { DATABASE_BYTES_MAX = 256 * 1024, PASSWD_FIELDS = 7, GROUP_FIELDS = 4 };

/* Cuts the part before the first `sep` (or everything) off the front of `s`. */
static struct slice cut(struct slice *s, char sep)
{
    const char *end = s->n > 0 ? memchr(s->p, sep, s->n) : NULL;
    size_t len = end ? (size_t)(end - s->p) : s->n;
    struct slice part = slice_of(s->p, len);
    size_t gone = end ? len + 1 : len;
    s->p += gone;
    s->n -= gone;
    return part;
}

/* Splits a line into exactly `n` fields; the last takes what is left. */
static void split(struct slice line, struct slice *fields, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        fields[i] = cut(&line, ':');
    fields[n - 1] = line;
}

static bool parse_id(struct slice s, uint32_t *ret)
{
    uint64_t v;
    if (!slice_parse_u64(s, &v) || v >= UINT32_MAX) /* (uid_t)-1 means "unchanged" to the kernel */
        return false;
    *ret = (uint32_t)v;
    return true;
}

static int read_database(const char *etc_dir, const char *name, struct buf *ret, struct err *e)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", etc_dir, name) >= (int)sizeof path)
        return err_set(e, ERR_INVALID, "path too long");
    return io_read_file(AT_FDCWD, path, ret, e);
}

static bool parse_passwd_line(struct slice line, struct slice name, struct user *u)
{
    struct slice f[PASSWD_FIELDS];
    split(line, f, PASSWD_FIELDS);
    if (!slice_eq(f[0], name))
        return false;
    *u = (struct user){0};
    return slice_copy_cstr(f[0], u->name, sizeof u->name) && parse_id(f[2], &u->uid) &&
           parse_id(f[3], &u->gid) && slice_copy_cstr(f[5], u->home, sizeof u->home) &&
           slice_copy_cstr(f[6], u->shell, sizeof u->shell);
}

static int find_passwd(struct slice text, struct slice name, struct user *u, struct err *e)
{
    while (text.n > 0)
        if (parse_passwd_line(cut(&text, '\n'), name, u)) {
            if (u->home[0] != '/')
                memcpy(u->home, "/", 2);
            if (!u->shell[0])
                memcpy(u->shell, "/bin/sh", sizeof "/bin/sh");
            return 0;
        }
    return err_set(e, ERR_NOT_FOUND, "unknown user %.*s", (int)name.n, name.p);
}

static bool is_member(struct slice members, const char *name)
{
    while (members.n > 0)
        if (slice_is(cut(&members, ','), name))
            return true;
    return false;
}

static void add_groups(struct slice text, struct user *u)
{
    while (text.n > 0) {
        struct slice f[GROUP_FIELDS];
        uint32_t gid;
        split(cut(&text, '\n'), f, GROUP_FIELDS);
        if (u->n_groups < USER_GROUPS_MAX && is_member(f[3], u->name) && parse_id(f[2], &gid) &&
            gid != u->gid)
            u->groups[u->n_groups++] = gid;
    }
}

int user_lookup(const char *etc_dir, struct slice name, struct user *ret, struct err *e)
{
    AUTO_BUF struct buf passwd = BUF_INIT(DATABASE_BYTES_MAX);
    AUTO_BUF struct buf group = BUF_INIT(DATABASE_BYTES_MAX);
    struct user u;
    if (name.n == 0 || name.n > USER_NAME_MAX)
        return err_set(e, ERR_NOT_FOUND, "not a user name");
    if (read_database(etc_dir, "passwd", &passwd, e) < 0)
        return -1;
    if (find_passwd(buf_slice(&passwd), name, &u, e) < 0)
        return -1;
    u.groups[u.n_groups++] = u.gid;
    if (read_database(etc_dir, "group", &group, e) < 0 && e->errnum != ENOENT)
        return -1;
    add_groups(buf_slice(&group), &u);
    *ret = u;
    return 0;
}
