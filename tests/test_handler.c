/*
 * test_handler.c - the protocol, every row of it, over a socketpair(2): no
 * server, no network, no ports. Last, a few conversations over TCP, since only
 * TCP has an RST that could eat a reply.
 */
#include "handler.h"
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <CUnit/CUnit.h>

/* A byte string with NULs in it, and its length. */
#define BYTES(literal) (literal), sizeof(literal) - 1

/* ---- One conversation --------------------------------------------------- */

struct conversation {
    int ours;   /* the client's end */
    int theirs; /* the handler's */
    struct terms terms;
    pthread_t handler;
    atomic_bool over; /* the handler's thread has nothing more to do */
    pthread_t feeder;
    char *screen;
    size_t screen_length;

    const char *input; /* what the feeder sends */
    size_t length;
    const size_t *cuts; /* ascending; the last one is the length */
};

static void *handle(void *argument)
{
    struct conversation *talk = argument;

    converse(talk->theirs, &talk->terms);
    (void)close(talk->theirs);
    atomic_store(&talk->over, true);
    return NULL;
}

static void open_conversation(struct conversation *talk, int type)
{
    int ends[2];

    *talk = (struct conversation){.ours = -1};
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, type, 0, ends), 0);
    talk->ours = ends[0];
    talk->theirs = ends[1];
    talk->terms.screen = open_memstream(&talk->screen, &talk->screen_length);
    CU_ASSERT_PTR_NOT_NULL_FATAL(talk->terms.screen);
}

static void begin(struct conversation *talk)
{
    CU_ASSERT_EQUAL_FATAL(pthread_create(&talk->handler, NULL, handle, talk),
                          0);
}

/* Waits for converse() to return. False if it does not. (A flag and then
 * pthread_join(3), since helgrind does not know pthread_timedjoin_np(3).) */
static bool has_ended(struct conversation *talk)
{
    long long since = now_ms();

    while (!atomic_load(&talk->over))
        if (!still_patient(since))
            return false;
    return pthread_join(talk->handler, NULL) == 0;
}

static void close_conversation(struct conversation *talk)
{
    if (talk->ours >= 0)
        (void)close(talk->ours);
    (void)fclose(talk->terms.screen);
    free(talk->screen);
}

/* Waits until the handler has taken what was sent, so that the next send()
 * reaches it by a recv() of its own: SIOCOUTQ, unix(7) and tcp(7). */
static bool is_taken(int socket)
{
    long long since = now_ms();
    int unread = 1;

    while (ioctl(socket, SIOCOUTQ, &unread) == 0 && unread > 0)
        if (!still_patient(since))
            return false;
    return true;
}

/* Sends the input, cut as asked, and half-closes. After `quit` the handler may
 * have hung up: that is no error here. */
static void *feed(void *argument)
{
    struct conversation *talk = argument;
    size_t from = 0;

    do {
        size_t to = talk->cuts ? *talk->cuts++ : talk->length;

        if (!send_bytes(talk->ours, talk->input + from, to - from) ||
            (talk->cuts && !is_taken(talk->ours)))
            break;
        from = to;
    } while (from < talk->length);
    (void)shutdown(talk->ours, SHUT_WR);
    return NULL;
}

/* Holds a whole conversation and compares what came back, and what was shown on
 * the screen. `screen` may be NULL: not looked at. */
static bool answers(const char *input, size_t length, const size_t *cuts,
                    const char *replies, size_t replies_length,
                    const char *screen)
{
    struct conversation talk;
    size_t received = 0;
    char *bytes;
    bool same;

    open_conversation(&talk, SOCK_STREAM);
    talk.input = input;
    talk.length = length;
    talk.cuts = cuts;
    begin(&talk);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&talk.feeder, NULL, feed, &talk), 0);
    bytes = receive_all(talk.ours, &received);
    (void)pthread_join(talk.feeder, NULL);
    same = bytes && received == replies_length &&
           memcmp(bytes, replies, received) == 0 && has_ended(&talk);
    (void)fflush(talk.terms.screen);
    same = same && (screen == NULL || strcmp(talk.screen, screen) == 0);
    if (!same)
        (void)fprintf(stderr,
                      "\n  request:  %.60s\n  expected: %.60s\n"
                      "  came:     %.60s\n  screen:   %.200s\n",
                      input, replies, bytes ? bytes : "(an error)",
                      talk.screen);
    free(bytes);
    close_conversation(&talk);
    return same;
}

