/* crash.c - a fault, planted on purpose: a client that sends `crash` makes the
 * program write where no memory is. The other files are compiled with
 * -Drecv=recv_or_crash. */
#undef recv
#include <string.h>
#include <sys/socket.h>

static char *volatile nowhere; /* NULL */

ssize_t recv_or_crash(int socket, void *bytes, size_t length, int flags);

ssize_t recv_or_crash(int socket, void *bytes, size_t length, int flags)
{
    ssize_t count = recv(socket, bytes, length, flags);

    if (count >= 5 && memcmp(bytes, "crash", 5) == 0)
        *nowhere = 'x';
    return count;
}
