/*
 * test_storm.c - the server stopped under fire, and long after the start.
 *
 * One thread here plays a thousand clients with poll(2). They pipeline numbered
 * echoes, and each knows the next line that it is owed: what comes back out of
 * order, twice, cut or never is seen at once.
 *
 * In the environment: ROUNDS (100), CLIENTS (1000), CONNECTIONS (500000).
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* So little is under way at any time that all of it fits the server's receive
 * buffer: what send() took has arrived. */
#define WINDOW 200
#define REQUESTS_AT_ONCE 20
#define MOST_CLIENTS 1000
#define MOST_AT_A_TIME 192

/* A client that goes on sending after the signal. */
#define PERSISTENT(number) ((number) % 100 == 0)

struct storm_client {
    unsigned sent;     /* requests */
    unsigned received; /* whole replies, each the right one */
    unsigned sent_at_signal;
    bool ended;
    bool half_closed;
    char owed[16];  /* the next reply */
    size_t partial; /* bytes of it that have come */
};

static struct storm_client clients[MOST_CLIENTS];
static struct pollfd sockets[MOST_CLIENTS];
static int client_count;

/* Numbers that differ from round to round, and are the same each time. */
static unsigned chance(unsigned limit)
{
    static unsigned state = 1208;

    return (unsigned)rand_r(&state) % limit;
}

/* Sends a few numbered requests at once, in one segment. */
static void send_some(int number)
{
    struct storm_client *client = &clients[number];
    char requests[REQUESTS_AT_ONCE * 24];
    size_t length = 0;

    if (client->sent - client->received > WINDOW - REQUESTS_AT_ONCE)
        return;
    for (int i = 0; i < REQUESTS_AT_ONCE; i++)
        length += (size_t)snprintf(requests + length, sizeof requests - length,
                                   "echo %u\n", client->sent + (unsigned)i);
    if (send(sockets[number].fd, requests, length, MSG_NOSIGNAL) ==
        (ssize_t)length)
        client->sent += REQUESTS_AT_ONCE;
}

