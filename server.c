/*
 * server.c - a thread-per-connection server, to learn sockets from.
 *
 * Read main() first, at the end: socket -> bind -> listen, then accept ->
 * pthread_create, over and over, until a signal says stop. The main thread does
 * nothing but accept; each client has a thread of its own, which blocks in
 * recv() when its client is silent, and that costs nobody else anything.
 *
 * What a client and its thread say to each other is in handler.c.
 */
#include "handler.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A client's stack. A conversation needs 20 KB of it at most; glibc would
 * reserve 8 MB (`ulimit -s`), and 20,000 times that is more than some kernels
 * promise. Only pages that were touched take memory. Sanitizers need more. */
#ifndef THREAD_STACK_BYTES
#define THREAD_STACK_BYTES ((size_t)128 * 1024)
#endif

/* Behind the handler of a stop signal a write() of the log goes on, where EINTR
 * would cost a line. ThreadSanitizer needs EINTR: it keeps a signal back until
 * the call that it came in has returned. */
#ifndef STOP_FLAGS
#define STOP_FLAGS SA_RESTART
#endif

/* Descriptors that are not for clients: standard input, output and error, the
 * listening socket, and a few to turn clients away with words. */
#define RESERVED_DESCRIPTORS 10
#define REFUSAL_THREADS 4
#define REFUSAL_PATIENCE_MS 1000

#define CLIENTS_MAXIMUM 1000000
#define SECONDS_MAXIMUM 1000000

/* When accept() has stopped the clients get at most 30 rounds of 100 ms; four
 * seconds after the signal an alarm ends a process that is stuck elsewhere. */
#define STOP_ROUND_MS 100
#define STOP_ROUNDS 30
#define STOP_ALARM_SECONDS 4

/* With -u: how many datagrams are still read after a stop signal. More than a
 * receive buffer holds, where the smallest takes several hundred bytes, and yet
 * an end to it when somebody goes on sending. */
#define DATAGRAMS_AFTER_STOP 100000

/* With -u: how long a reply may wait for a peer to make room for it. */
#define DATAGRAM_PATIENCE_MS 10L

/* How long accept() rests when there is no descriptor or memory for a client.
 */
#define EXHAUSTED_PAUSE_MS 100

/* How long another server may take from its bind() to its listen(). */
#define STARTING_PAUSE_MS 100

/* So many failures in a row are no peer's bad luck any more. */
#define UNLUCKY_ROW 1000

/* "[" address "%" interface "]:" port, or "socket:[" inode "]", or a path. */
#define HOST_BYTES ((size_t)INET6_ADDRSTRLEN + 1 + IF_NAMESIZE)
#define NAME_BYTES (HOST_BYTES + 16)

struct options {
    int family; /* AF_UNSPEC: both, on one socket */
    bool datagrams;
    bool quiet;
    const char *address; /* NULL: every address */
    const char *port;
    const char *path; /* not NULL: a Unix domain socket */
    long most_clients;
    unsigned idle_seconds; /* 0: never */
};

/* One place in the server. A place that is taken has a thread. */
struct client {
    struct server *server;
    struct client *next_free;
    pthread_t thread;
    bool running; /* there is such a thread */
    int socket;
    bool turned_away;      /* there was no room: it is only told so */
    char name[NAME_BYTES]; /* as the log calls it */
};

struct server {
    struct options options;
    int socket; /* the listening one; with -u the only one */
    char where[NAME_BYTES +
               sizeof(struct sockaddr_un)]; /* "*:1208", or the path */
    struct stat socket_file; /* what bind() made at options.path */
    struct terms terms;
    pthread_attr_t thread_attributes;

    /* Who is connected. The clients' threads and the main thread share what
     * follows, so it is read and changed under the lock only. `limit` and
     * `places` stay as they are set at the start. */
    pthread_mutex_t lock;
    pthread_cond_t everybody_left;
    struct client *places; /* limit + REFUSAL_THREADS of them */
    struct client *free;   /* places that were used and left */
    size_t limit;
    size_t touched; /* places from here on were never used */
    size_t connected;
    size_t turning_away;
};

/* A signal handler has no parameters to find these by. */
static atomic_bool stopping;
static volatile sig_atomic_t listening_socket = -1;
static struct server *_Atomic owner; /* of a socket file, while there is one */

static void unlink_path(const struct server *server);

/* ---- Errors ------------------------------------------------------------- */

static _Noreturn void fail_to_start(const char *call, const char *where,
                                    const char *reason)
{
    (void)fprintf(stderr, "Fail to start server, %s%s%s: %s\n", call,
                  *where ? " " : "", where, reason);
    exit(EXIT_FAILURE);
}

static void pause_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000,
                             .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&pause, NULL);
}

