/*
 * client.c - a telnet for this server, or for any other that speaks lines.
 *
 * A conversation has two directions, and neither waits for the other: one
 * thread reads standard input and sends, the other receives and writes standard
 * output. One thread that did both in turn would deadlock as soon as the server
 * waits for it to read while it waits for the server to read.
 *
 * Standard output gets the server's bytes and nothing else. What telnet would
 * say goes to standard error.
 */
#include "handler.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)64 * 1024)
#define HOST_BYTES ((size_t)INET6_ADDRSTRLEN + 1 + IF_NAMESIZE)
#define SECONDS_MAXIMUM 1000000

/* How often, a millisecond or two apart, the receiving thread looks whether the
 * end of the input has been noticed. */
#define END_ROUNDS 500

struct options {
    int family;
    bool datagrams;
    unsigned seconds; /* -w; 0: for ever, or with -u one second */
    const char *host;
    const char *port;
    const char *path; /* not NULL: a Unix domain socket */
};

/* What became of the datagrams that we had to send (-u). */
struct tally {
    unsigned long sent;
    unsigned long expected; /* of these ask for a reply: ping and echo */
    int error;              /* why no more were sent */
};

/* What the two threads share. The socket and the pipe are set before the second
 * one starts; the flags and the tally are guarded by the lock. */
struct connection {
    int socket;
    struct options options;
    char peer[512]; /* "localhost:1208", for messages */

    pthread_mutex_t lock;
    bool quit_sent;
    bool input_ended;
    bool input_failed;
    struct tally tally;

    int input_end[2];       /* -u: a pipe, through which nothing is sent */
    unsigned long received; /* -u: datagrams */
};

/* With -u -U: the path that we bind, for the server to answer to. The handlers
 * of signals that end us have no other way to it. */
static char own_directory[128];
static char own_path[sizeof own_directory + sizeof "/client"];

/* ---- Errors ------------------------------------------------------------- */

/* One line of reason, and exit 1. A failed client has nothing to finish. */
static _Noreturn void fail(const struct connection *connection,
                           const char *what, const char *reason)
{
    (void)fprintf(stderr, "Fail to %s, %s: %s\n", what, connection->peer,
                  reason);
    exit(EXIT_FAILURE);
}

/* Standard input and output may be shared with a program that has made them
 * non-blocking, a terminal for one. EAGAIN is no failure then, but "not yet".
 */
static bool is_not_yet(int descriptor, short event)
{
    struct pollfd wait = {.fd = descriptor, .events = event};

    if (errno == EAGAIN)
        (void)poll(&wait, 1, -1);
    return errno == EAGAIN || errno == EINTR;
}

/* ---- From standard input to the server ---------------------------------- */

/* Follows what is sent line by line, however read(2) cuts it, to know whether
 * the server was asked to quit: then its hanging up is a good end. */
struct follower {
    char line[LINE_LIMIT];
    size_t length;
    bool too_long;
};

static bool is_quit(const struct follower *follower)
{
    return !follower->too_long &&
           parse(follower->line, follower->length).command == QUIT_COMMAND;
}

static bool follow(struct follower *follower, const char *bytes, size_t count)
{
    const char *end = bytes + count;
    const char *last_line = end;
    bool quit = false;

    /* Most input has no 'q' anywhere. Then no line of it is `quit`, and all
     * that must be kept is the last one, which may go on. A million lines are
     * passed over so, where parse() would take as long as to send them. */
    if (memchr(bytes, 'q', count) == NULL &&
        memchr(follower->line, 'q', follower->length) == NULL) {
        while (last_line > bytes && last_line[-1] != '\n')
            last_line--;
        if (last_line > bytes) {
            follower->length = 0;
            follower->too_long = false;
            bytes = last_line;
        }
    }
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t part = (size_t)((newline ? newline : end) - bytes);

        if (follower->length + part >= sizeof follower->line)
            follower->too_long = true;
        if (!follower->too_long) {
            memcpy(follower->line + follower->length, bytes, part);
            follower->length += part;
        }
        if (newline == NULL)
            break;
        quit = quit || is_quit(follower);
        follower->length = 0;
        follower->too_long = false;
        bytes = newline + 1;
    }
    return quit;
}

