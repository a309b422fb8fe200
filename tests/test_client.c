/*
 * test_client.c - the real ./client, against the real ./server and against
 * servers that behave worse.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_MISUSE "client: -U: needs a path, and no family, host or port"
#define USAGE \
    "usage: ./client [-46] [-w seconds] [host [port]]      (localhost 1208)"

/* ---- Helpers ------------------------------------------------------------ */

static bool start_client(struct program *client, int port)
{
    char text[16];
    const char *argv[] = {"client", "127.0.0.1", text, NULL};

    (void)snprintf(text, sizeof text, "%d", port);
    return start(client, argv);
}

static void end_input(struct program *client)
{
    (void)close(client->input);
    client->input = -1;
}

static bool type(const struct program *client, const char *text)
{
    return write(client->input, text, strlen(text)) == (ssize_t)strlen(text);
}

/* "Trying" and "Connected to", whose own port is the kernel's choice. */
static bool connects(const struct program *client, int port)
{
    char line[256];
    char expected[256];
    const char *own;

    if (!next_line_is(client->errors, "Trying 127.0.0.1...") ||
        !next_line(client->errors, line, sizeof line))
        return false;
    own = strstr(line, "127.0.0.1, ");
    (void)snprintf(
        expected, sizeof expected,
        "Connected to 127.0.0.1: [tcp, 127.0.0.1, %d, 127.0.0.1, %d]",
        own ? atoi(own + 11) : 0, port);
    return strcmp(line, expected) == 0;
}

/* A server of the test's own, on loopback. */
static int listen_on(int backlog, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);

    CHECK_EQUAL(bind(listening, (struct sockaddr *)&address, sizeof address),
                0);
    CHECK_EQUAL(listen(listening, backlog), 0);
    CHECK_EQUAL(getsockname(listening, (struct sockaddr *)&address, &length),
                0);
    *port = ntohs(address.sin_port);
    return listening;
}

/* Runs a command of the shell in which $client, $port and $dir are known. What
 * it leaves in $dir/e is for the report. */
static bool shell_succeeds(const char *command, int port)
{
    struct program shell;
    char script[1024];
    const char *programs = getenv("PROGRAMS");
    const char *wrapper = getenv("WRAPPER");
    const char *argv[] = {"/bin/sh", "-c", script, NULL};

    (void)snprintf(script, sizeof script,
                   "client='%s %s/client'; port=%d; dir='%s'; { %s; } || "
                   "{ cat $dir/e >&2 2>/dev/null; exit 1; }",
                   wrapper ? wrapper : "", programs ? programs : ".", port,
                   scratch("."), command);
    CHECK(start(&shell, argv));
    end_input(&shell);
    return ends(&shell, 0);
}

static bool last_words(struct program *client, const char *line, int status)
{
    return next_line_is(client->errors, line) && ends(client, status);
}

/* ---- Conversations ------------------------------------------------------ */

