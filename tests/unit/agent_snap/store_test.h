/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the store share: a store in a folder of its own, and generations in it. */
#ifndef TORPOR_TESTS_STORE_TEST_H
#define TORPOR_TESTS_STORE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "agent/snap/generations.h"

enum { TEST_PAGES = 16 };

struct fixture {
    char dir[64];
    int dirfd;
    struct generation_store *store;
    struct generation *parent; /* whose blobs the next memory may name */
    unsigned page;             /* that is new in a child */
};

int set_up(void **state);
int tear_down(void **state);
/* As after a restart. */
void reopen(struct fixture *f);

extern const char test_secret[GENERATION_SECRET_CHARS + 1];

/* Commits a generation with memory, one layer file and a device state. Pages of memory are full of
 * `fill`; with a parent in the fixture, all but one page are the parent's. -1 when the store
 * refuses. Leaves the layer file "layer" in the folder. */
int make_generation(struct fixture *f, char fill, struct uuid *ret, struct err *e);
/* The disk alone: one layer file full of `fill`. */
int make_disk_generation(struct fixture *f, char fill, struct uuid *ret, struct err *e);
/* Fills the file `name` of the folder, mode 0640. */
void make_layer_file(const struct fixture *f, const char *name, char fill, size_t n);

/* Number of names in a folder below the data folder. */
size_t count_names(const struct fixture *f, const char *folder);
/* Opens it and checks that page `page` of its memory is full of `fill`. */
void expect_page(const struct generation *g, unsigned page, char fill);
struct generation *open_ok(const struct fixture *f, const struct uuid *id);
/* "<folder>/<uuid><suffix>" below the data folder. */
void path_of(char *dst, const char *folder, const struct uuid *id, const char *suffix);

#endif
