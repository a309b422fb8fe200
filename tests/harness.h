/*
 * harness.h - what the CUnit suites share: real programs started and watched,
 * sockets to talk to them, and a bound on every wait.
 *
 * Nothing here sleeps to give something time to happen. Each function waits for
 * the thing itself, and gives up after PATIENCE_MS. That is long, but only a
 * test that fails waits so long.
 *
 * Each test runs in a process of its own, several at once. Its first failed
 * CHECK ends it, and what it has started ends with it. Functions that return
 * bool leave a note of what was expected and what came, and a CHECK around them
 * prints it.
 *
 * In the environment:
 *   PROGRAMS   the directory of ./server and ./client (".")
 *   WRAPPER    a command to run them under, such as "valgrind -q" (none)
 *   LOAD       a divisor for the number of repetitions (1)
 *   PATIENCE   how many seconds to wait for anything (10; with a WRAPPER 60)
 *   BOUND      how many seconds a test may take (three times PATIENCE)
 *   JOBS       how many tests to run at once (8)
 *   LINES      how many lines of a failed test's output to show (9)
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <CUnit/CUnit.h>

#define PATIENCE_MS patience_ms()

/* Threads that a program has without having started them. ThreadSanitizer
 * starts one with the first of the program's own. */
#define OWN_THREADS 0
#ifdef __SANITIZE_THREAD__
#undef OWN_THREADS
#define OWN_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef OWN_THREADS
#define OWN_THREADS 1
#endif
#endif

/* ---- Tests --------------------------------------------------------------- */

/* TEST(name) { ... } is a test. harness.c has main(): it runs all of them, or
 * those that the command line names. */
#define TEST(name)                                            \
    static void name(void);                                   \
    __attribute__((constructor)) static void add_##name(void) \
    {                                                         \
        add_test(#name, name);                                \
    }                                                         \
    static void name(void)

void add_test(const char *name, void (*function)(void));

/* ---- Checks ------------------------------------------------------------- */

/* Each ends the test as failed if it does not hold. The last two show what came
 * and what was expected, which are numbers or C strings. */
#define CHECK(condition) \
    CHECK_THAT((condition) ? CU_TRUE : CU_FALSE, #condition)
#define CHECK_EQUAL(came, expected) \
    CHECK_THAT(is_number((long long)(came), (long long)(expected)), #came)
#define CHECK_TEXT(came, expected) \
    CHECK_THAT(is_text((came), (expected)), #came)

#define CHECK_THAT(condition, text)                                     \
    (begin_check(__FILE__, __LINE__, text),                             \
     CU_assertImplementation((condition), __LINE__, text, __FILE__, "", \
                             CU_TRUE))

/* True if they are the same; otherwise leaves a note. */
bool is_number(long long came, long long expected);
bool is_text(const char *came, const char *expected);
bool is_bytes(const char *came, size_t came_length, const char *expected,
              size_t expected_length);

/* Leaves a line for the report of a CHECK that fails. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void begin_check(const char *file, int line, const char *text);

/* Ends the test as skipped: this machine lacks what it needs. */
_Noreturn void skip(const char *reason);
void need_ipv6(void); /* or the test is skipped */

/* A program that a test started. Descriptors are ours to write to (input) and
 * to read from (output, errors); -1 when closed. */
struct program {
    pid_t pid;
    int input;
    int output;
    int errors;
    int port;            /* start_server(): where it listens; 0: a path */
    char listening[256]; /* start_server(): its "Listening on" line */
};

/* ---- Programs ----------------------------------------------------------- */

/* Starts a command of the shell, in which $server and $client are the programs
 * and $dir is the test's scratch directory. Say "exec $server ...", or the
 * program is the shell's child. False, with a note, if there is no process. */
bool start(struct program *program, const char *command, ...)
    __attribute__((format(printf, 2, 3)));

/* Starts the server with these options, and waits until it listens. */
bool start_server(struct program *server, const char *options, ...)
    __attribute__((format(printf, 2, 3)));

/* The next line of `descriptor`, without its '\n'. False at end of file, after
 * PATIENCE_MS, or if it does not fit. */
bool next_line(int descriptor, char *line, size_t size);

/* True if the next line is this one, to the letter. */
bool next_line_is(int descriptor, const char *expected, ...)
    __attribute__((format(printf, 2, 3)));

/* Reads and drops lines until this one comes. False as for next_line(). */
bool line_comes(int descriptor, const char *expected, ...)
    __attribute__((format(printf, 2, 3)));

/* Waits for the end of the program, and returns its exit status, 128 + N if
 * signal N ended it, or -1 if it did not end within PATIENCE_MS. Closes its
 * input and output. */
int wait_for_end(struct program *program);

/* True if the program ends with this status, and for stops(), with 0 after
 * SIGTERM. */
bool ends(struct program *program, int status);
bool stops(struct program *program);

/* True if this command prints the usage and so many lines, and ends well. And
 * if it says this, and the usage, on standard error, and ends with status 2. */
bool shows_help(const char *command, const char *usage, int lines);
bool is_misuse(const char *command, const char *complaint, const char *usage);

/* A path of this name in the test's own directory, which is removed with all
 * that is in it. The eighth call after this one overwrites the text. */
const char *scratch(const char *name);

/* ---- Sockets ------------------------------------------------------------ */

/* A socket connected to a numeric address and port, or to a Unix domain socket;
 * -1 and errno if it was refused. */
int connect_to(const char *address, int port);
int connect_to_path(const char *path);

/* A listening socket of the test's own on 127.0.0.1, and its port. */
int listen_on(int backlog, int *port);

/* Sends all of it. False if that fails. */
bool send_bytes(int socket, const char *bytes, size_t length);
bool send_text(int socket, const char *text);

/* True if exactly this text comes next. */
bool receives(int socket, const char *text);

/* True if the peer's end of file comes next: no further byte, no reset. */
bool receives_end(int socket);

/* Everything up to the end of file, ended with a NUL that is not counted in
 * *length; the next call frees it. NULL after an error (errno: ECONNRESET after
 * a reset) or PATIENCE_MS of silence. */
char *receive_all(int socket, size_t *length);

/* ---- Waiting ------------------------------------------------------------ */

/* Milliseconds on a clock that nobody sets. */
long long now_ms(void);
int patience_ms(void);

/* Waits a millisecond. False when PATIENCE_MS have passed since `since`. */
bool still_patient(long long since);

/* How many entries /proc/PID/NAME has ("fd", "task"), or -1. */
int count_in_proc(pid_t pid, const char *name);

/* The line of /proc/PID/NAME that has this word in it, from there on, or "":
 * proc(5). The next call overwrites it. */
const char *in_proc(pid_t pid, const char *name, const char *word);

/* Waits until there are exactly so many. False after PATIENCE_MS: a leak. */
bool becomes(pid_t pid, const char *name, int count);

/* The number of this name in the environment, or the usual one. */
long setting(const char *name, long usual);

/* `count` divided by LOAD, at least 1. */
int load(int count);

/* True under a WRAPPER. Some tests would ask about the wrapper. */
bool is_wrapped(void);

#endif
