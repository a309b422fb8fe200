/*
 * test_datagrams.c - `-u`: what the server and the client do without
 * connections, over UDP and over Unix domain sockets.
 *
 * That something is *not* answered is shown without waiting: datagrams on one
 * host arrive in order, so a ping is sent behind it, and the first thing that
 * comes back must be its pong.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Sockets ------------------------------------------------------------ */

static int datagram_socket(int family)
{
    int made = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    CU_ASSERT_FATAL(made >= 0);
    return made;
}

/* A UDP socket connected to a numeric address: it receives from there only. */
static int udp_to(const char *address, int port)
{
    struct sockaddr_in four = {.sin_family = AF_INET,
                               .sin_port = htons((in_port_t)port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                               .sin6_port = htons((in_port_t)port)};
    bool is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
    int made = datagram_socket(is_four ? AF_INET : AF_INET6);

    (void)inet_pton(AF_INET6, address, &six.sin6_addr);
    CU_ASSERT_FATAL(
        connect(made, is_four ? (void *)&four : (void *)&six,
                is_four ? (socklen_t)sizeof four : (socklen_t)sizeof six) == 0);
    return made;
}

static int local_port(int socket)
{
    struct sockaddr_in6 own = {0}; /* the port stands where IPv4 has it */
    socklen_t length = sizeof own;

    (void)getsockname(socket, (struct sockaddr *)&own, &length);
    return ntohs(own.sin6_port);
}

/* An address of any bytes: "\0name" is not in the file system. */
static socklen_t path_address(struct sockaddr_un *address, const char *path,
                              size_t length)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static int unix_bound(const char *path, size_t length)
{
    struct {
        struct sockaddr_un address;
        char nul; /* valgrind reads a path to its NUL, and it may have none */
    } own = {.nul = '\0'};
    socklen_t size = path_address(&own.address, path, length);
    int made = datagram_socket(AF_UNIX);

    CU_ASSERT_FATAL(bind(made, (struct sockaddr *)&own, size) == 0);
    return made;
}

static void unix_connect(int socket, const char *path)
{
    struct sockaddr_un server;
    socklen_t size = path_address(&server, path, strlen(path) + 1);

    CU_ASSERT_FATAL(connect(socket, (struct sockaddr *)&server, size) == 0);
}

/* A bound and connected client of the server at `path`. */
static int unix_to(const char *own, const char *path)
{
    int made = unix_bound(own, strlen(own));

    unix_connect(made, path);
    return made;
}

static void send_datagram(int socket, const void *bytes, size_t length)
{
    CU_ASSERT(send(socket, bytes, length, 0) == (ssize_t)length);
}

static void say(int socket, const char *text)
{
    send_datagram(socket, text, strlen(text));
}

/* The next datagram; its length, or -1 after PATIENCE_MS or an error. */
static ssize_t next_datagram(int socket, char *bytes, size_t size)
{
    struct pollfd input = {.fd = socket, .events = POLLIN};

    return poll(&input, 1, PATIENCE_MS) == 1 ? recv(socket, bytes, size, 0)
                                             : -1;
}

static bool comes(int socket, const char *text)
{
    char bytes[70000];
    ssize_t count = next_datagram(socket, bytes, sizeof bytes);

    return count == (ssize_t)strlen(text) &&
           memcmp(bytes, text, (size_t)count) == 0;
}

/* True if the datagram is answered with exactly that. */
static bool answered(int socket, const char *request, const char *reply)
{
    say(socket, request);
    return comes(socket, reply);
}

/* True if nothing was sent here before the reply to a ping that goes now. */
static bool only_pong(int socket)
{
    return answered(socket, "ping", "pong\n");
}

/* ---- What the server says ----------------------------------------------- */

static bool logs(struct program *server, const char *sender, const char *words)
{
    char line[512];

    (void)snprintf(line, sizeof line, "Datagram from %s: %s", sender, words);
    return next_line_is(server->output, line);
}

static const char *name_of(int socket)
{
    static char name[32];

    (void)snprintf(name, sizeof name, "127.0.0.1:%d", local_port(socket));
    return name;
}

static void read_rest(int descriptor, char *text, size_t size)
{
    size_t length = 0;
    ssize_t count;
    struct pollfd input = {.fd = descriptor, .events = POLLIN};

    while (length + 1 < size && poll(&input, 1, PATIENCE_MS) == 1 &&
           (count = read(descriptor, text + length, size - length - 1)) > 0)
        length += (size_t)count;
    text[length] = '\0';
}

/* Stops the server in order, and holds what it still had to say to the letter.
 */
static void stops_with(struct program *server, const char *output,
                       const char *errors)
{
    char text[1 << 17];

    (void)kill(server->pid, SIGTERM);
    read_rest(server->output, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, output);
    if (strcmp(text, output) != 0)
        (void)fprintf(stderr, "\n  it said:\n%s", text);
    read_rest(server->errors, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, errors);
    CU_ASSERT(wait_for_end(server) == 0);
}

/* Stops the process where it stands, until SIGCONT. */
static void freeze(struct program *program)
{
    int status = 0;

    (void)kill(program->pid, SIGSTOP);
    CU_ASSERT_FATAL(waitpid(program->pid, &status, WUNTRACED) == program->pid);
    CU_ASSERT_FATAL(WIFSTOPPED(status));
}

static void thaw(struct program *program)
{
    (void)kill(program->pid, SIGCONT);
}

/* ---- Requests and the log ----------------------------------------------- */

static void requests_are_answered(void)
{
    struct program server;
    static const char with_nul[] = "echo a\0b\n";
    char reply[8];
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    CU_ASSERT(answered(peer, "ping\n", "pong\n"));
    CU_ASSERT(answered(peer, "ping", "pong\n"));
    CU_ASSERT(answered(peer, " \t ping  pong \r\n", "pong\n"));
    CU_ASSERT(answered(peer, "echo Hello,  socket\n", "Hello,  socket\n"));
    CU_ASSERT(answered(peer, "echo Hello", "Hello\n"));
    CU_ASSERT(answered(peer, "echo", "\n"));
    CU_ASSERT(answered(peer, "echo a\nb", "a\nb\n"));
    send_datagram(peer, with_nul, sizeof with_nul - 1);
    CU_ASSERT(next_datagram(peer, reply, sizeof reply) == 4);
    CU_ASSERT(memcmp(reply, "a\0b\n", 4) == 0);
    stops_with(&server, "Server Stopped.\n", "");
    (void)close(peer);
}

/* UDP keeps boundaries, so two lines in one datagram are one request. */
static void one_datagram_is_one_request(void)
{
    struct program server;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    say(peer, "ping\nping\n");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(
        logs(&server, name_of(peer), "Unsupported command: ping\\x0aping"));
    say(peer, "pi");
    say(peer, "ng\n");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, name_of(peer), "Unsupported command: pi"));
    CU_ASSERT(logs(&server, name_of(peer), "Unsupported command: ng"));
    stops_with(&server, "Server Stopped.\n", "");
    (void)close(peer);
}

