/* step-1.c - it listens: clients can connect, and are hung up on. */
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
    struct sockaddr_in address = {.sin_family = AF_INET}; /* 0.0.0.0: any */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1; /* SO_REUSEADDR: a second start within a minute works */

    if (port < 1 || port > 65535 || *end != '\0') {
        fprintf(stderr, "Usage: %s [PORT]\n", argv[0]);
        return 2;
    }
    address.sin_port = htons((uint16_t)port);
    if (listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, SOMAXCONN) < 0) {
        perror("Fail to start server");
        return 1;
    }
    printf("Server Started ...\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);

        if (client < 0)
            perror("Fail to connect");
        else
            close(client);
    }
}
