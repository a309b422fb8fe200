/*
 * segments.c - shows the TCP segments to and from a port, one line for each.
 *
 * A raw socket gets a copy of each IPv4 packet of its protocol that this host
 * receives, IP header included (raw(7)): on loopback all, else one direction.
 * IPv6 would need a second socket, which leaves the IP header out (RFC 3542).
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FIN 1 /* flags, as the bits of their byte */
#define SYN 2
#define RST 4
#define ACK 16
#define SHOWN 40 /* bytes of payload */

struct segment {
    unsigned char end[2][6]; /* sender, receiver: address and port */
    uint32_t seq, ack;
    unsigned flags;
    const unsigned char *payload; /* points into the packet */
    size_t length;
};

struct connection {
    unsigned char end[2][6];
    uint32_t zero[2], fin[2]; /* which number is shown as 0; the FIN's */
    bool open;
};

/* The network sends the high byte first, and any address may be odd. */
static uint32_t number(const unsigned char *bytes, size_t count)
{
    uint32_t value = 0;

    memcpy((char *)&value + sizeof value - count, bytes, count);
    return ntohl(value);
}

/* Reads an IPv4 packet (RFC 791) with a TCP segment (RFC 9293). The lengths in
 * it are somebody else's word: each is checked before it is used. */
static bool parse_segment(const unsigned char *packet, size_t size,
                          struct segment *s)
{
    size_t ip =
        size < 20 ? 0 : (packet[0] & (size_t)15) * 4; /* the header's size */
    size_t total = ip < 20 ? 0 : number(packet + 2, 2);
    size_t header;

    if (total < ip + 20 || total > size || packet[0] >> 4 != 4 ||
        packet[9] != IPPROTO_TCP || number(packet + 6, 2) & 0x1fff)
        return false; /* the last: the rest of a packet in fragments */
    header = (size_t)4 * (packet[ip + 12] >> 4);
    if (header < 20 || header > total - ip)
        return false;
    for (size_t end = 0; end < 2; end++) {
        memcpy(s->end[end], packet + 12 + 4 * end, 4);
        memcpy(s->end[end] + 4, packet + ip + 2 * end, 2);
    }
    s->seq = number(packet + ip + 4, 4);
    s->ack = number(packet + ip + 8, 4);
    s->flags = packet[ip + 13];
    s->payload = packet + ip + header;
    s->length = total - ip - header;
    return true;
}

/* The segment's connection; a new one if it is unknown, or a SYN begins it. */
static struct connection *find(const struct segment *s, int from)
{
    static struct connection table[2 * 256]; /* by the ports' low bytes */
    struct connection *c = &table[s->end[0][5] + s->end[1][5]];
    bool begins = (s->flags & (SYN | ACK)) == SYN;

    if (begins || memcmp(c->end[from], s->end[0], 6) != 0 ||
        memcmp(c->end[!from], s->end[1], 6) != 0) {
        *c = (struct connection){.open = !(s->flags & SYN)};
        memcpy(c->end[from], s->end[0], 6);
        memcpy(c->end[!from], s->end[1], 6);
        c->zero[from] = s->seq - !(s->flags & SYN); /* 1, if we come late */
        c->zero[!from] = s->ack - !begins;
    }
    return c;
}

/* Makes numbers relative and names the step. SYN and FIN count as a byte. */
static const char *step(struct segment *s)
{
    int from = memcmp(s->end[0], s->end[1], 6) > 0;
    struct connection *c = find(s, from);
    bool opening = !c->open;

    c->open = !(s->flags & SYN);
    c->zero[from] = c->open ? c->zero[from] : s->seq;
    s->seq -= c->zero[from];
    s->ack = s->flags & ACK ? s->ack - c->zero[!from] : 0;
    if (s->flags & FIN)
        c->fin[from] = s->seq + (uint32_t)s->length;
    if (s->flags & (FIN | RST) ||
        (s->length == 0 && c->fin[!from] > 0 && s->ack == c->fin[!from] + 1))
        return "close";
    return opening && s->length == 0 ? "handshake" : "data";
}

/* Prints a packet of `port`: client left, payload safe for any terminal. */
static void show(FILE *out, unsigned port, const unsigned char *ip, size_t n)
{
    static const char names[][5] = {"FIN ", "SYN ", "RST ", "PSH ", "ACK "};
    char end[2][32], flags[32] = "";
    struct segment s;
    bool reply; /* from the port */

    if (!parse_segment(ip, n, &s) ||
        (number(s.end[0] + 4, 2) != port && number(s.end[1] + 4, 2) != port))
        return;
    reply = number(s.end[1] + 4, 2) != port;
    for (int i = 0; i < 2; i++)
        (void)sprintf(end[i], "%d.%d.%d.%d:%u", s.end[i][0], s.end[i][1],
                      s.end[i][2], s.end[i][3], number(s.end[i] + 4, 2));
    for (int i = 0; i < 5; i++)
        (void)strcat(flags, s.flags >> i & 1 ? names[i] : "");
    (void)fprintf(out, "%-9s  %s %s %s  %-8s", step(&s), end[reply],
                  reply ? "<-" : "->", end[!reply], flags);
    (void)fprintf(out, "seq %u ack %u length %zu", s.seq, s.ack, s.length);
    (void)fputs(s.length > 0 ? "  " : "", out);
    for (size_t i = 0; i < s.length && i < SHOWN; i++)
        (void)fputc(isprint(s.payload[i]) ? s.payload[i] : '.', out);
    (void)fputs(s.length > SHOWN ? "...\n" : "\n", out);
}

int main(int argc, char **argv)
{
    static unsigned char packet[65536];
    unsigned port = argc < 2 ? 1208 : (unsigned)strtoul(argv[1], NULL, 10);
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
    ssize_t size;

    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (raw >= 0)
        (void)printf("Watching TCP port %u, fd %d\n", port, raw);
    while (raw >= 0 && (size = recv(raw, packet, sizeof packet, 0)) >= 0)
        show(stdout, port, packet, (size_t)size);
    perror(raw < 0 ? "segments needs root or CAP_NET_RAW" : "segments: recv");
    return EXIT_FAILURE;
}
