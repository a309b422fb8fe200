/*
 * client.c - a telnet for this server, or for any other that answers lines.
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
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)64 * 1024)
#define SECONDS_MAXIMUM 1000000

/* The options. */
static int family = AF_UNSPEC;
static const char *host = "localhost";
static const char *port = "1208";
static const char *path;      /* not NULL: a Unix domain socket */
static unsigned idle_seconds; /* 0: wait for ever */

static char peer[512]; /* "localhost:1208", or the path, for messages */

/* True once we have said all that we have to say: standard input has ended, or
 * we have sent `quit`. Then it is for the server to hang up. */
static atomic_bool all_said;

static atomic_flag ending = ATOMIC_FLAG_INIT; /* a thread ends the program */

static int connect_to_path(void);
static int connect_to_host(void);
static void *send_input(void *argument);
static int receive_output(int socket);
static _Noreturn void fail(const char *what, const char *whom, int error);
static void be_the_last(void);
static void read_options(int argc, char **argv);
static void fill_standard_descriptors(void);

int main(int argc, char **argv)
{
    static int socket; /* not on the stack: the thread may outlive main() */
    pthread_t sender;
    int error;

    read_options(argc, argv);
    fill_standard_descriptors();
    /* send(2) to a server that hung up fails with EPIPE, and that is enough. */
    signal(SIGPIPE, SIG_IGN);

    socket = path != NULL ? connect_to_path() : connect_to_host();
    error = pthread_create(&sender, NULL, send_input, &socket);
    if (error != 0)
        fail("start a thread", "pthread_create", error);
    /* At the end the sending thread may be waiting for a key. Nobody joins it:
     * the end of the process ends it, too. */
    pthread_detach(sender);
    return receive_output(socket);
}

/* ---- The two directions ------------------------------------------------- */

/* Another program on our terminal may have made standard input and output
 * non-blocking. EAGAIN then means "not yet". Returns true if the call is to be
 * made again. */
static bool is_not_yet(int descriptor, short event)
{
    struct pollfd wait = {.fd = descriptor, .events = event};
    bool not_yet = errno == EAGAIN || errno == EINTR;

    if (errno == EAGAIN)
        poll(&wait, 1, -1);
    return not_yet;
}

/* True if one of the lines in a piece of input is `quit`. */
static bool has_quit(const char *bytes, size_t count)
{
    const char *end = bytes + count;

    if (memchr(bytes, 'q', count) == NULL)
        return false; /* and most input ends here */
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        const char *line_end = newline != NULL ? newline : end;

        if (parse(bytes, (size_t)(line_end - bytes)).command == QUIT_COMMAND)
            return true;
        bytes = line_end + 1;
    }
    return false;
}

/* send(2) may take less than it was given. Returns false if the connection is
 * broken: the receiving thread notices that, too, after the last bytes that
 * arrived, and reports it. EAGAIN comes from SO_SNDTIMEO, which we set only for
 * connect(2). */
static bool send_all(int socket, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(socket, bytes, count, 0);

        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return false;
        } else if (errno != EINTR && errno != EAGAIN) {
            fail("send", peer, errno);
        }
    }
    return true;
}

/* The sending thread: copies standard input to the socket, as it is. At its end
 * it half-closes. "I have no more to say" is not "good bye": the replies still
 * come. */
static void *send_input(void *argument)
{
    int socket = *(int *)argument;
    char buffer[BUFFER_BYTES];
    ssize_t count;

    while ((count = read(STDIN_FILENO, buffer, sizeof buffer)) != 0) {
        if (count < 0) {
            if (is_not_yet(STDIN_FILENO, POLLIN))
                continue;
            fail("read", "standard input", errno);
        }
        /* Before it is sent: the server may be quicker than we are. */
        if (has_quit(buffer, (size_t)count))
            all_said = true;
        if (!send_all(socket, buffer, (size_t)count)) {
            all_said = false;
            return NULL;
        }
    }
    all_said = true;
    shutdown(socket, SHUT_WR);
    return NULL;
}

