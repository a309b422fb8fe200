/*
 * handler.c - one client's conversation: read, cut into lines, parse, reply.
 *
 * TCP promises bytes in order and nothing else. Where one segment ends and the
 * next begins is up to the two kernels and the wire between them, so recv() may
 * bring half a command or fifty of them. The only thing that tells one request
 * from the next is its '\n': everything below follows from that.
 */
#include "handler.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

/* The replies to one input buffer of pings and echoes are no longer than it is,
 * and one more reply always fits behind them. Unsupported commands have replies
 * up to 13 times as long: they go out in several turns, which saves memory. */
#define OUTPUT_LIMIT (LINE_LIMIT + REPLY_LIMIT)

/* How long a stopping server goes on answering a client that never pauses. */
#define STOP_GRACE_MS 1500

/* For how long and how many bytes hang_up() waits for the client to close. (One
 * that goes on sending may get a second more.) */
#define HANG_UP_MS 1000
#define HANG_UP_BYTES ((size_t)16 * 1024 * 1024)
#define REFUSED_BYTES ((size_t)64 * 1024) /* what has arrived by then */

/* How many unsupported commands of one conversation the server's screen shows.
 * Without this limit one flood of "x\n" could fill the disk under a log. */
#define SHOWN_LIMIT 100

enum state {
    OPEN,
    END_OF_FILE, /* the client sends no more: it closed, or half-closed */
    QUIT,
    TIMED_OUT,
    STOPPED,
    LOST /* reset, or it does not read: nothing more can be sent */
};

/* All data of one conversation, in two local variables of converse(): no
 * malloc() that could fail, nothing shared, and gdb's `print talk` shows it.
 * The replies stand in the buffer right behind the requests that they answer.
 * That saves memory: the kernel gives a thread's stack its pages one by one, as
 * each is first touched, and a short conversation touches the beginning of one
 * buffer, not of two. */
struct conversation {
    int socket;
    enum state state; /* OPEN at first */
    bool skipping;    /* inside a line that was too long */
    const struct terms *terms;
    long long stop_deadline;   /* in milliseconds(); 0: not stopping */
    unsigned long unsupported; /* commands so far */
    unsigned long unshown;     /* of these */
    size_t input_length;       /* bytes at the beginning of the buffer */
    char *output;              /* somewhere behind them, in the buffer */
    size_t output_length;
    char *buffer; /* of LINE_LIMIT + OUTPUT_LIMIT bytes */
};

/* ---- Requests and replies: pure functions, bytes in and bytes out ------- */

/* isspace(3) without '\n', which ends a line and so is never inside one, and
 * without the locale, in which other bytes could be spaces. */
static bool is_white_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\v' ||
           byte == '\f';
}

/* The word that stands for a command. There is no default case, so the compiler
 * names each command that is missing here (-Wswitch). */
static const char *word_of(enum command command)
{
    switch (command) {
    case PING_COMMAND:
        return "ping";
    case ECHO_COMMAND:
        return "echo";
    case QUIT_COMMAND:
        return "quit";
    case NO_COMMAND:
    case UNSUPPORTED_COMMAND:
        break;
    }
    return "";
}

struct request parse(const char *line, size_t length)
{
    const char *end = line + length;
    const char *space;
    size_t word;

    while (line < end && is_white_space(*line))
        line++;
    while (line < end && is_white_space(end[-1]))
        end--;
    if (line == end)
        return (struct request){NO_COMMAND, line, 0};

    space = memchr(line, ' ', (size_t)(end - line));
    word = (size_t)((space ? space : end) - line);
    for (enum command command = 0; command < UNSUPPORTED_COMMAND; command++) {
        const char *known = word_of(command);

        if (word != strlen(known) || memcmp(line, known, word) != 0)
            continue;
        line = space ? space + 1 : end;
        return (struct request){command, line, (size_t)(end - line)};
    }
    return (struct request){UNSUPPORTED_COMMAND, line, word};
}

/* Writes `length` bytes of a word so that they can do no harm on a terminal,
 * where an ESC could repaint the screen and a '\n' could forge a log line.
 * Returns how many bytes that took, at most 4 * WORD_LIMIT + 3. */
static size_t write_safely(char *to, const char *word, size_t length)
{
    const char *start = to;

    for (size_t i = 0; i < length && i < WORD_LIMIT; i++) {
        unsigned char byte = (unsigned char)word[i];

        if (byte > ' ' && byte <= '~')
            *to++ = word[i];
        else
            to += snprintf(to, sizeof "\\xNN", "\\x%02x", byte);
    }
    if (length > WORD_LIMIT)
        to += snprintf(to, sizeof "...", "...");
    return (size_t)(to - start);
}

