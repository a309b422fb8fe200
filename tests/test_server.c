/*
 * test_server.c - the real ./server, started on a port that the kernel picks,
 * and talked to as its clients would.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define USAGE                                                               \
    "usage: ./server [-46q] [-b address] [-p port] [-U path] [-m clients] " \
    "[-w seconds]"

/* ---- Helpers ------------------------------------------------------------ */

static void skip_if_wrapped(const char *reason)
{
    if (is_wrapped())
        skip(reason);
}

/* A new client of a server that listens on a port. */
static int connected(const struct program *server)
{
    int client = connect_to("127.0.0.1", server->port);

    CHECK(client >= 0);
    return client;
}

/* A client that has been served: its thread is there, and waits for more. */
static int served(int client)
{
    CHECK(client >= 0);
    CHECK(send_text(client, "ping\n"));
    CHECK(receives(client, "pong\n"));
    return client;
}

/* A client comes, is served, and leaves. */
static void serves(const struct program *server)
{
    (void)close(served(connected(server)));
}

static int own_port(int client)
{
    struct sockaddr_storage address;
    struct sockaddr_in6 six;
    socklen_t length = sizeof address;

    CHECK_EQUAL(getsockname(client, (struct sockaddr *)&address, &length), 0);
    memcpy(&six, &address, sizeof six);
    return ntohs(six.sin6_port); /* at the same place in sockaddr_in */
}

/* The line that the log owes each client, and the one when it leaves. The name
 * is the address, an IPv6 address in brackets. */
static bool opened_line_comes(struct program *server, const char *name,
                              const char *address, int port, int descriptor)
{
    return next_line_is(server->output,
                        "Connection from %s:%d opened: fd %d, "
                        "[tcp, %s, %d, %s, %d]",
                        name, port, descriptor, address, server->port, address,
                        port);
}

static bool closed_line_comes(struct program *server, const char *name,
                              int port)
{
    return next_line_is(server->output, "Connection from %s:%d closed.", name,
                        port);
}

/* The descriptors of a server without clients: 0 to 3, and what a WRAPPER such
 * as valgrind keeps for itself. */
static int descriptors_at_rest(const struct program *server)
{
    if (!is_wrapped())
        CHECK(becomes(server->pid, "fd", 4));
    return count_in_proc(server->pid, "fd");
}

/* The threads of a server without clients: one. ThreadSanitizer starts one of
 * its own with the first client's. */
static int threads_at_rest(const struct program *server)
{
    CHECK_EQUAL(count_in_proc(server->pid, "task"), 1);
    return OWN_THREADS + 1;
}

/* A server that fails at the start: what it says, that it says nothing on
 * standard output, and how it ends. */
static bool fails(const char *command, const char *reason)
{
    struct program program;
    char line[256];

    return start(&program, "%s", command) &&
           next_line_is(program.errors, "Fail to start server, %s", reason) &&
           !next_line(program.output, line, sizeof line) && line[0] == '\0' &&
           ends(&program, 1);
}

static bool path_fails(const char *path, const char *reason)
{
    char command[256];
    char told[256];

    (void)snprintf(command, sizeof command, "exec $server -U %s", path);
    (void)snprintf(told, sizeof told, "bind %s: %s", path, reason);
    return fails(command, told);
}

/* ---- The article's session ---------------------------------------------- */

TEST(the_log_to_the_letter)
{
    struct program server;
    char line[256];
    struct rlimit limit;
    int client;
    int port;

    CHECK(start(&server, "exec $server -p 0"));
    CHECK(next_line_is(server.output, "Server Started ..."));
    CHECK(next_line(server.output, line, sizeof line));
    CHECK_EQUAL(sscanf(line, "Listening on *:%d,", &server.port), 1);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    (void)snprintf(server.listening, sizeof server.listening,
                   "Listening on *:%d, pid %ld, fd 3, at most %ld clients",
                   server.port, (long)server.pid, (long)limit.rlim_cur - 10);
    CHECK_TEXT(line, server.listening);

    client = connected(&server);
    port = own_port(client);
    CHECK(opened_line_comes(&server, "127.0.0.1", "127.0.0.1", port, 4));
    CHECK(send_text(client, "ping\r\n"));
    CHECK(receives(client, "pong\n"));
    CHECK(send_text(client, "echo Hello,socket\r\n"));
    CHECK(receives(client, "Hello,socket\n"));
    CHECK(send_text(client, "foo bar\r\n"));
    CHECK(receives(client, "Unsupported command: foo\n"));
    CHECK(next_line_is(server.output, "Unsupported command: foo"));
    CHECK(send_text(client, "quit\r\n"));
    CHECK(receives_end(client));
    (void)close(client);
    CHECK(closed_line_comes(&server, "127.0.0.1", port));
    CHECK_EQUAL(kill(server.pid, SIGINT), 0);
    CHECK(next_line_is(server.output, "Server Stopped."));
    CHECK(!next_line(server.errors, line, sizeof line));
    CHECK(ends(&server, 0));
}

