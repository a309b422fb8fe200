/*
 * test_handler.c - the protocol, every row of it, over a socketpair(2): no
 * server, no network, no ports. Last, a few conversations over TCP, since only
 * TCP has an RST that could eat a reply.
 */
#include "handler.h"
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
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

/* A byte string with NULs in it, and its length. */
#define BYTES(literal) (literal), sizeof(literal) - 1

/* The text so many times. The fourth call after this one frees it. */
static char *repeat(const char *text, int count)
{
    static char *texts[4];
    static int next;
    size_t length = strlen(text);
    char **all = &texts[next++ % 4];

    free(*all);
    *all = malloc(length * (size_t)count + 1);
    CHECK(*all != NULL);
    for (int i = 0; i < count; i++)
        memcpy(*all + length * (size_t)i, text, length);
    (*all)[length * (size_t)count] = '\0';
    return *all;
}

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

    CHECK_EQUAL(socketpair(AF_UNIX, type, 0, ends), 0);
    *talk = (struct conversation){.ours = ends[0], .theirs = ends[1]};
    talk->terms.screen = open_memstream(&talk->screen, &talk->screen_length);
    CHECK(talk->terms.screen != NULL);
}

static void begin(struct conversation *talk)
{
    CHECK_EQUAL(pthread_create(&talk->handler, NULL, handle, talk), 0);
}

/* Waits for converse() to return. False if it does not. (A flag and then
 * pthread_join(3), since helgrind does not know pthread_timedjoin_np(3).) */
static bool has_ended(struct conversation *talk)
{
    long long since = now_ms();

    while (!atomic_load(&talk->over)) {
        if (!still_patient(since)) {
            note("converse() does not return");
            return false;
        }
    }
    return pthread_join(talk->handler, NULL) == 0;
}

static void close_conversation(struct conversation *talk)
{
    (void)close(talk->ours);
    (void)fclose(talk->terms.screen);
    free(talk->screen);
}

