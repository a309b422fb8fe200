/*
 * fuzz_segments.c - the lab's reader of raw TCP segments; a libFuzzer target,
 * like fuzz_handler.c, which explains more.
 *
 * An input is a series of packets, each with two bytes in front that say how
 * long it is, high byte first. The lengths inside the packets are the fuzzer's.
 */
int segments_main(int argc, char **argv);
#define main segments_main
#include "../../lab-notes/programs/segments.c"
#undef main

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *out;
    static char *shown;
    static size_t shown_length;

    if (out == NULL && (out = open_memstream(&shown, &shown_length)) == NULL)
        abort();
    while (size >= 2) {
        size_t length = (size_t)data[0] << 8 | data[1];
        unsigned char *packet;

        data += 2;
        size -= 2;
        length = length < size ? length : size;
        /* A copy without a spare byte: reading past its end is noticed. */
        packet = malloc(length > 0 ? length : 1);
        if (packet == NULL || fseek(out, 0, SEEK_SET) != 0)
            abort();
        memcpy(packet, data, length);
        show(out, 1208, packet, length);
        (void)fflush(out);
        if (shown_length > 0 && (shown[shown_length - 1] != '\n' ||
                                 strspn(shown, " 0123456789") == shown_length))
            abort();
        for (size_t i = 0; i + 1 < shown_length; i++)
            if (shown[i] < ' ' || shown[i] > '~')
                abort();
        free(packet);
        data += length;
        size -= length;
    }
    return 0;
}
