/*
 * fuzz_client.c - the client's input side and its options; a libFuzzer target,
 * like fuzz_handler.c, which explains more.
 *
 * The first byte of an input says what the rest is: 'f', what is typed, cut
 * wherever there is a byte 0xff, and follow() must see a `quit` where a look
 * at the whole text sees one; 'o', a command line, one word on each line.
 */
#define PROGRAM_NAME "client"
#define PROGRAM_SOURCE "../../client.c"
#include "fuzz_program.h"

static void check_result(const struct options *options)
{
    if (options->seconds > 1000000)
        wrong("seconds");
    if (options->path != NULL && *options->path == '\0')
        wrong("an empty path");
    if (options->host == NULL || options->port == NULL)
        wrong("no host");
}

/* ---- Following what is typed ------------------------------------------------
 */

/* The whole text at once: is there a line whose first word is quit? */
static bool model(const char *text, size_t length, size_t *last)
{
    bool quit = false;

    *last = 0;
    for (size_t start = 0, i = 0; i < length; i++) {
        size_t from = start;

        if (text[i] != '\n')
            continue;
        while (from < i && memchr(" \t\r\v\f", text[from], 5))
            from++;
        if (i - start < 4096 && i - from >= 4 &&
            memcmp(text + from, "quit", 4) == 0) {
            size_t word = from + 4;

            /* Nothing behind it, a space, or white space to the end. */
            if (word == i || text[word] == ' ')
                quit = true;
            while (word < i && memchr(" \t\r\v\f", text[word], 5))
                word++;
            if (word == i)
                quit = true;
        }
        start = i + 1;
        *last = start;
    }
    return quit;
}

static void try_follow(const uint8_t *data, size_t size)
{
    struct follower *follower = calloc(1, sizeof *follower);
    char *whole = malloc(size + 1);
    size_t length = 0;
    size_t last;
    bool quit = false;

    if (follower == NULL || whole == NULL)
        abort();
    while (size > 0) {
        const uint8_t *cut = memchr(data, 0xff, size);
        size_t part = cut ? (size_t)(cut - data) : size;
        char *bytes = exact_copy(data, part);

        if (follow(follower, bytes, part))
            quit = true;
        memcpy(whole + length, bytes, part);
        free(bytes);
        length += part;
        data += cut ? part + 1 : part;
        size -= cut ? part + 1 : part;
    }
    if (quit != model(whole, length, &last))
        wrong("quit was seen or not");
    if (follower->too_long ? length - last < 4096
                           : follower->length != length - last)
        wrong("the unfinished line");
    free(whole);
    free(follower);
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
        try_follow(data + 1, size - 1);
    return 0;
}
