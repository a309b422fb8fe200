/*
 * fuzz_client.c - the client's input side and its options; a libFuzzer target,
 * like fuzz_handler.c, which explains more.
 *
 * The first byte of an input says what the rest is: 'f', what is typed, cut
 * wherever there is a byte 0xff, and follow() must see a `quit` where a look
 * at the whole text sees one; 'o', a command line, one word on each line.
 */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What the program says, on either stream, and where it exits to. */
static FILE *said;
static char *spoken;
static size_t spoken_length;
static jmp_buf exits;
static int exit_status;

static _Noreturn void leave(int status)
{
    exit_status = status;
    longjmp(exits, 1);
}

/* The program itself, with its streams and its exit in our hands. */
int client_main(int argc, char **argv);
#define main client_main
#define exit leave
#define printf(...) fprintf(said, __VA_ARGS__)
#pragma push_macro("stderr")
#undef stderr
#define stderr said
#include "../client.c"
#undef main
#undef exit
#undef printf
#pragma pop_macro("stderr")

static char program_name[] = "client";
static const char complaint[] = "client: ";

static void check_result(const struct options *options);

static _Noreturn void wrong(const char *what)
{
    (void)fflush(said);
    (void)fprintf(stderr, "\nwrong: %s; said: %.400s\n", what, spoken);
    abort();
}

static void listen_again(void)
{
    if (said == NULL &&
        (said = open_memstream(&spoken, &spoken_length)) == NULL)
        abort();
    if (fseek(said, 0, SEEK_SET) != 0)
        abort();
}

/* A copy without a spare byte, so that reading past its end is noticed. */
static char *exact_copy(const uint8_t *bytes, size_t length)
{
    char *copy = malloc(length > 0 ? length : 1);

    if (copy == NULL)
        abort();
    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

/* ---- Options: each line is a word of the command line -----------------------
 */

#define MOST_WORDS 16

/* Ends like getopt's callers do: by returning, or with status 0 or 2. */
static void try_options(const uint8_t *data, size_t size)
{
    char *argv[MOST_WORDS + 2] = {program_name};
    volatile int argc = 1;

    while (size > 0 && argc <= MOST_WORDS) {
        const uint8_t *newline = memchr(data, '\n', size);
        size_t length = newline ? (size_t)(newline - data) : size;

        /* No byte more than the string: a read past its end is seen. */
        argv[argc] = strndup((const char *)data, length);
        if (argv[argc++] == NULL)
            abort();
        data += newline ? length + 1 : length;
        size -= newline ? length + 1 : length;
    }
    optind = 0; /* begins anew, with glibc and musl */
    exit_status = -1;
    if (setjmp(exits) == 0) {
        struct options options = read_options(argc, argv);

        check_result(&options);
    } else {
        (void)fflush(said);
        if (exit_status != 2 && exit_status != 0)
            wrong("the exit status");
        if (strstr(spoken, "usage: ./") == NULL)
            wrong("no usage");
        if (exit_status == 2 &&
            strncmp(spoken, complaint, strlen(complaint)) != 0)
            wrong("no reason");
    }
    while (argc > 1)
        free(argv[--argc]);
}

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
