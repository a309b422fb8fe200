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

    tests/torture/faults.py [NAME...]      OBJECTS is the directory of the programs
"""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from victim import (PATIENCE, Server, check, converse, eventually, in_time, patiently, ping,
                    receive_all, run, scratch, waits_in)

OBJECTS = os.environ.get("OBJECTS", "build/default")
SERVER = os.path.join(OBJECTS, "faulty-server")
CLIENT = os.path.join(OBJECTS, "faulty-client")

# What each call may fail with. Numbers below 0 are getaddrinfo(3)'s own.
ERRORS = {
    "accept": "ECONNABORTED EINTR EMFILE ENFILE ENOBUFS ENOMEM EPROTO EPERM EAGAIN ENETDOWN "
              "ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ETIMEDOUT",
    "bind": "EADDRINUSE EACCES EADDRNOTAVAIL ENOMEM EROFS ENOENT",
    "close": "EINTR EIO",
    "connect": "ECONNREFUSED ETIMEDOUT ENETUNREACH EACCES EADDRNOTAVAIL EAGAIN EINTR",
    "freopen": "EMFILE ENFILE ENOENT ENOMEM",
    "fstat": "ENOMEM",
    "fwrite": "ENOSPC EPIPE EIO EINTR",
    "getaddrinfo": (-3, -4, -2, -10, -11),
    "getnameinfo": (-4, -10, -12),
    "getsockname": "ENOBUFS",
    "listen": "EADDRINUSE EOPNOTSUPP",
    "lstat": "ENOENT EACCES ENOMEM",
    "malloc": "ENOMEM",
    "open": "EMFILE ENFILE ENOENT EACCES",
    "poll": "EINTR ENOMEM",
    "pthread_attr_init": "ENOMEM",
    "pthread_attr_setdetachstate": "EINVAL",
    "pthread_attr_setstacksize": "EINVAL",
    "pthread_cond_timedwait": "ETIMEDOUT",
    "pthread_create": "EAGAIN ENOMEM EPERM",
    "pthread_detach": "EINVAL",
    "pthread_kill": "EAGAIN ESRCH",
    "read": "EINTR EIO EISDIR EAGAIN",
    "recv": "EINTR EAGAIN ECONNRESET ETIMEDOUT ENOMEM EHOSTUNREACH",
    "send": "EINTR EAGAIN EPIPE ECONNRESET ENOBUFS ENOMEM ETIMEDOUT",
    "setsockopt": "ENOMEM EINVAL ENOPROTOOPT",
    "shutdown": "ENOTCONN ENOBUFS",
    "socket": "EMFILE ENFILE ENOBUFS ENOMEM EACCES EAFNOSUPPORT",
    "sysconf": "EINVAL",
    "unlink": "EACCES EBUSY ENOENT",
    "write": "EINTR EPIPE EIO ENOSPC",
}

# Calls that are not made to fail, and why.
NO_FAULT = {
    "cannot fail": "exit free freeaddrinfo gai_strerror getpid pthread_self umask "
                   "__errno_location __memcpy_chk __h_errno_location",
    "fails for a wrong argument only, which is a constant here":
        "clock_gettime setvbuf signal __sysv_signal bsd_signal pthread_sigmask sigaction sigemptyset "
        "sigaddset pthread_cond_signal pthread_mutex_lock pthread_mutex_unlock",
    "fails as those do, but is looked at: see refused_and_gone": "fcntl",
    "returns only to be called again": "pause",
    "works on memory": "memchr memcmp memcpy memmove memset snprintf strchr strcmp strcpy strlen "
                       "strncmp strspn strtoul strerror getopt __posix_getopt",
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
        if call not in ERRORS:
            continue
        for error in errors_of(call):
            for turn in range(1, number + 1):
                yield call, error, turn


def all_at_once(try_one, faults):
    """Runs them in parallel; the first words of all that failed."""
    wrong = []

    def attempt(fault):
        try:
            patiently(lambda: try_one(fault))
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
        # EAGAIN is how recv() says that the idle limit has passed.
        came = re.sub(rb"Timed out after \d+ seconds\n$", b"", came)
        if came != REPLIES:
            broken += 1
            check(REPLIES.startswith(came) or came.startswith(b"No thread for you: "), came)
    check(broken <= 1, broken, "clients suffered from one fault")


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
        server.port = server.find_port()
        rest = server.at_rest()
        talk(server)
        server.comes_to_rest(rest)
        server.stop()
        said = server.errors.all()
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
                pathlib.Path(flag).touch()
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
                    in_time(began, 1, "service")
                check(used < 0.2, f"used {used:.2f} s of processor time in a second")
            server.stop()
            said = server.errors.all()
            check(re.fullmatch(rb"Fail to connect, accept: [^\n]+\n", said), "said", said)

    # These two tell of one signal, and of one connection.
    return all_at_once(lambda fault: one(fault[1]),
                       [("accept", error, 1) for error in errors_of("accept")
                        if error not in (errno.EINTR, errno.ECONNABORTED)])


def test_one_failure_of_accept():
    """A connection that was gone before it was accepted, and a signal, get no
    word and no rest; anything else gets a line."""

    def one(fault):
        with Server(program=SERVER, env={"FAULT": f"accept {fault[1]} 1 1"}) as server:
            server.serves()
            server.stop()
            lines = server.errors.all().splitlines()
            check(len(lines) == (fault[1] not in (errno.ECONNABORTED, errno.EINTR)), "said", lines)

    return all_at_once(one, [("accept", error, 1) for error in errors_of("accept")])


def test_no_thread_for_a_while():
    """pthread_create() fails for everybody: each is told so, the earlier ones
    are served, and so is the next one after it ends."""
    flag = os.path.join(scratch(), "flag")
    with Server(program=SERVER, env={"FAULT": f"pthread_create {errno.EAGAIN} 1 0",
                                     "FAULT_WHILE": flag}) as server:
        with server.connect() as served:
            ping(served)
            rest = server.at_rest()
            pathlib.Path(flag).touch()
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
    often = ",".join(f"{call} {errno.EINTR} 1 0 2" for call in ("recv", "send", "poll", "accept"))
    for faults in (short, often, often + "," + short):
        with Server("-w", "20", program=SERVER, env={"FAULT": faults}) as server:
            rest = server.at_rest()
            for _ in range(3):
                with server.connect() as client:
                    converse(client, PIECES, PIECES_REPLIES)
            server.comes_to_rest(rest)
            server.stop()


def test_no_hole_in_the_replies():
    """One send() fails in the middle of many replies, and the next would not. What
    comes is a beginning of them, and nothing behind it."""
    numbers = [b"%d\n" % number for number in range(1000, 2000)]
    came = b""
    with Server("-U", os.path.join(scratch(), "socket"), program=SERVER,
                env={"FAULT": f"send {errno.EAGAIN} 2 2"}) as server:
        with server.connect() as client, contextlib.suppress(ConnectionResetError):
            client.sendall(b"".join(numbers))
            while some := client.recv(65536):
                came += some
        check(came and b"".join(b"Unsupported command: " + each for each in numbers).startswith(came),
              "came", came[:100], "...", came[-100:])
        server.stop()


def test_server_ends_with_a_reason():
    """What else can go wrong at the start, with options of its own."""
    path = os.path.join(scratch(), "socket")
    stale_socket(path)
    for options, fault, reason in (
            ("-p 0 -q", f"freopen {errno.EMFILE} 1 1", "open /dev/null: Too many open files"),
            ("-p 0 -6", f"socket {errno.EAFNOSUPPORT} 1 1",
             "bind *:0: Address family not supported by protocol"),
            # EAI_SYSTEM: errno has the reason, and faulty.c has set it.
            ("-p 0 -4", "getaddrinfo -11 1 1", "bind *:0: Input/output error"),
            (f"-U {path}", f"unlink {errno.EACCES} 1 1", f"bind {path}: Permission denied")):
        result = subprocess.run([SERVER, *options.split()], timeout=PATIENCE, check=False,
                                env={**os.environ, "FAULT": fault}, capture_output=True)
        check((result.returncode, result.stdout, result.stderr.decode()) ==
              (1, b"", f"Fail to start server, {reason}\n"), options, fault, "came to", result)


def test_the_second_address_of_a_name():
    """The name of -b has two, and the first can't be bound: 192.0.2.1 is none of
    ours."""
    with Server("-b", "127.0.0.1", program=SERVER, env={"FAULT": "getaddrinfo odd 1 1"}) as server:
        server.serves()
        server.stop()


def test_signal_during_the_lookup():
    """The lookup of a name may take long. Till it is over a signal means the end,
    and no orderly stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        result = subprocess.run([SERVER, "-p", "0"], timeout=PATIENCE, capture_output=True,
                                env={**os.environ, "FAULT": f"getaddrinfo sig{int(number)} 1 1"},
                                check=False)
        check((result.returncode, result.stdout) == (-number, b""), result)


