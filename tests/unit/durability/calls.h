/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call of the agent to the system that may fail or that changes the disk, put in place by the
 * linker (durability/meson.build has the list). Each can be made to fail, and what changes the disk
 * is told to disk_model.c.
 */
#ifndef TORPOR_TESTS_DURABILITY_CALLS_H
#define TORPOR_TESTS_DURABILITY_CALLS_H

#include <stdbool.h>

enum {
    FAULT_SHORT = -1, /* instead of an errno: half of what was asked for is read or written */
    FAULT_SITE_MAX = 32,
};

/* Which call fails. */
struct fault {
    int error;         /* errno, or FAULT_SHORT */
    int at;            /* the how manieth that this error can befall, from 1 on; 0: none */
    bool lasting;      /* and every one after it */
    bool data_only;    /* only what changes a data folder */
    const char *calls; /* only these, each between blanks; NULL: all */
    /* What happened: */
    int seen;
    char site[FAULT_SITE_MAX]; /* the first call that failed, "" for none */
    bool broke_data;           /* it was an fsync in the data folder */
};

/* File systems say that they are large: no create is refused for the host's reserve. */
extern bool disks_look_large;

/* From now on, in all threads, until faults_end. */
void faults_begin(const struct fault *f);
/* What has happened since. */
struct fault faults_end(void);

#endif
