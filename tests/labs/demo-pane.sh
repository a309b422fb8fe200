#!/bin/sh
# What runs in one pane of `make demo`: see demo.sh.
case $1 in
client) # one conversation after the other, until somebody has had enough
    trap : INT # Ctrl-C is for the client alone
    while :; do
        "$2" localhost "$3"
        printf 'Enter for another client, exit to end the demo: '
        read -r answer || exit
        [ "$answer" != exit ] || exit
    done
    ;;
lsof | threads)
    while :; do
        if [ "$1" = lsof ]; then
            text=$(lsof -nP -i ":$2" 2>&1)
        else
            text=$(ps -L -o pid,lwp,stat,wchan:14,comm -p "$2" 2>&1)
        fi
        # Home, the text, each line's old end wiped, and all below: no flicker.
        printf '\033[H'
        printf '%s\n' "$text" | sed "s/$(printf '\r')//; s/\$/$(printf '\033')[K/"
        printf '\033[J'
        sleep 0.5
    done
    ;;
esac
