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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <CUnit/Basic.h>

#define MOST_WORDS 64
#define MOST_PROGRAMS 64

/* What clean_up() must end. A test's own struct may be gone by then. */
static pid_t running[MOST_PROGRAMS];
static char directory[64];

/* ---- Waiting ------------------------------------------------------------ */

long long now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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
    const char *text = getenv("LOAD");
    int divisor = text ? atoi(text) : 1;

    count /= divisor > 0 ? divisor : 1;
    return count > 0 ? count : 1;
}

/* ---- Programs ----------------------------------------------------------- */

static void remember(pid_t pid)
{
    for (int i = 0; i < MOST_PROGRAMS; i++) {
        if (running[i] == 0) {
            running[i] = pid;
            return;
        }
    }
    CU_FAIL_FATAL("too many programs in one test");
}

static void forget(pid_t pid)
{
    for (int i = 0; i < MOST_PROGRAMS; i++)
        if (running[i] == pid)
            running[i] = 0;
}

/* The words of WRAPPER, then the program, then its own words. */
static void compose_command(const char *const argv[], char *words[],
                            char *storage, size_t size)
{
    bool ours =
        strcmp(argv[0], "server") == 0 || strcmp(argv[0], "client") == 0;
    const char *wrapper = getenv("WRAPPER");
    const char *programs = getenv("PROGRAMS");
    static char path[512];
    int count = 0;

    (void)snprintf(storage, size, "%s", ours && wrapper ? wrapper : "");
    for (char *word = strtok(storage, " "); word && count < MOST_WORDS / 2;
         word = strtok(NULL, " "))
        words[count++] = word;
    (void)snprintf(path, sizeof path, ours ? "%s/%s" : "%.0s%s",
                   programs ? programs : ".", argv[0]);
    words[count++] = path;
    for (int i = 1; argv[i] && count < MOST_WORDS - 1; i++)
        memcpy(&words[count++], &argv[i], sizeof *argv); /* execvp(3)'s const */
    words[count] = NULL;
}

/* In the child: only what the program is to have, and the default signals. */
static _Noreturn void become(char *words[], int input, int output, int errors)
{
    (void)dup2(input, STDIN_FILENO);
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(errors, STDERR_FILENO);
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)execvp(words[0], words);
    (void)fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
    _exit(127);
}

bool start(struct program *program, const char *const argv[])
{
    int pipes[3][2];
    char *words[MOST_WORDS];
    char storage[512];

    compose_command(argv, words, storage, sizeof storage);
    for (int i = 0; i < 3; i++) {
        if (pipe(pipes[i]) < 0) {
            CU_FAIL("pipe");
            return false;
        }
        /* Nobody else's child may hold an end: an end of file would not come.
         */
        (void)fcntl(pipes[i][0], F_SETFD, FD_CLOEXEC);
        (void)fcntl(pipes[i][1], F_SETFD, FD_CLOEXEC);
    }
    (void)fflush(NULL);
    *program = (struct program){.pid = fork()};
    if (program->pid == 0)
        become(words, pipes[0][0], pipes[1][1], pipes[2][1]);
    (void)close(pipes[0][0]);
    (void)close(pipes[1][1]);
    (void)close(pipes[2][1]);
    program->input = pipes[0][1];
    program->output = pipes[1][0];
    program->errors = pipes[2][0];
    if (program->pid < 0) {
        CU_FAIL("fork");
        return false;
    }
    remember(program->pid);
    return true;
}

