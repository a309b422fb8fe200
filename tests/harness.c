/* harness.c - see harness.h. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CUnit/TestRun.h>

#define MOST_TESTS 128
#define KEPT_ERRORS 8  /* of the latest programs, for the report */
#define SHOWN_BYTES 72 /* of a text in a report; a longer one is cut */
#define SHOWN_END 20
#define USUAL_LINES 9    /* of a failed test's output */
#define SHOWN_FAILURES 3 /* of a suite; then only the names */
#define SKIPPED 77       /* a test's exit status */
#define LATE 76

/* Several tests have failed already: the next ones wait less. */
static bool hurry;

static int kept_errors[KEPT_ERRORS]; /* used in turn by the programs */
static int started;                  /* programs */
static char base[64];      /* the suite's directory, with one for each test */
static char directory[80]; /* the test's own, for scratch() */

/* The check that is being made, for the report of a test that does not end, and
 * what has been noted since it began. */
static char checking[512];
static char notes[4096];

/* The last bytes that this thread has sent. If they are many: both ends. */
static _Thread_local char last_sent[SHOWN_BYTES];
static _Thread_local size_t last_sent_length;

long setting(const char *name, long usual)
{
    const char *text = getenv(name);

    return text && *text ? atol(text) : usual;
}

static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- Reports ------------------------------------------------------------ */

static void show_part(FILE *to, const char *bytes, size_t length)
{
    static const char escaped[] = "\n\r\t\"\\";
    static const char letters[] = "nrt\"\\";

    (void)fputc('"', to);
    for (size_t i = 0; i < length; i++) {
        const char *place = bytes[i] != '\0' ? strchr(escaped, bytes[i]) : NULL;

        if (place != NULL)
            (void)fprintf(to, "\\%c", letters[place - escaped]);
        else if (bytes[i] < ' ' || bytes[i] > '~')
            (void)fprintf(to, "\\x%02x", (unsigned char)bytes[i]);
        else
            (void)fputc(bytes[i], to);
    }
    (void)fputc('"', to);
}

/* Bytes as a C string. If they are many: the beginning, and the part before
 * `end`. */
static void show(FILE *to, const char *label, const char *bytes,
                 const char *end, size_t length)
{
    (void)fprintf(to, "    %-10s ", label);
    if (length <= SHOWN_BYTES) {
        show_part(to, bytes, length);
    } else {
        show_part(to, bytes, SHOWN_BYTES - SHOWN_END);
        (void)fprintf(to, " ... ");
        show_part(to, end - SHOWN_END, SHOWN_END);
        (void)fprintf(to, ", %zu bytes", length);
    }
    (void)fputc('\n', to);
}

void begin_check(const char *file, int line, const char *text)
{
    *notes = '\0';
    (void)snprintf(checking, sizeof checking, "    %s:%d: %.90s\n", file, line,
                   text);
}

void note(const char *format, ...)
{
    va_list values;
    int indent = snprintf(notes, sizeof notes, "    ");

    va_start(values, format);
    (void)vsnprintf(notes + indent, sizeof notes - 5, format, values);
    (void)strcat(notes, "\n");
    va_end(values);
}

bool is_number(long long came, long long expected)
{
    if (came != expected)
        note("expected   %lld\n    came       %lld", expected, came);
    return came == expected;
}

bool is_bytes(const char *came, size_t came_length, const char *expected,
              size_t expected_length)
{
    size_t same = 0;
    FILE *to;

    while (same < came_length && same < expected_length &&
           came[same] == expected[same])
        same++;
    if (same == came_length && same == expected_length)
        return true;
    to = fmemopen(notes, sizeof notes, "w");
    if (last_sent_length > 0)
        show(to, "last sent", last_sent, last_sent + SHOWN_BYTES,
             last_sent_length);
    show(to, "expected", expected, expected + expected_length, expected_length);
    show(to, "came", came, came + came_length, came_length);
    if (came_length > SHOWN_BYTES || expected_length > SHOWN_BYTES) {
        (void)fprintf(to, "    from byte %zu on ", same);
        show_part(to, came + same, min(came_length - same, SHOWN_END));
        (void)fprintf(to, " instead of ");
        show_part(to, expected + same, min(expected_length - same, SHOWN_END));
        (void)fputc('\n', to);
    }
    (void)fclose(to);
    return false;
}

