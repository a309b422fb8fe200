#!/usr/bin/python3
"""Every call of the server and the client fails once, in each way that its
man page names and that can happen.

The programs are linked with faulty.c. First a conversation without a fault
tells how often each call is made; then each of these calls fails, one in each
run, and what the contract promises must hold:

  the server  ends at its start with exit status 1 and one line of reason; or
              goes on, serves everybody else, loses no descriptor, thread or
              memory, and stops with exit status 0
  the client  prints every byte that it was owed and exits with 0, or says why
              not in one line, and exits with 1; it never hangs

    tests/faults.py [NAME...]      OBJECTS is the directory of the programs
"""

import concurrent.futures
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time

from victim import PATIENCE, Server, check, converse, eventually, ping, receive_all, run, scratch

OBJECTS = os.environ.get("OBJECTS", "build/default")
SERVER = os.path.join(OBJECTS, "faulty-server")
CLIENT = os.path.join(OBJECTS, "faulty-client")

# What each call may fail with. Numbers below 0 are getaddrinfo(3)'s own.
ERRORS = {
    "accept": "ECONNABORTED EINTR EMFILE ENFILE ENOBUFS ENOMEM EPROTO EPERM EAGAIN ENETDOWN "
              "ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ETIMEDOUT",
    "atexit": "ENOMEM",
    "bind": "EADDRINUSE EACCES EADDRNOTAVAIL ENOMEM EROFS ENOENT",
    "calloc": "ENOMEM",
    "close": "EINTR EIO",
    "connect": "ECONNREFUSED ETIMEDOUT ENETUNREACH EACCES EADDRNOTAVAIL EAGAIN EINTR",
    "freopen": "EMFILE ENFILE ENOENT ENOMEM",
    "fstat": "ENOMEM",
    "fwrite": "ENOSPC EPIPE EIO EINTR",
    "getaddrinfo": (-3, -4, -2, -10),
    "getnameinfo": (-4, -10, -12),
    "getrlimit": "EPERM",
    "getsockname": "ENOBUFS",
    "getsockopt": "ENOBUFS",
    "listen": "EADDRINUSE EOPNOTSUPP",
    "lstat": "ENOENT EACCES ENOMEM",
    "mkdtemp": "EACCES ENOSPC ENOENT",
    "nanosleep": "EINTR",
    "open": "EMFILE ENFILE ENOENT EACCES",
    "pipe": "EMFILE ENFILE",
    "poll": "EINTR ENOMEM",
    "pthread_attr_init": "ENOMEM",
    "pthread_attr_setdetachstate": "EINVAL",
    "pthread_attr_setstacksize": "EINVAL",
    "pthread_cond_init": "EAGAIN ENOMEM",
    "pthread_cond_timedwait": "ETIMEDOUT",
    "pthread_create": "EAGAIN ENOMEM EPERM",
    "pthread_detach": "EINVAL",
    "pthread_kill": "EAGAIN ESRCH",
    "pthread_mutex_init": "EAGAIN ENOMEM EPERM",
    "read": "EINTR EIO EISDIR EAGAIN",
    "recv": "EINTR ECONNRESET ETIMEDOUT ENOMEM EHOSTUNREACH",
    "recvfrom": "EINTR ECONNREFUSED ENOMEM ENOBUFS ENETDOWN EHOSTUNREACH",
    "rmdir": "EBUSY ENOENT",
    "send": "EINTR EPIPE ECONNRESET ENOBUFS ENOMEM ETIMEDOUT",
    "sendto": "EAGAIN ECONNREFUSED ENOBUFS ENOMEM EPERM ENETUNREACH EINVAL EINTR",
    "setsockopt": "ENOMEM EINVAL ENOPROTOOPT",
    "shutdown": "ENOTCONN ENOBUFS",
    "socket": "EMFILE ENFILE ENOBUFS ENOMEM EACCES EAFNOSUPPORT",
    "unlink": "EACCES EBUSY ENOENT",
    "write": "EINTR EPIPE EIO ENOSPC",
}