/* What accept() and recvfrom() return for one peer's bad luck: an error that
 * was waiting on a connection that is gone (accept(2), "Error handling"), or on
 * a datagram that somebody else could not take. The next call may go well. */
static bool is_somebody_elses(int error)
{
    return error == ECONNABORTED || error == ECONNREFUSED ||
           error == ECONNRESET || error == EPROTO || error == EPERM ||
           error == ENETDOWN || error == ENETUNREACH || error == EHOSTUNREACH ||
           error == ENOPROTOOPT || error == EOPNOTSUPP;
}

/* What will not pass by itself. `unlucky` counts the errors of others in a row:
 * too many of them, and it is ours after all. */
static bool is_our_trouble(int error, int *unlucky)
{
    return error != EINTR &&
           (!is_somebody_elses(error) || ++*unlucky % UNLUCKY_ROW == 0);
}

/* Out of descriptors or memory, most likely. The clients that are connected are
 * served on, and when some leave there is room again: so say it once, and rest,
 * since the call would fail again at once, for ever, at full speed. */
static void rest(bool *failing, const char *what, const char *call)
{
    if (!*failing)
        (void)fprintf(stderr, "Fail to %s, %s: %s\n", what, call,
                      strerror(errno));
    *failing = true;
    pause_ms(EXHAUSTED_PAUSE_MS);
}

/* ---- The orderly stop, from the signal's side --------------------------- */

/* SIGINT and SIGTERM. The listening socket does not block from here on. If
 * accept() was waiting, the kernel begins it anew behind this handler; if the
 * signal came a moment before accept() was called, it is called now. Either way
 * it takes what is in the backlog, and then returns EAGAIN. There is no moment
 * at which a signal gets lost.
 *
 * A handler may call async-signal-safe functions only (signal-safety(7)):
 * signal(), fcntl(), alarm() and the store to a lock-free atomic are; printf()
 * is not. The default action is put back: a second signal kills. */
static void on_stop(int number)
{
    int saved = errno;

    (void)number;
    atomic_store(&stopping, true);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)fcntl(listening_socket, F_SETFL, O_NONBLOCK);
    (void)alarm(STOP_ALARM_SECONDS);
    errno = saved;
}

/* The stop takes too long: somebody holds standard output, for one. Then main()
 * may never come to unlink_path(); lstat() and unlink() are async-signal-safe.
 */
static void on_alarm(int number)
{
    const struct server *server = atomic_load(&owner);

    (void)number;
    if (!atomic_load(&stopping))
        return; /* somebody else's: alarm() is inherited through exec() */
    if (server != NULL)
        unlink_path(server);
    _exit(EXIT_SUCCESS);
}

/* Wakes a client's thread: it needs no more than to have come, so that recv()
 * returns EINTR. */
static void on_wake(int number)
{
    (void)number;
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    (void)sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL) < 0)
        fail_to_start("sigaction", "", strerror(errno));
}

/* The signals that stop the server are for the main thread, which waits in
 * accept(). They are held while a thread is created, since it inherits the
 * mask, and until there is a socket to stop. */
static void mask_stop_signals(int how)
{
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGALRM);
    (void)pthread_sigmask(how, &signals, NULL);
}

/* From here on a signal means an orderly stop. SIGURG, to wake the clients'
 * threads, is one that gdb passes on without a word.
 *
 * All are in place before the first may come: on_stop() puts the default action
 * back for both, and it must stay. Whoever started us may have left any of them
 * blocked, since a mask is inherited. */
static void handle_signals(struct server *server)
{
    sigset_t wake;

    listening_socket = server->socket;
    atomic_store(&owner, server);
    handle(SIGALRM, on_alarm, STOP_FLAGS);
    handle(SIGURG, on_wake, 0);
    handle(SIGINT, on_stop, STOP_FLAGS);
    handle(SIGTERM, on_stop, STOP_FLAGS);
    (void)sigemptyset(&wake);
    (void)sigaddset(&wake, SIGURG);
    (void)pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
    mask_stop_signals(SIG_UNBLOCK);
}

/* ---- Names of addresses ------------------------------------------------- */

/* An address in the two parts that a person knows: "::1" and "1208". */
struct endpoint {
    char host[HOST_BYTES];
    char port[sizeof "65535"];
};

/* On the dual-stack socket an IPv4 peer has an address like ::ffff:127.0.0.1
 * (RFC 4291, 2.5.5.2). It is an IPv4 peer, so it is shown as one. */
static void unmap(struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in6 six;
    struct sockaddr_in four = {.sin_family = AF_INET};

    if (address->ss_family != AF_INET6)
        return;
    memcpy(&six, address, sizeof six);
    if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
        return;
    four.sin_port = six.sin6_port;
    memcpy(&four.sin_addr, six.sin6_addr.s6_addr + 12, sizeof four.sin_addr);
    memcpy(address, &four, sizeof four);
    *length = sizeof four;
}

