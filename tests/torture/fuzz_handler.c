/*
 * fuzz_handler.c - any bytes, cut in any way, against the handler; a libFuzzer
 * target (https://llvm.org/docs/LibFuzzer.html).
 *
 * The oracle is model(): the protocol read off design's table, with the whole
 * input in hand at once, so that it knows nothing of segments, buffers or
 * states. What the handler sends must be the same, to the byte, however the
 * input was cut and however few bytes each send() took.
 *
 * An input is a text, so that the corpus can be written in an editor:
 *
 *     eAZ        how the conversation ends, and how it is cut
 *     ping       from here on what the client sends, to the byte
 *     quit
 *
 * The first byte of the first line is one of ENDS below; each of the others is
 * the size of a segment, or of what one send() takes: see size_of(). They are
 * used round and round.
 *
 * The handler is the object that the server is made of. Its system calls are
 * caught by the linker (--wrap): no kernel, no waiting, and a clock of our own.
 * With -DREPLAY the program has a main() that runs the files that it is given:
 * for machines and compilers without libFuzzer.
 */
#include "handler.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define IDLE_SECONDS 7
#define TOO_LONG "Line too long, limit 4096 bytes\n"
#define TIMED_OUT "Timed out after 7 seconds\n"

/* End of file, reset, idle too long, the server's stop; the client hangs up
 * while we send; it does not read for a while, with a limit. */
#define ENDS "ertshn"

/* A growing piece of text: open_memstream(3). */
struct text {
    FILE *stream;
    char *bytes;
    size_t length; /* after fclose(3) */
};

static struct text sent, shown, expected;
static const char *input;
static size_t input_length;
static const uint8_t *sizes;
static size_t size_count;
static size_t next_size;
static size_t taken;       /* of the input, by recv() */
static size_t unsupported; /* how many the model saw */
static size_t room_left;   /* what the client still takes, if it stops */
static char end;
static bool was_shut_down;
static long long clock_ms;
static atomic_bool stopping;

static void open_text(struct text *text)
{
    text->stream = open_memstream(&text->bytes, &text->length);
    if (text->stream == NULL)
        abort();
}

static _Noreturn void wrong(const char *what)
{
    (void)fprintf(stderr, "\nwrong: %s (end %c, %zu bytes of input)\n", what,
                  end, input_length);
    (void)fprintf(stderr, "expected %zu bytes, came %zu, shown %zu\n",
                  expected.length, sent.length, shown.length);
    abort();
}

/* ---- The model ---------------------------------------------------------- */

static void model_word(const char *word, size_t length)
{
    for (size_t i = 0; i < length && i < 64; i++) {
        int value = (unsigned char)word[i];

        (void)fprintf(expected.stream,
                      value >= 33 && value <= 126 ? "%c" : "\\x%02x", value);
    }
    if (length > 64)
        (void)fputs("...", expected.stream);
}

/* One line, its end not included. False after quit. */
static bool model_line(const char *line, size_t length)
{
    static const char white[] = " \t\r\v\f";
    size_t word = 0;

    if (length > 4095) {
        (void)fputs(TOO_LONG, expected.stream);
        return true;
    }
    while (length > 0 && memchr(white, line[length - 1], 5))
        length--;
    while (length > 0 && memchr(white, *line, 5)) {
        line++;
        length--;
    }
    while (word < length && line[word] != ' ')
        word++;
    if (length == 0)
        return true;
    if (word == 4 && strncmp(line, "quit", 4) == 0)
        return false;
    if (word == 4 && strncmp(line, "ping", 4) == 0) {
        (void)fputs("pong", expected.stream);
    } else if (word == 4 && strncmp(line, "echo", 4) == 0) {
        if (length > 5)
            (void)fwrite(line + 5, 1, length - 5, expected.stream);
    } else {
        (void)fputs("Unsupported command: ", expected.stream);
        model_word(line, word);
        unsupported++;
    }
    (void)fputs("\n", expected.stream);
    return true;
}

/* What the client is owed for all of the input. */
static void model(void)
{
    const char *line = input;
    size_t left = input_length;
    const char *newline;

    unsupported = 0;
    while (left > 0 && (newline = memchr(line, '\n', left)) != NULL) {
        size_t length = (size_t)(newline - line);

        if (!model_line(line, length))
            return;
        line += length + 1;
        left -= length + 1;
    }
    /* Only end of file makes a request of an unfinished line; but one that is
     * too long already is told so. */
    if (left > 0 && (end == 'e' || end == 'h' || end == 'n' || left > 4095))
        if (!model_line(line, left))
            return;
    if (end == 't')
        (void)fputs(TIMED_OUT, expected.stream);
}

/* ---- The kernel, as the handler sees it --------------------------------- */

/* 1 to 16, doubled up to seven times: 'A' is 2 << 4. Bytes over 127 interrupt
 * first. */
static uint8_t next_byte(void)
{
    return size_count ? sizes[next_size++ % size_count] : 0x7f;
}

static size_t size_of(uint8_t byte)
{
    return ((byte & 15u) + 1u) << (byte >> 4 & 7);
}

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

ssize_t __wrap_recv(int socket, void *buffer, size_t size, int flags);
ssize_t __wrap_send(int socket, const void *bytes, size_t count, int flags);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_shutdown(int socket, int how);
int __wrap_setsockopt(int socket, int level, int option, const void *value,
                      socklen_t length);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);