static void set_flag(struct connection *connection, bool *flag)
{
    (void)pthread_mutex_lock(&connection->lock);
    *flag = true;
    (void)pthread_mutex_unlock(&connection->lock);
}

static bool get_flag(struct connection *connection, const bool *flag)
{
    bool value;

    (void)pthread_mutex_lock(&connection->lock);
    value = *flag;
    (void)pthread_mutex_unlock(&connection->lock);
    return value;
}

/* send(2) may take less than it was given. False if it fails for good. */
static bool send_all(int socket, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(socket, bytes, count, 0);

        if (sent < 0 && errno != EINTR)
            return false;
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
        }
    }
    return true;
}

/* A broken connection is seen by the receiving side too, after the last bytes
 * that did arrive, so it is the one to tell. Any other failure it would never
 * hear of: the server would wait for us, and we for the server. */
static void give_up_sending(struct connection *connection)
{
    if (errno != EPIPE && errno != ECONNRESET) {
        (void)fprintf(stderr, "Fail to send, %s: %s\n", connection->peer,
                      strerror(errno));
        set_flag(connection, &connection->input_failed);
    }
    (void)shutdown(connection->socket, SHUT_WR);
}

/* The sending thread: standard input to the socket, as it is, to the end, and
 * then a half-close. "I have no more to say" is not "good bye": the replies
 * still come. */
static void *send_input(void *argument)
{
    struct connection *connection = argument;
    struct follower follower = {.length = 0};
    char buffer[BUFFER_BYTES];
    ssize_t count;

    while ((count = read(STDIN_FILENO, buffer, sizeof buffer)) != 0) {
        if (count < 0) {
            if (is_not_yet(STDIN_FILENO, POLLIN))
                continue;
            perror("Fail to read standard input");
            set_flag(connection, &connection->input_failed);
            break;
        }
        /* Before it is sent: the answer may be quicker than we are. */
        if (follow(&follower, buffer, (size_t)count))
            set_flag(connection, &connection->quit_sent);
        if (!send_all(connection->socket, buffer, (size_t)count)) {
            give_up_sending(connection);
            return NULL;
        }
    }
    if (follower.length > 0 && is_quit(&follower))
        set_flag(connection, &connection->quit_sent);
    set_flag(connection, &connection->input_ended);
    (void)shutdown(connection->socket, SHUT_WR);
    return NULL;
}

/* ---- From the server to standard output --------------------------------- */

static void write_output(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, count);

        if (written < 0 && !is_not_yet(STDOUT_FILENO, POLLOUT)) {
            /* EPIPE: nobody wants to see more, as after `| head -1`. */
            if (errno != EPIPE)
                perror("Fail to write standard output");
            exit(EXIT_FAILURE);
        }
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        }
    }
}

static _Noreturn void fail_after(const struct connection *connection,
                                 const char *what)
{
    const unsigned seconds = connection->options.seconds;

    if (seconds > 0 && (errno == EAGAIN || errno == ETIMEDOUT)) {
        char reason[64];

        (void)snprintf(reason, sizeof reason, "Timed out after %u second%s",
                       seconds, seconds == 1 ? "" : "s");
        fail(connection, what, reason);
    }
    fail(connection, what, strerror(errno));
}

/* Was it for the server to hang up? Yes, if we said `quit`, or have no more to
 * say. The sending thread may be about to find that out: as long as standard
 * input is readable, which an end of file is, it gets a moment to do so. */
static bool is_good_end(struct connection *connection)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    for (int round = 0; round < END_ROUNDS; round++) {
        if (get_flag(connection, &connection->input_failed))
            return false;
        if (get_flag(connection, &connection->quit_sent) ||
            get_flag(connection, &connection->input_ended))
            return true;
        if (poll(&input, 1, 1) == 0)
            return false;
        (void)poll(NULL, 0, 1);
    }
    return false;
}

