#!/usr/bin/env python3
"""Real programs against ./server -u, and build/segments against tcpdump.

    tests/peers/datagrams.py peers      nc, socat, ncat, bash and ./client as peers
    tests/peers/datagrams.py segments   in a network namespace of its own (root)

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

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

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


# ---- Peers


def talks(server_program, *words, sender=None):
    """A peer that is typed into gets each reply, and nothing else."""
    with Program(*words) as peer:
        peer.type("ping\n")
        assert peer.reads("pong\n") == ""
        peer.type("nonsense\n")
        line = server_program.reads(": Unsupported command: nonsense\n")
        assert line.startswith("Datagram from " + (sender or "")), line
        peer.type("echo Hello,  socket\n")
        assert peer.reads("Hello,  socket\n") == ""
        if sender is None:
            looks_connectionless(server_program)
        # Not by SIGKILL: it has files of its own to remove.
        peer.stop()


def looks_connectionless(server_program):
    """lsof and netstat: one row, `UDP *:PORT`, and none for any client."""
    pid, port = str(server_program.process.pid), server_program.port
    need("lsof", "netstat")
    rows = subprocess.run(["lsof", "-nP", "-a", "-p", pid, "-i"], check=True,
                          capture_output=True, text=True).stdout.splitlines()
    assert len(rows) == 2, rows
    assert re.search(rf"IPv6 +\d+ +0t0 +UDP \*:{port} *$", rows[1]), rows[1]
    rows = [row for row in subprocess.run(
        ["netstat", "-tuanp"], check=True, capture_output=True,
        text=True).stdout.splitlines() if f" {pid}/" in row]
    assert len(rows) == 1, rows
    assert re.match(rf"udp6 +0 +0 :::{port} +:::\* +{pid}/", rows[0]), rows


def with_nc():
    need("nc")
    with server("-u", "-p", "0") as ours:
        talks(ours, "nc", "-u", "127.0.0.1", ours.port)
        talks(ours, "nc", "-u", "::1", ours.port)


def with_nc_on_a_path():
    need("nc")
    with tempfile.TemporaryDirectory() as scratch:
        path, own = scratch + "/server", scratch + "/own"
        with server("-u", "-U", path) as ours:
            talks(ours, "nc", "-uU", "-s", own, path, sender=own)


def with_ncat():
    need("ncat")
    with server("-u", "-p", "0") as ours:
        talks(ours, "ncat", "-u", "127.0.0.1", ours.port)


def with_socat():
    need("socat")
    with server("-u", "-p", "0") as ours:
        talks(ours, "socat", "-", f"UDP:127.0.0.1:{ours.port}")
        talks(ours, "socat", "-", f"UDP6:[::1]:{ours.port}")
        talks(ours, "socat", "-", f"UDP-SENDTO:127.0.0.1:{ours.port}")


def with_socat_on_a_path():
    need("socat")
    with tempfile.TemporaryDirectory() as scratch:
        path, own = scratch + "/server", scratch + "/own"
        with server("-u", "-U", path) as ours:
            talks(ours, "socat", "-", f"UNIX-SENDTO:{path},bind={own}",
                  sender=own)
            # Without a path of its own it can't be answered.
            with Program("socat", "-u", "-", f"UNIX-SENDTO:{path}") as peer:
                peer.type("ping\n")
                ours.reads("Fail to answer (unbound), sendto: ", "stderr")


def with_bash():
    need("bash")
    # `read` would take one byte, and the kernel throw away the datagram's rest.
    script = """exec 3<>"/dev/udp/127.0.0.1/$1"
        while read -r line; do
            printf '%s\\n' "$line" >&3
            [ "$line" = nonsense ] || dd bs=4096 count=1 status=none <&3
        done"""
    with server("-u", "-p", "0") as ours:
        talks(ours, "bash", "-c", script, "bash", ours.port)


def with_our_client():
    client = os.path.join(PROGRAMS, "client")
    with server("-u", "-p", "0") as ours:
        talks(ours, client, "-u", "127.0.0.1", ours.port)
        talks(ours, client, "-u", "::1", ours.port)
    with tempfile.TemporaryDirectory() as scratch:
        with server("-u", "-U", scratch + "/server") as ours:
            os.environ["TMPDIR"] = scratch
            talks(ours, client, "-u", "-U", scratch + "/server",
                  sender=scratch + "/client-")
            del os.environ["TMPDIR"]
            assert ours.stop()[0] == 0
        assert os.listdir(scratch) == []


def our_client_and_another_user():
    """The server is somebody else, and may answer all the same; and the path that
    it answers to does not depend on anybody's working directory."""
    if os.getuid() != 0:
        raise Skipped("another user needs root")
    need("setpriv")
    client = os.path.abspath(os.path.join(PROGRAMS, "client"))
    with tempfile.TemporaryDirectory() as scratch:
        # The directories above the program may be closed to others.
        os.chmod(scratch, 0o755)
        shutil.copy(os.path.join(PROGRAMS, "server"), scratch)
        os.mkdir(scratch + "/theirs")
        os.chown(scratch + "/theirs", 65534, 65534)
        path = scratch + "/theirs/server"
        other = Program("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                        scratch + "/server", "-u", "-U", path)
        with other:
            other.reads("Listening on ")
            for place in "", ".":
                done = subprocess.run(
                    [client, "-u", "-w", str(PATIENCE), "-U", path], input="ping\n",
                    text=True, capture_output=True, timeout=2 * PATIENCE,
                    cwd=scratch, env={**os.environ, "TMPDIR": place}, check=False)
                assert (done.returncode, done.stdout) == (0, "pong\n"), done
            assert other.stop()[0] == 0


def our_client_and_a_stranger():
    """./client -u sends lines to any server, and prints its replies."""
    need("socat")
    with tempfile.TemporaryDirectory() as scratch:
        own = scratch + "/echo"
        with Program("socat", "-d", "-d", f"UNIX-RECVFROM:{own},fork",
                     "PIPE") as stranger:
            until = time.monotonic() + PATIENCE
            while not os.path.exists(own) and time.monotonic() < until:
                os.sched_yield()
            client = os.path.join(PROGRAMS, "client")
            done = subprocess.run([client, "-u", "-w", "20", "-U", own],
                                  input="What?\nsaid Alice\n", text=True,
                                  capture_output=True, timeout=PATIENCE)
            assert sorted(done.stdout.splitlines()) == ["What?", "said Alice"]
            assert done.returncode == 0, done.stderr
            stranger.process.terminate()


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


GROUPS = {
    "peers": [with_nc, with_nc_on_a_path, with_ncat, with_socat,
              with_socat_on_a_path, with_bash, with_our_client,
              our_client_and_another_user, our_client_and_a_stranger],
    "segments": [says_what_it_needs, sees_what_tcpdump_sees],
}


def main():
    if sys.argv[1:2] != [] and sys.argv[1] not in GROUPS:
        sys.exit(__doc__)
    tests = [test for name in sys.argv[1:] or GROUPS for test in GROUPS[name]]
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
