/*
 * handler.h - one client's conversation, on any connected stream socket.
 *
 * Nothing here knows how the socket came to be, which thread runs the
 * conversation, or who is at the other end. That is why the tests can check the
 * whole protocol over a socketpair(2), with no network at all.
 *
 * The way of a byte: socket -> input buffer -> one line -> parse() ->
 * compose() -> output buffer -> one send() for everything that one recv() made
 * possible. (A flood of unknown commands, whose replies are longer than they
 * are, takes more.)
 */
#ifndef HANDLER_H
#define HANDLER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

/* The longest request in bytes, its '\n' included. It is the size of the input
 * buffer too: a line that fills the buffer without an end is too long. */
#define LINE_LIMIT 4096

/* How many bytes of an unknown command are shown before it is cut with "...".
 * Each may need four to be printed safely (\xNN). */
#define WORD_LIMIT 64

/* No reply is longer than this, in bytes, its '\n' included. */
#define REPLY_LIMIT LINE_LIMIT

enum command {
    NO_COMMAND,
    PING_COMMAND,
    ECHO_COMMAND,
    QUIT_COMMAND,
    UNSUPPORTED_COMMAND
};

/* What one line asks for. `text` is what follows the command's word, or, for
 * UNSUPPORTED_COMMAND, the word itself. It points into the line that was parsed
 * and lives as long as that does. It is not a C string, since a NUL is a byte
 * like any other. */
struct request {
    enum command command;
    const char *text;
    size_t length; /* bytes in text */
};

/* Reads one request from `length` bytes at `line`, without the '\n' that ended
 * them. White space (space, \t \r \v \f) at both ends is dropped; the command
 * is the first word, up to a space. Any bytes at all are a valid line, so there
 * is no error. */
struct request parse(const char *line, size_t length);

/* Writes the reply that a client on a stream is owed for `request`, and returns
 * its length in bytes: 0 where nothing is owed. `reply` needs room for
 * REPLY_LIMIT bytes. The reply to an unsupported command is safe to print on a
 * terminal: escape sequences and line ends are made harmless. */
size_t compose(struct request request, char *reply);

/* The limits of a conversation. The caller owns it, and keeps it alive and
 * unchanged (`*stopping` apart) until converse() has returned. */
struct terms {
    FILE *screen;          /* shows unsupported commands; NULL: nobody looks */
    unsigned idle_seconds; /* end a conversation silent this long; 0: never */
    const atomic_bool *stopping; /* true once the server stops; NULL: never */
};

/* Holds the conversation with the client at the other end of `socket`, a
 * connected blocking stream socket, and returns when it is over: at end of
 * file, after `quit`, when the client was idle too long, when the server stops,
 * or when the connection broke. All that the client was owed has been handed to
 * the kernel then, unless it did not read or is gone.
 *
 * The socket stays open: it is the caller's to close(2). SIGPIPE must be
 * ignored in the process: a client that hung up is EPIPE here, not the end of
 * the program.
 *
 * To stop: set *stopping, then interrupt the thread with a signal whose handler
 * was installed without SA_RESTART, and again, since a signal that comes just
 * before recv() is entered wakes nobody, until converse() returns. Every
 * request that has arrived is answered first, for at most 1.5 seconds; then
 * converse() returns after at most another second of waiting for the client to
 * hang up. */
void converse(int socket, const struct terms *terms);

/* Turns a client away: sends `words` (one line, a C string) and ends the
 * connection in order, but waits for nobody. The caller closes `socket`, which
 * is non-blocking from here on. */
void refuse(int socket, const char *words);

#endif
