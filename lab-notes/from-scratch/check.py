#!/usr/bin/env python3
"""check.py - the steps of lab 18 are what the lab says of them: make from-scratch

    check.py [N ...]        all of them, or these

Step N is short, and few of its lines are new. It passes stages 1 to N of the grader and
fails in stage N + 1. While it is graded, ThreadSanitizer and AddressSanitizer find nothing.
Each of the clients a, b and c has one mistake, in one line. The programs are compiled
already: see from-scratch.mk."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
STEPS = range(1, 9)
MOST_LINES = 160
MOST_NEW = 25
GRADE_SECONDS = 100
DIFFERENT = re.compile(r'> *(?!$|/\*|\* |\*/)\S')  # a new line that is no comment


class Wrong(Exception):
    """What the lab says of a step is not so."""


def step(number):
    return f'step-{number}' if number else 'start'


def new_lines(old, new):
    """The lines of code that `diff` marks with `>`. Comments and blank lines are free."""
    told = subprocess.run(['diff', f'{HERE}/{old}.c', f'{HERE}/{new}.c'], check=False,
                          stdout=subprocess.PIPE, text=True).stdout
    return [line for line in told.splitlines() if DIFFERENT.match(line)]


def grade(name, build, stages, reports):
    """The grader's results: a list of (stage, name of the check, result)."""
    program = os.path.join(ROOT, 'build', build, 'from-scratch', name)
    results = os.path.join(reports, 'results.json')
    log = 'log_path=' + os.path.join(reports, 'report')
    environment = {**os.environ, 'TSAN_OPTIONS': log, 'ASAN_OPTIONS': log, 'UBSAN_OPTIONS': log}
    said = subprocess.run(
        [sys.executable, os.path.join(ROOT, 'tests', 'grade.py'), '--json', results,
         '--stage', ' '.join(map(str, stages)), '--', program, 'PORT'],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=GRADE_SECONDS, env=environment).stdout
    try:
        with open(results, encoding='utf-8') as file:
            checks = json.load(file)['checks']
    except OSError:
        raise Wrong(f'{name}: no results from the grader:\n{said}') from None
    return [(int(check['stage'].partition(':')[0]), check['name'], check['result'])
            for check in checks]


def check_grade(number):
    """Stages 1 to N hold, and in the next one something does not."""
    with tempfile.TemporaryDirectory() as reports:
        stages = [stage for stage in range(1, number + 2) if stage in STEPS]
        checks = grade(step(number), 'gcc', stages, reports)
    bad = [(stage, name) for stage, name, result in checks if result not in ('ok', 'skip')]
    early = [name for stage, name in bad if stage <= number]
    late = [name for stage, name in bad if stage > number]
    if early:
        raise Wrong(f'{step(number)}: fails {", ".join(early)}')
    if number + 1 in STEPS and not late:
        raise Wrong(f'{step(number)}: nothing of stage {number + 1} fails')
    return f'{step(number)}: passes stage {number}' + (f', fails {", ".join(late)}' if late else '')


def check_sanitizer(number, sanitizer):
    """No report, and nothing fails. (The memory that a sanitizer needs is no step's fault.)"""
    with tempfile.TemporaryDirectory() as reports:
        checks = grade(step(number), sanitizer, range(1, number + 1), reports)
        found = sorted(name for name in os.listdir(reports) if name.startswith('report'))
        if found:
            with open(os.path.join(reports, found[0]), encoding='utf-8', errors='replace') as file:
                raise Wrong(f'{step(number)}, {sanitizer} sanitizer:\n' + ''.join(file.readlines()[:20]))
    bad = [name for _, name, result in checks if result not in ('ok', 'skip') and name != 'memory']
    if bad:
        raise Wrong(f'{step(number)}, {sanitizer} sanitizer: fails {", ".join(bad)}')
    return f'{step(number)}: nothing from the {sanitizer} sanitizer'


def check_size(number):
    with open(f'{HERE}/{step(number)}.c', encoding='utf-8') as file:
        lines = len(file.readlines())
    new = len(new_lines(step(number - 1), step(number)))
    words = f'{step(number)}: {lines} lines, {new} of code are new'
    if lines > MOST_LINES or new > MOST_NEW:
        raise Wrong(f'{words}; the lab promises {MOST_LINES} and {MOST_NEW}')
    return words


def check_client(letter):
    new = new_lines('client', f'client-{letter}')
    if len(new) != 1:
        raise Wrong(f'client-{letter}: {len(new)} lines differ from client.c, not one')
    return f'client-{letter}: {new[0][2:].strip()}'


def main():
    numbers = [int(word) for word in sys.argv[1:]] or list(STEPS)
    work = [(check_client, letter) for letter in 'abc']
    work += [(check_size, number) for number in numbers]
    for number in reversed(numbers):  # the longest first
        work += [(check_sanitizer, number, 'thread'), (check_sanitizer, number, 'address'),
                 (check_grade, number)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(*item) for item in work]:
            try:
                print('ok  ', future.result(), flush=True)
            except (Wrong, subprocess.TimeoutExpired) as wrong:
                print('FAIL', wrong, flush=True)
                failed += 1
    print(f'{len(work) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
