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
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from victim import Skip, check, run

MODEL = "tests/torture/stop.pml"
BUILD = "build/model"
BOUND = 600  # seconds for one run of Spin, on a busy machine
SHARED = re.compile(r"\b(stopping|stop_rounds|connected)\b|&lock\b"
                    r"|&everybody_left\b|SIGURG\)|O_NONBLOCK|^ring\.next =")

# What is checked: signals, how often accept() fails, whether rounds may be over
# at any time, and what the compiler is told.
ONE_SIGNAL = "-DSIGNALS=1 -DFAILURES=0 -DANY_TIME=0"
ONE_FAILURE = "-DSIGNALS=1 -DFAILURES=1 -DANY_TIME=0"
RUNS = {
    "one signal, and an accept that fails": (ONE_FAILURE, "-DSAFETY"),
    "two signals": ("-DSIGNALS=2 -DFAILURES=0 -DANY_TIME=0", "-DSAFETY"),
    "one signal, and rounds of any length": ("-DSIGNALS=1 -DFAILURES=0 -DANY_TIME=1", "-DSAFETY"),
    "no run goes on for ever": (ONE_SIGNAL, "-DNP"),
}

# What it takes to see a mutant fail, if that is more than one signal.
FAULTY = {"no_room_for_failures": ONE_FAILURE}

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


def read(path):
    return pathlib.Path(path).read_text("utf-8")


def edited(text, edits, what):
    for old, new in edits:
        check(text.count(old) == 1, what, "no longer has exactly one:", old.strip())
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
    server = functions(read("server.c"))
    source = {**functions(read("handler.c")), **server}
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
    check(not wrong, "stop.pml and the sources differ:\n  " + "\n  ".join(wrong))
    return f"{sum(map(len, quoted.values()))} lines of the sources are in the model, in their order"


# ---- Spin ---------------------------------------------------------------------


def spin(directory, command):
    """What Spin, or a program that it has made, says."""
    done = subprocess.run(command.split(), cwd=directory, check=False, text=True, timeout=BOUND,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(done.returncode == 0, command, "in", directory, "says:", done.stdout)
    return done.stdout


def search(name, text, settings, how):
    """Lets Spin look for a fault. Returns the directory, what it says, and the fault."""
    if not shutil.which("spin"):
        raise Skip("no spin, package spin")
    directory = os.path.join(BUILD, re.sub(r"\W+", "-", name))
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    pathlib.Path(directory, "stop.pml").write_text(text, "utf-8")
    spin(directory, f"spin -a {settings} stop.pml")
    spin(directory, f"cc -O2 -w {how} -o pan pan.c")
    said = spin(directory, "./pan -m10000 -w20" + " -l" * (how == "-DNP"))
    os.remove(os.path.join(directory, "pan"))
    check("errors:" in said and not re.search(r"max search depth too small|out of memory", said),
          name, "the search was not complete:", said)
    fault = re.search(r"pan:1: (.*?) \(at depth", said)
    words = fault and fault[1].replace("invalid end state", "nobody can take a step any more")
    return directory, said, words and re.sub(r"(assertion violated) .{60,}",
                                             r"\1 (the last of main())", words)


def holds(name):
    settings, how = RUNS[name]
    _, said, fault = search(name, read(MODEL), settings, how)
    check("errors: 0" in said, fault)
    # What is never reached is not checked, either. The one step that must not be
    # reached is the false alarm in accept_clients().
    never = re.findall(r'stop\.pml:\d+, state \d+, "(.*)"', said)
    check(settings != ONE_FAILURE or never == ["assert(0)"], "never reached:", never)
    states = int(re.search(r"(\d+) states, stored", said)[1])
    return f"{states:,} states, depth {re.search(r'depth reached ([0-9]+)', said)[1]}"


def fails(name):
    text = edited(read(MODEL), MUTANTS[name], "stop.pml")
    fault = search(name, text, FAULTY.get(name, ONE_SIGNAL), "-DSAFETY")[2]
    check(fault, "Spin finds no fault with this mutant")
    return fault


# ---- A counterexample as a story ----------------------------------------------


def story(name):
    if name in MUTANTS:
        text = edited(read(MODEL), MUTANTS[name], "stop.pml")
    else:
        text = subprocess.run(["sed", name, MODEL], check=False, text=True, capture_output=True).stdout
        check(text not in ("", read(MODEL)), f"{name}: no such mutant, and no sed script that "
              "changes the model:", ", ".join(MUTANTS))
    settings = FAULTY.get(name, ONE_SIGNAL)
    directory, _, fault = search("story", text, settings, "-DSAFETY -DBFS")
    check(fault, "Spin finds no fault")
    model = text.split("\n")
    trail = spin(directory, f"spin -t -p {settings} stop.pml")
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
    if sys.argv[1:2] == ["story"]:
        try:
            story(sys.argv[2])
        except (AssertionError, Skip) as failure:
            sys.exit(f"model: {failure}")
        return
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = {"compare": pool.submit(compare)}
        jobs.update((name, pool.submit(holds, name)) for name in RUNS)
        jobs.update((f"mutant {name}", pool.submit(fails, name)) for name in MUTANTS)
        run({f"test_{name}": job.result for name, job in jobs.items()}, ())


if __name__ == "__main__":
    main()
