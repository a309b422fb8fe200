/*
 * test_client.c - the real ./client, against the real ./server and against
 * servers that behave worse.
 */
#include "harness.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define USAGE \
    "usage: ./client [-46] [-w seconds] [host [port]]      (localhost 1208)"
#define CLOSED "Connection closed by foreign host."

/* ---- Helpers ------------------------------------------------------------ */

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
    return is_text(line, expected);
}

/* A client that is connected to this port. */
static void start_client(struct program *client, const char *options, int port)
{
    CHECK(start(client, "exec $client %s 127.0.0.1 %d", options, port));
    CHECK(connects(client, port));
}

/* A server, and a client that it has answered already. */
static void begin_session(struct program *server, struct program *client,
                          const char *options)
{
    CHECK(start_server(server, "-p 0"));
    start_client(client, options, server->port);
    CHECK(type(client, "ping\n"));
    CHECK(next_line_is(client->output, "pong"));
}

/* True if it says that the server has closed, and ends with this status. */
static bool closes(struct program *client, int status)
{
    return next_line_is(client->errors, CLOSED) && ends(client, status);
}

/* Runs a command of the shell in which $port is a server's. What it leaves in
 * $dir/e is for the report. */
static bool shell_succeeds(const char *command)
{
    struct program server;
    struct program shell;

    CHECK(start_server(&server, "-p 0"));
    CHECK(start(&shell,
                "port=%d; { %s; } || "
                "{ cat $dir/e >&2 2>/dev/null; exit 1; }",
                server.port, command));
    end_input(&shell);
    return ends(&shell, 0) && stops(&server);
}

/* ---- Conversations ------------------------------------------------------ */

TEST(the_session)
{
    struct program server;
    struct program client;
    char line[256];

    begin_session(&server, &client, "");
    CHECK(type(&client, "echo Hello,socket\n"));
    CHECK(next_line_is(client.output, "Hello,socket"));
    CHECK(type(&client, "foo\n"));
    CHECK(next_line_is(client.output, "Unsupported command: foo"));
    CHECK(type(&client, "quit\n"));
    CHECK(next_line_is(client.errors, CLOSED));
    CHECK(!next_line(client.output, line, sizeof line));
    CHECK(!next_line(client.errors, line, sizeof line));
    /* Its input is still open: it is the server that ended it. */
    CHECK(ends(&client, 0));
    CHECK(stops(&server));
}

TEST(end_of_input_is_a_half_close)
{
    struct program server;
    struct program client;

    begin_session(&server, &client, "");
    CHECK(type(&client, "ping\necho no line end"));
    end_input(&client);
    CHECK(next_line_is(client.output, "pong"));
    CHECK(next_line_is(client.output, "no line end"));
    CHECK(closes(&client, 0));
    CHECK(stops(&server));
}

/* It does not matter what the input says behind `quit`. */
TEST(quit_in_every_shape)
{
    static const char *const shapes[][2] = {{"ping\n", "quit\n"},
                                            {"ping\nquit", "\n"},
                                            {"\n", " \t quit now\r\n"},
                                            {"quit\nping\n", ""},
                                            {"", "quit\n\n"}};
    struct program server;

    CHECK(start_server(&server, "-p 0"));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct program client;

        start_client(&client, "", server.port);
        for (int part = 0; part < 2; part++) /* EPIPE: it is gone already */
            CHECK(type(&client, shapes[i][part]) || errno == EPIPE);
        CHECK(closes(&client, 0));
    }
    CHECK(stops(&server));
    CHECK(shell_succeeds("printf 'ping\nquit' | $client -w 30 127.0.0.1 "
                         "$port 2>/dev/null | grep -qx pong"));
}

TEST(two_hundred_thousand_lines)
{
    char command[512];

    (void)snprintf(command, sizeof command,
                   "seq 1 %d > $dir/numbers && sed 's/^/echo /' $dir/numbers | "
                   "$client 127.0.0.1 $port 2>/dev/null > $dir/replies && "
                   "cmp $dir/numbers $dir/replies",
                   load(200000));
    CHECK(shell_succeeds(command));
}