static void others_are_logged_and_never_answered(void)
{
    struct program server;
    char line[128];
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    (void)snprintf(line, sizeof line, "Listening on *:%d/udp, pid %ld, fd 3",
                   server.port, (long)server.pid);
    CU_ASSERT_STRING_EQUAL(server.listening, line);
    peer = udp_to("127.0.0.1", server.port);
    say(peer, "foo bar\n");
    say(peer, "");
    say(peer, "\n");
    say(peer, " \r\n");
    say(peer, "quit\n");
    say(peer, "quit now");
    say(peer, "\033[2J\a");
    say(peer, "PING\n");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, name_of(peer), "Unsupported command: foo"));
    CU_ASSERT(logs(&server, name_of(peer), "empty"));
    CU_ASSERT(logs(&server, name_of(peer), "empty"));
    CU_ASSERT(logs(&server, name_of(peer), "empty"));
    CU_ASSERT(logs(&server, name_of(peer), "quit, but there is no connection"));
    CU_ASSERT(logs(&server, name_of(peer), "quit, but there is no connection"));
    CU_ASSERT(
        logs(&server, name_of(peer), "Unsupported command: \\x1b[2J\\x07"));
    CU_ASSERT(logs(&server, name_of(peer), "Unsupported command: PING"));
    stops_with(&server, "Server Stopped.\n", "");
    (void)close(peer);
}

static void quiet_logs_nothing(void)
{
    struct program server;
    char text[64];
    int peer;

    /* Its "Listening on" line is not to be had, so a path instead of a port. */
    const char *path = scratch("quiet");
    const char *own = scratch("peer");
    long long since = now_ms();

    CU_ASSERT_FATAL(
        start(&server, (const char *[]){"server", "-uq", "-U", path, NULL}));
    while (access(path, F_OK) != 0 && still_patient(since))
        ;
    peer = unix_to(own, path);
    say(peer, "foo\n");
    CU_ASSERT(only_pong(peer));
    (void)kill(server.pid, SIGTERM);
    read_rest(server.output, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "");
    CU_ASSERT(wait_for_end(&server) == 0);
    (void)close(peer);
}

static void oversized_datagrams_are_dropped_whole(void)
{
    static const char dropped[] = "longer than 4096 bytes, dropped";
    static char bytes[65507];
    static char reply[70000];
    struct program server;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "echo ", 5);

    send_datagram(peer, bytes, 4096); /* no '\n': 4091 bytes of text */
    CU_ASSERT(next_datagram(peer, reply, sizeof reply) == 4092);
    CU_ASSERT(memcmp(reply, bytes + 5, 4091) == 0 && reply[4091] == '\n');
    bytes[4095] = '\n';
    send_datagram(peer, bytes, 4096);
    CU_ASSERT(next_datagram(peer, reply, sizeof reply) == 4091);
    bytes[4095] = 'x';

    send_datagram(peer, bytes, 4097);
    send_datagram(peer, bytes, 65507); /* the most that UDP on IPv4 holds */
    memset(bytes, 'y', 4096);
    send_datagram(peer, bytes, 4096);
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, name_of(peer), dropped));
    CU_ASSERT(logs(&server, name_of(peer), dropped));
    CU_ASSERT(logs(&server, name_of(peer),
                   "Unsupported command: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
                   "yyyyyyyyyyyyyyyyyyyyyyyyyy..."));
    stops_with(&server, "Server Stopped.\n", "");
    (void)close(peer);
}

/* Sends `count` one-byte datagrams, few enough at a time for any receive
 * buffer. */
static void flood(int peer, int count)
{
    for (int i = 0; i < count; i++) {
        say(peer, "x");
        if (i % 100 == 99)
            CU_ASSERT_FATAL(only_pong(peer));
    }
    CU_ASSERT_FATAL(only_pong(peer));
}

/* A one-byte packet would make a line of fifty. The headers, 28 bytes, count as
 * arrived; 1024 bytes are an advance. */
static void the_log_grows_no_faster_than_the_input(void)
{
    enum {
        FLOOD = 1000
    };
    static char text[1 << 17];
    struct program server;
    unsigned long shown = 0;
    unsigned long unshown = 0;
    const char *last;
    size_t arrived = FLOOD * (1 + 28) + (FLOOD / 100 + 1) * (4 + 28);
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    flood(peer, FLOOD);
    (void)kill(server.pid, SIGTERM);
    read_rest(server.output, text, sizeof text);
    CU_ASSERT(wait_for_end(&server) == 0);

    last = strstr(text, "Datagrams not shown: ");
    CU_ASSERT_FATAL(last != NULL);
    CU_ASSERT((size_t)(last - text) <= 1024 + arrived);
    /* And it is not thrifty: the credit is used up to the last line. */
    CU_ASSERT((size_t)(last - text) > arrived);
    CU_ASSERT(sscanf(last, "Datagrams not shown: %lu\n", &unshown) == 1);
    for (const char *line = text; line < last; line = strchr(line, '\n') + 1)
        shown++;
    CU_ASSERT(shown + unshown == FLOOD);
    CU_ASSERT(strstr(last, "\nServer Stopped.\n") != NULL);
    (void)close(peer);
}

/* ---- Addresses ---------------------------------------------------------- */

static bool is_refused(const char *address, int port)
{
    int peer = udp_to(address, port);
    char byte;
    bool refused;

    say(peer, "ping");
    refused = next_datagram(peer, &byte, 1) < 0 && errno == ECONNREFUSED;
    (void)close(peer);
    return refused;
}

