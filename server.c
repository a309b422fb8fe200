/*
 * server.c - a thread-per-connection server, to learn sockets from.
 *
 * Read from main() to leave() and you have the story: main() makes the
 * listening socket, accept_clients() waits for clients, admit() gives each one
 * a thread, and the thread runs serve(). What it says to its client is
 * converse(), in handler.c. Below are their helpers, in call order.
 */
#include "handler.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A conversation needs 20 KB of stack at most. The default, often 8 MB, times
 * 20,000 clients is more than some kernels promise. */
#ifndef THREAD_STACK_BYTES
#define THREAD_STACK_BYTES ((size_t)128 * 1024)
#endif

/* SA_RESTART resumes an interrupted log write instead of losing the line. But
 * ThreadSanitizer runs a handler only after the interrupted call has ended. */
#ifndef STOP_FLAGS
#define STOP_FLAGS SA_RESTART
#endif

/* Not for clients: standard input, output and error, the listening socket, a
 * client that is turned away, and a few to spare. */
#define RESERVED_DESCRIPTORS 10

#define STOP_ROUNDS 30 /* of 100 ms */
#define NUMBER_MAXIMUM 1000000
#define TUPLE_BYTES 256
#define FULL_HOUSE (-1) /* no error number is negative */

struct endpoint {
    char name[80]; /* "[::1]:1208" */
    char pair[80]; /* "::1, 1208" */
};

struct client {
    struct client *next, *previous; /* in the ring of all clients */
    pthread_t thread;
    int socket;
    char name[80]; /* as the log calls it */
};

/* The options. NULL: every address, port 1208, no Unix domain socket. */
static const char *address, *port, *path;
static int family = AF_UNSPEC;        /* both, on one socket */
static size_t limit = NUMBER_MAXIMUM; /* clients at once */
static bool quiet;

/* Set at the start, before there is a second thread. */
static int listening_socket = -1;
static char where[sizeof(struct sockaddr_un)]; /* "*:1208", or the path */
static struct stat socket_file;                /* what bind() made there */
static pthread_attr_t thread_attributes;
static pthread_t main_thread;

static atomic_bool stopping; /* a signal has asked for the stop */
static int stop_rounds;      /* since then; for the main thread alone */
static struct terms terms = {.stopping = &stopping};

/* Who is connected. The main thread and the clients' threads share the ring:
 * each holds the lock while it reads or changes it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t everybody_left = PTHREAD_COND_INITIALIZER;
static struct client ring = {.next = &ring, .previous = &ring};
static size_t connected; /* clients in the ring */

/* The story. */
static void accept_clients(void);
static void admit(int socket, struct endpoint peer);
static void *serve(void *argument);
static void leave(struct client *client);
/* Who is connected. */
static void name_client(struct client *client, char *tuple,
                        const struct endpoint *peer);
static struct endpoint endpoint(const struct sockaddr_storage *name,
                                socklen_t length);
static int start_thread(const struct client *arrival, const char *tuple);
static bool wait_for_clients(void);
/* The stop. */
static void handle_signals(void);
/* The listening socket. */
static void listen_for_clients(void);
static int bind_address(int domain);
static void bind_path(void);
static int make_socket(const struct sockaddr *name, socklen_t length);
static void unlink_path(void);
/* The start. */
static void prepare(void);
static _Noreturn void fail_to_start(const char *call, const char *reason);
static void read_options(int argc, char **argv);

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare();
    listen_for_clients();
    handle_signals();
    printf("Server Started ...\n"
           "Listening on %s, pid %ld, fd %d, at most %zu clients\n",
           where, (long)getpid(), listening_socket, limit);

    accept_clients();

    unlink_path();
    close(listening_socket);
    while (wait_for_clients())
        ;
    printf("Server Stopped.\n");
    return EXIT_SUCCESS;
}

/* ---- The story ---------------------------------------------------------- */

/* The loop that gives thread-per-connection its name. After a stop signal it
 * accepts the backlog: these clients think that they are connected, and may
 * have sent requests. on_stop() makes the listening socket non-blocking, so
 * accept() fails with EAGAIN when the backlog is empty. If clients keep coming,
 * the loop takes one backlog and a few more. */
