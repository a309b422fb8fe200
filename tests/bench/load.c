/*
 * load.c - puts load on the server, times every reply and checks every byte.
 *
 * One thread and one epoll(7) instance hold all connections: the generator must
 * not have the problem that it is there to measure.
 *
 * It is a closed loop. Each connection sends its next request when the reply to
 * the last one has come, so a server that stalls is asked less while it stalls,
 * and a stall is one slow sample for each connection, not one for every request
 * that a busy world would have sent meanwhile. Compare servers with it; do not
 * read a promise to users from its percentiles.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* A request must fit the send buffer of an idle socket, so that send() takes it
 * whole. */
#define DEPTH_MAXIMUM 1000
#define REQUEST_LIMIT (DEPTH_MAXIMUM * 8)
#define REPLY_LIMIT (DEPTH_MAXIMUM * 8)

#define SECONDS_MAXIMUM 60

/* One source address has 28,232 ports to one destination, as Linux comes
 * (net.ipv4.ip_local_port_range). */
#define CONNECTIONS_MAXIMUM 28000

#define EVENTS 256
#define SILENCE_MS 5000
#define NS_PER_SECOND 1000000000LL

enum mode {
    RR,
    PIPE,
    CHURN,
    IDLE
};

static const char *const mode_names[] = {"rr", "pipe", "churn", "idle"};

struct options {
    enum mode mode;
    bool csv;
    bool redis; /* the server is redis, which says +PONG where ours says pong */
    unsigned connections;
    unsigned in_flight; /* of them at a time, all in turn; 0: each of them */
    unsigned silent;    /* more of them, that ping once and then say nothing */
    unsigned depth;
    double seconds;
    int server; /* its process, to look at; 0: nobody's */
    const char *host;
    const char *port;
};

/* One connection. (`link` is taken: link(2).) */
struct line {
    int socket;
    unsigned number;
    long long asked; /* now() when the request was sent */
    size_t due;      /* bytes of the reply */
    size_t got;      /* of these, have come */
    bool waiting;    /* for a reply */
    bool leaving;    /* churn: `quit` is sent */
};

/* What the kernel says about the server's processes. Kernel stacks it counts
 * for the whole machine only. */
struct usage {
    double seconds;      /* of processor time */
    unsigned long waits; /* gave the processor away: nothing to do */
    unsigned long threads;
    unsigned long memory_kb;
    unsigned long stacks_kb;
    unsigned long tables_kb;
};

struct load {
    struct options options;
    char where[160]; /* "tcp 127.0.0.1:1208", for messages */
    struct sockaddr_storage address;
    socklen_t address_length;
    int epoll;
    struct line *lines;
    unsigned opened; /* connections so far; numbers the next one */
    unsigned busy;   /* connections that wait for something */
    unsigned turn;   /* whose turn it is to ask, with -f */

    char request[REQUEST_LIMIT];
    size_t request_length;
    char reply[REPLY_LIMIT];
    size_t reply_length;
    char farewell[8]; /* what comes between `quit` and end of file */

    long long start;
    long long deadline; /* no request is sent after it */
    long long end;
    long long *latencies; /* of each segment of replies, in nanoseconds */
    size_t count;
    size_t room;
    struct usage empty; /* before the first client */
    struct usage before;
    struct usage after;
    struct rusage own_before;
    struct rusage own_after;
};

/* ---- Errors, the clock, latencies ----------------------------------------*/