static bool is_served(const char *address, int port)
{
    int peer = udp_to(address, port);
    bool served = only_pong(peer);

    (void)close(peer);
    return served;
}

static void one_socket_serves_both_families(void)
{
    struct program server;
    char sender[64];
    int descriptors;
    int four;
    int six;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    descriptors = count_in_proc(server.pid, "fd");
    four = udp_to("127.0.0.1", server.port);
    six = udp_to("::1", server.port);
    say(four, "four\n");
    CU_ASSERT(only_pong(four));
    say(six, "six\n");
    CU_ASSERT(only_pong(six));
    CU_ASSERT(logs(&server, name_of(four), "Unsupported command: four"));
    (void)snprintf(sender, sizeof sender, "[::1]:%d", local_port(six));
    CU_ASSERT(logs(&server, sender, "Unsupported command: six"));
    /* One thread, and no descriptor for a client. */
    CU_ASSERT(count_in_proc(server.pid, "task") == 1);
    CU_ASSERT(count_in_proc(server.pid, "fd") == descriptors);
    CU_ASSERT(stop(&server) == 0);
    (void)close(four);
    (void)close(six);
}

static void one_family_or_one_address_alone(void)
{
    struct program server;
    char line[128];

    CU_ASSERT_FATAL(start_server(&server, "-4u", NULL));
    CU_ASSERT(is_served("127.0.0.1", server.port));
    CU_ASSERT(is_refused("::1", server.port));
    CU_ASSERT(stop(&server) == 0);

    CU_ASSERT_FATAL(start_server(&server, "-u6", NULL));
    CU_ASSERT(is_served("::1", server.port));
    CU_ASSERT(is_refused("127.0.0.1", server.port));
    CU_ASSERT(stop(&server) == 0);

    CU_ASSERT_FATAL(start_server(&server, "-u", "-b", "127.0.0.2", NULL));
    (void)snprintf(line, sizeof line,
                   "Listening on 127.0.0.2:%d/udp, pid %ld, fd 3", server.port,
                   (long)server.pid);
    CU_ASSERT_STRING_EQUAL(server.listening, line);
    CU_ASSERT(is_served("127.0.0.2", server.port));
    CU_ASSERT(is_refused("127.0.0.1", server.port));
    CU_ASSERT(stop(&server) == 0);

    CU_ASSERT_FATAL(start_server(&server, "-u", "-b", "::1", NULL));
    (void)snprintf(line, sizeof line,
                   "Listening on [::1]:%d/udp, pid %ld, fd 3", server.port,
                   (long)server.pid);
    CU_ASSERT_STRING_EQUAL(server.listening, line);
    CU_ASSERT(is_served("::1", server.port));
    CU_ASSERT(stop(&server) == 0);
}

static void fails_to_start(const char *const argv[], const char *reason,
                           int status)
{
    struct program server;

    CU_ASSERT_FATAL(start(&server, argv));
    CU_ASSERT(next_line_is(server.errors, reason));
    CU_ASSERT(wait_for_end(&server) == status);
}

/* Two that shared a port would each be deaf to half of the world. */
static void a_port_has_one_server(void)
{
    struct program server;
    char port[16];
    char line[128];

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    (void)snprintf(line, sizeof line,
                   "Fail to start server, bind *:%s: Address already in use",
                   port);
    fails_to_start((const char *[]){"server", "-u", "-p", port, NULL}, line, 1);
    (void)snprintf(
        line, sizeof line,
        "Fail to start server, bind 127.0.0.1:%s: Address already in use",
        port);
    fails_to_start(
        (const char *[]){"server", "-ub", "127.0.0.1", "-p", port, NULL}, line,
        1);
    CU_ASSERT(stop(&server) == 0);
}

static void options_for_clients_have_no_meaning(void)
{
    static const char line[] =
        "server: -u: datagrams have no clients to limit (-m, -w)";

    fails_to_start((const char *[]){"server", "-u", "-m", "3", NULL}, line, 2);
    fails_to_start((const char *[]){"server", "-u", "-w", "3", NULL}, line, 2);
}

/* ---- Forged senders ----------------------------------------------------- */

/* Only root may write a sender into an IP header. Says so, and in CI, where all
 * is to be run, fails. */
static int raw_socket(void)
{
    int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    const char *ci = getenv("CI");

    if (raw < 0) {
        (void)fprintf(stderr, "\n  SKIPPED, needs root: forged senders\n");
        if (ci != NULL && strcmp(ci, "true") == 0)
            CU_FAIL("needs root");
    }
    return raw;
}

/* A UDP packet on loopback that says it comes from `from`. */
static void forge(int raw, int from, int to, const char *text)
{
    unsigned char packet[20 + 8 + 512] = {0};
    struct sockaddr_in loopback = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t length = strlen(text);
    struct iphdr ip = {.version = 4,
                       .ihl = 5,
                       .ttl = 64,
                       .protocol = IPPROTO_UDP,
                       .saddr = loopback.sin_addr.s_addr,
                       .daddr = loopback.sin_addr.s_addr};
    struct udphdr udp = {.source = htons((in_port_t)from),
                         .dest = htons((in_port_t)to),
                         .len = htons((uint16_t)(8 + length))};

    /* Checksum 0: none (RFC 768). The kernel fills in those of IP. */
    memcpy(packet, &ip, 20);
    memcpy(packet + 20, &udp, 8);
    memcpy(packet + 28, text, length);
    CU_ASSERT(sendto(raw, packet, 28 + length, 0, (struct sockaddr *)&loopback,
                     sizeof loopback) == (ssize_t)(28 + length));
}