TEST(a_client_leaves_nothing_behind)
{
    struct program server;
    int descriptors;
    int threads;

    CHECK(start_server(&server, "-p 0"));
    descriptors = descriptors_at_rest(&server);
    threads = threads_at_rest(&server);
    for (int i = 0; i < 4; i++)
        serves(&server);
    CHECK(becomes(server.pid, "fd", descriptors));
    CHECK(becomes(server.pid, "task", threads));
    CHECK(stops(&server));
}

/* The client of a server that is silent: it waits until there is one. */
static int connected_to_path(const char *path)
{
    long long since = now_ms();
    int client;

    while ((client = connect_to_path(path)) < 0)
        CHECK(still_patient(since));
    return client;
}

TEST(quiet_logs_only_errors)
{
    struct program server;
    const char *path = scratch("s");
    char line[256];
    int client;

    CHECK(start(&server, "exec $server -q -U %s", path));
    client = connected_to_path(path);
    CHECK(send_text(client, "foo\nquit\n"));
    CHECK(receives(client, "Unsupported command: foo\n"));
    CHECK(receives_end(client));
    (void)close(client);
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    CHECK(!next_line(server.output, line, sizeof line));
    CHECK(!next_line(server.errors, line, sizeof line));
    CHECK(ends(&server, 0));
}

/* ---- Addresses ---------------------------------------------------------- */

TEST(both_families_on_one_socket)
{
    struct program server;
    int at_rest;
    int four;
    int six;
    int port;

    need_ipv6();
    CHECK(start_server(&server, "-p 0"));
    at_rest = descriptors_at_rest(&server);
    four = connected(&server);
    CHECK(opened_line_comes(&server, "127.0.0.1", "127.0.0.1", own_port(four),
                            4));
    six = served(connect_to("::1", server.port));
    port = own_port(six);
    CHECK(opened_line_comes(&server, "[::1]", "::1", port, 5));
    (void)served(four);
    CHECK_EQUAL(count_in_proc(server.pid, "fd"), at_rest + 2);
    (void)close(six);
    CHECK(closed_line_comes(&server, "[::1]", port));
    port = own_port(four);
    (void)close(four);
    CHECK(closed_line_comes(&server, "127.0.0.1", port));
    CHECK(stops(&server));
}

/* Starts a server with these options, and tells which addresses answer. */
static void listens_on(const char *options, const char *where,
                       const char *answers, const char *refuses)
{
    struct program server;
    char expected[128];

    CHECK(start_server(&server, "-p 0 %s", options));
    (void)snprintf(expected, sizeof expected, "Listening on %s:%d, ", where,
                   server.port);
    CHECK_EQUAL(strncmp(server.listening, expected, strlen(expected)), 0);
    (void)close(served(connect_to(answers, server.port)));
    CHECK_EQUAL(connect_to(refuses, server.port), -1);
    if (strchr(refuses, ':') == NULL)
        CHECK_EQUAL(errno, ECONNREFUSED);
    CHECK(stops(&server));
}

TEST(ipv4_only)
{
    listens_on("-4", "*", "127.0.0.1", "::1");
}

TEST(ipv6_only)
{
    need_ipv6();
    listens_on("-6", "*", "::1", "127.0.0.1");
}

TEST(one_address_only)
{
    listens_on("-b 127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2");
    CHECK(fails("exec $server -b 192.0.2.1",
                "bind 192.0.2.1:1208: Cannot assign requested address"));
}

TEST(one_ipv6_address_only)
{
    need_ipv6();
    listens_on("-b ::1", "[::1]", "::1", "127.0.0.1");
}

TEST(port_in_use)
{
    struct program server;
    char command[64];
    char expected[64];

    CHECK(start_server(&server, "-p 0"));
    (void)snprintf(command, sizeof command, "exec $server -p %d", server.port);
    (void)snprintf(expected, sizeof expected,
                   "bind *:%d: Address already in use", server.port);
    CHECK(fails(command, expected));
    serves(&server);
    CHECK(stops(&server));
}

