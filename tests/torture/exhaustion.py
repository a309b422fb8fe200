#!/usr/bin/python3
"""Nothing left: descriptors, threads, memory, backlog, and somewhere to write.

Who can't be served is told so, who is served notices nothing, and when there is
room again everybody is served at once.

    tests/torture/exhaustion.py [NAME...]
"""

import contextlib
import fcntl
import os
import pathlib
import re
import resource
import select
import signal
import socket
import sys
import time

from victim import (PATIENCE, PLAIN, Lines, Server, Skip, check, converse, eventually, in_time,
                    ping, receive_all, run, scratch, waits_in)


def small_pipe():
    """The ends of a pipe that 4096 bytes fill."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return read, write


def sip(client):
    """What a client that was turned away could read."""
    try:
        return receive_all(client)
    except ConnectionResetError:
        return b"reset"


def test_descriptors_gone_at_the_stop():
    """accept() finds no descriptor when the stop comes. The client in the backlog
    has sent its request: it is answered as soon as another one has left."""
    with Server() as server, server.connect() as served:
        ping(served)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (5, hard))
        with server.connect() as waiting:
            waiting.sendall(b"ping\n")
            server.errors.wait_for(rb"^Fail to connect, accept: Too many open files$")
            server.process.send_signal(signal.SIGTERM)
            check(receive_all(waiting) == b"pong\n", "not answered")
        server.stop()


def test_memory():
    """An address space of 64 MB: stacks are what takes it. Whoever gets no thread
    is told so."""
    if not PLAIN:
        raise Skip("a sanitizer's shadow takes terabytes of address space")
    with Server() as server:
        resource.prlimit(server.pid, resource.RLIMIT_AS, (64 << 20, 64 << 20))
        rest = server.at_rest()
        served, words = [], b"pong\n"
        while words == b"pong\n":
            check(len(served) < 3000, "3000 clients, and a thread for each")
            served.append(server.connect())
            served[-1].sendall(b"ping\n")
            try:
                words = served[-1].recv(100)
            except ConnectionResetError:
                words = b"reset"
        served.pop().close()
        check(words in (b"No thread for you: Resource temporarily unavailable\n",
                        b"No thread for you: Cannot allocate memory\n", b"reset"), words)
        server.errors.wait_for(rb"^Connection from .* refused: No thread for you: ")
        check(served, "nobody was served")
        for client in served:
            ping(client)
        for client in served:
            client.close()
        server.comes_to_rest(rest)
        began = time.monotonic()
        server.serves()
        in_time(began, 1, "full service")
        server.stop()
        return f"{len(served)} clients fitted"


def test_backlog_at_the_stop():
    """As many as the backlog holds have connected and sent their pings when the
    stop comes: each is answered, the last one, too."""
    with Server("-U", os.path.join(scratch(), "socket")) as server:
        os.kill(server.pid, signal.SIGSTOP)
        clients = []
        for _ in range(5000):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            if client.connect_ex(server.path) != 0:
                client.close()
                break
            client.sendall(b"ping\n")
            clients.append(client)
        check(len(clients) < 5000, "the backlog has no end")
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGCONT)
        wrong = []
        for number, client in enumerate(clients):
            client.settimeout(10)
            came = sip(client)
            client.close()
            if came != b"pong\n":
                wrong.append((number, came))
        server.ends()
        if wrong:
            in_time(began, 3, "the stop")  # whoever still waits has no time left then
        check(not wrong, len(wrong), "of", len(clients), "first and last:", wrong[:1], wrong[-1:])
        return f"{len(clients)} clients waited"


def test_full_disk():
    """Nothing that is logged can be written: /dev/full."""
    for more in ((), ("-q",)):
        with open("/dev/full", "wb") as full, Server(*more, stdout=full, stderr=full) as server:
            rest = server.at_rest()
            for _ in range(100):
                with server.connect() as client:
                    converse(client, b"foo\nping\nquit\n", b"Unsupported command: foo\npong\n")
            server.comes_to_rest(rest)
            server.stop()


def test_closed_output():
    """A pipe whose reader has left."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe, Server(stdout=pipe, stderr=pipe) as server:
        os.close(read)
        for _ in range(20):
            server.serves()
        server.stop()


