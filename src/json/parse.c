/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON parser: a recursive descent over bounded bytes that builds the tree in an arena.
 *
 * Theory of operation. The text is hostile. Depth is bounded (JSON_DEPTH_MAX), so the recursion is;
 * memory is bounded by the arena (a value costs up to 64 bytes for 2 bytes of text, so the arena's
 * bound and not the text's length is what counts). Time is linear in the text but for the search
 * for duplicate keys, which sorts the keys of a large object: n log n, whatever the keys are. No
 * hash table, hence no hash to attack. Nothing is repaired: what RFC 8259 does not allow is
 * refused.
 */
#include "json/json.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    NUMBER_CHARS_MAX = 512, /* a double written out in full without exponent has 325 digits */
    PAIRWISE_KEYS_MAX = 16  /* up to here comparing all pairs is cheaper than sorting */
};

struct parser {
    const char *begin;
    const char *at;
    const char *end;
    struct arena *arena;
    struct err *e;
    unsigned depth;
};

static int parse_value(struct parser *p, struct json_value *v);

static int refuse(struct parser *p, const char *why)
{
    return err_set(p->e, ERR_INVALID, "JSON: %s at byte %zu", why, (size_t)(p->at - p->begin));
}

static int out_of_arena(struct parser *p)
{
    return err_set(
        p->e, ERR_TOO_LARGE, "JSON: more values than fit at byte %zu", (size_t)(p->at - p->begin));
}