/* The storm that never comes: each gets a packet from the other. */
static void two_servers_cannot_be_set_on_each_other(void)
{
    struct program first;
    struct program second;
    char name[2][32];
    int raw = raw_socket();

    if (raw < 0)
        return;
    CU_ASSERT_FATAL(start_server(&first, "-u", NULL));
    CU_ASSERT_FATAL(start_server(&second, "-u", NULL));
    (void)snprintf(name[0], sizeof name[0], "127.0.0.1:%d", first.port);
    (void)snprintf(name[1], sizeof name[1], "127.0.0.1:%d", second.port);

    forge(raw, second.port, first.port, "foo\n");
    CU_ASSERT(logs(&first, name[1], "Unsupported command: foo"));
    forge(raw, second.port, first.port, "ping\n");
    CU_ASSERT(logs(&second, name[0], "Unsupported command: pong"));
    forge(raw, second.port, first.port, "echo\n");
    CU_ASSERT(logs(&second, name[0], "empty"));
    forge(raw, second.port, first.port, "echo quit\n");
    CU_ASSERT(logs(&second, name[0], "quit, but there is no connection"));

    /* What does go to and fro loses a word each time: it has an end. */
    forge(raw, first.port, second.port, "echo echo echo echo ping\n");
    CU_ASSERT(logs(&first, name[1], "Unsupported command: pong"));
    forge(raw, first.port, first.port, "echo echo ping\n");
    CU_ASSERT(logs(&first, name[0], "Unsupported command: pong"));

    /* Neither has more to say than what has been read. */
    CU_ASSERT(is_served("127.0.0.1", first.port));
    CU_ASSERT(is_served("127.0.0.1", second.port));
    stops_with(&first, "Server Stopped.\n", "");
    stops_with(&second, "Server Stopped.\n", "");
    (void)close(raw);
}

/* Nothing can be sent to port 0. Each reply is an error, and errors count
 * against the log's credit as any other line does. */
static void lost_replies_do_not_fill_the_log(void)
{
    enum {
        FORGED = 500
    };
    static char text[1 << 17];
    struct program server;
    size_t lines = 0;
    int peer;
    int raw = raw_socket();

    if (raw < 0)
        return;
    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    for (int i = 0; i < FORGED; i++) {
        forge(raw, 0, server.port, "ping");
        if (i % 100 == 99)
            CU_ASSERT(only_pong(peer));
    }
    (void)kill(server.pid, SIGTERM);
    read_rest(server.output, text, sizeof text);
    CU_ASSERT(strstr(text, "Datagrams not shown: ") == text);
    read_rest(server.errors, text, sizeof text);
    CU_ASSERT(wait_for_end(&server) == 0);
    CU_ASSERT(strlen(text) <= 1024 + (FORGED + 5) * (4 + 28));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        CU_ASSERT_STRING_EQUAL(line, "Fail to answer 127.0.0.1:0, sendto: "
                                     "Invalid argument");
        lines++;
    }
    CU_ASSERT(lines > 0);
    (void)close(peer);
    (void)close(raw);
}

/* The peer is gone when its reply comes: the ICMP message that says so
 * concerns nobody else. */
static void a_peer_that_is_gone_disturbs_nobody(void)
{
    struct program server;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    for (int i = 0; i < 5; i++) {
        int peer;

        freeze(&server);
        peer = udp_to("127.0.0.1", server.port);
        say(peer, "ping\n");
        (void)close(peer);
        thaw(&server);
        CU_ASSERT(is_served("127.0.0.1", server.port));
    }
    stops_with(&server, "Server Stopped.\n", "");
}

/* ---- Unix domain datagrams ---------------------------------------------- */

static void unix_peers_are_answered(void)
{
    struct program server;
    struct stat status;
    const char *path = scratch("server");
    const char *own = scratch("peer");
    char line[256];
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    (void)snprintf(line, sizeof line,
                   "Listening on %s (datagrams), pid %ld, fd 3", path,
                   (long)server.pid);
    CU_ASSERT_STRING_EQUAL(server.listening, line);
    CU_ASSERT(lstat(path, &status) == 0);
    CU_ASSERT(S_ISSOCK(status.st_mode) && (status.st_mode & 07777) == 0660);
    peer = unix_to(own, path);
    CU_ASSERT(answered(peer, "ping\n", "pong\n"));
    CU_ASSERT(answered(peer, "echo a  b", "a  b\n"));
    say(peer, "foo");
    say(peer, "");
    say(peer, "quit\n");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, own, "Unsupported command: foo"));
    CU_ASSERT(logs(&server, own, "empty"));
    CU_ASSERT(logs(&server, own, "quit, but there is no connection"));
    stops_with(&server, "Server Stopped.\n", "");
    CU_ASSERT(lstat(path, &status) < 0 && errno == ENOENT);
    (void)close(peer);
}

/* A peer without an address can't be answered, and is no reason to stop. */
static void unbound_unix_peers_get_no_reply(void)
{
    struct program server;
    const char *path = scratch("server");
    const char *own = scratch("peer");
    int unbound = datagram_socket(AF_UNIX);
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    unix_connect(unbound, path);
    peer = unix_to(own, path);
    say(unbound, "foo\n");
    say(unbound, "ping\n");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, "(unbound)", "Unsupported command: foo"));
    stops_with(&server, "Server Stopped.\n",
               "Fail to answer (unbound), sendto: "
               "Transport endpoint is not connected\n");
    (void)close(unbound);
    (void)close(peer);
}

/* A peer picks its own path, and so what the log says of it. */
static void hostile_unix_names_are_made_safe(void)
{
    struct program server;
    const char *path = scratch("server");
    const char *hostile = scratch("\033[2J\nDatagram\177\303\244");
    char abstract[64];
    char longest[sizeof((struct sockaddr_un *)NULL)->sun_path + 1];
    char name[128];
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));

    peer = unix_to(hostile, path);
    say(peer, "foo");
    CU_ASSERT(only_pong(peer));
    (void)snprintf(name, sizeof name, "%s", scratch("?[2J?Datagram???"));
    CU_ASSERT(logs(&server, name, "Unsupported command: foo"));
    (void)close(peer);

    (void)snprintf(abstract, sizeof abstract, "@datagrams@%ld", (long)getpid());
    (void)snprintf(name, sizeof name, "%s", abstract);
    abstract[0] = '\0';
    abstract[10] = '\0'; /* allowed there: the length counts */
    peer = unix_bound(abstract, strlen(name));
    unix_connect(peer, path);
    say(peer, "foo");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, name, "Unsupported command: foo"));
    (void)close(peer);

    /* To the last byte of sun_path, with no room for a NUL. */
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    (void)snprintf(name, sizeof name, "%s", scratch(""));
    memcpy(longest, name, strlen(name));
    peer = unix_bound(longest, strlen(longest));
    unix_connect(peer, path);
    say(peer, "foo");
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(logs(&server, longest, "Unsupported command: foo"));
    (void)close(peer);
    stops_with(&server, "Server Stopped.\n", "");
}

