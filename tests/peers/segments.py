#!/usr/bin/env python3
"""build/segments against tcpdump, in a network namespace of its own (root).

A tool that is missing skips its test by name; with CI=true that is a failure.
In the environment: PROGRAMS, the directory of ./server and ./client ("."), and
SEGMENTS, the program ("build/segments").
"""
import collections
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 30
PROGRAMS = os.environ.get("PROGRAMS", ".")
SEGMENTS = os.environ.get("SEGMENTS", "build/segments")
CLONE_NEWNET = 0x40000000


class Skipped(Exception):
    """A test that can't be run here, and why."""


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            raise Skipped(f"{tool} is missing")


class Program:
    """A program with pipes, ended at the end of a `with`."""

    def __init__(self, *words):
        self.words = words
        self.taken = b""
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def reads(self, text, stream="stdout"):
        """Reads until the text has come; what came before it is kept."""
        pipe = getattr(self.process, stream)
        until = time.monotonic() + PATIENCE
        seen = self.taken if stream == "stdout" else b""
        while text.encode() not in seen:
            left = until - time.monotonic()
            if left < 0 or not select.select([pipe], [], [], left)[0]:
                raise AssertionError(
                    f"{self.words}: no {text!r} in {seen!r}")
            block = os.read(pipe.fileno(), 65536)
            if not block:
                raise AssertionError(
                    f"{self.words}: ended with {seen!r} before {text!r}")
            seen += block
        before, _, after = seen.partition(text.encode())
        if stream == "stdout":
            self.taken = after
        return before.decode()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output.decode(), errors.decode()


def server(*options):
    program = Program(os.path.join(PROGRAMS, "server"), *options)
    program.reads("Listening on ")
    where = program.reads("\n")
    match = re.match(r"\S*:(\d+)", where)
    program.port = match.group(1) if match else None
    return program


# ---- Segments

NAMES = {"F": "FIN", "S": "SYN", "R": "RST", "P": "PSH", ".": "ACK"}
ORDER = ["FIN", "SYN", "RST", "PSH", "ACK"]


def of_tcpdump(line):
    """(sender, receiver, flags, seq, ack, length); None for what it omits."""
    match = re.match(
        r"\S+ IP ([\d.]+)\.(\d+) > ([\d.]+)\.(\d+): Flags \[([FSRP.]+)\]"
        r"(?:, seq (\d+)(?::\d+)?)?(?:, ack (\d+))?.*, length (\d+)", line)
    if match is None:
        return None
    one, one_port, two, two_port, letters, seq, ack, length = match.groups()
    flags = sorted((NAMES[letter] for letter in letters), key=ORDER.index)
    if "SYN" in flags or "RST" in flags:
        seq = ack = None  # absolute numbers
    return (f"{one}:{one_port}", f"{two}:{two_port}", " ".join(flags),
            seq, ack, length)


def of_segments(line, pattern=re.compile(
        r"(handshake|data|close) +(\S+) (->|<-) (\S+)  ([A-Z ]+?) +"
        r"seq (\d+) ack (\d+) length (\d+)(  .*)?$")):
    match = pattern.match(line)
    assert match is not None, line
    _, left, arrow, right, flags, seq, ack, length, _ = match.groups()
    if arrow == "<-":
        left, right = right, left
    return left, right, flags, seq, ack, length


