#!/usr/bin/env python3
"""Proves what lab 15 says of its bugs: `make check-a` finds bug a, and accepts the repair.

Each bug is put into a copy of the project, as a student does it, with `make bug-a`. The check must
refuse it for the right reason. What the tools of the lab report is shown there: `make labs LAB=15`.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

import labs

# What the check must say: the grader's words, or ThreadSanitizer's. With bug a the clients of the
# first checks, as they leave, may already close the connection of the next one.
REASONS = {
    "a": r"FAIL +\d+  (ping|others-stay)",
    "b": r"data race(.*\n)+?.* leave .*server\.c(.*\n)+?.*Location is global 'connected'",
    "c": r"FAIL +\d+  memory",
    "d": r"FAIL +\d+  after-quit",
    "e": r"FAIL +\d+  quit-unread(.*\n)+?.*RST",
}
BOUND = 300  # seconds for one check; 30 on an idle machine


class Failure(Exception):
    """A test did not come out as it must."""


def run(project, *command, status=0):
    # A make that runs this test passes its own settings on: not into here.
    environment = {name: value for name, value in os.environ.items() if name not in
                   ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "RELEASE", "COVERAGE")}
    done = subprocess.run(command, cwd=project, check=False, env=environment, timeout=BOUND, text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if bool(done.returncode) != bool(status):
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def test_found(project, bug):
    said = run(project, "patch", "-p1", "--dry-run", "-i", f"lab-notes/bugs/{bug}.patch")
    # Where lines have moved patch finds them. Then the numbers in the patch are wrong.
    if "offset" in said or "fuzz" in said:
        raise Failure(f"{bug}.patch has drifted. make it anew:\n{said}")
    run(project, "make", "bug-" + bug)
    said = run(project, "make", "check-" + bug, status=1)
    if not re.search(REASONS[bug], said):
        raise Failure(f"make check-{bug} does not say {REASONS[bug]!r}:\n{said}")


def test_mended(project, bug):
    patch = os.path.join(project, "lab-notes", "bugs", bug + ".patch")
    run(os.path.join(project, "build", "bugs", bug), "patch", "-s", "-R", "-p1", "-i", patch)
    said = run(project, "make", "check-" + bug)
    if f"The bug in build/bugs/{bug} is mended." not in said:
        raise Failure(said)


def main():
    patches = glob.glob(os.path.join(labs.NOTES, "bugs", "*.patch"))
    bugs = sorted(os.path.basename(name)[: -len(".patch")] for name in patches)
    # Mended, all copies are the sources as they are: one of them is enough.
    tests = [("finds", test_found, bug) for bug in bugs] + [("accepts", test_mended, bugs[0])]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="bugs.") as project:
        labs.copy_sources(project)
        for words, test, bug in tests:
            try:
                test(project, bug)
                print(f"ok   check-{bug} {words} it", flush=True)
            except (Failure, OSError, subprocess.SubprocessError) as error:
                print(f"FAIL check-{bug} {words} it: {error}", flush=True)
                failed += 1
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