/* unix(7): how many datagrams the queue of a peer holds. */
static int longest_queue(void)
{
    FILE *file = fopen("/proc/sys/net/unix/max_dgram_qlen", "r");
    int most = 512;

    if (file != NULL) {
        CU_ASSERT(fscanf(file, "%d", &most) == 1);
        (void)fclose(file);
    }
    return most;
}

static void a_peer_that_never_reads_stops_nobody(void)
{
    struct program server;
    const char *path = scratch("server");
    const char *own = scratch("peer");
    const char *deaf_own = scratch("deaf");
    struct sockaddr_un address;
    socklen_t size = path_address(&address, path, strlen(path) + 1);
    char line[512];
    int deaf;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    peer = unix_to(own, path);
    deaf = unix_bound(deaf_own, strlen(deaf_own));
    for (int i = 0; i < longest_queue() + 10; i++)
        CU_ASSERT(sendto(deaf, "ping\n", 5, 0, (struct sockaddr *)&address,
                         size) == 5);
    CU_ASSERT(only_pong(peer));
    (void)snprintf(line, sizeof line,
                   "Fail to answer %s, sendto: "
                   "Resource temporarily unavailable",
                   deaf_own);
    CU_ASSERT(next_line_is(server.errors, line));
    (void)close(deaf);
    CU_ASSERT(stop(&server) == 0);
    (void)close(peer);
}

/* A peer that has connected has no such limit. What it does not read lies in
 * the server's own send buffer, and when that is full nobody is answered, until
 * the peer has left. The loop goes on meanwhile, and the log with it. */
static void a_connected_peer_that_never_reads_stops_no_loop(void)
{
    struct program server;
    const char *path = scratch("server");
    const char *own = scratch("peer");
    const char *deaf_own = scratch("deaf");
    struct pollfd errors = {.events = POLLIN};
    long long since = now_ms();
    int deaf;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    errors.fd = server.errors;
    peer = unix_to(own, path);
    deaf = unix_to(deaf_own, path);
    while (poll(&errors, 1, 0) == 0 && still_patient(since))
        (void)send(deaf, "ping\n", 5, MSG_DONTWAIT);
    CU_ASSERT(errors.revents == POLLIN);
    say(peer, "foo");
    CU_ASSERT(logs(&server, own, "Unsupported command: foo"));
    (void)close(deaf);
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(stop(&server) == 0);
    (void)close(peer);
}

static void the_socket_file_is_replaced_only_when_stale(void)
{
    struct program server;
    struct program stream;
    struct stat status;
    char line[256];
    const char *path = scratch("server");
    const char *own = scratch("peer");
    FILE *file;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    (void)snprintf(line, sizeof line,
                   "Fail to start server, bind %s: Address already in use",
                   path);
    fails_to_start((const char *[]){"server", "-uU", path, NULL}, line, 1);
    fails_to_start((const char *[]){"server", "-U", path, NULL}, line, 1);
    (void)kill(server.pid, SIGKILL);
    CU_ASSERT(wait_for_end(&server) == 128 + SIGKILL);
    CU_ASSERT(lstat(path, &status) == 0);
    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    peer = unix_to(own, path);
    CU_ASSERT(only_pong(peer));
    (void)close(peer);
    CU_ASSERT(stop(&server) == 0);

    CU_ASSERT_FATAL(start_server(&stream, "-U", path, NULL));
    fails_to_start((const char *[]){"server", "-uU", path, NULL}, line, 1);
    CU_ASSERT(stop(&stream) == 0);

    file = fopen(path, "w");
    CU_ASSERT_FATAL(file != NULL);
    (void)fclose(file);
    (void)snprintf(
        line, sizeof line,
        "Fail to start server, bind %s: File exists and is not a socket", path);
    fails_to_start((const char *[]){"server", "-uU", path, NULL}, line, 1);
    CU_ASSERT(lstat(path, &status) == 0 && S_ISREG(status.st_mode));
}

/* ---- The stop, and loss ------------------------------------------------- */

static void the_stop_is_orderly(void)
{
    const int signals[] = {SIGINT, SIGTERM};
    struct program server;

    for (int i = 0; i < 2; i++) {
        CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
        CU_ASSERT(is_served("127.0.0.1", server.port));
        (void)kill(server.pid, signals[i]);
        CU_ASSERT(next_line_is(server.output, "Server Stopped."));
        CU_ASSERT(wait_for_end(&server) == 0);
    }
}

/* More than 128 of them, since a stop that counts to SOMAXCONN would stop there
 * on some systems. */
static void what_had_arrived_is_answered_at_the_stop(void)
{
    enum {
        ARRIVED = 200
    };
    struct program server;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    peer = udp_to("127.0.0.1", server.port);
    freeze(&server);
    for (int i = 0; i < ARRIVED; i++)
        say(peer, "ping\n");
    (void)kill(server.pid, SIGTERM);
    thaw(&server);
    for (int i = 0; i < ARRIVED; i++)
        CU_ASSERT_FATAL(comes(peer, "pong\n"));
    CU_ASSERT(next_line_is(server.output, "Server Stopped."));
    CU_ASSERT(wait_for_end(&server) == 0);
    (void)close(peer);
}

/* The last column of the server's line in /proc/net/udp6; -1 if there is none.
 */
static long drops(int port)
{
    FILE *table = fopen("/proc/net/udp6", "r");
    char line[512];
    long count = -1;

    while (table && fgets(line, sizeof line, table)) {
        unsigned local = 0;

        /* Slot number, then the local address and port in hex. */
        if (sscanf(line, " %*u: %*[0-9A-F]:%x", &local) != 1 ||
            local != (unsigned)port)
            continue;
        line[strcspn(line, "\n")] = '\0';
        while (line[strlen(line) - 1] == ' ')
            line[strlen(line) - 1] = '\0';
        count = atol(strrchr(line, ' '));
    }
    if (table)
        (void)fclose(table);
    return count;
}

/* The kernel keeps what its buffer holds for a server that does not read, and
 * throws the rest away without a word: but it counts. */