def test_peers_of_every_address():
    """What the log calls a peer that is none of ours. An IPv4 address that was
    mapped (::ffff:0:0/96) is shown as one, and no other is."""
    for address, shown in (("2001:db8::1", None), ("1::ffff:c000:201", None),
                           ("::1:0:0:ffff:c000:201", None), ("::ffff:0:c000:201", None), ("::fffe:c000:201", None),
                           ("::ffff:192.0.2.1", "192.0.2.1")):
        with Server(program=SERVER, env={"FAULT": "accept odd 1 1",
                                         "FAULT_PEER": address}) as server:
            server.serves()
            said = server.log.wait_for(rb"^Connection from (.*):1208 opened: .*, (.*), 1208\]$")
            check(said[1].decode() == (shown or f"[{address}]"), address, "is called", said[1])
            check(said[2].decode() == (shown or address), address, "is called", said[2])
            server.stop()


def test_refused_and_gone():
    """The client that there is no place for has left, or can't be told: nobody
    waits for it to hang up. One line of the log says so, also where there is no
    thread to be had."""
    for fault in (f"send {errno.EPIPE} 1 0", f"fcntl {errno.EPERM} 1 1"):
        place = os.path.join(scratch(), "counts")
        with Server("-m", "1", program=SERVER, env={
                "FAULT": fault + f",pthread_create {errno.EAGAIN} 2 0",
                "FAULT_COUNTS": place}) as server:
            with server.connect(), server.connect() as refused:
                check(receive_all(refused) == b"", "words that could not be sent")
            server.stop()
            said = server.errors.all()
            check(re.fullmatch(rb"Connection from \S+ refused: Too many clients, limit 1\n", said),
                  "said", said)
        check(counts(place).get("send", 0) <= 1, "sent again")
        check("shutdown" not in counts(place), "waited for")


