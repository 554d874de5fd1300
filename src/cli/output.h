/* SPDX-License-Identifier: Apache-2.0 */
/* How answers are shown: tables for people, JSON for programs, ids for scripts. */
#ifndef TORPOR_CLI_OUTPUT_H
#define TORPOR_CLI_OUTPUT_H

#include <stdint.h>

#include "base/arena.h"
#include "cli/args.h"
#include "json/json.h"

enum output_form { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_ID };
#define OUTPUT_CHOICES "table json id"

/* The row of -o for a command's options. */
#define OUTPUT_OPTION                                                                              \
    {                                                                                              \
        .name = "output", .letter = 'o', .value = "FORM", .choices = OUTPUT_CHOICES,               \
        .help = "table, json or id; default: a table on a terminal, else json"                     \
    }

/* What -o says; without it a table on a terminal and JSON elsewhere. */
enum output_form output_form(const struct cli *c, const struct args *a);

enum { TABLE_COLUMNS_MAX = 12 };

struct table {
    const char *const *titles; /* n_columns of them */
    size_t n_columns;
    const char **cells; /* row after row */
    size_t n_cells;
    size_t cap_cells;
    struct arena arena; /* of the cells' texts */
};

void table_init(struct table *t, const char *const *titles, size_t n_columns);
void table_done(struct table *t);
#define AUTO_TABLE __attribute__((cleanup(table_done)))
/* Adds the next cell, with what a terminal would act on made harmless. Memory that runs out leaves
 * the cell empty. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints at most `width` columns: the widest columns are cut until it fits (0: nothing is cut). */
void table_print(const struct table *t, FILE *out, int width);

/* "5s", "12m", "3h", "4d" between the two times; "-" when `ms` is 0. */
void format_age(int64_t ms, int64_t now_ms, char dst[24]);
/* "512 MiB", "1.5 GiB". */
void format_bytes(int64_t bytes, char dst[24]);
/* Milliseconds since 1970 of an RFC 3339 time in UTC; 0 when it is none. */
int64_t parse_time(const char *text);

/* One value on one line. */
void output_json(FILE *out, const struct json_value *v);

#endif
