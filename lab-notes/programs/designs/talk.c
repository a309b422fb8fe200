/* talk.c - one client's conversation in steps: handler.c, without the waiting.
 */
#include "talk.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SHOWN_LIMIT 100

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

/* Answers each complete line, and keeps the rest. */
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

    if (count < 0 && errno != EAGAIN) {
        talk->state = OVER;
    } else if (count < 0) {
        if (stopping && talk->state == OPEN)
            talk->state = QUIT; /* all that has arrived is answered */
    } else if (talk->state == LEAVING) {
        talk->state = count == 0 ? OVER : LEAVING; /* what came is ignored */
    } else {
        talk->input_length += (size_t)count;
        talk->output = talk->buffer + talk->input_length;
        if (count > 0) {
            answer_lines(talk);
        } else {
            talk->state = END_OF_FILE; /* which ends the last line */
            answer(talk, talk->buffer, talk->input_length);
        }
    }
}

/* send() takes as much as fits. The rest stays for the next step. */
static void deliver(struct talk *talk)
{
    ssize_t count = send(talk->socket, talk->output, talk->output_length, 0);

    if (count >= 0) {
        talk->output += count;
        talk->output_length -= (size_t)count;
    } else if (errno != EAGAIN) {
        talk->state = OVER;
    }
}

short take_step(struct talk *talk)
{
    if (talk->output_length == 0)
        receive(talk);
    if (talk->output_length > 0)
        deliver(talk);
    if (talk->state == QUIT && talk->output_length == 0) {
        /* FIN, and then we read to the end: hang_up() in handler.c says why. */
        shutdown(talk->socket, SHUT_WR);
        talk->state = LEAVING;
        talk->input_length = 0;
    }
    if (talk->state != OVER && talk->output_length > 0)
        return POLLOUT;
    return talk->state == OPEN || talk->state == LEAVING ? POLLIN : 0;
}
