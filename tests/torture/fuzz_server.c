/*
 * fuzz_server.c - the server's options; a libFuzzer target, like
 * fuzz_handler.c, which explains more. An input is a command line, one word on
 * each line.
 */
#define PROGRAM_NAME "server"
#define PROGRAM_SOURCE "../../server.c"
#include "fuzz_program.h"

static void reset_options(void)
{
    family = AF_UNSPEC;
    quiet = false;
    address = port = path = NULL;
    limit = NUMBER_MAXIMUM;
    terms.idle_seconds = 0;
}

static void check_options(void)
{
    if (strspn(port, "0123456789") != strlen(port) ||
        strtoul(port, NULL, 10) > 65535)
        wrong("the port");
    if (limit < 1 || limit > 1000000 || terms.idle_seconds > 1000000)
        wrong("a number");
    if (path && (*path == '\0' || address || family != AF_UNSPEC))
        wrong("a path with an address");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    listen_again();
    try_options(data, size);
    return 0;
}
