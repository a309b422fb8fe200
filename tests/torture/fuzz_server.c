/*
 * fuzz_server.c - the server's options and its datagrams; a libFuzzer target,
 * like fuzz_handler.c, which explains more.
 *
 * The first byte of an input says what the rest is: 'o', a command line, one
 * word on each line; 'd', datagrams: "sender|text~sender|text", where a sender
 * is the path of a Unix domain socket.
 */
#define PROGRAM_NAME "server"
#define PROGRAM_SOURCE "../../server.c"
#include "fuzz_program.h"

static void check_result(const struct options *options)
{
    unsigned long port = strtoul(options->port, NULL, 10);

    if (strspn(options->port, "0123456789") != strlen(options->port) ||
        port > 65535)
        wrong("the port");
    if (options->most_clients < 0 || options->most_clients > 1000000 ||
        options->idle_seconds > 1000000)
        wrong("a number");
    if (options->path && (*options->path == '\0' || options->address ||
                          options->family != AF_UNSPEC))
        wrong("a path with an address");
    if (options->datagrams && (options->most_clients || options->idle_seconds))
        wrong("datagrams with clients");
}

/* ---- Datagrams --------------------------------------------------------------
 */

static size_t replies;
static size_t reply_length;
static bool reply_fails;

ssize_t __wrap_sendto(int socket, const void *bytes, size_t count, int flags,
                      const struct sockaddr *to, socklen_t length);

ssize_t __wrap_sendto(int socket, const void *bytes, size_t count, int flags,
                      const struct sockaddr *to, socklen_t length)
{
    (void)socket;
    (void)bytes;
    (void)flags;
    (void)to;
    (void)length;
    replies++;
    reply_length = count;
    errno = EAGAIN;
    return reply_fails ? -1 : (ssize_t)count;
}

/* Is the first word ping or echo? Read off the whole text. */
static bool is_owed(const char *text, size_t length)
{
    size_t from = 0;

    if (length > 4096)
        return false;
    while (from < length && memchr(" \t\r\v\f", text[from], 5))
        from++;
    if (length - from < 4 || (memcmp(text + from, "ping", 4) != 0 &&
                              memcmp(text + from, "echo", 4) != 0))
        return false;
    if (length - from == 4 || text[from + 4] == ' ')
        return true;
    for (from += 4; from < length; from++)
        if (!memchr(" \t\r\v\f\n", text[from], 6) ||
            (text[from] == '\n' && from + 1 < length))
            return false;
    return true;
}

static void try_datagrams(const uint8_t *data, size_t size)
{
    static struct server server;
    struct datagram_log log = {.credit = 1024};
    size_t arrived = 0;

    reply_fails = size % 2;
    while (size > 0) {
        const uint8_t *end = memchr(data, '~', size);
        size_t length = end ? (size_t)(end - data) : size;
        const uint8_t *bar = length ? memchr(data, '|', length) : NULL;
        size_t path = bar ? (size_t)(bar - data) : 0;
        size_t from = bar ? path + 1 : 0;
        char *text = exact_copy(data + from, length - from);
        struct sockaddr_storage peer = {.ss_family = AF_UNIX};
        socklen_t peer_length = 0;

        if (path > sizeof((struct sockaddr_un *)0)->sun_path)
            path = sizeof((struct sockaddr_un *)0)->sun_path;
        if (path > 0) {
            memcpy((char *)&peer + offsetof(struct sockaddr_un, sun_path), data,
                   path);
            peer_length =
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path);
        }
        replies = 0;
        arrived += length - from + 28;
        answer_datagram(&server, &log, text, length - from, &peer, peer_length);
        if (replies != is_owed(text, length - from))
            wrong("a reply more or less than owed");
        if (replies > 0 && reply_length > length - from + 1)
            wrong("a reply longer than its request");
        free(text);
        data += end ? length + 1 : length;
        size -= end ? length + 1 : length;
    }
    (void)fflush(said);
    if (spoken_length > arrived + 1024)
        wrong("more in the log than arrived");
    for (size_t i = 0; i < spoken_length; i++)
        if (spoken[i] != '\n' && (spoken[i] < ' ' || spoken[i] > '~'))
            wrong("an unprintable byte in the log");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    listen_again();
    if (data[0] == 'o')
        try_options(data + 1, size - 1);
    else
        try_datagrams(data + 1, size - 1);
    return 0;
}
