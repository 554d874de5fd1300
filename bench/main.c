/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the benchmarks: those of the libraries, then those of a Torpor of its own, which need root
 * and what `make test-data` makes.
 *
 * usage: torpor-bench [http | json | sandboxes | sleep | sleep-<figure>]     that one only
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { CREATE_RUNS = 15, EXEC_RUNS = 300 };

static bool chosen(int argc, char **argv, const char *name)
{
    return argc < 2 || strcmp(argv[1], name) == 0;
}

static void bench_sandboxes(struct stack *s)
{
    bench_guest(s);
    bench_exec(s, EXEC_RUNS);
    bench_forks(s);
    bench_many(s);
    bench_create(s, CREATE_RUNS);
}

int main(int argc, char **argv)
{
    static struct stack stack;
    const char *why = stack_unavailable();
    bool sandboxes = chosen(argc, argv, "sandboxes");
    bool sleep = argc < 2 || bench_sleep_has(argv[1]);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (chosen(argc, argv, "json"))
        bench_json();
    if (chosen(argc, argv, "http"))
        bench_http();
    if (!sandboxes && !sleep)
        return 0;
    if (why) {
        (void)fprintf(stderr, "bench: %s\n", why);
        return 1;
    }
    stack_start(&stack);
    if (sandboxes)
        bench_sandboxes(&stack);
    if (sleep)
        bench_sleep(&stack, argv[1]);
    if (sandboxes)
        bench_recover(&stack);
    stack_stop(&stack);
    if (sandboxes)
        bench_shims();
    return 0;
}
