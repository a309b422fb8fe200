#!/usr/bin/env python3
"""Is the model in stop.pml the server's, does it hold, and can it fail?

    model.py                  compare, check, and try each mutant
    model.py story MUTANT     the shortest way to its failure, in lines of server.c
    model.py story SED        the same for the model that this sed script makes

A mutant takes one line out of the model, or moves it. Spin has to find fault
with each. What the model quotes (//@) must be in the function of that name, in
that order, and what server.c does with the state that threads share must be
quoted. Everything is built below build/model/.
"""
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
MODEL = os.path.join(ROOT, "tests", "torture", "stop.pml")
BUILD = os.path.join(ROOT, "build", "model")
BOUND = 600  # seconds for one run of Spin, on a busy machine
SHARED = re.compile(r"\b(stopping|stop_rounds|connected)\b|&lock\b"
                    r"|&everybody_left\b|SIGURG\)|O_NONBLOCK|^ring\.next =")

# What is checked: signals, how often accept() fails, whether rounds may be over
# at any time, and what the compiler is told.
RUNS = {
    "one signal, and an accept that fails": (1, 1, 0, "-DSAFETY"),
    "two signals": (2, 0, 0, "-DSAFETY"),
    "one signal, and rounds of any length": (1, 0, 1, "-DSAFETY"),
    "no run goes on for ever": (1, 0, 0, "-DNP"),
}

# Signals, failures, rounds of any length: what it takes to see a mutant fail.
FAULTY = {"no_room_for_failures": (1, 1, 0)}

LEAVE = "inline leave() {\n"
MUTANTS = {
    "no_rounds": [("receiving[i] }", "receiving[i] && stop_rounds == 1 }")],
    "stopping_last": [
        ("    d_step { stopping || ",
         "    nonblocking = true; // fcntl(listening_socket, F_SETFL, O_NONBLOCK);\n    d_step { stopping || ")],
    "no_draining": [("{ after_stop < SOMAXCONN + STOP_ROUNDS + 3 ->", "{ after_stop < 1 ->")],
    "no_room_for_failures": [("{ after_stop < SOMAXCONN + STOP_ROUNDS + 3 ->", "{ after_stop < SOMAXCONN + 3 ->")],
    "count_without_lock": [
        ("    connected--; //@ connected--;\n", ""),
        ("proctype serve(byte me) {\n", "proctype serve(byte me) {\n    byte copy;\n"),
        (LEAVE, LEAVE + "    copy = connected; // load connected\n"
                        "    connected = copy - 1; // store connected - 1\n")],
    "signal_before_lock": [
        ("    :: connected == 0 -> waiting = false //@", "    :: false //@"),
        (LEAVE, LEAVE + "    if :: connected == 1 -> waiting = false // pthread_cond_signal()\n"
                        "    :: else fi;\n")],
    "no_second_look": [("again = connected > 0 && stop_rounds < STOP_ROUNDS; //@", "again = false; //@")],
    "no_switch": [("    nonblocking = true; //@", "    skip; //@")],
    "no_sigurg_for_accept": [(":: interrupted = accepting fi", ":: true fi")],
    "no_look_at_what_has_arrived": [("woken[me] && !(request[me] || hung_up[me]) ->", "woken[me] ->")],
    "close_after_unlock": [
        ("    d_step { close_it(me) }; //@ close(client->socket);\n", ""),
        ("    pthread_mutex_unlock() //@ pthread_mutex_unlock(&lock);\n}\n/* A client's",
         "    pthread_mutex_unlock(); d_step { close_it(me) }\n}\n/* A client's")],
    "inherited_non_blocking": [("    if :: stopping -> inherited = false :: else fi;", "    skip;")],
}


class Failure(Exception):
    """What was found wrong, in words."""


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def run(command, directory, bound=BOUND):
    done = subprocess.run(command, cwd=directory, check=False, text=True, timeout=bound,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def edited(text, edits, what):
    for old, new in edits:
        if text.count(old) != 1:
            raise Failure(f"{what} no longer has exactly one: {old.strip()}")
        text = text.replace(old, new)
    return text


# ---- The model is held to the code -------------------------------------------


def functions(text):
    """The lines of each function, without comments: name -> list."""
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.S)
    found, name = {}, None
    for line in text.split("\n"):
        head = re.match(r"[A-Za-z].*?(\w+)\([^;]*$", line)
        if head:
            name = head[1]
        elif line == "}":
            name = None
        elif name:
            found.setdefault(name, []).append(line.strip())
    return found


def quotes(text):
    """(name of the process or inline, quoted line) in their order."""
    name = None
    for line in text.split("\n"):
        head = re.match(r"(?:inline|(?:active .*)?proctype) (\w+)\(", line)
        name = head[1] if head else name
        quote = re.search(r"//@ (.*)", line)
        if quote and name:
            yield name, quote[1].strip()


def compare():
    server = functions(read(os.path.join(ROOT, "server.c")))
    source = {**functions(read(os.path.join(ROOT, "handler.c"))), **server}
    quoted, wrong = {}, []
    for name, line in quotes(read(MODEL)):
        lines, before = source.get(name, []), quoted.setdefault(name, [])
        at = before[-1][0] + 1 if before else 0
        if line in lines[at:]:
            before.append((lines.index(line, at), line))
        else:
            wrong.append(f"{name}() has no such line"
                         + (" behind the one before: " if line in lines else ": ") + line)
    for name, lines in server.items():
        seen = [line for _, line in quoted.get(name, [])]
        for line in lines:
            if SHARED.search(line) and lines.count(line) > seen.count(line):
                wrong.append(f"the model leaves out what {name}() does: {line}")
    if wrong:
        raise Failure("stop.pml and the sources differ:\n  " + "\n  ".join(wrong))
    return f"{sum(map(len, quoted.values()))} lines of the sources are in the model, in their order"