/* ---- The parser --------------------------------------------------------- */

static bool parses(const char *line, size_t length, enum command command,
                   const char *text, size_t text_length)
{
    struct request request = parse(line, length);

    return request.command == command && request.length == text_length &&
           memcmp(request.text, text, text_length) == 0;
}

static void parse_commands(void)
{
    CU_ASSERT(parses(BYTES("ping"), PING_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES("ping pong \0"), PING_COMMAND, BYTES("pong \0")));
    CU_ASSERT(parses(BYTES("quit"), QUIT_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES("quit now"), QUIT_COMMAND, BYTES("now")));
    CU_ASSERT(parses(BYTES("echo"), ECHO_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES("echo Hello,socket"), ECHO_COMMAND,
                     BYTES("Hello,socket")));
    CU_ASSERT(parses(BYTES("echo a  b"), ECHO_COMMAND, BYTES("a  b")));
    CU_ASSERT(parses(BYTES("echo  a"), ECHO_COMMAND, BYTES(" a")));
    CU_ASSERT(parses(BYTES("echo \ta"), ECHO_COMMAND, BYTES("\ta")));
    CU_ASSERT(parses(BYTES("foo bar"), UNSUPPORTED_COMMAND, BYTES("foo")));
}

static void parse_white_space(void)
{
    CU_ASSERT(parses(BYTES(""), NO_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES(" \t\r\v\f"), NO_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES("\r\v\f\t ping\t \r"), PING_COMMAND, BYTES("")));
    CU_ASSERT(parses(BYTES(" echo a b \r"), ECHO_COMMAND, BYTES("a b")));
    CU_ASSERT(parses(BYTES("echo \t "), ECHO_COMMAND, BYTES("")));
    /* A word ends at a space and at nothing else. */
    CU_ASSERT(parses(BYTES("ping\tx"), UNSUPPORTED_COMMAND, BYTES("ping\tx")));
    CU_ASSERT(
        parses(BYTES("echo\tx y"), UNSUPPORTED_COMMAND, BYTES("echo\tx")));
}

static void parse_near_misses(void)
{
    CU_ASSERT(parses(BYTES("PING"), UNSUPPORTED_COMMAND, BYTES("PING")));
    CU_ASSERT(parses(BYTES("pin"), UNSUPPORTED_COMMAND, BYTES("pin")));
    CU_ASSERT(
        parses(BYTES("pingping"), UNSUPPORTED_COMMAND, BYTES("pingping")));
    CU_ASSERT(parses(BYTES("ping\0"), UNSUPPORTED_COMMAND, BYTES("ping\0")));
    CU_ASSERT(parses(BYTES("\0"), UNSUPPORTED_COMMAND, BYTES("\0")));
    CU_ASSERT(parses(BYTES("echo \0\377"), ECHO_COMMAND, BYTES("\0\377")));
    CU_ASSERT(
        parses(BYTES("\377\200"), UNSUPPORTED_COMMAND, BYTES("\377\200")));
}

static bool composes(const char *line, size_t length, const char *expected,
                     size_t expected_length)
{
    char reply[REPLY_LIMIT];

    return compose(parse(line, length), reply) == expected_length &&
           memcmp(reply, expected, expected_length) == 0;
}