bool is_text(const char *came, const char *expected)
{
    return is_bytes(came, strlen(came), expected, strlen(expected));
}

_Noreturn void skip(const char *reason)
{
    (void)printf("%s\n", reason);
    (void)fflush(NULL);
    _exit(SKIPPED);
}

/* The last lines that a program wrote to its standard error and that nobody
 * has read. */
static void print_words(int errors)
{
    long lines = setting("LINES", USUAL_LINES) / 3;
    char words[8192];
    ssize_t count;
    char *at;

    (void)fcntl(errors, F_SETFL, O_NONBLOCK);
    count = read(errors, words, sizeof words - 1);
    at = words + (count > 0 ? count : 0);
    *at = '\0';
    while (at > words && (at[-1] != '\n' || lines-- > 0))
        at--;
    for (char *line = strtok(at, "\n"); line; line = strtok(NULL, "\n"))
        (void)printf("    it said    %s\n", line);
}

/* ---- Waiting ------------------------------------------------------------ */

long long now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool is_wrapped(void)
{
    const char *wrapper = getenv("WRAPPER");

    return wrapper != NULL && *wrapper != '\0';
}

int patience_ms(void)
{
    return (int)setting("PATIENCE", is_wrapped() ? 60 : 10) * 1000 /
           (hurry ? 5 : 1);
}

bool still_patient(long long since)
{
    (void)poll(NULL, 0, 1);
    return now_ms() - since < PATIENCE_MS;
}

