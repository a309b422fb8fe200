/* poll.c - one thread for all clients: poll() says whose socket is ready. */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* What we ask poll(), about each socket at the place of its number. It passes
 * over those whose fd is negative. */
static struct pollfd questions[SOCKETS];
static int highest; /* socket that we have asked about */

static void ask(int socket, short events)
{
    questions[socket].fd = events != 0 ? socket : -1;
    questions[socket].events = events;
    if (socket > highest)
        highest = socket;
}

/* Accepts who waits. Returns false if there are no descriptors or no memory:
 * then it would fail again at once. */
static bool accept_clients(int listening)
{
    int socket;

    while ((socket = accept_client(listening)) >= 0)
        ask(socket, POLLIN);
    if (errno == EAGAIN || errno == ECONNABORTED)
        return true; /* nobody waits any more */
    perror("Fail to connect, accept");
    return false;
}

int main(int argc, char **argv)
{
    int listening = start(argc, argv);
    bool accepting = true;

    fcntl(listening, F_SETFL, O_NONBLOCK);
    while (!stopping) {
        /* Who can't accept must not ask: a client in the backlog would end
         * each poll() at once. */
        ask(listening, accepting ? POLLIN : 0);
        /* Clients' sockets have higher numbers than the listening one. */
        if (poll(&questions[listening], (nfds_t)(highest - listening) + 1,
                 leaving > 0 || !accepting ? 100 : -1) < 0)
            continue; /* EINTR */
        /* Also who was late has an answer here: POLLNVAL, no such socket. */
        for (int socket = listening + 1; socket <= highest; socket++)
            if (questions[socket].fd >= 0 && questions[socket].revents != 0)
                ask(socket, serve_client(socket));
        end_late_ones();
        accepting =
            questions[listening].revents == 0 || accept_clients(listening);
    }
    end_all();
    return EXIT_SUCCESS;
}
