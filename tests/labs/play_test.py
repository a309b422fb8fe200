#!/usr/bin/env python3
"""Drives `make play`, as a teacher would, through every lab and the demo, and reads
the panes: what stands in them at the end must match the lab's transcripts.

    tests/labs/play_test.py [LAB ...]
"""
import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import labs

PLAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "play.py")
DEMO = os.path.join(labs.NOTES, "programs", "demo.md")
BOUND = 200  # seconds, for one step


def wait_for(what, done):
    deadline = time.monotonic() + BOUND
    while not done():
        assert time.monotonic() < deadline, f"waited {BOUND} s for {what}"
        time.sleep(0.05)


class Teacher:
    """A terminal of 100 columns and 28 rows, and somebody who presses keys."""

    def __init__(self, lab):
        import pexpect  # here, so that a missing one can be told in words
        self.directory = tempfile.mkdtemp(prefix="play-test.")
        self.child = pexpect.spawn(
            sys.executable, ["-B", PLAY, lab, "--delay", "0"], dimensions=(28, 100),
            timeout=None, encoding="utf-8", codec_errors="replace",
            env=dict(os.environ, TMPDIR=self.directory, TERM="xterm-256color"))
        self.child.delaybeforesend = None
        self.shown = ""
        self.reader = threading.Thread(target=self.read_all)
        self.reader.start()

    def read_all(self):
        self.shown = self.child.read()  # to the end

    def tmux(self, *words):
        sockets = glob.glob(self.directory + "/play.*/tmux") + ["none"]
        return subprocess.run(["tmux", "-S", sockets[0], *words], check=True,
                              capture_output=True, text=True, timeout=BOUND).stdout

    def at(self):
        """Waits until it waits for a key. Returns for what, or "over"."""
        found = []

        def wanted():
            try:
                self.tmux("wait-for", "ready")
                found.append(self.tmux("show", "-gv", "@at").strip())
            except subprocess.CalledProcessError:
                return not self.reader.is_alive()
            return True
        wait_for("the next step", wanted)
        return found[0] if found else "over"

    def press(self, keys):
        for key in keys:
            self.at()
            self.child.send(key)

    def panes(self):
        """All the lines that each terminal has shown, by its title."""
        rows = self.tmux("list-panes", "-aF", "#{pane_id} #{pane_title}").splitlines()
        return {title: self.tmux("capture-pane", "-Jp", "-S", "-", "-t", pane)
                for pane, title in (row.split(" ", 1) for row in rows)}

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        """Waits for its end. Nothing may be left."""
        if failed:
            os.kill(self.child.pid, signal.SIGTERM)
        try:
            wait_for("the end", lambda: not self.reader.is_alive())
            self.child.close()
            left = os.listdir(self.directory) + processes_in(self.directory)
            assert failed or not left, f"left behind: {left}"
        finally:
            self.child.close(force=True)
            shutil.rmtree(self.directory)


def processes_in(directory):
    """The processes that were started in a directory, or for it."""
    found = []
    for process in glob.glob("/proc/[0-9]*"):
        try:
            with open(process + "/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").replace("\0", " ")
            if directory in words + os.readlink(process + "/cwd"):
                found.append(words)
        except OSError:
            pass  # is over
    return found


def check_panes(lab, panes, known):
    """Compares the panes with the transcripts, with the runner's rules. `known` are the
    numbers that came. Blank lines do not count: the shell writes one after some keys."""
    numbers = labs.Numbers(lab.fixed, lab.lines)
    numbers.known = known
    steps = [step for block in lab.plan()[0] for step in block if step.terminal]
    for name in dict.fromkeys(step.terminal for step in steps):
        expected = []
        for step in (step for step in steps if step.terminal == name):
            if step.kind in "$#>" and step.text not in labs.KEYS and step.text:
                first, *more = step.text.split("\n")
                expected.append(first if step.kind == ">" else f"{name}$ {first}")
                expected += ["> " + line for line in more]
            expected += step.output
        text = re.sub(rf"{name}[$#] ?", f"\n{name}$ ", panes[name])
        text = text.replace("(y or n) ", "(y or n)\n")
        text = re.sub(r"^(\(gdb\) |telnet> )?(\^[]CZ\\])?", "", text, flags=re.M)
        came = [line.rstrip() for line in text.split("\n")
                if line.strip() not in ("", f"{name}$")]
        expected = [line.rstrip() for line in expected if line.strip()]
        assert numbers.match(expected, "\n".join(came) + "\n", True) is not None, \
            f"the pane {name} is not as printed:\n" + numbers.difference(expected, came)


