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
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

/* The replies to one input buffer of pings and echoes are no longer than it is,
 * and one more reply always fits behind them. Only unknown commands have
 * replies longer than themselves; so many of them are sent in several turns.
 *
 * Why not room for the worst case, 13 times the input? glibc keeps 16 KB of an
 * ended thread's stack for the next thread and gives the rest back to the
 * kernel (allocatestack.c). As long as a conversation fits those, the next one
 * finds its pages in place. */
#define OUTPUT_LIMIT (LINE_LIMIT + REPLY_LIMIT)

/* How long a stopping server goes on answering a client that never pauses. */
#define STOP_GRACE_MS 1500

/* How long, and for how many bytes, an ended conversation waits for the client
 * to hang up: see hang_up(). */
#define HANG_UP_MS 1000
#define HANG_UP_BYTES ((size_t)16 * 1024 * 1024)

/* With an idle limit, send() comes back this often to see whether it passed. */
#define SEND_SLICE_MS 250L

/* How many bytes a client may put on the screen before it has sent as many. */
#define SCREEN_ADVANCE 1024

enum state {
    OPEN,
    END_OF_FILE, /* the client sends no more: it closed, or half-closed */
    QUIT,
    TIMED_OUT,
    STOPPED,
    LOST /* reset, or unreachable: nobody is there to talk to */
};

/* Everything that one conversation needs, in one local variable of converse():
 * no malloc() that could fail, nothing shared, and gdb shows it whole with
 * `print talk`.
 *
 * The replies stand in the buffer right behind the requests that they answer.
 * That saves memory: the kernel gives a thread's stack its pages one by one, as
 * each is first touched, and a short conversation touches the beginning of one
 * buffer, not of two. */
struct conversation {
    int socket;
    enum state state;
    bool skipping; /* inside a line that was too long */
    const struct terms *terms;
    long long stop_deadline; /* in milliseconds(); 0: not stopping */
    size_t screen_credit;    /* bytes that the client may still put on screen */
    unsigned long unshown;   /* commands for which the credit did not reach */
    size_t input_length;     /* bytes at the beginning of the buffer */
    char *output;            /* somewhere behind them, in the buffer */
    size_t output_length;
    char buffer[LINE_LIMIT + OUTPUT_LIMIT];
};

/* ---- Requests and replies: pure functions, bytes in and bytes out ------- */

/* isspace(3) without '\n', which ends a line and so is never inside one, and
 * without the locale, in which other bytes could be spaces. */
static bool is_white_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\v' ||
           byte == '\f';
}

static bool word_is(const char *word, size_t length, const char *command)
{
    return length == strlen(command) && memcmp(word, command, length) == 0;
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

    if (word_is(line, word, "ping"))
        return (struct request){PING_COMMAND, line, 0};
    if (word_is(line, word, "quit"))
        return (struct request){QUIT_COMMAND, line, 0};
    if (!word_is(line, word, "echo"))
        return (struct request){UNSUPPORTED_COMMAND, line, word};
    if (!space)
        return (struct request){ECHO_COMMAND, end, 0};
    return (struct request){ECHO_COMMAND, space + 1, (size_t)(end - space) - 1};
}

/* Writes `length` bytes of a word so that they can do no harm on a terminal,
 * where an ESC could repaint the screen and a '\n' could forge a log line.
 * Returns how many bytes that took, at most 4 * WORD_LIMIT + 3. */
