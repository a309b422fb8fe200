#!/usr/bin/python3
"""Hostile clients, a thousand at a time, beside an honest one.

Each kind of malice lasts a few seconds, while the honest client pings; every
one of its replies must be right, and the slowest hundredth of them (p99) is
printed. Afterwards no descriptor and no thread is left.

    tests/torture/hostile.py [NAME...]     MANY=1000 SECONDS=3 in the environment
"""

import contextlib
import os
import random
import re
import select
import socket
import struct
import sys
import threading
import time

from victim import (Server, check, converse, eventually, in_time, ping, receive_all, run,
                    scratch)

MANY = int(os.environ.get("MANY", "1000"))
SECONDS = float(os.environ.get("SECONDS", "3"))
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, 0 seconds


class Honest(threading.Thread):
    """One client that pings all the while, and measures."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.enough = threading.Event()
        self.inside = threading.Event()
        self.times = []
        self.problem = None

    def run(self):
        try:
            with self.server.connect() as client:
                if not self.server.path:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self.enough.wait(0.002):
                    began = time.perf_counter()
                    text = b"echo %d  %d\nping\n" % (len(self.times), random.randrange(10**9))
                    client.sendall(text)
                    expected = text[5:].replace(b"ping", b"pong")
                    came = client.recv(len(expected), socket.MSG_WAITALL)
                    check(came == expected, came, "instead of", expected)
                    self.times.append(time.perf_counter() - began)
                    self.inside.set()
                converse(client, b"quit\n", b"")
        except Exception as problem:  # told in the main thread
            self.problem = problem
            self.inside.set()

    def __enter__(self):
        self.start()
        # It has its place before the others fill the house.
        self.inside.wait(30)
        return self

    def __exit__(self, *_):
        self.enough.set()
        self.join(30)

    def verdict(self):
        check(self.problem is None, "the honest client:", self.problem)
        check(len(self.times) > 10, "only", len(self.times), "pings")
        times = sorted(self.times)
        return (f"{len(times)} honest pings, p50 {times[len(times) // 2] * 1000:.2f} ms, "
                f"p99 {times[len(times) * 99 // 100] * 1000:.2f} ms")


class Crowd:
    """Many sockets, driven by one epoll."""

    def __init__(self, server):
        self.server = server
        self.epoll = select.epoll()
        self.members = {}

    def join(self, first=b""):
        member = socket.socket(socket.AF_UNIX if self.server.path else socket.AF_INET)
        member.setblocking(False)
        member.connect_ex(self.server.address())
        self.members[member.fileno()] = member
        self.epoll.register(member.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        if first:
            with contextlib.suppress(OSError):
                member.send(first)
        return member

    def leave(self, member, reset=False):
        del self.members[member.fileno()]
        if reset:
            member.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        member.close()

    def ready(self, patience=0.05):
        for descriptor, _ in self.epoll.poll(patience):
            if descriptor in self.members:
                yield self.members[descriptor]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members.values():
            member.close()
        self.epoll.close()


def torment(behave, *options, stay=False, seconds=SECONDS):
    """A server, an honest client, and MANY who do as `behave` says, until
    `seconds` have passed. It is called over and over with the crowd, which with
    `stay` is still there when the server stops."""
    with Server("-m", str(MANY + 10), *options) as server:
        rest = server.at_rest()
        with Honest(server) as honest, Crowd(server) as crowd:
            until = time.monotonic() + seconds
            while time.monotonic() < until and honest.problem is None:
                behave(crowd)
            honest.enough.set()
            honest.join(30)
            if stay:
                took = server.stop()
                return honest.verdict() + f", stopped in {took:.1f} s"
        note = honest.verdict()
        # Those in the backlog come first, and may fill the house once more.
        eventually(lambda: is_served(server), "service")
        server.comes_to_rest(rest)
        server.stop()
        return note


def is_served(server):
    try:
        server.serves()
    except (AssertionError, ConnectionError):
        return False
    return True


def fill(crowd, first=b""):
    while len(crowd.members) < MANY:
        crowd.join(first)


def test_connect_and_vanish():
    def behave(crowd):
        member = crowd.join()
        crowd.leave(member, reset=random.random() < 0.5)

    return torment(behave)


def test_reset_after_each_request():
    def behave(crowd):
        fill(crowd, b"ping\necho 1\nfoo\n")
        for member in list(crowd.members.values())[:100]:
            crowd.leave(member, reset=True)

    return torment(behave)


def test_byte_by_byte():
    """One byte a second each, with -w 3: not idle, so not timed out, and
    nobody else's business. Every fifth brings a reply."""
    text = b"ping\n"
    step = {"next": 0.0, "at": 0, "replies": 0}

    def behave(crowd):
        fill(crowd)
        if time.monotonic() >= step["next"]:
            step["next"] = time.monotonic() + 1
            for member in crowd.members.values():
                with contextlib.suppress(BlockingIOError):
                    member.send(text[step["at"] % len(text):][:1])
            step["at"] += 1
        for member in crowd.ready():
            with contextlib.suppress(BlockingIOError):
                came = member.recv(4096)
                check(came == b"pong\n", "came", came)
                step["replies"] += 1

    note = torment(behave, "-w", "3", seconds=max(6, SECONDS))
    check(step["replies"] >= MANY, "only", step["replies"], "replies")
    return note