bool start_server(struct program *server, ...)
{
    const char *argv[MOST_WORDS / 2] = {"server"};
    int count = 1;
    bool placed = false;
    va_list options;
    char line[sizeof server->listening];
    const char *colon;

    va_start(options, server);
    while ((argv[count] = va_arg(options, const char *)) != NULL) {
        placed = placed || strcmp(argv[count], "-p") == 0 ||
                 strcmp(argv[count], "-U") == 0;
        count++;
    }
    va_end(options);
    if (!placed) {
        argv[count++] = "-p";
        argv[count++] = "0";
        argv[count] = NULL;
    }
    if (!start(server, argv))
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
    if (next_line(server->errors, line, sizeof line))
        (void)fprintf(stderr, "the server said: %s\n", line);
    CU_FAIL("the server does not listen");
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

bool next_line_is(int descriptor, const char *expected)
{
    char line[16384];
    bool came = next_line(descriptor, line, sizeof line);

    if (came && strcmp(line, expected) == 0)
        return true;
    (void)fprintf(stderr, "\n  expected: %s\n  came:     %s%s\n", expected,
                  line, came ? "" : " (and no line end)");
    return false;
}

bool line_comes(int descriptor, const char *expected)
{
    char line[16384];

    while (next_line(descriptor, line, sizeof line))
        if (strcmp(line, expected) == 0)
            return true;
    (void)fprintf(stderr, "\n  did not come: %s\n", expected);
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
    forget(program->pid);
    close_if_open(&program->input);
    close_if_open(&program->output);
    close_if_open(&program->errors);
    if (ended < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int stop(struct program *program)
{
    (void)kill(program->pid, SIGTERM);
    return wait_for_end(program);
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

    if (*directory == '\0') {
        (void)strcpy(directory, "/tmp/sockets-XXXXXX");
        if (mkdtemp(directory) == NULL)
            CU_FAIL_FATAL("mkdtemp");
    }
    (void)snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

void clean_up(void)
{
    for (int i = 0; i < MOST_PROGRAMS; i++) {
        if (running[i] > 0) {
            (void)kill(running[i], SIGKILL);
            (void)waitpid(running[i], NULL, 0);
            running[i] = 0;
        }
    }
    if (*directory)
        (void)nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    *directory = '\0';
}

/* ---- Sockets ------------------------------------------------------------ */

static int connect_address(int family, const void *address, socklen_t length)
{
    int connected = socket(family, SOCK_STREAM, 0);

    (void)fcntl(connected, F_SETFD, FD_CLOEXEC);
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

int connect_to_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return connect_address(AF_UNIX, &address, sizeof address);
}

bool send_bytes(int socket, const char *bytes, size_t length)
{
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
    return send_bytes(socket, text, strlen(text));
}

bool receive_bytes(int socket, char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count;

        if (!readable(socket))
            return false;
        count = recv(socket, bytes, length, 0);
        if (count <= 0)
            return false;
        bytes += count;
        length -= (size_t)count;
    }
    return true;
}

bool receives(int socket, const char *text)
{
    size_t length = strlen(text);
    char *bytes = malloc(length + 1);
    bool same = bytes && receive_bytes(socket, bytes, length) &&
                memcmp(bytes, text, length) == 0;

    free(bytes);
    return same;
}

bool receives_end(int socket)
{
    char byte;

    return readable(socket) && recv(socket, &byte, 1, 0) == 0;
}

char *receive_all(int socket, size_t *length)
{
    size_t room = 1 << 16;
    char *bytes = malloc(room);
    ssize_t count = 0;

    *length = 0;
    while (bytes && readable(socket) &&
           (count = recv(socket, bytes + *length, room - *length - 1, 0)) > 0) {
        *length += (size_t)count;
        if (*length + 1 == room) {
            char *larger = realloc(bytes, room *= 2);

            if (!larger)
                free(bytes);
            bytes = larger;
        }
        count = -1; /* in case the next wait is in vain */
    }
    if (bytes && count == 0) {
        bytes[*length] = '\0';
        return bytes;
    }
    free(bytes);
    return NULL;
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

bool becomes(pid_t pid, const char *name, int count)
{
    long long since = now_ms();

    while (count_in_proc(pid, name) != count)
        if (!still_patient(since))
            return false;
    return true;
}

/* ---- Running ------------------------------------------------------------ */

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int run_suite(const char *name, const struct test *tests, int argc, char **argv)
{
    CU_pSuite suite;
    unsigned failures;

    (void)signal(SIGPIPE, SIG_IGN);
    /* A script's background job ignores the first two, what nohup(1) starts the
     * third, and so would all that we start. */
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGQUIT, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    if (CU_initialize_registry() != CUE_SUCCESS)
        return EXIT_FAILURE;
    suite =
        CU_add_suite_with_setup_and_teardown(name, NULL, NULL, NULL, clean_up);
    for (; suite && tests->name; tests++)
        if (is_wanted(tests->name, argc, argv))
            (void)CU_add_test(suite, tests->name, tests->function);
    CU_basic_set_mode(CU_BRM_VERBOSE);
    (void)CU_basic_run_tests();
    failures = CU_get_number_of_failures();
    if (CU_get_number_of_asserts() == 0)
        failures++; /* nothing was asked */
    CU_cleanup_registry();
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
