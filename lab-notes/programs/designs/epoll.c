/* epoll.c - as poll.c, but the kernel keeps the list of sockets (Linux). */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS 64 /* that one epoll_wait() brings at most */

/* Tells the kernel what to look for. EPOLLIN and EPOLLOUT are the numbers of
 * POLLIN and POLLOUT. The kernel hands the pointer back with each event. */
static bool ask(int kernel, int operation, int socket, short events, void *talk)
{
    struct epoll_event event = {.events = (uint32_t)events, .data.ptr = talk};

    return epoll_ctl(kernel, operation, socket, &event) == 0;
}

/* Accepts who waits. Returns false if there are no descriptors or no memory:
 * then it would fail again at once. */
static bool accept_clients(int kernel, int listening)
{
    struct talk *talk;

    while ((talk = begin_talk(listening)) != NULL)
        if (!ask(kernel, EPOLL_CTL_ADD, talk->socket, POLLIN, talk))
            end_talk(talk);
    if (errno == EAGAIN || errno == ECONNABORTED)
        return true; /* nobody waits any more */
    perror("Fail to connect, accept");
    return false;
}

/* A system call only when what we wait for has changed: seldom. close() takes
 * the socket off the kernel's list. */
static void go_on(int kernel, struct talk *talk)
{
    short before = wanted(talk);

    if (!take_step(talk))
        end_talk(talk);
    else if (wanted(talk) != before)
        ask(kernel, EPOLL_CTL_MOD, talk->socket, wanted(talk), talk);
}

/* Ends, once a second, the conversations of those who do not hang up. */
static void end_late_ones(void)
{
    static time_t last;
    time_t now = time(NULL);

    if (now == last)
        return;
    last = now;
    for (size_t place = talking; place-- > 0;)
        if (is_late(talks[place]))
            end_talk(talks[place]);
}

int main(int argc, char **argv)
{
    int listening = start(argc, argv);
    int kernel = epoll_create1(0);
    bool accepting = true;

    fcntl(listening, F_SETFL, O_NONBLOCK);
    if (kernel < 0 || !ask(kernel, EPOLL_CTL_ADD, listening, POLLIN, NULL)) {
        perror("Fail to start server, epoll");
        return EXIT_FAILURE;
    }
    while (!stopping) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(kernel, events, EVENTS,
                               leaving > 0 || !accepting ? 100 : -1);

        if (!accepting) /* try again */
            accepting = ask(kernel, EPOLL_CTL_MOD, listening, POLLIN, NULL);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != NULL)
                go_on(kernel, events[i].data.ptr);
            else
                accepting = accept_clients(kernel, listening);
        }
        if (!accepting) /* a client in the backlog would end each wait at once
                         */
            ask(kernel, EPOLL_CTL_MOD, listening, 0, NULL);
        if (leaving > 0)
            end_late_ones();
    }
    end_all();
    return EXIT_SUCCESS;
}