__attribute__((format(printf, 1, 2))) static _Noreturn void
fail(const char *format, ...)
{
    va_list arguments;

    (void)fputs("load: ", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static long long now(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * NS_PER_SECOND + time.tv_nsec;
}

static void record(struct load *load, long long ns)
{
    if (load->count == load->room) {
        load->room = load->room ? 2 * load->room : 1 << 16;
        load->latencies = reallocarray(load->latencies, load->room, sizeof ns);
        if (load->latencies == NULL)
            fail("no memory for the latencies");
    }
    load->latencies[load->count++] = ns;
}

static int compare(const void *one, const void *other)
{
    long long a = *(const long long *)one;
    long long b = *(const long long *)other;

    return (a > b) - (a < b);
}

/* The time in microseconds in which `permille` of all replies had come. The
 * latencies are sorted. */
static double quantile(const struct load *load, size_t permille)
{
    size_t rank = (load->count * permille + 999) / 1000;

    return load->count ? (double)load->latencies[rank - 1] / 1000 : 0;
}

/* ---- The server's processes, from outside (proc(5)) ----------------------*/

/* The number behind `field` in a file of "Field:  number" lines; 0 if there is
 * no such file or field: a thread may end while we look. */
static unsigned long read_field(const char *path, const char *field)
{
    char text[256];
    unsigned long number = 0;
    FILE *file = fopen(path, "r");

    if (file == NULL)
        return 0;
    while (fgets(text, sizeof text, file) != NULL) {
        if (strncmp(text, field, strlen(field)) == 0) {
            number = strtoul(text + strlen(field), NULL, 10);
            break;
        }
    }
    (void)fclose(file);
    return number;
}

/* Adds what one process has taken, all of its threads. Its own clock has
 * nanoseconds. */
static void add_process(struct usage *usage, int process)
{
    char path[320];
    clockid_t clock;
    struct timespec time = {0};
    const struct dirent *entry;
    DIR *tasks;

    if (clock_getcpuclockid(process, &clock) == 0)
        (void)clock_gettime(clock, &time);
    usage->seconds += (double)time.tv_sec + (double)time.tv_nsec / 1e9;
    /* Pss, not Rss: pages that two processes share are not counted twice. */
    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", process);
    usage->memory_kb += read_field(path, "Pss:");
    (void)snprintf(path, sizeof path, "/proc/%d/status", process);
    usage->tables_kb += read_field(path, "VmPTE:");
    (void)snprintf(path, sizeof path, "/proc/%d/task", process);
    tasks = opendir(path);
    if (tasks == NULL)
        return;
    while ((entry = readdir(tasks)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/task/%s/status", process,
                       entry->d_name);
        usage->threads++;
        usage->waits += read_field(path, "voluntary_ctxt_switches:");
    }
    (void)closedir(tasks);
}

/* The server's process, and those that it has forked: a shell gives each
 * command a process group, and a child is in that of its parent. */
static struct usage look_at_server(const struct load *load)
{
    struct usage usage = {0};
    const struct dirent *entry;
    DIR *processes;

    if (load->options.server == 0)
        return usage;
    processes = opendir("/proc");
    if (processes == NULL)
        fail("/proc: %s", strerror(errno));
    while ((entry = readdir(processes)) != NULL) {
        int process = atoi(entry->d_name);

        if (process > 0 && (process == load->options.server ||
                            getpgid(process) == load->options.server))
            add_process(&usage, process);
    }
    (void)closedir(processes);
    if (usage.threads == 0)
        fail("no process %d", load->options.server);
    usage.stacks_kb = read_field("/proc/meminfo", "KernelStack:");
    return usage;
}

/* ---- Connections ---------------------------------------------------------*/

/* Connects one line, blocking: on this machine the handshake is done before
 * connect() returns. SO_SNDTIMEO bounds that, too (socket(7)), should the
 * server's backlog be full. */
static void open_line(struct load *load, struct line *line)
{
    struct timeval patience = {.tv_sec = SILENCE_MS / 1000};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = line};
    int yes = 1;

    line->number = load->opened;
    line->leaving = false;
    line->socket = socket(load->address.ss_family, SOCK_STREAM, 0);
    if (line->socket < 0)
        fail("socket, connection %u: %s", line->number, strerror(errno));
    (void)setsockopt(line->socket, SOL_SOCKET, SO_SNDTIMEO, &patience,
                     sizeof patience);
    (void)setsockopt(line->socket, SOL_SOCKET, SO_RCVTIMEO, &patience,
                     sizeof patience);
    (void)setsockopt(line->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(line->socket, (const struct sockaddr *)&load->address,
                load->address_length) < 0)
        fail("connect to %s, connection %u: %s", load->where, line->number,
             errno == EINPROGRESS ? "no answer for 5 seconds"
                                  : strerror(errno));
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, line->socket, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
    load->opened++;
}

/* Sends a request whose reply will have so many bytes. */
static void send_request(struct line *line, const char *bytes, size_t length,
                         size_t due)
{
    ssize_t count = send(line->socket, bytes, length, MSG_NOSIGNAL);

    line->due = due;
    line->got = 0;
    if (count < 0)
        fail("the server has gone, send on connection %u: %s", line->number,
             strerror(errno));
    if ((size_t)count != length)
        fail("send on connection %u took %zd of %zu bytes", line->number, count,
             length);
}

/* ---- Replies -------------------------------------------------------------*/

/* What came instead of the reply: it may well be a sentence, like "Too many
 * clients". Its first line is shown, as far as it can be. */
static _Noreturn void fail_on(const struct line *line, const char *bytes,
                              size_t count)
{
    char shown[80];
    size_t i;

    for (i = 0; i < count && i + 1 < sizeof shown && bytes[i] != '\n'; i++)
        shown[i] = (char)(bytes[i] < ' ' || bytes[i] > '~' ? '?' : bytes[i]);
    shown[i] = '\0';
    fail("wrong reply on connection %u, at byte %zu: %s", line->number,
         line->got, shown);
}

/* Takes what has arrived. True when the reply is complete, and at end of file
 * where that is due. */
static bool receive(const struct load *load, struct line *line)
{
    char bytes[REPLY_LIMIT];
    const char *expected = line->leaving ? load->farewell : load->reply;
    ssize_t count = recv(line->socket, bytes, sizeof bytes, 0);
    size_t owed = line->due - line->got;

    if (count < 0)
        fail("the server has gone, recv on connection %u: %s", line->number,
             errno == EAGAIN ? "no reply for 5 seconds" : strerror(errno));
    if (count == 0) {
        if (line->leaving && owed == 0)
            return true;
        fail("the server hung up on connection %u", line->number);
    }
    if (memcmp(bytes, expected + line->got,
               (size_t)count < owed ? (size_t)count : owed) != 0)
        fail_on(line, bytes, (size_t)count);
    if ((size_t)count > owed)
        fail("more than the reply on connection %u: %zd bytes, %zu due",
             line->number, count, owed);
    line->got += (size_t)count;
    return line->got == line->due && !line->leaving;
}

/* ---- rr, pipe: one request, again and again ------------------------------*/

static void ask(struct load *load, struct line *line, long long time)
{
    line->asked = time;
    line->waiting = true;
    send_request(line, load->request, load->request_length, load->reply_length);
}

/* With -f somebody else asks next: the one who has been silent longest. */
static struct line *next_to_ask(struct load *load, struct line *line)
{
    if (load->options.in_flight == 0)
        return line;
    do
        line = &load->lines[load->turn++ % load->options.connections];
    while (line->waiting);
    return line;
}

/* The time at which a reply was taken is the time at which the next request is
 * sent: one look at the clock for both. */
static void on_reply(struct load *load, struct line *line)
{
    long long time;

    if (!receive(load, line))
        return;
    time = now();
    line->waiting = false;
    record(load, time - line->asked);
    if (time < load->deadline)
        ask(load, next_to_ask(load, line), time);
    else
        load->busy--;
}

/* ---- churn: connect, ping, quit, end of file -----------------------------*/

static void begin_visit(struct load *load, struct line *line)
{
    line->asked = now();
    open_line(load, line);
    send_request(line, load->request, load->request_length, load->reply_length);
}

static void on_visit(struct load *load, struct line *line)
{
    if (!receive(load, line))
        return;
    if (!line->leaving) {
        line->leaving = true;
        send_request(line, "quit\n", 5, strlen(load->farewell));
        return;
    }
    (void)close(line->socket);
    record(load, now() - line->asked);
    if (now() < load->deadline)
        begin_visit(load, line);
    else
        load->busy--;
}

/* ---- The loop ------------------------------------------------------------*/

static void on_event(struct load *load, struct line *line)
{
    if (load->options.mode == CHURN)
        on_visit(load, line);
    else
        on_reply(load, line);
}

/* Connects, pings, and waits for the reply: then the server's thread is there
 * and has touched its memory. */
static void greet(struct load *load, struct line *line)
{
    line->asked = now();
    open_line(load, line);
    send_request(line, "ping\n", 5, load->reply_length / load->options.depth);
    while (!receive(load, line))
        continue;
    if (load->options.mode == IDLE)
        record(load, now() - line->asked);
}

/* All but those of churn are connected before the clock starts. */
static void greet_all(struct load *load)
{
    unsigned connections = load->options.silent;

    if (load->options.mode != CHURN)
        connections += load->options.connections;
    for (unsigned i = 0; i < connections; i++)
        greet(load, &load->lines[i]);
}

static void begin(struct load *load)
{
    load->before = look_at_server(load);
    (void)getrusage(RUSAGE_SELF, &load->own_before);
    load->start = now();
    load->deadline =
        load->start + (long long)(load->options.seconds * NS_PER_SECOND);
    load->busy = load->options.in_flight ? load->options.in_flight
                                         : load->options.connections;
    load->turn = load->busy;
    for (unsigned i = 0; i < load->busy; i++) {
        if (load->options.mode == CHURN)
            begin_visit(load, &load->lines[load->options.silent + i]);
        else
            ask(load, &load->lines[i], now());
    }
}

/* Until the time is up and every request that was sent has its reply: the slow
 * ones are the ones that matter. */
static void run(struct load *load)
{
    struct epoll_event events[EVENTS];

    load->empty = look_at_server(load);
    greet_all(load);
    begin(load);
    while (load->busy > 0) {
        int count = epoll_wait(load->epoll, events, EVENTS, SILENCE_MS);

        if (count < 0 && errno != EINTR)
            fail("epoll_wait: %s", strerror(errno));
        if (count == 0)
            fail("no reply for %d seconds", SILENCE_MS / 1000);
        for (int i = 0; i < count; i++)
            on_event(load, events[i].data.ptr);
    }
    load->end = now();
    (void)getrusage(RUSAGE_SELF, &load->own_after);
    load->after = look_at_server(load);
}

/* idle: connects and pings one after the other. Then nobody may be hung up on
 * while we hold. */
static void hold(struct load *load)
{
    struct epoll_event event;

    load->empty = load->before = look_at_server(load);
    (void)getrusage(RUSAGE_SELF, &load->own_before);
    load->start = now();
    greet_all(load);
    load->end = now();
    (void)getrusage(RUSAGE_SELF, &load->own_after);
    load->after = look_at_server(load);
    if (epoll_wait(load->epoll, &event, 1,
                   (int)(load->options.seconds * 1000)) > 0)
        (void)receive(load, event.data.ptr); /* nothing is due */
}

/* ---- What came of it -----------------------------------------------------*/

static double replies(const struct load *load)
{
    return (double)load->count * load->options.depth;
}

static double us_per_reply(const struct load *load)
{
    return (load->after.seconds - load->before.seconds) * 1e6 / replies(load);
}

/* Replies for each second of processor time that the server and we took
 * together. If both share one core, and nobody else wants it, that is what the
 * clock on the wall shows, too. If somebody does, this hardly changes. */
static double per_cpu_second(const struct load *load)
{
    struct timeval ours;
    struct timeval user;
    struct timeval system;

    timersub(&load->own_after.ru_utime, &load->own_before.ru_utime, &user);
    timersub(&load->own_after.ru_stime, &load->own_before.ru_stime, &system);
    timeradd(&user, &system, &ours);
    return replies(load) / (load->after.seconds - load->before.seconds +
                            (double)ours.tv_sec + (double)ours.tv_usec / 1e6);
}

static double per_client(const struct load *load, unsigned long before,
                         unsigned long after)
{
    return ((double)after - (double)before) /
           (load->options.connections + load->options.silent);
}

static void print_csv(const struct load *load)
{
    const struct options *options = &load->options;
    const struct usage *empty = &load->empty;
    const struct usage *after = &load->after;
    double seconds = (double)(load->end - load->start) / NS_PER_SECOND;

    (void)printf(
        "mode,connections,in_flight,silent,depth,seconds,replies,"
        "per_second,per_cpu_second,p50_us,p99_us,p999_us,us_per_reply,waits,"
        "load_preempted,threads,memory_kb,stack_kb,table_kb\n");
    (void)printf("%s,%u,%u,%u,%u,%.6f,%.0f,%.1f,%.1f,%.1f,%.1f,%.1f,",
                 mode_names[options->mode], options->connections,
                 options->in_flight, options->silent, options->depth, seconds,
                 replies(load), replies(load) / seconds, per_cpu_second(load),
                 quantile(load, 500), quantile(load, 990), quantile(load, 999));
    (void)printf("%.3f,%ld,%ld,%lu,%.2f,%.2f,%.2f\n", us_per_reply(load),
                 (long)(after->waits - load->before.waits),
                 load->own_after.ru_nivcsw - load->own_before.ru_nivcsw,
                 after->threads,
                 per_client(load, empty->memory_kb, after->memory_kb),
                 per_client(load, empty->stacks_kb, after->stacks_kb),
                 per_client(load, empty->tables_kb, after->tables_kb));
}

static void print_server(const struct load *load)
{
    const struct usage *empty = &load->empty;
    const struct usage *before = &load->before;
    const struct usage *after = &load->after;

    (void)printf("server       process %d, %lu thread%s\n",
                 load->options.server, after->threads,
                 after->threads == 1 ? "" : "s");
    if (load->options.mode == IDLE) {
        (void)printf(
            "memory       %.1f MB, %.1f KB per client\n"
            "kernel       stacks %.1f KB, page tables %.1f KB per client\n",
            (double)after->memory_kb / 1024,
            per_client(load, empty->memory_kb, after->memory_kb),
            per_client(load, empty->stacks_kb, after->stacks_kb),
            per_client(load, empty->tables_kb, after->tables_kb));
        return;
    }
    (void)printf("processor    %.2f us per reply\n", us_per_reply(load));
    if (load->options.mode != CHURN) /* its threads took their counts along */
        (void)printf(
            "switches     server %.2f waits, load %.2f preemptions per reply\n",
            (double)(after->waits - before->waits) / replies(load),
            (double)(load->own_after.ru_nivcsw - load->own_before.ru_nivcsw) /
                replies(load));
}

static void print_table(const struct load *load)
{
    const struct options *options = &load->options;
    double seconds = (double)(load->end - load->start) / NS_PER_SECOND;

    (void)printf("%-12s %s, %u connection%s", mode_names[options->mode],
                 load->where, options->connections,
                 options->connections == 1 ? "" : "s");
    if (options->mode == PIPE)
        (void)printf(", %u requests in a segment", options->depth);
    if (options->in_flight > 0)
        (void)printf(", %u asking at a time", options->in_flight);
    if (options->silent > 0)
        (void)printf(", beside %u silent ones", options->silent);
    (void)printf("\nreplies      %.0f in %.2f s, %.0f per second\n",
                 replies(load), seconds, replies(load) / seconds);
    (void)printf("latency      p50 %.1f us, p99 %.1f us, p99.9 %.1f us\n",
                 quantile(load, 500), quantile(load, 990), quantile(load, 999));
    if (options->server != 0)
        print_server(load);
}

/* ---- Options -------------------------------------------------------------*/

static const char usage[] =
    "usage: load [-cr] [-n connections] [-t seconds] [-d depth]\n"
    "            [-f in flight] [-i idle] [-P pid] mode [address [port]]\n";

static const char help[] =
    "  rr    one request in flight on each connection\n"
    "  pipe  -d requests in one segment\n"
    "  churn connect, ping, quit, end of file, over and over\n"
    "  idle  connect all, ping once, hold for -t seconds\n"
    "\n"
    "  -c    CSV instead of a table\n"
    "  -d    requests in a segment, 1 to 1000 (64)\n"
    "  -f    so many of the connections ask at a time, all in turn (all)\n"
    "  -h    show this help\n"
    "  -i    idle connections beside them, pinged once (0)\n"
    "  -n    connections (16)\n"
    "  -P    look at this process, the server, and its children, too: "
    "processor\n"
    "        time, context switches, memory\n"
    "  -r    the server is redis\n"
    "  -t    seconds, 0.1 to 60 (2)\n";

static _Noreturn void misuse(const char *what, const char *problem)
{
    (void)fprintf(stderr, "load: %s: %s\n%s", what, problem, usage);
    exit(2);
}

static unsigned whole_number(const char *option, const char *text,
                             unsigned most)
{
    unsigned long number = 0;

    if (strspn(text, "0123456789") == strlen(text) && strlen(text) < 10)
        number = strtoul(text, NULL, 10);
    if (number < 1 || number > most) {
        char problem[64];

        (void)snprintf(problem, sizeof problem,
                       "needs a whole number from 1 to %u", most);
        misuse(option, problem);
    }
    return (unsigned)number;
}

static double read_seconds(const char *text)
{
    double seconds = 0;

    if (strspn(text, "0123456789.") == strlen(text))
        seconds = strtod(text, NULL);
    if (seconds < 0.1 || seconds > SECONDS_MAXIMUM)
        misuse("-t", "needs seconds, 0.1 to 60");
    return seconds;
}

static enum mode read_mode(const char *text)
{
    for (size_t i = 0; i < sizeof mode_names / sizeof *mode_names; i++)
        if (strcmp(text, mode_names[i]) == 0)
            return (enum mode)i;
    misuse(text, "no such mode; there are rr, pipe, churn, idle");
}

static void read_operands(struct options *options, char **operands)
{
    if (*operands == NULL)
        misuse("mode", "is missing");
    options->mode = read_mode(*operands++);
    if (*operands != NULL)
        options->host = *operands++;
    if (*operands != NULL)
        options->port = *operands++;
    if (*operands != NULL)
        misuse(*operands, "one operand too many");
    if (options->silent > 0 && options->mode == IDLE)
        misuse("-i", "goes with connections that are not idle themselves");
    if (options->in_flight > options->connections)
        misuse("-f", "more in flight than there are connections (-n)");
    if (options->in_flight > 0 &&
        (options->mode == CHURN || options->mode == IDLE))
        misuse("-f", "goes with rr and pipe");
    if (options->mode != PIPE)
        options->depth = 1;
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.connections = 16,
                              .depth = 64,
                              .seconds = 2,
                              .host = "127.0.0.1",
                              .port = "1208"};
    int letter;

    while ((letter = getopt(argc, argv, ":cd:f:hi:n:P:rt:")) != -1) {
        char option[] = {'-', (char)optopt, '\0'};

        switch (letter) {
        case 'c':
            options.csv = true;
            break;
        case 'd':
            options.depth = whole_number("-d", optarg, DEPTH_MAXIMUM);
            break;
        case 'f':
            options.in_flight = whole_number("-f", optarg, CONNECTIONS_MAXIMUM);
            break;
        case 'h':
            (void)printf("%s%s", usage, help);
            exit(EXIT_SUCCESS);
        case 'i':
            options.silent = whole_number("-i", optarg, CONNECTIONS_MAXIMUM);
            break;
        case 'n':
            options.connections =
                whole_number("-n", optarg, CONNECTIONS_MAXIMUM);
            break;
        case 'P':
            options.server = (int)whole_number("-P", optarg, 1 << 22);
            break;
        case 'r':
            options.redis = true;
            break;
        case 't':
            options.seconds = read_seconds(optarg);
            break;
        case ':':
            misuse(option, "needs a value");
        default:
            misuse(option, "no such option");
        }
    }
    read_operands(&options, argv + optind);
    return options;
}

