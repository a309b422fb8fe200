/* prefork.c - a fixed number of processes, all in accept(). */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 8

/* All processes wait at the same socket. The kernel wakes one of them for each
 * client. A ninth client waits until one of the eight has left. */
static _Noreturn void serve(int listening)
{
    while (!stopping) {
        int client = accept(listening, NULL, NULL);

        if (client < 0) {
            accept_failed();
            continue;
        }
        converse(client, &terms);
        close(client);
    }
    _exit(EXIT_SUCCESS);
}

/* Returns the new process, or -1 if the system has none to give now. */
static pid_t fork_one(int listening)
{
    pid_t process = fork();

    if (process == 0)
        serve(listening);
    return process;
}

int main(int argc, char **argv)
{
    pid_t processes[PROCESSES], ended = -1;
    int listening = start(argc, argv);

    for (int i = 0; i < PROCESSES; i++)
        processes[i] = -1;
    /* The parent serves nobody. When a child crashes, it makes another. */
    while (!stopping) {
        for (int i = 0; i < PROCESSES; i++)
            if (processes[i] < 0 || processes[i] == ended)
                processes[i] = fork_one(listening);
        ended = wait(NULL);
        if (ended < 0 && errno != EINTR)
            poll(NULL, 0, 100); /* there was no process to be had */
    }
    close(listening);
    for (int i = 0; i < PROCESSES; i++)
        if (processes[i] > 0)
            kill(processes[i], SIGTERM);
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return EXIT_SUCCESS;
}
