/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from options. */
#include "cli/body.h"

void body_write_text(struct json_writer *w, const char *field, const char *value)
{
    if (!value)
        return;
    json_key(w, field);
    json_cstr(w, value);
}

/* True when a later pair of the option has the same key. */
static bool is_overridden(const struct args *a, const char *option, size_t at, struct slice key)
{
    const char *text;
    while ((text = args_next(a, option, &at)))
        if (strncmp(text, key.p, key.n) == 0 && text[key.n] == '=')
            return true;
    return false;
}

int body_write_pairs(struct cli *c, const struct args *a, const char *option, const char *field,
    struct json_writer *w, struct err *e)
{
    struct slice key, value;
    const char *text;
    size_t at = 0;
    if (!args_flag(a, option))
        return 0;
    json_key(w, field);
    json_object_begin(w);
    while ((text = args_next(a, option, &at))) {
        if (args_pair(c, option, text, &key, &value, e) < 0)
            return -1;
        if (!utf8_valid(text, strlen(text)))
            return cli_usage_error(c, e, "--%s %.*s: not UTF-8", option, (int)key.n, key.p);
        if (is_overridden(a, option, at, key))
            continue;
        json_key_slice(w, key);
        json_string(w, value);
    }
    json_object_end(w);
    return 0;
}
