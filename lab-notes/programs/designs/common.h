/* common.h - what all designs have in common: how they start, and stop. */
#ifndef COMMON_H
#define COMMON_H

#include "handler.h"

#include <stdatomic.h>

extern atomic_bool stopping; /* SIGINT or SIGTERM has come */
extern struct terms terms;   /* for converse() */

/* Returns a listening socket at the port that the command line names (1208), or
 * ends the program. From here on SIGINT and SIGTERM set `stopping`. They make a
 * call that waits fail with EINTR, and do so again each second, since a signal
 * that comes just before the call wakes nobody. */
int start(int argc, char **argv);

/* For a design that waits in accept(): it has failed. Out of descriptors it
 * would fail again at once, so say why, and rest for a tenth of a second. */
void accept_failed(void);

#endif