static void accept_clients(void)
{
    bool failing = false;

    for (int after_stop = 0; after_stop < SOMAXCONN + STOP_ROUNDS + 3;
         after_stop += stopping) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof peer;
        int socket =
            accept(listening_socket, (struct sockaddr *)&peer, &length);

        if (socket >= 0) {
            failing = false;
            admit(socket, endpoint(&peer, length));
        } else if (stopping &&
                   (errno == EAGAIN || stop_rounds >= STOP_ROUNDS)) {
            break;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            /* Out of descriptors or memory, most likely, and the next call
             * would fail at once, too. So say it once and rest. */
            if (!failing)
                fprintf(stderr, "Fail to connect, accept: %s\n",
                        strerror(errno));
            failing = true;
            wait_for_clients();
        }
    }
}

/* Gives a new connection a thread. If there is none, the main thread tells the
 * client. It does not wait for it: other clients want to come in. */
static void admit(int socket, struct endpoint peer)
{
    struct client client = {.socket = socket};
    char tuple[TUPLE_BYTES];
    char words[128];
    int error;

    if (stopping) /* on some systems O_NONBLOCK is handed down */
        fcntl(socket, F_SETFL, 0);
    name_client(&client, tuple, &peer);
    error = start_thread(&client, tuple);
    if (error == 0)
        return;
    if (error == FULL_HOUSE)
        snprintf(words, sizeof words, "Too many clients, limit %zu\n", limit);
    else
        snprintf(words, sizeof words, "No thread for you: %s\n",
                 strerror(error));
    fprintf(stderr, "Connection from %s refused: %s", client.name, words);
    refuse(socket, words);
    close(socket);
}

/* A client's thread, from its first instruction to its last. */
static void *serve(void *argument)
{
    struct client *client = argument;

    pthread_mutex_lock(&lock); /* start_thread() prints its line first */
    pthread_mutex_unlock(&lock);
    converse(client->socket, &terms);
    leave(client);
    return NULL;
}

/* We hold the lock, so nobody sees a free place before the descriptor is closed
 * and the line printed. The main thread holds it while it sends SIGURG, so it
 * cannot interrupt the write of that line. */
static void leave(struct client *client)
{
    pthread_mutex_lock(&lock);
    close(client->socket);
    printf("Connection from %s closed.\n", client->name);
    client->previous->next = client->next;
    client->next->previous = client->previous;
    free(client);
    connected--;
    if (connected == 0)
        pthread_cond_signal(&everybody_left);
    pthread_mutex_unlock(&lock);
}

/* ---- Who is connected --------------------------------------------------- */

/* Names the client, and writes the five-tuple as we see it: [protocol, local
 * address, local port, remote address, remote port]. A Unix domain peer has no
 * address: it is named by the inode of our own socket, which lsof shows. */
static void name_client(struct client *client, char *tuple,
                        const struct endpoint *peer)
{
    struct sockaddr_storage local = {0};
    socklen_t length = sizeof local;
    struct stat status = {0};

    if (path != NULL) {
        fstat(client->socket, &status);
        snprintf(client->name, sizeof client->name, "socket:[%lu]",
                 (unsigned long)status.st_ino);
        snprintf(tuple, TUPLE_BYTES, "[unix, %s]", path);
    } else {
        getsockname(client->socket, (struct sockaddr *)&local, &length);
        strcpy(client->name, peer->name);
        snprintf(tuple, TUPLE_BYTES, "[tcp, %s, %s]",
                 endpoint(&local, length).pair, peer->pair);
    }
}

/* Writes an address as people do. An IPv6 address has colons of its own, hence
 * the brackets (RFC 3986, 3.2.2). On the dual-stack socket an IPv4 peer has an
 * address like ::ffff:127.0.0.1 (RFC 4291, 2.5.5.2), but shows as IPv4. */