/* SO_REUSEADDR: a connection of the last server is in TIME_WAIT on its side,
 * since the server closed first, and must not keep the next one from starting.
 */
TEST(port_used_a_moment_ago)
{
    struct program server;
    int client;

    CHECK(start_server(&server, "-p 0"));
    client = served(connected(&server));
    CHECK(send_text(client, "quit\n"));
    CHECK(receives_end(client));
    (void)close(client);
    CHECK(stops(&server));
    CHECK(start_server(&server, "-p %d", server.port));
    serves(&server);
    CHECK(stops(&server));
}

/* ---- Unix domain sockets ------------------------------------------------ */

static bool exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

TEST(path_fresh_and_removed)
{
    struct program server;
    const char *path = scratch("fresh");
    struct stat status;
    char expected[256];

    CHECK(start_server(&server, "-U %s", path));
    (void)snprintf(expected, sizeof expected,
                   "Listening on %s, pid %ld, fd 3, ", path, (long)server.pid);
    CHECK_EQUAL(strncmp(server.listening, expected, strlen(expected)), 0);
    CHECK_EQUAL(lstat(path, &status), 0);
    CHECK(S_ISSOCK(status.st_mode));
    CHECK_EQUAL(status.st_mode & 07777, 0660);
    (void)close(served(connect_to_path(path)));
    CHECK(stops(&server));
    CHECK(!exists(path));
}

TEST(path_stale_is_replaced)
{
    struct program server;
    const char *path = scratch("stale");

    CHECK(start_server(&server, "-U %s", path));
    CHECK_EQUAL(kill(server.pid, SIGKILL), 0);
    CHECK(ends(&server, 128 + SIGKILL));
    CHECK(exists(path));
    CHECK(start_server(&server, "-U %s", path));
    (void)descriptors_at_rest(&server);
    (void)close(served(connect_to_path(path)));
    CHECK(stops(&server));
}

TEST(path_of_a_live_server)
{
    struct program server;
    const char *path = scratch("live");
    char expected[256];
    char line[256];
    int client;

    CHECK(start_server(&server, "-U %s", path));
    CHECK(path_fails(path, "Address already in use"));
    /* It is not in the log that somebody looked: one client was there. */
    client = served(connect_to_path(path));
    CHECK(next_line(server.output, line, sizeof line));
    (void)snprintf(expected, sizeof expected, " opened: fd 4, [unix, %s]",
                   path);
    CHECK(strstr(line, expected) != NULL);
    (void)close(client);
    CHECK(next_line(server.output, line, sizeof line));
    CHECK(strstr(line, " closed.") != NULL);
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    CHECK(next_line_is(server.output, "Server Stopped."));
    CHECK(ends(&server, 0));
}

/* A server that is too busy to accept is alive: its backlog is full, and the
 * question whether it lives must neither hang nor count as no. */
TEST(path_of_a_busy_server)
{
    static int waiting[2 * SOMAXCONN];
    struct program server;
    const char *path = scratch("busy");
    struct rlimit limit;
    size_t count = 0;

    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < SOMAXCONN + 100)
        skip("it takes 4196 descriptors to fill a backlog (ulimit -Hn)");
    limit.rlim_cur = limit.rlim_max;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(start_server(&server, "-U %s", path));
    CHECK_EQUAL(kill(server.pid, SIGSTOP), 0);
    do {
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
        waiting[count] =
            socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        CHECK(waiting[count] >= 0);
        if (connect(waiting[count++], (struct sockaddr *)&address,
                    sizeof address) < 0)
            break;
    } while (count < sizeof waiting / sizeof *waiting);
    CHECK_EQUAL(errno, EAGAIN);
    CHECK(path_fails(path, "Address already in use"));
    while (count > 0)
        (void)close(waiting[--count]);
    CHECK_EQUAL(kill(server.pid, SIGKILL), 0);
    CHECK(ends(&server, 128 + SIGKILL));
}

TEST(path_that_is_no_socket)
{
    const char *path = scratch("file");
    const char *link = scratch("link");
    FILE *file = fopen(path, "w");

    CHECK(file != NULL);
    (void)fclose(file);
    CHECK(path_fails(path, "File exists and is not a socket"));
    CHECK(exists(path));
    CHECK_EQUAL(symlink(path, link), 0);
    CHECK(path_fails(link, "File exists and is not a socket"));
    CHECK(exists(link));
}