/* Reads what has come, and compares it with what is owed. */
static bool receive_some(int number)
{
    struct storm_client *client = &clients[number];
    char bytes[4096];
    ssize_t count = recv(sockets[number].fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    if (count == 0) {
        client->ended = true;
        return client->partial == 0;
    }
    for (ssize_t i = 0; i < count; i++) {
        if (client->partial == 0)
            (void)snprintf(client->owed, sizeof client->owed, "%u\n",
                           client->received);
        if (bytes[i] != client->owed[client->partial++])
            return false;
        if (bytes[i] == '\n') {
            client->partial = 0;
            client->received++;
        }
    }
    return client->received <= client->sent;
}

static const char *complaint(int number, const char *what)
{
    static char words[160];
    const struct storm_client *client = &clients[number];

    (void)snprintf(words, sizeof words,
                   "client %d %s: sent %u, before the signal %u, received %u, "
                   "%zu bytes of a line",
                   number, what, client->sent, client->sent_at_signal,
                   client->received, client->partial);
    return words;
}

/* One turn of all clients. NULL, or what went wrong. */
static const char *play(bool signalled)
{
    (void)poll(sockets, (nfds_t)client_count, signalled ? 100 : 0);
    for (int i = 0; i < client_count; i++) {
        if (clients[i].ended)
            continue;
        if (sockets[i].revents & (POLLIN | POLLHUP | POLLERR))
            if (!receive_some(i))
                return complaint(i, errno == ECONNRESET
                                        ? "was reset"
                                        : "got a wrong reply or half of one");
        if (clients[i].ended) {
            (void)close(sockets[i].fd);
            sockets[i].fd = -1;
        } else if (!signalled || PERSISTENT(i)) {
            send_some(i);
        }
    }
    return NULL;
}

static bool everybody_ended(void)
{
    for (int i = 0; i < client_count; i++)
        if (!clients[i].ended)
            return false;
    return true;
}

/* Connects them; the first ones are under fire already when the last come.
 * Some may still be in the backlog when the signal comes. */
static const char *connect_everybody(const struct program *server,
                                     const char *path)
{
    const char *wrong = NULL;

    for (client_count = 0; client_count < setting("CLIENTS", MOST_CLIENTS) &&
                           client_count < MOST_CLIENTS;) {
        int connected = path ? connect_to_path(path)
                             : connect_to("127.0.0.1", server->port);

        if (connected < 0)
            return "connect";
        clients[client_count] = (struct storm_client){.sent = 0};
        sockets[client_count] =
            (struct pollfd){.fd = connected, .events = POLLIN};
        send_some(client_count++);
        if (client_count % 100 == 0 && (wrong = play(false)) != NULL)
            return wrong;
    }
    return wrong;
}

/* Reads the log to its end: true if the last line is the right one. */
static bool says_stopped(const struct program *server)
{
    static const char last[] = "\nServer Stopped.\n";
    static char log[1 << 20];
    size_t length = 0;
    ssize_t count;

    while ((count = read(server->output, log + length, sizeof log - length)) >
           0)
        length += (size_t)count;
    return length >= strlen(last) &&
           memcmp(log + length - strlen(last), last, strlen(last)) == 0;
}

/* NULL, or what went wrong. */
static const char *stop_one(struct program *server, int number,
                            const char *path)
{
    long long since;
    const char *wrong = connect_everybody(server, path);
    int status;

    for (unsigned turns = chance(12); !wrong && turns > 0; turns--)
        wrong = play(false);
    if (wrong)
        return wrong;

    since = now_ms();
    for (int i = 0; i < client_count; i++)
        clients[i].sent_at_signal = clients[i].sent;
    (void)kill(server->pid, number);
    while (!wrong && !everybody_ended() && still_patient(since))
        wrong = play(true);
    if (wrong)
        return wrong;
    for (int i = 0; i < client_count; i++) {
        if (!clients[i].ended)
            return complaint(i, "got no end");
        if (clients[i].received < clients[i].sent_at_signal)
            return complaint(i, "did not get what it was owed");
    }
    if (!says_stopped(server))
        return "the log does not end with Server Stopped.";
    if ((status = wait_for_end(server)) != 0)
        return status < 0 ? "the server did not end" : "the exit status";
    if (now_ms() - since >= 5000)
        return "the stop took more than 5 seconds";
    return path && access(path, F_OK) == 0 ? "the socket file is left" : NULL;
}

/* A thousand pipelining clients, some of which go on after the signal; SIGTERM
 * and SIGINT, TCP and a path, at random moments. */
TEST(stop_under_fire)
{
    for (int round = 0; round < setting("ROUNDS", 100); round++) {
        struct program server;
        const char *path = round % 4 == 3 ? scratch("fire") : NULL;
        const char *wrong;

        CHECK(path ? start_server(&server, "-U %s", path)
                   : start_server(&server, "-p 0"));
        /* The whole log fits: nobody reads it before the end. */
        CHECK(fcntl(server.output, F_SETPIPE_SZ, 1 << 20) >= 0);
        wrong = stop_one(&server, round / 2 % 2 ? SIGINT : SIGTERM, path);
        CHECK_TEXT(wrong ? wrong : "all is well", "all is well");
        for (int i = 0; i < client_count; i++)
            if (sockets[i].fd >= 0)
                (void)close(sockets[i].fd);
    }
}

/* At a random moment from before main() to after the first accept(): either
 * the program has not come to life yet, and dies of the signal, or it stops in
 * good order. If it dies between bind() and the handlers its socket file stays,
 * and the next start, here the next round, replaces it. */
TEST(stop_during_start)
{
    int orderly = 0;
    struct program first;
    long long start_took = now_ms();
    const char *path = scratch("start");
    unsigned range;

    CHECK(start_server(&first, "-U %s", path));
    start_took = now_ms() - start_took;
    CHECK(stops(&first));
    range = (unsigned)(start_took + 2) * 1500;

    for (int round = 0; round < 4 * setting("ROUNDS", 100); round++) {
        int number = round % 2 ? SIGINT : SIGTERM;
        struct program server;
        struct timespec moment = {.tv_nsec = chance(range) % 900000 * 1000L};
        bool stopped;
        int status;

        CHECK(start(&server, "exec $server -U %s", path));
        (void)nanosleep(&moment, NULL); /* the moment is what is tried out */
        (void)kill(server.pid, number);
        stopped = says_stopped(&server);
        status = wait_for_end(&server);
        CHECK((status == 0 && stopped) || status == 128 + number);
        CHECK(status != 0 || access(path, F_OK) < 0);
        orderly += status == 0;
    }
    CHECK(orderly > 0);
}

/* ---- Leaks -------------------------------------------------------------- */

/* Bytes of memory that a process has in use. */
static long resident(pid_t pid)
{
    long pages = 0;

    CHECK(sscanf(in_proc(pid, "statm", ""), "%*d %ld", &pages) == 1);
    return pages * sysconf(_SC_PAGESIZE);
}

/* connect, ping, quit: the server hangs up. Some at a time, so that the
 * threads' stacks are in use in turn. */
static bool come_and_go(const struct program *server, int count, int at_a_time)
{
    int together[MOST_AT_A_TIME];
    char address[16];

    for (int done = 0; done < count; done += at_a_time) {
        /* Other addresses, or the ports would run out. */
        (void)snprintf(address, sizeof address, "127.0.0.%d",
                       1 + done / at_a_time % 200);
        for (int i = 0; i < at_a_time; i++) {
            together[i] = connect_to(address, server->port);
            if (together[i] < 0 || !send_text(together[i], "ping\nquit\n"))
                return false;
        }
        for (int i = 0; i < at_a_time; i++) {
            if (!receives(together[i], "pong\n") || !receives_end(together[i]))
                return false;
            (void)close(together[i]);
        }
    }
    return true;
}

TEST(leaks)
{
    int connections = (int)setting("CONNECTIONS", 500000);
    struct program server;
    int descriptors;
    int turn = 0;
    long before;
    long after;

    CHECK(start_server(&server, "-p 0 -b 0.0.0.0"));
    /* Nobody is to read half a million log lines. */
    CHECK(close(server.output) == 0);
    server.output = -1;
    descriptors = count_in_proc(server.pid, "fd");
    /* More at once than follow, so that the C library keeps, for the threads to
     * come, as many used stacks as it ever will: each waits for its client's
     * end of file. */
    CHECK(come_and_go(&server, MOST_AT_A_TIME, MOST_AT_A_TIME));
    CHECK(come_and_go(&server, 2048, 64));
    CHECK(becomes(server.pid, "task", 1));
    /* A stack in the C library's cache may still get a page more, once. What is
     * lost with each client is lost again in each turn. */
    do {
        before = resident(server.pid);
        CHECK(come_and_go(&server, connections, 64));
        CHECK(becomes(server.pid, "task", 1));
        CHECK(becomes(server.pid, "fd", descriptors));
        after = resident(server.pid);
        (void)printf("%d connections, resident memory %ld KB before, %ld KB "
                     "after ",
                     connections, before / 1024, after / 1024);
    } while (after - before > 256 * 1024 && ++turn < 3);
    CHECK(after - before <= 256 * 1024);
    CHECK(stops(&server));
}
