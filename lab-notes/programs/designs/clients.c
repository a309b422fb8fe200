/* clients.c - who is connected, for a program with one thread. */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 2       /* seconds */
#define STOP_ROUNDS 1500 /* of at least a millisecond */

int leaving;
static struct talk *talks[SOCKETS]; /* each at its socket's number, or NULL */

int accept_client(int listening)
{
    int socket = accept(listening, NULL, NULL);
    struct talk *talk = NULL;

    if (socket < 0)
        return -1;
    if (socket < SOCKETS && fcntl(socket, F_SETFL, O_NONBLOCK) == 0)
        talk = malloc(sizeof *talk);
    if (talk == NULL) {
        refuse(socket, "No place for you\n");
        close(socket);
        errno = ENOMEM;
        return -1;
    }
    /* Not the buffer: the kernel would have to give us all its pages. */
    memset(talk, 0, offsetof(struct talk, buffer));
    talk->socket = socket;
    talks[socket] = talk;
    return socket;
}

void end_client(int socket)
{
    close(socket);
    leaving -= talks[socket]->state == LEAVING;
    free(talks[socket]);
    talks[socket] = NULL;
}

short serve_client(int socket)
{
    struct talk *talk = talks[socket];
    short wanted;

    if (talk == NULL)
        return 0;
    leaving -= talk->state == LEAVING;
    wanted = take_step(talk);
    leaving += talk->state == LEAVING;
    if (wanted == 0)
        end_client(socket);
    return wanted;
}

void end_late_ones(void)
{
    static time_t last;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (leaving == 0 || now.tv_sec == last)
        return;
    last = now.tv_sec;
    for (int socket = 0; socket < SOCKETS; socket++)
        if (talks[socket] != NULL && talks[socket]->state == LEAVING &&
            talks[socket]->seconds++ == PATIENCE)
            end_client(socket);
}

void end_all(void)
{
    int left = 1;

    for (int round = 0; left > 0 && round < STOP_ROUNDS; round++) {
        left = 0;
        for (int socket = 0; socket < SOCKETS; socket++)
            left += serve_client(socket) != 0;
        if (left > 0)
            poll(NULL, 0, 1);
    }
}
