/*
 * count.c - two threads leave at the same time, and nobody holds a lock. How
 * often is the count wrong?
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define RUNS 100000

static volatile unsigned connected;

static void *leave(void *argument)
{
    connected--;
    return argument;
}

int main(void)
{
    int wrong = 0;

    for (int run = 0; run < RUNS; run++) {
        pthread_t one, two;

        connected = 2;
        if (pthread_create(&one, NULL, leave, NULL) != 0 ||
            pthread_create(&two, NULL, leave, NULL) != 0)
            return EXIT_FAILURE;
        pthread_join(one, NULL);
        pthread_join(two, NULL);
        wrong += connected != 0;
    }
    printf("%d of %d runs ended with a wrong count\n", wrong, RUNS);
    return EXIT_SUCCESS;
}