static void compose_replies(void)
{
    char word[WORD_LIMIT + 2];
    char expected[512];

    CU_ASSERT(composes(BYTES("ping"), BYTES("pong\n")));
    CU_ASSERT(composes(BYTES("echo"), BYTES("\n")));
    CU_ASSERT(composes(BYTES("echo a\0b"), BYTES("a\0b\n")));
    CU_ASSERT(composes(BYTES("quit"), BYTES("")));
    CU_ASSERT(composes(BYTES(" "), BYTES("")));
    CU_ASSERT(composes(BYTES("foo bar"), BYTES("Unsupported command: foo\n")));
    CU_ASSERT(
        composes(BYTES("\033[2J\n\177~!\\x"),
                 BYTES("Unsupported command: \\x1b[2J\\x0a\\x7f~!\\x\n")));
    CU_ASSERT(
        composes(BYTES("\0\377"), BYTES("Unsupported command: \\x00\\xff\n")));

    /* 64 bytes are shown whole, of 65 the first 64. */
    memset(word, 'w', sizeof word);
    (void)snprintf(expected, sizeof expected, "Unsupported command: %.64s\n",
                   word);
    CU_ASSERT(composes(word, WORD_LIMIT, expected, strlen(expected)));
    (void)snprintf(expected, sizeof expected, "Unsupported command: %.64s...\n",
                   word);
    CU_ASSERT(composes(word, WORD_LIMIT + 1, expected, strlen(expected)));
}

/* ---- Conversations ------------------------------------------------------ */

struct example {
    const char *input;
    size_t length;
    const char *replies;
    size_t replies_length;
    const char *screen;
};

static const struct example examples[] = {
    {BYTES(""), BYTES(""), ""},
    {BYTES("ping\n"), BYTES("pong\n"), ""},
    {BYTES("ping\r\necho a  b\r\n"), BYTES("pong\na  b\n"), ""},
    {BYTES("ping"), BYTES("pong\n"), ""},
    {BYTES("ping\necho tail"), BYTES("pong\ntail\n"), ""},
    {BYTES("\n \n\t\r\v\f\n\r\n"), BYTES(""), ""},
    {BYTES("echo\necho \necho  \n"), BYTES("\n\n\n"), ""},
    {BYTES("quit\nping\n"), BYTES(""), ""},
    {BYTES("ping\nquit\nping\n"), BYTES("pong\n"), ""},
    {BYTES("ping\n \tquit now \r\nping\nfoo\n"), BYTES("pong\n"), ""},
    {BYTES("ping\nquit"), BYTES("pong\n"), ""},
    {BYTES("echo \0\200\377\n"), BYTES("\0\200\377\n"), ""},
    {BYTES("foo bar\nping\n"), BYTES("Unsupported command: foo\npong\n"),
     "Unsupported command: foo\n"},
    {BYTES("\0\nnext"),
     BYTES("Unsupported command: \\x00\nUnsupported command: next\n"),
     "Unsupported command: \\x00\nUnsupported command: next\n"},
    {BYTES("  PING\n\033[31mred\007 x\nquit\n"),
     BYTES("Unsupported command: PING\n"
           "Unsupported command: \\x1b[31mred\\x07\n"),
     "Unsupported command: PING\nUnsupported command: \\x1b[31mred\\x07\n"},
    {BYTES("ping\necho Hello,socket\n\nfoo\necho  two  spaces \r\nping pong\n"
           "echo\nquit\nignored\n"),
     BYTES("pong\nHello,socket\nUnsupported command: foo\n two  spaces\npong\n"
           "\n"),
     "Unsupported command: foo\n"},
};

#define EXAMPLES (sizeof examples / sizeof *examples)

static bool holds(const struct example *example, const size_t *cuts)
{
    return answers(example->input, example->length, cuts, example->replies,
                   example->replies_length, example->screen);
}

static void each_row_of_the_protocol(void)
{
    for (size_t i = 0; i < EXAMPLES; i++)
        CU_ASSERT(holds(&examples[i], NULL));
}

static void segments_every_single_cut(void)
{
    for (size_t i = 0; i < EXAMPLES; i++) {
        for (size_t cut = 1; cut < examples[i].length; cut++) {
            size_t cuts[] = {cut, examples[i].length};

            CU_ASSERT(holds(&examples[i], cuts));
        }
    }
}

static void segments_byte_by_byte(void)
{
    size_t cuts[256];

    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        cuts[i] = i + 1;
    for (size_t i = 0; i < EXAMPLES; i++)
        if (examples[i].length > 0)
            CU_ASSERT(holds(&examples[i], cuts));
}