/* True if converse() returns. That is the end of the test. */
static bool is_over(struct conversation *talk)
{
    bool ended = has_ended(talk);

    close_conversation(talk);
    return ended;
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

/* Begins a conversation in which a thread sends the input. */
static void begin_and_feed(struct conversation *talk, const char *input,
                           size_t length, void *(*feeder)(void *))
{
    talk->input = input;
    talk->length = length;
    begin(talk);
    CHECK_EQUAL(pthread_create(&talk->feeder, NULL, feeder, talk), 0);
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
    talk.cuts = cuts;
    begin_and_feed(&talk, input, length, feed);
    bytes = receive_all(talk.ours, &received);
    (void)pthread_join(talk.feeder, NULL);
    if (bytes == NULL)
        note("the conversation broke: %s", strerror(errno));
    same = bytes && is_bytes(bytes, received, replies, replies_length) &&
           has_ended(&talk);
    (void)fflush(talk.terms.screen);
    same = same && (screen == NULL || is_text(talk.screen, screen));
    close_conversation(&talk);
    return same;
}

/* ---- The parser --------------------------------------------------------- */

static bool parses(const char *line, size_t length, enum command command,
                   const char *text, size_t text_length)
{
    struct request request = parse(line, length);

    return is_number(request.command, command) &&
           is_bytes(request.text, request.length, text, text_length);
}

TEST(parse_commands)
{
    CHECK(parses(BYTES("ping"), PING_COMMAND, BYTES("")));
    CHECK(parses(BYTES("ping pong \0"), PING_COMMAND, BYTES("pong \0")));
    CHECK(parses(BYTES("quit"), QUIT_COMMAND, BYTES("")));
    CHECK(parses(BYTES("quit now"), QUIT_COMMAND, BYTES("now")));
    CHECK(parses(BYTES("echo"), ECHO_COMMAND, BYTES("")));
    CHECK(parses(BYTES("echo Hello,socket"), ECHO_COMMAND,
                 BYTES("Hello,socket")));
    CHECK(parses(BYTES("echo a  b"), ECHO_COMMAND, BYTES("a  b")));
    CHECK(parses(BYTES("echo  a"), ECHO_COMMAND, BYTES(" a")));
    CHECK(parses(BYTES("echo \ta"), ECHO_COMMAND, BYTES("\ta")));
    CHECK(parses(BYTES("foo bar"), UNSUPPORTED_COMMAND, BYTES("foo")));
}

TEST(parse_white_space)
{
    CHECK(parses(BYTES(""), NO_COMMAND, BYTES("")));
    CHECK(parses(BYTES(" \t\r\v\f"), NO_COMMAND, BYTES("")));
    CHECK(parses(BYTES("\r\v\f\t ping\t \r"), PING_COMMAND, BYTES("")));
    CHECK(parses(BYTES(" echo a b \r"), ECHO_COMMAND, BYTES("a b")));
    CHECK(parses(BYTES("echo \t "), ECHO_COMMAND, BYTES("")));
    /* A word ends at a space and at nothing else. */
    CHECK(parses(BYTES("ping\tx"), UNSUPPORTED_COMMAND, BYTES("ping\tx")));
    CHECK(parses(BYTES("echo\tx y"), UNSUPPORTED_COMMAND, BYTES("echo\tx")));
}

TEST(parse_near_misses)
{
    CHECK(parses(BYTES("PING"), UNSUPPORTED_COMMAND, BYTES("PING")));
    CHECK(parses(BYTES("pin"), UNSUPPORTED_COMMAND, BYTES("pin")));
    CHECK(parses(BYTES("pingping"), UNSUPPORTED_COMMAND, BYTES("pingping")));
    CHECK(parses(BYTES("ping\0"), UNSUPPORTED_COMMAND, BYTES("ping\0")));
    CHECK(parses(BYTES("\0"), UNSUPPORTED_COMMAND, BYTES("\0")));
    CHECK(parses(BYTES("echo \0\377"), ECHO_COMMAND, BYTES("\0\377")));
    CHECK(parses(BYTES("\377\200"), UNSUPPORTED_COMMAND, BYTES("\377\200")));
}

static bool composes(const char *line, size_t length, const char *expected,
                     size_t expected_length)
{
    char reply[REPLY_LIMIT];

    return is_bytes(reply, compose(parse(line, length), reply), expected,
                    expected_length);
}

TEST(compose_replies)
{
    char word[WORD_LIMIT + 2];
    char expected[512];

    CHECK(composes(BYTES("ping"), BYTES("pong\n")));
    CHECK(composes(BYTES("echo"), BYTES("\n")));
    CHECK(composes(BYTES("echo a\0b"), BYTES("a\0b\n")));
    CHECK(composes(BYTES("quit"), BYTES("")));
    CHECK(composes(BYTES(" "), BYTES("")));
    CHECK(composes(BYTES("foo bar"), BYTES("Unsupported command: foo\n")));
    CHECK(composes(BYTES("\033[2J\n\177~!\\x"),
                   BYTES("Unsupported command: \\x1b[2J\\x0a\\x7f~!\\x\n")));
    CHECK(
        composes(BYTES("\0\377"), BYTES("Unsupported command: \\x00\\xff\n")));

    /* 64 bytes are shown whole, of 65 the first 64. */
    memset(word, 'w', sizeof word);
    (void)snprintf(expected, sizeof expected, "Unsupported command: %.64s\n",
                   word);
    CHECK(composes(word, WORD_LIMIT, expected, strlen(expected)));
    (void)snprintf(expected, sizeof expected, "Unsupported command: %.64s...\n",
                   word);
    CHECK(composes(word, WORD_LIMIT + 1, expected, strlen(expected)));
}

/* Also a command that is new. (The compiler names each switch without it.) */
TEST(each_command_has_a_reply)
{
    for (int i = NO_COMMAND; i <= UNSUPPORTED_COMMAND; i++) {
        struct request request = {(enum command)i, "x", 1};
        char reply[REPLY_LIMIT];
        size_t length = compose(request, reply);

        CHECK(length == 0 || length > 1);
        CHECK(length == 0 || reply[length - 1] == '\n');
        CHECK((length == 0) == (i == NO_COMMAND || i == QUIT_COMMAND));
    }
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

TEST(each_row_of_the_protocol)
{
    for (size_t i = 0; i < EXAMPLES; i++)
        CHECK(holds(&examples[i], NULL));
}

static bool is_still_open(struct conversation *talk)
{
    bool open = send_text(talk->ours, "more");

    if (!open)
        note("the end came by close(): is the shutdown() before it missing?");
    return open;
}

/* After `quit` the end of the connection comes at once, and then the handler
 * reads on for a while, so that the client may close first. */
static void quit(struct conversation *talk)
{
    open_conversation(talk, SOCK_STREAM);
    begin(talk);
    CHECK(send_text(talk->ours, "quit\n"));
    CHECK(receives_end(talk->ours));
    CHECK(is_still_open(talk));
}

TEST(a_client_that_never_closes_is_let_go)
{
    struct conversation talk;

    quit(&talk);
    CHECK(is_over(&talk));
}

TEST(segments_every_single_cut)
{
    for (size_t i = 0; i < EXAMPLES; i++) {
        for (size_t cut = 1; cut < examples[i].length; cut++) {
            size_t cuts[] = {cut, examples[i].length};

            CHECK(holds(&examples[i], cuts));
        }
    }
}

TEST(segments_byte_by_byte)
{
    size_t cuts[256];

    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        cuts[i] = i + 1;
    for (size_t i = 0; i < EXAMPLES; i++)
        if (examples[i].length > 0)
            CHECK(holds(&examples[i], cuts));
}

/* ---- Long lines --------------------------------------------------------- */

static const char too_long[] = "Line too long, limit 4096 bytes\n";

/* A line of `bytes` bytes in all, "echo xxx...", its '\n' included unless it
 * is `unfinished`, then "ping\n" after a finished one. */
static bool long_line_answers(size_t bytes, bool unfinished)
{
    const char *more = unfinished ? "" : "\nping\n";
    bool fits = unfinished ? bytes < LINE_LIMIT : bytes <= LINE_LIMIT;
    int text = (int)bytes - 5 - !unfinished;
    char *letters = repeat("x", text);
    char *input = malloc(bytes + 64);
    char *replies = malloc(bytes + 64);
    bool same;

    (void)sprintf(input, "echo %s%s", letters, more);
    (void)sprintf(replies, "%s%s%s", fits ? letters : too_long,
                  fits ? "\n" : "", unfinished ? "" : "pong\n");
    same = answers(input, strlen(input), NULL, replies, strlen(replies), "");
    free(input);
    free(replies);
    return same;
}

TEST(lines_up_to_the_limit)
{
    CHECK(long_line_answers(4095, false));
    CHECK(long_line_answers(4096, false));
    CHECK(long_line_answers(4095, true));
}

TEST(lines_beyond_the_limit)
{
    CHECK(long_line_answers(4097, false));
    CHECK(long_line_answers(8192, false));
    CHECK(long_line_answers(8193, false));
    CHECK(long_line_answers(1000000, false));
    CHECK(long_line_answers(4096, true));
    CHECK(long_line_answers(1000000, true));
}

/* The segment boundary at every place around the limit, and the replies in
 * front of and behind the long line in their order. */
TEST(a_long_line_in_any_segments)
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

        CHECK(answers(input, length, cuts, BYTES(replies), ""));
    }
}

