/* epoll.c - as poll.c, but the kernel keeps the list of sockets (Linux). */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define EVENTS 64 /* that one epoll_wait() brings at most */

static short asked[SOCKETS]; /* what the kernel looks for, for each socket */

/* Tells the kernel what to look for. EPOLLIN and EPOLLOUT are the numbers of
 * POLLIN and POLLOUT. */
static bool ask(int kernel, int operation, int socket, short events)
{
    struct epoll_event event = {.events = (uint32_t)events, .data.fd = socket};

    asked[socket] = events;
    return epoll_ctl(kernel, operation, socket, &event) == 0;
}

/* Accepts who waits. Returns false if there are no descriptors or no memory:
 * then it would fail again at once. */
static bool accept_clients(int kernel, int listening)
{
    int socket;

    while ((socket = accept_client(listening)) >= 0)
        if (!ask(kernel, EPOLL_CTL_ADD, socket, POLLIN))
            end_client(socket);
    if (errno == EAGAIN || errno == ECONNABORTED)
        return true; /* nobody waits any more */
    perror("Fail to connect, accept");
    return false;
}

/* A system call only when what we wait for has changed: seldom. close() takes
 * a socket off the kernel's list. */
static void go_on(int kernel, int socket)
{
    short wanted = serve_client(socket);

    if (wanted != 0 && wanted != asked[socket])
        ask(kernel, EPOLL_CTL_MOD, socket, wanted);
}

int main(int argc, char **argv)
{
    int listening = start(argc, argv);
    int kernel = epoll_create1(0);
    bool accepting = true;

    fcntl(listening, F_SETFL, O_NONBLOCK);
    if (kernel < 0 || !ask(kernel, EPOLL_CTL_ADD, listening, POLLIN)) {
        perror("Fail to start server, epoll");
        return EXIT_FAILURE;
    }
    while (!stopping) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(kernel, events, EVENTS,
                               leaving > 0 || !accepting ? 100 : -1);

        if (!accepting) /* try again */
            accepting = ask(kernel, EPOLL_CTL_MOD, listening, POLLIN);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listening)
                go_on(kernel, events[i].data.fd);
            else
                accepting = accept_clients(kernel, listening);
        }
        if (!accepting) /* a client in the backlog would end each wait at once
                         */
            ask(kernel, EPOLL_CTL_MOD, listening, 0);
        end_late_ones();
    }
    end_all();
    return EXIT_SUCCESS;
}
