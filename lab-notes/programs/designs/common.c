/* common.c - what all designs have in common: how they start, and stop. */
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

atomic_bool stopping;
struct terms terms = {.stopping = &stopping};

static void on_stop(int number)
{
    (void)number;
    stopping = true;
    alarm(1); /* SIGALRM comes here, too */
}

/* socket -> bind -> listen: server.c says why for each option. Returns -1 if
 * one of them fails. */
static int listen_at(uint16_t port)
{
    const struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                                     .sin6_port = htons(port)};
    const struct sockaddr_in four = {.sin_family = AF_INET,
                                     .sin_port = htons(port)};
    const struct sockaddr *name = (const struct sockaddr *)&six;
    socklen_t length = sizeof six;
    const int on = 1, off = 0;
    int listening = socket(AF_INET6, SOCK_STREAM, 0);

    if (listening < 0) { /* a kernel without IPv6 */
        listening = socket(AF_INET, SOCK_STREAM, 0);
        name = (const struct sockaddr *)&four;
        length = sizeof four;
    }
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listening, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(listening, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listening, name, length) < 0 || listen(listening, SOMAXCONN) < 0)
        return -1;
    return listening;
}

int start(int argc, char **argv)
{
    const struct sigaction stop = {.sa_handler = on_stop}; /* no SA_RESTART */
    char *end;
    long port = strtol(argc > 1 ? argv[1] : "1208", &end, 10);
    int listening;

    if (argc > 2 || port < 1 || port > 65535 || *end != '\0') {
        fprintf(stderr, "Usage: %s [PORT]\n", argv[0]);
        exit(2);
    }
    listening = listen_at((uint16_t)port);
    if (listening < 0) {
        perror("Fail to start server");
        exit(EXIT_FAILURE);
    }
    signal(SIGPIPE, SIG_IGN); /* send() to who has left fails, and no more */
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGALRM, &stop, NULL);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* by lines, also into a pipe */
    terms.screen = stdout;
    printf("Server Started ...\nListening on *:%ld, pid %ld, fd %d\n", port,
           (long)getpid(), listening);
    return listening;
}

void accept_failed(void)
{
    if (errno == EINTR || errno == ECONNABORTED)
        return;
    perror("Fail to connect, accept");
    poll(NULL, 0, 100);
}
