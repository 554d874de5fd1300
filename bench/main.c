/* SPDX-License-Identifier: Apache-2.0 */
/* Runs all benchmarks against a Torpor of its own. Needs root, and what `make test-data` makes. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

enum { CREATE_RUNS = 15, EXEC_RUNS = 300 };

int main(void)
{
    static struct stack stack;
    const char *why = stack_unavailable();
    if (why) {
        (void)fprintf(stderr, "bench: %s\n", why);
        return 1;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    stack_start(&stack);
    bench_guest(&stack);
    bench_exec(&stack, EXEC_RUNS);
    bench_forks(&stack);
    bench_many(&stack);
    bench_create(&stack, CREATE_RUNS);
    bench_recover(&stack);
    stack_stop(&stack);
    return 0;
}
