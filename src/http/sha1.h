/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-1 (FIPS 180-4), for the WebSocket handshake only, where it protects nothing: the guest agent
 * has this library and no crypto library. */
#ifndef TORPOR_HTTP_SHA1_H
#define TORPOR_HTTP_SHA1_H

#include <stddef.h>
#include <stdint.h>

enum { SHA1_BYTES = 20 };

void sha1_digest(const void *p, size_t n, uint8_t ret[SHA1_BYTES]);

#endif