static struct endpoint endpoint(struct sockaddr_storage address,
                                socklen_t length)
{
    struct endpoint end;

    unmap(&address, &length);
    if (getnameinfo((struct sockaddr *)&address, length, end.host,
                    sizeof end.host, end.port, sizeof end.port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)strcpy(end.host, "?");
        (void)strcpy(end.port, "?");
    }
    return end;
}

/* An IPv6 address has colons of its own, hence the brackets (RFC 3986, 3.2.2).
 */
static void join(char *name, size_t size, const char *host, const char *port)
{
    (void)snprintf(name, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
                   port);
}

/* A datagram's sender on a Unix domain socket: a path of somebody else's
 * choosing, so nothing that could move the cursor gets through. '@' stands for
 * NUL, which begins a name that is not in the file system (unix(7)). */
static void name_path(char *name, size_t size,
                      const struct sockaddr_storage *address, socklen_t length)
{
    struct sockaddr_un sender;
    size_t bytes = 0;
    size_t i;

    memcpy(&sender, address, sizeof sender);
    if (length > offsetof(struct sockaddr_un, sun_path))
        bytes = length - offsetof(struct sockaddr_un, sun_path);
    if (bytes > 1 && sender.sun_path[bytes - 1] == '\0')
        bytes--;
    if (bytes == 0) {
        (void)snprintf(name, size, "(unbound)");
        return;
    }
    for (i = 0; i < bytes && i + 1 < size; i++) {
        char byte = sender.sun_path[i];

        name[i] = (char)(byte == '\0'               ? '@'
                         : byte < ' ' || byte > '~' ? '?'
                                                    : byte);
    }
    name[i] = '\0';
}

/* ---- The listening socket ----------------------------------------------- */

/* True if no server is behind a Unix domain address. A live one takes the
 * connection, or is too busy to (EAGAIN), or is of another type (EPROTOTYPE).
 */
static bool refuses(const struct sockaddr_un *address, int type)
{
    int probe = socket(AF_UNIX, type, 0);
    bool refused;

    if (probe < 0)
        fail_to_start("socket", address->sun_path, strerror(errno));
    /* A live server with a full backlog must not make us wait. */
    (void)fcntl(probe, F_SETFL, O_NONBLOCK);
    refused =
        connect(probe, (const struct sockaddr *)address, sizeof *address) < 0 &&
        errno == ECONNREFUSED;
    (void)close(probe);
    return refused;
}

/* True if the file at the address is a socket that a server has left behind. It
 * is asked twice: one that starts just now refuses, too, from its bind() to its
 * listen(). */
static bool is_stale(const struct sockaddr_un *address, int type)
{
    struct stat before;
    struct stat after;

    if (lstat(address->sun_path, &before) < 0)
        fail_to_start("bind", address->sun_path, strerror(errno));
    if (!S_ISSOCK(before.st_mode))
        fail_to_start("bind", address->sun_path,
                      "File exists and is not a socket");
    if (!refuses(address, type))
        return false;
    pause_ms(STARTING_PAUSE_MS);
    return refuses(address, type) && lstat(address->sun_path, &after) == 0 &&
           before.st_ino == after.st_ino && before.st_dev == after.st_dev;
}

static void bind_path(struct server *server, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = server->options.path;
    mode_t mask;
    int bound;

    if (strlen(path) >= sizeof address.sun_path) {
        char reason[64];

        (void)snprintf(reason, sizeof reason,
                       "File name too long, limit %zu bytes",
                       sizeof address.sun_path - 1);
        fail_to_start("bind", path, reason);
    }
    (void)strcpy(address.sun_path, path);
    (void)snprintf(server->where, sizeof server->where, "%s", path);

    /* The mode of the new file comes from the mask. chmod() after bind() would
     * leave a moment in which everybody may connect. */
    mask = umask(0117);
    bound = bind(server->socket, (struct sockaddr *)&address, sizeof address);
    if (bound < 0 && errno == EADDRINUSE) {
        if (is_stale(&address, type)) {
            (void)unlink(path);
            bound = bind(server->socket, (struct sockaddr *)&address,
                         sizeof address);
        } else {
            errno = EADDRINUSE;
        }
    }
    (void)umask(mask);
    if (bound < 0 || lstat(path, &server->socket_file) < 0)
        fail_to_start("bind", path, strerror(errno));
}

/* Removes the socket file, if it is still the one that bind() made: somebody
 * may have removed it and started another server at the same path. */
