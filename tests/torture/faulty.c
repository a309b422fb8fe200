/*
 * faulty.c - makes the calls of the server and the client fail on demand.
 *
 * Linked in front of the C library (ld --wrap), so the objects are the very
 * ones that ./server and ./client are made of. In the environment:
 *
 *   FAULT         "accept 24 3 5": the third to the fifth accept() fail with
 *                 error 24. "recv short 1 0": each recv() is asked for one byte
 *                 (0: for ever). "send 4 1 0 2": every second one from the
 *                 first on. "accept sig15 2 2": signal 15 comes just before the
 *                 second one. "odd": the call succeeds, but accept() tells of
 *                 the peer FAULT_PEER, lstat() of another device, and
 *                 getaddrinfo() of 192.0.2.1 first, and last. Several are
 *                 separated by commas.
 *   FAULT_WHILE   a path: the faults hold only while there is such a file
 *   FAULT_PEER    an IPv6 address
 *   FAULT_COUNTS  a path: at the end, how often each call was made is written
 *                 there
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_FAULTS 8
#define MOST_CALLS 64

struct fault {
    char call[32];
    int error;  /* 0: short, odd or a signal */
    int number; /* of the signal; 0: none */
    unsigned long first;
    unsigned long last; /* 0: for ever */
    unsigned long step;
};

struct call {
    const char *name;
    atomic_ulong made;
};

