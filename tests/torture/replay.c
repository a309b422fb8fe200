/*
 * replay.c - forces a counterexample of the model upon the real program.
 *
 * Linked in front of the C library (ld --wrap), it holds a thread in front of a
 * call until the other thread is where the story wants it. Nothing waits for a
 * time. REPLAY in the environment names the story, tests/torture/model.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int __real_accept(int socket, struct sockaddr *name, socklen_t *length);
int __wrap_accept(int socket, struct sockaddr *name, socklen_t *length);
ssize_t __real_recv(int socket, void *buffer, size_t length, int flags);
ssize_t __wrap_recv(int socket, void *buffer, size_t length, int flags);
int __real_pthread_kill(pthread_t thread, int number);
int __wrap_pthread_kill(pthread_t thread, int number);
int __real_fcntl(int descriptor, int command, ...);
int __wrap_fcntl(int descriptor, int command, ...);

static pthread_t main_thread;
static sem_t go_on; /* zero at first, as all static memory */
static atomic_int failures = 5;

static bool story(const char *name)
{
    const char *wanted = getenv("REPLAY");

    return wanted != NULL && strcmp(wanted, name) == 0;
}

static void wait_for_the_other(void)
{
    while (sem_wait(&go_on) < 0)
        ; /* EINTR: the signal that comes too early */
}

/* no_rounds: the first recv() is entered when SIGURG has come and gone.
 * stopping_last: the client's thread runs the handler. */
ssize_t __wrap_recv(int socket, void *buffer, size_t length, int flags)
{
    static atomic_bool later;

    if (story("no_rounds") && !atomic_exchange(&later, true))
        wait_for_the_other();
    if (story("stopping_last") && !atomic_exchange(&later, true))
        __real_pthread_kill(pthread_self(), SIGTERM);
    return __real_recv(socket, buffer, length, flags);
}

int __wrap_pthread_kill(pthread_t thread, int number)
{
    int error = __real_pthread_kill(thread, number);

    if (story("no_rounds") && !pthread_equal(thread, pthread_self()))
        sem_post(&go_on);
    if (story("stopping_last") && pthread_equal(pthread_self(), main_thread))
        sem_post(&go_on);
    return error;
}

/* stopping_last: the handler goes on when the main thread has met EAGAIN, and
 * has gone on from there: it calls accept() again, or wakes the clients. If it
 * waited in accept() before the switch, any signal lets it try again. */
int __wrap_fcntl(int descriptor, int command, ...)
{
    va_list rest;
    int flags;
    int result;

    va_start(rest, command);
    flags = va_arg(rest, int);
    va_end(rest);
    result = __real_fcntl(descriptor, command, flags);
    if (story("stopping_last") && flags == O_NONBLOCK) {
        __real_pthread_kill(main_thread, SIGURG);
        wait_for_the_other();
    }
    return result;
}

/* no_draining, no_room_for_failures: accept() is entered when the handler has
 * made the switch. no_room_for_failures: and fails then, five times. */
int __wrap_accept(int socket, struct sockaddr *name, socklen_t *length)
{
    static bool met_eagain;
    int connection;

    main_thread = pthread_self();
    if (story("stopping_last") && met_eagain)
        sem_post(&go_on);
    if (story("no_draining") || story("no_room_for_failures"))
        while ((__real_fcntl(socket, F_GETFL) & O_NONBLOCK) == 0)
            poll(NULL, 0, 1);
    if (story("no_room_for_failures") && failures-- > 0) {
        errno = EMFILE;
        return -1;
    }
    connection = __real_accept(socket, name, length);
    met_eagain = connection < 0 && errno == EAGAIN;
    return connection;
}