static struct endpoint endpoint(const struct sockaddr_storage *name,
                                socklen_t length)
{
    struct endpoint end;
    char numbers[64] = "?"; /* the address; %interface may follow */
    char service[8] = "?";
    const char *host = numbers;

    getnameinfo((const struct sockaddr *)name, length, numbers, sizeof numbers,
                service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
    if (strncmp(host, "::ffff:", 7) == 0 && strchr(host, '.'))
        host += 7;
    else if (strcmp(host, "::") == 0 || strcmp(host, "0.0.0.0") == 0)
        host = "*";
    snprintf(end.name, sizeof end.name, strchr(host, ':') ? "[%s]:%s" : "%s:%s",
             host, service);
    snprintf(end.pair, sizeof end.pair, "%s, %s", host, service);
    return end;
}

/* Starts the client's thread and puts the client into the ring. Returns 0,
 * FULL_HOUSE, or the error number of a system that has no thread or memory.
 *
 * The thread is detached: nobody will pthread_join() it, so its stack is given
 * back the moment it ends. That may be before pthread_create() has stored its
 * number in the client. So we hold the lock, without which it cannot leave. */
static int start_thread(const struct client *arrival, const char *tuple)
{
    struct client *client = malloc(sizeof *client);
    int error = ENOMEM;

    pthread_mutex_lock(&lock);
    if (connected >= limit) {
        error = FULL_HOUSE;
    } else if (client != NULL) {
        *client = *arrival;
        error =
            pthread_create(&client->thread, &thread_attributes, serve, client);
    }
    if (error == 0) {
        printf("Connection from %s opened: fd %d, %s\n", client->name,
               client->socket, tuple);
        client->next = ring.next;
        client->previous = &ring;
        client->next->previous = client;
        ring.next = client;
        connected++;
    } else {
        free(client);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* Waits until all clients have left, for 100 ms at most: a rest for the accept
 * loop, a round for the stop. After a stop signal it wakes their threads first.
 * Returns true if another round makes sense: a thread that looked at `stopping`
 * just before it was set, and enters recv() just after its SIGURG, sleeps.
 * (The limit is a time of day: if the date is set back, it comes later.) */
static bool wait_for_clients(void)
{
    struct timespec until;
    bool again;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;

    pthread_mutex_lock(&lock);
    if (stopping) {
        stop_rounds++;
        for (struct client *each = ring.next; each != &ring; each = each->next)
            pthread_kill(each->thread, SIGURG);
    }
    if (connected > 0 || !stopping)
        pthread_cond_timedwait(&everybody_left, &lock, &until);
    again = connected > 0 && stop_rounds < STOP_ROUNDS;
    pthread_mutex_unlock(&lock);
    return again;
}

/* ---- The stop ----------------------------------------------------------- */

/* SIGINT and SIGTERM. If accept() is waiting, the kernel starts it anew after
 * this handler. If it is about to be called, it is called now. Either way it
 * does not block any more, so no signal is lost. If another thread runs this
 * handler, SIGURG ends the main thread's wait. Never call printf() here: see
 * signal-safety(7). A second SIGINT ends the program at once. A second SIGTERM
 * does not: make(1) and timeout(1) send two when they mean one. */
static void on_stop(int number)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    int saved = errno;

    stopping = true;
    if (number == SIGINT)
        sigaction(SIGINT, &by_default, NULL);
    fcntl(listening_socket, F_SETFL, O_NONBLOCK);
    pthread_kill(main_thread, SIGURG);
    errno = saved;
}

/* Does nothing; its arrival makes recv() return EINTR. */
static void on_wake(int number)
{
    (void)number;
}

/* Until here a signal ends the program; from here on it means an orderly stop.
 * What was ignored stays ignored, as `sh -c './server &'` wants it. SIGURG is
 * to wake the clients' threads: gdb passes it on without stopping. */
static void handle_signals(void)
{
    const struct sigaction wake = {.sa_handler = on_wake};
    const struct sigaction stop = {.sa_handler = on_stop,
                                   .sa_flags = STOP_FLAGS};
    struct sigaction before;
    sigset_t none;

    main_thread = pthread_self();
    sigaction(SIGURG, &wake, NULL);
    sigaction(SIGINT, NULL, &before);
    if (before.sa_handler != SIG_IGN)
        sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, NULL, &before);
    if (before.sa_handler != SIG_IGN)
        sigaction(SIGTERM, &stop, NULL);
    /* Whoever started us may have blocked signals: a mask is inherited. */
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* ---- The listening socket ----------------------------------------------- */

/* socket -> bind -> listen. */
static void listen_for_clients(void)
{
    if (path != NULL) {
        bind_path();
    } else {
        struct sockaddr_storage name;
        socklen_t length = sizeof name;
        bool any = address == NULL && family == AF_UNSPEC;
        int error;

        snprintf(where, sizeof where, "%s:%s", address ? address : "*", port);
        /* An IPv6 socket can take IPv4 clients, too. Where the kernel has no
         * IPv6, IPv4 must do. */
        error = bind_address(any ? AF_INET6 : family);
        if (any && error == EAFNOSUPPORT)
            error = bind_address(AF_INET);
        if (error != 0)
            fail_to_start("bind", strerror(error));
        /* With -p 0 the kernel has picked the port. */
        getsockname(listening_socket, (struct sockaddr *)&name, &length);
        strcpy(where, endpoint(&name, length).name);
    }
    /* The backlog: connections that wait for accept(), listen(2). */
    if (listen(listening_socket, SOMAXCONN) < 0)
        fail_to_start("listen", strerror(errno));
}

/* Binds to the first address that can be had: a name may have several. Returns
 * 0, or the error number of the last one. */
static int bind_address(int domain)
{
    struct addrinfo hints = {.ai_family = domain,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    int error = getaddrinfo(address, port, &hints, &found);

    if (error != 0)
        fail_to_start("bind", error == EAI_SYSTEM ? strerror(errno)
                                                  : gai_strerror(error));
    error = EADDRNOTAVAIL;
    for (struct addrinfo *each = found; error && each; each = each->ai_next)
        error = make_socket(each->ai_addr, each->ai_addrlen);
    freeaddrinfo(found);
    return error;
}

/* A killed server leaves its socket file behind: we replace it. A datagram
 * socket asks: it cannot connect to a stream socket. If a server is there it
 * gets EPROTOTYPE, and the server never hears of it. If not, ECONNREFUSED. Two
 * servers that start at one moment may both replace it: the last one stays. */
static void bind_path(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const struct sockaddr *to = (const struct sockaddr *)&name;
    struct stat file;
    mode_t mask;
    int error;

    snprintf(where, sizeof where, "%s", path);
    if (strlen(path) >= sizeof name.sun_path)
        fail_to_start("bind", "File name too long");
    strcpy(name.sun_path, path);
    if (lstat(path, &file) == 0 && !S_ISSOCK(file.st_mode))
        fail_to_start("bind", "File exists and is not a socket");
    /* The new file gets its mode, srw-rw----, from the mask. chmod() after
     * bind() would leave a moment in which everybody may connect. */
    mask = umask(0117);
    error = make_socket(to, sizeof name);
    if (error == EADDRINUSE) {
        int probe = socket(AF_UNIX, SOCK_DGRAM, 0);
        int answer = connect(probe, to, sizeof name) < 0 ? errno : 0;

        close(probe);
        if (answer == ECONNREFUSED)
            error = unlink(path) < 0 ? errno : make_socket(to, sizeof name);
    }
    umask(mask);
    if (error != 0)
        fail_to_start("bind", strerror(error));
    lstat(path, &socket_file);
}

/* socket -> bind. Returns 0, or an error number. accept() hands these options
 * on (Stevens, UNIX Network Programming, 7.4). If one fails, as on a Unix
 * domain socket, the server works without it.
 *
 * SO_REUSEADDR: connections of the server before us may be in TIME_WAIT, and
 * would keep the port, socket(7). SO_KEEPALIVE: after two silent hours the
 * kernel asks if the peer's machine is still there, tcp(7). TCP_NODELAY:
 * replies go out whole, so Nagle's algorithm (RFC 896) has nothing to join. */
static int make_socket(const struct sockaddr *name, socklen_t length)
{
    const int on = 1;
    const int six_only = family == AF_INET6;
    int error;

    listening_socket = socket(name->sa_family, SOCK_STREAM, 0);
    if (listening_socket < 0)
        return errno;
    setsockopt(listening_socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listening_socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(listening_socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(listening_socket, IPPROTO_IPV6, IPV6_V6ONLY, &six_only,
               sizeof six_only);
    if (bind(listening_socket, name, length) == 0)
        return 0;
    error = errno;
    close(listening_socket);
    return error;
}

/* Removes the socket file, if it is still the one that bind() made: somebody
 * may have removed it and started another server at the same path. */
static void unlink_path(void)
{
    struct stat now;

    if (path != NULL && lstat(path, &now) == 0 &&
        now.st_ino == socket_file.st_ino && now.st_dev == socket_file.st_dev)
        unlink(path);
}

/* ---- The start ---------------------------------------------------------- */

static void prepare(void)
{
    long descriptors = sysconf(_SC_OPEN_MAX);
    int descriptor;

    /* A program may be started with its standard descriptors closed (`>&-`).
     * Then the listening socket would become descriptor 1, and get the log. */
    do
        descriptor = open("/dev/null", O_RDWR);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    close(descriptor);

    if (quiet && freopen("/dev/null", "w", stdout) == NULL)
        fail_to_start("open /dev/null", strerror(errno));
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* by lines, also into a pipe */
    terms.screen = stdout;
    /* send() to a client that hung up is EPIPE; SIGPIPE would end us all. */
    signal(SIGPIPE, SIG_IGN);

    if (descriptors >= 0 && descriptors <= RESERVED_DESCRIPTORS)
        fail_to_start("ulimit -n", "Needs more than 10 descriptors");
    if (descriptors >= 0 && limit > (size_t)descriptors - RESERVED_DESCRIPTORS)
        limit = (size_t)descriptors - RESERVED_DESCRIPTORS;
    if (pthread_attr_init(&thread_attributes) != 0 ||
        pthread_attr_setstacksize(&thread_attributes, THREAD_STACK_BYTES) ||
        pthread_attr_setdetachstate(&thread_attributes,
                                    PTHREAD_CREATE_DETACHED))
        fail_to_start("pthread_attr", "Cannot set up threads");
}

static _Noreturn void fail_to_start(const char *call, const char *reason)
{
    fprintf(stderr, "Fail to start server, %s%s%s: %s\n", call,
            *where ? " " : "", where, reason);
    unlink_path();
    exit(EXIT_FAILURE);
}

/* ---- Options ------------------------------------------------------------ */

static const char usage[] =
    "usage: ./server [-46q] [-b address] [-p port] [-U path] [-m clients] "
    "[-w seconds]\n"
    "  -4, -6      IPv4 only, IPv6 only\n"
    "  -b address  listen on this address (every address)\n"
    "  -h, --help  show this help\n"
    "  -m clients  most clients at once (what `ulimit -n` allows)\n"
    "  -p port     listen on this port; 0 lets the kernel pick (1208)\n"
    "  -q          log only errors\n"
    "  -U path     listen on a Unix domain socket\n"
    "  -w seconds  end a conversation idle for so long (never)\n";

static _Noreturn void misuse(const char *what, const char *problem)
{
    fprintf(stderr, "server: %s: %s\n%s", what, problem, usage);
    exit(2);
}

/* The number that an option's value is. atoi(3) would read 12x8 as 12. */
static unsigned whole_number(const char *option, const char *text,
                             unsigned least, unsigned most)
{
    bool digits = *text && strspn(text, "0123456789") == strlen(text);
    unsigned long number = digits ? strtoul(text, NULL, 10) : 0;
    char problem[64];

    snprintf(problem, sizeof problem, "needs a whole number from %u to %u",
             least, most);
    if (!digits || number < least || number > most)
        misuse(option, problem);
    return (unsigned)number;
}

static void read_options(int argc, char **argv)
{
    int letter;

    /* ':' in front: we complain, not getopt(3). To it `--help` is an option
     * '-', and it has not gone past that word yet. */
    while ((letter = getopt(argc, argv, ":46b:hm:p:qU:w:")) != -1) {
        char option[] = {'-', (char)optopt, '\0'};
        const char *word = argv[optind];

        if (optopt != '-' || word == NULL || strncmp(word, "--", 2) != 0)
            word = option;
        if (letter == '4' || letter == '6')
            family = letter == '4' ? AF_INET : AF_INET6;
        else if (letter == 'b')
            address = optarg;
        else if (letter == 'm')
            limit = whole_number("-m", optarg, 1, NUMBER_MAXIMUM);
        else if (letter == 'p')
            port = optarg;
        else if (letter == 'q')
            quiet = true;
        else if (letter == 'U')
            path = optarg;
        else if (letter == 'w')
            terms.idle_seconds = whole_number("-w", optarg, 1, NUMBER_MAXIMUM);
        else if (letter == 'h' || strcmp(word, "--help") == 0)
            exit(printf("%s", usage) < 0);
        else
            misuse(word, letter == ':' ? "needs a value" : "no such option");
    }
    if (optind < argc)
        misuse(argv[optind], "no operand expected");
    if (path != NULL && (!*path || family != AF_UNSPEC || address || port))
        misuse("-U", "needs a path, and no address or port (-4, -6, -b, -p)");
    port = port ? port : "1208";
    whole_number("-p", port, 0, 65535);
}
