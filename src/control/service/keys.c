/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys: "tpr_" and 40 lower-case hex digits. The same digits behind "e2b_" are the same key,
 * because E2B's SDKs insist on that prefix. Only the SHA-256 of the "tpr_" form is stored.
 */
#include "control/service/service_int.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/rand.h"

#define KEY_PREFIX "tpr_"
#define KEY_PREFIX_E2B "e2b_"
enum {
    KEY_PREFIX_LEN = 4,
    KEY_RANDOM_BYTES = 20,
    KEY_TEXT_LEN = KEY_PREFIX_LEN + 2 * KEY_RANDOM_BYTES,
    KEY_SHOWN_LEN = KEY_PREFIX_LEN + 6,
};
static_assert((int)KEY_TEXT_LEN == (int)KEY_TEXT_MAX, "as the header says");
static_assert((int)KEY_SHOWN_LEN <= (int)KEY_PREFIX_MAX, "the shown part fits its column");

/* False when `key` has not the form of one. */
static bool key_normalize(struct slice key, char ret[KEY_TEXT_LEN + 1])
{
    if (key.n != KEY_TEXT_LEN || (memcmp(key.p, KEY_PREFIX, KEY_PREFIX_LEN) != 0 &&
                                     memcmp(key.p, KEY_PREFIX_E2B, KEY_PREFIX_LEN) != 0))
        return false;
    for (size_t i = KEY_PREFIX_LEN; i < KEY_TEXT_LEN; i++)
        if (!((key.p[i] >= '0' && key.p[i] <= '9') || (key.p[i] >= 'a' && key.p[i] <= 'f')))
            return false;
    memcpy(ret, KEY_PREFIX, KEY_PREFIX_LEN);
    memcpy(ret + KEY_PREFIX_LEN, key.p + KEY_PREFIX_LEN, KEY_TEXT_LEN - KEY_PREFIX_LEN);
    ret[KEY_TEXT_LEN] = '\0';
    return true;
}

static int key_hash(const char *text, char ret_hex[KEY_HASH_HEX + 1], struct err *e)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len;
    if (EVP_Digest(text, strlen(text), md, &len, EVP_sha256(), NULL) != 1 ||
        2 * len != KEY_HASH_HEX)
        return err_set(e, ERR_INTERNAL, "SHA-256 does not work");
    hex_encode(md, len, ret_hex);
    return 0;
}

int key_new(const struct team_id *team, const char *name, struct key_row *ret,
    char ret_text[KEY_TEXT_MAX + 1], struct err *e)
{
    unsigned char random[KEY_RANDOM_BYTES];
    struct key_row key = {.team = *team, .created_at_ms = clock_real_ms()};
    rand_bytes(random, sizeof random);
    memcpy(ret_text, KEY_PREFIX, KEY_PREFIX_LEN);
    hex_encode(random, sizeof random, ret_text + KEY_PREFIX_LEN);
    explicit_bzero(random, sizeof random);
    key_id_new(&key.id);
    (void)snprintf(key.name, sizeof key.name, "%s", name);
    (void)snprintf(key.prefix, sizeof key.prefix, "%.*s", KEY_SHOWN_LEN, ret_text);
    if (key_hash(ret_text, key.hash_hex, e) < 0)
        return -1;
    *ret = key;
    return 0;
}

int service_authenticate(struct service *s, struct slice key, struct principal *ret, struct err *e)
{
    char text[KEY_TEXT_LEN + 1];
    char hash[KEY_HASH_HEX + 1];
    struct key_owner owner;
    if (!key_normalize(key, text))
        return err_set(e, ERR_UNAUTHORIZED, "no valid API key");
    if (key_hash(text, hash, e) < 0)
        return -1;
    if (s->store->ops->key_find(s->store, hash, &owner, e) < 0)
        return e->kind == ERR_NOT_FOUND ? err_set(e, ERR_UNAUTHORIZED, "no valid API key") : -1;
    activity_note(&s->activity, owner.key.text, clock_real_ms());
    *ret = (struct principal){.team = owner.team, .key = owner.key};
    return 0;
}

int service_bootstrap(struct store *store, int dirfd, struct err *e)
{
    char text[KEY_TEXT_MAX + 2];
    struct team_row team = {.name = "default", .created_at_ms = clock_real_ms()};
    struct key_row key;
    bool any;
    if (store->ops->team_exists_any(store, &any, e) < 0)
        return -1;
    if (any)
        return 0;
    team_id_new(&team.id);
    if (key_new(&team.id, "default", &key, text, e) < 0)
        return -1;
    /* The file first: a crash in between leaves a key that is nobody's, and the next start another
     * one; the other way round would leave a key that nobody can know. */
    text[KEY_TEXT_LEN] = '\n';
    if (io_replace_file(dirfd, "api-key", text, KEY_TEXT_LEN + 1, 0600, e) < 0)
        return -1;
    return store->ops->team_create(store, &team, &key, e);
}
