/* start.c - the skeleton: copy it, and put calls where the comments are. */
#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char *end;
    long port = strtol(argc > 1 ? argv[1] : "1208", &end, 10);

    if (port < 1 || port > 65535 || *end != '\0') {
        fprintf(stderr, "Usage: %s [PORT]\n", argv[0]);
        return 2;
    }
    /* 1. A socket: socket(2). Its option SO_REUSEADDR: setsockopt(2). */
    /* 2. Its address, this port on any address of this host: bind(2), ip(7). */
    /* 3. From now on clients can connect: listen(2). */
    printf("Server Started ...\n");
    /* 4. For ever: wait for a client, accept(2), and hang up, close(2). */
}
