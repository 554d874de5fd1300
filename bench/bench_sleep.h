/* SPDX-License-Identifier: Apache-2.0 */
/* What the figures of sleeping and waking share. */
#ifndef TORPOR_BENCH_BENCH_SLEEP_H
#define TORPOR_BENCH_BENCH_SLEEP_H

#include "bench.h"

enum { SLEEP_MEMORY_MB = 512 }; /* of guests, unless said otherwise */

/* One call of the API, over a connection of its own. */
struct timed {
    int64_t us; /* from before the connect until the answer has been read */
    char id[32];
    char timing[512]; /* Server-Timing */
};
/* Ends the program, with the answer and the logs, unless it has the status that is expected. */
void timed_call(const struct stack *s, const char *method, const char *path, const char *body,
    struct timed *ret);
/* Calls with a body or none, of the sandbox or template of that name. */
void timed_create(const struct stack *s, const char *template, struct timed *ret);
void timed_pause(const struct stack *s, const char *id, struct timed *ret);
void timed_resume(const struct stack *s, const char *id, struct timed *ret);
int64_t timed_exec(const struct stack *s, const char *id, const char *body);
void snapshot(const struct stack *s, const char *id, const char *name, struct timed *ret);
void snapshot_delete(const struct stack *s, const char *name);

/* Phases of several calls, as Server-Timing says them. */
enum { PHASES_KEPT = 16 };
struct phase_samples {
    char names[PHASES_KEPT][24];
    struct samples samples[PHASES_KEPT];
    size_t n;
};
void phases_forget(struct phase_samples *p);
void phases_add(struct phase_samples *p, const char *timing);
/* Microseconds of the phases from the one named `first` to `last`. */
int64_t phases_sum(const char *timing, const char *first, const char *last);
/* Prints "phases of ours, p50 ms: open 0.3, ...", and forgets them. */
void phases_print(const char *whose, struct phase_samples *p);

/* Boots a sandbox, makes a template of it while it is idle, and destroys it. */
void template_make(const struct stack *s, const char *name);
/* Ends the agent and starts it again with the settings of `s` as they are now. */
void agent_again(struct stack *s);

/* Has the guest write 20 MiB into its memory. */
void write_memory(const struct stack *s, const char *id);
extern const char *const write_memory_argv[]; /* the same for a raw machine */

/* A number from the environment, or its default. */
size_t count_setting(const char *name, size_t value);
/* How often a comparison is made (TORPOR_BENCH_RUNS, else 15). */
size_t sleep_runs(void);

/* What lies below a folder. */
struct tree {
    size_t files;
    uint64_t bytes; /* as allocated */
};
void tree_measure(const char *path, struct tree *ret);
/* Names in a folder, and what has come there since. */
struct listing {
    char names[512][64];
    size_t n;
};
void listing_take(const char *path, struct listing *ret);
uint64_t listing_new_bytes(const char *path, const struct listing *before);
/* Number of entries of a folder that begin so. */
size_t entries_count(const char *path, const char *prefix);

/* Calls `each` for the runs of pages in that part of a process's memory that are anonymous, as are
 * those that were written in a private mapping. False where the kernel cannot tell (before 6.7). */
bool scan_written(pid_t pid, uint64_t start, uint64_t end,
    void (*each)(void *ctx, uint64_t start, uint64_t end), void *ctx);

/* Takes a file, or all files of a tree, out of the page cache. What is dirty or mapped stays. */
void cool_tree(const char *path);

/* The figures. The stack runs, nothing is in it. */
void figure_resume(struct stack *s);
void figure_create(struct stack *s);
void figure_uffd(struct stack *s);
void figure_pause(struct stack *s);
void figure_large(struct stack *s);
void figure_bytes(struct stack *s);
void figure_snapshot(struct stack *s);
void figure_spawns(struct stack *s);
void figure_private(struct stack *s);
void figure_cycles(struct stack *s);
void figure_paused(struct stack *s);

#endif