def test_path_on_another_device():
    """The stop leaves a socket file that is not ours: there the inode may be the
    same, and the device is not."""
    path = os.path.join(scratch(), "socket")
    with Server("-U", path, program=SERVER, env={"FAULT": "lstat odd 2 2"}) as server:
        server.stop()
        check(os.path.exists(path), "another's file is gone")


def test_hang_up_has_an_end():
    """A client that said quit and stays is waited for a second, however often
    the waiting is interrupted."""
    with Server(program=SERVER, env={"FAULT": f"recv {errno.EINTR} 2 0"}) as server:
        rest = server.at_rest()
        with server.connect() as client:
            client.sendall(b"quit\n")
            check(receive_all(client) == b"", "a reply to quit")
            server.comes_to_rest(rest)
        server.stop()


# ---- The server's stop ----


def test_signal_just_before_the_call():
    """accept() does not wait when the signal came a moment before.
    The first client's requests are there by then, since the call that the signal
    comes before is the one after the second client: they are answered."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with Server(program=SERVER, env={"FAULT": f"accept sig{int(number)} 3 3"}) as server:
            with server.connect() as client:
                client.sendall(REQUESTS)
                with server.connect():
                    came = receive_all(client)
                check(came == REPLIES, "was answered", came, "not", REPLIES)
            server.ends()


def test_signal_in_another_thread():
    """The kernel may give the stop's signal to any thread. Here a client's thread
    gets it, while the main thread waits in accept()."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with Server(program=SERVER, env={"FAULT": f"recv sig{int(number)} 3 3"}) as server:
            with server.connect() as client:
                ping(client)
                eventually(lambda: waits_in(server.pid, "accept"), "a wait in accept()")
                ping(client)
                check(receive_all(client) == b"", "a word after the stop")
            server.ends()


