#!/bin/sh
# `make test` on machines that this one is not, made with namespaces and limits.
#
#     tests/torture/machines.sh [NAME ...]
#
# It needs root. An older Debian is unpacked into build/debian11 and kept there.
set -u
cd "$(dirname "$0")/../.." || exit 1
machines='descriptors no_ipv6 unknown_ipv6 tiny_buffers localhost_is_ipv6 debian11'
make='make --no-print-directory'
failed=0 passed=0 skipped=0
mkdir -p build/machines

# The kernel's own default for the hard limit.
descriptors() {
    prlimit --nofile=1024:4096 make --no-print-directory test
}

# Most containers have IPv6 switched off.
no_ipv6() {
    unshare -n sh -c "ip link set lo up && sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
        net.ipv6.conf.default.disable_ipv6=1 && exec $make test"
}

# Some kernels are built without it.
unknown_ipv6() {
    cat >build/machines/no_ipv6.c <<'C' &&
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int socket(int family, int type, int protocol)
{
    if (family != AF_INET6)
        return (int)syscall(SYS_socket, family, type, protocol);
    errno = EAFNOSUPPORT;
    return -1;
}
C
        cc -shared -fPIC -o build/machines/no_ipv6.so build/machines/no_ipv6.c &&
        $make test TEST_WRAPPER="env LD_PRELOAD=$PWD/build/machines/no_ipv6.so"
}

# Nothing may count on a kernel that takes much before anybody reads.
tiny_buffers() {
    unshare -n sh -c "ip link set lo up && sysctl -qw net.ipv4.tcp_rmem='4096 4096 4096' \
        net.ipv4.tcp_wmem='4096 4096 4096' && exec $make test"
}

# Where a name's first address is ::1, and where README.md says 127.0.0.1.
localhost_is_ipv6() {
    printf '::1 localhost\n127.0.0.1 localhost\n' >build/machines/hosts &&
        unshare -m sh -c "mount --bind build/machines/hosts /etc/hosts && $make readme && $make test"
}

# glibc 2.31, gcc 10, and the kernel of this machine.
debian11() {
    root=build/debian11
    if [ ! -f $root/ready ]; then
        command -v debootstrap >/dev/null || { echo 'no debootstrap'; return 77; }
        rm -rf $root
        debootstrap --variant=minbase --include=gcc,make,libc6-dev,libcunit1-dev \
            bullseye $root http://deb.debian.org/debian >build/machines/debian11.log 2>&1 ||
            { tail -3 build/machines/debian11.log; return 77; }
        touch $root/ready
    fi
    rm -rf $root/project && mkdir $root/project &&
        cp -r ./*.c ./*.h Makefile tests lab-notes $root/project &&
        unshare -m sh -c "mount --make-rprivate / && mount -t proc proc $root/proc && \
            mount --bind /dev $root/dev && exec chroot $root make -C /project --no-print-directory test"
}

$make all suites >build/machines/log || exit 1
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $machines
for machine; do
    $machine >build/machines/log 2>&1
    case $? in
    0)
        passed=$((passed + 1))
        echo "passed  $machine: $(tail -1 build/machines/log)"
        grep '^skipped' build/machines/log | sed 's/^/    /'
        ;;
    77)
        skipped=$((skipped + 1))
        echo "skipped $machine: $(tail -1 build/machines/log)"
        ;;
    *)
        failed=$((failed + 1))
        echo "FAILED  $machine"
        tail -25 build/machines/log
        ;;
    esac
done
echo "machines: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && { [ "$skipped" = 0 ] || [ "${CI-}" != true ]; }