/* Somebody who receives datagrams there lives, too. */
TEST(path_of_a_datagram_server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = scratch("datagrams");
    int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    CHECK_EQUAL(bind(other, (struct sockaddr *)&address, sizeof address), 0);
    CHECK(path_fails(path, "Address already in use"));
    CHECK(exists(path));
    (void)close(other);
}

TEST(path_in_no_directory)
{
    CHECK(path_fails(scratch("none/s"), "No such file or directory"));
}

TEST(path_up_to_the_limit)
{
    struct program server;
    struct sockaddr_un address;
    char path[sizeof address.sun_path + 1];
    size_t limit = sizeof address.sun_path - 1;

    (void)snprintf(path, sizeof path, "%s", scratch(""));
    memset(path + strlen(path), 'p', limit + 1 - strlen(path));
    path[limit + 1] = '\0';
    CHECK(path_fails(path, "File name too long"));
    path[limit] = '\0';
    CHECK(start_server(&server, "-U %s", path));
    (void)close(served(connect_to_path(path)));
    CHECK(stops(&server));
    CHECK(!exists(path));
}

TEST(path_replaced_is_left_alone)
{
    struct program first;
    struct program second;
    const char *path = scratch("replaced");

    CHECK(start_server(&first, "-U %s", path));
    CHECK_EQUAL(unlink(path), 0);
    CHECK(start_server(&second, "-U %s", path));
    CHECK(stops(&first));
    (void)close(served(connect_to_path(path)));
    CHECK(stops(&second));
    CHECK(!exists(path));
}

/* Unix domain clients have no address. Their names are those of the server's
 * own sockets, to be found in /proc/PID/fd and lsof. */
TEST(path_clients_have_names)
{
    struct program server;
    const char *path = scratch("names");
    char names[2][64] = {"", ""};
    int clients[2];

    CHECK(start_server(&server, "-U %s", path));
    for (int i = 0; i < 2; i++) {
        char link[64];

        clients[i] = served(connect_to_path(path));
        (void)snprintf(link, sizeof link, "/proc/%ld/fd/%d", (long)server.pid,
                       4 + i);
        CHECK(readlink(link, names[i], sizeof names[i] - 1) > 0);
        CHECK(next_line_is(server.output,
                           "Connection from %s opened: fd %d, [unix, %s]",
                           names[i], 4 + i, path));
    }
    CHECK(strcmp(names[0], names[1]) != 0);
    for (int i = 0; i < 2; i++) {
        (void)close(clients[i]);
        CHECK(next_line_is(server.output, "Connection from %s closed.",
                           names[i]));
    }
    CHECK(stops(&server));
}

/* ---- Limits ------------------------------------------------------------- */

TEST(at_most_two_clients)
{
    struct program server;
    int clients[2];
    int third;

    CHECK(start_server(&server, "-p 0 -m 2"));
    CHECK(strstr(server.listening, ", at most 2 clients") != NULL);
    for (int i = 0; i < 2; i++)
        clients[i] = served(connected(&server));
    third = connected(&server);
    CHECK(send_text(third, "ping\nping\n"));
    CHECK(receives(third, "Too many clients, limit 2\n"));
    CHECK(receives_end(third));
    CHECK(next_line_is(server.errors,
                       "Connection from 127.0.0.1:%d refused: "
                       "Too many clients, limit 2",
                       own_port(third)));
    (void)close(third);

    (void)served(clients[0]);
    (void)served(clients[1]);
    /* One leaves, one may come: as soon as the log says so. */
    third = own_port(clients[0]);
    (void)close(clients[0]);
    CHECK(line_comes(server.output, "Connection from 127.0.0.1:%d closed.",
                     third));
    serves(&server);
    (void)close(clients[1]);
    CHECK(stops(&server));
}

/* More at once than there are threads to turn them away: each gets the words
 * all the same, and the one who is served notices nothing. */
TEST(a_crowd_is_turned_away)
{
    struct program server;
    int at_rest;
    int threads;
    int crowd[50];
    int client;

    CHECK(start_server(&server, "-p 0 -m 1"));
    at_rest = descriptors_at_rest(&server);
    threads = threads_at_rest(&server);
    client = served(connected(&server));
    for (size_t i = 0; i < sizeof crowd / sizeof *crowd; i++)
        crowd[i] = connected(&server);
    (void)served(client);
    for (size_t i = 0; i < sizeof crowd / sizeof *crowd; i++) {
        CHECK(receives(crowd[i], "Too many clients, limit 1\n"));
        CHECK(receives_end(crowd[i]));
        (void)close(crowd[i]);
    }
    (void)served(client);
    (void)close(client);
    CHECK(becomes(server.pid, "fd", at_rest));
    CHECK(becomes(server.pid, "task", threads));
    CHECK(stops(&server));
}