# Calls that are not made to fail, and why.
NO_FAULT = {
    "cannot fail": "_exit alarm exit freeaddrinfo gai_strerror getenv getpid pthread_self umask htonl raise "
                   "__errno_location __memcpy_chk __h_errno_location",
    "fails for a wrong argument only, which is a constant here":
        "clock_gettime fcntl setvbuf sigaction signal __sysv_signal bsd_signal pthread_sigmask sigaddset sigemptyset "
        "pthread_cond_signal pthread_mutex_lock pthread_mutex_unlock",
    "works on memory": "memchr memcmp memcpy memmove memset snprintf strchr strcmp strcpy strlen "
                       "strspn strtol strtoul strerror getopt __posix_getopt",
    "prints: see exhaustion.py, full_disk and closed_output": "printf fprintf puts perror fputs "
                                                              "putchar fputc",
    "ours": "compose converse parse refuse",
    "data": "optarg optind optopt stderr stdout stdin environ __stack_chk_fail",
}


def errors_of(call):
    numbers = ERRORS[call]
    return numbers if isinstance(numbers, tuple) else [getattr(errno, name)
                                                       for name in numbers.split()]


def test_every_call_is_here():
    """No call of the three sources is forgotten, whatever is written there
    tomorrow."""
    objects = [os.path.join(OBJECTS, name) for name in ("server.o", "handler.o", "client.o")]
    output = subprocess.run(["nm", "-u", *objects], check=True, capture_output=True, text=True)
    called = set(re.findall(r" U (\w+)", output.stdout))
    called = {re.sub(r"^__(\w+)_chk$", r"\1", name) for name in called}
    called = {name for name in called if not re.match(r"__(asan|ubsan|tsan|gcov|sanitizer)", name)}
    known = set(ERRORS) | set(" ".join(NO_FAULT.values()).split())
    check(called <= known, "neither made to fail nor excused:", called - known)
    return f"{len(ERRORS)} calls fail in {sum(len(errors_of(call)) for call in ERRORS)} ways"


def counts(path):
    with open(path, encoding="ascii") as lines:
        return {name: int(number) for name, number in (line.split() for line in lines)}


def every_fault(made):
    for call, number in sorted(made.items()):
        for error in errors_of(call):
            for turn in range(1, number + 1):
                yield call, error, turn


def all_at_once(try_one, faults):
    """Runs them in parallel; the first words of all that failed."""
    wrong = []

    def attempt(fault):
        try:
            try_one(fault)
        except Exception as problem:  # each is reported, with its fault
            name = errno.errorcode.get(fault[1], fault[1])
            wrong.append(f"{fault[0]} {name}, call {fault[2]}: {problem}")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        faults = list(faults)
        list(pool.map(attempt, faults))
    check(not wrong, f"{len(wrong)} of {len(faults)} went wrong:\n  " + "\n  ".join(wrong[:20]))
    return f"{len(faults)} faults"


# ---- The server ----

REQUESTS = b"ping\nfoo\necho  a  b\nquit\n"
REPLIES = b"pong\nUnsupported command: foo\n a  b\n"


def stale_socket(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)


def clients_talk(server):
    """Four conversations, three of them complete. One may be broken off, or the
    client told why it is not served; it gets nothing else."""
    broken = 0
    for _ in range(4):
        try:
            with server.connect(10) as client:
                client.sendall(REQUESTS)
                came = receive_all(client)
        except ConnectionError:
            came = b""
        if came != REPLIES:
            broken += 1
            check(REPLIES.startswith(came) or came.startswith(b"No thread for you: "), came)
    check(broken <= 1, broken, "clients suffered from one fault")