size_t compose(struct request request, char *reply)
{
    static const char unsupported[] = "Unsupported command: ";
    size_t length = 0;

    switch (request.command) {
    case PING_COMMAND:
        memcpy(reply, "pong", 4);
        length = 4;
        break;
    case ECHO_COMMAND:
        memcpy(reply, request.text, request.length);
        length = request.length;
        break;
    case UNSUPPORTED_COMMAND:
        length = sizeof unsupported - 1;
        memcpy(reply, unsupported, length);
        length += write_safely(reply + length, request.text, request.length);
        break;
    case NO_COMMAND:
    case QUIT_COMMAND:
        return 0;
    }
    reply[length++] = '\n';
    return length;
}

/* ---- From the input buffer to the output buffer ------------------------- */

/* Shows an unsupported command on the server's screen, in the same words as to
 * the client. It is one call, so no other thread can write inside the line. */
static void show(struct conversation *talk, const char *reply, size_t length)
{
    FILE *screen = talk->terms->screen;

    if (screen != NULL && (++talk->unsupported > SHOWN_LIMIT ||
                           fwrite(reply, 1, length, screen) != length))
        talk->unshown++;
}

static void deliver(struct conversation *talk);

static void answer(struct conversation *talk, const char *line, size_t length)
{
    struct request request = parse(line, length);
    size_t reply_length;
    char *reply;

    if (talk->output_length > OUTPUT_LIMIT - REPLY_LIMIT)
        deliver(talk);
    if (talk->state == LOST)
        return; /* nothing may follow the replies that could not be sent */
    reply = talk->output + talk->output_length;
    reply_length = compose(request, reply);
    talk->output_length += reply_length;
    if (request.command == UNSUPPORTED_COMMAND)
        show(talk, reply, reply_length);
    else if (request.command == QUIT_COMMAND)
        talk->state = QUIT;
}

/* Answers each complete line in the input buffer, and moves what is left to the
 * front: a line that has not ended yet. */
