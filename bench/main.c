/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the benchmarks: those of the libraries, then those of a Torpor of its own, which need root
 * and what `make test-data` makes.
 *
 * usage: torpor-bench [http | json | sandboxes]     that one only
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

int main(int argc, char **argv)
{
    static struct stack stack;
    const char *why = stack_unavailable();
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (chosen(argc, argv, "json"))
        bench_json();
    if (chosen(argc, argv, "http"))
        bench_http();
    if (!chosen(argc, argv, "sandboxes"))
        return 0;
    if (why) {
        (void)fprintf(stderr, "bench: %s\n", why);
        return 1;
    }
    stack_start(&stack);
    bench_guest(&stack);
    bench_exec(&stack, EXEC_RUNS);
    bench_forks(&stack);
    bench_many(&stack);
    bench_create(&stack, CREATE_RUNS);
    bench_recover(&stack);
    stack_stop(&stack);
    bench_shims();
    return 0;
}