static size_t write_safely(char *to, const char *word, size_t length)
{
    static const char hex[] = "0123456789abcdef";
    const char *start = to;

    for (size_t i = 0; i < length && i < WORD_LIMIT; i++) {
        unsigned char byte = (unsigned char)word[i];

        if (byte > ' ' && byte <= '~') {
            *to++ = (char)byte;
        } else {
            *to++ = '\\';
            *to++ = 'x';
            *to++ = hex[byte >> 4];
            *to++ = hex[byte & 15];
        }
    }
    if (length > WORD_LIMIT) {
        memcpy(to, "...", 3);
        to += 3;
    }
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
 * the client, while the client has credit: it earns a byte of screen with each
 * byte that it sends. Without that, a flood of "x\n" would fill the disk under
 * a log eleven times as fast as the network brings it. */
static void show(struct conversation *talk, const char *reply, size_t length)
{
    if (talk->terms->screen == NULL)
        return;
    if (length > talk->screen_credit) {
        talk->unshown++;
        return;
    }
    talk->screen_credit -= length;
    /* One call for the line, so that no other thread can write inside it. A
     * signal, at the stop, may interrupt it while the screen takes nothing. */
    if (fwrite(reply, 1, length, talk->terms->screen) != length)
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

static void say(struct conversation *talk, const char *words)
{
    size_t length = strlen(words);

    memcpy(talk->output + talk->output_length, words, length);
    talk->output_length += length;
}

/* Answers each complete line in the input buffer, and moves what is left, the
 * beginning of a line whose end is still under way, to the front. */
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
        _Static_assert(LINE_LIMIT == 4096, "or these words are not true");
        say(talk, "Line too long, limit 4096 bytes\n");
        talk->skipping = true;
    }
    if (talk->skipping)
        talk->input_length = 0;
    else if (line > talk->buffer)
        memmove(talk->buffer, line, talk->input_length);
}

/* ---- The socket --------------------------------------------------------- */

/* A clock that nobody can set: CLOCK_REALTIME jumps when the date is put
 * right, and a deadline measured with it may never come. */
static long long milliseconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True if the server is stopping and this client has had its share of what time
 * is left. The share begins when the conversation first looks. */
static bool grace_is_over(struct conversation *talk)
{
    const atomic_bool *stopping = talk->terms->stopping;

    if (stopping == NULL || !atomic_load(stopping))
        return false;
    if (talk->stop_deadline == 0)
        talk->stop_deadline = milliseconds() + STOP_GRACE_MS;
    return milliseconds() >= talk->stop_deadline;
}

/* EINTR alone would not tell: on a Unix domain socket (Linux) recv() looks at
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
        talk->screen_credit += (size_t)count;
    } else if (count == 0) {
        talk->state = END_OF_FILE;
    } else if (errno == EINTR) {
        /* If the server is not stopping this means nothing: the next turn waits
         * again. If it is, what has arrived is answered first. */
        if (talk->terms->stopping && atomic_load(talk->terms->stopping) &&
            !has_arrived(talk->socket))
            talk->state = STOPPED;
    } else {
        /* EAGAIN: SO_RCVTIMEO passed, socket(7). */
        talk->state = errno == EAGAIN ? TIMED_OUT : LOST;
    }
}

/* True if a client that does not read must be given up. `progress` is the time
 * when our kernel last took a byte for it: a slow reader's own kernel makes
 * room in large steps (RFC 9293, 3.8.6.2.2), so it may look idle for that long.
 */
static bool patience_is_over(struct conversation *talk, long long progress)
{
    long long idle_ms = 1000LL * talk->terms->idle_seconds;

    return grace_is_over(talk) ||
           (idle_ms > 0 && milliseconds() - progress >= idle_ms);
}

/* Sends all that the output buffer holds. send() on a blocking socket returns
 * early, with what it could place, when a signal or SO_SNDTIMEO interrupts its
 * wait for room in the send buffer: that is when patience is measured. */
static void deliver(struct conversation *talk)
{
    size_t sent = 0;
    long long progress = 0;

    while (talk->state != LOST && sent < talk->output_length) {
        ssize_t count = send(talk->socket, talk->output + sent,
                             talk->output_length - sent, 0);

        if (count == (ssize_t)(talk->output_length - sent))
            break; /* all of it, at the first try: no need for the clock */
        if (count < 0 && errno != EAGAIN && errno != EINTR) {
            talk->state = LOST;
            break;
        }
        if (count > 0)
            sent += (size_t)count;
        if (count > 0 || progress == 0)
            progress = milliseconds();
        if (patience_is_over(talk, progress)) {
            talk->state = LOST;
            break;
        }
    }
    talk->output_length = 0;
}

