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
import select
import socket
import struct
import sys
import threading
import time

from victim import Server, check, converse, eventually, ping, run, scratch

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


if __name__ == "__main__":
    run(globals(), sys.argv[1:])
