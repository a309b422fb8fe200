/*
 * fuzz_client.c - the client's input side and its options; a libFuzzer target,
 * like fuzz_handler.c, which explains more.
 *
 * The first byte of an input says what the rest is: 'q', a piece of what is
 * typed; 'o', a command line, one word on each line.
 */
#define PROGRAM_NAME "client"
#define PROGRAM_SOURCE "../../client.c"
#include "fuzz_program.h"

static void reset_options(void)
{
    family = AF_UNSPEC;
    host = "localhost";
    port = "1208";
    path = NULL;
    idle_seconds = 0;
}

static void check_options(void)
{
    if (idle_seconds > 1000000)
        wrong("seconds");
    if (path != NULL && *path == '\0')
        wrong("an empty path");
    if (host == NULL || port == NULL)
        wrong("no host");
}

/* True if nothing but white space follows in this line. */
static bool is_white_to_the_end(const uint8_t *bytes, size_t count, size_t at)
{
    while (at < count && memchr(" \t\r\v\f", bytes[at], 5))
        at++;
    return at == count || bytes[at] == '\n';
}

/* Reads the piece byte by byte, and keeps what the line came to so far. */
static bool model(const uint8_t *bytes, size_t count)
{
    static const char word[] = "quit";
    size_t matched = 0; /* bytes of the word; 5: it is over; 6: another one */

    for (size_t i = 0; i < count; i++) {
        bool white = memchr(" \t\r\v\f", bytes[i], 5) != NULL;

        if (bytes[i] == '\n' && matched >= 4 && matched < 6)
            return true;
        if (bytes[i] == '\n')
            matched = 0;
        else if (matched < 4 && bytes[i] == (uint8_t)word[matched])
            matched++;
        else if (matched == 4 &&
                 (bytes[i] == ' ' || is_white_to_the_end(bytes, count, i)))
            matched = 5;
        else if (matched < 5 && (!white || matched > 0))
            matched = 6;
    }
    return matched == 4 || matched == 5;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    listen_again();
    if (data[0] == 'o') {
        try_options(data + 1, size - 1);
    } else {
        /* No spare byte, so that reading past the end is noticed. */
        char *bytes = malloc(size - 1);

        if (bytes == NULL)
            abort();
        memcpy(bytes, data + 1, size - 1);
        if (has_quit(bytes, size - 1) != model(data + 1, size - 1))
            wrong("quit was seen or not");
        free(bytes);
    }
    return 0;
}