static void unlink_path(const struct server *server)
{
    struct stat now;

    if (server->options.path != NULL &&
        lstat(server->options.path, &now) == 0 &&
        now.st_ino == server->socket_file.st_ino &&
        now.st_dev == server->socket_file.st_dev)
        (void)unlink(server->options.path);
}

/* The address to bind, as getaddrinfo(3) reads it. "::" is every address: on a
 * dual-stack socket of IPv4, too. */
static struct addrinfo *resolve(const struct options *options, int family,
                                int type)
{
    struct addrinfo hints = {.ai_family = family,
                             .ai_socktype = type,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    const char *host = options->address;
    struct addrinfo *found;
    int error;

    if (host == NULL)
        host = family == AF_INET ? "0.0.0.0" : "::";
    error = getaddrinfo(host, options->port, &hints, &found);
    if (error != 0) {
        char where[NAME_BYTES];

        join(where, sizeof where, host, options->port);
        fail_to_start("bind", where,
                      error == EAI_SYSTEM ? strerror(errno)
                                          : gai_strerror(error));
    }
    return found;
}

static void set_option(int socket, int level, int option, int value)
{
    /* What fails here costs comfort, not correctness: on with it. */
    (void)setsockopt(socket, level, option, &value, sizeof value);
}

/* What accept() returns has the options of the listening socket: so they are
 * set once, and not for each client (Stevens, UNIX Network Programming, 7.4).
 *
 * Connections of the server before us may be in TIME_WAIT still, and would keep
 * the port (socket(7)). Not so for datagrams, where SO_REUSEADDR would let two
 * servers share the port, one of them deaf. Replies are sent whole, so there is
 * nothing that Nagle's algorithm (RFC 896) could join them with; and a peer
 * whose machine is gone is noticed, if only after two hours (tcp(7)). */
static void tune(int socket)
{
    set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
}

static void bind_address(struct server *server, int type)
{
    const struct options *options = &server->options;
    struct addrinfo *address = resolve(options, options->family, type);

    server->socket = socket(address->ai_family, type, 0);
    if (server->socket < 0 && errno == EAFNOSUPPORT &&
        options->family == AF_UNSPEC && options->address == NULL) {
        /* A kernel without IPv6: IPv4 alone, then. */
        freeaddrinfo(address);
        address = resolve(options, AF_INET, type);
        server->socket = socket(AF_INET, type, 0);
    }
    if (options->address != NULL)
        join(server->where, sizeof server->where, options->address,
             options->port);
    else
        join(server->where, sizeof server->where, "*", options->port);
    if (server->socket < 0)
        fail_to_start("socket", server->where, strerror(errno));

    if (address->ai_family == AF_INET6)
        set_option(server->socket, IPPROTO_IPV6, IPV6_V6ONLY,
                   options->family == AF_INET6);
    if (type == SOCK_STREAM)
        tune(server->socket);
    if (bind(server->socket, address->ai_addr, address->ai_addrlen) < 0)
        fail_to_start("bind", server->where, strerror(errno));
    freeaddrinfo(address);
}

/* Asks the kernel where we listen: with -p 0 it has picked the port. */
static void name_listening_socket(struct server *server)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct endpoint end;

    if (server->options.path != NULL ||
        getsockname(server->socket, (struct sockaddr *)&address, &length) < 0)
        return;
    end = endpoint(address, length);
    if (strcmp(end.host, "::") == 0 || strcmp(end.host, "0.0.0.0") == 0)
        (void)strcpy(end.host, "*");
    join(server->where, sizeof server->where, end.host, end.port);
}

/* socket -> bind -> listen. */
static void listen_for_clients(struct server *server)
{
    int type = server->options.datagrams ? SOCK_DGRAM : SOCK_STREAM;

    if (server->options.path != NULL) {
        server->socket = socket(AF_UNIX, type, 0);
        if (server->socket < 0)
            fail_to_start("socket", server->options.path, strerror(errno));
        bind_path(server, type);
    } else {
        bind_address(server, type);
    }
    /* The backlog holds connections whose handshake the kernel has completed
     * and that accept() has not returned yet. Linux cuts SOMAXCONN down to its
     * own net.core.somaxconn (listen(2)). */
    if (!server->options.datagrams && listen(server->socket, SOMAXCONN) < 0) {
        int error = errno;

        unlink_path(server);
        fail_to_start("listen", server->where, strerror(error));
    }
    name_listening_socket(server);
}

/* ---- Who is connected --------------------------------------------------- */

/* A place for `socket`, or NULL if there is none, not even one to turn the
 * client away in. */
static struct client *take_place(struct server *server, int socket)
{
    struct client *client = NULL;
    bool full;

