#!/usr/bin/env python3
"""Puts each bug of lab 15 into a copy of the sources and lets its tool find it.

    tests/labs/bugs.py              all of lab-notes/bugs/*.patch
    tests/labs/bugs.py 2 4          two of them

Each bug makes two tests: the tool reports it in the patched copy, in the words
that the lab shows, and the same tool, on the same load, has nothing to say
about the sources as they are. A tool that is missing skips both by name; with
CI=true in the environment that is a failure.
"""
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUGS = os.path.join(ROOT, "lab-notes", "bugs")
SOURCES = ("Makefile", "server.c", "client.c", "handler.c", "handler.h")
BOUND = 60  # seconds; valgrind on a busy machine takes a few


class Failure(Exception):
    """A test did not come out as it must."""


class Skip(Exception):
    """A tool is not there."""


class Process:
    """A program under test or a tool, never left behind, never waited for
    without a bound. What it says on `source` is kept in `text`."""

    def __init__(self, command, source="stdout", **options):
        options.setdefault("stderr", subprocess.STDOUT)
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE
                                      if source == "stdout"
                                      else subprocess.DEVNULL, **options)
        self.pipe = getattr(self.child, source)
        self.text = ""

    def wait_for(self, pattern, count=1):
        """Reads until the pattern has come `count` times; the last match."""
        deadline = time.monotonic() + BOUND
        while True:
            found = list(re.finditer(pattern, self.text, re.M))
            if len(found) >= count:
                return found[-1]
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
                raise Failure(f"waited {BOUND} s for {pattern!r}, got:\n"
                              + self.text)
            data = os.read(self.pipe.fileno(), 65536)
            if not data:
                raise Failure(f"ended without {pattern!r}:\n" + self.text)
            self.text += data.decode(errors="replace")

    def wait(self):
        try:
            return self.child.wait(BOUND)
        except subprocess.TimeoutExpired:
            raise Failure("does not end:\n" + self.text) from None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.child.kill()
        self.child.wait()
        self.pipe.close()


class Server(Process):
    """A server, run by a tool that writes its report to `report`."""

    def __init__(self, program, tool, report, environment=None):
        self.report = report
        self.pid = None
        super().__init__(tool + [program, "-4", "-p", "0"],
                         env=dict(os.environ, **(environment or {})))
        try:
            found = self.wait_for(r"^Listening on \*:(\d+), pid (\d+)")
        except Failure as failure:
            self.__exit__()
            if "unexpected memory mapping" in str(failure):
                raise Skip("ThreadSanitizer on this kernel "
                           "(sysctl vm.mmap_rnd_bits=28)") from None
            raise
        self.port, self.pid = int(found[1]), int(found[2])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), BOUND)

    def stop(self):
        """The orderly stop, which the tool survives; then its report."""
        os.kill(self.pid, signal.SIGTERM)
        self.wait_for(r"^Server Stopped\.$")
        self.wait()
        with open(self.report, encoding="utf-8", errors="replace") as file:
            return file.read()

    def __exit__(self, *error):
        # strace, when it is killed, lets go of the server and leaves it.
        if self.pid is not None and self.child.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        super().__exit__(*error)


def ask(client, request, reply):
    client.sendall(request)
    got = b""
    while len(got) < len(reply):
        some = client.recv(len(reply) - len(got))
        if not some:
            raise Failure(f"{request!r} was answered {got!r}, then the end")
        got += some
    if got != reply:
        raise Failure(f"{request!r} was answered {got!r}")


def two_clients(server):
    """Both connected at once; one leaves after the other.

    The second connects when the first has its answer: with bug 1 the first
    one's thread, if it is late, would serve the second, and nobody the first."""
    with server.connect() as first:
        ask(first, b"ping\n", b"pong\n")
        with server.connect() as second:
            ask(second, b"echo two\n", b"two\n")
            for count, client in enumerate((first, second), 1):
                client.sendall(b"quit\n")
                client.recv(1)
                client.close()
                server.wait_for(r"^Connection from \S+ closed\.$", count)