/* Ends a connection so that the last reply arrives. close() on a TCP socket
 * with unread input sends RST (RFC 2525, 2.17): the reply before the `quit`,
 * say, when the client had sent more after it. With it goes what our kernel had
 * not sent yet, and the peer's kernel may give up what its program has not read
 * (Linux lets it read on). So: send FIN, then read and throw away until the
 * client hangs up too, and only then close.
 *
 * A client that never hangs up would hold us here, and one that never stops
 * sending, too: hence both bounds. */
static void hang_up(int socket, int patience_ms)
{
    char discarded[512];
    long long deadline = milliseconds() + patience_ms;
    long long left = patience_ms;
    size_t total = 0;

    if (shutdown(socket, SHUT_WR) < 0)
        return; /* ENOTCONN: it is gone already */
    while (left >= 0 && total < HANG_UP_BYTES) {
        struct pollfd input = {.fd = socket, .events = POLLIN};
        int ready = poll(&input, 1, (int)left);

        if (ready == 0 || (ready < 0 && errno != EINTR))
            return;
        if (ready > 0) {
            ssize_t count = recv(socket, discarded, sizeof discarded, 0);

            if (count == 0 || (count < 0 && errno != EINTR))
                return;
            if (count > 0)
                total += (size_t)count;
        }
        left = deadline - milliseconds();
    }
}

void refuse(int socket, const char *words, int patience_ms)
{
    /* Into the empty buffer of a new connection: it can't block. If it fails
     * the client is gone, and nobody is left to be told. */
    if (send(socket, words, strlen(words), 0) >= 0)
        hang_up(socket, patience_ms);
}

/* ---- The conversation --------------------------------------------------- */

/* Lets recv() wait no longer than the idle limit, and send() come back often
 * enough to see it pass. Without a limit both wait for ever. */
static int limit_waiting(int socket, unsigned idle_seconds)
{
    struct timeval idle = {.tv_sec = (time_t)idle_seconds};
    struct timeval slice = {.tv_usec = SEND_SLICE_MS * 1000};

    if (idle_seconds == 0)
        return 0;
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle) < 0)
        return -1;
    return setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof slice);
}

/* Each variable is set by name. `= {0}` would be shorter, and would touch every
 * page of the buffer: 12 KB for each client instead of 4. */
static void begin(struct conversation *talk, int socket,
                  const struct terms *terms)
{
    talk->socket = socket;
    talk->terms = terms;
    talk->state = OPEN;
    talk->skipping = false;
    talk->stop_deadline = 0;
    talk->screen_credit = SCREEN_ADVANCE;
    talk->unshown = 0;
    talk->input_length = 0;
    talk->output = talk->buffer;
    talk->output_length = 0;
    if (limit_waiting(socket, terms->idle_seconds) < 0)
        talk->state = LOST;
}

/* What is still to be said when no more input will be read. */
static void finish(struct conversation *talk)
{
    char words[64];

    if (talk->state == END_OF_FILE && talk->input_length > 0) {
        /* The last line, whose '\n' the end of file stands for. */
        answer(talk, talk->buffer, talk->input_length);
    } else if (talk->state == TIMED_OUT) {
        (void)snprintf(words, sizeof words, "Timed out after %u seconds\n",
                       talk->terms->idle_seconds);
        say(talk, words);
    }
    deliver(talk);
}

void converse(int socket, const struct terms *terms)
{
    struct conversation talk;

    begin(&talk, socket, terms);
    while (talk.state == OPEN) {
        receive(&talk);
        if (talk.state == OPEN) {
            answer_lines(&talk);
            deliver(&talk);
        }
    }
    if (talk.state != LOST)
        finish(&talk);
    if (talk.unshown > 0)
        (void)fprintf(terms->screen, "Unsupported commands not shown: %lu\n",
                      talk.unshown);
    if (talk.state == QUIT || talk.state == TIMED_OUT || talk.state == STOPPED)
        hang_up(socket, HANG_UP_MS);
}
