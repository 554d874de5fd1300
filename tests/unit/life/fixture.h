/* SPDX-License-Identifier: Apache-2.0 */
/* A host in a temporary folder, over faked mechanisms and the real store of generations. */
#ifndef TORPOR_TESTS_LIFE_FIXTURE_H
#define TORPOR_TESTS_LIFE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/life/life.h"
#include "agent/life/phases.h"
#include "agent/life/snapshots.h"
#include "fakes.h"

struct fixture {
    char root[64];
    char dir[96];
    char run[96];
    struct life *life;
    size_t slots; /* 0: 4 */
    bool warm;    /* base templates start warm, from the next open_life on */
    bool tries;   /* saving and restoring is tried, from the next open_life on */
};

/* Folders with what a host needs; no agent yet. */
struct fixture *fixture_new(bool warm);
int fixture_setup(void **state);
int fixture_setup_warm(void **state);
/* Checks that nothing stays on the host. */
int fixture_teardown(void **state);
#define LIFE_TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup, fixture_teardown)
#define WARM_TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup_warm, fixture_teardown)

/* `dir` is an absolute folder. */
void write_text(const char *dir, const char *name, const char *text);
void make_folder(const char *dir, const char *name);
/* Kernel, and the image "minimal", digest 0123. */
void make_data(struct fixture *f);
void remove_run_files(struct fixture *f);

void open_life(struct fixture *f);
/* The agent ends and VMs run on. */
void leave_life(struct fixture *f);

/* fsyncs of files and folders of sandboxes, and of everything in the data folder, so far. */
extern int sandbox_syncs;
extern int data_syncs;
extern bool no_fsync; /* only counts, in a folder in memory: faster, where no real power is cut */
/* Those of sandboxes' folders: what was renamed there before is there, or comes again, nobody
 * knows. */
extern bool folder_syncs_fail;

/* Called by the thread that reaches a crash point; NULL: nobody is. */
extern void (*on_crash_point)(const char *operation, const char *step);

/* --- what is done with sandboxes; each fails the test when it does not work --- */

struct life_create request(void);
struct sandbox_id create_ok(struct fixture *f);
struct sandbox_id create_with(struct fixture *f, struct life_create c);
struct life_info pause_ok(struct fixture *f, const struct sandbox_id *id);
struct life_info resume_ok(struct fixture *f, const struct sandbox_id *id);
struct snapshot snapshot_ok(struct fixture *f, const struct sandbox_id *id);
struct sandbox_id spawn_ok(struct fixture *f, const struct snapshot *s);
void delete_snapshot_ok(struct fixture *f, const struct template_id *id);
void destroy_ok(struct fixture *f, const struct sandbox_id *id);
/* What the memory of its guest counts, one more each time. */
int count_in(struct fixture *f, const struct sandbox_id *id);
/* The error's kind instead of success. */
enum err_kind pause_kind(struct fixture *f, const struct sandbox_id *id);
enum err_kind exec_kind(struct fixture *f, const struct sandbox_id *id);
struct life_resume resume_request(const struct sandbox_id *id);
enum err_kind resume_kind(struct fixture *f, const struct life_resume *r);
enum err_kind snapshot_kind(struct fixture *f, const struct sandbox_id *id);

/* --- what there is --- */

struct found {
    const struct sandbox_id *id;
    struct life_info info;
    int n;
    int matches;
};
void find_each(void *ctx, const struct life_info *info);
struct found look(struct fixture *f, const struct sandbox_id *id);
bool has_folder(struct fixture *f, const struct sandbox_id *id);
/* Whether `name` is in the folder of the sandbox. */
bool has_file(struct fixture *f, const struct sandbox_id *id, const char *name);
/* Entries of a folder of the data folder. */
int count_files(struct fixture *f, const char *folder);
/* No sandbox, nothing of one on the host, no generation and no blob. */
void assert_nothing_left(struct fixture *f, const struct sandbox_id *id);
void assert_state(
    struct fixture *f, const struct sandbox_id *id, enum sandbox_status, enum sandbox_reason);

#endif
