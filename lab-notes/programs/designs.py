#!/usr/bin/env python3
"""designs.py - the designs are what lab 20 says of them: make designs-check

    designs.py [NAME ...]       all designs, or these

The lab's table tells the lines and the points of each program, and the checks of the grader that
it can't pass. Those that it can pass it passes under AddressSanitizer, too, and under
ThreadSanitizer if it has threads. The programs are compiled already: see programs.mk."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ROW = re.compile(r'\| `(\w+)` \| ([\d + ]+) \| (\d+) \| ((?:`[\w-]+` )*)\|')
MOST_LINES = 120
GRADE_SECONDS = 120


class Wrong(Exception):
    """What the lab says of a design is not so."""


def table():
    """The rows of the lab: name -> (lines, points, checks that fail)."""
    with open(os.path.join(HERE, '..', '20-other-designs.md'), encoding='utf-8') as lab:
        rows = filter(None, map(ROW.match, lab))
        return {row[1]: (row[2], int(row[3]), set(re.findall(r'[\w-]+', row[4]))) for row in rows}


def lines(name):
    with open(os.path.join(HERE, 'designs', name + '.c'), encoding='utf-8') as file:
        return len(file.readlines())


def grade(name, build, only=()):
    """What the grader reports. A sanitizer that found something is Wrong."""
    with tempfile.TemporaryDirectory() as reports:
        results = os.path.join(reports, 'results.json')
        log = 'quarantine_size_mb=1:log_path=' + os.path.join(reports, 'sanitizer')
        said = subprocess.run(
            [sys.executable, os.path.join(ROOT, 'tests', 'grade.py'), '--json', results,
             '--only', ' '.join(only), '--', os.path.join(ROOT, 'build', build, 'designs', name), 'PORT'],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=GRADE_SECONDS,
            env={**os.environ, 'ASAN_OPTIONS': log, 'TSAN_OPTIONS': log.partition(':')[2],
                 'UBSAN_OPTIONS': log.partition(':')[2]}).stdout
        for found in sorted(os.listdir(reports)):
            if found.startswith('sanitizer'):
                with open(os.path.join(reports, found), encoding='utf-8', errors='replace') as file:
                    raise Wrong(f'{name}, {build}:\n' + ''.join(file.readlines()[:20]))
        try:
            with open(results, encoding='utf-8') as file:
                return json.load(file), re.sub(r'(?m)^(Stage|  ok).*\n', '', said)
        except OSError:
            raise Wrong(f'{name}: no results from the grader:\n{said}') from None


def check_table(name, row):
    """The row tells the lines and the points, and what fails."""
    files = [name, 'talk', 'clients'] if name.endswith('poll') else [name]
    counted = ' + '.join(str(lines(file)) for file in files)
    marks, said = grade(name, '.')
    failed = {check['name'] for check in marks['checks'] if check['result'] not in ('ok', 'skip')}
    if row != (counted, marks['points'], failed):
        raise Wrong(f'{name}: {counted} lines, {marks["points"]} points, fails {sorted(failed)}, '
                    f'and lab 20 says {row}\n{said}')
    for file in files:
        if lines(file) > MOST_LINES:
            raise Wrong(f'{file}.c: {lines(file)} lines, more than {MOST_LINES}')
    return f'{name}: {counted} lines, {marks["points"]} points, as the lab says'


def check_sanitizer(name, row, sanitizer):
    listed = subprocess.run([sys.executable, os.path.join(ROOT, 'tests', 'grade.py'), '--list'],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    passes = [line.split()[2] for line in listed.splitlines() if line.split()[2] not in row[2]]
    marks, said = grade(name, sanitizer, passes)
    if marks['points'] != marks['of']:
        raise Wrong(f'{name}, {sanitizer} sanitizer:\n{said}')
    return f'{name}: nothing from the {sanitizer} sanitizer'


def check_habits(name, _):
    """What the grader does not see: a wait that spins, a descriptor or a process too many."""
    with socket.create_server(('127.0.0.1', 0)) as unused:
        address = unused.getsockname()
    with subprocess.Popen([os.path.join(ROOT, 'build', 'designs', name), str(address[1])],
                          stdout=subprocess.PIPE, process_group=0) as server:
        proc = f'/proc/{server.pid}'
        try:
            server.stdout.readline()
            with open(proc + '/status', encoding='ascii') as file:
                ignored = int(re.search(r'SigIgn:\s*(\w+)', file.read())[1], 16)
            if not ignored >> signal.SIGPIPE - 1 & 1:
                raise Wrong(f'{name} does not ignore SIGPIPE')
            with socket.create_connection(address) as client:
                client.settimeout(0.5)
                try:
                    while True:  # until it does not read any more
                        before = processor_ticks(proc)
                        client.send(b'ping\n' * 10000)
                except TimeoutError:
                    if processor_ticks(proc) - before > 25:
                        raise Wrong(f'{name} spins while a client does not read') from None
                if name == 'fork' and sockets(children(proc)[0]) != 1:
                    raise Wrong('fork: a child holds more than the connection')
                # fork waits for its children, and so they must be told, too.
                (os.killpg if name == 'fork' else os.kill)(server.pid, signal.SIGTERM)
                server.wait(10)
            try:
                os.killpg(server.pid, 0)
            except ProcessLookupError:
                return f'{name}: spins never, and leaves nobody behind'
            raise Wrong(f'{name} ended before its children')
        finally:
            try:
                os.killpg(server.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def processor_ticks(proc):
    with open(proc + '/stat', encoding='ascii', errors='replace') as file:
        return sum(map(int, file.read().rpartition(')')[2].split()[11:13]))


def children(proc):
    with open(f'{proc}/task/{os.path.basename(proc)}/children', encoding='ascii') as file:
        return ['/proc/' + child for child in file.read().split()]


def sockets(proc):
    return sum(os.readlink(entry.path).startswith('socket:') for entry in os.scandir(proc + '/fd'))


def main():
    rows = table()
    names = sys.argv[1:] or sorted(name[:-2] for name in os.listdir(os.path.join(HERE, 'designs'))
                                   if name not in ('common.c', 'talk.c', 'clients.c', 'crash.c') and name.endswith('.c'))
    missing = [name for name in names if name not in rows]
    if missing:
        sys.exit(f'designs: lab 20 has no row for {", ".join(missing)}')
    work = [(check_table, name, rows[name]) for name in names]
    work += [(check_habits, name, rows[name]) for name in names]
    work += [(check_sanitizer, name, rows[name], 'address') for name in names]
    work += [(check_sanitizer, name, rows[name], 'thread') for name in names if name == 'pool']
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