/* Starts the server, and then takes descriptors away from it. */
static bool start_limited(struct program *server, rlim_t descriptors)
{
    struct rlimit limit;

    if (!start_server(server, "-p 0") ||
        prlimit(server->pid, RLIMIT_NOFILE, NULL, &limit) < 0)
        return false;
    limit.rlim_cur = descriptors;
    return prlimit(server->pid, RLIMIT_NOFILE, &limit, NULL) == 0;
}

/* Out of descriptors in accept(): one line, no busy loop, and full service as
 * soon as one is free. */
TEST(out_of_descriptors)
{
    struct program server;
    struct pollfd errors = {.events = POLLIN};
    char line[256];
    int asleep = 0;
    int first;
    int second;

    skip_if_wrapped("valgrind needs descriptors of its own");
    CHECK(start_limited(&server, 5)); /* 0-3, and one client */
    errors.fd = server.errors;
    first = served(connected(&server));
    second = connected(&server);
    CHECK(send_text(second, "echo at last\n"));
    CHECK(next_line_is(server.errors,
                       "Fail to connect, accept: Too many open files"));
    (void)served(first);
    /* Three pauses of the accept loop later it has not said so again, and most
     * of the time it was asleep. */
    for (int i = 0; i < 35; i++) {
        CHECK_EQUAL(poll(&errors, 1, 10), 0);
        asleep += *in_proc(server.pid, "stat", ") S ") != '\0';
    }
    CHECK(asleep > 15);
    (void)close(first);
    CHECK(receives(second, "at last\n"));
    (void)close(second);
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    /* With the second client the limit is reached anew: another line, no more.
     */
    if (next_line(server.errors, line, sizeof line))
        CHECK_TEXT(line, "Fail to connect, accept: Too many open files");
    CHECK(!next_line(server.errors, line, sizeof line));
    CHECK(ends(&server, 0));
}

TEST(the_descriptor_limit_sets_the_client_limit)
{
    struct program server;
    char line[256];

    skip_if_wrapped("valgrind needs descriptors of its own");
    CHECK(start(&server, "ulimit -n 11; exec $server -p 0 -m 1000000"));
    CHECK(next_line_is(server.output, "Server Started ..."));
    CHECK(next_line(server.output, line, sizeof line));
    CHECK(strstr(line, ", fd 3, at most 1 clients") != NULL);
    CHECK(stops(&server));
}

/* Too few even for one client: a clear error at the start. */
TEST(too_few_descriptors)
{
    skip_if_wrapped("valgrind needs descriptors of its own");
    for (int limit = 4; limit <= 10; limit++) {
        char command[64];

        (void)snprintf(command, sizeof command,
                       "ulimit -n %d; exec $server -p 0", limit);
        CHECK(fails(command, "ulimit -n: Needs more than 10 descriptors"));
    }
}

/* Started with its standard descriptors closed, the listening socket is still
 * 3, and no client is written a log line. */
TEST(closed_standard_descriptors)
{
    struct program server;
    const char *path = scratch("closed");
    int client;

    skip_if_wrapped("valgrind needs its standard descriptors");
    CHECK(start(&server, "exec $server -U %s <&- >&- 2>&-", path));
    client = served(connected_to_path(path));
    CHECK(send_text(client, "foo\nquit\n"));
    CHECK(receives(client, "Unsupported command: foo\n"));
    CHECK(receives_end(client));
    (void)close(client);
    CHECK(stops(&server));
}

TEST(idle_clients_time_out)
{
    struct program server;
    int silent;
    int other;

    CHECK(start_server(&server, "-p 0 -w 1"));
    silent = connected(&server);
    CHECK(receives(silent, "Timed out after 1 seconds\n"));
    CHECK(receives_end(silent));
    (void)close(silent);
    /* Its second begins when its request is there. */
    CHECK_EQUAL(kill(server.pid, SIGSTOP), 0);
    other = connected(&server);
    CHECK(send_text(other, "ping\n"));
    CHECK_EQUAL(kill(server.pid, SIGCONT), 0);
    CHECK(receives(other, "pong\n"));
    (void)close(other);
    CHECK(stops(&server));
}

