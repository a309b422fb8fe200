#!/usr/bin/env python3
"""Draws every diagram of the documents as a browser would: each must render.

    tests/labs/diagrams.py              README.md, lab-notes/*.md and tests/README.md
    tests/labs/diagrams.py FILE.md ...  only these

Each fenced `mermaid` block becomes build/diagrams/DOCUMENT-N.svg. One that does
not render is named by its file and line. A web page shows such a diagram as a
bomb and the words "Syntax error"; nothing else would ever tell its author.

What draws is mermaid-cli, which npm puts below build/ at the first run, with the
chromium of the system. Where node, npm or chromium are missing, or npm can't get
the packages, the diagrams are skipped; with CI=true in the environment that is a
failure.
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

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
DRAWN = os.path.join(ROOT, "build", "diagrams")
TOOL = os.path.join(ROOT, "build", "mermaid-cli")
CI = os.environ.get("CI") == "true"

# mermaid-cli alone would take whatever is today's version of the other two, and
# a diagram could fail tomorrow though nobody touched it. These are the last that
# run on Debian 12's Node 18.
PACKAGES = ["@mermaid-js/mermaid-cli@11.12.0", "mermaid@11.17.2", "puppeteer@23.11.1"]

INSTALL_SECONDS = 400  # about 20, over a good network
DRAW_SECONDS = 60  # about 3

FENCE = re.compile(r"(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})[ ]*(?P<info>.*)")


class Missing(Exception):
    """Something is not on this machine, and no fault of a diagram."""


class Diagram:
    """One block: where it stands, and what is in it."""

    def __init__(self, path, line, number):
        name = os.path.relpath(path, ROOT)
        self.place = f"{name if not name.startswith('..') else path}:{line}"
        self.file = re.sub(r"[^\w.-]+", "-", os.path.splitext(name)[0]) + f"-{number}"
        self.lines = []
        self.closed = False


def diagrams_of(path):
    """The mermaid blocks of a document. A fence within another block is text."""
    found, fence, diagram = [], None, None
    with open(path, encoding="utf-8") as document:
        for number, line in enumerate(document.read().split("\n"), 1):
            match = FENCE.fullmatch(line.rstrip())
            if fence is None:
                if match:
                    fence, indent = match["fence"], len(match["indent"])
                    if match["info"].split()[:1] == ["mermaid"]:
                        diagram = Diagram(path, number, len(found) + 1)
                        found.append(diagram)
            elif match and not match["info"] and match["fence"].startswith(fence):
                if diagram:
                    diagram.closed = True
                fence = diagram = None
            elif diagram:
                blank = len(line) - len(line.lstrip(" "))
                diagram.lines.append(line[min(indent, blank):])
    return found


def chromium():
    """The browser's path."""
    path = os.environ.get("PUPPETEER_EXECUTABLE_PATH", "chromium")
    if not shutil.which(path):
        raise Missing(f"{path} is not installed: apt-get install chromium")
    return shutil.which(path)