def test_full_pipe_stop():
    """Without -q such a pipe makes the server wait, like any program, and the stop
    waits, too. A second Ctrl-C ends it at once. Which thread waits for the pipe,
    and with which locks, is a matter of luck: so sixteen servers."""
    place = scratch()
    with contextlib.ExitStack() as everything:
        servers = [stuck_server(everything, os.path.join(place, f"socket{turn}"))
                   for turn in range(16)]
        for server in servers:
            server.process.send_signal(signal.SIGINT)
        for server in servers:
            eventually(lambda: not caught(server, signal.SIGINT), "the first signal")
            check(server.process.poll() is None, "exit status", server.process.returncode)
            server.process.send_signal(signal.SIGINT)
            status = server.process.wait(PATIENCE)
            check(status == -signal.SIGINT, "exit status", status)


def caught(server, number):
    """True if the server has a handler for this signal."""
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text("ascii")
    mask = int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16)
    return bool(mask >> (number - 1) & 1)


def fill(pipe):
    """Until not a byte more fits."""
    os.set_blocking(pipe, False)
    for size in 4096, 1:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"." * size)
    os.set_blocking(pipe, True)


def test_full_pipe_at_the_stop():
    """The signal comes while a full pipe is waited for: by the main thread, for
    `opened`, or by a client's, for `closed`. Then it is read, and no line is
    missing."""
    for word in (b"opened", b"closed"):
        read, write = small_pipe()
        with contextlib.ExitStack() as everything:
            pipe = everything.enter_context(os.fdopen(write, "wb"))
            server = everything.enter_context(Server(stdout=pipe))
            log = b""
            for _ in range(60 if word == b"opened" else 20):
                client = everything.enter_context(server.connect())
                if word == b"closed":
                    ping(client)
                    everything.callback(client.close)
            if word == b"closed":
                log = os.read(read, 4096)
                fill(write)
                client.sendall(b"quit\n")
                client.close()
            eventually(lambda: waits_in(server.pid, "pipe_write"), "a full pipe")
            server.process.send_signal(signal.SIGINT)
            eventually(lambda: not caught(server, signal.SIGINT), "the stop")
            # Rounds of SIGURG pass, and none may interrupt the write.
            select.select([], [], [], 0.35)
            pipe.close()
            log += Lines(os.fdopen(read, "rb")).all()
            server.ends()
            counts = [len(re.findall(rb"Connection from .* %s" % it, log))
                      for it in (b"opened", b"closed")]
            check(counts[0] == counts[1] and counts[0] in (20, 60), "opened and closed:", counts)
            check(log.endswith(b"\nServer Stopped.\n"), log[-80:])


def test_signal_before_the_first_line():
    """A signal that comes when the server listens, and can't say so yet: the
    orderly stop follows."""
    read, write = small_pipe()
    os.write(write, b"." * 4096)
    path = os.path.join(scratch(), "socket")
    with os.fdopen(write, "wb") as pipe:
        server = Server("-U", path, stdout=pipe, listening=False)
    with server:
        eventually(lambda: waits_in(server.pid, "pipe_write"), "a full pipe")
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: not caught(server, signal.SIGINT), "the stop")
        log = Lines(os.fdopen(read, "rb")).all()
        server.ends()
        check(re.search(rb"\.Server Started \.\.\.\nListening on .*\nServer Stopped\.\n$", log),
              log[-200:])
        check(not os.path.exists(path), "the socket file is left")


def stuck_server(everything, path):
    """A server that waits for a pipe, with clients that wait for it."""
    read, write = small_pipe()
    everything.callback(os.close, read)
    with os.fdopen(write, "wb") as pipe:
        server = everything.enter_context(Server("-U", path, stdout=pipe))
    for number in range(120):
        client = everything.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        if client.connect_ex(path) == 0:
            with contextlib.suppress(OSError):
                client.send(b"quit\n")
        if number % 3:
            client.close()
    eventually(lambda: waits_in(server.pid, "pipe_write"), "a full pipe")
    return server


if __name__ == "__main__":
    run(globals(), sys.argv[1:])
