/*
 * harness.h - what the CUnit suites share: real programs started and watched,
 * sockets to talk to them, and a bound on every wait.
 *
 * Nothing here sleeps to give something time to happen. Each function waits for
 * the thing itself, and gives up after PATIENCE_MS, which is long because it
 * passes only where a test fails.
 *
 * In the environment:
 *   PROGRAMS   the directory of ./server and ./client (".")
 *   WRAPPER    a command to run them under, such as "valgrind -q" (none)
 *   LOAD       a divisor for the number of repetitions (1)
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <CUnit/CUnit.h>

#define PATIENCE_MS 30000

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

/* Starts `argv`, whose first word is "server" or "client" (looked for in
 * PROGRAMS, run under WRAPPER) or the path of another program. Words end with
 * NULL. False, with a failed assertion, if it can't be started. */
bool start(struct program *program, const char *const argv[]);

/* Starts the server with these options (NULL at the end) and waits until it
 * listens. "-p 0" is added unless -p or -U is among them. */
bool start_server(struct program *server, ...);

/* The next line of `descriptor`, without its '\n'. False at end of file, after
 * PATIENCE_MS, or if it does not fit. */
bool next_line(int descriptor, char *line, size_t size);

/* True if the next line is this one, to the letter; otherwise says on standard
 * error what came instead. */
bool next_line_is(int descriptor, const char *expected);

/* Reads and drops lines until one is `expected`. False as for next_line(). */
bool line_comes(int descriptor, const char *expected);

/* Waits for the end of the program, and returns its exit status, 128 + N if
 * signal N ended it, or -1 if it did not end within PATIENCE_MS. Closes what is
 * open to it. */
int wait_for_end(struct program *program);

/* Sends SIGTERM and waits: the status, or -1. */
int stop(struct program *program);

/* Kills whatever a test has left running, closes its descriptors, and removes
 * its scratch directory. The teardown of each suite. */
void clean_up(void);

/* A path of this name in a private directory, which clean_up() removes with
 * all that is in it. The text is good until the next call but seven. */
const char *scratch(const char *name);

/* ---- Sockets ------------------------------------------------------------ */

/* A socket connected to a numeric address and port, or to a Unix domain socket;
 * -1 and errno if it was refused. */
int connect_to(const char *address, int port);
int connect_to_path(const char *path);

/* All of it is sent, or false. */
bool send_bytes(int socket, const char *bytes, size_t length);
bool send_text(int socket, const char *text);

/* Receives exactly so many bytes. False if the end, an error, or nothing for
 * PATIENCE_MS comes first. */
bool receive_bytes(int socket, char *bytes, size_t length);

/* True if exactly this text comes next. */
bool receives(int socket, const char *text);

/* True if the peer's end of file comes next: no further byte, no reset. */
bool receives_end(int socket);

/* Everything up to the end of file: malloc()ed, ended with a NUL that is not
 * counted in *length. NULL after an error (errno: ECONNRESET after a reset) or
 * PATIENCE_MS of silence. */
char *receive_all(int socket, size_t *length);

/* ---- Waiting ------------------------------------------------------------ */

/* Milliseconds on a clock that nobody sets. */
long long now_ms(void);

/* A millisecond for the others. False when PATIENCE_MS have passed since
 * `since`. */
bool still_patient(long long since);

/* How many entries /proc/PID/NAME has ("fd", "task"), or -1. */
int count_in_proc(pid_t pid, const char *name);

/* Waits until there are exactly so many. */
bool becomes(pid_t pid, const char *name, int count);

/* `count` divided by LOAD, at least 1. */
int load(int count);

/* ---- Running ------------------------------------------------------------ */

/* One test of a suite's table, which ends with {NULL, NULL}. */
struct test {
    const char *name;
    void (*function)(void);
};

/* Runs a suite with CUnit's basic interface; returns main()'s status. With
 * arguments, runs only the tests that they name. */
int run_suite(const char *name, const struct test *tests, int argc,
              char **argv);

#endif
