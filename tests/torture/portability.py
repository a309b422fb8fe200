#!/usr/bin/python3
"""The programs on other C libraries and processors, run and not only compiled.

Each build is held to the same suites, which stay native and start its programs:
under musl directly, for other processors under qemu's user mode. The handler's
fuzz target, which has a main() of its own for this, replays the corpus there.

    tests/torture/portability.py musl [TARGET...]      LOAD=20 in the environment
"""

import functools
import glob
import os
import re
import shutil
import subprocess
import sys

from victim import Skip, check, run

# The compiler, its package, and the processor that runs what it makes.
TARGETS = {
    "musl": ("musl-gcc", "musl-tools", None),
    "arm64": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "aarch64"),
    "s390x": ("s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu", "s390x"),  # big-endian
    "arm32": ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf", "arm"),  # 32 bits
}
SUITES = ("server", "client")

# musl says "Address in use" where glibc says "Address already in use": these
# tests compare the C library's words to the letter.
OTHER_WORDS = """one_address_only port_in_use path_of_a_live_server path_of_a_busy_server
    path_of_a_datagram_server out_of_descriptors a_path_too_long""".split()

# qemu has a thread and descriptors of its own, which these tests count, and
# emulates a thousand threads too slowly.
COUNTED = """a_client_leaves_nothing_behind each_thread_gives_its_stack_back
    a_crowd_is_turned_away a_thousand_clients_at_once clients_that_vanish out_of_descriptors
    too_few_descriptors the_descriptor_limit_sets_the_client_limit""".split()

WRAPPED = ("recv", "send", "poll", "shutdown", "setsockopt", "clock_gettime")
STANDARD = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O1", "-g", "-I.")


def command(words, **more):
    result = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False,
                            timeout=300, **more)
    check(result.returncode == 0, " ".join(words)[:300], "\n", result.stdout[-3000:],
          result.stderr[-3000:])
    return result.stdout


def try_target(name):
    compiler, package, machine = TARGETS[name]
    if not shutil.which(compiler):
        raise Skip(f"no {compiler}, package {package}")
    wrapper = []
    if machine:
        wrapper = [f"qemu-{machine}-static", "-L", "/usr/" + compiler.removesuffix("-gcc")]
        if not shutil.which(wrapper[0]):
            raise Skip("no qemu, package qemu-user-static")
    command(["make", "--no-print-directory", f"CC={compiler}", "all"])
    build = f"build/{compiler}"

    replay = f"{build}/replay_handler"
    command([compiler, *STANDARD, "-DREPLAY", "-o", replay, "tests/torture/fuzz_handler.c",
             f"{build}/handler.o", *(f"-Wl,--wrap={call}" for call in WRAPPED)])
    note = command(wrapper + [replay] + sorted(glob.glob("tests/torture/corpus/handler/*"))).strip()

    count = 0
    environment = {**os.environ, "PROGRAMS": build, "WRAPPER": " ".join(wrapper),
                   "LOAD": os.environ.get("LOAD", "20")}
    for suite in SUITES:
        left_out = COUNTED if machine else OTHER_WORDS
        names = command([f"build/default/test_{suite}", "--list"]).split()
        names = [name for name in names if name not in left_out]
        said = command([f"build/default/test_{suite}", *names], env=environment)
        ran = len(re.findall(r"^(?:passed|skipped) ", said, re.MULTILINE))
        check(ran == len(names), suite, "passed", ran, "of", len(names))
        count += ran
    return f"{note}; {count} tests of the suites"


if __name__ == "__main__":
    run({f"test_{name}": functools.partial(try_target, name) for name in TARGETS}, sys.argv[1:])