def wait_for_threads(server):
    """Until main() is alone: "closed" is not the last that a thread does, and
    of one that is not over memcheck would say that it leaks."""
    deadline = time.monotonic() + BOUND
    while len(os.listdir(f"/proc/{server.pid}/task")) > 1:
        if time.monotonic() > deadline:
            raise Failure("the clients are gone, their threads are not")
        time.sleep(0.01)


# ---- The tools: each returns what it reports, or "" -------------------------


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            raise Skip(tool)


def thread_sanitizer(copy):
    report = os.path.join(copy, "tsan")
    program = os.path.join(copy, "build", "thread", "server")
    with Server(program, [], report) as server:
        # It writes to standard error, which Server reads.
        with open(report, "w", encoding="utf-8"):
            pass
        two_clients(server)
        os.kill(server.pid, signal.SIGTERM)
        server.wait_for(r"^Server Stopped\.$")
        rest = server.pipe.read().decode(errors="replace")
        status = server.wait()
        report = server.text + rest
    found = "WARNING: ThreadSanitizer" in report
    if found != (status == 66):  # its exit status when it has warned
        raise Failure(f"exit status {status} and:\n{report}")
    return report if found else ""


def valgrind(copy, *options):
    need("valgrind")
    report = os.path.join(copy, "valgrind")
    with Server(os.path.join(copy, "server"),
                ["valgrind", "--log-file=" + report, *options],
                report) as server:
        two_clients(server)
        wait_for_threads(server)
        text = server.stop()
    found = re.search(r"ERROR SUMMARY: (\d+) errors", text)
    if found is None:
        raise Failure("no summary:\n" + text)
    return text if int(found[1]) else ""


def helgrind(copy):
    return valgrind(copy, "--tool=helgrind")


def memcheck(copy):
    return valgrind(copy, "--leak-check=full")


def strace(copy):
    """Of all calls on sockets those that fail because there is none."""
    need("strace")
    report = os.path.join(copy, "strace")
    with Server(os.path.join(copy, "server"),
                ["strace", "-f", "-Z", "-o", report, "-e",
                 "trace=accept,recvfrom,sendto,shutdown,close"],
                report) as server:
        with server.connect() as client:
            client.sendall(b"ping\nquit\n")
            while client.recv(64):
                pass
        server.wait_for(r"^Connection from \S+ closed\.$")
        return "".join(re.findall(r"^.*EBADF.*\n", server.stop(), re.M))


def tcpdump(copy):
    """The segments that reset a connection whose client was owed much."""
    need("tcpdump")
    if os.geteuid() != 0:
        raise Skip("root, for tcpdump")
    request = b"echo " + b"x" * 40 + b"\n"
    count = 200000
    got = 0

    def send(client):
        try:
            client.sendall(request * count + b"quit\n" + b"x" * 20000)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the reset that we are looking for

    with Server(os.path.join(copy, "server"), [], os.devnull) as server:
        with Process(["tcpdump", "-i", "lo", "-nn", "-l", "--immediate-mode",
                      f"src port {server.port} and "
                      "tcp[tcpflags] & tcp-rst != 0"]) as capture:
            capture.wait_for(r"listening on")
            with server.connect() as client:
                sender = threading.Thread(target=send, args=(client,))
                sender.start()
                try:
                    while some := client.recv(65536):
                        got += len(some)
                except ConnectionResetError:
                    pass
                sender.join(BOUND)
            server.wait_for(r"^Connection from \S+ closed\.$")
            server.stop()
            # Nobody listens there any more, so this is refused, by a reset too.
            # When tcpdump has shown that one it has shown all before it.
            with socket.socket() as last:
                last.bind(("127.0.0.1", 0))
                end = rf"^.* > 127\.0\.0\.1\.{last.getsockname()[1]}: .*$"
                if last.connect_ex(("127.0.0.1", server.port)) == 0:
                    raise Failure("it still listens")
            capture.wait_for(end)
            seen = re.findall(r"^.*Flags.*$", capture.text, re.M)
    seen = [line for line in seen if not re.match(end, line)]
    if not seen and got != count * (len(request) - len("echo ")):
        raise Failure(f"no reset, and yet {got} bytes of replies only")
    return "\n".join(seen)