    (void)pthread_mutex_lock(&server->lock);
    full = server->connected == server->limit;
    if (!full || server->turning_away < REFUSAL_THREADS) {
        client = server->free;
        if (client != NULL)
            server->free = client->next_free;
        else
            client = &server->places[server->touched++];
        client->server = server;
        client->socket = socket;
        client->turned_away = full;
        if (full)
            server->turning_away++;
        else
            server->connected++;
    }
    (void)pthread_mutex_unlock(&server->lock);
    return client;
}

/* The client has left. Its descriptor is closed, its line printed and its place
 * free before anybody else can look, so the log never says that somebody left
 * after the next one came for the same place. */
static void leave_place(struct client *client)
{
    struct server *server = client->server;

    (void)pthread_mutex_lock(&server->lock);
    (void)close(client->socket);
    if (client->turned_away) {
        server->turning_away--;
    } else {
        (void)printf("Connection from %s closed.\n", client->name);
        server->connected--;
    }
    client->running = false;
    client->next_free = server->free;
    server->free = client;
    if (server->connected + server->turning_away == 0)
        (void)pthread_cond_signal(&server->everybody_left);
    (void)pthread_mutex_unlock(&server->lock);
}

static void words_for_a_full_server(const struct server *server, char *words,
                                    size_t size)
{
    (void)snprintf(words, size, "Too many clients, limit %zu\n", server->limit);
}

/* A client's thread, from its first instruction to its last. */
static void *serve(void *argument)
{
    struct client *client = argument;
    struct server *server = client->server;

    if (client->turned_away) {
        char words[64];

        words_for_a_full_server(server, words, sizeof words);
        refuse(client->socket, words, REFUSAL_PATIENCE_MS);
    } else {
        converse(client->socket, &server->terms);
    }
    leave_place(client);
    return NULL;
}

/* Starts the client's thread, detached: nobody will pthread_join() it, so its
 * stack is given back the moment it ends. Returns 0, or an error number, which
 * must not be ignored: then nobody serves this client.
 *
 * A client may have left before pthread_create() returns. Its thread needs the
 * lock for that, so nobody else has the place before its number is stored. The
 * lock comes before the mask: it may keep us waiting, and a signal with us. */
static int start_thread(struct client *client)
{
    struct server *server = client->server;
    int error;

    (void)pthread_mutex_lock(&server->lock);
    mask_stop_signals(SIG_BLOCK);
    error = pthread_create(&client->thread, &server->thread_attributes, serve,
                           client);
    mask_stop_signals(SIG_UNBLOCK);
    client->running = error == 0;
    (void)pthread_mutex_unlock(&server->lock);
    return error;
}

/* ---- The accept loop ---------------------------------------------------- */

/* What the log calls a client, and what it says when the client comes. */
struct names {
    char client[NAME_BYTES];
    char tuple[2 * HOST_BYTES + sizeof(struct sockaddr_un)];
};

/* The five-tuple is ours: [protocol, local address, local port, remote address,
 * remote port]. A Unix domain peer has no address. What tells two of them apart
 * is the inode of our own socket, the NODE of lsof and the number in
 * /proc/PID/fd. */
static void name_client(struct names *names, const struct server *server,
                        int socket, const struct sockaddr_storage *peer,
                        socklen_t length)
{
    const char *path = server->options.path;
    struct sockaddr_storage local = *peer;
    socklen_t local_length = sizeof local;
    struct stat status = {.st_ino = 0};

    if (path != NULL) {
        (void)fstat(socket, &status);
        (void)snprintf(names->client, sizeof names->client, "socket:[%ju]",
                       (uintmax_t)status.st_ino);
        (void)snprintf(names->tuple, sizeof names->tuple, "[unix, %s]", path);
    } else {
        struct endpoint there = endpoint(*peer, length);
        struct endpoint here;

        (void)getsockname(socket, (struct sockaddr *)&local, &local_length);
        here = endpoint(local, local_length);
        join(names->client, sizeof names->client, there.host, there.port);
        (void)snprintf(names->tuple, sizeof names->tuple,
                       "[tcp, %s, %s, %s, %s]", here.host, here.port,
                       there.host, there.port);
    }
}

static void log_refusal(const char *client, const char *words)
{
    (void)fprintf(stderr, "Connection from %s refused: %s", client, words);
}

/* Gives a new connection a place and a thread. Where there is none to be had
 * the main thread tells the client itself, and does not wait for it to hang up,
 * since the next ones are waiting. */
