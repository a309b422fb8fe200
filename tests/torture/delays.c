/*
 * delays.c - random delays before and after 18 calls, for LD_PRELOAD.
 *
 * What happens first when two things happen at the same time is up to the
 * kernel, and mostly it is the same one. Delays make the others happen, too. A
 * test that fails under them counted on an order that nobody promises.
 *
 * DELAYS_SEED in the environment is the seed: each process and each thread
 * begins with it, and with how many threads there were before.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Every sixteenth time for up to 3 ms: a thousand clients are still served
 * within seconds. */
#define ONE_IN 16
#define LONGEST_NS 3000000

#define NEXT ((void *)-1L) /* RTLD_NEXT, which POSIX has not got */

static void delay(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned state;
    struct timespec rest = {0};
    int saved = errno;

    if (state == 0) {
        const char *seed = getenv("DELAYS_SEED");

        state = ((seed ? (unsigned)atoi(seed) : 0) << 8) + ++threads;
    }
    if (rand_r(&state) % ONE_IN == 0) {
        rest.tv_nsec = rand_r(&state) % LONGEST_NS;
        nanosleep(&rest, NULL);
    }
    errno = saved;
}

/* NOLINTBEGIN: a macro for functions, and shorter names than those of headers
 */
#define DELAYED(type, name, parameters, arguments) \
    type name parameters                           \
    {                                              \
        static type(*real) parameters;             \
        type result;                               \
                                                   \
        if (real == NULL)                          \
            *(void **)&real = dlsym(NEXT, #name);  \
        delay();                                   \
        result = real arguments;                   \
        delay();                                   \
        return result;                             \
    }

/* clang-format off */
DELAYED(int, accept, (int s, struct sockaddr *a, socklen_t *l), (s, a, l))
DELAYED(int, bind, (int s, const struct sockaddr *a, socklen_t l), (s, a, l))
DELAYED(int, close, (int d), (d))
DELAYED(int, connect, (int s, const struct sockaddr *a, socklen_t l), (s, a, l))
DELAYED(int, getsockname, (int s, struct sockaddr *a, socklen_t *l), (s, a, l))
DELAYED(int, listen, (int s, int n), (s, n))
DELAYED(int, lstat, (const char *p, struct stat *b), (p, b))
DELAYED(int, pthread_cond_timedwait, (pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t), (c, m, t))
DELAYED(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *v), (t, a, f, v))
DELAYED(int, pthread_kill, (pthread_t t, int n), (t, n))
DELAYED(int, pthread_mutex_lock, (pthread_mutex_t *m), (m))
DELAYED(int, pthread_mutex_unlock, (pthread_mutex_t *m), (m))
DELAYED(ssize_t, recv, (int s, void *b, size_t n, int f), (s, b, n, f))
DELAYED(ssize_t, send, (int s, const void *b, size_t n, int f), (s, b, n, f))
DELAYED(int, setsockopt, (int s, int v, int o, const void *b, socklen_t l), (s, v, o, b, l))
DELAYED(int, shutdown, (int s, int h), (s, h))
DELAYED(int, unlink, (const char *p), (p))
DELAYED(ssize_t, write, (int d, const void *b, size_t n), (d, b, n))
/* NOLINTEND */
