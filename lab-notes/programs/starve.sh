#!/bin/sh
# Limits the memory of a running server to what it has and the stacks of two more
# threads. For lab 09.
#
#     lab-notes/programs/starve.sh PID
set -eu

if [ $# != 1 ]; then
    echo "usage: starve.sh PID" >&2
    exit 2
fi
memory=$(ps -o vsz= -p "$1") # in KB
stack=132                    # 128 KB and the guard page
room=$(((memory + 2 * stack + stack / 4) * 1024))
prlimit --as="$room:" --pid "$1"
echo "room for two more threads"
