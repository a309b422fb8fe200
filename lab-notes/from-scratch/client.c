/* client.c - a client in thirty lines: asks twice, and shows the replies. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in server = {.sin_family = AF_INET};
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    const char request[] = "ping\n";
    char reply[100];

    server.sin_port = htons(1208);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        ssize_t count;

        if (write(connection, request, strlen(request)) < 0)
            break;
        count = read(connection, reply, sizeof reply);
        if (count > 0)
            fwrite(reply, 1, (size_t)count, stdout);
    }
    close(connection);
}
