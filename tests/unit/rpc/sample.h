/* SPDX-License-Identifier: Apache-2.0 */
/* A message with every type under every label, and what tests do with messages of any table. */
#ifndef TORPOR_TESTS_RPC_SAMPLE_H
#define TORPOR_TESTS_RPC_SAMPLE_H

#include "rpc/message.h"

enum { COLOR_NONE = 0, COLOR_RED = 1, COLOR_BLUE = -7 };

struct sample_inner {
    int32_t number;
    struct slice text;
    struct rpc_list labels; /* struct rpc_entry */
};
struct sample {
    bool flag;
    int32_t int32;
    int32_t sint32;
    int64_t int64;
    uint32_t uint32;
    uint64_t uint64;
    double real;
    struct slice text;
    struct slice bytes;
    int32_t color;
    struct sample_inner *inner;
    bool opt_flag, has_opt_flag;
    int32_t opt_int32;
    bool has_opt_int32;
    uint64_t opt_uint64;
    bool has_opt_uint64;
    double opt_real;
    bool has_opt_real;
    struct slice opt_text;
    bool has_opt_text;
    struct slice opt_bytes;
    bool has_opt_bytes;
    int32_t opt_color;
    bool has_opt_color;
    int32_t one_int32;
    struct slice one_text;
    struct sample_inner *one_inner;
    bool has_one_int32, has_one_text, has_one_inner; /* oneof 0 */
    bool two_flag;
    struct slice two_bytes;
    bool has_two_flag, has_two_bytes; /* oneof 1 */
    struct rpc_list flags, int32s, sint32s, int64s, uint32s, uint64s, reals, texts, blobs, colors,
        inners;
    struct rpc_list map;
    struct sample *self;
};
extern const struct rpc_message sample_message, sample_inner_message;

/* Fills about half of the fields with values that follow from the seed; the memory is the arena's.
 * Ends the program when the arena is full. */
void message_fill(const struct rpc_message *m, void *msg, struct arena *a, unsigned *seed);
/* Equality of all fields; absent strings and empty ones are the same. */
bool message_eq(const struct rpc_message *m, const void *a, const void *b);

#endif
