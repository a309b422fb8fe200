#!/bin/sh
# A Docker daemon for lab 14: its own socket, its own directory, and no rules in
# anybody's firewall. It makes an image "nginx" itself, of nothing but busybox's
# web server, so it needs no network; it ends, and tidies up, at Ctrl-C.
#
#     lab-notes/programs/docker-daemon.sh [new directory]     (/tmp/docker-NUMBER)
set -eu

fail() {
    echo "docker-daemon.sh: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root"
for program in dockerd docker busybox; do
    command -v $program > /dev/null ||
        fail "no $program; try: apt install docker.io busybox"
done

# It is removed at the end with all that is in it: so it must be ours alone. It
# is in /tmp since other users, too, have to get to the socket.
directory=${1:-/tmp/docker-$(shuf -n 1 -i 10000-99999)}
mkdir "$directory" || fail "$directory: name a new directory"
directory=$(cd "$directory" && pwd)
# The kernel's limit for the path of a socket; containerd's is the longest here.
if [ ${#directory} -gt 60 ]; then
    rmdir "$directory"
    fail "$directory: too long for a socket's path; name one in /tmp, say"
fi
socket=$directory/docker.sock
DOCKER_HOST=unix://$socket
export DOCKER_HOST

# A session of its own, so that a Ctrl-C ends this script only, and the script
# then ends the containers first and the daemon second. And mounts of its own:
# the daemon mounts its directory onto itself and does not undo that.
setsid unshare --mount dockerd --iptables=false --ip6tables=false --bridge=none \
    --storage-driver=vfs -H "$DOCKER_HOST" --data-root "$directory/data" \
    --exec-root "$directory/exec" --pidfile "$directory/pid" \
    > "$directory/log" 2>&1 &
daemon=$!

# shellcheck disable=SC2317  # called by the trap
tidy_up() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2046  # several names, or none
    docker container rm -f $(docker container ls -aq) \
        > "$directory/removed" 2>&1 || true
    kill "$daemon" 2> "$directory/removed" || true
    wait "$daemon" || true
    rm -rf "$directory"
}
trap tidy_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

tries=0
until docker info > "$directory/info" 2>&1; do
    kill -0 "$daemon" 2> "$directory/info" ||
        fail "dockerd ended: $(tail -n 1 "$directory/log")"
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "dockerd does not answer in 30 s"
    sleep 0.1
done

mkdir -p "$directory/root/bin" "$directory/root/srv"
cp "$(command -v busybox)" "$directory/root/bin/busybox"
# Linked dynamically it needs its libraries, each at its own path.
ldd "$directory/root/bin/busybox" 2> "$directory/found" |
    grep -o '/[^ ]*' | while read -r library; do
    cp -L --parents "$library" "$directory/root"
done
echo 'not quite nginx' > "$directory/root/srv/index.html"
tar -C "$directory/root" -c . |
    docker import -c 'CMD ["/bin/busybox", "httpd", "-f", "-h", "/srv"]' \
        - nginx > "$directory/imported"

echo "Docker daemon at $socket, image nginx is there"
wait "$daemon"
