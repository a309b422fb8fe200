#!/bin/sh
# `make demo`: four panes for the projector. The server's log, a client to type
# into, and below, live, the rows of lsof and the server's threads. Leave with
# Ctrl-b & (or type `exit` in the client's pane): all of it ends then.
#
#     tests/labs/demo.sh [PROGRAMS [PORT]]          (. 1208)
set -eu

programs=${1:-.}
port=${2:-1208}
name=demo-$$
tmux="tmux -L $name -f /dev/null"
directory=

for tool in tmux lsof; do
    if ! command -v $tool > /dev/null; then
        echo "make demo needs $tool: apt install tmux lsof (or dnf, brew)" >&2
        exit 1
    fi
done

tidy_up() {
    # The server ends when its pane does. An orderly stop, and no waiting.
    $tmux kill-server 2> /dev/null || true
    if [ -n "$directory" ]; then
        rm -rf "$directory"
    fi
}
trap tidy_up EXIT
trap 'exit 130' INT TERM HUP

directory=$(mktemp -d)
here=$(cd "$(dirname "$0")" && pwd)
programs=$(cd "$programs" && pwd)

# A pane that lives as long as the client's; then the session goes, with the
# SIGHUP that a terminal's end sends to what runs in it. Ctrl-C is not for the
# pane's own shell: dash would end of it, and the pane with it.
$tmux new-session -d -s demo -x "${COLUMNS:-160}" -y "${LINES:-44}" \
    "trap : INT; '$programs/server' -p $port 2>&1 | tee -i '$directory/log'; cat"
$tmux set-option -g mouse on
$tmux set-option -g status-right 'Ctrl-b & ends the demo'
$tmux set-option -g pane-border-status top
$tmux set-option -g pane-border-format ' #{pane_title} '
$tmux select-pane -t demo:0.0 -T 'server'

# Until it listens, or says why not.
tries=0
until grep -qE 'Listening|Fail' "$directory/log" 2> /dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.1
done
if grep Fail "$directory/log" >&2; then
    exit 1
fi
pid=$(sed -n 's/^Listening on .*, pid \([0-9]*\),.*/\1/p' "$directory/log")
port=$(sed -n 's/^Listening on .*:\([0-9]*\), pid .*/\1/p' "$directory/log")

$tmux split-window -h -l 40% -t demo:0.0 \
    "trap : INT; '$here/demo-pane.sh' client '$programs/client' $port; $tmux kill-session"
$tmux select-pane -t demo:0.1 -T "client localhost $port"
$tmux split-window -v -t demo:0.0 "'$here/demo-pane.sh' lsof $port"
$tmux select-pane -t demo:0.1 -T "lsof -nP -i :$port"
$tmux split-window -v -t demo:0.2 "'$here/demo-pane.sh' threads $pid"
$tmux select-pane -t demo:0.3 -T "ps -L -p $pid"
$tmux select-pane -t demo:0.2

echo "demo: tmux -L $name, server $pid, port $port"
if [ -t 0 ] && [ -t 1 ]; then
    $tmux attach-session -t demo
else
    # Nobody to attach: stay until the session is over, as a test ends it.
    while $tmux has-session -t demo 2> /dev/null; do
        sleep 0.2
    done
fi
