/*
 * talk.h - one client's conversation in steps, for a program with one thread.
 *
 * converse() waits for its client. Here nobody may wait: the sockets do not
 * block, and what a call could not do now is kept until poll() says that the
 * socket is ready. So what stands on a thread's stack in the other designs
 * (how far, what is left) stands in a `struct talk` here.
 */
#ifndef TALK_H
#define TALK_H

#include "common.h"

#include <stdbool.h>

/* Replies are at most 13 times as long as their requests: "\1\n" is answered
 * with "Unsupported command: \x01\n". So the replies to a full input buffer
 * always fit. Pages that nothing was ever written to cost no memory. */
#define REPLIES_LIMIT (13 * LINE_LIMIT + REPLY_LIMIT)

enum state {
    OPEN,
    END_OF_FILE, /* the client sends no more: the last replies are to go out */
    QUIT,        /* the same, after `quit`, or when the server stops */
    LEAVING,     /* we have sent FIN, and wait for the client's */
    OVER
};

struct talk {
    int socket;
    enum state state;
    bool skipping;        /* inside a line that was too long */
    int shown;            /* unsupported commands, on the screen */
    int seconds;          /* that it has been LEAVING */
    size_t input_length;  /* bytes at the beginning of the buffer */
    char *output;         /* replies that were not sent yet, behind them */
    size_t output_length; /* bytes of them */
    char buffer[LINE_LIMIT + REPLIES_LIMIT];
};

/* Does what can be done without waiting: sends what is left to send, or else
 * receives once, and answers. Returns what the next step has to wait for:
 * POLLIN, or POLLOUT while replies wait. (We do not read then, so a client that
 * does not read can't make us keep more and more.) Returns 0 when the
 * conversation is over. */
short take_step(struct talk *talk);

/* ---- clients.c ---------------------------------------------------------- */

/* A client is known by the number of its socket. The kernel gives the lowest
 * number that is free, so this is also how many clients there can be. */
#define SOCKETS 20000

extern int leaving; /* how many clients are LEAVING */

/* Accepts a client, and returns its socket. Returns -1 and sets errno if nobody
 * waits, or there is no place. */
int accept_client(int listening);

/* Takes the next step with this client, and returns what take_step() returns.
 * When that is 0, the socket is closed. */
short serve_client(int socket);

/* Closes the socket, whatever is left to say. */
void end_client(int socket);

/* To be called at least once a second while somebody is LEAVING: closes the
 * sockets of those who have not hung up after two or three seconds. */
void end_late_ones(void);

/* The stop: answers what has arrived, and ends all conversations. */
void end_all(void);

#endif
