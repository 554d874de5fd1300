/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded migration files and how to cut them into sections. */
#include "control/store/migrate.h"

#include "base/cleanup.h"

/* Written by embed.py; listed in meson.build. */
extern const unsigned char migration_0001[];
extern const size_t migration_0001_len;
extern const unsigned char migration_0002[];
extern const size_t migration_0002_len;

static const struct migration list[] = {
    {1, migration_0001, &migration_0001_len},
    {2, migration_0002, &migration_0002_len},
};
const struct migration *const migrations = list;
const size_t n_migrations = ARRAY_LEN(list);

/* Start of the line after the first one that begins with `mark` at or behind `from`; NULL if none.
 * Stores where the marked line starts. */
static const char *find_mark(
    struct slice text, const char *from, const char *mark, const char **ret_line)
{
    const char *end = text.p + text.n;
    size_t n = strlen(mark);
    while (from < end) {
        const char *eol = memchr(from, '\n', (size_t)(end - from));
        const char *next = eol ? eol + 1 : end;
        if ((size_t)(next - from) >= n && memcmp(from, mark, n) == 0) {
            *ret_line = from;
            return next;
        }
        from = next;
    }
    return NULL;
}

int migration_section(struct slice text, bool down, struct slice *ret, struct err *e)
{
    const char *mark = down ? "-- +goose Down" : "-- +goose Up";
    const char *line;
    const char *start = find_mark(text, text.p, mark, &line);
    if (!start)
        return err_set(e, ERR_INVALID, "migration without \"%s\"", mark);
    if (!find_mark(text, start, "-- +goose ", &line))
        line = text.p + text.n;
    *ret = slice_of(start, (size_t)(line - start));
    return 0;
}
