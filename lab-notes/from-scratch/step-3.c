/* step-3.c - a conversation: many requests, one after the other. */
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
    send(client, reply, size, 0);
    return true;
}

static void converse(int client)
{
    char buffer[4096];
    ssize_t count = recv(client, buffer, sizeof buffer, 0);

    while (count > 0 && answer(client, buffer, (size_t)count))
        count = recv(client, buffer, sizeof buffer, 0);
    close(client);
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
    printf("Server Started ...\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);

        if (client < 0)
            perror("Fail to connect");
        else
            converse(client);
    }
}
