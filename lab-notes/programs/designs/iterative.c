/* iterative.c - one client at a time. The others wait in the backlog. */
#include "common.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int listening = start(argc, argv);

    while (!stopping) {
        int client = accept(listening, NULL, NULL);

        if (client < 0) {
            accept_failed();
            continue;
        }
        converse(client, &terms); /* nobody is accepted until it is over */
        close(client);
    }
    return EXIT_SUCCESS;
}