static void write_output(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, count);

        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        } else if (!is_not_yet(STDOUT_FILENO, POLLOUT)) {
            fail("write", "standard output", errno);
        }
    }
}

/* Receives until the server ends the conversation. Returns the exit status:
 * success only if we had said all before. */
static int receive_output(int socket)
{
    struct timeval wait = {.tv_sec = (time_t)idle_seconds}; /* 0: for ever */
    char buffer[BUFFER_BYTES];
    ssize_t count;

    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    while ((count = recv(socket, buffer, sizeof buffer, 0)) != 0) {
        if (count > 0)
            write_output(buffer, (size_t)count);
        else if (errno != EINTR)
            fail("receive", peer, errno);
    }
    be_the_last();
    fprintf(stderr, "Connection closed by foreign host.\n");
    return all_said ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- Connecting --------------------------------------------------------- */

/* socket -> connect, for at most idle_seconds: Linux honours SO_SNDTIMEO here,
 * socket(7). Where a system does not, it takes as long as the kernel tries.
 * Returns the socket, or -1 and errno. */
static int try_to_connect(const struct sockaddr *address, socklen_t length)
{
    struct timeval wait = {.tv_sec = (time_t)idle_seconds};
    int candidate = socket(address->sa_family, SOCK_STREAM, 0);
    int error;

    if (candidate < 0)
        return -1;
    setsockopt(candidate, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (connect(candidate, address, length) == 0)
        return candidate;
    error = errno;
    close(candidate);
    errno = error;
    return -1;
}

static int connect_to_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int connected;

    snprintf(peer, sizeof peer, "%s", path);
    if (strlen(path) >= sizeof address.sun_path)
        fail("connect", peer, ENAMETOOLONG);
    strcpy(address.sun_path, path);
    connected = try_to_connect((struct sockaddr *)&address, sizeof address);
    if (connected < 0)
        fail("connect", peer, errno);
    fprintf(stderr, "Connected to %s: [unix, %s]\n", path, path);
    return connected;
}

/* Splits an address into the two parts that a person knows: "::1", "1208". */
static void split(const struct sockaddr *address, socklen_t length,
                  char host_part[64], char port_part[8])
{
    strcpy(host_part, "?");
    strcpy(port_part, "?");
    getnameinfo(address, length, host_part, 64, port_part, 8,
                NI_NUMERICHOST | NI_NUMERICSERV);
}

/* The five-tuple from our end. The server prints it with its own end first. */
static void say_connected(int connected, const struct addrinfo *remote)
{
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    char here[64], here_port[8], there[64], there_port[8];

    getsockname(connected, (struct sockaddr *)&local, &length);
    split((struct sockaddr *)&local, length, here, here_port);
    split(remote->ai_addr, remote->ai_addrlen, there, there_port);
    fprintf(stderr, "Connected to %s: [tcp, %s, %s, %s, %s]\n", host, here,
            here_port, there, there_port);
}

/* A name may have several addresses, IPv6 and IPv4, and the server may listen
 * on one of them only. We try each in turn, and report the last failure. */
static int connect_to_host(void)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int connected = -1;
    int error;

    snprintf(peer, sizeof peer, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
             port);
    error = getaddrinfo(host, port, &hints, &found);
    if (error != 0 && error != EAI_SYSTEM) {
        fprintf(stderr, "Fail to connect, %s: %s\n", peer, gai_strerror(error));
        exit(EXIT_FAILURE);
    }
    if (error != 0)
        fail("connect", peer, errno);
    for (struct addrinfo *each = found; each != NULL && connected < 0;
         each = each->ai_next) {
        char address[64], number[8];

        split(each->ai_addr, each->ai_addrlen, address, number);
        fprintf(stderr, "Trying %s...\n", address);
        connected = try_to_connect(each->ai_addr, each->ai_addrlen);
        if (connected >= 0)
            say_connected(connected, each);
        else
            error = errno;
    }
    freeaddrinfo(found);
    if (connected < 0)
        fail("connect", peer, error);
    return connected;
}

/* ---- Errors ------------------------------------------------------------- */