/* Fills a connection until the server's thread is stuck in send() and takes no
 * more: for some time nothing can be sent. */
static int stuck(const struct program *server)
{
    int client = connected(server);
    static char pings[5 * 10000];
    bool full = false;

    for (size_t i = 0; i < sizeof pings; i++)
        pings[i] = "ping\n"[i % 5];
    (void)fcntl(client, F_SETFL, O_NONBLOCK);
    while (!full) {
        ssize_t sent = send(client, pings, sizeof pings, MSG_NOSIGNAL);
        struct pollfd output = {.fd = client, .events = POLLOUT};

        full = sent < 0 && (errno != EAGAIN || poll(&output, 1, 300) == 0);
    }
    (void)fcntl(client, F_SETFL, 0);
    return client;
}

/* ---- Many --------------------------------------------------------------- */

/* Bytes of memory that a process has mapped. */
static long mapped_bytes(pid_t pid)
{
    return atol(in_proc(pid, "statm", "")) * sysconf(_SC_PAGESIZE);
}

TEST(a_thousand_clients_at_once)
{
    struct program server;
    int at_rest;
    int threads;
    long mapped;
    struct rlimit limit;
    const int count = load(1000);
    int *clients = calloc((size_t)count, sizeof *clients);

    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < (rlim_t)count + 64) {
        limit.rlim_cur = (rlim_t)count + 64;
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    CHECK(start_server(&server, "-p 0"));
    at_rest = descriptors_at_rest(&server);
    threads = threads_at_rest(&server);
    mapped = mapped_bytes(server.pid);
    for (int i = 0; i < count; i++) {
        char line[256];

        clients[i] = served(connected(&server));
        CHECK(next_line(server.output, line, sizeof line));
    }
    CHECK_EQUAL(count_in_proc(server.pid, "fd"), at_rest + count);
    CHECK_EQUAL(count_in_proc(server.pid, "task"), threads + count);
    /* A default stack is 8 MB. */
    CHECK((mapped_bytes(server.pid) - mapped) / count < 4 * 1024 * 1024);
    for (int i = 0; i < count; i++)
        (void)served(clients[i]);
    for (int i = 0; i < count; i++) {
        char line[256];

        CHECK(send_text(clients[i], "quit\n"));
        CHECK(receives_end(clients[i]));
        (void)close(clients[i]);
        CHECK(next_line(server.output, line, sizeof line));
    }
    CHECK(becomes(server.pid, "fd", at_rest));
    CHECK(becomes(server.pid, "task", threads));
    CHECK(stops(&server));
    free(clients);
}

static bool left_at_most(long bytes, long most)
{
    if (bytes > most)
        note("the threads have left %ld KB: are they detached?", bytes / 1024);
    return bytes <= most;
}

/* A detached thread gives its stack back when it ends. One that is not detached
 * and that nobody joins keeps it. */
TEST(each_thread_gives_its_stack_back)
{
    struct program server;
    long before = 0;
    int threads;

    skip_if_wrapped("valgrind has memory of its own");
    CHECK(start_server(&server, "-p 0"));
    threads = threads_at_rest(&server);
    for (int i = 0; i < 60; i++) {
        serves(&server);
        CHECK(becomes(server.pid, "task", threads));
        if (i == 10)
            before = mapped_bytes(server.pid);
    }
    CHECK(left_at_most(mapped_bytes(server.pid) - before, 25 * 128 * 1024L));
    CHECK(stops(&server));
}

/* Each connection is reset while the server still writes to it: EPIPE and
 * ECONNRESET for its thread, SIGPIPE for nobody. */
TEST(clients_that_vanish)
{
    struct program server;
    int at_rest;
    int threads;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};

    CHECK(start_server(&server, "-p 0"));
    at_rest = descriptors_at_rest(&server);
    threads = threads_at_rest(&server);
    for (int i = 0; i < load(200); i++) {
        char line[256];
        int client = connected(&server);

        (void)setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        CHECK(send_text(client, "ping\nping\nping\n"));
        (void)close(client);
        CHECK(next_line(server.output, line, sizeof line));
        CHECK(next_line(server.output, line, sizeof line));
    }
    serves(&server);
    CHECK(becomes(server.pid, "fd", at_rest));
    CHECK(becomes(server.pid, "task", threads));
    CHECK_EQUAL(kill(server.pid, SIGPIPE), 0);
    serves(&server);
    CHECK(stops(&server));
}