/* ---- Pipelining --------------------------------------------------------- */

/* The dearest request there is, as many as one recv() can bring: the replies to
 * a full input buffer must fit into the output. */
TEST(the_dearest_requests)
{
    char *requests = repeat("\377\n", 100000);
    char *replies = repeat("Unsupported command: \\xff\n", 100000);

    CHECK(answers(requests, strlen(requests), NULL, replies, strlen(replies),
                  NULL));
}

/* A SOCK_SEQPACKET socket keeps the boundaries of each send() and recv(), so it
 * shows how many there were. */
TEST(replies_to_one_segment_in_one_segment)
{
    struct conversation talk;
    char *pings = repeat("ping\n", 64);
    char *pongs = repeat("pong\n", 64);
    char bytes[1024];

    open_conversation(&talk, SOCK_SEQPACKET);
    begin(&talk);
    CHECK(send_text(talk.ours, pings));
    CHECK_EQUAL(recv(talk.ours, bytes, sizeof bytes, 0), 64 * 5);
    CHECK_EQUAL(memcmp(bytes, pongs, 64 * 5), 0);
    (void)shutdown(talk.ours, SHUT_WR);
    CHECK(is_over(&talk));
}

/* ---- Bounds ------------------------------------------------------------- */

TEST(a_silent_client_times_out)
{
    struct conversation talk;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.idle_seconds = 1;
    CHECK(send_text(talk.ours, "ping\nhalf a li"));
    begin(&talk);
    CHECK(receives(talk.ours, "pong\nTimed out after 1 seconds\n"));
    CHECK(receives_end(talk.ours));
    CHECK(send_text(talk.ours, "ne\n")); /* too late, and somebody reads it */
    (void)shutdown(talk.ours, SHUT_RDWR);
    CHECK(is_over(&talk));
}