static void segments_random_cuts(void)
{
    unsigned seed = 1208;

    for (int round = 0; round < load(50); round++) {
        for (size_t i = 0; i < EXAMPLES; i++) {
            size_t cuts[256];
            size_t count = 0;

            for (size_t at = 1; at < examples[i].length; at++)
                if (rand_r(&seed) % 8 == 0)
                    cuts[count++] = at;
            cuts[count] = examples[i].length;
            CU_ASSERT(holds(&examples[i], cuts));
        }
    }
}

/* ---- Long lines --------------------------------------------------------- */

static const char too_long[] = "Line too long, limit 4096 bytes\n";

/* A line of `bytes` bytes in all, "echo xxx...", its '\n' included unless it
 * is `unfinished`, then "ping\n" after a finished one. */
static bool long_line_answers(size_t bytes, bool unfinished)
{
    char *input = malloc(bytes + 5);
    char *replies = malloc(bytes + 64);
    size_t replied;
    bool same;
    bool fits = unfinished ? bytes < LINE_LIMIT : bytes <= LINE_LIMIT;
    size_t text = bytes - 5 - !unfinished;

    memset(input, 'x', bytes);
    memcpy(input, "echo ", 5);
    memcpy(input + bytes - !unfinished, "\nping\n", unfinished ? 0 : 6);
    if (fits) {
        memset(replies, 'x', text);
        replies[text] = '\n';
        replied = text + 1;
    } else {
        replied = sizeof too_long - 1;
        memcpy(replies, too_long, replied);
    }
    if (!unfinished) {
        memcpy(replies + replied, "pong\n", 5);
        replied += 5;
    }
    same = answers(input, bytes + (unfinished ? 0 : 5), NULL, replies, replied,
                   "");
    free(input);
    free(replies);
    return same;
}

static void lines_up_to_the_limit(void)
{
    CU_ASSERT(long_line_answers(4095, false));
    CU_ASSERT(long_line_answers(4096, false));
    CU_ASSERT(long_line_answers(4095, true));
}

static void lines_beyond_the_limit(void)
{
    CU_ASSERT(long_line_answers(4097, false));
    CU_ASSERT(long_line_answers(8192, false));
    CU_ASSERT(long_line_answers(8193, false));
    CU_ASSERT(long_line_answers(1000000, false));
    CU_ASSERT(long_line_answers(4096, true));
    CU_ASSERT(long_line_answers(1000000, true));
}

/* The segment boundary at every place around the limit, and the replies in
 * front of and behind the long line in their order. */
static void a_long_line_in_any_segments(void)
{
    static char input[4 * LINE_LIMIT];
    static const char replies[] =
        "pong\nLine too long, limit 4096 bytes\nback\n";
    size_t length = 5;

    memcpy(input, "ping\n", length);
    memset(input + length, 'y', LINE_LIMIT + 100);
    length += LINE_LIMIT + 100;
    memcpy(input + length, "\necho back\n", 11);
    length += 11;
    for (size_t cut = 1; cut < length;
         cut += (cut < 4050 || cut > 4150) ? 97 : 1) {
        size_t cuts[] = {cut, length};

        CU_ASSERT(answers(input, length, cuts, BYTES(replies), ""));
    }
}

/* ---- Pipelining --------------------------------------------------------- */

static char *repeat(const char *text, int count)
{
    size_t length = strlen(text);
    char *all = malloc(length * (size_t)count + 1);

    for (int i = 0; i < count; i++)
        memcpy(all + length * (size_t)i, text, length);
    all[length * (size_t)count] = '\0';
    return all;
}

static void ten_thousand_pings(void)
{
    char *pings = repeat("ping\n", 10000);
    char *pongs = repeat("pong\n", 10000);

    CU_ASSERT(answers(pings, strlen(pings), NULL, pongs, strlen(pongs), ""));
    free(pings);
    free(pongs);
}

/* The dearest request there is, as many as one recv() can bring: the replies to
 * a full input buffer must fit into the output. */
static void the_dearest_requests(void)
{
    char *requests = repeat("\377\n", 100000);
    char *replies = repeat("Unsupported command: \\xff\n", 100000);

    CU_ASSERT(answers(requests, strlen(requests), NULL, replies,
                      strlen(replies), NULL));
    free(requests);
    free(replies);
}