/* Whatever the bytes, they go both ways as they are. */
TEST(any_bytes_to_any_server)
{
    int port;
    int listening = listen_on(1, &port);
    struct program client;
    char sent[256];
    char received[256];
    int accepted;

    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (char)(i - 128);
    start_client(&client, "", port);
    accepted = accept(listening, NULL, NULL);
    CHECK_EQUAL(write(client.input, sent, sizeof sent), sizeof sent);
    CHECK_EQUAL(recv(accepted, received, sizeof received, MSG_WAITALL),
                sizeof received);
    CHECK(is_bytes(received, sizeof received, sent, sizeof sent));
    CHECK(send_bytes(accepted, received, sizeof received));
    memset(received, 0, sizeof received);
    for (size_t got = 0; got < sizeof received;) {
        ssize_t count =
            read(client.output, received + got, sizeof received - got);

        CHECK(count > 0);
        got += (size_t)count;
    }
    CHECK(is_bytes(received, sizeof received, sent, sizeof sent));
    end_input(&client);
    CHECK(receives_end(accepted));
    (void)close(accepted);
    CHECK(closes(&client, 0));
    (void)close(listening);
}

TEST(a_unix_domain_socket)
{
    struct program server;
    struct program client;
    const char *path = scratch("s");

    CHECK(start_server(&server, "-U %s", path));
    CHECK(start(&client, "exec $client -U %s", path));
    CHECK(
        next_line_is(client.errors, "Connected to %s: [unix, %s]", path, path));
    CHECK(type(&client, "ping\nquit\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK(closes(&client, 0));
    CHECK(stops(&server));
}

TEST(either_family)
{
    static const char *const families[][3] = {{"-4", "127.0.0.1", "::1"},
                                              {"-6", "::1", "127.0.0.1"}};
    struct program server;
    struct program client;
    char line[256];

    need_ipv6();
    CHECK(start_server(&server, "-p 0"));
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        CHECK(start(&client, "exec $client %s %s %d", families[i][0],
                    families[i][1], server.port));
        CHECK(type(&client, "ping\nquit\n"));
        CHECK(next_line_is(client.output, "pong"));
        CHECK(line_comes(client.errors, CLOSED));
        CHECK(ends(&client, 0));
        CHECK(start(&client, "exec $client %s %s %d", families[i][0],
                    families[i][2], server.port));
        CHECK(next_line(client.errors, line, sizeof line));
        CHECK_EQUAL(strncmp(line, "Fail to connect, ", 17), 0);
        CHECK(ends(&client, 1));
    }
    CHECK(stops(&server));
}

/* With a timeout recv(2) fails with EINTR when the program was stopped and goes
 * on, signal(7): that is nothing to speak of. */
TEST(stopped_and_continued)
{
    struct program server;
    struct program client;

    begin_session(&server, &client, "-w 30");
    CHECK_EQUAL(kill(client.pid, SIGSTOP), 0);
    CHECK_EQUAL(waitpid(client.pid, NULL, WUNTRACED), client.pid);
    CHECK_EQUAL(kill(client.pid, SIGCONT), 0);
    CHECK(type(&client, "ping\nquit\n"));
    CHECK(next_line_is(client.output, "pong"));
    CHECK(closes(&client, 0));
    CHECK(stops(&server));
}

/* A name may have several addresses. One that refuses leaves nothing open. */
TEST(the_second_address_answers)
{
    struct program server;
    struct program client;
    char line[256];
    int at_rest;

    need_ipv6();
    CHECK(start_server(&server, "-4 -p 0"));
    CHECK(start(&client, "exec $client localhost %d", server.port));
    CHECK(next_line(client.errors, line, sizeof line));
    if (strcmp(line, "Trying ::1...") != 0)
        skip("localhost has no ::1 in front of 127.0.0.1 (/etc/hosts)");
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    CHECK(type(&client, "ping\n"));
    CHECK(next_line_is(client.output, "pong"));
    at_rest = count_in_proc(client.pid, "fd");
    CHECK(is_wrapped() || is_number(at_rest, 4));
    CHECK(type(&client, "quit\n"));
    CHECK(line_comes(client.errors, CLOSED));
    CHECK(ends(&client, 0));
    CHECK(stops(&server));
}

/* ---- Ends that are not good --------------------------------------------- */

TEST(the_server_is_gone)
{
    struct program server;
    struct program client;

    begin_session(&server, &client, "");
    CHECK_EQUAL(kill(server.pid, SIGKILL), 0);
    CHECK(closes(&client, 1));
}

/* Also after `quit`: some of the replies may be lost. */
TEST(the_connection_is_reset)
{
    static const char *const inputs[] = {"ping\n", "quit\n"};
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int port;
    int listening = listen_on(1, &port);

    for (int i = 0; i < 2; i++) {
        struct program client;
        int accepted;

        start_client(&client, "", port);
        accepted = accept(listening, NULL, NULL);
        CHECK(type(&client, inputs[i]));
        CHECK(receives(accepted, inputs[i]));
        (void)setsockopt(accepted, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        (void)close(accepted);
        CHECK(next_line_is(
            client.errors,
            "Fail to receive, 127.0.0.1:%d: Connection reset by peer", port));
        CHECK(ends(&client, 1));
    }
    (void)close(listening);
}

/* What it says still arrives, but `quit` did not reach it: no good end. */
TEST(a_server_that_reads_no_more)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = scratch("deaf");
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    struct program client;
    char line[256];
    int accepted;

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    CHECK_EQUAL(bind(listening, (struct sockaddr *)&address, sizeof address),
                0);
    CHECK_EQUAL(listen(listening, 1), 0);
    CHECK(start(&client, "exec $client -U %s", path));
    CHECK(next_line(client.errors, line, sizeof line));
    accepted = accept(listening, NULL, NULL);
    CHECK_EQUAL(shutdown(accepted, SHUT_RD), 0);
    if (!is_wrapped()) /* its sending thread is there */
        CHECK(becomes(client.pid, "task", OWN_THREADS + 2));
    CHECK(type(&client, "quit\n"));
    if (!is_wrapped()) /* and gives up */
        CHECK(becomes(client.pid, "task", OWN_THREADS + 1));
    CHECK(send_text(accepted, "bye\n"));
    (void)close(accepted);
    CHECK(next_line_is(client.output, "bye"));
    CHECK(closes(&client, 1));
    (void)close(listening);
}

TEST(refused)
{
    /* With -w the refusal is found out by a question of its own. */
    static const char *const options[] = {"", "-44 -w 30"};
    struct program client;
    int port;

    (void)close(listen_on(1, &port));
    for (int i = 0; i < 2; i++) {
        CHECK(start(&client, "exec $client %s 127.0.0.1 %d", options[i], port));
        CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
        CHECK(next_line_is(client.errors,
                           "Fail to connect, 127.0.0.1:%d: Connection refused",
                           port));
        CHECK(ends(&client, 1));
    }
}

/* The reason is the C library's, and depends on the machine: "Name or service
 * not known", or where no name server answers "Temporary failure in name
 * resolution". What begins with a letter is the name of a service. */
TEST(an_unknown_host_or_service)
{
    static const char *const names[][2] = {
        {"nobody.invalid", "nobody.invalid:1208"},
        {"-4 ::1", "[::1]:1208"},
        {"127.0.0.1 a-service", "127.0.0.1:a-service"},
        {"127.0.0.1 Z-service", "127.0.0.1:Z-service"},
        {"-U /nowhere/s", "/nowhere/s"}};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct program client;
        char line[256] = "";
        char start_of_line[64];
        size_t length;

        (void)snprintf(start_of_line, sizeof start_of_line,
                       "Fail to connect, %s: ", names[i][1]);
        length = strlen(start_of_line);
        CHECK(start(&client, "exec $client %s", names[i][0]));
        CHECK(next_line(client.errors, line, sizeof line));
        CHECK(is_bytes(line, length, start_of_line, length));
        CHECK(line[length] != '\0');
        CHECK(!next_line(client.errors, line, sizeof line));
        CHECK(ends(&client, 1));
    }
}