static void skip_blanks(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

/* Skips blanks; true when `c` follows, which is then consumed. */
static bool take(struct parser *p, char c)
{
    skip_blanks(p);
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The four hex digits at `p->at`; -1 when they are not there. */
static int take_hex4(struct parser *p)
{
    int unit = 0;
    if (p->end - p->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = hex_value(p->at[i]);
        if (d < 0)
            return -1;
        unit = unit << 4 | d;
    }
    p->at += 4;
    return unit;
}

static char *put_utf8(char *dst, uint32_t c)
{
    if (c < 0x80) {
        *dst++ = (char)c;
    } else if (c < 0x800) {
        *dst++ = (char)(0xc0 | c >> 6);
        *dst++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *dst++ = (char)(0xe0 | c >> 12);
        *dst++ = (char)(0x80 | (c >> 6 & 0x3f));
        *dst++ = (char)(0x80 | (c & 0x3f));
    } else {
        *dst++ = (char)(0xf0 | c >> 18);
        *dst++ = (char)(0x80 | (c >> 12 & 0x3f));
        *dst++ = (char)(0x80 | (c >> 6 & 0x3f));
        *dst++ = (char)(0x80 | (c & 0x3f));
    }
    return dst;
}

/* Behind "\u": one code point, from one unit or a surrogate pair. Moves *dst. */
static int take_unicode(struct parser *p, char **dst)
{
    int unit = take_hex4(p);
    int low;
    if (unit < 0)
        return refuse(p, "four hex digits expected");
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return refuse(p, "lone surrogate");
    if (unit < 0xd800 || unit > 0xdfff) {
        *dst = put_utf8(*dst, (uint32_t)unit);
        return 0;
    }
    if (p->end - p->at < 2 || p->at[0] != '\\' || p->at[1] != 'u')
        return refuse(p, "lone surrogate");
    p->at += 2;
    low = take_hex4(p);
    if (low < 0xdc00 || low > 0xdfff)
        return refuse(p, "lone surrogate");
    *dst = put_utf8(*dst, 0x10000u + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
    return 0;
}

/* Behind a backslash. Moves *dst. */
static int take_escape(struct parser *p, char **dst)
{
    static const char names[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    const char *found;
    char c = *p->at;
    if (c == 'u') {
        p->at++;
        return take_unicode(p, dst);
    }
    found = c ? strchr(names, c) : NULL;
    if (!found)
        return refuse(p, "unknown escape");
    p->at++;
    *(*dst)++ = meant[found - names];
    return 0;
}

/* The quote that ends the string which begins at `p->at`; NULL when there is none. */
static const char *find_quote(const struct parser *p)
{
    const char *q = p->at;
    while (q < p->end && *q != '"') {
        if (*q == '\\' && q + 1 < p->end)
            q++;
        q++;
    }
    return q < p->end ? q : NULL;
}

/* The opening quote is consumed; decodes up to the closing one. */
static int parse_string_rest(struct parser *p, struct slice *ret)
{
    const char *quote = find_quote(p);
    const char *start = p->at;
    char *text;
    char *dst;
    if (!quote)
        return refuse(p, "unterminated string");
    text = dst = arena_alloc(p->arena, (size_t)(quote - p->at) + 1);
    if (!text)
        return out_of_arena(p);
    while (p->at < quote) {
        char c = *p->at;
        if ((unsigned char)c < 0x20)
            return refuse(p, "control character in a string");
        p->at++;
        if (c != '\\')
            *dst++ = c;
        else if (take_escape(p, &dst) < 0)
            return -1;
    }
    p->at = quote + 1;
    *ret = (struct slice){text, (size_t)(dst - text)};
    if (!utf8_valid(ret->p, ret->n)) {
        p->at = start;
        return refuse(p, "invalid UTF-8 in the string");
    }
    return 0;
}

static bool is_digit(const struct parser *p)
{
    return p->at < p->end && *p->at >= '0' && *p->at <= '9';
}

/* One or more digits. */
static bool take_digits(struct parser *p)
{
    if (!is_digit(p))
        return false;
    while (is_digit(p))
        p->at++;
    return true;
}

/* Walks over a number by RFC 8259's grammar. Stores whether it has a fraction or an exponent. */
static bool scan_number(struct parser *p, bool *ret_is_int)
{
    *ret_is_int = true;
    if (p->at < p->end && *p->at == '-')
        p->at++;
    if (p->at < p->end && *p->at == '0')
        p->at++;
    else if (!take_digits(p))
        return false;
    if (p->at < p->end && *p->at == '.') {
        *ret_is_int = false;
        p->at++;
        if (!take_digits(p))
            return false;
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        *ret_is_int = false;
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-'))
            p->at++;
        return take_digits(p);
    }
    return true;
}

/* strtoll and strtod want a NUL behind the text. Our programs never call setlocale, so the decimal
 * point is a point. */
static int parse_number(struct parser *p, struct json_value *v)
{
    char text[NUMBER_CHARS_MAX + 1];
    const char *start = p->at;
    size_t n;
    bool is_int;
    if (!scan_number(p, &is_int))
        return refuse(p, "malformed number");
    n = (size_t)(p->at - start);
    if (n > NUMBER_CHARS_MAX)
        return refuse(p, "number too long");
    memcpy(text, start, n);
    text[n] = '\0';
    if (is_int) {
        errno = 0;
        v->type = JSON_INT;
        v->integer = strtoll(text, NULL, 10);
        return errno == ERANGE ? refuse(p, "integer out of range") : 0;
    }
    v->type = JSON_DOUBLE;
    v->number = strtod(text, NULL);
    return isfinite(v->number) ? 0 : refuse(p, "number out of range");
}

static int compare_keys(const void *a, const void *b)
{
    const struct slice *x = &(*(const struct json_value *const *)a)->key;
    const struct slice *y = &(*(const struct json_value *const *)b)->key;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return memcmp(x->p, y->p, x->n);
}

static bool few_keys_repeat(const struct json_value *v)
{
    for (const struct json_value *m = v->first; m; m = m->next)
        for (const struct json_value *o = m->next; o; o = o->next)
            if (slice_eq(m->key, o->key))
                return true;
    return false;
}

/* Sets *ret when two members of the object have the same key. */
static int check_keys(struct parser *p, const struct json_value *v, bool *ret)
{
    const struct json_value **sorted;
    size_t n = 0;
    *ret = false;
    if (v->count <= PAIRWISE_KEYS_MAX) {
        *ret = few_keys_repeat(v);
        return 0;
    }
    sorted = calloc(v->count, sizeof *sorted);
    if (!sorted)
        return err_set(p->e, ERR_NOMEM, "JSON: no memory for %zu keys", v->count);
    for (const struct json_value *m = v->first; m; m = m->next)
        sorted[n++] = m;
    assert(n == v->count);
    qsort(sorted, n, sizeof *sorted, compare_keys);
    for (size_t i = 1; i < n && !*ret; i++)
        *ret = slice_eq(sorted[i - 1]->key, sorted[i]->key);
    free(sorted);
    return 0;
}

/* A new child behind *tail, which is moved. */
static struct json_value *append_child(
    struct parser *p, struct json_value *v, struct json_value ***tail)
{
    struct json_value *child = arena_alloc(p->arena, sizeof *child);
    if (!child)
        return NULL;
    **tail = child;
    *tail = &child->next;
    v->count++;
    return child;
}

static int parse_member(struct parser *p, struct json_value *member)
{
    struct slice key;
    if (!take(p, '"'))
        return refuse(p, "key expected");
    if (parse_string_rest(p, &key) < 0)
        return -1;
    if (!take(p, ':'))
        return refuse(p, "colon expected");
    if (parse_value(p, member) < 0)
        return -1;
    member->key = key;
    return 0;
}

/* The opening bracket is consumed. */
static int parse_children(struct parser *p, struct json_value *v, char close)
{
    struct json_value **tail = &v->first;
    v->first = NULL;
    if (take(p, close))
        return 0;
    do {
        struct json_value *child = append_child(p, v, &tail);
        if (!child)
            return out_of_arena(p);
        if ((v->type == JSON_OBJECT ? parse_member(p, child) : parse_value(p, child)) < 0)
            return -1;
    } while (take(p, ','));
    return take(p, close) ? 0 : refuse(p, "comma or closing bracket expected");
}

static int parse_container(struct parser *p, struct json_value *v)
{
    bool repeats = false;
    char open = *p->at;
    if (p->depth == JSON_DEPTH_MAX)
        return refuse(p, "nested too deeply");
    p->at++;
    p->depth++;
    v->type = open == '{' ? JSON_OBJECT : JSON_ARRAY;
    if (parse_children(p, v, open == '{' ? '}' : ']') < 0)
        return -1;
    p->depth--;
    if (v->type == JSON_OBJECT && check_keys(p, v, &repeats) < 0)
        return -1;
    return repeats ? refuse(p, "an object with a repeated key ends") : 0;
}

static int parse_word(struct parser *p, struct json_value *v)
{
    static const struct {
        struct slice word;
        enum json_type type;
        bool boolean;
    } words[] = {
        {{"null", 4}, JSON_NULL, false},
        {{"true", 4}, JSON_BOOL, true},
        {{"false", 5}, JSON_BOOL, false},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct slice w = words[i].word;
        if ((size_t)(p->end - p->at) < w.n || memcmp(p->at, w.p, w.n) != 0)
            continue;
        p->at += w.n;
        v->type = words[i].type;
        v->boolean = words[i].boolean;
        return 0;
    }
    return refuse(p, "value expected");
}

static int parse_value(struct parser *p, struct json_value *v)
{
    skip_blanks(p);
    if (p->at == p->end)
        return refuse(p, "unexpected end");
    switch (*p->at) {
    case '{':
    case '[':
        return parse_container(p, v);
    case '"':
        p->at++;
        v->type = JSON_STRING;
        return parse_string_rest(p, &v->string);
    case '-':
    case '0' ... '9':
        return parse_number(p, v);
    default:
        return parse_word(p, v);
    }
}

int json_parse(struct slice text, struct arena *a, const struct json_value **ret, struct err *e)
{
    struct parser p = {.begin = text.p, .at = text.p, .end = text.p + text.n, .arena = a, .e = e};
    struct json_value *root;
    if (text.n == 0)
        return err_set(e, ERR_INVALID, "JSON: the text is empty");
    root = arena_alloc(a, sizeof *root);
    if (!root)
        return out_of_arena(&p);
    if (parse_value(&p, root) < 0)
        return -1;
    skip_blanks(&p);
    if (p.at != p.end)
        return refuse(&p, "bytes behind the value");
    *ret = root;
    return 0;
}

const struct json_value *json_get(const struct json_value *v, const char *key)
{
    if (!v || v->type != JSON_OBJECT)
        return NULL;
    for (const struct json_value *m = v->first; m; m = m->next)
        if (slice_is(m->key, key))
            return m;
    return NULL;
}

bool json_get_int(
    const struct json_value *v, const char *key, int64_t min, int64_t max, int64_t *ret)
{
    const struct json_value *m = json_get(v, key);
    if (!m || m->type != JSON_INT || m->integer < min || m->integer > max)
        return false;
    *ret = m->integer;
    return true;
}

struct slice json_get_text(const struct json_value *v, const char *key)
{
    const struct json_value *m = json_get(v, key);
    return m && m->type == JSON_STRING ? m->string : (struct slice){0};
}