/* A SOCK_SEQPACKET socket keeps the boundaries of each send() and recv(), so it
 * shows how many there were. */
static void replies_to_one_segment_in_one_segment(void)
{
    struct conversation talk;
    char *pings = repeat("ping\n", 64);
    char *pongs = repeat("pong\n", 64);
    char bytes[1024];

    open_conversation(&talk, SOCK_SEQPACKET);
    begin(&talk);
    CU_ASSERT(send_text(talk.ours, pings));
    CU_ASSERT_EQUAL(recv(talk.ours, bytes, sizeof bytes, 0), 64 * 5);
    CU_ASSERT_EQUAL(memcmp(bytes, pongs, 64 * 5), 0);
    (void)shutdown(talk.ours, SHUT_WR);
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
    free(pings);
    free(pongs);
}

/* ---- Bounds ------------------------------------------------------------- */

static void a_silent_client_times_out(void)
{
    struct conversation talk;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.idle_seconds = 1;
    CU_ASSERT(send_text(talk.ours, "ping\nhalf a li"));
    begin(&talk);
    CU_ASSERT(receives(talk.ours, "pong\nTimed out after 1 seconds\n"));
    CU_ASSERT(receives_end(talk.ours));
    (void)close(talk.ours);
    talk.ours = -1;
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
}

static void a_client_that_never_reads_times_out(void)
{
    struct conversation talk;
    char *pings = repeat("ping\n", 1000);
    struct timeval slice = {.tv_usec = 100000};
    long long since = now_ms();

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.idle_seconds = 1;
    (void)setsockopt(talk.ours, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof slice);
    begin(&talk);
    /* Until the handler, stuck in send(), takes no more. */
    while (send(talk.ours, pings, strlen(pings), MSG_NOSIGNAL) > 0)
        CU_ASSERT_FATAL(still_patient(since));
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
    free(pings);
}

/* What it gets when it reads at last is a beginning of its replies, with no
 * hole in it, also where they are longer than the requests. */
static void replies_to_a_client_that_gave_up_have_no_hole(void)
{
    struct conversation talk;
    struct timeval slice = {.tv_usec = 100000};
    static char requests[8 * 1000 + 1];
    static char replies[1 << 20];
    const char *reply;
    size_t length = 0;
    ssize_t count;
    int asked = 0;
    int answered = 0;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.idle_seconds = 1;
    (void)setsockopt(talk.ours, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof slice);
    begin(&talk);
    do /* a thousand lines at once, so that each recv() fills its buffer */
        for (size_t at = 0; at < sizeof requests - 1; at += 8)
            (void)snprintf(requests + at, 9, "%07d\n", asked++);
    while (send(talk.ours, requests, sizeof requests - 1, MSG_NOSIGNAL) > 0);
    /* Its second is over, and a second one is not: silence is what is tested.
     */
    (void)poll(NULL, 0, 1900);
    /* To the end, which may be a reset: it was given up. */
    while ((count = recv(talk.ours, replies + length,
                         sizeof replies - length - 1, 0)) > 0)
        length += (size_t)count;
    replies[length] = '\0';
    for (reply = replies; strchr(reply, '\n') != NULL;
         reply = strchr(reply, '\n') + 1) {
        char expected[64];

        if (strcmp(reply, "Timed out after 1 seconds\n") == 0) {
            /* A busy machine kept it from giving up. All are answered then,
             * but for the thousand that could not be sent. */
            CU_ASSERT_EQUAL(answered, asked - 1000);
            break;
        }
        (void)snprintf(expected, sizeof expected, "Unsupported command: %07d\n",
                       answered++);
        CU_ASSERT_FATAL(strncmp(reply, expected, strlen(expected)) == 0);
    }
    CU_ASSERT(answered > 100);
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
}

static void a_client_that_is_gone_costs_nothing(void)
{
    struct conversation talk;

    open_conversation(&talk, SOCK_STREAM);
    CU_ASSERT(send_text(talk.ours, "ping\nping\n"));
    (void)close(talk.ours);
    talk.ours = -1;
    begin(&talk);
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
}

