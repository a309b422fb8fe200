/* poll.c - one thread for all clients: poll() says whose socket is ready. */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* What we ask poll(): at [0] about the listening socket, at [1 + place] about
 * the conversation at that place. */
static struct pollfd *questions;
static size_t room; /* for so many questions */

/* Makes room for one more client. Returns false if there is no memory. */
static bool make_room(void)
{
    size_t more = 2 * (talking + 2);
    struct pollfd *larger;

    if (talking + 2 <= room)
        return true;
    larger = realloc(questions, more * sizeof *questions);
    if (larger == NULL)
        return false;
    questions = larger;
    room = more;
    return true;
}

/* Accepts who waits. Returns false if there are no descriptors or no memory:
 * then it would fail again at once. */
static bool accept_clients(int listening)
{
    while (make_room()) {
        const struct talk *talk = begin_talk(listening);

        if (talk == NULL && (errno == EAGAIN || errno == ECONNABORTED))
            return true; /* nobody waits any more */
        if (talk == NULL)
            break;
        questions[talking] =
            (struct pollfd){.fd = talk->socket, .events = POLLIN};
    }
    perror("Fail to connect, accept");
    return false;
}

/* The last first: when a conversation ends, the last one moves to its place,
 * and has had its turn then. */
static void go_on(void)
{
    for (size_t place = talking; place-- > 0;) {
        struct talk *talk = talks[place];
        struct pollfd *question = &questions[1 + place];

        if (question->revents == 0 && (leaving == 0 || !is_late(talk)))
            continue;
        if (take_step(talk)) {
            question->events = wanted(talk);
        } else {
            end_talk(talk);
            *question = questions[1 + talking];
        }
    }
}

int main(int argc, char **argv)
{
    int listening = start(argc, argv);
    bool accepting = true;

    fcntl(listening, F_SETFL, O_NONBLOCK);
    if (!make_room()) {
        perror("Fail to start server");
        return EXIT_FAILURE;
    }
    while (!stopping) {
        /* Who can't accept must not ask: a client in the backlog would end
         * each poll() at once. */
        questions[0] =
            (struct pollfd){.fd = accepting ? listening : -1, .events = POLLIN};
        if (poll(questions, 1 + talking, leaving > 0 || !accepting ? 100 : -1) <
            0)
            continue; /* EINTR */
        go_on();
        accepting = questions[0].revents == 0 || accept_clients(listening);
    }
    end_all();
    free(questions);
    return EXIT_SUCCESS;
}
