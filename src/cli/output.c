/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, times, sizes, JSON. */
#include "cli/output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"

enum {
    TABLE_BYTES_MAX = 64 << 20,
    COLUMN_MIN = 8, /* no column is cut below that */
    GAP = 2,
    CELL_MAX = 4096,
    JSON_OUT_MAX = 256 << 20,
};

enum output_form output_form(const struct cli *c, const struct args *a)
{
    const char *v = args_value(a, "output");
    if (!v)
        return c->out_is_tty ? OUTPUT_TABLE : OUTPUT_JSON;
    if (strcmp(v, "json") == 0)
        return OUTPUT_JSON;
    return strcmp(v, "id") == 0 ? OUTPUT_ID : OUTPUT_TABLE;
}

void table_init(struct table *t, const char *const *titles, size_t n_columns)
{
    *t = (struct table){.titles = titles, .n_columns = n_columns};
    arena_init(&t->arena, TABLE_BYTES_MAX);
}

void table_done(struct table *t)
{
    free(t->cells);
    arena_done(&t->arena);
}

static bool grow(struct table *t)
{
    size_t cap = t->cap_cells ? t->cap_cells * 2 : 64;
    const char **cells;
    if (t->n_cells < t->cap_cells)
        return true;
    cells = realloc(t->cells, cap * sizeof *cells);
    if (!cells)
        return false;
    t->cells = cells;
    t->cap_cells = cap;
    return true;
}

void table_cell(struct table *t, const char *fmt, ...)
{
    char text[CELL_MAX];
    const char *copy;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    if (!grow(t))
        return;
    copy = arena_strndup(&t->arena, text, strlen(text));
    t->cells[t->n_cells++] = copy ? copy : "";
}

/* Columns on the terminal: bytes that begin a character. Wide characters count as one. */
static int text_columns(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void find_widths(const struct table *t, int widths[TABLE_COLUMNS_MAX])
{
    for (size_t i = 0; i < t->n_columns; i++)
        widths[i] = text_columns(t->titles[i]);
    for (size_t i = 0; i < t->n_cells; i++) {
        int n = text_columns(t->cells[i]);
        if (n > widths[i % t->n_columns])
            widths[i % t->n_columns] = n;
    }
}

/* Takes from the widest column, and of equals from the last, until the line fits. The first column
 * is what people copy: it stays whole. */
static void fit_widths(const struct table *t, int widths[TABLE_COLUMNS_MAX], int width)
{
    int sum = GAP * ((int)t->n_columns - 1);
    for (size_t i = 0; i < t->n_columns; i++)
        sum += widths[i];
    while (sum > width) {
        size_t widest = 1;
        for (size_t i = 1; i < t->n_columns; i++)
            if (widths[i] >= widths[widest])
                widest = i;
        if (widest >= t->n_columns || widths[widest] <= COLUMN_MIN)
            return;
        widths[widest]--;
        sum--;
    }
}

/* Bytes of the first `columns` characters. */
static size_t cut_bytes(const char *s, int columns)
{
    size_t n = 0;
    while (s[n]) {
        if (((unsigned char)s[n] & 0xc0) != 0x80 && columns-- == 0)
            break;
        n++;
    }
    return n;
}

static void print_cell(FILE *out, const char *text, int width, bool last)
{
    int columns = text_columns(text);
    if (columns > width) {
        (void)fprintf(out, "%.*s…", (int)cut_bytes(text, width - 1), text);
        columns = width;
    } else {
        (void)fprintf(out, "%s", text);
    }
    (void)fprintf(out, "%*s", last ? 0 : width - columns + GAP, "");
}

static void print_row(const struct table *t, FILE *out, const char *const *cells, const int *widths)
{
    size_t last = t->n_columns;
    while (last > 1 && cells[last - 1][0] == '\0')
        last--; /* no blanks at the end */
    for (size_t i = 0; i < last; i++)
        print_cell(out, cells[i], widths[i], i + 1 == last);
    (void)fprintf(out, "\n");
}

void table_print(const struct table *t, FILE *out, int width)
{
    int widths[TABLE_COLUMNS_MAX];
    find_widths(t, widths);
    if (width > 0)
        fit_widths(t, widths, width);
    print_row(t, out, t->titles, widths);
    for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
        print_row(t, out, t->cells + i, widths);
}

void format_age(int64_t ms, int64_t now_ms, char dst[24])
{
    static const struct {
        int64_t below;
        int64_t per;
        char unit;
    } steps[] = {{120, 1, 's'}, {7200, 60, 'm'}, {172800, 3600, 'h'}, {INT64_MAX, 86400, 'd'}};
    int64_t sec = (now_ms - ms) / 1000;
    size_t i = 0;
    if (ms == 0) {
        (void)snprintf(dst, 24, "-");
        return;
    }
    if (sec < 0)
        sec = 0; /* clocks differ a little */
    while (sec >= steps[i].below)
        i++;
    (void)snprintf(dst, 24, "%lld%c", (long long)(sec / steps[i].per), steps[i].unit);
}

void format_bytes(int64_t bytes, char dst[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t i = 0;
    while (v >= 1024 && i + 1 < ARRAY_LEN(units)) {
        v /= 1024;
        i++;
    }
    (void)snprintf(dst, 24, v < 10 && v != (double)(int)v ? "%.1f %s" : "%.0f %s", v, units[i]);
}

int64_t parse_time(const char *text)
{
    struct tm tm = {0};
    int ms = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
            &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms) < 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

void output_json(FILE *out, const struct json_value *v)
{
    AUTO_BUF struct buf text = BUF_INIT(JSON_OUT_MAX);
    struct json_writer w;
    json_writer_init(&w, &text);
    json_value_write(&w, v);
    (void)fwrite(text.p, 1, text.len, out);
}
