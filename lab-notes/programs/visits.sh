#!/bin/sh
# 100 clients come to a server and go, one after the other. Prints how many more
# thread stacks the server has then. For lab 04.
#
#     lab-notes/programs/visits.sh PID
set -eu

fail() {
    echo "visits.sh: $1" >&2
    exit 1
}

# A stack is a mapping of 128 KB. (The guard page below it is another mapping.)
stacks() { pmap "$pid" | grep -c ' 128K rw' || true; }
threads() { find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l; }

# One client. It is over when the thread of the client is.
visit() {
    ./client -4 localhost "${PORT:-1208}" < /dev/null 2> /dev/null || fail "./client cannot connect"
    tries=0
    while [ "$(threads)" -gt "$expected" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || fail "the thread of a client does not end"
        sleep 0.01
    done
}

[ $# = 1 ] || fail "usage: visits.sh PID"
pid=$1
[ -d "/proc/$pid/task" ] || fail "there is no process $pid"
expected=$(threads)

visit # The C library keeps a stack for the next thread. It does not count.
before=$(stacks)
for _ in $(seq 100); do
    visit
done
echo "stacks that stayed: $(($(stacks) - before))"