static void answer_lines(struct conversation *talk)
{
    const char *line = talk->buffer;
    const char *end = talk->buffer + talk->input_length;
    const char *newline;

    while (talk->state == OPEN &&
           (newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        if (!talk->skipping)
            answer(talk, line, (size_t)(newline - line));
        talk->skipping = false;
        line = newline + 1;
    }

    talk->input_length = (size_t)(end - line);
    if (talk->input_length == LINE_LIMIT && !talk->skipping) {
        /* A full buffer and no end in it: say so now, since the end may never
         * come, and throw the rest away as it arrives. */
        talk->output_length =
            (size_t)snprintf(talk->output, REPLY_LIMIT,
                             "Line too long, limit %d bytes\n", LINE_LIMIT);
        talk->skipping = true;
    }
    if (talk->skipping)
        talk->input_length = 0;
    else if (line > talk->buffer)
        memmove(talk->buffer, line, talk->input_length);
}

/* ---- The socket --------------------------------------------------------- */

/* Nobody can set this clock. CLOCK_REALTIME jumps when the date is changed. */
static long long milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool is_stopping(const struct conversation *talk)
{
    return talk->terms->stopping != NULL && *talk->terms->stopping;
}

/* True if the server is stopping and this client has had its share of the time
 * that is left. The share begins when the conversation first looks. */
static bool grace_is_over(struct conversation *talk)
{
    if (!is_stopping(talk))
        return false;
    if (talk->stop_deadline == 0)
        talk->stop_deadline = milliseconds() + STOP_GRACE_MS;
    return milliseconds() >= talk->stop_deadline;
}

/* EINTR alone is not enough: on a Unix domain socket (Linux) recv() looks at
 * signals first when it wakes up, even if bytes woke it at the same time. */
static bool has_arrived(int socket)
{
    struct pollfd input = {.fd = socket, .events = POLLIN};

    return poll(&input, 1, 0) > 0;
}

/* Waits for bytes. They are added to what the input buffer still holds: there
 * is always room, since answer_lines() never leaves it full. */
static void receive(struct conversation *talk)
{
    ssize_t count;

    if (grace_is_over(talk)) {
        talk->state = STOPPED;
        return;
    }
    count = recv(talk->socket, talk->buffer + talk->input_length,
                 LINE_LIMIT - talk->input_length, 0);
    if (count > 0) {
        talk->input_length += (size_t)count;
        talk->output = talk->buffer + talk->input_length;
    } else if (count == 0) {
        talk->state = END_OF_FILE;
    } else if (errno == EINTR) {
        /* If the server is not stopping, the next turn waits again. If it is,
         * what has arrived is answered first. */
        if (is_stopping(talk) && !has_arrived(talk->socket))
            talk->state = STOPPED;
    } else { /* EAGAIN: SO_RCVTIMEO has passed, socket(7) */
        talk->state = errno == EAGAIN ? TIMED_OUT : LOST;
    }
}

/* Sends all that the output buffer holds. send() waits for room in the send
 * buffer. A signal or SO_SNDTIMEO ends its wait early: it then returns what it
 * could place, or fails if that is nothing. So with an idle limit a client that
 * takes nothing for so long is given up. */
static void deliver(struct conversation *talk)
{
    size_t sent = 0;

    while (talk->state != LOST && sent < talk->output_length) {
        ssize_t count = send(talk->socket, talk->output + sent,
                             talk->output_length - sent, 0);

        if (count >= 0)
            sent += (size_t)count;
        else if (errno != EINTR)
            talk->state = LOST;
        if (sent < talk->output_length && grace_is_over(talk))
            talk->state = LOST;
    }
    talk->output_length = 0;
}

/* Ends a connection so that the last reply arrives. close() on a TCP socket
 * with unread input sends RST (RFC 2525, 2.17). RST discards the replies that
 * were not sent yet, and the peer may discard those that it has not read. So
 * send FIN, then read and throw away until the client closes, too. Only then
 * may the caller close.
 *
 * A client that never closes, or never stops sending, would hold us here: hence
 * the bounds of time and bytes. After that, replies can be lost. */
static void hang_up(int socket, size_t most_bytes)
{
    const struct timeval wait = {.tv_sec = HANG_UP_MS / 1000};
    long long deadline = milliseconds() + HANG_UP_MS;
    char discarded[512];
    size_t total = 0;

    if (shutdown(socket, SHUT_WR) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) < 0)
        return; /* ENOTCONN: it is gone already */
    while (total < most_bytes && milliseconds() < deadline) {
        ssize_t count = recv(socket, discarded, sizeof discarded, 0);

        if (count > 0)
            total += (size_t)count;
        else if (count == 0 || errno != EINTR)
            return;
    }
}

void refuse(int socket, const char *words)
{
    /* The words fit into the empty send buffer of a new connection. */
    if (fcntl(socket, F_SETFL, O_NONBLOCK) >= 0 &&
        send(socket, words, strlen(words), 0) >= 0)
        hang_up(socket, REFUSED_BYTES);
}

/* ---- The conversation --------------------------------------------------- */

/* Lets recv() and send() wait no longer than the idle limit, socket(7). */
static bool limit_waiting(int socket, unsigned seconds)
{
    const struct timeval idle = {.tv_sec = (time_t)seconds};

    return !setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle) &&
           !setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle);
}

/* What is still to be said when no more input will be read. */
static void finish(struct conversation *talk)
{
    if (talk->state == END_OF_FILE && talk->input_length > 0) {
        /* The last line: end of file ends it. */
        answer(talk, talk->buffer, talk->input_length);
    } else if (talk->state == TIMED_OUT) {
        talk->output_length = (size_t)snprintf(talk->output, REPLY_LIMIT,
                                               "Timed out after %u seconds\n",
                                               talk->terms->idle_seconds);
    }
    deliver(talk);
    if (talk->unshown > 0)
        fprintf(talk->terms->screen, "Unsupported commands not shown: %lu\n",
                talk->unshown);
}

void converse(int socket, const struct terms *terms)
{
    char buffer[LINE_LIMIT + OUTPUT_LIMIT];
    struct conversation talk = {
        .socket = socket, .terms = terms, .buffer = buffer, .output = buffer};

    if (terms->idle_seconds > 0 && !limit_waiting(socket, terms->idle_seconds))
        talk.state = LOST;
    while (talk.state == OPEN) {
        receive(&talk);
        if (talk.state == OPEN) {
            answer_lines(&talk);
            deliver(&talk);
        }
    }
    finish(&talk);
    if (talk.state == QUIT || talk.state == TIMED_OUT || talk.state == STOPPED)
        hang_up(socket, HANG_UP_BYTES);
}
