#!/bin/bash
# Opens COUNT connections to the server, and holds them until Ctrl-D. If there
# is a REQUEST, sends it on each of them and prints the reply. For lab 09.
#
#     lab-notes/programs/hold.sh COUNT [REQUEST]
set -eu

if [ $# = 0 ]; then
    echo "usage: hold.sh COUNT [REQUEST]" >&2
    exit 2
fi
for _ in $(seq "$1"); do
    # Bash connects, takes a free descriptor, and puts its number into `fd`.
    exec {fd}<> "/dev/tcp/127.0.0.1/${PORT:-1208}"
    if [ $# -gt 1 ]; then
        echo "$2" >&"$fd"
        head -n 1 <&"$fd"
    fi
done
echo "connected: $1"
cat > /dev/null # until the end of the input