def namespace():
    """From here on the process is alone on a loopback of its own."""
    if os.geteuid() != 0:
        raise Skipped("root is needed")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise Skipped("unshare: " + os.strerror(ctypes.get_errno()))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def traffic(ours):
    """What a segment can be: handshake, data large and small, FIN, RST."""
    port = int(ours.port)
    client = os.path.join(PROGRAMS, "client")
    for text in ("ping\necho a  b\nquit\n", "ping\n" * 5000, "",
                 "echo " + "x" * 4000 + "\n"):
        subprocess.run([client, "127.0.0.1", ours.port], input=text.encode(),
                       capture_output=True, check=True, timeout=PATIENCE)
    # A reset: closed with SO_LINGER 0, and, the other, with unread input.
    for linger in (True, False):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"ping\n")
            if linger:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                b"\1\0\0\0\0\0\0\0")
            else:
                select.select([peer], [], [], PATIENCE)
    # One port of the client twice, and another port of the server.
    other = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(other.getsockname()):
        other.accept()[0].close()
    for _ in range(2):
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            peer.bind(("127.0.0.1", 20001))
            peer.connect(("127.0.0.1", port))
            peer.sendall(b"quit\n")
            assert peer.recv(1) == b""
    # The last segment of all: nobody listens there any more.
    ours.stop()
    with socket.socket() as last:
        last.bind(("127.0.0.1", 20000))
        assert last.connect_ex(("127.0.0.1", port)) != 0


def sees_what_tcpdump_sees():
    need("tcpdump", "ip")
    namespace()
    with server("-p", "0") as ours, \
            Program(SEGMENTS, ours.port) as watcher, \
            Program("tcpdump", "-i", "lo", "-nn", "-l", "--immediate-mode",
                    "-s", "128", "-B", "8192",  # or it drops some under load
                    "tcp", "port", ours.port) as dump:
        watcher.reads(f"Watching TCP port {ours.port}, fd 3\n")
        dump.reads("listening on lo", "stderr")
        traffic(ours)
        came = watcher.reads(
            f"127.0.0.1:20000 <- 127.0.0.1:{ours.port}  RST ACK ")
        came = came[:came.rindex("\n") + 1]
        dumped = dump.reads(f"IP 127.0.0.1.{ours.port} > 127.0.0.1.20000: ")
        dumped = dumped[:dumped.rindex("\n") + 1]

    ours_by, theirs_by = (collections.defaultdict(list) for _ in range(2))
    for line in came.splitlines():
        segment = of_segments(line)
        ours_by[segment[:2]].append(segment[2:])
    for line in dumped.splitlines():
        segment = of_tcpdump(line)
        assert segment is not None, line
        theirs_by[segment[:2]].append(segment[2:])
    assert ours_by.keys() == theirs_by.keys()
    count = 0
    for ends, theirs in theirs_by.items():
        # Two processors may deliver two connections' segments in another
        # order to two watchers; within one direction it is the sender's.
        mine = ours_by[ends]
        assert len(mine) == len(theirs), (ends, mine, theirs)
        for own, other in zip(mine, theirs):
            for one, two in zip(own, other):
                assert two is None or one == two, (ends, own, other)
            count += 1
    flags = {segment[0] for mine in ours_by.values() for segment in mine}
    assert {"SYN", "SYN ACK", "ACK", "PSH ACK", "FIN ACK", "RST ACK"} <= flags
    print(f"  {count} segments, the same in both: {', '.join(sorted(flags))}")


def says_what_it_needs():
    """Without the privilege: one line, exit status 1."""
    if os.geteuid() != 0:
        raise Skipped("root is needed, to give it up")

    def drop():
        os.setgid(65534)
        os.setuid(65534)
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        copy = shutil.copy(SEGMENTS, scratch + "/segments")
        os.chmod(copy, 0o755)
        done = subprocess.run([copy], preexec_fn=drop, text=True, check=False,
                              capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == ("segments needs root or CAP_NET_RAW: "
                           "Operation not permitted\n"), done.stderr


def main():
    tests = says_what_it_needs, sees_what_tcpdump_sees
    passed = failed = skipped = 0
    for test in tests:
        try:
            test()
            passed += 1
            print(f"passed: {test.__name__}", flush=True)
        except Skipped as reason:
            if os.environ.get("CI") == "true":
                failed += 1
                print(f"FAILED: {test.__name__}: {reason}", flush=True)
            else:
                skipped += 1
                print(f"SKIPPED: {test.__name__}: {reason}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAILED: {test.__name__}: {error!r}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
