/*
 * talk.h - one client's conversation in steps, for a program with one thread.
 *
 * converse() waits for its client. Here nobody may wait: the sockets do not
 * block, and what a call could not do now is kept in a `struct talk` until
 * poll() says that the socket is ready. So what stands on a thread's stack in
 * the other designs (who, how far, what is left) stands in this struct.
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
    size_t place; /* in talks[] */
    int socket;
    enum state state;
    bool skipping;        /* inside a line that was too long */
    int shown;            /* unsupported commands, on the screen */
    long long deadline;   /* of LEAVING, in milliseconds; 0: none */
    size_t input_length;  /* bytes at the beginning of the buffer */
    char *output;         /* replies that were not sent yet, behind them */
    size_t output_length; /* bytes of them */
    char buffer[LINE_LIMIT + REPLIES_LIMIT];
};

extern struct talk **talks; /* all conversations */
extern size_t talking;      /* how many there are */
extern size_t leaving;      /* of these, in state LEAVING */

/* Accepts a client, and begins its conversation. Returns NULL and sets errno if
 * there is none. */
struct talk *begin_talk(int listening);

/* Does what can be done without waiting: sends what is left to send, or else
 * receives once, and answers. Returns false when the conversation is over. */
bool take_step(struct talk *talk);

/* What the next step has to wait for: POLLIN or POLLOUT. While replies wait we
 * do not read: a client that does not read can't make us keep more and more. */
short wanted(const struct talk *talk);

/* True if the client was given its time to hang up, and did not. */
bool is_late(const struct talk *talk);

/* Closes the socket. The last conversation moves to this one's place. */
void end_talk(struct talk *talk);

/* The stop: answers what has arrived, and ends all conversations. */
void end_all(void);

#endif