/* ---- The orderly stop --------------------------------------------------- */

/* Sends the signal, sees the last line, the exit status, and the time. */
static void stops_orderly(struct program *server, int number)
{
    long long since = now_ms();

    CHECK_EQUAL(kill(server->pid, number), 0);
    CHECK(line_comes(server->output, "Server Stopped."));
    CHECK(ends(server, 0));
    if (!is_wrapped())
        CHECK(now_ms() - since < 5000);
}

static const int stop_signals[] = {SIGINT, SIGTERM};

TEST(stop_with_idle_clients)
{
    for (int i = 0; i < 2; i++) {
        struct program server;
        int clients[3];
        char closed[3][128];
        char line[256];
        int gone = 0; /* a bit for each */

        CHECK(start_server(&server, "-p 0"));
        for (int j = 0; j < 3; j++)
            clients[j] = served(connected(&server));
        /* One of them has begun a line. */
        CHECK(send_text(clients[2], "ping\nhalf a l"));
        CHECK(receives(clients[2], "pong\n"));
        CHECK_EQUAL(kill(server.pid, stop_signals[i]), 0);
        /* Each is woken and sent off, in any order: it is not the end of the
         * process that ends their connections. */
        for (int j = 0; j < 3; j++) {
            (void)snprintf(closed[j], sizeof closed[j],
                           "Connection from 127.0.0.1:%d closed.",
                           own_port(clients[j]));
            CHECK(receives_end(clients[j]));
            (void)close(clients[j]);
        }
        for (int j = 0; j < 3; j++)
            CHECK(next_line(server.output, line, sizeof line)); /* opened */
        for (int j = 0; j < 3; j++) {
            CHECK(next_line(server.output, line, sizeof line));
            for (int k = 0; k < 3; k++)
                if (strcmp(line, closed[k]) == 0)
                    gone |= 1 << k;
        }
        CHECK_EQUAL(gone, 7);
        CHECK(next_line_is(server.output, "Server Stopped."));
        CHECK(ends(&server, 0));
    }
}

/* Who comes after the stop's signal is refused, and does not wait in a backlog
 * for a server that takes nobody any more. Clients that never read do not keep
 * the server from stopping in time. */
TEST(stop_refuses_new_clients)
{
    struct program server;
    long long since;
    int clients[2];
    int idle;

    CHECK(start_server(&server, "-p 0"));
    for (int i = 0; i < 2; i++)
        clients[i] = stuck(&server); /* so the stop takes a second or two */
    idle = served(connected(&server));
    since = now_ms();
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    CHECK(receives_end(idle)); /* it has emptied its backlog */
    CHECK_EQUAL(connect_to("127.0.0.1", server.port), -1);
    CHECK(line_comes(server.output, "Server Stopped."));
    CHECK(ends(&server, 0));
    CHECK(is_wrapped() || now_ms() - since < 5000);
    (void)close(idle);
    for (int i = 0; i < 2; i++)
        (void)close(clients[i]);
}

/* Connections that the kernel has accepted and the server has not: their
 * requests have arrived, so they are answered. */
TEST(stop_answers_the_backlog)
{
    struct program server;
    int clients[5];

    CHECK(start_server(&server, "-p 0"));
    CHECK_EQUAL(kill(server.pid, SIGSTOP), 0);
    for (int i = 0; i < 5; i++) {
        clients[i] = connected(&server);
        CHECK(send_text(clients[i], "ping\necho waited\n"));
    }
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    CHECK_EQUAL(kill(server.pid, SIGCONT), 0);
    for (int i = 0; i < 5; i++) {
        CHECK(receives(clients[i], "pong\nwaited\n"));
        CHECK(receives_end(clients[i]));
        (void)close(clients[i]);
    }
    CHECK(line_comes(server.output, "Server Stopped."));
    CHECK(ends(&server, 0));
}

/* The first SIGINT waits for a client that does not read; the second does not.
 * It has to come within a second, as that client has no more than that to
 * itself: on a machine that is too slow for once it is tried again. */
