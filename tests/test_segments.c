/*
 * test_segments.c - the lab's raw socket program,
 * lab-notes/programs/segments.c, without a network: its functions are given
 * packets that the tests make.
 *
 * Each packet is a malloc()ed block of exactly its size, so that under
 * AddressSanitizer a read of one byte too many ends the test.
 */
int segments_main(int argc, char **argv);
#define main segments_main
/* NOLINTNEXTLINE(bugprone-suspicious-include): all in it is static */
#include "../lab-notes/programs/segments.c"
#undef main

#include "harness.h"

enum {
    CLIENT = 40000,
    SERVER = 1208,
    MOST = 2000
};

/* ---- Making packets ------------------------------------------------------ */

static void put(unsigned char *to, uint32_t value, int count)
{
    while (count-- > 0) {
        to[count] = (unsigned char)value;
        value >>= 8;
    }
}

/* A sound packet without options, from one port of 10.0.0.1 to another of
 * 10.0.0.2, or back if `from` is the server's. Returns its size. */
static size_t make(unsigned char *packet, unsigned from, unsigned flags,
                   uint32_t seq, uint32_t ack, const char *payload)
{
    size_t length = strlen(payload);

    memset(packet, 0, 40);
    packet[0] = 0x45;
    put(packet + 2, (uint32_t)(40 + length), 2);
    packet[9] = IPPROTO_TCP;
    put(packet + 12, from == SERVER ? 0x0a000002 : 0x0a000001, 4);
    put(packet + 16, from == SERVER ? 0x0a000001 : 0x0a000002, 4);
    put(packet + 20, from, 2);
    put(packet + 22, from == SERVER ? CLIENT : SERVER, 2);
    put(packet + 24, seq, 4);
    put(packet + 28, ack, 4);
    packet[32] = 5 << 4;
    packet[33] = (unsigned char)flags;
    memcpy(packet + 40, payload, length);
    return 40 + length;
}

/* Parses a copy with nothing behind its end. */
static bool parses(const unsigned char *packet, size_t size,
                   struct segment *segment)
{
    unsigned char *copy = malloc(size > 0 ? size : 1);
    bool parsed;

    CHECK(copy != NULL);
    memcpy(copy, packet, size);
    parsed = parse_segment(copy, size, segment);
    if (parsed) {
        CHECK(segment->payload >= copy + 40);
        CHECK(segment->payload + segment->length <= copy + size);
    }
    free(copy);
    return parsed;
}

/* What is printed of a packet; "" if nothing. */
static const char *shown(const unsigned char *packet, size_t size)
{
    static char text[1024];
    unsigned char *copy = malloc(size > 0 ? size : 1);
    FILE *out = fmemopen(text, sizeof text, "w");

    CHECK(copy != NULL && out != NULL);
    memcpy(copy, packet, size);
    *text = '\0';
    show(out, SERVER, copy, size);
    (void)fclose(out);
    free(copy);
    return text;
}

static void sends(unsigned from, unsigned flags, uint32_t seq, uint32_t ack,
                  const char *payload, const char *expected)
{
    unsigned char packet[MOST];
    char line[256];
    const char *came =
        shown(packet, make(packet, from, flags, seq, ack, payload));
    const char *step = strtok(strcpy(line, expected), "|");
    const char *rest = strtok(NULL, "|");
    char whole[512];

    (void)snprintf(whole, sizeof whole,
                   "%-9s  10.0.0.1:40000 %s 10.0.0.2:1208  %s\n", step,
                   from == SERVER ? "<-" : "->", rest);
    CHECK_TEXT(came, whole);
}

/* ---- Lines --------------------------------------------------------------- */

TEST(a_conversation_is_told_step_by_step)
{
    const uint32_t c = 4294967290U; /* it wraps within the conversation */
    const uint32_t s = 1000;

    sends(CLIENT, 2, c, 0, "", "handshake|SYN     seq 0 ack 0 length 0");
    sends(SERVER, 18, s, c + 1, "", "handshake|SYN ACK seq 0 ack 1 length 0");
    sends(CLIENT, 16, c + 1, s + 1, "",
          "handshake|ACK     seq 1 ack 1 length 0");
    sends(CLIENT, 24, c + 1, s + 1, "ping\n",
          "data|PSH ACK seq 1 ack 1 length 5  ping.");
    sends(SERVER, 16, s + 1, c + 6, "", "data|ACK     seq 1 ack 6 length 0");
    sends(SERVER, 24, s + 1, c + 6, "pong\n",
          "data|PSH ACK seq 1 ack 6 length 5  pong.");
    sends(CLIENT, 25, c + 6, s + 6, "quit\n",
          "close|FIN PSH ACK seq 6 ack 6 length 5  quit.");
    sends(SERVER, 16, s + 6, c + 11, "",
          "data|ACK     seq 6 ack 11 length 0"); /* not yet of the FIN */
    sends(SERVER, 24, s + 6, c + 12, "more",
          "data|PSH ACK seq 6 ack 12 length 4  more");
    sends(SERVER, 16, s + 10, c + 12, "",
          "close|ACK     seq 10 ack 12 length 0");
    sends(SERVER, 17, s + 10, c + 12, "",
          "close|FIN ACK seq 10 ack 12 length 0");
    sends(CLIENT, 16, c + 12, s + 11, "",
          "close|ACK     seq 12 ack 11 length 0");
    /* The same ports again. */
    sends(CLIENT, 2, 5, 0, "", "handshake|SYN     seq 0 ack 0 length 0");
    sends(SERVER, 20, 0, 6, "", "close|RST ACK seq 0 ack 1 length 0");
}