def datagrams_talk(server):
    """Ten pings; one may get lost."""
    lost = 0
    for _ in range(10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", server.port))
            client.send(b"ping")
            try:
                check(client.recv(10) == b"pong\n", "another reply")
            except TimeoutError:
                lost += 1
    check(lost <= 1, lost, "datagrams got lost")


def torment_server(options, talk, fault, place):
    """One run; returns the calls that were made, if it has no fault."""
    environment = {}
    count_path = os.path.join(place, "counts")
    if fault:
        environment["FAULT"] = f"{fault[0]} {fault[1]} {fault[2]} {fault[2]}"
    else:
        environment["FAULT_COUNTS"] = count_path
    if "-U" in options:
        path = os.path.join(place, "-".join(str(word) for word in fault or ("none",)))
        options = [path if word == "PATH" else word for word in options]
        stale_socket(path)
    with Server(*options, program=SERVER, env=environment, listening=False) as server:

        def decided():
            return b"Listening on" in server.log.bytes or server.process.poll() is not None

        eventually(decided, "a start or an end")
        if server.process.poll() is not None and b"Listening on" not in server.log.bytes:
            said = server.errors.all()
            check(server.process.returncode == 1, "exit status", server.process.returncode)
            check(re.fullmatch(rb"Fail to start server, [^\n]+: [^\n]+\n", said), "said", said)
            return None
        # The line is not to be relied upon: the fault may have been in naming.
        server.port = server.find_port("udp" if "-u" in options else "tcp")
        rest = server.at_rest()
        talk(server)
        server.comes_to_rest(rest)
        server.stop()
        said = server.errors.all()
        check(server.log.all().endswith(b"Server Stopped.\n"),
              server.log.all()[-100:])
        check(re.fullmatch(rb"(Fail to|Connection from) [^\n]+\n|", said), "said", said)
        if "-U" in options and fault and fault[0] not in ("unlink", "lstat"):
            check(not os.path.exists(path), "the socket file is left")
    return counts(count_path) if not fault else None


def torment_server_with(options, talk):
    place = scratch()
    made = torment_server(options, talk, None, place)
    return all_at_once(lambda fault: torment_server(options, talk, fault, place),
                       every_fault(made))


def test_server_tcp():
    return torment_server_with(["-p", "0", "-w", "20"], clients_talk)


def test_server_path():
    return torment_server_with(["-U", "PATH"], clients_talk)


def test_server_datagrams():
    return torment_server_with(["-p", "0", "-u"], datagrams_talk)


def test_accept_fails_for_a_second():
    """Whatever accept() fails with, for as long as it lasts: the processor
    rests, who is connected is served, the log gets one line, and the next
    client is served the moment it ends."""
    place = scratch()

    def one(error):
        flag = os.path.join(place, str(error))
        with Server(program=SERVER, env={"FAULT": f"accept {error} 1 0",
                                         "FAULT_WHILE": flag}) as server:
            with server.connect() as served:
                ping(served)
                with open(flag, "w", encoding="ascii"):
                    pass
                # The first one's accept() may be under way already.
                with server.connect(), server.connect() as waiting:
                    server.errors.wait_for(rb"^Fail to connect, accept: ", 5)
                    waiting.sendall(b"ping\n")
                    before = server.cpu()
                    until = time.monotonic() + 1
                    while time.monotonic() < until:
                        ping(served)
                        time.sleep(0.05)  # the second itself is what is measured
                    used = server.cpu() - before
                    os.unlink(flag)
                    began = time.monotonic()
                    check(waiting.recv(5) == b"pong\n", "not served after the end")
                    check(time.monotonic() - began < 1, "served late")
                check(used < 0.2, f"used {used:.2f} s of processor time in a second")
            server.stop()
            said = server.errors.all()
            check(re.fullmatch(rb"Fail to connect, accept: [^\n]+\n", said), "said", said)

    # EINTR comes of signals only, and those end.
    return all_at_once(lambda fault: one(fault[1]),
                       [("accept", error, 1) for error in errors_of("accept")
                        if error != errno.EINTR])


def test_no_thread_for_a_while():
    """pthread_create() fails for everybody: each is told so, the earlier ones
    are served, and so is the next one after it ends."""
    flag = os.path.join(scratch(), "flag")
    with Server(program=SERVER, env={"FAULT": f"pthread_create {errno.EAGAIN} 1 0",
                                     "FAULT_WHILE": flag}) as server:
        with server.connect() as served:
            ping(served)
            rest = server.at_rest()
            with open(flag, "w", encoding="ascii"):
                pass
            for _ in range(50):
                with server.connect() as client:
                    check(receive_all(client) ==
                          b"No thread for you: Resource temporarily unavailable\n", "no words")
            ping(served)
            os.unlink(flag)
            server.serves()
            server.comes_to_rest(rest)
        server.stop()


PIECES = (b"ping\necho  a  b \r\nfoo\n" + b"x" * 4095 + b"\necho " + b"y" * 4090 + b"\n" +
          b"z" * 4096 + b"\n" + b"ping\nquit\nping\n")
PIECES_REPLIES = (b"pong\n a  b\nUnsupported command: foo\nUnsupported command: " + b"x" * 64 +
                  b"...\n" + b"y" * 4090 + b"\nLine too long, limit 4096 bytes\npong\n")


def test_server_byte_by_byte():
    """recv() and send() take one byte each time, or are interrupted every other
    time, or both."""
    short = "recv short 1 0,send short 1 0,poll short 1 0"
    often = ",".join(f"{call} {errno.EINTR} 1 0 2"
                     for call in ("recv", "send", "poll", "accept", "nanosleep"))
    for faults in (short, often, often + "," + short):
        with Server("-w", "20", program=SERVER, env={"FAULT": faults}) as server:
            rest = server.at_rest()
            for _ in range(3):
                with server.connect() as client:
                    converse(client, PIECES, PIECES_REPLIES)
            server.comes_to_rest(rest)
            server.stop()


# ---- The client ----


def run_client(options, requests, faults=None, counts_to=None):
    environment = dict(os.environ)
    if faults:
        environment["FAULT"] = faults
    if counts_to:
        environment["FAULT_COUNTS"] = counts_to
    return subprocess.run([CLIENT, *options], input=requests, env=environment, timeout=PATIENCE,
                          capture_output=True, check=False)


def torment_client(server, options, requests, replies):
    """Each call of ./client fails once."""
    place = scratch()
    count_path = os.path.join(place, "counts")
    whole = run_client(options, requests, counts_to=count_path)
    check((whole.returncode, whole.stdout) == (0, replies), "without a fault:", whole)

    def one(fault):
        result = run_client(options, requests, "{0} {1} {2} {2}".format(*fault))
        said = [line for line in result.stderr.splitlines()
                if not line.startswith((b"Trying ", b"Connected to ",
                                        b"Connection closed by foreign host."))]
        check(result.returncode in (0, 1), "exit status", result.returncode, said)
        # With -u, what was not sent has no reply either.
        check(len(said) <= 1 + ("-u" in options), "said", said)
        # After `quit` has been read the server may cut us off: a good end.
        cut_off = b"quit" in requests and fault[:2] in (
            ("recv", errno.ECONNRESET), ("send", errno.ECONNRESET), ("send", errno.EPIPE))
        if result.returncode == 0 and not cut_off:
            check(result.stdout == replies, "exit status 0, but printed", result.stdout[:100])
        else:
            check(replies.startswith(result.stdout) or
                  "-u" in options and replies.endswith(result.stdout),
                  "printed", result.stdout[:100])
            # A reader who left is the one thing that needs no words.
            if fault[:2] != ("write", errno.EPIPE):
                check(said and re.match(rb"Fail to |Replies that did not come", said[0]) or
                      b"Connection closed by foreign host." in result.stderr,
                      "exit status 1, but said", result.stderr)

    note = all_at_once(one, every_fault(counts(count_path)))
    server.serves() if "-u" not in options else None
    return note


def test_client_tcp():
    with Server() as server:
        return torment_client(server, ["127.0.0.1", str(server.port)], REQUESTS, REPLIES)


def test_client_patient():
    with Server() as server:
        return torment_client(server, ["-w", "5", "localhost", str(server.port)],
                              REQUESTS[:-5], REPLIES)


def test_client_path():
    path = os.path.join(scratch(), "socket")
    with Server("-U", path) as server:
        return torment_client(server, ["-U", path], REQUESTS, REPLIES)


def test_client_datagrams():
    with Server("-u") as server:
        return torment_client(server, ["-u", "127.0.0.1", str(server.port)],
                              b"ping\necho  a  b\n", b"pong\n a  b\n")


def test_client_datagrams_path():
    path = os.path.join(scratch(), "socket")
    before = set(os.listdir("/tmp"))
    with Server("-u", "-U", path) as server:
        note = torment_client(server, ["-u", "-U", path], b"ping\necho  a  b\n", b"pong\n a  b\n")
    return note


def test_client_byte_by_byte():
    """Reads and writes of one byte, and an interrupt every other time."""
    short = ",".join(f"{call} short 1 0" for call in ("read", "write", "send", "recv"))
    often = ",".join(f"{call} {errno.EINTR} 1 0 2" for call in ("read", "write", "send", "recv"))
    with Server() as server:
        for faults in (short, often, often + "," + short):
            result = run_client(["127.0.0.1", str(server.port)], PIECES[:-10], faults)
            check(result.returncode == 0 and result.stdout == PIECES_REPLIES,
                  faults, result.returncode, result.stderr, len(result.stdout))


if __name__ == "__main__":
    run(globals(), sys.argv[1:])