static struct fault faults[MOST_FAULTS];
static int fault_count;
static struct call calls[MOST_CALLS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *only_while;

__attribute__((constructor)) static void read_faults(void)
{
    const char *text = getenv("FAULT");

    only_while = getenv("FAULT_WHILE");
    while (text && *text && fault_count < MOST_FAULTS) {
        struct fault *fault = &faults[fault_count++];
        char kind[16] = "";

        fault->step = 1;
        if (sscanf(text, " %31[a-z_] %15[a-z0-9-] %lu %lu %lu", fault->call,
                   kind, &fault->first, &fault->last, &fault->step) < 4) {
            (void)fprintf(stderr, "FAULT is not understood: %s\n", text);
            _exit(99);
        }
        if (strncmp(kind, "sig", 3) == 0)
            fault->number = atoi(kind + 3);
        else if (strcmp(kind, "short") != 0 && strcmp(kind, "odd") != 0)
            fault->error = atoi(kind);
        text = strchr(text, ',');
        text = text ? text + 1 : NULL;
    }
}

__attribute__((destructor)) static void write_counts(void)
{
    const char *path = getenv("FAULT_COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;

    for (int i = 0; file && i < MOST_CALLS && calls[i].name; i++)
        (void)fprintf(file, "%s %lu\n", calls[i].name,
                      atomic_load(&calls[i].made));
    if (file)
        (void)fclose(file);
}

static unsigned long count(const char *name)
{
    sigset_t all;
    sigset_t before;
    int i;

    /* A handler that came while we have the lock would wait for it for ever. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_mutex_lock(&lock);
    for (i = 0; i < MOST_CALLS - 1 && calls[i].name; i++)
        if (strcmp(calls[i].name, name) == 0)
            break;
    calls[i].name = name;
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return atomic_fetch_add(&calls[i].made, 1) + 1;
}

/* True if this call is to fail, and errno says with what. A call that can be
 * short or odd is told so. */
static bool fails(const char *name, bool *is_odd)
{
    int saved = errno;
    unsigned long number = count(name);
    bool holds = only_while == NULL || access(only_while, F_OK) == 0;

    errno = saved;
    for (int i = 0; holds && i < fault_count; i++) {
        const struct fault *it = &faults[i];

        if (strcmp(it->call, name) != 0 || number < it->first ||
            (it->last != 0 && number > it->last) ||
            (number - it->first) % it->step != 0)
            continue;
        if (it->error != 0) {
            errno = it->error;
            return true;
        }
        if (it->number != 0)
            (void)raise(it->number);
        else if (is_odd)
            *is_odd = true;
    }
    return false;
}

/* The real call, and ours in front of it. */
#define WRAPS(type, name, parameters) \
    type __real_##name parameters;    \
    type __wrap_##name parameters;    \
    type __wrap_##name parameters

/* A call that says its failure with `failure` and errno. */
#define FAILS(type, name, failure, parameters, arguments) \
    WRAPS(type, name, parameters)                         \
    {                                                     \
        if (fails(#name, NULL))                           \
            return failure;                               \
        return __real_##name arguments;                   \
    }

/* A call that returns its error, as the pthread functions do. What errno is
 * then is nobody's business. */
#define RETURNS(name, parameters, arguments) \
    FAILS(int, name, errno, parameters, arguments)

/* A call that transfers bytes, and may transfer one. The errors that tell of a
 * broken connection break it. */
#define TRANSFERS(name, parameters, arguments)         \
    WRAPS(ssize_t, name, parameters)                   \
    {                                                  \
        bool is_short = false;                         \
                                                       \
        if (fails(#name, &is_short)) {                 \
            int error = errno;                         \
                                                       \
            if (error == EPIPE || error == ECONNRESET) \
                (void)__real_shutdown(fd, SHUT_RDWR);  \
            errno = error;                             \
            return -1;                                 \
        }                                              \
        if (is_short && size > 1)                      \
            size = 1;                                  \
        return __real_##name arguments;                \
    }

FAILS(int, socket, -1, (int family, int type, int protocol),
      (family, type, protocol))
FAILS(int, bind, -1, (int fd, const struct sockaddr *to, socklen_t length),
      (fd, to, length))
FAILS(int, listen, -1, (int fd, int backlog), (fd, backlog))
FAILS(int, connect, -1, (int fd, const struct sockaddr *to, socklen_t length),
      (fd, to, length))
FAILS(int, getsockname, -1, (int fd, struct sockaddr *own, socklen_t *length),
      (fd, own, length))
FAILS(int, setsockopt, -1,
      (int fd, int level, int option, const void *value, socklen_t length),
      (fd, level, option, value, length))
FAILS(int, shutdown, -1, (int fd, int how), (fd, how))
FAILS(int, poll, -1, (struct pollfd * fds, nfds_t many, int wait),
      (fds, many, wait))
FAILS(int, fstat, -1, (int fd, struct stat *status), (fd, status))
FAILS(int, unlink, -1, (const char *path), (path))
FAILS(long, sysconf, -1, (int name), (name))
FAILS(void *, malloc, NULL, (size_t size), (size))
FAILS(FILE *, freopen, NULL, (const char *path, const char *mode, FILE *file),
      (path, mode, file))
FAILS(size_t, fwrite, 0,
      (const void *bytes, size_t size, size_t many, FILE *file),
      (bytes, size, many, file))
RETURNS(pthread_create,
        (pthread_t * thread, const pthread_attr_t *attributes,
         void *(*start)(void *), void *argument),
        (thread, attributes, start, argument))
RETURNS(pthread_detach, (pthread_t thread), (thread))
RETURNS(pthread_kill, (pthread_t thread, int number), (thread, number))
RETURNS(pthread_cond_timedwait,
        (pthread_cond_t * condition, pthread_mutex_t *mutex,
         const struct timespec *until),
        (condition, mutex, until))
RETURNS(pthread_attr_init, (pthread_attr_t * attributes), (attributes))
RETURNS(pthread_attr_setstacksize, (pthread_attr_t * attributes, size_t size),
        (attributes, size))
RETURNS(pthread_attr_setdetachstate, (pthread_attr_t * attributes, int state),
        (attributes, state))
RETURNS(getnameinfo,
        (const struct sockaddr *address, socklen_t length, char *host,
         socklen_t host_size, char *port, socklen_t port_size, int flags),
        (address, length, host, host_size, port, port_size, flags))
TRANSFERS(recv, (int fd, void *to, size_t size, int flags),
          (fd, to, size, flags))
TRANSFERS(send, (int fd, const void *from, size_t size, int flags),
          (fd, from, size, flags))
TRANSFERS(read, (int fd, void *to, size_t size), (fd, to, size))
TRANSFERS(write, (int fd, const void *from, size_t size), (fd, from, size))

/* Linux has given the descriptor back even when it returns an error
 * (close(2)). */
WRAPS(int, close, (int fd))
{
    bool failed = fails("close", NULL);
    int error = errno;
    int result = __real_close(fd);

    if (failed)
        errno = error;
    return failed ? -1 : result;
}

/* gcov's own calls come by here, too: they bring a mode, or a lock. */
WRAPS(int, open, (const char *path, int flags, ...))
{
    return fails("open", NULL) ? -1 : __real_open(path, flags, 0666);
}

WRAPS(int, fcntl, (int fd, int command, ...))
{
    va_list arguments;
    void *argument; /* or a number, as in glibc's own fcntl() */

    if (command == F_SETFL && fails("fcntl", NULL))
        return -1;
    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return __real_fcntl(fd, command, argument);
}

WRAPS(int, accept, (int fd, struct sockaddr *from, socklen_t *length))
{
    bool is_odd = false;
    int result =
        fails("accept", &is_odd) ? -1 : __real_accept(fd, from, length);

    if (is_odd && result >= 0) {
        struct sockaddr_in6 peer = {.sin6_family = AF_INET6,
                                    .sin6_port = htons(1208)};

        (void)inet_pton(AF_INET6, getenv("FAULT_PEER"), &peer.sin6_addr);
        memcpy(from, &peer, sizeof peer);
        *length = sizeof peer;
    }
    return result;
}

WRAPS(int, lstat, (const char *path, struct stat *status))
{
    bool is_odd = false;
    int result = fails("lstat", &is_odd) ? -1 : __real_lstat(path, status);

    if (is_odd)
        status->st_dev++;
    return result;
}

WRAPS(int, getaddrinfo,
      (const char *host, const char *port, const struct addrinfo *hints,
       struct addrinfo **found))
{
    static const char nobody[] = "192.0.2.1";
    bool is_odd = false;
    int error = fails("getaddrinfo", &is_odd) ? errno : 0;

    errno = EIO; /* the reason for EAI_SYSTEM */
    if (error == 0)
        error = __real_getaddrinfo(is_odd ? nobody : host, port, hints, found);
    if (error == 0 && is_odd)
        error = __real_getaddrinfo(host, port, hints, &(*found)->ai_next);
    if (error == 0 && is_odd)
        error = __real_getaddrinfo(nobody, port, hints,
                                   &(*found)->ai_next->ai_next);
    return error;
}