TEST(a_late_watcher_counts_from_one)
{
    sends(CLIENT, 2, 77, 0, "", "handshake|SYN     seq 0 ack 0 length 0");
    sends(SERVER, 4, 500, 0, "", "close|RST     seq 500 ack 0 length 0");
    /* A connection that nobody has seen begin: other ports are new. */
    for (int i = 0; i < 2; i++) {
        unsigned char packet[MOST];
        size_t size = make(packet, CLIENT, 24, 9000, 7000, "x");

        put(packet + 20, 40001, 2);
        CHECK_TEXT(shown(packet, size),
                   "data       10.0.0.1:40001 -> 10.0.0.2:1208  "
                   "PSH ACK seq 1 ack 1 length 1  x\n");
    }
}

TEST(payload_is_made_safe_and_cut)
{
    unsigned char packet[MOST];
    size_t size =
        make(packet, CLIENT, 24, 1, 1, "\033[2J\a\r\n\177\200\377 ~ok");
    const char *line = shown(packet, size);

    CHECK(strstr(line, "length 14  .[2J...... ~ok\n") != NULL);
    size = make(packet, CLIENT, 24, 1, 1,
                "0123456789012345678901234567890123456789");
    CHECK(strstr(shown(packet, size), "23456789\n") != NULL);
    size = make(packet, CLIENT, 24, 1, 1,
                "01234567890123456789012345678901234567890");
    CHECK(strstr(shown(packet, size), "23456789...\n") != NULL);
}

TEST(other_ports_are_passed_over)
{
    unsigned char packet[MOST];
    size_t size = make(packet, CLIENT, 2, 1, 0, "");

    put(packet + 22, 80, 2);
    CHECK_TEXT(shown(packet, size), "");
}

/* ---- Malformed packets --------------------------------------------------- */

TEST(every_field_is_checked)
{
    unsigned char sound[MOST];
    unsigned char packet[MOST];
    struct segment segment = {.length = 0};
    size_t size = make(sound, CLIENT, 24, 1, 1, "payload");

    CHECK(parses(sound, size, &segment) && segment.length == 7);
    /* Trailing bytes are padding of the link below. */
    CHECK(parses(sound, size + 3, &segment) && segment.length == 7);
    for (size_t cut = 0; cut < size; cut++)
        CHECK(!parses(sound, cut, &segment));
    for (unsigned version = 0; version < 16; version++) {
        memcpy(packet, sound, size);
        packet[0] = (unsigned char)(version << 4 | 5);
        CHECK(parses(packet, size, &segment) == (version == 4));
    }
    for (unsigned header = 0; header < 16; header++) {
        memcpy(packet, sound, size);
        packet[0] = (unsigned char)(4 << 4 | header);
        (void)parses(packet, size, &segment);
        CHECK(header == 5 || header == 6 || !parses(packet, size, &segment));
        memcpy(packet, sound, size);
        packet[32] = (unsigned char)(header << 4);
        CHECK(parses(packet, size, &segment) == (header == 5 || header == 6));
    }
    for (uint32_t total = 0; total < 65536; total++) {
        memcpy(packet, sound, size);
        put(packet + 2, total, 2);
        CHECK(parses(packet, size, &segment) == (total >= 40 && total <= size));
    }
    for (unsigned protocol = 0; protocol < 256; protocol++) {
        memcpy(packet, sound, size);
        packet[9] = (unsigned char)protocol;
        CHECK(parses(packet, size, &segment) == (protocol == 6));
    }
    memcpy(packet, sound, size);
    put(packet + 6, 0x2000, 2); /* more fragments: the first of them */
    CHECK(parses(packet, size, &segment));
    put(packet + 6, 1, 2); /* at offset 8: the rest of one */
    CHECK(!parses(packet, size, &segment));
    put(packet + 6, 0x4000, 2); /* don't fragment */
    CHECK(parses(packet, size, &segment));
}

TEST(options_are_skipped)
{
    unsigned char packet[MOST] = {0};
    unsigned char inner[MOST];
    size_t size = make(inner, CLIENT, 24, 1, 1, "hi");
    struct segment segment = {.length = 0};

    /* 40 bytes of options in each header, the most that fit. */
    memcpy(packet, inner, 20);
    memcpy(packet + 60, inner + 20, 20);
    memcpy(packet + 120, inner + 40, size - 40);
    packet[0] = 0x4f;
    packet[72] = 0xf0;
    put(packet + 2, (uint32_t)(size + 80), 2);
    CHECK(parses(packet, size + 80, &segment));
    CHECK(segment.length == 2);
    CHECK(number(segment.end[1] + 4, 2) == SERVER);
}