def greedy(*options, stay=False):
    """Each asks for megabytes and reads none of it, until the server's thread
    waits in send() and so does not read either."""
    stuck = set()

    def behave(crowd):
        fill(crowd)
        for member in crowd.ready():
            with contextlib.suppress(OSError):
                try:
                    for _ in range(100):
                        member.send(REQUEST_FOR_MUCH)
                except BlockingIOError:
                    stuck.add(member.fileno())

    # By a path: TCP's buffers grow, and the kernel would hold gigabytes for us.
    note = torment(behave, "-U", os.path.join(scratch(), "socket"), *options, stay=stay)
    check(len(stuck) > MANY * 9 // 10, "only", len(stuck), "clients were stuck")
    return note


REQUEST_FOR_MUCH = (b"echo " + b"m" * 4000 + b"\n") * 8


def test_never_reading():
    return greedy()


def test_never_reading_with_a_limit():
    return greedy("-w", "1")


def test_never_reading_at_the_stop():
    """The stop with a thousand of them still there: in time all the same."""
    return greedy(stay=True)


def test_a_hundred_megabytes_of_one_line():
    """One reply to it, and the server's memory as before."""
    with Server() as server, server.connect() as client:
        ping(client)
        before = server.resident()
        junk = b"j" * (1 << 20)
        for _ in range(100):
            client.sendall(junk)
        after = server.resident()
        converse(client, b"\nping\nquit\n", b"Line too long, limit 4096 bytes\npong\n")
        check(after - before < 200 << 10, "memory grew by", after - before)
        server.stop()
        return f"resident memory grew by {(after - before) >> 10} KB"


def test_random_bytes():
    dice = random.Random(1208)

    def behave(crowd):
        fill(crowd)
        for member in crowd.ready():
            with contextlib.suppress(OSError):
                member.send(dice.randbytes(dice.randrange(1, 3000)))
            with contextlib.suppress(OSError):
                while member.recv(65536):
                    pass

    return torment(behave)


FORGERIES = (
    b"\x1b[2J\x1b[31mred\n",
    b"\x1b]0;title\x07\n",
    b"x\rConnection\n",
    b"a\x00b\n",
    b"foo\x0bServer\x85Stopped.\n",
    b"\xe2\x80\xae\n",
    b"%s%n%x\n",
    b"\\x41\n",
    b"y" * 1000 + b"\n",
)


def test_forged_log_lines():
    """Nothing that a client sends can move the cursor or begin a line."""
    with Server() as server:
        for forgery in FORGERIES:
            with server.connect() as client:
                client.sendall(forgery + b"quit\n")
                receive_all(client)
        server.stop()
        log = server.log.all()
        check(re.fullmatch(rb"[ -~\n]*", log), "unprintable bytes in the log")
        for line in log.splitlines():
            check(re.fullmatch(rb"Server Started \.\.\.|Listening on .*|Server Stopped\.|"
                               rb"Connection from 127\.0\.0\.1:\d+ (opened: .*|closed\.)|"
                               rb"Unsupported command: [!-~]{1,260}", line), "forged:", line)
        check(log.count(b"Unsupported command: ") == len(FORGERIES), "lines missing")


def test_log_volume():
    """A flood of unsupported commands: the log shows a hundred, and counts the rest
    in one line."""
    flood = b"x\n" * 2_000_000
    with Server() as server:
        with server.connect() as client:
            before = len(server.log.bytes)
            threading.Thread(target=client.sendall, args=(flood,), daemon=True).start()
            left = len(flood) // 2 * len(b"Unsupported command: x\n")
            while left > 0:
                came = client.recv(1 << 20)
                check(came, "the end came early")
                left -= len(came)
            converse(client, b"quit\n", b"")
        server.stop()
        log = server.log.all()[before:]
        check(log.count(b"Unsupported command: x\n") == 100, "shown:", log[:3000])
        check(b"\nUnsupported commands not shown: 1999900\n" in log, "miscounted:", log[-200:])
        return f"{len(flood)} bytes sent, {len(log)} bytes logged"


def test_quiet_survives_silently():
    """-q through all kinds of malice: not a byte on standard output, and only
    errors on standard error, of which there are none."""
    path = os.path.join(scratch(), "socket")
    with Server("-q", "-U", path, "-w", "1") as server:
        with Crowd(server) as crowd:
            fill(crowd, b"foo\n\x1b[2J\nping\n" + b"x" * 5000 + b"\n")
            for member in list(crowd.members.values())[::2]:
                crowd.leave(member)
            server.serves()
        server.comes_to_rest((4, 1))
        server.stop()
        check(server.log.all() == b"", server.log.all())
        check(server.errors.all() == b"", server.errors.all())


def test_full_house():
    """MANY who want in where 10 may: each is told so, or finds the door closed,
    and those inside notice nothing."""
    with Server("-m", "11") as server:
        rest = server.at_rest()
        with Honest(server) as honest, contextlib.ExitStack() as inside:
            for _ in range(10):
                ping(inside.enter_context(server.connect()))
            told = closed = 0
            until = time.monotonic() + SECONDS
            while time.monotonic() < until and honest.problem is None:
                with server.connect() as client:
                    try:
                        words = receive_all(client)
                        check(words == b"Too many clients, limit 11\n", "told", words)
                        told += 1
                    except ConnectionResetError:
                        closed += 1
            check(told > 0, "nobody was told")
        note = honest.verdict()
        server.comes_to_rest(rest)
        full = time.monotonic()
        server.serves()
        in_time(full, 1, "service")
        server.stop()
        return f"{told} told, {closed} reset, " + note


if __name__ == "__main__":
    run(globals(), sys.argv[1:])