/* After `quit` a client that neither hangs up nor stops sending is let go. */
static void hanging_up_is_bounded(void)
{
    struct conversation talk;
    long long since = now_ms();
    char *noise = repeat("noise\n", 1000);

    open_conversation(&talk, SOCK_STREAM);
    begin(&talk);
    CU_ASSERT(send_text(talk.ours, "quit\n"));
    CU_ASSERT(receives_end(talk.ours));
    while (send(talk.ours, noise, strlen(noise), MSG_NOSIGNAL) > 0)
        CU_ASSERT_FATAL(still_patient(since));
    CU_ASSERT_EQUAL(errno, EPIPE);
    CU_ASSERT(has_ended(&talk));
    close_conversation(&talk);
    free(noise);
}

/* The screen shows a hundred unsupported commands, and counts the others. */
static void a_flood_does_not_fill_the_screen(void)
{
    struct conversation talk;
    const int count = 10000;
    char *flood = repeat("x\n", count);
    char *replies;
    size_t length;
    const char *last;
    int shown = 0;

    open_conversation(&talk, SOCK_STREAM);
    talk.input = flood;
    talk.length = strlen(flood);
    begin(&talk);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&talk.feeder, NULL, feed, &talk), 0);
    replies = receive_all(talk.ours, &length);
    (void)pthread_join(talk.feeder, NULL);
    CU_ASSERT(has_ended(&talk));
    CU_ASSERT_EQUAL(length, (size_t)count * strlen("Unsupported command: x\n"));
    (void)fflush(talk.terms.screen);
    for (last = talk.screen; strncmp(last, "Unsupported command: x\n", 23) == 0;
         last += 23)
        shown++;
    CU_ASSERT_EQUAL(shown, 100);
    CU_ASSERT_STRING_EQUAL(last, "Unsupported commands not shown: 9900\n");
    close_conversation(&talk);
    free(replies);
    free(flood);
}

/* handler.h: "NULL: nobody looks". The client is told all the same. */
static void without_a_screen_the_client_is_told(void)
{
    struct conversation talk;
    char *flood = repeat("x\n", 101);
    char *replies = repeat("Unsupported command: x\n", 101);
    FILE *screen;

    open_conversation(&talk, SOCK_STREAM);
    screen = talk.terms.screen;
    talk.terms.screen = NULL;
    begin(&talk);
    CU_ASSERT(send_text(talk.ours, flood));
    CU_ASSERT(receives(talk.ours, replies));
    free(flood);
    free(replies);
    (void)shutdown(talk.ours, SHUT_WR);
    CU_ASSERT(has_ended(&talk));
    (void)fflush(screen);
    CU_ASSERT_EQUAL(talk.screen_length, 0);
    talk.terms.screen = screen;
    close_conversation(&talk);
}

/* ---- The stop ----------------------------------------------------------- */

static void on_wake(int number)
{
    (void)number;
}

/* Interrupts the handler's thread until it has returned, as handler.h asks. */
static bool is_woken(struct conversation *talk)
{
    struct sigaction action = {.sa_handler = on_wake};
    long long since = now_ms();

    (void)sigaction(SIGURG, &action, NULL);
    while (!atomic_load(&talk->over)) {
        (void)pthread_kill(talk->handler, SIGURG);
        if (!still_patient(since))
            return false;
    }
    return pthread_join(talk->handler, NULL) == 0;
}

static void the_stop_answers_what_has_arrived(void)
{
    struct conversation talk;
    atomic_bool stopping = false;
    char *replies;
    size_t length;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.stopping = &stopping;
    CU_ASSERT(send_text(talk.ours, "ping\necho a\nping\nhalf a li"));
    atomic_store(&stopping, true);
    begin(&talk);
    CU_ASSERT(is_woken(&talk));
    replies = receive_all(talk.ours, &length);
    CU_ASSERT_PTR_NOT_NULL_FATAL(replies);
    CU_ASSERT_STRING_EQUAL(replies, "pong\na\npong\n");
    free(replies);
    close_conversation(&talk);
}