TEST(a_client_that_never_reads_times_out)
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
        CHECK(still_patient(since));
    CHECK(is_over(&talk));
}

TEST(a_client_that_never_stops_sending_is_let_go)
{
    struct conversation talk;
    long long since = now_ms();
    static char noise[6000];
    size_t total = 0;
    ssize_t count;

    quit(&talk);
    while ((count = send(talk.ours, noise, sizeof noise, MSG_NOSIGNAL)) > 0) {
        total += (size_t)count;
        CHECK(now_ms() - since < PATIENCE_MS);
    }
    CHECK(has_ended(&talk));
    CHECK(total < 20 * 1024 * 1024); /* 16 MB, and what the buffers hold */
    close_conversation(&talk);
}

/* A byte now and then: neither the silence nor the bytes end it, but time. */
TEST(a_client_that_sends_slowly_is_let_go)
{
    struct conversation talk;
    long long since = now_ms();

    quit(&talk);
    while (send(talk.ours, "x", 1, MSG_NOSIGNAL) == 1)
        CHECK(still_patient(since));
    CHECK(is_over(&talk));
}

/* The screen shows a hundred unsupported commands, and counts the others. */
TEST(a_flood_does_not_fill_the_screen)
{
    struct conversation talk;
    const int count = 10000;
    char *flood = repeat("x\n", count);
    size_t length;
    const char *last;
    int shown = 0;

    open_conversation(&talk, SOCK_STREAM);
    begin_and_feed(&talk, flood, strlen(flood), feed);
    CHECK(receive_all(talk.ours, &length) != NULL);
    (void)pthread_join(talk.feeder, NULL);
    CHECK(has_ended(&talk));
    CHECK_EQUAL(length, (size_t)count * strlen("Unsupported command: x\n"));
    (void)fflush(talk.terms.screen);
    for (last = talk.screen; strncmp(last, "Unsupported command: x\n", 23) == 0;
         last += 23)
        shown++;
    CHECK_EQUAL(shown, 100);
    CHECK_TEXT(last, "Unsupported commands not shown: 9900\n");
    close_conversation(&talk);
}

/* A screen that loses its first line, as a full disk may have it. */
static ssize_t write_but_the_first(void *cookie, const char *bytes,
                                   size_t length)
{
    FILE **screen = cookie;
    FILE *to = *screen;

    if (*bytes == 'U' && ftell(to) == 0 && fputc('.', to) == '.')
        return 0; /* fopencookie(3): an error */
    return (ssize_t)fwrite(bytes, 1, length, to);
}

TEST(a_line_that_the_screen_loses_is_counted)
{
    struct conversation talk;
    FILE *screen;

    open_conversation(&talk, SOCK_STREAM);
    screen = talk.terms.screen;
    talk.terms.screen = fopencookie(
        &screen, "w", (cookie_io_functions_t){.write = write_but_the_first});
    CHECK(talk.terms.screen != NULL);
    (void)setvbuf(talk.terms.screen, NULL, _IOLBF, BUFSIZ);
    begin(&talk);
    CHECK(send_text(talk.ours, "foo\nbar\n"));
    (void)shutdown(talk.ours, SHUT_WR);
    CHECK(has_ended(&talk));
    (void)fclose(talk.terms.screen);
    talk.terms.screen = screen;
    (void)fflush(screen);
    CHECK_TEXT(talk.screen, ".Unsupported command: bar\n"
                            "Unsupported commands not shown: 1\n");
    close_conversation(&talk);
}