def install():
    """mermaid-cli's path, after npm has put it below build/ if need be."""
    for program, package in (("node", "nodejs"), ("npm", "npm")):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed: apt-get install {package}")
    mmdc = os.path.join(TOOL, "node_modules", ".bin", "mmdc")
    done = os.path.join(TOOL, "installed")  # written last: no half an installation
    wanted = " ".join(PACKAGES)
    if os.path.exists(done):
        with open(done, encoding="utf-8") as file:
            if file.read() == wanted and os.path.exists(mmdc):
                return mmdc
    shutil.rmtree(TOOL, ignore_errors=True)
    os.makedirs(TOOL)
    # No package runs a script of its own here. Puppeteer's would get a browser.
    command = ["npm", "install", "--prefix", TOOL, "--no-save", "--no-package-lock",
               "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    print(f"npm install {wanted}", flush=True)
    try:
        result = subprocess.run(
            command + PACKAGES, env={**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm had not got {wanted} after {INSTALL_SECONDS} s") from None
    if result.returncode != 0 or not os.path.exists(mmdc):
        said = "\n".join(result.stdout.split("\n")[:5])
        raise Missing(f"npm can't get {wanted}:\n{said}")
    with open(done, "w", encoding="utf-8") as file:
        file.write(wanted)
    return mmdc


def run(command, environment):
    """Runs a program that has a browser for a child. Returns status and output."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        try:
            output, _ = process.communicate(timeout=DRAW_SECONDS)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            # SIGTERM first: the browser has a session of its own, and only
            # puppeteer, when it is asked to end, ends it.
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            return None, f"not drawn after {DRAW_SECONDS} s"


class Painter:
    """Draws, with files and a home directory for the browser that go with it."""

    def __init__(self, mmdc, browser, directory):
        self.mmdc = mmdc
        self.directory = directory
        self.settings = os.path.join(directory, "puppeteer.json")
        # Chromium's sandbox refuses root. What it draws here is our own.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with open(self.settings, "w", encoding="utf-8") as file:
            json.dump({"args": arguments}, file)
        self.environment = {**os.environ, "PUPPETEER_EXECUTABLE_PATH": browser,
                            "HOME": directory, "TMPDIR": directory}
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            self.environment.pop(name, None)

    def complaint(self, diagram, to):
        """None if the diagram was drawn into the directory, or what is wrong."""
        if not diagram.closed:
            return "the block has no end"
        source = os.path.join(self.directory, diagram.file + ".mmd")
        svg = os.path.join(to, diagram.file + ".svg")
        with open(source, "w", encoding="utf-8") as file:
            file.write("\n".join(diagram.lines) + "\n")
        status, output = run([self.mmdc, "--quiet", "--puppeteerConfigFile",
                              self.settings, "--input", source, "--output", svg],
                             self.environment)
        if status != 0:
            said = [line for line in output.split("\n") if line.strip() and
                    not re.match(r"\s+at |.*\(.*\.js:\d+:\d+\)$", line)]
            if "Failed to launch the browser" in output:
                raise Missing("chromium does not start; without root it may need "
                              "chromium-sandbox:\n" + "\n".join(said[:3]))
            return "\n    ".join(said[:5]) or f"mermaid-cli ended with status {status}"
        with open(svg, encoding="utf-8") as file:
            drawing = file.read()
        if "Syntax error" in drawing or 'aria-roledescription="error"' in drawing:
            return "drawn as mermaid's \"Syntax error\""
        if "<svg" not in drawing:
            return "drawn, but not as SVG"
        return None


BAD = """\
Nothing here renders but the last one.
```mermaid
sequenceDiagram
    A->>>B no such arrow
```
````text
```mermaid
not a diagram, but text that shows how to write one
```
````
```mermaid
error
```
  ~~~ mermaid
  sequenceDiagram
      A->>B: ping
  ~~~
```mermaid
flowchart LR
    a --> b
"""
BAD_LINES = {2: "Parse error", 11: "Syntax error", 14: None, 18: "no end"}


def notices_bad_ones(painter):
    """None if this very check finds each fault of BAD, or what it missed."""
    path = os.path.join(painter.directory, "bad.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write(BAD)
    found = {int(diagram.place.rsplit(":", 1)[1]):
             painter.complaint(diagram, painter.directory)
             for diagram in diagrams_of(path)}
    right = found.keys() == BAD_LINES.keys() and all(
        BAD_LINES[line] in said if said and BAD_LINES[line] else said == BAD_LINES[line]
        for line, said in found.items())
    return None if right else f"of a bad document this came: {found}"


def draw_all(diagrams):
    """Draws all and prints the faults. Returns how many passed and failed."""
    browser, mmdc = chromium(), install()
    shutil.rmtree(DRAWN, ignore_errors=True)
    os.makedirs(DRAWN)
    with tempfile.TemporaryDirectory(prefix="diagrams-",
                                     ignore_cleanup_errors=True) as directory:
        painter = Painter(mmdc, browser, directory)
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            tasks = [("diagrams.py's own test: bad diagrams",
                      pool.submit(notices_bad_ones, painter))]
            tasks += [(diagram.place, pool.submit(painter.complaint, diagram, DRAWN))
                      for diagram in diagrams]
            failed = 0
            for name, task in tasks:
                said = task.result()
                print(f"FAIL {name}: {said}" if said else f"ok   {name}", flush=True)
                failed += said is not None
        finally:
            pool.shutdown(cancel_futures=True)
    return len(tasks) - failed, failed


def main():
    """Returns the exit status."""
    # What a signal ends goes the way of an exception, and leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    paths = [os.path.abspath(path) for path in sys.argv[1:]] or [
        os.path.join(ROOT, "README.md"),
        *sorted(glob.glob(os.path.join(ROOT, "lab-notes", "*.md"))),
        os.path.join(ROOT, "tests", "README.md")]
    diagrams = [diagram for path in paths for diagram in diagrams_of(path)]
    if not diagrams:
        print("FAIL no diagram in " + " ".join(paths))
        print("0 passed, 1 failed, 0 skipped")
        return 1
    try:
        passed, failed = draw_all(diagrams)
    except Missing as missing:
        count = len(diagrams)
        print(f"{'FAIL' if CI else 'SKIPPED:'} {count} diagrams: {missing}")
        print(f"0 passed, {count} failed, 0 skipped" if CI else
              f"0 passed, 0 failed, {count} skipped")
        return 1 if CI else 0
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
