#!/usr/bin/env python3
"""Draws every diagram of the documents as a browser would: each must render.

    tests/labs/diagrams.py              README.md, lab-notes/*.md and tests/README.md
    tests/labs/diagrams.py FILE.md ...  only these

A web page shows a broken diagram as a bomb and the words "Syntax error"; nothing
else would ever tell its author. Each document with a `mermaid` block is written to
build/diagrams/ with a drawing in the place of each block.

What draws is mermaid-cli, which npm puts below build/ at the first run, with the
chromium of the system. Where node, npm or chromium are missing, or npm can't get
the packages, the diagrams are skipped; with CI=true in the environment that is a
failure.
"""

import concurrent.futures
import glob
import json
import os
import pathlib
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
DRAW_SECONDS = 120  # about 5
SETTINGS = "puppeteer.json"

# Little space between the boxes: the drawings are for paper, too (handouts.py). A
# text that crosses a line covers it.
LAYOUT = {"sequence": {"wrap": True, "width": 250, "height": 36, "wrapPadding": 2,
                       "actorMargin": 12, "boxMargin": 3, "messageMargin": 1, "noteMargin": 8,
                       "diagramMarginX": 4, "diagramMarginY": 4, "mirrorActors": False},
          "flowchart": {"rankSpacing": 24, "nodeSpacing": 24, "padding": 8},
          "themeCSS": ".messageText { paint-order: stroke; stroke: #fff; stroke-width: 6px; }"}

# Documents that must be noticed, and what is said of them.
BAD = {"bad-arrow": ("sequenceDiagram\n    A->>>B no such arrow\n", "Parse error"),
       "bad-drawing": ("error\n", "Syntax error")}


class Missing(Exception):
    """Something is not on this machine, and no fault of a document."""


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
    done = pathlib.Path(TOOL, "installed")  # written last: no half an installation
    wanted = " ".join(PACKAGES)
    if os.path.exists(mmdc) and done.exists() and done.read_text("utf-8") == wanted:
        return mmdc
    shutil.rmtree(TOOL, ignore_errors=True)
    os.makedirs(TOOL)
    # No package runs a script of its own here. Puppeteer's would get a browser.
    command = ["npm", "install", "--prefix", TOOL, "--no-save", "--no-package-lock",
               "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    print(f"npm install {wanted}", flush=True)
    status, said = run(command + PACKAGES, {"PUPPETEER_SKIP_DOWNLOAD": "1"}, INSTALL_SECONDS)
    if status != 0 or not os.path.exists(mmdc):
        raise Missing(f"npm can't get {wanted}:\n{said[:500]}")
    done.write_text(wanted, "utf-8")
    return mmdc


def run(command, environment, seconds):
    """Runs a program. Returns its status and its output."""
    with subprocess.Popen(command, env={**os.environ, **environment}, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            # SIGTERM first: the browser has a session of its own, and only
            # puppeteer, when it is asked to end, ends it.
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            return None, f"not done after {seconds} s"


def has_diagrams(path):
    return "```mermaid\n" in pathlib.Path(path).read_text("utf-8")


def drawn(path):
    """Where the document is, when its diagrams are drawn."""
    return os.path.join(DRAWN, os.path.relpath(path, ROOT).replace(os.sep, "-"))


def complaint(path, to, mmdc, directory):
    """None if the document's diagrams were drawn, or what is wrong. The browser
    has its home in the directory, and its settings."""
    status, output = run(
        [mmdc, "--quiet", "--puppeteerConfigFile", os.path.join(directory, SETTINGS),
         "--configFile", os.path.join(directory, "mermaid.json"),
         "--input", path, "--output", to],
        {"PUPPETEER_EXECUTABLE_PATH": chromium(), "HOME": directory, "TMPDIR": directory,
         "XDG_CONFIG_HOME": directory, "XDG_CACHE_HOME": directory}, DRAW_SECONDS)
    said = [line for line in output.split("\n") if line.strip() and
            not re.match(r"\s+at |.*\(.*\.js:\d+:\d+\)$", line)]
    if "Failed to launch the browser" in output:
        raise Missing("chromium does not start; without root it may need "
                      "chromium-sandbox:\n" + "\n".join(said[:3]))
    if status != 0:
        return "\n    ".join(said[:5]) or f"mermaid-cli ended with status {status}"
    for drawing in glob.glob(glob.escape(to.removesuffix(".md")) + "-*.svg"):
        if "Syntax error" in pathlib.Path(drawing).read_text("utf-8"):
            return f"{os.path.basename(drawing)} shows mermaid's \"Syntax error\""
    return None if os.path.exists(to) and not has_diagrams(to) else "a block has no drawing"


def draw_all(paths):
    """Draws all and prints the faults. Returns how many passed and failed."""
    chromium()
    mmdc = install()
    shutil.rmtree(DRAWN, ignore_errors=True)
    os.makedirs(DRAWN)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="diagrams-", ignore_cleanup_errors=True) as directory:
        # Chromium's sandbox refuses root. What it draws here is our own.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        for name, settings in (SETTINGS, {"args": arguments}), ("mermaid.json", LAYOUT):
            pathlib.Path(directory, name).write_text(json.dumps(settings), "utf-8")
        wanted = [(path, drawn(path), None) for path in paths]
        # A check that can't fail is none.
        for name, (text, expected) in BAD.items():
            path = os.path.join(directory, name + ".md")
            pathlib.Path(path).write_text(f"```mermaid\n{text}```\n", "utf-8")
            wanted.append((path, os.path.join(directory, name + "-drawn.md"), expected))
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            tasks = [pool.submit(complaint, path, to, mmdc, directory) for path, to, _ in wanted]
            for (path, _, expected), task in zip(wanted, tasks):
                said = task.result()
                right = expected in (said or "") if expected else said is None
                name = os.path.relpath(path, directory if expected else ROOT)
                print(f"{'ok  ' if right else 'FAIL'} {name}{'' if right else f': {said}'}",
                      flush=True)
                failed += not right
        finally:
            pool.shutdown(cancel_futures=True)
    return len(wanted) - failed, failed


def report(count, what, work):
    """Does the work and counts it. Returns the exit status."""
    # What a signal ends goes the way of an exception, and leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    skipped = 0
    try:
        passed, failed = work()
    except Missing as missing:
        print(f"{'FAIL' if CI else 'SKIPPED:'} {count} {what}: {missing}")
        passed, failed, skipped = (0, count, 0) if CI else (0, 0, count)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def main():
    """Returns the exit status."""
    paths = [os.path.abspath(path) for path in sys.argv[1:]] or [
        os.path.join(ROOT, "README.md"),
        *sorted(glob.glob(os.path.join(ROOT, "lab-notes", "*.md"))),
        os.path.join(ROOT, "tests", "README.md")]
    paths = [path for path in paths if has_diagrams(path)]
    if not paths:
        print("FAIL no diagram")
        return 1
    return report(len(paths), "documents with diagrams", lambda: draw_all(paths))


if __name__ == "__main__":
    sys.exit(main())
