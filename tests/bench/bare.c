/*
 * bare.c - thread per connection with nothing else: accept, a thread, recv,
 * send. It reads no request, keeps no list of clients, logs nothing and can't
 * be stopped in an orderly way. So it shows what the design costs on this
 * machine before a server does any work: the physical limit that the benchmark
 * holds server.c against. It is a measuring weight, not a server to copy.
 *
 *     bare [port [step ...]]      (1208; 0 lets the kernel pick)
 *
 * Each step adds one thing that server.c does for a client, so that its price
 * can be measured: `names` turns both addresses into text, `log` prints two
 * lines, `end` ends in order. `alone` takes away the thread: one client after
 * the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* As server.c has them: we compare the work, not the stacks or the buffers. */
#define THREAD_STACK_BYTES (128 * 1024)
#define BUFFER_BYTES 4096

#define REQUEST_BYTES 5 /* "ping\n", and "pong\n" is as long */

static char pongs[BUFFER_BYTES + REQUEST_BYTES];
static bool alone, names, lines, in_order; /* the steps */

static _Noreturn void fail(const char *call, int error)
{
    (void)fprintf(stderr, "bare: %s: %s\n", call, strerror(error));
    exit(EXIT_FAILURE);
}

/* getnameinfo(3) for our own address and the peer's, as name_client() does. */
static void look_up(int socket, const struct sockaddr *peer, socklen_t length)
{
    struct sockaddr_in local;
    char host[64];
    char service[8];

    (void)getnameinfo(peer, length, host, sizeof host, service, sizeof service,
                      NI_NUMERICHOST | NI_NUMERICSERV);
    length = sizeof local;
    (void)getsockname(socket, (struct sockaddr *)&local, &length);
    (void)getnameinfo((struct sockaddr *)&local, length, host, sizeof host,
                      service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
}

/* What hang_up() in handler.c does: FIN, then wait for the client's. */
static void hang_up(int socket)
{
    const struct timeval wait = {.tv_sec = 1};
    char discarded[512];

    (void)shutdown(socket, SHUT_WR);
    (void)setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    while (recv(socket, discarded, sizeof discarded, 0) > 0)
        continue;
}

/* Request and reply are equally long, so n bytes of "ping\nping\n..." are
 * answered with the next n bytes of "pong\npong\n...", and nobody has to know
 * where one ends. Only a first byte is looked at, for the client to be able to
 * leave with `quit`. */
static void *serve(void *argument)
{
    int socket = (int)(intptr_t)argument;
    char buffer[BUFFER_BYTES];
    size_t phase = 0;
    ssize_t count;

    while ((count = recv(socket, buffer, sizeof buffer, 0)) > 0) {
        if (buffer[0] == 'q' ||
            send(socket, pongs + phase, (size_t)count, 0) != count)
            break;
        phase = (phase + (size_t)count) % REQUEST_BYTES;
    }
    if (in_order)
        hang_up(socket);
    (void)close(socket);
    if (lines)
        (void)printf("Connection from %s closed.\n", "127.0.0.1:51090");
    return NULL;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port)};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;

    if (listening < 0)
        fail("socket", errno);
    (void)setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listening, (struct sockaddr *)&address, length) < 0)
        fail("bind", errno);
    if (listen(listening, SOMAXCONN) < 0)
        fail("listen", errno);
    (void)getsockname(listening, (struct sockaddr *)&address, &length);
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* by lines, as server.c */
    (void)printf("Listening on *:%d, pid %ld\n", ntohs(address.sin_port),
                 (long)getpid());
    return listening;
}

/* One client: what server.c's admit() does. */
static void admit(int socket, const pthread_attr_t *attributes)
{
    pthread_t thread;
    int error;

    if (lines)
        (void)printf("Connection from %s opened: fd %d, [tcp, %s, %s]\n",
                     "127.0.0.1:51090", socket, "127.0.0.1, 1208",
                     "127.0.0.1, 51090");
    if (alone) {
        (void)serve((void *)(intptr_t)socket);
        return;
    }
    error =
        pthread_create(&thread, attributes, serve, (void *)(intptr_t)socket);
    if (error != 0)
        fail("pthread_create", error);
}

int main(int argc, char **argv)
{
    int listening = listen_on((uint16_t)(argc > 1 ? atoi(argv[1]) : 1208));
    pthread_attr_t attributes;
    int yes = 1;

    for (int i = 2; i < argc; i++) {
        alone |= strcmp(argv[i], "alone") == 0;
        names |= strcmp(argv[i], "names") == 0;
        lines |= strcmp(argv[i], "log") == 0;
        in_order |= strcmp(argv[i], "end") == 0;
    }
    for (size_t i = 0; i < sizeof pongs; i++)
        pongs[i] = "pong\n"[i % REQUEST_BYTES];
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        int socket = accept(listening, (struct sockaddr *)&peer, &length);

        if (socket < 0)
            fail("accept", errno);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (names)
            look_up(socket, (struct sockaddr *)&peer, length);
        admit(socket, &attributes);
    }
}