/* handler.h: "NULL: nobody looks". The client is told all the same. */
TEST(without_a_screen_the_client_is_told)
{
    struct conversation talk;
    char *flood = repeat("x\n", 101);
    char *replies = repeat("Unsupported command: x\n", 101);
    FILE *screen;

    open_conversation(&talk, SOCK_STREAM);
    screen = talk.terms.screen;
    talk.terms.screen = NULL;
    begin(&talk);
    CHECK(send_text(talk.ours, flood));
    CHECK(receives(talk.ours, replies));
    (void)shutdown(talk.ours, SHUT_WR);
    CHECK(has_ended(&talk));
    (void)fflush(screen);
    CHECK_EQUAL(talk.screen_length, 0);
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

TEST(the_stop_answers_what_has_arrived)
{
    struct conversation talk;
    atomic_bool stopping = false;
    char *replies;
    size_t length;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.stopping = &stopping;
    CHECK(send_text(talk.ours, "ping\necho a\nping\nhalf a li"));
    atomic_store(&stopping, true);
    begin(&talk);
    CHECK(is_woken(&talk));
    replies = receive_all(talk.ours, &length);
    CHECK(replies != NULL);
    CHECK_TEXT(replies, "pong\na\npong\n");
    close_conversation(&talk);
}

/* Without a stop a signal means nothing: the conversation goes on. So it does
 * where nobody ever stops (handler.h, "NULL: never"). */
TEST(a_signal_alone_does_not_stop)
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
            CHECK(send_text(talk.ours, "ping\n"));
            CHECK(receives(talk.ours, "pong\n"));
        }
        (void)shutdown(talk.ours, SHUT_WR);
        CHECK(is_over(&talk));
    }
}

/* The client's end, for a signal handler that sends, once. */
static atomic_int last_words_go_to = -1;

static void on_wake_send(int number)
{
    int saved = errno;
    int socket = atomic_exchange(&last_words_go_to, -1);

    (void)number;
    if (socket >= 0)
        (void)!write(socket, "ping\n", 5);
    errno = saved;
}

/* The bytes arrive while recv() is being interrupted. It fails with EINTR, and
 * they are answered all the same. */
TEST(the_stop_answers_what_comes_with_the_signal)
{
    struct sigaction action = {.sa_handler = on_wake_send};

    (void)sigaction(SIGURG, &action, NULL);
    for (int i = 0; i < load(20); i++) {
        struct conversation talk;
        atomic_bool stopping = false;

        open_conversation(&talk, SOCK_STREAM);
        talk.terms.stopping = &stopping;
        begin(&talk);
        CHECK(send_text(talk.ours, "ping\n"));
        CHECK(receives(talk.ours, "pong\n"));
        (void)poll(NULL, 0, 1); /* it goes back to recv() */
        last_words_go_to = talk.ours;
        atomic_store(&stopping, true);
        (void)pthread_kill(talk.handler, SIGURG);
        CHECK(receives(talk.ours, "pong\n"));
        (void)shutdown(talk.ours, SHUT_WR);
        CHECK(is_over(&talk));
    }
}

/* The handler waits in send(), since nobody reads. Signals end its wait, and
 * all replies come all the same. */
TEST(a_signal_during_send_loses_nothing)
{
    struct sigaction action = {.sa_handler = on_wake};
    struct conversation talk;
    char *pings = repeat("ping\n", 100000);
    char *replies;
    size_t length;

    (void)sigaction(SIGURG, &action, NULL);
    open_conversation(&talk, SOCK_STREAM);
    begin_and_feed(&talk, pings, strlen(pings), feed);
    for (int i = 0; i < 100; i++) {
        (void)pthread_kill(talk.handler, SIGURG);
        (void)poll(NULL, 0, 1);
    }
    replies = receive_all(talk.ours, &length);
    CHECK(replies != NULL);
    CHECK_EQUAL(length, strlen(pings));
    (void)pthread_join(talk.feeder, NULL);
    CHECK(is_over(&talk));
}