static void a_burst_loses_datagrams_and_nothing_else(void)
{
    enum {
        BURST = 2000
    };
    struct program server;
    struct pollfd input = {.events = POLLIN};
    char byte;
    long answers = 0;
    long lost;
    int peer;

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    CU_ASSERT(drops(server.port) == 0);
    peer = udp_to("127.0.0.1", server.port);
    freeze(&server);
    for (int i = 0; i < BURST; i++)
        say(peer, "ping\n");
    lost = drops(server.port);
    CU_ASSERT(lost > 0 && lost < BURST);
    thaw(&server);
    input.fd = peer;
    while (answers < BURST - lost && poll(&input, 1, PATIENCE_MS) == 1 &&
           recv(peer, &byte, 1, 0) == 1)
        answers++;
    CU_ASSERT(answers + lost == BURST);
    CU_ASSERT(only_pong(peer));
    CU_ASSERT(drops(server.port) == lost);
    stops_with(&server, "Server Stopped.\n", "");
    (void)close(peer);
}

/* ---- The client --------------------------------------------------------- */

/* A server of the test's own, on 127.0.0.1, that says what the test wants. */
static int udp_server(char *port, size_t size)
{
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int made = datagram_socket(AF_INET);

    CU_ASSERT_FATAL(bind(made, (struct sockaddr *)&any, sizeof any) == 0);
    (void)snprintf(port, size, "%d", local_port(made));
    return made;
}

/* Takes a datagram, which must be `text`, and connects to its sender. */
static bool accepts(int server, const char *text)
{
    struct sockaddr_in sender;
    socklen_t length = sizeof sender;
    struct pollfd input = {.fd = server, .events = POLLIN};
    char bytes[4096];
    ssize_t count = -1;

    if (poll(&input, 1, PATIENCE_MS) == 1)
        count = recvfrom(server, bytes, sizeof bytes, 0,
                         (struct sockaddr *)&sender, &length);
    return count == (ssize_t)strlen(text) &&
           memcmp(bytes, text, (size_t)count) == 0 &&
           connect(server, (struct sockaddr *)&sender, length) == 0;
}

static bool start_client(struct program *client, const char *port,
                         const char *seconds)
{
    const char *const argv[] = {"client",    "-u", "-w", seconds,
                                "127.0.0.1", port, NULL};

    return start(client, argv) &&
           next_line_is(client->errors, "Trying 127.0.0.1...");
}

static void end_input(struct program *client)
{
    (void)close(client->input);
    client->input = -1;
}

static void type(struct program *client, const char *text)
{
    CU_ASSERT(write(client->input, text, strlen(text)) ==
              (ssize_t)strlen(text));
}

static void the_client_and_the_server_talk(void)
{
    struct program server;
    struct program client;
    char port[16];
    char text[512];
    char line[512];

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    CU_ASSERT_FATAL(start_client(&client, port, "30"));
    type(&client, "ping\n");
    CU_ASSERT(next_line_is(client.output, "pong"));
    CU_ASSERT(next_line(client.errors, line, sizeof line));
    CU_ASSERT(strncmp(line, "Connected to 127.0.0.1: [udp, 127.0.0.1, ", 41) ==
              0);
    type(&client, "echo a\necho  b\nping\necho c");
    end_input(&client);
    read_rest(client.output, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "a\n b\npong\nc\n");
    read_rest(client.errors, text, sizeof text);
    CU_ASSERT_STRING_EQUAL(text, "");
    /* All is answered, so nothing is left to wait for: not for 30 seconds. */
    CU_ASSERT(wait_for_end(&client) == 0);
    stops_with(&server, "Server Stopped.\n", "");
}

static void each_line_is_one_datagram(void)
{
    struct program client;
    char port[16];
    int server = udp_server(port, sizeof port);

    CU_ASSERT_FATAL(start_client(&client, port, "30"));
    type(&client, "one\ntw");
    CU_ASSERT(accepts(server, "one\n"));
    type(&client, "o 2\n\nlast");
    CU_ASSERT(accepts(server, "two 2\n"));
    CU_ASSERT(accepts(server, "\n"));
    end_input(&client);
    CU_ASSERT(accepts(server, "last"));
    /* Replies to words that are not ours are awaited and printed as well; a
     * datagram is printed as it is. */
    say(server, "1 ");
    say(server, "");
    say(server, "3\n");
    say(server, "4");
    CU_ASSERT(next_line_is(client.output, "1 3"));
    CU_ASSERT(wait_for_end(&client) == 0);
    (void)close(server);
}

static void replies_that_do_not_come_are_missed(void)
{
    struct program client;
    char port[16];
    char line[128];
    int server = udp_server(port, sizeof port);
    long long since = now_ms();

    CU_ASSERT_FATAL(start_client(&client, port, "2"));
    type(&client, "ping\nfoo\necho x\nping\nquit\n");
    CU_ASSERT(accepts(server, "ping\n"));
    say(server, "pong\n");
    end_input(&client); /* from here on it has two seconds' patience */
    CU_ASSERT(next_line(client.errors, line, sizeof line));
    CU_ASSERT(next_line_is(client.errors, "Replies that did not come: 2 of 3"));
    CU_ASSERT(now_ms() - since >= 2000);
    CU_ASSERT(next_line_is(client.output, "pong"));
    CU_ASSERT(wait_for_end(&client) == 1);

    /* Nobody was asked to answer these: it waits, and is content. */
    (void)close(server);
    server = udp_server(port, sizeof port);
    CU_ASSERT_FATAL(start_client(&client, port, "1"));
    type(&client, "foo\nquit\n");
    end_input(&client);
    CU_ASSERT(wait_for_end(&client) == 0);
    (void)close(server);
}

static void a_refusal_is_told(void)
{
    struct program client;
    char port[16];
    char line[128];
    int server = udp_server(port, sizeof port);

    /* The port is free now, and was ours a moment ago. */
    (void)close(server);
    for (int lines = 1; lines <= 3; lines++) {
        CU_ASSERT_FATAL(start_client(&client, port, "30"));
        /* All at once: after the first it may be gone. */
        type(&client, &"ping\nping\nping\n"[5 * (3 - lines)]);
        CU_ASSERT(next_line(client.errors, line, sizeof line));
        (void)snprintf(line, sizeof line,
                       "Fail to reach, 127.0.0.1:%s: Connection refused", port);
        CU_ASSERT(next_line_is(client.errors, line));
        CU_ASSERT(wait_for_end(&client) == 1);
    }
    CU_ASSERT_FATAL(
        start(&client, (const char *[]){"client", "-u", "no-such-host.invalid",
                                        "1208", NULL}));
    CU_ASSERT(next_line(client.errors, line, sizeof line));
    CU_ASSERT(strstr(line, "Fail to connect, no-such-host.invalid:1208: ") ==
              line);
    CU_ASSERT(wait_for_end(&client) == 1);
}

