/*
 * datagrams.c - answers ping and echo without connections.
 *
 * Compare server.c: there is no listen(), no accept() and no thread here. One
 * socket hears everybody. recvfrom() tells who sent a datagram, sendto()
 * answers. A sender's address can be forged. So errors are never answered: two
 * servers would answer each other's errors for ever. No reply is longer than
 * its request and a newline: nobody can make us send a victim more than he
 * sends us. One danger is left: a flood that we log can fill the disk.
 */
#include "handler.h"
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in6 internet; /* hears IPv4 as well: ipv6(7) */
    struct sockaddr_un unix_domain;
};

static const char *read_options(int argc, char **argv);
static void on_stop(int number);
static void answer_datagrams(void);
static void answer(const char *datagram, size_t length);
static void send_reply(const char *reply, size_t length);
static void log_datagram(const char *why);
static int server;               /* our socket */
static union address self, from; /* its address; who sent the last datagram */
static socklen_t from_length;
static volatile sig_atomic_t stopping;

int main(int argc, char **argv)
{
    const char *path = read_options(argc, argv); /* NULL: a port */
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct timeval moment = {.tv_usec = 100000};
    socklen_t length = sizeof self.unix_domain;
    struct stat ours, now;

    server = socket(self.any.sa_family, SOCK_DGRAM, 0);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    umask(0117); /* a socket file will be srw-rw---- */
    if (server < 0 || bind(server, &self.any, length) < 0 ||
        getsockname(server, &self.any, &length) < 0 ||
        (path != NULL && lstat(path, &ours) < 0)) {
        fprintf(stderr, "Fail to start server, bind %s: %s\n",
                argc == 3 ? argv[2] : "1208", strerror(errno));
        return EXIT_FAILURE;
    }
    setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment);
    setsockopt(server, SOL_SOCKET, SO_SNDBUF, &(int){1 << 22}, sizeof(int));
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    printf("Server Started ...\nListening on ");
    if (path != NULL)
        printf("%s (datagrams)", path);
    else
        printf("*:%d/udp", ntohs(self.internet.sin6_port));
    printf(", pid %ld, fd %d\n", (long)getpid(), server);
    answer_datagrams();
    if (path != NULL && lstat(path, &now) == 0 && now.st_ino == ours.st_ino)
        unlink(path); /* the file is still our socket's */
    printf("Server Stopped.\n");
    return EXIT_SUCCESS;
}

static void answer_datagrams(void)
{
    for (int late = 0; late < 10000; late += stopping) {
        char datagram[LINE_LIMIT + 1]; /* one more: to see if it is too long */
        ssize_t length;

        from_length = sizeof from;
        length = recvfrom(server, datagram, sizeof datagram, 0, &from.any,
                          &from_length);
        if (length >= 0) {
            answer(datagram, (size_t)length);
        } else if (errno != EINTR) {
            if (errno != EAGAIN) /* a time limit: see on_stop() */
                perror("Fail to receive, recvfrom");
            return;
        }
    }
}

/* One datagram is one request, with or without '\n'. */
static void answer(const char *datagram, size_t length)
{
    size_t newline = length > 0 && datagram[length - 1] == '\n';
    struct request request = parse(datagram, length - newline);
    char reply[REPLY_LIMIT + 1];
    size_t reply_length = compose(request, reply);

    reply[reply_length] = '\0';
    if (length > LINE_LIMIT)
        log_datagram("longer than 4096 bytes\n");
    else if (self.any.sa_family == AF_INET6 &&
             from.internet.sin6_port == self.internet.sin6_port)
        log_datagram("from our own port, perhaps another server's\n");
    else if (request.command == UNSUPPORTED_COMMAND)
        log_datagram(reply);
    else if (reply_length == 0)
        log_datagram("empty, or quit: there is no connection\n");
    else
        send_reply(reply, reply_length);
}

/* On a Unix domain socket sendto() waits if the receiver's queue is full, and
 * all the others wait with us. So the receiver gets a moment (100 ms) to read.
 * After a failure we do not wait at all, until a reply gets out again. One harm
 * has no cure: unread replies to a path lie in our own send buffer. A receiver
 * that has called connect() can fill it. Then we answer nobody until it reads
 * or leaves. */
static void send_reply(const char *reply, size_t length)
{
    static int flags;
    ssize_t sent;

    do
        sent = sendto(server, reply, length, flags, &from.any, from_length);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && flags == 0)
        perror("Fail to answer, sendto");
    flags = sent < 0 ? MSG_DONTWAIT : 0;
}

/* An IPv4 sender has an address like ::ffff:127.0.0.1 here (RFC 4291, 2.5.5.2).
 * A path is not shown: it may hold bytes that repaint the screen. */
static void log_datagram(const char *why)
{
    char host[INET6_ADDRSTRLEN] = "";
    const char *four;

    inet_ntop(AF_INET6, &from.internet.sin6_addr, host, sizeof host);
    four = strchr(host, '.') ? strrchr(host, ':') + 1 : NULL;
    if (self.any.sa_family == AF_UNIX)
        printf("Datagram from a Unix domain socket: %s", why);
    else
        printf(four ? "Datagram from %s:%d: %s" : "Datagram from [%s]:%d: %s",
               four ? four : host, ntohs(from.internet.sin6_port), why);
}

/* From now on recvfrom() waits for a microsecond only, even one that waits now
 * (SA_RESTART). With O_NONBLOCK sendto() would not wait either. Somebody may go
 * on sending, so we count: no queue holds 10,000. */
static void on_stop(int number)
{
    struct timeval limit = {.tv_usec = 1};

    stopping = number > 0;
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static const char *read_options(int argc, char **argv)
{
    const char *option = argc == 3 && *argv[2] != '\0' ? argv[1] : "";
    const char *value = argc == 3 ? argv[2] : "1208";
    size_t digits = strspn(value, "0123456789");
    long port = strtol(value, NULL, 10);

    if (strcmp(option, "-U") == 0 &&
        strlen(value) < sizeof self.unix_domain.sun_path) {
        self.any.sa_family = AF_UNIX;
        return strcpy(self.unix_domain.sun_path, value);
    }
    if ((argc > 1 && strcmp(option, "-p") != 0) || value[digits] != '\0' ||
        port > 65535) {
        fprintf(stderr, "usage: build/datagrams [-p port | -U path]\n");
        exit(2);
    }
    self.any.sa_family = AF_INET6;
    self.internet.sin6_port = htons((in_port_t)port);
    return NULL;
}