ssize_t __wrap_recv(int socket, void *buffer, size_t size, int flags)
{
    uint8_t byte = next_byte();
    size_t count = least(least(size_of(byte), size), input_length - taken);

    (void)socket;
    (void)flags;
    if (size == 0)
        wrong("recv() without room");
    if (byte > 127 && (next_size & 1)) {
        /* The stop's signal may come while there is more to read: recv() on a
         * Unix domain socket looks at signals first when it wakes up. */
        if (end == 's')
            atomic_store(&stopping, true);
        errno = EINTR;
        return -1;
    }
    if (count > 0) {
        memcpy(buffer, input + taken, count);
        taken += count;
        return (ssize_t)count;
    }
    if (was_shut_down || end == 'e' || end == 'h' || end == 'n')
        return 0;
    if (end == 's')
        atomic_store(&stopping, true);
    errno = end == 's' ? EINTR : end == 't' ? EAGAIN : ECONNRESET;
    return -1;
}

ssize_t __wrap_send(int socket, const void *bytes, size_t count, int flags)
{
    uint8_t byte = next_byte();
    size_t part = least(size_of(byte), count);

    (void)socket;
    (void)flags;
    if (was_shut_down)
        wrong("send() after shutdown()");
    if (end != 's')
        clock_ms++;
    if (byte > 127 && (next_size & 1)) {
        errno = EINTR;
        return -1;
    }
    if (end == 'h' || end == 'n') {
        part = least(part, room_left);
        room_left -= part;
        if (part == 0) {
            clock_ms += 250;
            errno = end == 'h' ? EPIPE : EAGAIN;
            room_left = end == 'n' ? input_length : 0; /* it reads at last */
            return -1;
        }
    }
    (void)fwrite(bytes, 1, part, sent.stream);
    return (ssize_t)part;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    (void)timeout;
    if (!was_shut_down && taken == input_length)
        return 0;
    for (nfds_t i = 0; i < count; i++)
        fds[i].revents = fds[i].events;
    return (int)count;
}

int __wrap_shutdown(int socket, int how)
{
    (void)socket;
    if (how != SHUT_WR || was_shut_down)
        wrong("shutdown()");
    was_shut_down = true;
    return 0;
}

int __wrap_setsockopt(int socket, int level, int option, const void *value,
                      socklen_t length)
{
    (void)socket;
    (void)level;
    (void)option;
    (void)value;
    (void)length;
    return 0;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
    (void)id;
    now->tv_sec = (time_t)(clock_ms / 1000);
    now->tv_nsec = (long)(clock_ms % 1000) * 1000000;
    return 0;
}

/* ---- The comparison ----------------------------------------------------- */

/* The screen: whole lines, printable, each in the words of the contract, the
 * first hundred, and a count of the others. */
static void check_screen(void)
{
    static const char line_start[] = "Unsupported command: ";
    static const char note_start[] = "Unsupported commands not shown: ";
    size_t lines = 0;
    size_t note = 0;
    const char *line = shown.bytes;
    const char *last = shown.bytes + shown.length;

    while (line < last) {
        const char *newline = memchr(line, '\n', (size_t)(last - line));

        if (newline == NULL)
            wrong("an unfinished line on the screen");
        if (strncmp(line, line_start, sizeof line_start - 1) == 0) {
            lines++;
        } else if (strncmp(line, note_start, sizeof note_start - 1) == 0) {
            note = strtoul(line + sizeof note_start - 1, NULL, 10);
        } else {
            wrong("a strange line on the screen");
        }
        for (; line < newline; line++)
            if (*line < ' ' || *line > '~')
                wrong("an unprintable byte on the screen");
        line++;
    }
    if (lines > 100 || (note > 0 && lines < 100))
        wrong("the number of lines on the screen");
    if (end != 'h' && end != 'n' && lines + note != unsupported)
        wrong("the count of unsupported commands");
}

/* What was owed is what was sent; to a client that does not take it, the
 * beginning of that. */
static void check_replies(void)
{
    bool all = end != 'h' && end != 'n';

    if (all ? sent.length != expected.length : sent.length > expected.length)
        wrong("the length of the replies");
    if (sent.length > 0 && memcmp(sent.bytes, expected.bytes, sent.length) != 0)
        wrong("the replies");
    if ((end == 't' || end == 's') && !was_shut_down)
        wrong("an end without shutdown()");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    struct terms terms = {.stopping = &stopping};

    if (newline == NULL || newline == data)
        return 0;
    end = strchr(ENDS, data[0]) && data[0] ? (char)data[0]
                                           : ENDS[data[0] % strlen(ENDS)];
    sizes = data + 1;
    size_count = (size_t)(newline - sizes);
    next_size = 0;
    input = (const char *)newline + 1;
    input_length = size - (size_t)(newline + 1 - data);
    taken = 0;
    room_left = input_length / 2;
    was_shut_down = false;
    atomic_store(&stopping, false);
    open_text(&sent);
    open_text(&shown);
    open_text(&expected);
    model();

    terms.screen = shown.stream;
    terms.idle_seconds = end == 't' || end == 'n' ? IDLE_SECONDS : 0;
    converse(3, &terms);
    (void)fclose(sent.stream);
    (void)fclose(shown.stream);
    (void)fclose(expected.stream);
    check_replies();
    check_screen();
    free(sent.bytes);
    free(shown.bytes);
    free(expected.bytes);
    return 0;
}

#ifdef REPLAY
int main(int argc, char **argv)
{
    static uint8_t input_file[1 << 16];

    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");

        if (file == NULL) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        (void)LLVMFuzzerTestOneInput(
            input_file, fread(input_file, 1, sizeof input_file, file));
        (void)fclose(file);
    }
    (void)printf("%d files: the handler and the model agree\n", argc - 1);
    return argc > 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