/* Sends for ever: until the handler hangs up. */
static void *feed_without_end(void *argument)
{
    struct conversation *talk = argument;

    while (send_bytes(talk->ours, talk->input, talk->length))
        continue;
    return NULL;
}

static void stop_while_it_sends(bool reads)
{
    struct conversation talk;
    atomic_bool stopping = false;
    char *pings = repeat("ping\n", 10000);
    char bytes[5 * 1000];
    size_t total = 0;
    ssize_t count = 1;

    open_conversation(&talk, SOCK_STREAM);
    talk.terms.stopping = &stopping;
    begin_and_feed(&talk, pings, strlen(pings), feed_without_end);
    CHECK(receives(talk.ours, "pong\n"));
    atomic_store(&stopping, true);
    while (reads && count > 0) {
        count = recv(talk.ours, bytes, sizeof bytes, 0);
        total += count > 0 ? (size_t)count : 0;
    }
    CHECK(!reads || (total > 0 && total % 5 == 0));
    CHECK(is_woken(&talk));
    (void)shutdown(talk.ours, SHUT_RDWR);
    (void)pthread_join(talk.feeder, NULL);
    close_conversation(&talk);
}

/* A client that sends without a pause gets whole replies until the grace ends;
 * one that does not read is given up. */
TEST(the_stop_is_bounded)
{
    stop_while_it_sends(true);
}

TEST(the_stop_gives_up_who_never_reads)
{
    stop_while_it_sends(false);
}

/* ---- Turning away ------------------------------------------------------- */

TEST(refuse_with_words)
{
    struct conversation talk;

    open_conversation(&talk, SOCK_STREAM);
    CHECK(send_text(talk.ours, "ping\nping\n"));
    (void)shutdown(talk.ours, SHUT_WR);
    refuse(talk.theirs, "No room\n");
    CHECK(fcntl(talk.theirs, F_GETFL) & O_NONBLOCK); /* it waits for nobody */
    (void)close(talk.theirs);
    CHECK(receives(talk.ours, "No room\n"));
    CHECK(receives_end(talk.ours));
    close_conversation(&talk);
}

/* ---- Over TCP ----------------------------------------------------------- */

/* Everything is sent, and the server has closed, before the client reads: an
 * RST would be there by then, and end the stream with ECONNRESET. The server's
 * kernel has room for all replies; the client's for so many bytes. */
static bool answers_over_tcp(const char *input, const char *expected, int room)
{
    struct conversation talk = {.ours = -1};
    const int much = 1 << 20;
    size_t length;
    char *replies;
    bool same;
    int port;
    int listening = listen_on(1, &port);

    talk.ours = connect_to("127.0.0.1", port);
    talk.theirs = accept(listening, NULL, NULL);
    CHECK(talk.ours >= 0 && talk.theirs >= 0);
    (void)close(listening);
    (void)setsockopt(talk.theirs, SOL_SOCKET, SO_SNDBUF, &much, sizeof much);
    (void)setsockopt(talk.ours, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    begin(&talk);
    CHECK(send_text(talk.ours, input));
    (void)shutdown(talk.ours, SHUT_WR);
    if (!has_ended(&talk))
        return false;
    replies = receive_all(talk.ours, &length);
    if (replies == NULL)
        note("the replies are lost: %s", strerror(errno));
    same = replies && is_text(replies, expected);
    (void)close(talk.ours);
    return same;
}

TEST(no_reset_eats_a_reply)
{
    char *pings = repeat("ping\n", 10000);
    char *pongs = repeat("pong\n", 10000);
    char *more = malloc(2 * strlen(pings) + 6);

    /* More input behind `quit` than one recv() takes. */
    (void)sprintf(more, "%squit\n%s", pings, pings);
    for (int i = 0; i < load(20); i++) {
        CHECK(answers_over_tcp("ping\nquit\nping\n", "pong\n", 65536));
        CHECK(answers_over_tcp(pings, pongs, 65536));
    }
    for (int i = 0; i < load(5); i++)
        CHECK(answers_over_tcp(more, pongs, 8192));
    free(more);
}
