/*
 * fuzz_program.h - a whole program below a fuzz target: what it prints is kept,
 * where it would exit it comes back, and any words can be its options.
 *
 * Before it is included, PROGRAM_NAME and PROGRAM_SOURCE say which program.
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

static _Noreturn void come_back(int status)
{
    exit_status = status;
    longjmp(exits, 1);
}

/* The program itself, with its streams and its exit in our hands. */
int program_main(int argc, char **argv);
#define main program_main
#define exit come_back
#define printf(...) fprintf(said, __VA_ARGS__)
#pragma push_macro("stderr")
#undef stderr
#define stderr said
#include PROGRAM_SOURCE
#undef main
#undef exit
#undef printf
#pragma pop_macro("stderr")

static char program_name[] = PROGRAM_NAME;
static const char complaint[] = PROGRAM_NAME ": ";

/* The includer's: the options as they are at the start of the program, and what
 * must be true of any that it takes. */
static void reset_options(void);
static void check_options(void);

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

/* ---- Options: each line is a word of the command line -----------------------
 */

#define MOST_WORDS 16

/* Ends like read_options(): by returning, or with status 0 or 2. */
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
    reset_options();
    exit_status = -1;
    if (setjmp(exits) == 0) {
        read_options(argc, argv);
        check_options();
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
