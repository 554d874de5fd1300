/* SPDX-License-Identifier: Apache-2.0 */
/* torpor: the command line for people, on a host and against one. */
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

enum { WIDTH_DEFAULT = 100 };

static int terminal_width(void)
{
    struct winsize w;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col;
    return WIDTH_DEFAULT;
}

int main(int argc, char **argv)
{
    struct cli c = {
        .out = stdout,
        .err = stderr,
        .in_fd = STDIN_FILENO,
        .in_is_tty = isatty(STDIN_FILENO) == 1,
        .out_is_tty = isatty(STDOUT_FILENO) == 1,
        .err_is_tty = isatty(STDERR_FILENO) == 1,
        .width = terminal_width(),
    };
    /* A reader that left (torpor ls | head) is an error of writing, not a silent death. */
    (void)signal(SIGPIPE, SIG_IGN);
    return cli_run(&c, argc, argv);
}