TEST(a_path_too_long)
{
    struct sockaddr_un address;
    char path[sizeof address.sun_path + 1];
    struct program client;

    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK(start(&client, "exec $client -U %s", path));
    CHECK(next_line_is(client.errors, "Fail to connect, %s: File name too long",
                       path));
    CHECK(ends(&client, 1));
}

/* -w, while connecting: a backlog that is full answers no SYN. And later: a
 * server that says nothing. */
TEST(silence_has_a_limit)
{
    struct program client;
    int port;
    int listening = listen_on(0, &port);
    int filling[8];
    int connected;

    start_client(&client, "-w 1", port);
    CHECK(next_line_is(
        client.errors,
        "Fail to receive, 127.0.0.1:%d: Timed out after 1 second", port));
    CHECK(ends(&client, 1));

    for (connected = 0; connected < 8; connected++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((in_port_t)port),
                                      .sin_addr = {htonl(INADDR_LOOPBACK)}};

        filling[connected] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filling[connected], (struct sockaddr *)&address,
                      sizeof address);
    }
    CHECK(start(&client, "exec $client -w 1 127.0.0.1 %d", port));
    CHECK(next_line_is(client.errors, "Trying 127.0.0.1..."));
    CHECK(next_line_is(
        client.errors,
        "Fail to connect, 127.0.0.1:%d: Timed out after 1 second", port));
    CHECK(ends(&client, 1));
    while (connected > 0)
        (void)close(filling[--connected]);
    (void)close(listening);
}

