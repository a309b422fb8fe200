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
import subprocess
import sys
import tempfile
import threading
import time

import labs

PLAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "play.py")
DEMO = os.path.join(os.path.dirname(PLAY), "demo.md")
BOUND = 200  # seconds, for one step


class Teacher:
    """A terminal of 100 columns and 28 rows, and somebody who presses keys."""

    def __init__(self, lab, *options):
        import pexpect  # here, so that a missing one can be told in words
        self.directory = tempfile.mkdtemp(prefix="play-test.")
        self.child = pexpect.spawn(
            sys.executable, ["-B", PLAY, lab, *options], dimensions=(28, 100), timeout=None,
            encoding="utf-8", codec_errors="replace",
            env=dict(os.environ, TMPDIR=self.directory, TERM="xterm-256color"))
        self.child.delaybeforesend = None
        self.shown = ""
        self.reader = threading.Thread(target=self.read_all)
        self.reader.start()
        self.at = self.ready()

    def read_all(self):
        self.shown = self.child.read()  # to the end

    def socket(self):
        return (glob.glob(self.directory + "/play.*/tmux") + [None])[0]

    def tmux(self, *words):
        return subprocess.run(["tmux", "-S", self.socket() or "none", *words], check=True,
                              capture_output=True, text=True, timeout=BOUND).stdout

    def ready(self):
        """Until a key is waited for. Returns for what, or "over"."""
        wait_for("tmux", lambda: self.socket() or not self.reader.is_alive())
        try:
            self.tmux("wait-for", "ready")
            return self.tmux("show", "-gv", "@at").strip()
        except subprocess.CalledProcessError:
            return "over"

    def press(self, key):
        self.child.send(key)
        self.at = self.ready()

    def panes(self):
        """Of each terminal, all the lines that it has shown, by its title."""
        rows = self.tmux("list-panes", "-aF", "#{pane_id} #{pane_title}").splitlines()
        return {title: self.tmux("capture-pane", "-Jp", "-S", "-", "-t", pane)
                for pane, title in (row.split(" ", 1) for row in rows)}

    def end(self, key="q"):
        """Ends it. Returns the exit status and what is left."""
        if self.reader.is_alive():
            self.child.send(key)
        try:
            wait_for("the end", lambda: not self.reader.is_alive())
            self.child.close()
            return self.child.exitstatus, processes_in(self.directory) + os.listdir(
                self.directory)
        finally:
            self.child.close(force=True)
            shutil.rmtree(self.directory)


def wait_for(what, done):
    deadline = time.monotonic() + BOUND
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {BOUND} s for {what}")
        time.sleep(0.05)


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
                expected += [first if step.kind == ">" else f"{name}$ {first}"]
                expected += ["> " + line for line in more]
            expected += step.output
        text = re.sub(rf"{name}[$#] ?", f"\n{name}$ ", panes[name]).replace("(y or n) ", "(y or n)\n")
        text = re.sub(r"^(\(gdb\) |telnet> )?(\^[]CZ\\])?", "", text, flags=re.M)
        came = [line.rstrip() for line in text.split("\n")
                if line.strip() not in ("", f"{name}$")]
        expected = [line.rstrip() for line in expected if line.strip()]
        if numbers.match(expected, "\n".join(came) + "\n", True) is None:
            raise AssertionError(f"the pane {name} is not as printed:\n"
                                 + numbers.difference(expected, came))


def play(path):
    """A whole lab, Enter by Enter."""
    lab = labs.Lab(path)
    teacher = Teacher(path, "--delay", "0")
    try:
        while teacher.at not in ("end", "over"):
            teacher.press("\r")
        if teacher.at == "end":
            panes, known = teacher.panes(), json.loads(teacher.tmux("show", "-gv", "@numbers"))
    finally:
        status, left = teacher.end()
    if status == labs.EXIT_SKIPPED:
        return teacher.shown.strip()
    assert status == 0, f"exit status {status}: {teacher.shown.split('[server exited]')[-1]}"
    assert not left, f"left behind: {left}"
    check_panes(lab, panes, known)
    return ""


def report(test, *words):
    name = " ".join([test.__name__, *map(os.path.basename, words)])
    start = time.monotonic()
    try:
        skipped = test(*words)
    except (AssertionError, labs.LabError, OSError, subprocess.SubprocessError) as error:
        print(f"FAIL {name}: {error}")
        return "failed"
    print(skipped or f"ok   {name} in {time.monotonic() - start:.1f} s")
    return "skipped" if skipped else "passed"


def main():
    sys.stdout.reconfigure(line_buffering=True)
    paths = [DEMO] if not sys.argv[1:] else []
    paths += labs.find_labs(sys.argv[1:])
    with concurrent.futures.ThreadPoolExecutor(2 if labs.isolation() else 1) as pool:
        results = list(pool.map(lambda path: report(play, path), paths))
    count = {each: results.count(each) for each in ("passed", "failed", "skipped")}
    print(", ".join(f"{number} {each}" for each, number in count.items()))
    sys.exit(bool(count["failed"] or (count["skipped"] and os.environ.get("CI") == "true")))


if __name__ == "__main__":
    main()