/* `length` bytes of one line, and its '\n'. */
static void type_long_echo(struct program *client, size_t length)
{
    char *line = malloc(length + 1);

    CU_ASSERT_FATAL(line != NULL);
    memset(line, 'x', length);
    memcpy(line, "echo ", 5);
    line[length] = '\n';
    for (size_t sent = 0; sent <= length;) {
        ssize_t count = write(client->input, line + sent, length + 1 - sent);

        CU_ASSERT_FATAL(count > 0);
        sent += (size_t)count;
    }
    free(line);
}

/* Longer than a request: the server drops it. Longer than a datagram: it can't
 * be sent, and its tail is no line of its own. */
static void long_lines_are_lost_alone(void)
{
    struct program server;
    struct program client;
    char port[16];
    char line[512];

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    CU_ASSERT_FATAL(start_client(&client, port, "1"));
    CU_ASSERT(next_line(client.errors, line, sizeof line));
    type_long_echo(&client, 4096);
    type(&client, "echo next\n");
    CU_ASSERT(next_line_is(client.output, "next"));
    (void)snprintf(line, sizeof line,
                   "Fail to send, 127.0.0.1:%s: Message too long", port);
    type_long_echo(&client, 65507);
    CU_ASSERT(next_line_is(client.errors, line));
    type_long_echo(&client, 200000);
    CU_ASSERT(next_line_is(client.errors, line));
    type(&client, "echo last\n");
    CU_ASSERT(next_line_is(client.output, "last"));
    end_input(&client);
    CU_ASSERT(next_line_is(client.errors, "Replies that did not come: 1 of 3"));
    CU_ASSERT(wait_for_end(&client) == 1);
    CU_ASSERT(next_line(server.output, line, sizeof line));
    CU_ASSERT(strstr(line, ": longer than 4096 bytes, dropped") != NULL);
    stops_with(&server, "Server Stopped.\n", "");
}

/* The input ends inside such a line: its tail is no datagram either. */
static void the_end_of_a_long_line_is_not_sent(void)
{
    struct program server;
    struct program client;
    char port[16];
    char line[512];
    char part[70000];

    CU_ASSERT_FATAL(start_server(&server, "-u", NULL));
    (void)snprintf(port, sizeof port, "%d", server.port);
    CU_ASSERT_FATAL(start_client(&client, port, "1"));
    CU_ASSERT(next_line(client.errors, line, sizeof line));
    memset(part, 'x', sizeof part);
    for (size_t sent = 0; sent < sizeof part;) {
        ssize_t count = write(client.input, part + sent, sizeof part - sent);

        CU_ASSERT_FATAL(count > 0);
        sent += (size_t)count;
    }
    end_input(&client);
    (void)snprintf(line, sizeof line,
                   "Fail to send, 127.0.0.1:%s: Message too long", port);
    CU_ASSERT(next_line_is(client.errors, line));
    CU_ASSERT(wait_for_end(&client) == 1);
    stops_with(&server, "Server Stopped.\n", "");
}

/* A client whose private directories are made in scratch(""). */
static void start_unix_client(struct program *client, const char *path)
{
    char line[256];

    (void)setenv("TMPDIR", scratch("private"), 1);
    (void)mkdir(scratch("private"), 0700);
    CU_ASSERT_FATAL(
        start(client, (const char *[]){"client", "-u", "-U", path, NULL}));
    (void)unsetenv("TMPDIR");
    (void)snprintf(line, sizeof line, "Connected to %s: [unix, %s]", path,
                   path);
    CU_ASSERT(next_line_is(client->errors, line));
}

static int private_directories(void)
{
    DIR *entries = opendir(scratch("private"));
    struct dirent *entry;
    int count = 0;

    CU_ASSERT_FATAL(entries != NULL);
    while ((entry = readdir(entries)) != NULL)
        count += strncmp(entry->d_name, "client-", 7) == 0;
    (void)closedir(entries);
    return count;
}

/* Waits until the program's main thread waits. ThreadSanitizer puts a handler
 * off when the signal comes a moment before a call that waits. */
static void let_it_wait(struct program *client)
{
    char path[64];
    char state = '?';
    long long since = now_ms();

    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)client->pid);
    while (state != 'S' && still_patient(since)) {
        FILE *file = fopen(path, "r");

        CU_ASSERT_FATAL(file != NULL);
        (void)fscanf(file, "%*d (%*[^)]) %c", &state);
        (void)fclose(file);
    }
    CU_ASSERT(state == 'S');
}

static void the_client_removes_its_path(void)
{
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct program server;
    struct program client;
    char path[128];
    char line[256];

    (void)snprintf(path, sizeof path, "%s", scratch("server"));
    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));

    start_unix_client(&client, path);
    type(&client, "ping\n");
    CU_ASSERT(next_line_is(client.output, "pong"));
    CU_ASSERT(private_directories() == 1);
    end_input(&client);
    CU_ASSERT(wait_for_end(&client) == 0);
    CU_ASSERT(private_directories() == 0);

    for (int i = 0; i < 4; i++) {
        start_unix_client(&client, path);
        CU_ASSERT(private_directories() == 1);
        type(&client, "ping\n");
        CU_ASSERT(next_line_is(client.output, "pong"));
        let_it_wait(&client);
        (void)kill(client.pid, signals[i]);
        CU_ASSERT(wait_for_end(&client) == 128 + signals[i]);
        CU_ASSERT(private_directories() == 0);
    }

    /* As nohup(1) starts it. */
    (void)signal(SIGHUP, SIG_IGN);
    start_unix_client(&client, path);
    (void)signal(SIGHUP, SIG_DFL);
    (void)kill(client.pid, SIGHUP);
    type(&client, "ping\n");
    CU_ASSERT(next_line_is(client.output, "pong"));

    /* The server goes, and the client is told when it sends again. */
    CU_ASSERT(stop(&server) == 0);
    type(&client, "ping\n");
    (void)snprintf(line, sizeof line, "Fail to reach, %s: Connection refused",
                   path);
    CU_ASSERT(next_line_is(client.errors, line));
    CU_ASSERT(wait_for_end(&client) == 1);
    CU_ASSERT(private_directories() == 0);
}