static void admit(struct server *server, int socket,
                  const struct sockaddr_storage *peer, socklen_t length)
{
    struct client *client = take_place(server, socket);
    struct names names;
    char words[128];
    int error;

    name_client(&names, server, socket, peer, length);
    if (client == NULL || client->turned_away) {
        words_for_a_full_server(server, words, sizeof words);
        log_refusal(names.client, words);
    }
    if (client == NULL) {
        refuse(socket, words, 0);
        (void)close(socket);
        return;
    }
    (void)strcpy(client->name, names.client);
    if (!client->turned_away)
        (void)printf("Connection from %s opened: fd %d, %s\n", names.client,
                     socket, names.tuple);
    error = start_thread(client);
    if (error != 0) {
        (void)snprintf(words, sizeof words, "No thread for you: %s\n",
                       strerror(error));
        log_refusal(names.client, words);
        refuse(socket, words, 0);
        leave_place(client);
    }
}

/* The loop that gives thread-per-connection its name. It returns when a signal
 * has stopped the server and the backlog is empty: those clients are connected,
 * as far as they know, and may have sent their requests already. */
static void accept_clients(struct server *server)
{
    int after_stop = 0;
    int unlucky = 0;
    bool failing = false;

    /* After the stop as many as may wait in the backlog: on Linux one more than
     * it has room for. And one that was in our hands when the signal came, and
     * a call that it interrupted. */
    while (after_stop < SOMAXCONN + 3) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof peer;
        int socket = accept(server->socket, (struct sockaddr *)&peer, &length);

        if (atomic_load(&stopping)) {
            after_stop++;
            /* Some systems, not Linux, hand O_NONBLOCK down to new sockets. */
            if (socket >= 0)
                (void)fcntl(socket, F_SETFL, 0);
        }
        if (socket >= 0) {
            failing = false;
            unlucky = 0;
            admit(server, socket, &peer, length);
        } else if (is_our_trouble(errno, &unlucky)) {
            if (atomic_load(&stopping))
                return;
            rest(&failing, "connect", "accept");
        }
    }
}

/* ---- Datagrams (-u): no connections, so no accept() and no threads ------ */

/* Forged senders can make us write log lines for the price of one small packet.
 * So the log, errors included, grows no faster than what arrived, its headers
 * (IPv4 and UDP, 28 bytes) included. */
struct datagram_log {
    size_t credit;
    unsigned long unshown;
};

static bool has_credit(struct datagram_log *log, size_t line)
{
    if (line > log->credit) {
        log->unshown++;
        return false;
    }
    log->credit -= line;
    return true;
}

static void log_datagram(struct datagram_log *log, const char *sender,
                         const char *words, size_t length)
{
    if (has_credit(log, strlen("Datagram from : ") + strlen(sender) + length))
        (void)printf("Datagram from %s: %.*s", sender, (int)length, words);
}

/* The peer is gone, does not read in time, or was never there. */
static void log_lost_reply(struct datagram_log *log, const char *sender)
{
    const char *reason = strerror(errno);

    if (has_credit(log, strlen("Fail to answer , sendto: \n") + strlen(sender) +
                            strlen(reason)))
        (void)fprintf(stderr, "Fail to answer %s, sendto: %s\n", sender,
                      reason);
}

/* One datagram is one request. Only ping and echo are answered: if errors were,
 * two servers could keep each other busy for ever with "Unsupported command:
 * Unsupported", once somebody forged the first sender. */
static void answer_datagram(const struct server *server,
                            struct datagram_log *log, const char *datagram,
                            size_t length, const struct sockaddr_storage *peer,
                            socklen_t peer_length)
{
    char sender[sizeof server->where];
    char reply[REPLY_LIMIT];
    struct request request;
    size_t reply_length;

    if (peer->ss_family == AF_UNIX || peer_length == 0) {
        name_path(sender, sizeof sender, peer, peer_length);
    } else {
        struct endpoint end = endpoint(*peer, peer_length);

        join(sender, sizeof sender, end.host, end.port);
    }
    log->credit += length + 28;

    if (length > LINE_LIMIT) {
        static const char words[] = "longer than 4096 bytes, dropped\n";

        log_datagram(log, sender, words, sizeof words - 1);
        return;
    }
    if (length > 0 && datagram[length - 1] == '\n')
        length--;
    request = parse(datagram, length);
    reply_length = compose(request, reply);
    if (request.command == PING_COMMAND || request.command == ECHO_COMMAND) {
        if (sendto(server->socket, reply, reply_length, 0,
                   (const struct sockaddr *)peer, peer_length) < 0)
            log_lost_reply(log, sender);
    } else if (request.command == UNSUPPORTED_COMMAND) {
        log_datagram(log, sender, reply, reply_length);
    } else if (request.command == QUIT_COMMAND) {
        static const char words[] = "quit, but there is no connection\n";

        log_datagram(log, sender, words, sizeof words - 1);
    } else {
        log_datagram(log, sender, "empty\n", sizeof "empty\n" - 1);
    }
}