/* ---- The start -----------------------------------------------------------*/

static void name_server(struct load *load)
{
    const struct options *options = &load->options;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int error;

    (void)snprintf(load->where, sizeof load->where,
                   strchr(options->host, ':') ? "tcp [%s]:%s" : "tcp %s:%s",
                   options->host, options->port);
    error = getaddrinfo(options->host, options->port, &hints, &found);
    if (error != 0)
        fail("%s: %s", load->where, gai_strerror(error));
    memcpy(&load->address, found->ai_addr, found->ai_addrlen);
    load->address_length = found->ai_addrlen;
    freeaddrinfo(found);
}

/* The request of each turn and the reply that it must have. */
static void write_request(struct load *load)
{
    const struct options *options = &load->options;
    const char *pong = options->redis ? "+PONG\r\n" : "pong\n";
    char *request = load->request;
    char *reply = load->reply;

    for (unsigned i = 0; i < options->depth; i++) {
        request = stpcpy(request, "ping\n");
        reply = stpcpy(reply, pong);
    }
    load->request_length = (size_t)(request - load->request);
    load->reply_length = (size_t)(reply - load->reply);
    if (options->redis)
        (void)strcpy(load->farewell, "+OK\r\n");
}

static void allow_descriptors(unsigned connections)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < connections + 8)
        fail("%u connections need more than the %ju descriptors allowed "
             "(ulimit -Hn)",
             connections, (uintmax_t)limit.rlim_max);
}

int main(int argc, char **argv)
{
    static struct load load;
    unsigned connections;

    load.options = read_options(argc, argv);
    name_server(&load);
    write_request(&load);
    connections = load.options.connections + load.options.silent;
    allow_descriptors(connections);
    load.lines = calloc(connections, sizeof *load.lines);
    load.epoll = epoll_create1(0);
    if (load.lines == NULL || load.epoll < 0)
        fail("start: %s", strerror(errno));

    if (load.options.mode == IDLE)
        hold(&load);
    else
        run(&load);
    qsort(load.latencies, load.count, sizeof *load.latencies, compare);

    if (load.options.csv)
        print_csv(&load);
    else
        print_table(&load);
    return EXIT_SUCCESS;
}
