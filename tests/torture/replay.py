#!/usr/bin/env python3
"""What Spin tells of a mutant of stop.pml, forced upon the real program.

For each story server.c is built twice with replay.c, which holds the threads
where the story wants them: as it is, and with the line of the mutant changed.
The first must do what it promises, the second must be seen to fail.
"""
import functools
import os
import pathlib
import signal
import subprocess
import sys

import model
from victim import PATIENCE, Server, check, run, scratch

WRAPPED = ("accept", "recv", "pthread_kill", "fcntl")


def replies(server, count):
    """What clients get that wait in the backlog, with their requests, at the stop."""
    clients = [server.connect() for _ in range(count)]
    for client in clients:
        client.sendall(b"ping\n")
    server.process.send_signal(signal.SIGTERM)
    got = []
    for client in clients:
        with client:
            try:
                got.append(client.recv(100))
            except ConnectionResetError:
                got.append(b"reset")
    return got


def closed(server):
    """Whether the client's thread leaves, or the server ends without it."""
    with server.connect():
        server.log.wait_for(rb"opened: fd")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        server.log.wait_for(rb"Server Stopped\.")
    return b" closed." in server.log.bytes


def complaint(server):
    """What the log says when a client's thread runs the signal's handler."""
    with server.connect():
        server.process.wait(PATIENCE)
    server.log.wait_for(rb"Server Stopped\.")
    return server.errors.all()


BACKLOG = [("listen(listening_socket, SOMAXCONN)", "listen(listening_socket, 2)"),
           ("SOMAXCONN + STOP_ROUNDS", "2 + STOP_ROUNDS")]
SWITCH = "    fcntl(listening_socket, F_SETFL, O_NONBLOCK);\n"
KILL = "pthread_kill(each->thread, SIGURG);"

# The mutant's name; what is changed for both builds; the mutant's line; what is
# looked at; what the server answers, and what the mutant does.
STORIES = (
    ("no_rounds", [], [(KILL, "if (stop_rounds == 1) " + KILL)], closed, True, False),
    ("stopping_last", [], [("    stopping = true;\n", ""), (SWITCH, SWITCH + "    stopping = true;\n")],
     complaint, b"", b"Fail to connect, accept: Resource temporarily unavailable\n"),
    ("no_draining", [], [("after_stop < SOMAXCONN + STOP_ROUNDS + 3", "after_stop < 1")],
     lambda server: replies(server, 2), [b"pong\n"] * 2, [b"pong\n", b"reset"]),
    ("no_room_for_failures", BACKLOG, [("2 + STOP_ROUNDS + 3", "2 + 3")],
     lambda server: replies(server, 3), [b"pong\n"] * 3, [b"reset"] * 3),
)


def build(name, edits):
    program = os.path.join(scratch(), name)
    pathlib.Path(program + ".c").write_text(model.edited(model.read("server.c"), edits, "server.c"))
    subprocess.run(["cc", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-g", "-I.", "-pthread",
                    "-o", program, program + ".c", "handler.c", "tests/torture/replay.c"]
                   + [f"-Wl,--wrap={call}" for call in WRAPPED], check=True)
    return program


def replay(name, both, mutation, look, good, bad):
    check(name in model.MUTANTS, "stop.pml has no mutant", name)
    for kind, edits, wanted in (("server", both, good), ("mutant", both + mutation, bad)):
        with Server(program=build(kind, edits), env={"REPLAY": name}) as server:
            seen = look(server)
            check(server.process.wait(PATIENCE) == 0, kind, "ended with", server.process.returncode)
        check(seen == wanted, f"{kind}: {look.__doc__ or 'replies'}: {seen}, not {wanted}")
    return f"{good} with server.c, {bad} with the mutant"


if __name__ == "__main__":
    run({f"test_{story[0]}": functools.partial(replay, *story) for story in STORIES}, sys.argv[1:])