def test_stop_has_an_end():
    """Clients that never cease to come, descriptors that are never free, and a
    client whose thread can't be woken: each loop ends by its bound. The first
    pthread_kill() works: a client's thread may take the signal and wake the main
    thread, as in signal_in_another_thread."""
    for faults in (f"accept {errno.EINTR} 1 0", f"accept {errno.EMFILE} 2 0",
                   f"pthread_kill {errno.EAGAIN} 2 0,"
                   f"pthread_cond_timedwait {errno.ETIMEDOUT} 1 0"):
        with Server(program=SERVER, env={"FAULT": faults}) as server:
            with contextlib.ExitStack() as clients:
                if not faults.startswith(f"accept {errno.EINTR} "):
                    ping(clients.enter_context(server.connect()))
                server.stop()


def test_stop_finds_bytes_at_hand():
    """recv() may be interrupted although there are bytes (unix(7) sockets look at
    signals first): at the stop they are answered all the same. Here it is each
    time, from before they come until the stop has begun."""
    place = scratch()
    path, flag = os.path.join(place, "socket"), os.path.join(place, "flag")
    with Server("-U", path, program=SERVER, env={"FAULT": f"recv {errno.EINTR} 1 0",
                                                 "FAULT_WHILE": flag}) as server:

        def turns():
            since = server.cpu()
            eventually(lambda: server.cpu() > since + 0.02, "a few turns")

        with server.connect() as client:
            ping(client)
            pathlib.Path(flag).touch()
            # A call that is under way takes this, and is the last that does.
            client.sendall(b"echo at ")
            turns()
            client.sendall(b"hand\n")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: not os.path.exists(path), "the stop")
            turns()
            os.unlink(flag)
            came = receive_all(client)
            if not came:
                in_time(began, 1.4, "the stop")  # a client has 1.5 s then
            check(came == b"at hand\n", "not answered:", came)
        server.ends()


# ---- The client ----


def run_client(options, requests, faults=None, counts_to=None):
    environment = dict(os.environ)
    if faults:
        environment["FAULT"] = faults
    if counts_to:
        environment["FAULT_COUNTS"] = counts_to
    # From a file, whose end is there from the beginning: when the end of a pipe
    # comes is up to us, and so is the exit status.
    with tempfile.TemporaryFile() as file:
        file.write(requests)
        file.seek(0)
        return subprocess.run([CLIENT, *options], stdin=file, env=environment, timeout=PATIENCE,
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
        check(len(said) <= 1, "said", said)
        # If the last piece finds the connection broken it is a matter of luck
        # which thread learns of it first.
        cut_off = fault[0] == "send" and fault[1] in (errno.EPIPE, errno.ECONNRESET)
        if result.returncode == 0 and not cut_off:
            check(result.stdout == replies, "exit status 0, but printed", result.stdout[:100])
        else:
            check(replies.startswith(result.stdout), "printed", result.stdout[:100])
            check(result.returncode == 0 or said and said[0].startswith(b"Fail to ") or
                  b"Connection closed by foreign host." in result.stderr,
                  "exit status 1, but said", result.stderr)

    note = all_at_once(one, every_fault(counts(count_path)))
    server.serves()
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


def test_client_ends_with_a_reason():
    """What can go wrong with options of its own."""
    with Server() as server:
        host = f"127.0.0.1:{server.port}"
        for options, fault, reason in (
                # EAI_SYSTEM: errno has the reason, and faulty.c has set it.
                ("", "getaddrinfo -11 1 1", "Input/output error"),
                # What connect() says when SO_SNDTIMEO has passed, socket(7).
                ("-w 2", f"connect {errno.EINPROGRESS} 1 1", "Timed out after 2 seconds")):
            result = run_client([*options.split(), *host.split(":")], b"ping\n", fault)
            said = result.stderr.decode().splitlines()[-1]
            check((result.returncode, said, result.stdout) ==
                  (1, f"Fail to connect, {host}: {reason}", b""), options, fault, "came to", result)


def test_client_tries_each_address():
    """A name with three: nobody answers at the first, and the third is not tried."""
    with Server() as server:
        result = run_client(["127.0.0.1", str(server.port)], REQUESTS,
                            f"getaddrinfo odd 1 1,connect {errno.ECONNREFUSED} 1 1")
        check((result.returncode, result.stdout) == (0, REPLIES), result)
        tried = re.findall(rb"^Trying (.*)\.\.\.$", result.stderr, re.MULTILINE)
        check(tried == [b"192.0.2.1", b"127.0.0.1"], "tried", tried)


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
