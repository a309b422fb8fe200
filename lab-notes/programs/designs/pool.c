/* pool.c - a fixed number of threads, all in accept(). */
#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8

static atomic_int serving; /* threads that have not ended */

/* A thread serves one client after the other. No thread is ever made for a
 * client, but a ninth client waits until one of the eight has left. */
static void *serve(void *argument)
{
    const int *listening = argument;

    while (!stopping) {
        int client = accept(*listening, NULL, NULL);

        if (client < 0) {
            accept_failed();
            continue;
        }
        converse(client, &terms);
        close(client);
    }
    serving--;
    return NULL;
}

int main(int argc, char **argv)
{
    const struct timespec tenth = {.tv_nsec = 100000000};
    pthread_t threads[THREADS];
    int listening = start(argc, argv);

    for (int i = 0; i < THREADS; i++) {
        int error = pthread_create(&threads[i], NULL, serve, &listening);

        if (error != 0) {
            fprintf(stderr, "Fail to start server, pthread_create: %s\n",
                    strerror(error));
            return EXIT_FAILURE;
        }
        serving++;
    }
    while (!stopping)
        pause();
    /* A signal to the process interrupts one thread only. So send one to each,
     * until all have ended. */
    while (serving > 0) {
        for (int i = 0; i < THREADS; i++)
            pthread_kill(threads[i], SIGALRM);
        nanosleep(&tenth, NULL);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return EXIT_SUCCESS;
}
