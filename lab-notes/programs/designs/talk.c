/* talk.c - one client's conversation in steps, for a program with one thread.
 */
#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HANG_UP_MS 1000
#define SHOWN_LIMIT 100
#define STOP_ROUNDS 250 /* of 10 ms */

struct talk **talks;
size_t talking, leaving;
static size_t places; /* in talks[] */

static long long milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Only the beginning of the struct is set: to clear the buffer would make the
 * kernel give us all its pages. */
struct talk *begin_talk(int listening)
{
    int client = accept(listening, NULL, NULL);
    struct talk *talk;

    if (client < 0)
        return NULL;
    if (talking == places) {
        size_t more = 2 * places + 64;
        struct talk **larger = realloc(talks, more * sizeof(struct talk *));

        if (larger != NULL) {
            talks = larger;
            places = more;
        }
    }
    talk = talking < places ? malloc(sizeof *talk) : NULL;
    if (talk == NULL || fcntl(client, F_SETFL, O_NONBLOCK) < 0) {
        refuse(client, "No memory for you\n");
        close(client);
        free(talk);
        errno = ENOMEM;
        return NULL;
    }
    memset(talk, 0, offsetof(struct talk, buffer));
    talk->socket = client;
    talk->place = talking;
    talks[talking++] = talk;
    return talk;
}

static void answer(struct talk *talk, const char *line, size_t length)
{
    struct request request = parse(line, length);
    char *reply = talk->output + talk->output_length;
    size_t reply_length = compose(request, reply);

    talk->output_length += reply_length;
    if (request.command == QUIT_COMMAND)
        talk->state = QUIT;
    if (request.command == UNSUPPORTED_COMMAND && talk->shown++ < SHOWN_LIMIT)
        fwrite(reply, 1, reply_length, stdout);
}

/* As in handler.c: answers each complete line, and keeps the rest. */
static void answer_lines(struct talk *talk)
{
    const char *line = talk->buffer, *newline;
    const char *end = talk->buffer + talk->input_length;

    while (talk->state == OPEN &&
           (newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        if (!talk->skipping)
            answer(talk, line, (size_t)(newline - line));
        talk->skipping = false;
        line = newline + 1;
    }
    talk->input_length = (size_t)(end - line);
    if (talk->input_length == LINE_LIMIT && !talk->skipping) {
        talk->output_length =
            (size_t)snprintf(talk->output, REPLY_LIMIT,
                             "Line too long, limit %d bytes\n", LINE_LIMIT);
        talk->skipping = true;
    }
    if (talk->skipping)
        talk->input_length = 0;
    memmove(talk->buffer, line, talk->input_length);
}

static void receive(struct talk *talk)
{
    ssize_t count = recv(talk->socket, talk->buffer + talk->input_length,
                         LINE_LIMIT - talk->input_length, 0);

    if (count < 0 && errno == EAGAIN && stopping && talk->state == OPEN)
        talk->state = QUIT; /* all that has arrived is answered */
    else if (count < 0 && errno != EAGAIN && errno != EINTR)
        talk->state = OVER;
    if (count < 0)
        return;
    talk->output = talk->buffer + talk->input_length + count;
    if (talk->state == LEAVING) {
        talk->state = count == 0 ? OVER : LEAVING; /* what came is ignored */
    } else if (count > 0) {
        talk->input_length += (size_t)count;
        answer_lines(talk);
    } else {
        talk->state = END_OF_FILE;
        if (talk->input_length > 0) /* end of file ends the last line */
            answer(talk, talk->buffer, talk->input_length);
        talk->state = END_OF_FILE;
    }
}

/* send() takes as much as fits. The rest stays for the next step. */
static void deliver(struct talk *talk)
{
    ssize_t count = send(talk->socket, talk->output, talk->output_length, 0);

    if (count >= 0) {
        talk->output += count;
        talk->output_length -= (size_t)count;
    } else if (errno != EAGAIN && errno != EINTR) {
        talk->state = OVER;
    }
}

bool take_step(struct talk *talk)
{
    if (talk->output_length == 0)
        receive(talk);
    if (talk->output_length > 0)
        deliver(talk);
    if (talk->output_length == 0 && talk->state == QUIT) {
        /* FIN, and then we read to the end: hang_up() in handler.c says why. */
        talk->state = shutdown(talk->socket, SHUT_WR) < 0 ? OVER : LEAVING;
        talk->deadline = milliseconds() + HANG_UP_MS;
        talk->input_length = 0;
        leaving++;
    }
    return talk->state != OVER && !is_late(talk) &&
           (talk->state != END_OF_FILE || talk->output_length > 0);
}

short wanted(const struct talk *talk)
{
    return talk->output_length > 0 ? POLLOUT : POLLIN;
}

bool is_late(const struct talk *talk)
{
    return talk->deadline > 0 && milliseconds() >= talk->deadline;
}

void end_talk(struct talk *talk)
{
    talks[talk->place] = talks[--talking];
    talks[talk->place]->place = talk->place;
    leaving -= talk->deadline > 0;
    close(talk->socket);
    free(talk);
}

void end_all(void)
{
    for (int round = 0; talking > 0 && round < STOP_ROUNDS; round++) {
        for (size_t i = talking; i-- > 0;)
            if (!take_step(talks[i]))
                end_talk(talks[i]);
        poll(NULL, 0, 10);
    }
    while (talking > 0) /* these do not read: their replies are lost */
        end_talk(talks[0]);
    free(talks);
}