/* Receives until the server ends the conversation. Returns the exit status. */
static int receive_output(struct connection *connection)
{
    char buffer[BUFFER_BYTES];
    ssize_t count;

    while ((count = recv(connection->socket, buffer, sizeof buffer, 0)) != 0) {
        if (count > 0) {
            write_output(buffer, (size_t)count);
        } else if (errno == ECONNRESET &&
                   get_flag(connection, &connection->quit_sent)) {
            break; /* it closed while more of our input was under way */
        } else if (errno != EINTR) {
            fail_after(connection, "receive");
        }
    }
    (void)fprintf(stderr, "Connection closed by foreign host.\n");
    return is_good_end(connection) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Both directions at once, until the server hangs up. The sending thread may be
 * waiting for a key then; the end of the process ends it too. */
static int converse_with_server(struct connection *connection)
{
    pthread_t sender;
    int error;

    if (connection->options.seconds > 0) {
        struct timeval wait = {.tv_sec = (time_t)connection->options.seconds};

        (void)setsockopt(connection->socket, SOL_SOCKET, SO_RCVTIMEO, &wait,
                         sizeof wait);
    }
    error = pthread_create(&sender, NULL, send_input, connection);
    if (error != 0)
        fail(connection, "start a thread", strerror(error));
    (void)pthread_detach(sender);
    return receive_output(connection);
}

/* ---- Datagrams (-u) ----------------------------------------------------- */

/* A line longer than any datagram: it is not sent, and the next ones are. */
static void skip_line(struct connection *connection)
{
    (void)fprintf(stderr, "Fail to send, %s: %s\n", connection->peer,
                  strerror(EMSGSIZE));
    set_flag(connection, &connection->input_failed);
}

/* Sends a line as one datagram, its '\n' included. A line that fits no request
 * is sent as well: whether it is answered is the server's business. False if
 * there is nobody to send to. send(2) tells what became of an earlier datagram
 * (ECONNREFUSED, udp(7)), and tells it once: recv(2) does not learn of it. */
static bool send_datagram(struct connection *connection, const char *line,
                          size_t length)
{
    size_t text = length - (line[length - 1] == '\n');
    enum command command = parse(line, text).command;

    while (send(connection->socket, line, length, 0) < 0) {
        if (errno == EMSGSIZE) {
            skip_line(connection);
            return true;
        }
        if (errno == ENOBUFS || errno == EAGAIN) {
            (void)poll(NULL, 0, 1);
        } else if (errno != EINTR) {
            int error = errno;

            (void)pthread_mutex_lock(&connection->lock);
            connection->tally.error = error;
            (void)pthread_mutex_unlock(&connection->lock);
            return false;
        }
    }
    (void)pthread_mutex_lock(&connection->lock);
    connection->tally.sent++;
    if (command == PING_COMMAND || command == ECHO_COMMAND)
        connection->tally.expected++;
    (void)pthread_mutex_unlock(&connection->lock);
    return true;
}

/* Cuts standard input into lines, to its end. read(2) and not getline(3), which
 * would hold the lock of stdin while it waits for a key: exit() waits for that
 * lock. */
static void read_lines(struct connection *connection)
{
    char buffer[BUFFER_BYTES];
    size_t length = 0;
    bool skipping = false; /* inside a line that is too long */
    ssize_t count;

    while ((count = read(STDIN_FILENO, buffer + length,
                         sizeof buffer - length)) > 0 ||
           (count < 0 && is_not_yet(STDIN_FILENO, POLLIN))) {
        const char *line = buffer;
        const char *newline;

        length += count > 0 ? (size_t)count : 0;
        while ((newline = memchr(line, '\n',
                                 (size_t)(buffer + length - line))) != NULL) {
            if (!skipping &&
                !send_datagram(connection, line, (size_t)(newline - line) + 1))
                return;
            skipping = false;
            line = newline + 1;
        }
        length = (size_t)(buffer + length - line);
        memmove(buffer, line, length);
        if (length == sizeof buffer) {
            if (!skipping)
                skip_line(connection);
            skipping = true;
            length = 0;
        }
    }
    if (count < 0) {
        perror("Fail to read standard input");
        set_flag(connection, &connection->input_failed);
    } else if (length > 0 && !skipping) {
        (void)send_datagram(connection, buffer, length);
    }
}

/* The sending thread. At its end it hangs up on the other one, which can wait
 * for that and for a datagram at the same time, in poll(2). */
static void *send_lines(void *argument)
{
    struct connection *connection = argument;

    read_lines(connection);
    (void)close(connection->input_end[1]);
    return NULL;
}

static struct tally get_tally(struct connection *connection)
{
    struct tally tally;

    (void)pthread_mutex_lock(&connection->lock);
    tally = connection->tally;
    (void)pthread_mutex_unlock(&connection->lock);
    return tally;
}

static void receive_datagram(struct connection *connection)
{
    char buffer[BUFFER_BYTES];
    ssize_t count = recv(connection->socket, buffer, sizeof buffer, 0);

    if (count < 0 && errno != EINTR && errno != EAGAIN)
        fail(connection, "reach", strerror(errno));
    if (count >= 0) {
        connection->received++;
        write_output(buffer, (size_t)count);
    }
}

/* Prints each datagram that comes back. After the end of our input the last
 * ones have -w seconds from the latest sign of life; datagrams may be lost, and
 * then there is nothing to wait for, and nobody who would say so. */
static int exchange_datagrams(struct connection *connection)
{
    const unsigned seconds = connection->options.seconds;
    const int patience_ms = 1000 * (int)(seconds > 0 ? seconds : 1);
    bool ended = false;
    struct tally tally = {.sent = 0};
    pthread_t sender;
    int error;

    /* A refusal wakes poll() here, and the sending thread's next send() may
     * take it before our recv() does: then recv() must not wait. */
    if (fcntl(connection->socket, F_SETFL, O_NONBLOCK) < 0 ||
        pipe(connection->input_end) < 0)
        fail(connection, "make a pipe", strerror(errno));
    error = pthread_create(&sender, NULL, send_lines, connection);
    if (error != 0)
        fail(connection, "start a thread", strerror(error));

    (void)pthread_detach(sender);

    while (!ended || (connection->received < tally.sent && tally.error == 0)) {
        struct pollfd waits[] = {
            {.fd = connection->socket, .events = POLLIN},
            {.fd = connection->input_end[0], .events = POLLIN}};
        int ready = poll(waits, ended ? 1 : 2, ended ? patience_ms : -1);

        if (ready == 0)
            break;
        if (ready > 0 && waits[0].revents != 0) {
            receive_datagram(connection);
        } else if (ready > 0) {
            tally = get_tally(connection);
            ended = true;
        }
    }
    if (tally.error != 0)
        fail(connection, "reach", strerror(tally.error));
    if (connection->received < tally.expected) {
        (void)fprintf(stderr, "Replies that did not come: %lu of %lu\n",
                      tally.expected - connection->received, tally.expected);
        return EXIT_FAILURE;
    }
    return get_flag(connection, &connection->input_failed) ? EXIT_FAILURE
                                                           : EXIT_SUCCESS;
}

static void remove_own_path(void)
{
    if (*own_path)
        (void)unlink(own_path);
    if (*own_directory)
        (void)rmdir(own_directory);
}

/* unlink(2), rmdir(2) and raise(3) are async-signal-safe. SA_RESETHAND has put
 * the default action back, so the signal ends us now, as its sender expects. */
static void on_end_signal(int number)
{
    remove_own_path();
    (void)raise(number);
}

/* Has the signals that end us remove our path, but for those that our parent
 * ignores for us (nohup(1)). Returns with them held, and the mask from before:
 * one that comes between mkdtemp(3) and the handler's knowing of it would leave
 * a directory behind. */
static sigset_t handle_end_signals(void)
{
    const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    struct sigaction action = {.sa_handler = on_end_signal,
                               .sa_flags = (int)SA_RESETHAND};
    struct sigaction inherited;
    sigset_t held;
    sigset_t before;

    (void)sigemptyset(&action.sa_mask);
    (void)sigemptyset(&held);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        (void)sigaddset(&held, numbers[i]);
        if (sigaction(numbers[i], NULL, &inherited) == 0 &&
            inherited.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &action, NULL);
    }
    (void)pthread_sigmask(SIG_BLOCK, &held, &before);
    return before;
}

