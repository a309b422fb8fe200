/* fork.c - a process for each client. */
#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* SIGCHLD: a child that has ended is a zombie until its parent has waited for
 * it. Signals do not queue, so one may stand for several children: hence the
 * loop. */
static void on_child(int number)
{
    int saved = errno;

    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = saved;
}

/* The child has a copy of all our memory and descriptors. _exit(), because
 * exit() would write what is in the copy of our stdio buffers once more. */
static _Noreturn void serve(int listening, int client)
{
    close(listening);
    converse(client, &terms);
    close(client);
    _exit(EXIT_SUCCESS);
}

/* Ctrl-C reaches the children, too: a terminal sends SIGINT to the whole
 * foreground process group. `kill PID` reaches the parent alone. Then it waits
 * for the conversations to end by themselves. */
int main(int argc, char **argv)
{
    const struct sigaction child = {.sa_handler = on_child,
                                    .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    int listening = start(argc, argv);

    sigaction(SIGCHLD, &child, NULL);
    while (!stopping) {
        int client = accept(listening, NULL, NULL);
        pid_t process;

        if (client < 0) {
            accept_failed();
            continue;
        }
        process = fork();
        if (process == 0)
            serve(listening, client);
        else if (process < 0)
            refuse(client, "No process for you\n");
        /* The child's copy keeps the connection open. If we kept ours, the
         * client would never see the end of file. */
        close(client);
    }
    close(listening);
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return EXIT_SUCCESS;
}