/* Without a stop a signal means nothing: the conversation goes on. So it does
 * where nobody ever stops (handler.h, "NULL: never"). */
static void a_signal_alone_does_not_stop(void)
{
    atomic_bool stopping = false;
    struct sigaction action = {.sa_handler = on_wake};

    (void)sigaction(SIGURG, &action, NULL);
    for (int never = 0; never <= 1; never++) {
        struct conversation talk;

        open_conversation(&talk, SOCK_STREAM);
        talk.terms.stopping = never ? NULL : &stopping;
        begin(&talk);
        for (int i = 0; i < 100; i++) {
            (void)pthread_kill(talk.handler, SIGURG);
            CU_ASSERT_FATAL(send_text(talk.ours, "ping\n"));
            CU_ASSERT_FATAL(receives(talk.ours, "pong\n"));
        }
        (void)shutdown(talk.ours, SHUT_WR);
        CU_ASSERT(has_ended(&talk));
        close_conversation(&talk);
    }
}

/* Sends for ever: until the handler hangs up. */
static void *feed_without_end(void *argument)
{
    struct conversation *talk = argument;

    while (send_bytes(talk->ours, talk->input, talk->length))
        continue;
    return NULL;
}

/* A client that sends without a pause gets whole replies until the grace ends;
 * one that does not read is given up. */
static void the_stop_is_bounded(void)
{
    for (int reads = 0; reads <= 1; reads++) {
        struct conversation talk;
        atomic_bool stopping = false;
        char *pings = repeat("ping\n", 10000);
        char bytes[5 * 1000];
        size_t total = 0;
        ssize_t count = 1;

        open_conversation(&talk, SOCK_STREAM);
        talk.terms.stopping = &stopping;
        talk.input = pings;
        talk.length = strlen(pings);
        begin(&talk);
        CU_ASSERT_EQUAL_FATAL(
            pthread_create(&talk.feeder, NULL, feed_without_end, &talk), 0);
        CU_ASSERT(receives(talk.ours, "pong\n"));
        atomic_store(&stopping, true);
        while (reads && count > 0) {
            count = recv(talk.ours, bytes, sizeof bytes, 0);
            total += count > 0 ? (size_t)count : 0;
        }
        CU_ASSERT(!reads || (total > 0 && total % 5 == 0));
        CU_ASSERT(is_woken(&talk));
        (void)shutdown(talk.ours, SHUT_RDWR);
        (void)pthread_join(talk.feeder, NULL);
        close_conversation(&talk);
        free(pings);
    }
}

/* ---- Turning away ------------------------------------------------------- */

static void *turn_away(void *argument)
{
    struct conversation *talk = argument;

    refuse(talk->theirs, "No room\n");
    (void)close(talk->theirs);
    atomic_store(&talk->over, true);
    return NULL;
}

static void refuse_with_words(void)
{
    struct conversation talk;
    char *replies;
    size_t length;

    open_conversation(&talk, SOCK_STREAM);
    CU_ASSERT(send_text(talk.ours, "ping\nping\n"));
    CU_ASSERT_EQUAL_FATAL(pthread_create(&talk.handler, NULL, turn_away, &talk),
                          0);
    (void)shutdown(talk.ours, SHUT_WR);
    CU_ASSERT(has_ended(&talk));
    replies = receive_all(talk.ours, &length);
    CU_ASSERT_PTR_NOT_NULL_FATAL(replies);
    CU_ASSERT_STRING_EQUAL(replies, "No room\n");
    free(replies);
    close_conversation(&talk);
}

/* ---- Over TCP ----------------------------------------------------------- */

/* A connected pair of TCP sockets on loopback: what socketpair(2) does not do.
 */
static void connect_pair(int listening, struct conversation *talk)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    CU_ASSERT_EQUAL_FATAL(
        getsockname(listening, (struct sockaddr *)&address, &length), 0);
    talk->ours = connect_to("127.0.0.1", ntohs(address.sin_port));
    CU_ASSERT_FATAL(talk->ours >= 0);
    talk->theirs = accept(listening, NULL, NULL);
    CU_ASSERT_FATAL(talk->theirs >= 0);
}