/* A Unix domain datagram carries its sender's path, if it has one: without, the
 * server would not know where to answer. Ours has a directory of its own, in
 * which nobody else can put a file. The server may be another user, and needs
 * to write to our socket (unix(7), "Pathname socket ownership and
 * permissions"); it knows the name from us, and others can neither list nor
 * guess it. */
static void bind_own_path(struct connection *connection)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    const char *parent = getenv("TMPDIR");
    sigset_t mask;
    mode_t creation;
    int bound;

    /* The server looks it up from its own working directory. */
    if (parent == NULL || *parent != '/' || strlen(parent) > 64)
        parent = "/tmp";
    mask = handle_end_signals();
    (void)snprintf(own_directory, sizeof own_directory, "%s/client-XXXXXX",
                   parent);
    if (mkdtemp(own_directory) == NULL) {
        int error = errno;

        *own_directory = '\0';
        fail(connection, "make a directory to be answered in", strerror(error));
    }
    (void)snprintf(own_path, sizeof own_path, "%s/client", own_directory);
    (void)strcpy(own.sun_path, own_path);
    creation = umask(0);
    bound = bind(connection->socket, (struct sockaddr *)&own, sizeof own);
    (void)umask(creation);
    if (bound < 0 || chmod(own_directory, S_IRWXU | S_IXGRP | S_IXOTH) < 0 ||
        atexit(remove_own_path) != 0) {
        int error = errno;

        remove_own_path();
        fail(connection, "bind", strerror(error));
    }
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* ---- Connecting --------------------------------------------------------- */

