"""What the torture scripts share: a server to torment, and a runner.

A test is a function named test_*. It passes by returning, fails by any
exception, and skips by raising Skip, which is a failure where CI=true.
PROGRAMS names the directory of ./server and ./client, WRAPPER a command to run
them under. Every wait has a bound: PATIENCE seconds.
"""

import contextlib
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

PATIENCE = 30
PROGRAMS = os.environ.get("PROGRAMS", ".")
WRAPPER = os.environ.get("WRAPPER", "").split()
# A sanitized or emulated server is slower, and larger.
PLAIN = not WRAPPER and os.path.basename(PROGRAMS) not in ("address", "thread")


class Skip(Exception):
    """There is no way to run this test here."""


def check(condition, *what):
    """assert, but also under python -O, and with what was seen."""
    if not condition:
        raise AssertionError(" ".join(str(word) for word in what))


class Late(AssertionError):
    """A promise of time was not kept: by the server, or by a busy machine."""


def in_time(began, limit, what):
    """The seconds since `began`, which must be fewer than the limit."""
    took = time.monotonic() - began
    if took >= limit:
        raise Late(f"{what} took {took:.1f} s, limit {limit} s")
    return took


def patiently(test):
    """A machine with other work may stop any process for a second. So what was
    late is tried three times, and has failed if it was late each time."""
    for _ in range(2):
        try:
            return test()
        except Late as late:
            print(f"once more: {late}", flush=True)
    return test()


def eventually(condition, what, patience=PATIENCE):
    """Waits until condition() is true, and returns what it returned."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, "never came:", what)
        select.select([], [], [], 0.002)


class Lines:
    """The lines of a pipe, as they come, read by a thread of its own, so that
    the program at the other end never waits for us."""

    def __init__(self, pipe):
        self.bytes = b""
        self.ended = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.read, args=(pipe,), daemon=True)
        self.thread.start()

    def read(self, pipe):
        with pipe:
            while True:
                try:
                    some = os.read(pipe.fileno(), 65536)
                except OSError:
                    some = b""
                with self.changed:
                    self.bytes += some
                    self.ended = not some
                    self.changed.notify_all()
                if not some:
                    return

    def wait_for(self, pattern, patience=PATIENCE):
        """The first match of a regular expression, which must come."""

        def found():
            return re.search(pattern, self.bytes, re.MULTILINE) or self.ended

        with self.changed:
            self.changed.wait_for(found, patience)
            match = re.search(pattern, self.bytes, re.MULTILINE)
        check(match, "did not come:", pattern, "but", self.bytes[-300:])
        return match

    def all(self):
        """Everything, to the end of file."""
        with self.changed:
            check(self.changed.wait_for(lambda: self.ended, PATIENCE), "no end of file")
            return self.bytes


class Server:
    """./server, started and listening; in a `with` it is surely gone after."""

    def __init__(self, *options, stdout=None, stderr=None, env=None, program=None, listening=True):
        words = [program or os.path.join(PROGRAMS, "server"), *options]
        if "-p" not in options and "-U" not in options:
            words += ["-p", "0"]
        self.path = options[options.index("-U") + 1] if "-U" in options else None
        self.process = subprocess.Popen(
            WRAPPER + words, stdin=subprocess.DEVNULL, stdout=stdout or subprocess.PIPE,
            stderr=stderr or subprocess.PIPE, env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.log = Lines(self.process.stdout) if stdout is None else None
        self.errors = Lines(self.process.stderr) if stderr is None else None
        self.port = None
        try:
            if listening and "-q" in options or listening and stdout is not None:
                self.port = self.find_port()
            elif listening:
                line = self.log.wait_for(rb"^Listening on (.*?)(?::(\d+))?, pid")
                self.port = int(line[2]) if line[2] else None
        except BaseException:
            self.kill()
            raise

    def find_port(self):
        """-q: nobody says which port, so ss(8) does. None for a path."""

        def look():
            check(self.process.poll() is None, "the server ended")
            shown = subprocess.run(["ss", "-Hltxnp"], stdout=subprocess.PIPE, check=True).stdout
            return re.search(rb"(:\d+)?\s+\S+\s+users:.*\bpid=%d," % self.pid, shown)

        port = eventually(look, "a listening socket")[1]
        return int(port[1:]) if port else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def address(self):
        return self.path or ("127.0.0.1", self.port)

    def connect(self, patience=PATIENCE):
        client = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        client.settimeout(patience)
        try:
            client.connect(self.address())
        except BaseException:
            client.close()
            raise
        return client

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def cpu(self):
        """Seconds of processor time that it has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        """Bytes of memory."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text("ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def at_rest(self):
        """What must be there again when all clients have left."""
        return self.descriptors(), self.threads()

    def comes_to_rest(self, rest):
        # ThreadSanitizer's own thread begins with the first of the program's.
        own = 1 if os.path.basename(PROGRAMS) == "thread" else 0
        again = (rest, (rest[0], rest[1] + own))
        eventually(lambda: self.at_rest() in again, f"descriptors, threads {rest}")

    def serves(self, patience=PATIENCE):
        """A new client's whole conversation."""
        with self.connect(patience) as client:
            converse(client, b"ping\necho  a  b\nquit\n", b"pong\n a  b\n")

    def stop(self, number=signal.SIGTERM, within=5.0):
        """The orderly stop, in time."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.ends()
        return in_time(began, within, "the stop")

    def ends(self):
        """The orderly end: exit status 0, and the last line of the log."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        check(status == 0, "exit status", status)
        last = self.log.all()[-17:] if self.log else b""
        check(last in (b"", b"\nServer Stopped.\n"), "the log ends with", last)


def receive_all(client):
    """Up to the end of file; a reset is an exception."""
    replies = []
    while True:
        some = client.recv(65536)
        if not some:
            return b"".join(replies)
        replies.append(some)


def converse(client, requests, replies):
    """Sends all of it, and reads to the end of the conversation."""
    client.sendall(requests)
    came = receive_all(client)
    check(came == replies, requests[:60], "was answered", came[:200], "not", replies[:200])


def ping(client):
    client.sendall(b"ping\n")
    came = client.recv(5, socket.MSG_WAITALL)
    check(came == b"pong\n", "ping was answered", came)


def waits_in(pid, place):
    """True if a thread waits in a function of the kernel named so."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            if place in pathlib.Path(f"/proc/{pid}/task/{task}/wchan").read_text("ascii"):
                return True
    return False


def scratch():
    """A directory that the runner removes."""
    return tempfile.mkdtemp(dir=runner_directory)


runner_directory = None


def run(tests, names):
    """Runs the functions test_* of a module's globals(); exits."""
    global runner_directory
    passed = failed = skipped = 0
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    runner_directory = tempfile.mkdtemp(prefix="torture-")
    try:
        for name, test in list(tests.items()):
            name = name.removeprefix("test_")
            if not callable(test) or f"test_{name}" not in tests or names and name not in names:
                continue
            began = time.monotonic()
            try:
                note = patiently(test)
                passed += 1
                result = "passed"
            except Skip as reason:
                if os.environ.get("CI") == "true":
                    failed += 1
                    result = f"FAILED, since CI must not skip: {reason}"
                else:
                    skipped += 1
                    result = f"SKIPPED: {reason}"
                note = None
            except Exception:  # the others are to be run all the same
                failed += 1
                note = None
                result = "FAILED\n" + traceback.format_exc(limit=-3)
            print(f"{name}: {result} ({time.monotonic() - began:.1f} s)"
                  f"{': ' + note if note else ''}", flush=True)
    finally:
        shutil.rmtree(runner_directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed and not skipped else 0)
