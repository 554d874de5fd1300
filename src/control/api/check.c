/* SPDX-License-Identifier: Apache-2.0 */
/* What strings of a request may be. JSON and UTF-8 were checked before. */
#include "control/api/api_int.h"

enum { USER_MAX = 32 }; /* useradd's own limit */

const char template_pattern[] = "^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$";
const char user_pattern[] = "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,31}$";
const char path_allowed[] = "1 to 4095 bytes, no NUL";

static bool has_nul(struct slice s)
{
    return s.n > 0 && memchr(s.p, '\0', s.n) != NULL;
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

bool check_path(struct slice s)
{
    return s.n > 0 && s.n <= LIMIT_PATH_MAX && !has_nul(s);
}

static bool is_user_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')
        return true;
    return !first && (c == '.' || c == '-');
}

bool check_user(struct slice s)
{
    if (s.n > USER_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_user_char(s.p[i], i == 0))
            return false;
    return true;
}

bool check_metadata_key(struct slice s)
{
    return s.n > 0 && s.n <= LIMIT_METADATA_KEY_MAX && !has_control(s);
}

bool check_metadata_value(struct slice s)
{
    return s.n <= LIMIT_METADATA_VALUE_MAX && !has_nul(s);
}

bool check_env_name(struct slice s)
{
    return s.n > 0 && s.n <= LIMIT_ENV_KEY_MAX && !has_control(s) && !memchr(s.p, '=', s.n);
}

bool check_env_value(struct slice s)
{
    return s.n <= LIMIT_ENV_VALUE_MAX && !has_nul(s);
}