/* Everything is sent, and the server has closed, before the client reads: an
 * RST would be there by then, and end the stream with ECONNRESET. */
static bool answers_over_tcp(int listening, const char *input,
                             const char *expected)
{
    struct conversation talk = {.input = input, .length = strlen(input)};
    size_t length;
    char *replies;
    bool same;

    connect_pair(listening, &talk);
    CU_ASSERT_FATAL(send_text(talk.ours, input));
    (void)shutdown(talk.ours, SHUT_WR);
    begin(&talk);
    if (!has_ended(&talk))
        return false;
    replies = receive_all(talk.ours, &length);
    same =
        replies && length == strlen(expected) && strcmp(replies, expected) == 0;
    free(replies);
    (void)close(talk.ours);
    return same;
}

static void no_reset_eats_a_reply(void)
{
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char *pings = repeat("ping\n", 10000);
    char *pongs = repeat("pong\n", 10000);
    const size_t many = 500000;

    CU_ASSERT_EQUAL_FATAL(bind(listening, (struct sockaddr *)&any, sizeof any),
                          0);
    CU_ASSERT_EQUAL_FATAL(listen(listening, 8), 0);
    for (int i = 0; i < load(1000); i++)
        CU_ASSERT(answers_over_tcp(listening, "ping\nquit\nping\n", "pong\n"));
    for (int i = 0; i < load(1000); i++)
        CU_ASSERT(answers_over_tcp(listening, pings, pongs));
    free(pings);
    free(pongs);

    /* More replies than the client's kernel has room for, so that most of them
     * still wait in the server's when it closes, and more input behind the
     * `quit` than one recv() takes. A reset would drop them. */
    pings = malloc(2 * many + 6);
    pongs = repeat("pong\n", (int)many / 5);
    for (size_t i = 0; i < 2 * many; i++)
        pings[i] = "ping\n"[i % 5];
    memcpy(pings + many, "quit\n", 5);
    pings[2 * many] = '\0';
    for (int i = 0; i < load(100); i++)
        CU_ASSERT(answers_over_tcp(listening, pings, pongs));
    free(pings);
    free(pongs);
    (void)close(listening);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"parse_commands", parse_commands},
        {"parse_white_space", parse_white_space},
        {"parse_near_misses", parse_near_misses},
        {"compose_replies", compose_replies},
        {"each_row_of_the_protocol", each_row_of_the_protocol},
        {"segments_every_single_cut", segments_every_single_cut},
        {"segments_byte_by_byte", segments_byte_by_byte},
        {"segments_random_cuts", segments_random_cuts},
        {"lines_up_to_the_limit", lines_up_to_the_limit},
        {"lines_beyond_the_limit", lines_beyond_the_limit},
        {"a_long_line_in_any_segments", a_long_line_in_any_segments},
        {"ten_thousand_pings", ten_thousand_pings},
        {"the_dearest_requests", the_dearest_requests},
        {"replies_to_one_segment_in_one_segment",
         replies_to_one_segment_in_one_segment},
        {"a_silent_client_times_out", a_silent_client_times_out},
        {"a_client_that_never_reads_times_out",
         a_client_that_never_reads_times_out},
        {"replies_to_a_client_that_gave_up_have_no_hole",
         replies_to_a_client_that_gave_up_have_no_hole},
        {"a_client_that_is_gone_costs_nothing",
         a_client_that_is_gone_costs_nothing},
        {"hanging_up_is_bounded", hanging_up_is_bounded},
        {"a_flood_does_not_fill_the_screen", a_flood_does_not_fill_the_screen},
        {"without_a_screen_the_client_is_told",
         without_a_screen_the_client_is_told},
        {"the_stop_answers_what_has_arrived",
         the_stop_answers_what_has_arrived},
        {"a_signal_alone_does_not_stop", a_signal_alone_does_not_stop},
        {"the_stop_is_bounded", the_stop_is_bounded},
        {"refuse_with_words", refuse_with_words},
        {"no_reset_eats_a_reply", no_reset_eats_a_reply},
        {NULL, NULL},
    };

    return run_suite("handler", tests, argc, argv);
}
