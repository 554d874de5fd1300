/* SPDX-License-Identifier: Apache-2.0 */
/* What memory_test.c says to the program that stands for a VMM. Each order is answered by a u64. */
#ifndef TORPOR_TESTS_MEMORY_GUEST_H
#define TORPOR_TESTS_MEMORY_GUEST_H

#include <stdint.h>

enum { GUEST_PAGES = 4096 };

enum { ORDER_FILL, ORDER_COMPARE /* GUEST_PAGES values follow; the answer is how many differ */ };

struct order {
    uint64_t what;
    uint64_t page;
    uint64_t n;
    uint8_t value; /* 0: zeros */
    uint8_t pad[7];
};

#endif
