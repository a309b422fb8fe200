/*
 * bare.c - thread per connection with nothing else: accept, a thread, recv,
 * send. It reads no request, keeps no list of clients, logs nothing and can't
 * be stopped in an orderly way. So it shows what the design costs on this
 * machine before a server does any work: the physical limit that the benchmark
 * holds server.c against. It is a measuring weight, not a server to copy.
 *
 *     bare [port]      (1208; 0 lets the kernel pick)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
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

static _Noreturn void fail(const char *call, int error)
{
    (void)fprintf(stderr, "bare: %s: %s\n", call, strerror(error));
    exit(EXIT_FAILURE);
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
    (void)close(socket);
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
    (void)printf("Listening on *:%d\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    return listening;
}

int main(int argc, char **argv)
{
    int listening = listen_on((uint16_t)(argc > 1 ? atoi(argv[1]) : 1208));
    pthread_attr_t attributes;
    pthread_t thread;
    int yes = 1;

    for (size_t i = 0; i < sizeof pongs; i++)
        pongs[i] = "pong\n"[i % REQUEST_BYTES];
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int socket = accept(listening, NULL, NULL);
        int error;

        if (socket < 0)
            fail("accept", errno);
        (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        error = pthread_create(&thread, &attributes, serve,
                               (void *)(intptr_t)socket);
        if (error != 0)
            fail("pthread_create", error);
    }
}