# ---- The bugs -----------------------------------------------------------------

# The patch, the tool, the variant to build, and what the report must say.
CASES = (
    ("1-loop-variable", thread_sanitizer, "SANITIZE=thread",
     r"data race(.*\n)+?.* by main thread:\n(.*\n)+?.*admit(.*\n)+?"
     r".*Previous .* by thread T1:\n(.*\n)+?.*Location is stack of main thread"),
    ("2-count-without-lock", helgrind, "",
     r"Possible data race during write of size 8 .*\n"
     r".*Locks held: none\n.* leave_place "),
    ("3-thread-not-detached", memcheck, "",
     r"bytes in 2 blocks are possibly lost(.*\n)+?.*pthread_create"),
    ("4-close-too-early", strace, "",
     r'sendto\(4, "pong\\n", 5,.* = -1 EBADF(.*\n)+?.*close\(4\) += -1 EBADF'),
    ("5-close-with-unread-input", tcpdump, "", r"Flags \[R\.?\]"),
)


def copy_sources(directory, name):
    copy = os.path.join(directory, name)
    os.mkdir(copy)
    for source in SOURCES:
        shutil.copy2(os.path.join(ROOT, source), copy)
    return copy


def run(command, failure, **options):
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300,
                          **options)
    if done.returncode != 0:
        raise Failure(failure + "\n" + done.stdout)
    return done.stdout


def build(copy, variant):
    # A make that runs this test passes its own settings on: not into here.
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL",
                                   "SANITIZE", "RELEASE", "COVERAGE")}
    run(["make", "-s", "-C", copy] + [variant] * bool(variant),
        "does not compile:", env=environment)


def report_of(tool, copy, variant):
    build(copy, variant)
    return tool(copy)


def test_patched(directory, name, tool, variant, words):
    need("patch")
    copy = copy_sources(directory, name)
    said = run(["patch", "-p1", "--batch", "--forward", "-d", copy, "-i",
                os.path.join(BUGS, name + ".patch")],
               f"lab-notes/bugs/{name}.patch no longer applies to the sources; "
               "make it again:")
    # Where the lines have moved patch finds them, and leaves a file *.orig.
    if "offset" in said or "fuzz" in said:
        raise Failure(f"lab-notes/bugs/{name}.patch has drifted; make it again:\n"
                      + said)
    report = report_of(tool, copy, variant)
    if not report:
        raise Failure(f"{tool.__name__} reports nothing")
    if not re.search(words, report):
        raise Failure(f"{tool.__name__} reports something else:\n{report}")


def test_clean(directory, name, tool, variant, words):
    del name, words
    copy = os.path.join(directory, "as-they-are")
    if not os.path.exists(copy):
        copy_sources(directory, "as-they-are")
    report = report_of(tool, copy, variant)
    if report:
        raise Failure(f"{tool.__name__} reports:\n{report}")


def main():
    cases = [case for case in CASES
             if not sys.argv[1:] or case[0][0] in sys.argv[1:]]
    patches = sorted(name[: -len(".patch")] for name in os.listdir(BUGS)
                     if name.endswith(".patch"))
    in_ci = os.environ.get("CI") == "true"
    passed = failed = skipped = 0
    sys.stdout.reconfigure(line_buffering=True)
    # An exit that lets go of processes and files on the way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if patches != [case[0] for case in CASES]:
        print("FAIL lab-notes/bugs/ holds other patches than are tested: "
              + ", ".join(patches))
        failed += 1
    with tempfile.TemporaryDirectory(prefix="bugs.") as directory:
        for case in cases:
            for test, says in ((test_patched, "finds"),
                               (test_clean, "finds nothing without")):
                what = f"{case[1].__name__} {says} {case[0]}"
                try:
                    test(directory, *case)
                    print(f"ok   {what}")
                    passed += 1
                except Skip as missing:
                    print(f"SKIP {what}: missing {missing}")
                    failed += in_ci
                    skipped += not in_ci
                except (Failure, OSError, subprocess.SubprocessError) as error:
                    print(f"FAIL {what}: {error}")
                    failed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
