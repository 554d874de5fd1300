/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of guests and of the internet; each call fails the running test when it does not work. */
#include "flow.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/sock.h"
#include "world.h"

struct sockaddr_in flow_address(const char *ip, uint16_t port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, ip, &sa.sin_addr), 1);
    return sa;
}

int machine_connect(const struct machine *m, const char *ip, uint16_t port, int ms)
{
    struct err e = {0};
    int home = machine_enter(m);
    int fd = sock_connect_tcp(ip, port, deadline_in_ms(ms), &e);
    world_leave(home);
    return fd;
}

int machine_udp(const struct machine *m, uint16_t port)
{
    const struct sockaddr_in sa = flow_address("0.0.0.0", port);
    int home = machine_enter(m);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
    world_leave(home);
    return fd;
}

void flow_say(int fd, const struct sockaddr_in *to, const char *text)
{
    assert_int_equal(
        sendto(fd, text, strlen(text), 0, (const struct sockaddr *)to, sizeof *to), strlen(text));
}

/* Receives a datagram that must be `text`; stores who sent it. */
void flow_hear(int fd, struct sockaddr_in *from, const char *text)
{
    char got[256] = {0};
    socklen_t len = sizeof *from;
    world_wait_readable(fd);
    assert_true(recvfrom(fd, got, sizeof got - 1, 0, (struct sockaddr *)from, &len) >= 0);
    assert_string_equal(got, text);
}

int flow_accept(int listener, char peer[INET_ADDRSTRLEN])
{
    struct sockaddr_in sa;
    socklen_t len = sizeof sa;
    world_wait_readable(listener);
    int fd = accept4(listener, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    (void)inet_ntop(AF_INET, &sa.sin_addr, peer, INET_ADDRSTRLEN);
    return fd;
}

/* Both ways, more than a window of it. */
void flow_assert_connected(int a, int b)
{
    struct err e = {0};
    static char out[40000];
    static char in[sizeof out];
    int64_t deadline = deadline_in_ms(WORLD_WAIT_MS);
    memset(out, 'x', sizeof out);
    for (int way = 0; way < 2; way++) {
        if (io_write_full(way ? b : a, out, sizeof out, deadline, &e) < 0 ||
            io_read_full(way ? a : b, in, sizeof in, deadline, &e) < 0)
            fail_msg("%s", e.msg);
        assert_memory_equal(in, out, sizeof in);
    }
}