static void answer_datagrams(struct server *server)
{
    struct datagram_log log = {.credit = 1024};
    struct timeval patience = {.tv_usec = DATAGRAM_PATIENCE_MS * 1000};
    int after_stop = 0;
    bool failing = false;

    /* A Unix domain peer whose receive queue is full (ten datagrams, unless
     * net.unix.max_dgram_qlen says otherwise) makes sendto() wait, and
     * everybody else with it. A moment is enough for one that reads; the reply
     * to one that does not is lost. If such a one has connected, its replies
     * lie in our own send buffer, as many as fit, and then the others' replies
     * are lost, too, until it reads or leaves. */
    (void)setsockopt(server->socket, SOL_SOCKET, SO_SNDTIMEO, &patience,
                     sizeof patience);
    while (after_stop < DATAGRAMS_AFTER_STOP) {
        /* One byte more than the longest request, to tell "just fits" from
         * "was cut". */
        char datagram[LINE_LIMIT + 1];
        struct sockaddr_storage peer = {0};
        socklen_t peer_length = sizeof peer;
        ssize_t length = recvfrom(server->socket, datagram, sizeof datagram, 0,
                                  (struct sockaddr *)&peer, &peer_length);

        if (atomic_load(&stopping))
            after_stop++;
        /* A path may fill sun_path to its last byte. Linux counts a NUL behind
         * it all the same, which is in nobody's array (unix(7), "BUGS"). */
        if (peer_length > sizeof(struct sockaddr_un))
            peer_length = sizeof(struct sockaddr_un);
        if (length >= 0) {
            failing = false;
            answer_datagram(server, &log, datagram, (size_t)length, &peer,
                            peer_length);
        } else if (errno != EINTR && !is_somebody_elses(errno)) {
            if (atomic_load(&stopping))
                break;
            rest(&failing, "receive", "recvfrom");
        }
    }
    if (log.unshown > 0)
        (void)printf("Datagrams not shown: %lu\n", log.unshown);
}

/* ---- The orderly stop, from the main thread's side ---------------------- */

/* Wakes the clients' threads until all have left. Once is not enough: a thread
 * that looked at `stopping` just before it was set, and enters recv() just
 * after its signal, would sleep on. */
static void see_clients_off(struct server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    for (int round = 0; round < STOP_ROUNDS; round++) {
        struct timespec until;

        if (server->connected + server->turning_away == 0)
            break;
        for (size_t i = 0; i < server->touched; i++)
            if (server->places[i].running)
                (void)pthread_kill(server->places[i].thread, SIGURG);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STOP_ROUND_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        (void)pthread_cond_timedwait(&server->everybody_left, &server->lock,
                                     &until);
    }
    (void)pthread_mutex_unlock(&server->lock);
}

/* ---- Options ------------------------------------------------------------ */

static const char usage[] =
    "usage: ./server [-46qu] [-b address] [-p port] [-U path] [-m clients] "
    "[-w seconds]\n";

static const char help[] =
    "  -4          IPv4 only\n"
    "  -6          IPv6 only\n"
    "  -b address  listen on this address (every address)\n"
    "  -h, --help  show this help\n"
    "  -m clients  serve at most so many at once (what the descriptor limit "
    "allows)\n"
    "  -p port     listen on this port; 0 lets the kernel pick (1208)\n"
    "  -q          log only errors\n"
    "  -U path     listen on a Unix domain socket\n"
    "  -u          datagrams instead of connections\n"
    "  -w seconds  end a conversation that was idle so long (never)\n";

static _Noreturn void misuse(const char *what, const char *problem)
{
    (void)fprintf(stderr, "server: %s: %s\n%s", what, problem, usage);
    exit(2);
}

/* atoi(3) would read 12x8 as 12, and "all of them" as 0. */
static long whole_number(const char *option, const char *text, long least,
                         long most)
{
    long number = -1;

    if (*text != '\0' && strspn(text, "0123456789") == strlen(text)) {
        errno = 0;
        number = strtol(text, NULL, 10);
        if (errno != 0)
            number = -1;
    }
    if (number < least || number > most) {
        char problem[128];

        (void)snprintf(problem, sizeof problem,
                       "needs a whole number from %ld to %ld", least, most);
        misuse(option, problem);
    }
    return number;
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

static void check_options(struct options *options)
{
    if (options->path != NULL && *options->path == '\0')
        misuse("-U", "needs a path");
    if (options->path != NULL &&
        (options->family != AF_UNSPEC || options->address || options->port))
        misuse("-U", "a path has no family, address or port (-4, -6, -b, -p)");
    if (options->datagrams && (options->most_clients || options->idle_seconds))
        misuse("-u", "datagrams have no clients to limit (-m, -w)");
    if (options->port == NULL)
        options->port = "1208";
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.family = AF_UNSPEC};
    int letter;

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0)
            show_help();
    /* ':' in front: getopt(3) leaves the complaining to us. */
    while ((letter = getopt(argc, argv, ":46b:hm:p:qU:uw:")) != -1) {
        char option[] = {'-', (char)optopt, '\0'};

        switch (letter) {
        case '4':
            choose_family(&options, AF_INET);
            break;
        case '6':
            choose_family(&options, AF_INET6);
            break;
        case 'b':
            options.address = optarg;
            break;
        case 'h':
            show_help();
        case 'm':
            options.most_clients =
                whole_number("-m", optarg, 1, CLIENTS_MAXIMUM);
            break;
        case 'p':
            (void)whole_number("-p", optarg, 0, 65535);
            options.port = optarg;
            break;
        case 'q':
            options.quiet = true;
            break;
        case 'U':
            options.path = optarg;
            break;
        case 'u':
            options.datagrams = true;
            break;
        case 'w':
            options.idle_seconds =
                (unsigned)whole_number("-w", optarg, 1, SECONDS_MAXIMUM);
            break;
        default:
            misuse(option, letter == ':' ? "needs a value" : "no such option");
        }
    }
    if (optind < argc)
        misuse(argv[optind], "no operand expected");
    check_options(&options);
    return options;
}