def play(path):
    """A whole lab, Enter by Enter."""
    lab = labs.Lab(path)
    with Teacher(path) as teacher:
        while (at := teacher.at()) not in ("end", "over"):
            teacher.child.send("\r")
        if at == "end":
            panes, known = teacher.panes(), json.loads(teacher.tmux("show", "-gv", "@numbers"))
            teacher.child.send("q")
    status = teacher.child.exitstatus
    if status == labs.EXIT_SKIPPED:
        return teacher.shown.strip()
    assert status == 0, f"exit status {status}: {teacher.shown.split('[server exited]')[-1]}"
    check_panes(lab, panes, known)
    return ""


def keys(path):
    """The next part, a command of one's own, the part once more."""
    with Teacher(path) as teacher:
        teacher.press("\r\r\rn")
        teacher.at()  # the server runs, and nobody is connected
        server = teacher.panes()["server"]
        teacher.child.send("\x02\x1b[Aecho $((6*7))\r")  # to the lowest pane
        wait_for("42", lambda: "\n42\n" in teacher.panes()["two"])
        teacher.child.send("\x02\x1b[B\r")  # back: a client comes
        teacher.at()
        assert "./client" in teacher.panes()["one"], teacher.panes()
        teacher.child.send("p")
        teacher.at()
        again = teacher.panes()
        assert "Listening" in again["server"] and again["server"] != server, again
        assert again["one"].strip() == "one$" and "42" not in again["two"], again
        teacher.child.send("q")
    assert teacher.child.exitstatus == 0, teacher.shown


def ends(path):
    """Other ends than q: two signals, and tmux's own key."""
    for end in (lambda child: os.kill(child.pid, signal.SIGTERM),
                lambda child: os.kill(child.pid, signal.SIGHUP),
                lambda child: child.send("\x02d")):
        with Teacher(path) as teacher:
            teacher.press("\r\r")
            teacher.at()
            end(teacher.child)


def difference(path):
    """A transcript in which one line is wrong."""
    with tempfile.NamedTemporaryFile("w", suffix=".md") as wrong:
        with open(path, encoding="utf-8") as right:
            wrong.write(right.read().replace("\npong\n", "\npang\n", 1))
        wrong.flush()
        try:
            play(wrong.name)
        except AssertionError as error:
            assert "+pong" in str(error), error
        else:
            raise AssertionError("nobody noticed")


def report(test, path):
    name = f"{test.__name__} {os.path.basename(path)}"
    start = time.monotonic()
    try:
        skipped = test(path)
    except (AssertionError, labs.LabError, OSError, subprocess.SubprocessError) as error:
        print(f"FAIL {name}: {error}")
        return "failed"
    print(skipped or f"ok   {name} in {time.monotonic() - start:.1f} s")
    return "skipped" if skipped else "passed"


def main():
    sys.stdout.reconfigure(line_buffering=True)
    tests = [(play, path) for path in labs.find_labs(sys.argv[1:])]
    if not sys.argv[1:]:
        tests += [(test, DEMO) for test in (play, keys, ends, difference)]
    with concurrent.futures.ThreadPoolExecutor(2 if labs.isolation() else 1) as pool:
        results = list(pool.map(lambda test: report(*test), tests))
    count = {each: results.count(each) for each in ("passed", "failed", "skipped")}
    print(", ".join(f"{number} {each}" for each, number in count.items()))
    sys.exit(bool(count["failed"] or (count["skipped"] and os.environ.get("CI") == "true")))


if __name__ == "__main__":
    main()