/* ---- The standard descriptors ------------------------------------------- */

TEST(output_that_fails)
{
    CHECK(shell_succeeds(
        "echo ping | $client 127.0.0.1 $port 2>$dir/e >/dev/full; "
        "[ $? = 1 ] && tail -1 $dir/e | grep -qx 'Fail to write, standard "
        "output: No space left on device'"));
    /* A reader that has seen enough. */
    CHECK(shell_succeeds(
        "{ yes ping | head -100000 | $client 127.0.0.1 $port 2>$dir/e; "
        "echo $? >$dir/status; } | head -1 | grep -qx pong && "
        "[ $(cat $dir/status) = 1 ] && "
        "tail -1 $dir/e | grep -qx 'Fail to write, standard output: Broken "
        "pipe'"));
}

TEST(input_that_fails)
{
    CHECK(shell_succeeds(
        "$client 127.0.0.1 $port 2>$dir/e </; [ $? = 1 ] && "
        "grep -qx 'Fail to read, standard input: Is a directory' $dir/e"));
    /* Closed: nothing to send, so it ends at once, and well. */
    CHECK(shell_succeeds("$client 127.0.0.1 $port 2>/dev/null <&-"));
}

/* Closed: a reply that can't be written is no good end. */
TEST(output_that_is_closed)
{
    CHECK(shell_succeeds(
        "echo ping | $client 127.0.0.1 $port 2>$dir/e >&-; [ $? = 1 ] && "
        "grep -qx 'Fail to write, standard output: Bad file descriptor' "
        "$dir/e"));
    if (!is_wrapped()) /* valgrind needs its standard error */
        CHECK(shell_succeeds(
            "echo ping | $client 127.0.0.1 $port 2>&- >&-; [ $? = 1 ]"));
}

/* Another program that has the same pipe or terminal may have made it so: here
 * dd(1) does. The second one reads, slowly, what the client writes. */
TEST(input_and_output_that_do_not_block)
{
    CHECK(shell_succeeds(
        "nonblock='count=0 status=none'; seq 100000 >$dir/numbers; "
        "sed 's/^/echo /' $dir/numbers | "
        "{ dd $nonblock iflag=nonblock of=/dev/null; "
        "{ dd $nonblock oflag=nonblock if=/dev/null; "
        "$client 127.0.0.1 $port 2>/dev/null; echo $? >$dir/status; } | "
        "dd bs=64 status=none >$dir/replies; }; "
        "[ $(cat $dir/status) = 0 ] && cmp $dir/numbers $dir/replies"));
}

/* ---- Usage -------------------------------------------------------------- */

TEST(client_help)
{
    CHECK(shows_help("exec $client -h", USAGE, 7));
    CHECK(shows_help("exec $client --help", USAGE, 7));
}

TEST(client_usage_errors)
{
    static const char *const errors[][2] = {
        {"-w 0", "-w: needs a whole number from 1 to 1000000"},
        {"-w 1000001", "-w: needs a whole number from 1 to 1000000"},
        {"-w x", "-w: needs a whole number from 1 to 1000000"},
        {"-w ''", "-w: needs a whole number from 1 to 1000000"},
        {"-w", "-w: needs a value"},
        {"-x", "-x: no such option"},
        {"localhost 66744", "port: needs a whole number from 1 to 65535"},
        {"localhost +66834", "port: needs a whole number from 1 to 65535"},
        {"localhost ' 1208'", "port: needs a whole number from 1 to 65535"},
        {"localhost 0", "port: needs a whole number from 1 to 65535"},
        {"localhost ''", "port: needs a whole number from 1 to 65535"},
        {"--hepl", "--hepl: no such option"},
        {"-4-", "--: no such option"},
        {"-4- x", "--: no such option"},
        {"-U s -4", "-U: needs a path, and no family, host or port"},
        {"-U s localhost", "-U: needs a path, and no family, host or port"},
        {"-U ''", "-U: needs a path, and no family, host or port"},
        {"localhost 1208 more", "more: one operand too many"},
        {"-- localhost 1208 --help", "--help: one operand too many"},
    };

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        char command[128];
        char complaint[128];

        (void)snprintf(command, sizeof command, "exec $client %s",
                       errors[i][0]);
        (void)snprintf(complaint, sizeof complaint, "client: %s", errors[i][1]);
        CHECK(is_misuse(command, complaint, USAGE));
    }
}
