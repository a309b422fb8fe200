/* step-8.c - for a long time: what a client took is given back at its end. */
#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* send() may take less than it was given. Returns false if nobody is there. */
static bool deliver(int client, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count = send(client, bytes, length, 0);

        if (count < 0)
            return false;
        bytes += count;
        length -= (size_t)count;
    }
    return true;
}

/* Shows bytes that could harm a terminal as \xNN: an ESC could repaint it. */
static size_t unsupported(char *reply, const char *word, size_t length)
{
    char *to = reply + sprintf(reply, "Unsupported command: ");

    for (size_t i = 0; i < length && i < 64; i++)
        to += sprintf(to, isgraph((unsigned char)word[i]) ? "%c" : "\\x%02x",
                      (unsigned char)word[i]);
    to += sprintf(to, length > 64 ? "...\n" : "\n");
    fputs(reply, stdout);
    return (size_t)(to - reply);
}

/* Answers one request. Returns false when the conversation is over. A request
 * is no C string: no NUL ends it, and one may be inside. */
static bool answer(int client, const char *line, size_t length)
{
    char reply[4096];
    size_t word = 0, size = 5;

    while (length > 0 && isspace((unsigned char)line[length - 1]))
        length--;
    for (; length > 0 && isspace((unsigned char)*line); line++)
        length--;
    while (word < length && line[word] != ' ')
        word++;
    if (word == 4 && memcmp(line, "quit", 4) == 0)
        return false;
    if (word == 4 && memcmp(line, "ping", 4) == 0) {
        memcpy(reply, "pong\n", size);
    } else if (word == 0) {
        size = 0;
    } else if (word == 4 && memcmp(line, "echo", 4) == 0) {
        size = length > 5 ? length - 4 : 1;
        memcpy(reply, line + 5, size - 1);
        reply[size - 1] = '\n';
    } else {
        size = unsupported(reply, line, word);
    }
    return deliver(client, reply, size);
}

/* close() with unread input sends RST, which can destroy replies on their way.
 * So: send FIN, read until the client hangs up too, two seconds at most. */
static void hang_up(int client)
{
    struct pollfd input = {.fd = client, .events = POLLIN};
    time_t end = time(NULL) + 2;
    char ignored[4096];

    shutdown(client, SHUT_WR);
    while (time(NULL) < end && poll(&input, 1, 1000) > 0 &&
           recv(client, ignored, sizeof ignored, 0) > 0)
        ;
    close(client);
}

/* The argument is the descriptor itself. Its address would not do: the accept
 * loop changes that variable while the thread starts. */
static void *converse(void *argument)
{
    static const char too_long[] = "Line too long, limit 4096 bytes\n";
    int client = (int)(intptr_t)argument;
    char buffer[4096];
    size_t held = 0; /* bytes in the buffer: a line whose end has not come */
    bool open = true, skipping = false;
    ssize_t count;

    while (open &&
           (count = recv(client, buffer + held, sizeof buffer - held, 0)) > 0) {
        char *line = buffer, *newline;

        held += (size_t)count;
        while (open && (newline = memchr(line, '\n', held)) != NULL) {
            open = skipping || answer(client, line, (size_t)(newline - line));
            skipping = false;
            held -= (size_t)(newline + 1 - line);
            line = newline + 1;
        }
        memmove(buffer, line, held);
        if (held == sizeof buffer && !skipping) {
            open = deliver(client, too_long, sizeof too_long - 1);
            skipping = true; /* until the end of this line has come */
        }
        if (skipping)
            held = 0;
    }
    if (open && held > 0)
        answer(client, buffer, held); /* the end of file ends the last line */
    hang_up(client);
    return NULL;
}

int main(int argc, char *argv[])
{
    char *end;
    long port = strtol(argc > 1 ? argv[1] : "1208", &end, 10);
    struct sockaddr_in address = {.sin_family = AF_INET}; /* 0.0.0.0: any */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1; /* SO_REUSEADDR: a second start within a minute works */

    if (port < 1 || port > 65535 || *end != '\0') {
        fprintf(stderr, "Usage: %s [PORT]\n", argv[0]);
        return 2;
    }
    address.sin_port = htons((uint16_t)port);
    if (listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, SOMAXCONN) < 0) {
        perror("Fail to start server");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN); /* so send() fails, and the others live on */
    printf("Server Started ...\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        pthread_t thread;

        if (client < 0) {
            perror("Fail to connect");
            poll(NULL, 0, 100); /* out of descriptors it fails again at once */
        } else if (pthread_create(&thread, NULL, converse,
                                  (void *)(intptr_t)client) != 0) {
            close(client);
        } else {
            pthread_detach(thread); /* nobody will join it: free its stack */
        }
    }
}