static void the_session(void)
{
    struct program server;
    struct program client;
    char line[256];

    CHECK(start_server(&server, NULL));
    CHECK(start_client(&client, server.port));
    CHECK(connects(&client, server.port));
    CHECK(type(&client, "ping\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK(type(&client, "echo Hello,socket\n"));
    CHECK(next_line_is(client.output, "Hello,socket"));
    CHECK(type(&client, "foo\n"));
    CHECK(next_line_is(client.output, "Unsupported command: foo"));
    CHECK(type(&client, "quit\n"));
    CHECK(next_line_is(client.errors, "Connection closed by foreign host."));
    CHECK(!next_line(client.output, line, sizeof line));
    CHECK(!next_line(client.errors, line, sizeof line));
    /* Its input is still open: it is the server that ended it. */
    CHECK(ends(&client, 0));
    CHECK(stops(&server));
}

/* It does not matter what the input says behind `quit`. */
static void quit_in_every_shape(void)
{
    static const struct {
        const char *parts[2];
        int status;
    } shapes[] = {{{"ping\n", "quit\n"}, 0},
                  {{"ping\nquit", "\n"}, 0},
                  {{"\n", " \t quit now\r\n"}, 0},
                  {{"quit\nping\n", ""}, 0},
                  {{"", "quit\n\n"}, 0}};
    struct program server;

    CHECK(start_server(&server, NULL));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct program client;

        CHECK(start_client(&client, server.port));
        CHECK(connects(&client, server.port));
        for (int part = 0; part < 2; part++) /* EPIPE: it is gone already */
            CHECK(type(&client, shapes[i].parts[part]) || errno == EPIPE);
        CHECK(last_words(&client, "Connection closed by foreign host.",
                         shapes[i].status));
    }
    CHECK(shell_succeeds("printf 'ping\nquit' | $client -w 30 127.0.0.1 "
                         "$port 2>/dev/null | grep -qx pong",
                         server.port));
    CHECK(stops(&server));
}

static void end_of_input_is_a_half_close(void)
{
    struct program server;
    struct program client;

    CHECK(start_server(&server, NULL));
    CHECK(start_client(&client, server.port));
    CHECK(connects(&client, server.port));
    CHECK(type(&client, "ping\necho no line end"));
    end_input(&client);
    CHECK(next_line_is(client.output, "pong"));
    CHECK(next_line_is(client.output, "no line end"));
    CHECK(last_words(&client, "Connection closed by foreign host.", 0));
    CHECK(stops(&server));
}

static void two_hundred_thousand_lines(void)
{
    struct program server;
    char command[512];

    CHECK(start_server(&server, NULL));
    (void)snprintf(command, sizeof command,
                   "seq 1 %d > $dir/numbers && sed 's/^/echo /' $dir/numbers | "
                   "$client 127.0.0.1 $port 2>/dev/null > $dir/replies && "
                   "cmp $dir/numbers $dir/replies",
                   load(200000));
    CHECK(shell_succeeds(command, server.port));
    CHECK(stops(&server));
}

/* Whatever the bytes, they go both ways as they are. */
static void any_bytes_to_any_server(void)
{
    int port;
    int listening = listen_on(1, &port);
    struct program client;
    char sent[256];
    char received[256];
    int accepted;

    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (char)(i - 128);
    CHECK(start_client(&client, port));
    CHECK(connects(&client, port));
    accepted = accept(listening, NULL, NULL);
    CHECK_EQUAL(write(client.input, sent, sizeof sent), sizeof sent);
    CHECK(receive_bytes(accepted, received, sizeof received));
    CHECK_EQUAL(memcmp(sent, received, sizeof sent), 0);
    CHECK(send_bytes(accepted, received, sizeof received));
    memset(received, 0, sizeof received);
    for (size_t got = 0; got < sizeof received;) {
        ssize_t count =
            read(client.output, received + got, sizeof received - got);

        CHECK(count > 0);
        got += (size_t)count;
    }
    CHECK_EQUAL(memcmp(sent, received, sizeof sent), 0);
    end_input(&client);
    CHECK(receives_end(accepted));
    (void)close(accepted);
    CHECK(last_words(&client, "Connection closed by foreign host.", 0));
    (void)close(listening);
}

static void a_unix_domain_socket(void)
{
    struct program server;
    struct program client;
    char connected[256];
    const char *path = scratch("s");
    const char *argv[] = {"client", "-U", path, NULL};

    CHECK(start_server(&server, "-U", path, NULL));
    CHECK(start(&client, argv));
    (void)snprintf(connected, sizeof connected, "Connected to %s: [unix, %s]",
                   path, path);
    CHECK(next_line_is(client.errors, connected));
    CHECK(type(&client, "ping\nquit\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK(last_words(&client, "Connection closed by foreign host.", 0));
    CHECK(stops(&server));
}

static void either_family(void)
{
    static const char *const families[][3] = {{"-4", "127.0.0.1", "::1"},
                                              {"-6", "::1", "127.0.0.1"}};
    struct program server;
    struct program client;
    char port[16];
    char line[256];

    need_ipv6();
    CHECK(start_server(&server, NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const char *fits[] = {"client", families[i][0], families[i][1], port,
                              NULL};
        const char *does_not[] = {"client", families[i][0], families[i][2],
                                  port, NULL};

        CHECK(start(&client, fits));
        CHECK(type(&client, "ping\nquit\n"));
        CHECK(next_line_is(client.output, "pong"));
        CHECK(line_comes(client.errors, "Connection closed by foreign host."));
        CHECK(ends(&client, 0));
        CHECK(start(&client, does_not));
        CHECK(next_line(client.errors, line, sizeof line));
        CHECK_EQUAL(strncmp(line, "Fail to connect, ", 17), 0);
        CHECK(ends(&client, 1));
    }
    CHECK(stops(&server));
}

/* With a timeout recv(2) fails with EINTR when the program was stopped and goes
 * on, signal(7): that is nothing to speak of. */
static void stopped_and_continued(void)
{
    struct program server;
    struct program client;
    char port[16];
    const char *argv[] = {"client", "-w", "30", "127.0.0.1", port, NULL};

    CHECK(start_server(&server, NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    CHECK(start(&client, argv));
    CHECK(connects(&client, server.port));
    CHECK(type(&client, "ping\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK_EQUAL(kill(client.pid, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(client.pid, NULL, WUNTRACED), client.pid);
    CHECK_EQUAL(kill(client.pid, SIGCONT), 0);
    CHECK(type(&client, "ping\nquit\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK(last_words(&client, "Connection closed by foreign host.", 0));
    CHECK(stops(&server));
}

/* A name may have several addresses. One that refuses leaves nothing open. */
static void the_second_address_answers(void)
{
    struct program server;
    struct program client;
    char port[16];
    const char *argv[] = {"client", "localhost", port, NULL};
    char line[256];
    int at_rest;

    need_ipv6();
    CHECK(start_server(&server, "-4", NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    CHECK(start(&client, argv));
    CHECK(next_line(client.errors, line, sizeof line));
    if (strcmp(line, "Trying ::1...") != 0)
        skip("localhost has no ::1 in front of 127.0.0.1 (/etc/hosts)");
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    CHECK(type(&client, "ping\n"));
    CHECK(next_line_is(client.output, "pong"));
    at_rest = count_in_proc(client.pid, "fd");
    CHECK(getenv("WRAPPER") != NULL || is_number(at_rest, 4));
    CHECK(type(&client, "quit\n"));
    CHECK(line_comes(client.errors, "Connection closed by foreign host."));
    CHECK(ends(&client, 0));
    CHECK(stops(&server));
}

/* ---- Ends that are not good --------------------------------------------- */

static void the_server_is_gone(void)
{
    struct program server;
    struct program client;

    CHECK(start_server(&server, NULL));
    CHECK(start_client(&client, server.port));
    CHECK(connects(&client, server.port));
    CHECK(type(&client, "ping\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK_EQUAL(kill(server.pid, SIGKILL), 0);
    CHECK(last_words(&client, "Connection closed by foreign host.", 1));
}

/* Also after `quit`: some of the replies may be lost. */
static void the_connection_is_reset(void)
{
    static const char *const inputs[] = {"ping\n", "quit\n"};
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int port;
    int listening = listen_on(1, &port);

    for (int i = 0; i < 2; i++) {
        struct program client;
        char expected[128];
        char bytes[5];
        int accepted;

        CHECK(start_client(&client, port));
        CHECK(connects(&client, port));
        accepted = accept(listening, NULL, NULL);
        CHECK(type(&client, inputs[i]));
        CHECK(receive_bytes(accepted, bytes, sizeof bytes));
        (void)setsockopt(accepted, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        (void)close(accepted);
        (void)snprintf(expected, sizeof expected,
                       "Fail to receive, 127.0.0.1:%d: Connection reset by "
                       "peer",
                       port);
        CHECK(last_words(&client, expected, 1));
    }
    (void)close(listening);
}

/* What it says still arrives, but `quit` did not reach it: no good end. */
static void a_server_that_reads_no_more(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = scratch("deaf");
    const char *argv[] = {"client", "-U", path, NULL};
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    struct program client;
    char line[256];
    int accepted;

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    CHECK_EQUAL(bind(listening, (struct sockaddr *)&address, sizeof address),
                0);
    CHECK_EQUAL(listen(listening, 1), 0);
    CHECK(start(&client, argv));
    CHECK(next_line(client.errors, line, sizeof line));
    accepted = accept(listening, NULL, NULL);
    CHECK_EQUAL(shutdown(accepted, SHUT_RD), 0);
    if (getenv("WRAPPER") == NULL) /* its sending thread is there */
        CHECK(becomes(client.pid, "task", OWN_THREADS + 2));
    CHECK(type(&client, "quit\n"));
    if (getenv("WRAPPER") == NULL) /* and gives up */
        CHECK(becomes(client.pid, "task", OWN_THREADS + 1));
    CHECK(send_text(accepted, "bye\n"));
    (void)close(accepted);
    CHECK(next_line_is(client.output, "bye"));
    CHECK(last_words(&client, "Connection closed by foreign host.", 1));
    (void)close(listening);
}

static void refused(void)
{
    const char *path = scratch("nobody");
    const char *argv[] = {"client", "-U", path, NULL};
    char text[16];
    const char *patient[] = {"client",    "-44", "-w", "30",
                             "127.0.0.1", text,  NULL};
    struct program client;
    char expected[256];
    int port;

    (void)close(listen_on(1, &port));
    CHECK(start_client(&client, port));
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    (void)snprintf(expected, sizeof expected,
                   "Fail to connect, 127.0.0.1:%d: Connection refused", port);
    CHECK(last_words(&client, expected, 1));

    /* With -w the refusal is found out by a question of its own. */
    (void)snprintf(text, sizeof text, "%d", port);
    CHECK(start(&client, patient));
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    CHECK(last_words(&client, expected, 1));

    CHECK(start(&client, argv));
    (void)snprintf(expected, sizeof expected,
                   "Fail to connect, %s: No such file or directory", path);
    CHECK(last_words(&client, expected, 1));
}

static void an_unknown_host(void)
{
    const char *argv[] = {"client", "nobody.invalid", NULL};
    const char *family[] = {"client", "-4", "::1", NULL};
    const char expected[] = "Fail to connect, nobody.invalid:1208: ";
    struct program client;
    char line[256];

    /* "Name or service not known", or with no name server to be reached
     * "Temporary failure in name resolution". */
    CHECK(start(&client, argv));
    CHECK(next_line(client.errors, line, sizeof line));
    CHECK_EQUAL(strncmp(line, expected, strlen(expected)), 0);
    CHECK(strlen(line) > strlen(expected));
    CHECK(!next_line(client.errors, line, sizeof line));
    CHECK(ends(&client, 1));

    CHECK(start(&client, family));
    CHECK(next_line(client.errors, line, sizeof line));
    CHECK_EQUAL(strncmp(line, "Fail to connect, [::1]:1208: ", 29), 0);
    CHECK(ends(&client, 1));
}

/* What begins with a letter is the name of a service, if of none we know. */
static void an_unknown_service(void)
{
    static const char *const names[] = {"a-service", "z-service", "A-service",
                                        "Z-service"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *argv[] = {"client", "127.0.0.1", names[i], NULL};
        struct program client;
        char line[256];
        char expected[64];

        (void)snprintf(expected, sizeof expected,
                       "Fail to connect, 127.0.0.1:%s: ", names[i]);
        CHECK(start(&client, argv));
        CHECK(next_line(client.errors, line, sizeof line));
        CHECK_EQUAL(strncmp(line, expected, strlen(expected)), 0);
        CHECK(ends(&client, 1));
    }
}

static void a_path_too_long(void)
{
    struct sockaddr_un address;
    char path[sizeof address.sun_path + 1];
    const char *argv[] = {"client", "-U", path, NULL};
    struct program client;
    char expected[256];

    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK(start(&client, argv));
    (void)snprintf(expected, sizeof expected,
                   "Fail to connect, %s: File name too long", path);
    CHECK(last_words(&client, expected, 1));
}

/* -w, while connecting: a backlog that is full answers no SYN. And later: a
 * server that says nothing. */
static void silence_has_a_limit(void)
{
    struct program client;
    char text[16];
    const char *argv[] = {"client", "-w", "1", "127.0.0.1", text, NULL};
    char expected[128];
    int port;
    int listening = listen_on(0, &port);
    int filling[8];
    int connected;

    (void)snprintf(text, sizeof text, "%d", port);
    CHECK(start(&client, argv));
    CHECK(connects(&client, port));
    (void)snprintf(expected, sizeof expected,
                   "Fail to receive, 127.0.0.1:%d: Timed out after 1 second",
                   port);
    CHECK(last_words(&client, expected, 1));

    for (connected = 0; connected < 8; connected++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((in_port_t)port),
                                      .sin_addr = {htonl(INADDR_LOOPBACK)}};

        filling[connected] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filling[connected], (struct sockaddr *)&address,
                      sizeof address);
    }
    CHECK(start(&client, argv));
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    (void)snprintf(expected, sizeof expected,
                   "Fail to connect, 127.0.0.1:%d: Timed out after 1 second",
                   port);
    CHECK(last_words(&client, expected, 1));
    while (connected > 0)
        (void)close(filling[--connected]);
    (void)close(listening);
}

static void turned_away(void)
{
    struct program server;
    struct program client;
    int first;

    CHECK(start_server(&server, "-m", "1", NULL));
    first = connect_to("127.0.0.1", server.port);
    CHECK(send_text(first, "ping\n"));
    CHECK(receives(first, "pong\n"));
    CHECK(start_client(&client, server.port));
    CHECK(connects(&client, server.port));
    CHECK(next_line_is(client.output, "Too many clients, limit 1"));
    CHECK(last_words(&client, "Connection closed by foreign host.", 1));
    (void)close(first);
    CHECK(stops(&server));
}

/* ---- The standard descriptors ------------------------------------------- */

static void output_that_fails(void)
{
    struct program server;

    CHECK(start_server(&server, NULL));
    CHECK(shell_succeeds(
        "echo ping | $client 127.0.0.1 $port 2>$dir/e >/dev/full; "
        "[ $? = 1 ] && tail -1 $dir/e | grep -qx 'Fail to write, standard "
        "output: No space left on device'",
        server.port));
    /* A reader that has seen enough. */
    CHECK(shell_succeeds(
        "{ yes ping | head -100000 | $client 127.0.0.1 $port 2>$dir/e; "
        "echo $? >$dir/status; } | head -1 | grep -qx pong && "
        "[ $(cat $dir/status) = 1 ] && "
        "tail -1 $dir/e | grep -qx 'Fail to write, standard output: Broken "
        "pipe'",
        server.port));
    CHECK(stops(&server));
}

static void input_that_fails(void)
{
    struct program server;

    CHECK(start_server(&server, NULL));
    CHECK(shell_succeeds(
        "$client 127.0.0.1 $port 2>$dir/e </; [ $? = 1 ] && "
        "grep -qx 'Fail to read, standard input: Is a directory' "
        "$dir/e",
        server.port));
    /* Closed: nothing to send, so it ends at once, and well. */
    CHECK(
        shell_succeeds("$client 127.0.0.1 $port 2>/dev/null <&-", server.port));
    CHECK(stops(&server));
}

/* Closed: a reply that can't be written is no good end. */
static void output_that_is_closed(void)
{
    struct program server;

    CHECK(start_server(&server, NULL));
    CHECK(shell_succeeds(
        "echo ping | $client 127.0.0.1 $port 2>$dir/e >&-; [ $? = 1 ] && "
        "grep -qx 'Fail to write, standard output: Bad file descriptor' "
        "$dir/e",
        server.port));
    if (getenv("WRAPPER") == NULL) /* valgrind needs its standard error */
        CHECK(shell_succeeds(
            "echo ping | $client 127.0.0.1 $port 2>&- >&-; [ $? = 1 ]",
            server.port));
    CHECK(stops(&server));
}

/* Another program that has the same pipe or terminal may have made it so: here
 * dd(1) does. The second one reads, slowly, what the client writes. */
static void input_and_output_that_do_not_block(void)
{
    struct program server;

    CHECK(start_server(&server, NULL));
    CHECK(shell_succeeds(
        "nonblock='count=0 status=none'; seq 100000 >$dir/numbers; "
        "sed 's/^/echo /' $dir/numbers | "
        "{ dd $nonblock iflag=nonblock of=/dev/null; "
        "{ dd $nonblock oflag=nonblock if=/dev/null; "
        "$client 127.0.0.1 $port 2>/dev/null; echo $? >$dir/status; } | "
        "dd bs=64 status=none >$dir/replies; }; "
        "[ $(cat $dir/status) = 0 ] && cmp $dir/numbers $dir/replies",
        server.port));
    CHECK(stops(&server));
}

/* ---- Usage -------------------------------------------------------------- */

static void client_help(void)
{
    static const char *const words[] = {"-h", "--help"};

    for (int i = 0; i < 2; i++) {
        struct program client;
        const char *argv[] = {"client", words[i], NULL};
        char line[256];
        int lines = 0;

        CHECK(start(&client, argv));
        CHECK(next_line_is(client.output, USAGE));
        while (next_line(client.output, line, sizeof line))
            lines++;
        CHECK_EQUAL(lines, 6);
        CHECK(!next_line(client.errors, line, sizeof line));
        CHECK(ends(&client, 0));
    }
}

static void client_usage_errors(void)
{
    static const struct {
        const char *const argv[6];
        const char *line;
    } errors[] = {
        {{"client", "-w", "0"},
         "client: -w: needs a whole number from 1 to 1000000"},
        {{"client", "-w", "1000001"},
         "client: -w: needs a whole number from 1 to 1000000"},
        {{"client", "-w", "x"},
         "client: -w: needs a whole number from 1 to 1000000"},
        {{"client", "-w", ""},
         "client: -w: needs a whole number from 1 to 1000000"},
        {{"client", "-w"}, "client: -w: needs a value"},
        {{"client", "-x"}, "client: -x: no such option"},
        {{"client", "localhost", "66744"},
         "client: port: needs a whole number from 1 to 65535"},
        {{"client", "localhost", "+66834"},
         "client: port: needs a whole number from 1 to 65535"},
        {{"client", "localhost", " 1208"},
         "client: port: needs a whole number from 1 to 65535"},
        {{"client", "localhost", "0"},
         "client: port: needs a whole number from 1 to 65535"},
        {{"client", "localhost", ""},
         "client: port: needs a whole number from 1 to 65535"},
        {{"client", "--hepl"}, "client: --hepl: no such option"},
        {{"client", "-4-"}, "client: --: no such option"},
        {{"client", "-4-", "x"}, "client: --: no such option"},
        {{"client", "-U", "s", "-4"}, PATH_MISUSE},
        {{"client", "-U", "s", "localhost"}, PATH_MISUSE},
        {{"client", "-U", ""}, PATH_MISUSE},
        {{"client", "localhost", "1208", "more"},
         "client: more: one operand too many"},
        {{"client", "--", "localhost", "1208", "--help"},
         "client: --help: one operand too many"},
    };

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct program client;

        CHECK(start(&client, errors[i].argv));
        CHECK(next_line_is(client.errors, errors[i].line));
        CHECK(next_line_is(client.errors, USAGE));
        CHECK(ends(&client, 2));
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"the_session", the_session},
        {"end_of_input_is_a_half_close", end_of_input_is_a_half_close},
        {"quit_in_every_shape", quit_in_every_shape},
        {"two_hundred_thousand_lines", two_hundred_thousand_lines},
        {"any_bytes_to_any_server", any_bytes_to_any_server},
        {"a_unix_domain_socket", a_unix_domain_socket},
        {"either_family", either_family},
        {"stopped_and_continued", stopped_and_continued},
        {"the_second_address_answers", the_second_address_answers},
        {"the_server_is_gone", the_server_is_gone},
        {"the_connection_is_reset", the_connection_is_reset},
        {"a_server_that_reads_no_more", a_server_that_reads_no_more},
        {"refused", refused},
        {"an_unknown_host", an_unknown_host},
        {"an_unknown_service", an_unknown_service},
        {"a_path_too_long", a_path_too_long},
        {"silence_has_a_limit", silence_has_a_limit},
        {"turned_away", turned_away},
        {"output_that_fails", output_that_fails},
        {"input_that_fails", input_that_fails},
        {"output_that_is_closed", output_that_is_closed},
        {"input_and_output_that_do_not_block",
         input_and_output_that_do_not_block},
        {"client_help", client_help},
        {"client_usage_errors", client_usage_errors},
        {NULL, NULL},
    };

    return run_suite("client", tests, argc, argv);
}
