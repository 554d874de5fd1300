/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: character classes, received bytes, bodies, sending. */
#ifndef TORPOR_HTTP_INT_H
#define TORPOR_HTTP_INT_H

#include "http/parse.h"

/* tchar of RFC 9110 5.6.2. */
bool http_is_token_char(unsigned char c);
/* What may stand in a field value: HTAB, SP, VCHAR, obs-text. */
bool http_is_field_char(unsigned char c);
bool http_is_token(struct slice s);
bool http_is_field_value(struct slice s);

#endif