# ---- Spin ---------------------------------------------------------------------


def spin(name, text, settings, how):
    """Lets Spin look for a fault. Returns what it prints, in which directory."""
    directory = os.path.join(BUILD, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "stop.pml"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(directory, "settings"), "w", encoding="utf-8") as file:
        file.write(" ".join(settings))
    options = ["-m10000", "-w20"] + (["-l"] if how == "-DNP" else [])
    said = ""
    for command in (["spin", "-a"] + settings + ["stop.pml"],
                    ["cc", "-O2", "-w"] + how.split() + ["-o", "pan", "pan.c"], ["./pan"] + options):
        status, said = run(command, directory)
        if status != 0:
            raise Failure(f"{name}: {' '.join(command)}: {said}")
    if "errors:" not in said or re.search(r"max search depth too small|out of memory", said):
        raise Failure(f"{name}: the search was not complete:\n{said}")
    os.remove(os.path.join(directory, "pan"))
    return directory, said


def settings_of(signals, failures, any_time):
    return [f"-DSIGNALS={signals}", f"-DFAILURES={failures}", f"-DANY_TIME={any_time}"]


def numbers(said):
    states, depth, errors = (int(re.search(what, said)[1]) for what in (
        r"(\d+) states, stored", r"depth reached (\d+)", r"errors: (\d+)"))
    return states, depth, errors


def holds(name):
    signals, failures, any_time, how = RUNS[name]
    _, said = spin(name.replace(" ", "-").replace(",", ""), read(MODEL),
                   settings_of(signals, failures, any_time), how)
    states, depth, errors = numbers(said)
    if errors:
        raise Failure(f"{name}: {re.search(r'pan:1: .*', said)[0]}")
    # What is never reached is not checked, either. The one step that must not be
    # reached is the false alarm in accept_clients().
    never = re.findall(r'stop\.pml:(\d+), state \d+, "(.*)"', said)
    if failures and [text for _, text in never] != ["assert(0)"]:
        raise Failure(f"{name}: never reached: {never}")
    return f"{name}: {states:,} states, depth {depth}"


def find_fault(name, edits, how="-DSAFETY"):
    text = edited(read(MODEL), edits, "stop.pml") if isinstance(edits, list) else edits
    directory, said = spin(name, text, settings_of(*FAULTY.get(name, (1, 0, 0))), how)
    fault = re.search(r"pan:1: (.*?) \(at depth", said)
    words = fault and fault[1].replace("invalid end state", "nobody can take a step any more")
    return directory, words and re.sub(r"(assertion violated) .{60,}", r"\1 (the last of main())", words)


def fails(name):
    _, fault = find_fault(name, MUTANTS[name])
    if not fault:
        raise Failure(f"mutant {name}: Spin finds no fault with it")
    return f"mutant {name}: {fault}"


# ---- A counterexample as a story ----------------------------------------------


def story(name):
    if name in MUTANTS:
        edits = MUTANTS[name]
    else:
        status, edits = run(["sed", name, MODEL], ROOT)
        if status != 0 or edits == read(MODEL):
            raise Failure(f"{name}: no such mutant, and no sed script that changes the model: "
                          + ", ".join(MUTANTS))
    directory, fault = find_fault(name if name in FAULTY else "story", edits, "-DSAFETY -DBFS")
    if not fault:
        raise Failure("Spin finds no fault")
    model = read(os.path.join(directory, "stop.pml")).split("\n")
    status, trail = run(["spin", "-t", "-p"] + settings_of(*FAULTY.get(name, (1, 0, 0))) + ["stop.pml"], directory)
    accepted, clients, before = -1, {}, {}
    for line in trail.split("\n"):
        born = re.match(r"Starting serve with pid (\d+)", line)
        if born:
            clients[born[1]] = accepted
        step = re.match(r"\s*\d+:\s+proc +(\d+) \((\w+):\d+\) \S*stop\.pml:(\d+) .*?\[(.*)\]", line)
        if not step:
            continue
        pid, who, at, what = step[1], step[2], int(step[3]), step[4]
        accepted += what == "backlog?who"
        said = re.search(r"//@? (.*)", model[at - 1])
        left_out = what == "(1)" and "//@" in model[at - 1]
        if what.startswith("else") or left_out or not said or before.get(pid) == (at, step[1]):
            continue
        before[pid] = (at, step[1])
        who = {"serve": f"thread {clients.get(pid)}", "client": f"client {pid}",
               "on_stop": "handler"}.get(who, who)
        to = re.match(r"woken\[(\d)\] = \(", what)
        print(f"{who:9} " + (f"pthread_kill(thread {to[1]}, SIGURG);" if to else said[1]))
    print(fault)


# ---- All of it ------------------------------------------------------------------


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    sys.stdout.reconfigure(line_buffering=True)
    os.makedirs(BUILD, exist_ok=True)
    if shutil.which("spin") is None:
        failed = os.environ.get("CI") == "true"
        print(f"model: no spin: 0 passed, {int(failed)} failed, {int(not failed)} skipped")
        sys.exit(failed)
    if sys.argv[1:2] == ["story"]:
        try:
            story(sys.argv[2])
        except Failure as failure:
            sys.exit(f"model: {failure}")
        return
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = ([pool.submit(compare)] + [pool.submit(holds, name) for name in RUNS]
                + [pool.submit(fails, name) for name in MUTANTS])
        for job in jobs:
            try:
                print("ok  ", job.result())
                passed += 1
            except (Failure, OSError, subprocess.SubprocessError) as failure:
                print("FAIL", failure)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