/* ---- The start ---------------------------------------------------------- */

/* A program may be started with its standard descriptors closed (`>&-`). Then
 * the listening socket would become descriptor 1, and every log line an error.
 */
static void fill_standard_descriptors(void)
{
    int descriptor;

    do
        descriptor = open("/dev/null", O_RDWR);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    (void)close(descriptor);
}

/* How many clients the descriptor limit (`ulimit -n`) has room for. */
static size_t most_clients(const struct options *options)
{
    struct rlimit descriptors;
    size_t most = CLIENTS_MAXIMUM;

    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0 &&
        descriptors.rlim_cur < CLIENTS_MAXIMUM)
        most = (size_t)descriptors.rlim_cur;
    most = most > RESERVED_DESCRIPTORS ? most - RESERVED_DESCRIPTORS : 1;
    if (options->most_clients > 0 && (size_t)options->most_clients < most)
        most = (size_t)options->most_clients;
    return most;
}

static void prepare(struct server *server)
{
    int error;

    server->limit = most_clients(&server->options);
    server->places =
        calloc(server->limit + REFUSAL_THREADS, sizeof *server->places);
    if (server->places == NULL)
        fail_to_start("calloc", "", strerror(errno));
    server->terms.screen = stdout;
    server->terms.idle_seconds = server->options.idle_seconds;
    server->terms.stopping = &stopping;

    error = pthread_mutex_init(&server->lock, NULL);
    if (error == 0)
        error = pthread_cond_init(&server->everybody_left, NULL);
    if (error == 0)
        error = pthread_attr_init(&server->thread_attributes);
    if (error == 0)
        error = pthread_attr_setstacksize(&server->thread_attributes,
                                          THREAD_STACK_BYTES);
    if (error == 0)
        error = pthread_attr_setdetachstate(&server->thread_attributes,
                                            PTHREAD_CREATE_DETACHED);
    if (error != 0)
        fail_to_start("pthread", "", strerror(error));
}

static void say_where(const struct server *server)
{
    bool path = server->options.path != NULL;

    if (server->options.datagrams)
        (void)printf("Listening on %s%s, pid %ld, fd %d\n", server->where,
                     path ? " (datagrams)" : "/udp", (long)getpid(),
                     server->socket);
    else
        (void)printf("Listening on %s, pid %ld, fd %d, at most %zu clients\n",
                     server->where, (long)getpid(), server->socket,
                     server->limit);
}

int main(int argc, char **argv)
{
    /* Not on main()'s stack, which is gone when main() returns: a thread that
     * the stop has given up may still be running then. */
    static struct server server;

    server.options = read_options(argc, argv);
    fill_standard_descriptors();
    if (server.options.quiet && freopen("/dev/null", "w", stdout) == NULL)
        fail_to_start("open", "/dev/null", strerror(errno));
    /* stdout would keep its lines to itself when it is a pipe or a file. */
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);

    mask_stop_signals(SIG_BLOCK);
    /* A client that hung up is EPIPE for its own thread, and a log that has
     * reached its limit (`ulimit -f`) an error of write(): not the end of all.
     */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    prepare(&server);

    (void)printf("Server Started ...\n");
    listen_for_clients(&server);
    say_where(&server);
    handle_signals(&server);

    if (server.options.datagrams)
        answer_datagrams(&server);
    else
        accept_clients(&server);

    unlink_path(&server);
    atomic_store(&owner, NULL);
    (void)close(server.socket);
    see_clients_off(&server);
    (void)printf("Server Stopped.\n");
    return EXIT_SUCCESS;
}
