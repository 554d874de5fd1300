/* SPDX-License-Identifier: Apache-2.0 */
/* Connect envelopes: five bytes of head, and what we write comes back. */
#include <assert.h>
#include <stdint.h>

#include "rpc/wire_int.h"

enum { TEXT_BYTES_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_BUF struct buf out = BUF_INIT(TEXT_BYTES_MAX);
    size_t at = 0;
    while (size - at >= RPC_ENVELOPE_BYTES) {
        struct rpc_envelope head = rpc_envelope_parse(data + at);
        size_t have = size - at - RPC_ENVELOPE_BYTES;
        size_t start;
        struct err e = {0};
        if (head.length > have)
            break; /* more to come, or never */
        start = rpc_envelope_begin(&out, head.flags);
        buf_append(&out, data + at + RPC_ENVELOPE_BYTES, head.length);
        assert(rpc_envelope_end(&out, start, &e) == 0);
        at += RPC_ENVELOPE_BYTES + head.length;
    }
    assert(out.len == at && (at == 0 || memcmp(out.p, data, at) == 0));
    return 0;
}
