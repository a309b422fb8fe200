#!/usr/bin/env python3
"""Drives `make demo` as an instructor would, and reads its four panes."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "demo.sh")
PROGRAMS = sys.argv[1] if len(sys.argv) > 1 else "."
BOUND = 30
SERVER, LSOF, CLIENT, THREADS = range(4)


def wait_for(what, done):
    deadline = time.monotonic() + BOUND
    while not (result := done()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {BOUND} s for: {what}")
        time.sleep(0.05)
    return result


class Demo:
    def __init__(self, directory):
        self.directory = directory
        self.child = subprocess.Popen(
            [DEMO, PROGRAMS, "0"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=dict(os.environ, TMPDIR=directory))
        line = self.child.stdout.readline()
        found = re.match(r"demo: tmux -L (\S+), server (\d+), port (\d+)", line)
        assert found, line
        self.socket, self.pid, self.port = found[1], found[2], found[3]

    def tmux(self, *words):
        return subprocess.run(["tmux", "-L", self.socket, *words], check=True,
                              capture_output=True, text=True).stdout

    def pane(self, number):
        return self.tmux("capture-pane", "-J", "-p", "-t", f"demo:0.{number}")

    def sees(self, number, pattern):
        try:
            wait_for(pattern, lambda: re.search(pattern, self.pane(number)))
        except AssertionError as error:
            raise AssertionError(f"{error}, in:\n{self.pane(number)}") from None

    def type(self, text):
        self.tmux("send-keys", "-t", f"demo:0.{CLIENT}", text, "Enter")

    def press_ctrl_c(self, number):
        self.tmux("send-keys", "-t", f"demo:0.{number}", "C-c")

    def is_over(self):
        wait_for("the end", lambda: self.child.poll() is not None)
        wait_for("the server's end",
                 lambda: not os.path.exists(f"/proc/{self.pid}"))
        assert not os.listdir(self.directory), os.listdir(self.directory)

    def end(self):
        self.child.terminate()
        self.child.wait(BOUND)
        self.child.stdout.close()


def test_four_panes_and_their_end(demo):
    """From the first client to `exit`."""
    demo.sees(SERVER, r"Listening on \*:" + demo.port)
    demo.sees(CLIENT, r"Connected to localhost: \[tcp, ")
    demo.sees(LSOF, r"(?s)\(LISTEN\).*server.*\(ESTABLISHED\).*"
                    r"client.*\(ESTABLISHED\)")
    demo.sees(THREADS, rf"(?s){demo.pid} +{demo.pid} .*{demo.pid} +\d+ ")
    demo.type("ping")
    demo.sees(CLIENT, r"ping\npong")
    demo.type("hello")
    demo.sees(SERVER, r"Unsupported command: hello")
    demo.type("quit")
    demo.sees(SERVER, r"Connection from \S+ closed\.")
    demo.sees(CLIENT, r"Enter for another client")
    # The live panes follow: no connection, and no thread but main's.
    wait_for("one row less", lambda: "server" in demo.pane(LSOF)
             and "ESTABLISHED" not in demo.pane(LSOF))
    wait_for("one thread", lambda: demo.pane(THREADS).count(demo.pid) == 2)
    demo.type("")
    demo.sees(SERVER, r"(?s)opened.*closed.*opened")
    demo.type("quit")
    demo.sees(CLIENT, r"(?s)(Enter for another.*){2}")
    demo.type("exit")
    demo.is_over()


def test_ctrl_c(demo):
    """It ends a client, and the next one may come; and the server, in order."""
    demo.sees(CLIENT, r"Connected to localhost")
    demo.press_ctrl_c(CLIENT)
    demo.sees(CLIENT, r"Enter for another client")
    demo.type("")
    demo.sees(CLIENT, r"(?s)Enter.*Connected to localhost")
    demo.press_ctrl_c(SERVER)
    demo.sees(SERVER, r"Server Stopped\.")
    demo.sees(CLIENT, r"(?s)closed by foreign host.*Enter")
    demo.type("exit")
    demo.is_over()


def test_the_end_from_outside(demo):
    """SIGTERM, as when the instructor's terminal is closed."""
    demo.sees(CLIENT, r"Connected to localhost")
    demo.child.terminate()
    demo.is_over()


def test_a_missing_tmux_is_told(directory):
    for tool in ("sh", "id"):
        os.symlink(shutil.which(tool), os.path.join(directory, tool))
    done = subprocess.run([DEMO, PROGRAMS, "0"], check=False, timeout=BOUND,
                          env={"PATH": directory}, capture_output=True,
                          text=True)
    assert done.returncode == 1, done
    assert "needs tmux: apt install tmux" in done.stderr, done


def main():
    in_ci = os.environ.get("CI") == "true"
    missing = [tool for tool in ("tmux", "lsof", "ps")
               if shutil.which(tool) is None]
    passed = failed = skipped = 0
    for test in (test_four_panes_and_their_end, test_ctrl_c, test_the_end_from_outside,
                 test_a_missing_tmux_is_told):
        needs_tools = test is not test_a_missing_tmux_is_told
        if needs_tools and missing:
            print(f"SKIP {test.__name__}: missing {', '.join(missing)}")
            failed += in_ci
            skipped += not in_ci
            continue
        with tempfile.TemporaryDirectory(prefix="demo.") as directory:
            demo = None
            try:
                if needs_tools:
                    demo = Demo(directory)
                test(demo or directory)
                print(f"ok   {test.__name__}")
                passed += 1
            except (AssertionError, OSError,
                    subprocess.SubprocessError) as error:
                print(f"FAIL {test.__name__}: {error}")
                failed += 1
            finally:
                if demo:
                    demo.end()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