TEST(a_second_ctrl_c_ends_it_at_once)
{
    long long begin = now_ms();
    bool in_time = false;

    skip_if_wrapped("too slow to tell a full connection from a slow server");
    while (!in_time) {
        struct program server;
        long long since;
        int idle;
        int client;
        int status;

        CHECK(start_server(&server, "-p 0"));
        idle = served(connected(&server));
        client = stuck(&server);
        since = now_ms();
        CHECK_EQUAL(kill(server.pid, SIGINT), 0);
        /* Another client is sent off: the first signal has been taken. */
        CHECK(receives_end(idle));
        (void)close(idle);
        CHECK_EQUAL(kill(server.pid, SIGINT), 0);
        in_time = now_ms() - since < 1000;
        status = wait_for_end(&server);
        (void)close(client);
        CHECK(status == 128 + SIGINT || (!in_time && status == 0));
        CHECK(in_time || still_patient(begin));
    }
}

/* make(1) and timeout(1) send two SIGTERMs for one: the stop stays orderly. */
TEST(a_second_sigterm_changes_nothing)
{
    struct program server;
    int idle;

    CHECK(start_server(&server, "-p 0"));
    idle = served(connected(&server));
    CHECK_EQUAL(kill(server.pid, SIGTERM), 0);
    CHECK(receives_end(idle)); /* the first has been taken */
    stops_orderly(&server, SIGTERM);
    (void)close(idle);
}

/* `sh -c './server &'` and nohup(1) start it with a signal ignored, and it
 * stays so. The other one stops the server. */
TEST(a_signal_that_was_ignored_stays_ignored)
{
    for (int i = 0; i < 2; i++) {
        struct program server;
        bool started;

        (void)signal(stop_signals[i], SIG_IGN);
        started = start_server(&server, "-p 0");
        (void)signal(stop_signals[i], SIG_DFL);
        CHECK(started);
        /* A bit for each signal that the process ignores. */
        CHECK(
            is_wrapped() ||
            strtoull(in_proc(server.pid, "status", "SigIgn:") + 7, NULL, 16) >>
                    (stop_signals[i] - 1) &
                1);
        CHECK_EQUAL(kill(server.pid, stop_signals[i]), 0);
        serves(&server);
        stops_orderly(&server, stop_signals[1 - i]);
    }
}

/* A mask of blocked signals is inherited, too. */
TEST(signals_that_were_blocked_are_not)
{
    struct program server;
    sigset_t blocked;
    bool started;

    (void)sigfillset(&blocked);
    (void)sigprocmask(SIG_BLOCK, &blocked, NULL);
    started = start_server(&server, "-p 0");
    (void)sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    CHECK(started);
    serves(&server);
    stops_orderly(&server, SIGTERM);
}

/* ---- Usage -------------------------------------------------------------- */

TEST(server_help)
{
    CHECK(shows_help("exec $server -h", USAGE, 9));
    CHECK(shows_help("exec $server --help", USAGE, 9));
}

#define PORT_MISUSE "-p: needs a whole number from 0 to 65535"
#define PATH_MISUSE "-U: needs a path, and no address or port (-4, -6, -b, -p)"

TEST(server_usage_errors)
{
    static const char *const errors[][2] = {
        {"-p 12x8", PORT_MISUSE},
        {"-p 65536", PORT_MISUSE},
        {"-p -1", PORT_MISUSE},
        {"-p ''", PORT_MISUSE},
        {"-p ' 1'", PORT_MISUSE},
        {"-p 18446744073709551617", PORT_MISUSE},
        {"-m 0", "-m: needs a whole number from 1 to 1000000"},
        {"-m two", "-m: needs a whole number from 1 to 1000000"},
        {"-w 0", "-w: needs a whole number from 1 to 1000000"},
        {"-w 1.5", "-w: needs a whole number from 1 to 1000000"},
        {"-x", "-x: no such option"},
        {"-qx", "-x: no such option"},
        {"-p", "-p: needs a value"},
        {"1208", "1208: no operand expected"},
        {"-- --help", "--help: no operand expected"},
        {"--hepl", "--hepl: no such option"},
        {"-q-", "--: no such option"},
        {"-q- x", "--: no such option"},
        {"-U s -p 1", PATH_MISUSE},
        {"-U s -b ::1", PATH_MISUSE},
        {"-U s -4", PATH_MISUSE},
        {"-U ''", PATH_MISUSE},
        {"-u", "-u: no such option"},
    };

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        char command[128];
        char complaint[128];

        (void)snprintf(command, sizeof command, "exec $server %s",
                       errors[i][0]);
        (void)snprintf(complaint, sizeof complaint, "server: %s", errors[i][1]);
        CHECK(is_misuse(command, complaint, USAGE));
    }
}