/* An address in the two parts that a person knows: "::1" and "1208". */
struct endpoint {
    char host[HOST_BYTES];
    char port[sizeof "65535"];
};

static struct endpoint endpoint(const struct sockaddr *address,
                                socklen_t length)
{
    struct endpoint end;

    if (getnameinfo(address, length, end.host, sizeof end.host, end.port,
                    sizeof end.port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)strcpy(end.host, "?");
        (void)strcpy(end.port, "?");
    }
    return end;
}

/* Waits for a connection that is being made. SO_ERROR tells what became of it
 * (connect(2), EINPROGRESS). */
static int finish_connecting(int socket, unsigned seconds)
{
    struct pollfd output = {.fd = socket, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof error;
    int ready = poll(&output, 1, (int)seconds * 1000);

    if (ready == 0)
        errno = ETIMEDOUT;
    if (ready <= 0 ||
        getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return -1;
    if (error != 0)
        errno = error;
    return error != 0 ? -1 : 0;
}

/* connect(2) for at most `seconds` (0: as long as the kernel tries, about two
 * minutes), on a socket that does not block. A Unix domain server whose backlog
 * is full says EAGAIN at once: it is asked again until it has room. */
static int connect_within(int socket, const struct sockaddr *address,
                          socklen_t length, unsigned seconds)
{
    const int again_ms = 10;
    int left_ms = (int)seconds * 1000;

    if (seconds == 0)
        return connect(socket, address, length);
    if (fcntl(socket, F_SETFL, O_NONBLOCK) < 0)
        return -1;
    while (connect(socket, address, length) < 0) {
        if (errno == EINPROGRESS) {
            if (finish_connecting(socket, seconds) < 0)
                return -1;
            break;
        }
        if (errno != EAGAIN)
            return -1;
        if (left_ms <= 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        (void)poll(NULL, 0, again_ms);
        left_ms -= again_ms;
    }
    return fcntl(socket, F_SETFL, 0);
}

static void connect_to_path(struct connection *connection)
{
    const struct options *options = &connection->options;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(connection->peer, sizeof connection->peer, "%s",
                   options->path);
    if (strlen(options->path) >= sizeof address.sun_path) {
        char reason[64];

        (void)snprintf(reason, sizeof reason,
                       "File name too long, limit %zu bytes",
                       sizeof address.sun_path - 1);
        fail(connection, "connect", reason);
    }
    (void)strcpy(address.sun_path, options->path);
    connection->socket =
        socket(AF_UNIX, options->datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (connection->socket < 0)
        fail(connection, "connect", strerror(errno));
    if (options->datagrams)
        bind_own_path(connection);
    if (connect_within(connection->socket, (struct sockaddr *)&address,
                       sizeof address, options->seconds) < 0)
        fail_after(connection, "connect");
    (void)fprintf(stderr, "Connected to %s: [unix, %s]\n", options->path,
                  options->path);
}

/* Our end's five-tuple: the server prints the same one mirrored. */
static void say_connected(const struct connection *connection,
                          const struct addrinfo *address)
{
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    struct endpoint here = {.host = "?", .port = "?"};
    struct endpoint there = endpoint(address->ai_addr, address->ai_addrlen);

    if (getsockname(connection->socket, (struct sockaddr *)&local, &length) ==
        0)
        here = endpoint((struct sockaddr *)&local, length);
    (void)fprintf(stderr, "Connected to %s: [%s, %s, %s, %s, %s]\n",
                  connection->options.host,
                  connection->options.datagrams ? "udp" : "tcp", here.host,
                  here.port, there.host, there.port);
}

/* A name may have several addresses, IPv6 and IPv4; the server may listen on
 * one of them only. Each is tried in turn, and the last failure is the one that
 * is told. */
static void connect_to_host(struct connection *connection)
{
    const struct options *options = &connection->options;
    struct addrinfo hints = {.ai_family = options->family,
                             .ai_socktype =
                                 options->datagrams ? SOCK_DGRAM : SOCK_STREAM};
    struct addrinfo *addresses;
    int error;

    (void)snprintf(connection->peer, sizeof connection->peer,
                   strchr(options->host, ':') ? "[%s]:%s" : "%s:%s",
                   options->host, options->port);
    error = getaddrinfo(options->host, options->port, &hints, &addresses);
    if (error != 0)
        fail(connection, "connect",
             error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));

    for (const struct addrinfo *address = addresses; address != NULL;
         address = address->ai_next) {
        (void)fprintf(stderr, "Trying %s...\n",
                      endpoint(address->ai_addr, address->ai_addrlen).host);
        connection->socket =
            socket(address->ai_family, address->ai_socktype, 0);
        if (connection->socket >= 0 &&
            connect_within(connection->socket, address->ai_addr,
                           address->ai_addrlen, options->seconds) == 0) {
            say_connected(connection, address);
            freeaddrinfo(addresses);
            return;
        }
        error = errno;
        if (connection->socket >= 0)
            (void)close(connection->socket);
    }
    freeaddrinfo(addresses);
    errno = error;
    fail_after(connection, "connect");
}

/* ---- Options ------------------------------------------------------------ */

static const char usage[] =
    "usage: ./client [-46u] [-w seconds] [host [port]]      (localhost 1208)\n"
    "       ./client [-u] [-w seconds] -U path\n";

static const char help[] =
    "  -4          IPv4 only\n"
    "  -6          IPv6 only\n"
    "  -h, --help  show this help\n"
    "  -U path     connect to a Unix domain socket\n"
    "  -u          send each line as one datagram\n"
    "  -w seconds  give up when connecting, or the server's silence, lasts so\n"
    "              long (never); with -u, wait so long for the last replies "
    "(1)\n";

static _Noreturn void misuse(const char *what, const char *problem)
{
    (void)fprintf(stderr, "client: %s: %s\n%s", what, problem, usage);
    exit(2);
}

static unsigned read_seconds(const char *text)
{
    unsigned long seconds = 0;

    if (strspn(text, "0123456789") == strlen(text))
        seconds = strtoul(text, NULL, 10);
    if (seconds < 1 || seconds > SECONDS_MAXIMUM)
        misuse("-w", "needs a whole number from 1 to 1000000");
    return (unsigned)seconds;
}

static _Noreturn void show_help(void)
{
    (void)printf("%s%s", usage, help);
    exit(EXIT_SUCCESS);
}

static void choose_family(struct options *options, int family)
{
    if (options->family != AF_UNSPEC && options->family != family)
        misuse("-4 and -6", "leave one out, or both for both families");
    options->family = family;
}

/* getaddrinfo(3) may read 66744 as 1208, and the empty port as 0. What begins
 * with a letter is the name of a service: `./client localhost http`. */
static void check_port(const char *port)
{
    bool digits = strspn(port, "0123456789") == strlen(port);
    unsigned long number = digits ? strtoul(port, NULL, 10) : 0;
    bool name =
        (*port >= 'a' && *port <= 'z') || (*port >= 'A' && *port <= 'Z');

    if (!name && (number < 1 || number > 65535))
        misuse("port", "needs a whole number from 1 to 65535");
}

static void read_operands(struct options *options, char **operands)
{
    if (options->path != NULL && *options->path == '\0')
        misuse("-U", "needs a path");
    if (options->path != NULL &&
        (options->family != AF_UNSPEC || *operands != NULL))
        misuse("-U", "a path has no family, host or port");
    if (*operands != NULL)
        options->host = *operands++;
    if (*operands != NULL)
        options->port = *operands++;
    if (*operands != NULL)
        misuse(*operands, "one operand too many");
    check_port(options->port);
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {
        .family = AF_UNSPEC, .host = "localhost", .port = "1208"};
    int letter;

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0)
            show_help();
    while ((letter = getopt(argc, argv, ":46hU:uw:")) != -1) {
        char option[] = {'-', (char)optopt, '\0'};

        switch (letter) {
        case '4':
            choose_family(&options, AF_INET);
            break;
        case '6':
            choose_family(&options, AF_INET6);
            break;
        case 'h':
            show_help();
        case 'U':
            options.path = optarg;
            break;
        case 'u':
            options.datagrams = true;
            break;
        case 'w':
            options.seconds = read_seconds(optarg);
            break;
        default:
            misuse(option, letter == ':' ? "needs a value" : "no such option");
        }
    }
    read_operands(&options, argv + optind);
    return options;
}

/* ---- The start ---------------------------------------------------------- */

/* With standard input closed (`<&-`) the socket would become descriptor 0, and
 * the client would send the server's own replies back to it. Read only: with
 * standard output closed, to write there must still fail. */
static void fill_standard_descriptors(void)
{
    int descriptor;

    do
        descriptor = open("/dev/null", O_RDONLY);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    (void)close(descriptor);
}

int main(int argc, char **argv)
{
    /* Not on main()'s stack: the sending thread may outlive main(). */
    static struct connection connection = {.lock = PTHREAD_MUTEX_INITIALIZER};

    connection.options = read_options(argc, argv);
    fill_standard_descriptors();
    /* A server that hung up is an error of send(2), not the end of us. */
    (void)signal(SIGPIPE, SIG_IGN);

    if (connection.options.path != NULL)
        connect_to_path(&connection);
    else
        connect_to_host(&connection);
    return connection.options.datagrams ? exchange_datagrams(&connection)
                                        : converse_with_server(&connection);
}
