/*
 * server.c PORT [FAULT] - a right server of another design: a process for each
 * client. The faults need threads: what these share they must guard or copy,
 * and a thread that nobody joins keeps its stack.
 *
 *     loop-variable   each thread looks into the accept loop's own variable
 *     shared-buffer   all threads compose their replies in one buffer
 *     joinable        nobody joins or detaches a thread
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <netinet/in.h>

#define LINE_LIMIT 4096

struct buffer {
    char bytes[LINE_LIMIT];
    size_t length;
    bool skipping;
};

static const char *fault = "";

static bool is_wrong(const char *name)
{
    return strcmp(fault, name) == 0;
}

static void send_all(int client, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(client, bytes, length, MSG_NOSIGNAL);

        if (sent < 0)
            return;
        bytes += sent;
        length -= (size_t)sent;
    }
}

static void send_unsupported(int client, const char *word, size_t length)
{
    char reply[32 + 4 * 64 + 8] = "Unsupported command: ";
    char *to = reply + strlen(reply);

    for (size_t i = 0; i < length && i < 64; i++) {
        unsigned char byte = (unsigned char)word[i];

        to += sprintf(to, byte > ' ' && byte <= '~' ? "%c" : "\\x%02x", byte);
    }
    to += sprintf(to, "%s\n", length > 64 ? "..." : "");
    send_all(client, reply, (size_t)(to - reply));
}

/* Answers a line, which ends in '\n'. Returns false for quit. */
static bool answer(int client, const char *line, const char *end)
{
    static const char spaces[] = " \t\r\v\f\n";
    const char *text;
    size_t word;

    while (line < end && memchr(spaces, *line, sizeof spaces - 1) != NULL)
        line++;
    while (line < end && memchr(spaces, end[-1], sizeof spaces - 1) != NULL)
        end--;
    text = memchr(line, ' ', (size_t)(end - line));
    word = (size_t)((text ? text : end) - line);
    if (word == 4 && memcmp(line, "quit", 4) == 0)
        return false;
    if (word == 4 && memcmp(line, "ping", 4) == 0) {
        send_all(client, "pong\n", 5);
    } else if (word == 4 && memcmp(line, "echo", 4) == 0) {
        static char shared[LINE_LIMIT];
        char own[LINE_LIMIT];
        char *reply = is_wrong("shared-buffer") ? shared : own;
        size_t length = text ? (size_t)(end - text) - 1 : 0;

        if (length > 0)
            memcpy(reply, text + 1, length);
        reply[length] = '\n';
        send_all(client, reply, length + 1);
    } else if (word > 0) {
        send_unsupported(client, line, word);
    }
    return true;
}

/* Answers all whole lines in the buffer. Returns false for quit. */
static bool answer_lines(int client, struct buffer *in)
{
    static const char too_long[] = "Line too long, limit 4096 bytes\n";
    char *line = in->bytes;
    char *end;

    while (
        (end = memchr(line, '\n', (size_t)(in->bytes + in->length - line)))) {
        if (!in->skipping && !answer(client, line, end))
            return false;
        in->skipping = false;
        line = end + 1;
    }
    in->length = (size_t)(in->bytes + in->length - line);
    memmove(in->bytes, line, in->length);
    if (in->length == LINE_LIMIT) {
        if (!in->skipping)
            send_all(client, too_long, sizeof too_long - 1);
        in->skipping = true;
        in->length = 0;
    }
    return true;
}

static void converse(int client, struct buffer *in)
{
    struct timeval second = {1, 0};
    ssize_t received;

    while ((received = recv(client, in->bytes + in->length,
                            sizeof in->bytes - in->length, 0)) > 0) {
        in->length += (size_t)received;
        if (!answer_lines(client, in)) {
            (void)shutdown(client, SHUT_WR);
            (void)setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &second,
                             sizeof second);
            while (recv(client, in->bytes, sizeof in->bytes, 0) > 0)
                ;
            return;
        }
    }
    if (in->length > 0 && !in->skipping)
        (void)answer(client, in->bytes, in->bytes + in->length);
}

static void *serve(void *argument)
{
    struct buffer in = {.length = 0};
    int *client = argument;
    int socket = *client;

    if (!is_wrong("loop-variable"))
        free(client);
    converse(socket, &in);
    (void)close(socket);
    return NULL;
}

static void start_process(int listener, int client)
{
    if (fork() == 0) {
        static struct buffer in;

        (void)close(listener);
        converse(client, &in);
        _exit(0);
    }
    (void)close(client);
}

static void start_thread(int *client)
{
    int *own = client;
    pthread_t thread;

    if (!is_wrong("loop-variable")) {
        own = malloc(sizeof *own);
        if (own == NULL)
            exit(1);
        *own = *client;
    }
    if (pthread_create(&thread, NULL, serve, own) != 0)
        (void)close(*client);
    else if (!is_wrong("joinable"))
        (void)pthread_detach(thread);
}

int main(int argc, char **argv)
{
    static int client;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    int yes = 1;

    if (argc < 2)
        return 2;
    address.sin6_port = htons((in_port_t)atoi(argv[1]));
    if (argc > 2)
        fault = argv[2];
    (void)signal(SIGCHLD, SIG_IGN); /* children that end are not waited for */
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 1000) != 0) {
        perror("server");
        return 1;
    }
    for (;;) {
        client = accept(listener, NULL, NULL);
        if (client < 0)
            (void)usleep(100000);
        else if (fault[0] == '\0')
            start_process(listener, client);
        else
            start_thread(&client);
    }
}
