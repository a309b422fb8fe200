#!/bin/bash
# Opens a shell in a room: a network of its own. Port 1208 is free in there, whatever other people
# on this machine do, and tcpdump needs no root. For a class on one host, or without root.
#
#     lab-notes/programs/room.sh          open a room
#     lab-notes/programs/room.sh PID      join it, from another terminal
#
# A user namespace within another one owns the network. Its maker has every right over it from
# outside (user_namespaces(7)). So you may do anything with this network, and your programs still
# have no capability: lsof and gdb see them as usual.
set -u

# Ends with the reason, on one line.
no_room() {
    local reason='no user namespaces here (in a container?)' sysctl
    for sysctl in kernel/apparmor_restrict_unprivileged_userns=1 \
        kernel/unprivileged_userns_clone=0 user/max_user_namespaces=0; do
        [ "$(cat "/proc/sys/${sysctl%=*}" 2> /dev/null)" != "${sysctl#*=}" ] ||
            reason="this system forbids user namespaces (sysctl ${sysctl/\//.})"
    done
    echo "No room for you: $reason. Use a port of your own: -p $((10000 + UID % 20000))" >&2
    exit 1
}

if [[ $# -gt 1 || ! "${1:-1}" =~ ^[1-9][0-9]*$ ]]; then
    echo 'usage: room.sh [PID]' >&2
    exit 2
fi
if [ $# = 1 ]; then
    exec nsenter --target "$1" --user --net --preserve-credentials bash
fi
unshare --user --map-current-user --net true 2> /dev/null || no_room

# The coprocess makes the network and keeps it until the shell of the room ends.
# shellcheck disable=SC2016 # $$ and the like belong to the shells inside
exec unshare --user --map-current-user --keep-caps bash -c '
    coproc unshare --user --map-current-user --keep-caps --net \
        sh -c "ip link set lo up && echo up && exec cat"
    read -r -u "${COPROC[0]}" || exit
    nsenter --target "$COPROC_PID" --net setpriv --inh-caps=-all --ambient-caps=-all bash -c "
        echo \"Room \$\$. In other terminals: $0 \$\$\"
        exec bash"
    exit' "$0"
