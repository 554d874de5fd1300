/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane: where it listens, when it has to be restarted, and the env file. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "cli/settings.h"
#include "cli/up.h"

enum { PROBE_MS = 2000, LISTEN_MAX = 300 };

/* Host and port of the last time; false when there was none. */
static bool kept_listen(struct host_run *r, char dst[LISTEN_MAX])
{
    AUTO_BUF struct buf text = BUF_INIT(4096);
    struct err none = {0};
    static const char prefix[] = "TORPOR_URL=http://";
    const char *p;
    size_t n = sizeof prefix - 1;
    if (io_read_file(r->home.fd, "env", &text, &none) < 0 || !text.p)
        return false;
    p = strstr(text.p, prefix);
    return p && slice_copy_cstr(slice_of(p + n, strcspn(p + n, "\n")), dst, LISTEN_MAX);
}

/* True when somebody serves at host:port. */
static bool is_taken(const char *listen)
{
    char url[LISTEN_MAX + 16];
    struct settings s = {.port = 0};
    struct err none = {0};
    int fd;
    (void)snprintf(url, sizeof url, "http://%s", listen);
    if (settings_parse_url(url, &s, &none) < 0)
        return false;
    fd = sock_connect_tcp(s.host, s.port, deadline_in_ms(PROBE_MS), &none);
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static int control_failed(struct host_run *r, const char *listen, struct err *e)
{
    daemon_show_log(r, "control");
    if (listen && is_taken(listen))
        return err_wrap(e, "TORPOR_LISTEN=%s is taken by another program", listen);
    return err_wrap(e, "torpor-agent runs (torpor down stops it)");
}

static int start_control(struct host_run *r, struct err *e)
{
    const char *listen = getenv("TORPOR_LISTEN");
    char kept[LISTEN_MAX];
    bool has_kept = kept_listen(r, kept);
    if (listen && !listen[0])
        listen = NULL;
    host_say(r, "starting torpor-control as %s", r->user);
    if (!listen && has_kept && is_taken(kept)) {
        host_say(r, "%s is taken by another program: using another port", kept);
        has_kept = false;
    }
    if (daemon_start_control(r, listen ? listen : has_kept ? kept : "127.0.0.1:0", e) == 0)
        return 0;
    return control_failed(r, listen, e);
}

/* Why a control plane that runs has to be restarted; NULL: it has not. */
static const char *control_outdated(struct host_run *r, const struct note *control)
{
    char socket[HOME_WORDS_MAX] = "";
    char given[HOME_WORDS_MAX] = "";
    char url[LISTEN_MAX + 16];
    const char *listen = getenv("TORPOR_LISTEN");
    size_t n = listen ? strlen(listen) : 0;
    struct note agent;
    if (home_noted(&r->home, "agent", &agent) &&
        note_word(&agent, "socket", socket, sizeof socket) &&
        note_word(control, "agent_socket", given, sizeof given) && strcmp(socket, given) != 0)
        return "the agent has another socket";
    (void)snprintf(url, sizeof url, "http://%s", listen ? listen : "");
    /* Port 0 is whatever it has. */
    if (n > 2 && strcmp(listen + n - 2, ":0") != 0 && strcmp(url, r->url) != 0)
        return "TORPOR_LISTEN is another one";
    return NULL;
}

int up_control(struct host_run *r, struct err *e)
{
    struct note note;
    enum daemon_end end;
    const char *why;
    if (!daemon_is_up(r, "control", &note) || !note_word(&note, "url", r->url, sizeof r->url))
        return start_control(r, e);
    why = control_outdated(r, &note);
    if (!why) {
        host_say(r, "torpor-control is running (pid %d)", (int)note.id.pid);
        return 0;
    }
    host_say(r, "restarting torpor-control: %s", why);
    return daemon_stop(r, "control", &end, e) < 0 ? -1 : start_control(r, e);
}

int up_env(struct host_run *r, struct err *e)
{
    char path[PATH_MAX];
    char text[1024];
    AUTO_BUF struct buf key = BUF_INIT(sizeof r->key - 1);
    int n;
    (void)snprintf(path, sizeof path, "%s/control/api-key", r->home.data);
    if (io_read_file(AT_FDCWD, path, &key, e) < 0)
        return err_wrap(e, "torpor-control left no API key");
    (void)snprintf(r->key, sizeof r->key, "%.*s", (int)strcspn(key.p ? key.p : "", "\n"), key.p);
    n = snprintf(text, sizeof text, "TORPOR_URL=%s\nTORPOR_API_KEY=%s\n", r->url, r->key);
    return io_replace_file(r->home.fd, "env", text, (size_t)n, 0600, e);
}