/* Two threads must not call exit(3) at the same time (C11, 7.22.4.4). The
 * thread that comes second waits here for the end of the process. */
static void be_the_last(void)
{
    while (atomic_flag_test_and_set(&ending))
        pause();
}

/* One line of reason, and exit status 1. A timeout shows as EINPROGRESS when it
 * ends connect(2), and as EAGAIN when it ends recv(2), socket(7). */
static _Noreturn void fail(const char *what, const char *whom, int error)
{
    be_the_last();
    if (idle_seconds > 0 && (error == EINPROGRESS || error == EAGAIN))
        fprintf(stderr, "Fail to %s, %s: Timed out after %u second%s\n", what,
                whom, idle_seconds, idle_seconds == 1 ? "" : "s");
    else
        fprintf(stderr, "Fail to %s, %s: %s\n", what, whom, strerror(error));
    exit(EXIT_FAILURE);
}

/* With standard input closed (`<&-`) the socket would become descriptor 0, and
 * the client would send the server's own replies back to it. Read only: if
 * standard output was closed, a write to it must still fail. */
static void fill_standard_descriptors(void)
{
    int descriptor;

    do
        descriptor = open("/dev/null", O_RDONLY);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    close(descriptor);
}

/* ---- Options ------------------------------------------------------------ */

static const char usage[] =
    "usage: ./client [-46] [-w seconds] [host [port]]      (localhost 1208)\n"
    "       ./client [-w seconds] -U path\n";

static _Noreturn void show_help(void)
{
    printf("%s"
           "  -4, -6      IPv4 only, IPv6 only\n"
           "  -h, --help  show this help\n"
           "  -U path     connect to a Unix domain socket\n"
           "  -w seconds  give up when an attempt to connect, or the server's\n"
           "              silence, lasts for so long (never)\n",
           usage);
    exit(EXIT_SUCCESS);
}

static _Noreturn void misuse(const char *what, const char *problem)
{
    fprintf(stderr, "client: %s: %s\n%s", what, problem, usage);
    exit(2);
}

/* The value of an option as a number. atoi(3) would read 12x8 as 12. */
static unsigned whole_number(const char *option, const char *text,
                             unsigned most)
{
    bool digits = *text && strspn(text, "0123456789") == strlen(text);
    unsigned long number = digits ? strtoul(text, NULL, 10) : 0;
    char problem[64];

    snprintf(problem, sizeof problem, "needs a whole number from 1 to %u",
             most);
    if (number < 1 || number > most)
        misuse(option, problem);
    return (unsigned)number;
}

static void read_operands(char **operands)
{
    if (path != NULL && (!*path || family != AF_UNSPEC || *operands != NULL))
        misuse("-U", "needs a path, and no family, host or port");
    if (*operands != NULL)
        host = *operands++;
    if (*operands != NULL)
        port = *operands++;
    if (*operands != NULL)
        misuse(*operands, "one operand too many");
    /* getaddrinfo(3) may read 66744 as 1208. What has a letter in it is the
     * name of a service: `./client localhost http`. */
    if (strspn(port, "0123456789+- ") == strlen(port))
        whole_number("port", port, 65535);
}

static void read_options(int argc, char **argv)
{
    int letter;

    /* ':' in front: we complain, not getopt(3). To it `--help` is an option
     * '-', and it has not gone past that word yet. */
    while ((letter = getopt(argc, argv, ":46hU:w:")) != -1) {
        char option[] = {'-', (char)optopt, '\0'};
        const char *word = argv[optind];

        if (optopt != '-' || word == NULL || strncmp(word, "--", 2) != 0)
            word = option;
        if (letter == '4')
            family = AF_INET;
        else if (letter == '6')
            family = AF_INET6;
        else if (letter == 'U')
            path = optarg;
        else if (letter == 'w')
            idle_seconds = whole_number("-w", optarg, SECONDS_MAXIMUM);
        else if (letter == 'h' || strcmp(word, "--help") == 0)
            show_help();
        else
            misuse(word, letter == ':' ? "needs a value" : "no such option");
    }
    read_operands(argv + optind);
}