static bool readable(int descriptor)
{
    struct pollfd input = {.fd = descriptor, .events = POLLIN};
    int ready;

    do
        ready = poll(&input, 1, PATIENCE_MS);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

int load(int count)
{
    int divisor = (int)setting("LOAD", 1);

    count /= divisor > 0 ? divisor : 1;
    return count > 0 ? count : 1;
}

/* ---- Programs ----------------------------------------------------------- */

/* In the child: becomes the command, with three descriptors and none of ours
 * besides. If the test ends first, the kernel ends the program. */
static _Noreturn void become(const char *command, int input, int output,
                             int errors)
{
    DIR *entries = opendir("/proc/self/fd");

    (void)dup2(input, STDIN_FILENO);
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(errors, STDERR_FILENO);
    /* close_range(2) is newer than some C libraries, and to close all that
     * there may be takes a while. */
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;)
        if (atoi(entry->d_name) > STDERR_FILENO)
            (void)fcntl(atoi(entry->d_name), F_SETFD, FD_CLOEXEC);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static bool start_command(struct program *program, const char *command)
{
    int pipes[3][2];

    for (int i = 0; i < 3; i++) {
        if (pipe(pipes[i]) < 0) {
            note("pipe: %s", strerror(errno));
            return false;
        }
    }
    (void)fflush(NULL);
    *program = (struct program){.pid = fork()};
    if (program->pid == 0)
        become(command, pipes[0][0], pipes[1][1], pipes[2][1]);
    (void)close(pipes[0][0]);
    (void)close(pipes[1][1]);
    (void)close(pipes[2][1]);
    program->input = pipes[0][1];
    program->output = pipes[1][0];
    program->errors = pipes[2][0];
    if (started >= KEPT_ERRORS)
        (void)close(kept_errors[started % KEPT_ERRORS]);
    kept_errors[started++ % KEPT_ERRORS] = program->errors;
    if (program->pid < 0)
        note("fork: %s", strerror(errno));
    return program->pid > 0;
}

bool start(struct program *program, const char *command, ...)
{
    char text[4096];
    va_list values;

    va_start(values, command);
    (void)vsnprintf(text, sizeof text, command, values);
    va_end(values);
    return start_command(program, text);
}

bool start_server(struct program *server, const char *options, ...)
{
    char command[512] = "exec $server ";
    size_t begun = strlen(command);
    char line[sizeof server->listening];
    const char *colon;
    va_list values;

    va_start(values, options);
    (void)vsnprintf(command + begun, sizeof command - begun, options, values);
    va_end(values);
    if (!start_command(server, command))
        return false;
    while (next_line(server->output, line, sizeof line)) {
        if (strncmp(line, "Listening on ", 13) != 0)
            continue;
        (void)snprintf(server->listening, sizeof server->listening, "%s", line);
        *strchr(line, ',') = '\0';
        colon = strrchr(line, ':');
        server->port = colon ? atoi(colon + 1) : 0;
        return true;
    }
    note("the server does not say where it is listening");
    return false;
}

bool next_line(int descriptor, char *line, size_t size)
{
    size_t length = 0;

    while (length + 1 < size && readable(descriptor) &&
           read(descriptor, line + length, 1) == 1) {
        if (line[length] == '\n') {
            line[length] = '\0';
            return true;
        }
        length++;
    }
    line[length] = '\0';
    return false;
}

bool next_line_is(int descriptor, const char *expected, ...)
{
    char line[4096];
    char text[1024];
    bool came = next_line(descriptor, line, sizeof line);
    va_list values;

    va_start(values, expected);
    (void)vsnprintf(text, sizeof text, expected, values);
    va_end(values);
    if (!came && *line == '\0') {
        note("expected   \"%s\"\n    came       nothing", text);
        return false;
    }
    return is_text(line, text) && came;
}

bool line_comes(int descriptor, const char *expected, ...)
{
    char line[1024];
    char text[1024];
    va_list values;

    va_start(values, expected);
    (void)vsnprintf(text, sizeof text, expected, values);
    va_end(values);
    while (next_line(descriptor, line, sizeof line))
        if (strcmp(line, text) == 0)
            return true;
    note("this line did not come: \"%s\"", text);
    return false;
}

static void close_if_open(int *descriptor)
{
    if (*descriptor >= 0)
        (void)close(*descriptor);
    *descriptor = -1;
}

int wait_for_end(struct program *program)
{
    long long since = now_ms();
    int status = 0;
    pid_t ended;

    while ((ended = waitpid(program->pid, &status, WNOHANG)) == 0)
        if (!still_patient(since))
            return -1;
    close_if_open(&program->input);
    close_if_open(&program->output);
    if (ended < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool ends(struct program *program, int status)
{
    int came = wait_for_end(program);

    if (came < 0)
        note("the program does not end");
    else if (came > 128)
        note("expected   exit status %d\n    came       signal %d, %s", status,
             came - 128, strsignal(came - 128));
    else if (came != status)
        note("expected   exit status %d\n    came       exit status %d", status,
             came);
    return came == status;
}

bool stops(struct program *program)
{
    (void)kill(program->pid, SIGTERM);
    return ends(program, 0);
}

bool shows_help(const char *command, const char *usage, int lines)
{
    struct program program;
    char line[256];

    if (!start(&program, "%s", command) ||
        !next_line_is(program.output, "%s", usage))
        return false;
    while (next_line(program.output, line, sizeof line))
        lines--;
    return is_number(lines, 1) &&
           !next_line(program.errors, line, sizeof line) && ends(&program, 0);
}

bool is_misuse(const char *command, const char *complaint, const char *usage)
{
    struct program program;

    return start(&program, "%s", command) &&
           next_line_is(program.errors, "%s", complaint) &&
           next_line_is(program.errors, "%s", usage) && ends(&program, 2);
}

/* ---- Scratch ------------------------------------------------------------ */

static int remove_entry(const char *path, const struct stat *status, int type,
                        struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

const char *scratch(const char *name)
{
    static char paths[8][128];
    static int next;
    char *path = paths[next++ % 8];

    (void)snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* ---- Sockets ------------------------------------------------------------ */

static int connect_address(int family, const void *address, socklen_t length)
{
    int connected = socket(family, SOCK_STREAM, 0);

    if (connected >= 0 && connect(connected, address, length) < 0) {
        int error = errno;

        (void)close(connected);
        errno = error;
        return -1;
    }
    return connected;
}

int connect_to(const char *address, int port)
{
    struct sockaddr_in four = {.sin_family = AF_INET,
                               .sin_port = htons((in_port_t)port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                               .sin6_port = htons((in_port_t)port)};

    if (inet_pton(AF_INET, address, &four.sin_addr) == 1)
        return connect_address(AF_INET, &four, sizeof four);
    (void)inet_pton(AF_INET6, address, &six.sin6_addr);
    return connect_address(AF_INET6, &six, sizeof six);
}

void need_ipv6(void)
{
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,
                                    .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int probe = socket(AF_INET6, SOCK_STREAM, 0);

    if (probe < 0 ||
        bind(probe, (struct sockaddr *)&loopback, sizeof loopback) < 0)
        skip("no IPv6 on this machine");
    (void)close(probe);
}

int connect_to_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return connect_address(AF_UNIX, &address, sizeof address);
}

int listen_on(int backlog, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);

    CHECK_EQUAL(bind(listening, (struct sockaddr *)&address, length), 0);
    CHECK_EQUAL(listen(listening, backlog), 0);
    CHECK_EQUAL(getsockname(listening, (struct sockaddr *)&address, &length),
                0);
    *port = ntohs(address.sin_port);
    return listening;
}

bool send_bytes(int socket, const char *bytes, size_t length)
{
    last_sent_length = length;
    memcpy(last_sent, bytes, min(length, SHOWN_BYTES));
    if (length > SHOWN_BYTES)
        memcpy(last_sent + SHOWN_BYTES - SHOWN_END, bytes + length - SHOWN_END,
               SHOWN_END);

    while (length > 0) {
        ssize_t sent = send(socket, bytes, length, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

bool send_text(int socket, const char *text)
{
    bool sent = send_bytes(socket, text, strlen(text));

    if (!sent)
        note("send: %s", strerror(errno));
    return sent;
}

/* Stops at the first byte that differs: more may never come. */
bool receives(int socket, const char *text)
{
    size_t expected = strlen(text);
    size_t length = 0;
    char *bytes = malloc(expected + 1);
    ssize_t count = 1;
    bool same;

    while (bytes && count > 0 && length < expected &&
           memcmp(bytes, text, length) == 0) {
        count = readable(socket)
                    ? recv(socket, bytes + length, expected - length, 0)
                    : -1;
        length += count > 0 ? (size_t)count : 0;
    }
    same = bytes && is_bytes(bytes, length, text, expected);
    free(bytes);
    return same;
}

bool receives_end(int socket)
{
    char byte;
    ssize_t count = readable(socket) ? recv(socket, &byte, 1, 0) : -2;

    if (count != 0)
        note("expected   the end of the connection\n    came       %s%.1s",
             count == -2  ? "nothing"
             : count == 1 ? "another byte: "
                          : strerror(errno),
             count == 1 ? &byte : "");
    return count == 0;
}

char *receive_all(int socket, size_t *length)
{
    static char *all;
    char bytes[65536];
    ssize_t count = -1;
    FILE *to;
    int error;

    free(all);
    to = open_memstream(&all, length);
    if (to == NULL)
        return NULL;
    while (readable(socket) &&
           (count = recv(socket, bytes, sizeof bytes, 0)) > 0) {
        (void)fwrite(bytes, 1, (size_t)count, to);
        count = -1; /* in case the next wait is in vain */
    }
    error = errno;
    (void)fclose(to);
    errno = error;
    return count == 0 ? all : NULL;
}

/* ---- /proc -------------------------------------------------------------- */

int count_in_proc(pid_t pid, const char *name)
{
    char path[64];
    DIR *entries;
    int count = 0;

    (void)snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    entries = opendir(path);
    if (entries == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (entry->d_name[0] != '.')
            count++;
    (void)closedir(entries);
    return count;
}

const char *in_proc(pid_t pid, const char *name, const char *word)
{
    static char line[512];
    char path[64];
    const char *place = NULL;
    FILE *file;

    (void)snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    file = fopen(path, "r");
    CHECK(file != NULL);
    while (place == NULL && fgets(line, sizeof line, file) != NULL)
        place = strstr(line, word);
    (void)fclose(file);
    return place ? place : "";
}

bool becomes(pid_t pid, const char *name, int count)
{
    const char *what = strcmp(name, "fd") == 0 ? "descriptor" : "thread";
    long long since = now_ms();
    int more;

    while ((more = count_in_proc(pid, name) - count) != 0)
        if (!still_patient(since))
            break;
    if (more != 0)
        note("%d %s%s %s than before%s", abs(more), what,
             abs(more) == 1 ? "" : "s", more > 0 ? "more" : "fewer",
             more < 0       ? ""
             : *what == 'd' ? ": is a close() missing?"
                            : ": what does it wait for?");
    return more == 0;
}

/* ---- Running ------------------------------------------------------------ */

/* A test that waits for its turn, is running, or has run. */
struct run {
    const char *name;
    void (*function)(void);
    FILE *output;   /* what it and its programs wrote */
    long long time; /* when it began; how long it took */
    pid_t pid;      /* 0 before, and -1 after it */
    int status;     /* as for wait_for_end() */
};

static const char *suite_name;
static struct run runs[MOST_TESTS];
static int run_count;

void add_test(const char *name, void (*function)(void))
{
    if (run_count < MOST_TESTS)
        runs[run_count++] = (struct run){.name = name, .function = function};
}

static void print_failure(void)
{
    CU_pFailureRecord failure = CU_get_failure_list();

    (void)printf("    %s:%u: %.90s\n%s", failure->strFileName,
                 failure->uiLineNumber, failure->strCondition, notes);
    for (int i = started - 1; i >= 0 && i >= started - KEPT_ERRORS; i--)
        print_words(kept_errors[i % KEPT_ERRORS]);
}

/* SIGALRM, at the test's bound. */
static void on_bound(int number)
{
    (void)number;
    (void)!write(STDOUT_FILENO, checking, strlen(checking));
    _exit(LATE);
}

/* Runs in the test's own process, which leads a process group of its own: one
 * kill(2) ends all of it. */
static _Noreturn void be_a_test(const struct run *run)
{
    CU_pSuite suite;
    CU_pTest test;
    sigset_t none;
    bool failed;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGALRM, on_bound);
    (void)alarm((unsigned)setting("BOUND", 3L * PATIENCE_MS / 1000));
    (void)dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    (void)dup2(fileno(run->output), STDOUT_FILENO);
    (void)dup2(fileno(run->output), STDERR_FILENO);
    (void)snprintf(directory, sizeof directory, "%s/%s", base, run->name);
    (void)mkdir(directory, 0700);
    (void)setenv("dir", directory, 1);

    if (CU_initialize_registry() != CUE_SUCCESS)
        exit(EXIT_FAILURE);
    suite = CU_add_suite(suite_name, NULL, NULL);
    test = CU_add_test(suite, run->name, run->function);
    (void)CU_run_test(suite, test);
    failed = CU_get_number_of_failures() > 0;
    if (failed) {
        print_failure();
    } else if (CU_get_number_of_asserts() == 0) {
        (void)printf("    this test checks nothing\n");
        failed = true;
    }
    /* Not exit(3): memory that a failed test did not free is no leak. */
    if (failed) {
        (void)fflush(NULL);
        _exit(EXIT_FAILURE);
    }
    CU_cleanup_registry();
    exit(EXIT_SUCCESS);
}

static void begin_test(struct run *run)
{
    run->output = tmpfile();
    run->time = now_ms();
    (void)fflush(NULL);
    run->pid = run->output ? fork() : -1;
    if (run->pid == 0)
        be_a_test(run);
    if (run->pid < 0) {
        perror(run->name);
        exit(EXIT_FAILURE);
    }
    (void)setpgid(run->pid, run->pid);
}

/* Takes note of the tests that have ended, and ends what they have left
 * running. Returns how many they are. */
static int note_ends(void)
{
    int ended = 0;
    int status;

    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0; ended++) {
        struct run *run = runs;

        while (run->pid != pid)
            run++;
        (void)kill(-pid, SIGKILL);
        run->status =
            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        run->time = now_ms() - run->time;
        run->pid = -1;
    }
    return ended;
}

/* The test's line, and if it has failed, the first lines of what it wrote. */
static void print_result(struct run *run, int failures)
{
    char line[512] = "";
    long most = failures <= SHOWN_FAILURES ? setting("LINES", USUAL_LINES) : 0;

    rewind(run->output);
    (void)printf("%s %s %s, %.1f s",
                 run->status == 0         ? "passed "
                 : run->status == SKIPPED ? "skipped"
                                          : "FAILED ",
                 suite_name, run->name, (double)run->time / 1000);
    if (run->status == LATE)
        (void)printf(": it did not end in time, and was ended");
    else if (run->status > 128)
        (void)printf(": %s", strsignal(run->status - 128));
    if (run->status == SKIPPED && fgets(line, sizeof line, run->output))
        (void)printf(": %s", line);
    else
        (void)printf("\n");
    if (run->status == SKIPPED || run->status == 0)
        most = 0;
    for (; most > 0 && fgets(line, sizeof line, run->output); most--)
        (void)printf("%s", line);
    (void)fclose(run->output);
    (void)fflush(stdout);
}

/* Runs all, some at once, and prints the results in their order. Returns the
 * signal that ended this early, or 0. */
static int run_tests(int *failures, int *skipped)
{
    static const int awaited[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};
    long most = setting("JOBS", 8);
    int begun = 0;
    int number = 0;
    sigset_t signals;

    (void)sigemptyset(&signals);
    for (int i = 0; i < 4; i++)
        (void)sigaddset(&signals, awaited[i]);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    for (int printed = 0; printed < run_count;) {
        for (; begun < run_count && most > 0; most--)
            begin_test(&runs[begun++]);
        (void)sigwait(&signals, &number);
        if (number != SIGCHLD)
            return number;
        most += note_ends();
        for (; printed < begun && runs[printed].pid < 0; printed++) {
            *skipped += runs[printed].status == SKIPPED;
            *failures +=
                runs[printed].status != 0 && runs[printed].status != SKIPPED;
            print_result(&runs[printed], *failures);
            hurry = *failures >= SHOWN_FAILURES;
        }
    }
    return 0;
}

/* Leaves the tests that are wanted. */
static void choose(int argc, char **argv)
{
    int all = run_count;

    run_count = argc < 2 ? all : 0;
    for (int i = 0; i < all && argc >= 2; i++) {
        bool wanted = false;

        for (int word = 1; word < argc; word++)
            wanted = wanted || strcmp(argv[word], runs[i].name) == 0;
        if (wanted)
            runs[run_count++] = runs[i];
    }
}

/* Sets $server or $client for the shell. */
static void name_program(const char *name)
{
    const char *wrapper = getenv("WRAPPER");
    const char *programs = getenv("PROGRAMS");
    char words[1024];

    (void)snprintf(words, sizeof words, "%s %s/%s", wrapper ? wrapper : "",
                   programs ? programs : ".", name);
    (void)setenv(name, words, 1);
}

int main(int argc, char **argv)
{
    long long since = now_ms();
    int failures = 0;
    int skipped = 0;
    int number;

    suite_name = strrchr(argv[0], '_') + 1; /* of test_server, say */
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (int i = 0; i < run_count; i++)
            (void)puts(runs[i].name);
        return EXIT_SUCCESS;
    }
    choose(argc, argv);
    name_program("server");
    name_program("client");
    (void)signal(SIGPIPE, SIG_IGN);
    /* In a script's background job the first two are ignored, under nohup(1)
     * the third. What we start would inherit that. */
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGQUIT, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    (void)strcpy(base, "/tmp/sockets-XXXXXX");
    if (mkdtemp(base) == NULL) {
        perror(base);
        return EXIT_FAILURE;
    }
    number = run_tests(&failures, &skipped);
    for (int i = 0; i < run_count; i++)
        if (runs[i].pid > 0)
            (void)kill(-runs[i].pid, SIGKILL);
    (void)nftw(base, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (number > 0)
        return 128 + number;
    (void)printf("%s: %d passed, %d failed, %d skipped, %.1f s\n", suite_name,
                 run_count - failures - skipped, failures, skipped,
                 (double)(now_ms() - since) / 1000);
    return failures == 0 && run_count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