static void a_private_directory_is_needed(void)
{
    struct program server;
    struct program client;
    char path[128];
    char long_name[65];
    char line[256];

    (void)snprintf(path, sizeof path, "%s", scratch("server"));
    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    if (getenv("WRAPPER") == NULL) { /* valgrind needs it, too */
        (void)setenv("TMPDIR", scratch("missing"), 1);
        CU_ASSERT_FATAL(
            start(&client, (const char *[]){"client", "-uU", path, NULL}));
        (void)snprintf(line, sizeof line,
                       "Fail to make a directory to be answered in, %s: "
                       "No such file or directory",
                       path);
        CU_ASSERT(next_line_is(client.errors, line));
        CU_ASSERT(wait_for_end(&client) == 1);
    }

    /* Not set, or to nothing, or so long that sun_path may not hold what is in
     * it: /tmp, then. */
    (void)memset(long_name, 'd', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    CU_ASSERT_FATAL(mkdir(scratch(long_name), 0700) == 0);
    for (int i = 0; i < 3; i++) {
        (void)unsetenv("TMPDIR");
        if (i > 0)
            (void)setenv("TMPDIR", i == 1 ? "" : scratch(long_name), 1);
        CU_ASSERT_FATAL(
            start(&client, (const char *[]){"client", "-uU", path, NULL}));
        (void)unsetenv("TMPDIR");
        type(&client, "foo\nping\n");
        CU_ASSERT(next_line_is(client.output, "pong"));
        CU_ASSERT(next_line(server.output, line, sizeof line));
        CU_ASSERT(strstr(line, "Datagram from /tmp/client-") == line);
        CU_ASSERT(strstr(line, "/client: Unsupported command: foo") != NULL);
        end_input(&client);
        CU_ASSERT(wait_for_end(&client) == 0);
    }
    CU_ASSERT(stop(&server) == 0);
}

/* A signal in the very moment in which the directory appears. */
static void an_early_signal_leaves_nothing_behind(void)
{
#ifndef __SANITIZE_THREAD__ /* see let_it_wait() */
    struct program server;
    struct program client;
    char path[128];
    long long since = now_ms();

    (void)snprintf(path, sizeof path, "%s", scratch("server"));
    (void)mkdir(scratch("private"), 0700);
    CU_ASSERT_FATAL(start_server(&server, "-u", "-U", path, NULL));
    (void)setenv("TMPDIR", scratch("private"), 1);
    for (int i = 0; i < load(150); i++) {
        CU_ASSERT_FATAL(
            start(&client, (const char *[]){"client", "-uU", path, NULL}));
        while (private_directories() == 0)
            if (!still_patient(since))
                break;
        (void)kill(client.pid, SIGTERM);
        CU_ASSERT(wait_for_end(&client) == 128 + SIGTERM);
        CU_ASSERT(private_directories() == 0);
    }
    (void)unsetenv("TMPDIR");
    CU_ASSERT(stop(&server) == 0);
#endif
}

static const struct test tests[] = {
    {"requests_are_answered", requests_are_answered},
    {"one_datagram_is_one_request", one_datagram_is_one_request},
    {"others_are_logged_and_never_answered",
     others_are_logged_and_never_answered},
    {"quiet_logs_nothing", quiet_logs_nothing},
    {"oversized_datagrams_are_dropped_whole",
     oversized_datagrams_are_dropped_whole},
    {"the_log_grows_no_faster_than_the_input",
     the_log_grows_no_faster_than_the_input},
    {"one_socket_serves_both_families", one_socket_serves_both_families},
    {"one_family_or_one_address_alone", one_family_or_one_address_alone},
    {"a_port_has_one_server", a_port_has_one_server},
    {"options_for_clients_have_no_meaning",
     options_for_clients_have_no_meaning},
    {"two_servers_cannot_be_set_on_each_other",
     two_servers_cannot_be_set_on_each_other},
    {"lost_replies_do_not_fill_the_log", lost_replies_do_not_fill_the_log},
    {"a_peer_that_is_gone_disturbs_nobody",
     a_peer_that_is_gone_disturbs_nobody},
    {"unix_peers_are_answered", unix_peers_are_answered},
    {"unbound_unix_peers_get_no_reply", unbound_unix_peers_get_no_reply},
    {"hostile_unix_names_are_made_safe", hostile_unix_names_are_made_safe},
    {"a_peer_that_never_reads_stops_nobody",
     a_peer_that_never_reads_stops_nobody},
    {"a_connected_peer_that_never_reads_stops_no_loop",
     a_connected_peer_that_never_reads_stops_no_loop},
    {"the_socket_file_is_replaced_only_when_stale",
     the_socket_file_is_replaced_only_when_stale},
    {"the_stop_is_orderly", the_stop_is_orderly},
    {"what_had_arrived_is_answered_at_the_stop",
     what_had_arrived_is_answered_at_the_stop},
    {"a_burst_loses_datagrams_and_nothing_else",
     a_burst_loses_datagrams_and_nothing_else},
    {"the_client_and_the_server_talk", the_client_and_the_server_talk},
    {"each_line_is_one_datagram", each_line_is_one_datagram},
    {"replies_that_do_not_come_are_missed",
     replies_that_do_not_come_are_missed},
    {"a_refusal_is_told", a_refusal_is_told},
    {"long_lines_are_lost_alone", long_lines_are_lost_alone},
    {"the_end_of_a_long_line_is_not_sent", the_end_of_a_long_line_is_not_sent},
    {"the_client_removes_its_path", the_client_removes_its_path},
    {"a_private_directory_is_needed", a_private_directory_is_needed},
    {"an_early_signal_leaves_nothing_behind",
     an_early_signal_leaves_nothing_behind},
    {NULL, NULL}};

int main(int argc, char **argv)
{
    return run_suite("datagrams", tests, argc, argv);
}
