#!/usr/bin/env python3
"""selftest.py - grades servers of which it is known what is wrong with them, or that nothing is.

    tests/grader/selftest.py [NAME ...]     all, or those whose name has one of these words
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
import time
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.dirname(HERE)]
sys.argv[1:1] = ['0']  # server.py reads its port when it is imported
from grader import server  # noqa: E402
from grader.wire import free_port  # noqa: E402
import grade  # noqa: E402
del sys.argv[1]

GRADE = [sys.executable, os.path.join(ROOT, 'tests/grade.py')]
BONUS = ['sigterm', 'ipv6', 'restart']
TWIN = ('unsupported unprintable-word long-word glued torn-in-two byte-by-byte random-conversations'
        ' read-late too-long-line half-close unfinished-line quit-unread after-quit sigterm')
# What the bugs of lab 15 fail, in the order of their files. The second is a race that is too rare
# to be seen from outside: that is what the lab is about.
BUGS = ['others-stay', '', 'memory', 'after-quit', 'quit-unread']
C_FAULTS = {'loop-variable': ('own-replies', '*'), 'shared-buffer': ('own-replies', 'sigterm ipv6'),
            'joinable': ('memory', 'sigterm ipv6')}
# What makes them of step 8 of lab 18: a text, and what stands there instead. The last one is right,
# and of another design: a process for each client.
STEP_8 = {
    'loop-variable': {'int client = accept(': 'static int client; client = accept(',
                      '(void *)(intptr_t)client)': '&client)',
                      '(int)(intptr_t)argument': '*(int *)argument'},
    'shared-buffer': {'char reply[4096];': 'static char reply[4096];'},
    'joinable': {'pthread_detach(thread);': ';'},
    'processes': {'signal(SIGPIPE, SIG_IGN);': 'signal(SIGPIPE, SIG_IGN), signal(SIGCHLD, SIG_IGN);',
                  'pthread_create(&thread, NULL, converse,\n' + ' ' * 34 + '(void *)(intptr_t)client) != 0':
                      'fork() == 0',
                  '            close(client);': 'close(listener), converse((void *)(intptr_t)client), _exit(0);',
                  'pthread_detach(thread);': 'close(client);'},
}
SLOWEST = 90  # seconds, for the worst server: answers-ping-alone lets each check wait


def run_grade(*arguments):
    """Returns the exit status, what it wrote, and its results."""
    with tempfile.NamedTemporaryFile(suffix='.json') as file:
        run = subprocess.run([*GRADE, '--json', file.name, *arguments], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        text = file.read()
    return run.returncode, run.stdout, json.loads(text) if text else None


def graded(command, must, may, *options):
    """Grades a server. Returns what is wrong with the grading: it must fail all checks of `must`
    and no others but those of `may`."""
    start = time.monotonic()
    status, output, results = run_grade(*options, '--', *command)
    seconds = time.monotonic() - start
    if not results:
        return f'exit status {status}: {output}'
    failed = {check['name'] for check in results['checks'] if check['result'] == 'FAIL'}
    wrong = [f'fails {name}' for name in sorted(failed - {*must, *may}) if '*' not in may]
    wrong += [f'passes {name}' for name in must if name not in failed]
    counts = failed - set(BONUS) if '--only' not in options else failed
    if bool(counts) != (status != 0):
        wrong += [f'exit status {status}']
    if seconds > SLOWEST:
        wrong += [f'{seconds:.0f} seconds']
    for check in results['checks']:
        if check['result'] == 'FAIL' and not 2 <= len(check['lines']) <= 8:
            wrong += [f'{len(check["lines"])} lines about {check["name"]}']
    return '; '.join(wrong) + ('\n' + output if wrong else '')


def right(name, command, *options, may=()):
    def run():
        return graded(command, [], may, *options)
    return 'right ' + name, run


def wrong(name, command, must, may, *options):
    return 'wrong ' + name, lambda: graded(command, must, may, *options)


def compile_step_8(name):
    with open('lab-notes/from-scratch/step-8.c', encoding='utf-8') as file:
        source = file.read()
    for text, instead in STEP_8[name].items():
        assert source.count(text) == 1, f'{text}: not once in step-8.c'
        source = source.replace(text, instead)
    subprocess.run(['cc', '-std=c11', '-D_DEFAULT_SOURCE', '-pthread', '-o', f'build/grader/{name}',
                    '-xc', '-'], input=source, text=True, check=True)


def bug(number, patch, check):
    """Builds the server with this patch, and grades it ten times."""
    def run():
        folder = f'build/grader/bug-{number}'
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for source in glob.glob('*.[ch]'):
            shutil.copy(source, folder)
        with open(patch, encoding='utf-8') as text:
            subprocess.run(['patch', '-p1', '-s', '-d', folder], stdin=text, check=True)
        subprocess.run(f'cc -std=c11 -D_POSIX_C_SOURCE=200809L -g -pthread -o {folder}/server '
                       f'{folder}/server.c {folder}/handler.c', shell=True, check=True)
        return next(filter(None, (graded([f'{folder}/server', '-q', '-p', 'PORT'], [check], [],
                                         '--only', check) for _ in range(10))), '')
    return f'bug {number} {os.path.basename(patch)}', run


def every_check_can_fail():
    found = {name for must, _ in [*server.FAULTS.values(), *C_FAULTS.values()] for name in must.split()}
    missing = [check.name for check in grade.CHECKS if check.name not in found]
    return ' '.join(['no server fails', *missing]) if missing else ''


def hundred_points():
    points = sum(check.points for check in grade.CHECKS if check.stage != 'bonus')
    labs = [check.name for check in grade.CHECKS if not re.search(r': lab \d\d\.$', check.says)]
    return f'{points} points' * (points != 100) + ' '.join(labs)


def bad_usage():
    """One line of reason, and exit status 2."""
    for arguments in (['--stage', '12', '--', 'true'], ['--only', 'nonsense', '--', 'true'], [],
                      ['--stage', '1', '--only', 'quit', '--', 'true'], ['--', './no-such-file'],
                      ['--limit', 'x', '--', 'true'], ['--address', 'here'],
                      ['--address', 'localhost:1', '--', 'true']):
        status, output, _ = run_grade(*arguments)
        if status != 2 or 'Traceback' in output:
            return f'{arguments}: exit status {status}: {output}'
    return ''


def death_is_told():
    _, output, _ = run_grade('--', sys.executable, HERE + '/server.py', 'PORT', 'dies-at-once')
    told = 'dead: exit status 1.' in output and '"no luck today"' in output
    return '' if told and output.count('dead') == 1 else output


def unaccepted_is_told():
    """A server that is busy with another client fails checks which are about something else."""
    for fault, only, words in (('accepts-one-client', 'ping-crlf echo', 'recv() returned 0: lab 06.'),
                               ('one-at-a-time', 'silent-client', 'one that came before.')):
        _, output, _ = run_grade('--only', only, '--', sys.executable, HERE + '/server.py', 'PORT', fault)
        if output.count('has not accepted') != 1 or words not in output:
            return output
    return ''


def at_an_address():
    """What needs the process is skipped, and does not count. JUnit's file says so, too."""
    port = str(free_port())
    with subprocess.Popen(['./server', '-q', '-p', port]) as process, \
            tempfile.NamedTemporaryFile() as file:
        status, output, results = run_grade('--address', f'127.0.0.1:{port}', '--junit', file.name)
        process.terminate()
        suite = ElementTree.parse(file.name).getroot()
    skipped = {check['name'] for check in results['checks'] if check['result'] == 'skip'}
    expected = {'descriptors', 'threads', 'memory', 'idle', 'full-house', *BONUS}
    fine = status == 0 and skipped == expected and '88 of 88 points' in output
    return '' if fine and len(suite.findall('testcase/skipped')) == len(expected) else output


def no_server_is_left():
    """A grader that is told to end, in the middle of it, ends its server first."""
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        with tempfile.TemporaryDirectory() as folder:
            script = f'echo $$ > {folder}/new; mv {folder}/new {folder}/pid; exec ./server -q -p PORT'
            command = ['sh', '-c', script.replace('PORT', '$PORT')]
            with subprocess.Popen([*GRADE, '--', *command], stdout=subprocess.DEVNULL) as grader:
                while not os.path.exists(f'{folder}/pid') and grader.poll() is None:
                    time.sleep(0.01)
                with open(f'{folder}/pid', encoding='ascii') as file:
                    pid = int(file.read())
                grader.send_signal(number)
                status = grader.wait(20)
            if status != 128 + number or os.path.exists(f'/proc/{pid}'):
                return f'{number.name}: exit status {status}, or process {pid} is left'
    return ''


def jobs():
    os.makedirs('build/grader', exist_ok=True)
    subprocess.run('go build -o build/grader/go lab-notes/from-scratch/server.go'
                   ' && go build -o build/grader/twin lab-notes/programs/twin.go', shell=True, check=True)
    for name in STEP_8:
        compile_step_8(name)
    limit = ['--limit', str(server.LIMIT)]
    yield from ((run.__name__, run) for run in (every_check_can_fail, hundred_points, bad_usage,
                                                death_is_told, unaccepted_is_told, at_an_address,
                                                no_server_is_left))
    yield right('./server', ['./server', '-q', '-p', 'PORT'])
    yield right('./server with a limit', ['./server', '-q', '-m', limit[1], '-p', 'PORT'], *limit)
    yield right('server.py', [HERE + '/server.py', 'PORT'], *limit)
    yield right('step-8.c with processes', ['build/grader/processes', 'PORT'], may=['sigterm', 'ipv6'])
    yield wrong('server.go', ['build/grader/go', 'PORT'], ['full-house'], ['sigterm'])
    yield wrong('twin.go', ['build/grader/twin', 'PORT'], TWIN.split(), [])
    for fault, (check, others) in server.FAULTS.items():
        yield wrong(fault, [HERE + '/server.py', 'PORT', fault], check.split(), others.split(),
                    *([] if fault in server.UNLIMITED else limit))
    for fault, (check, others) in C_FAULTS.items():
        yield wrong(fault, [f'build/grader/{fault}', 'PORT'], [check], others.split())
    for number, (patch, check) in enumerate(zip(sorted(glob.glob('lab-notes/bugs/*.patch')), BUGS), 1):
        if check:
            yield bug(number, patch, check)


def main():
    os.chdir(ROOT)
    picked = [job for job in jobs() if not sys.argv[1:] or any(word in job[0] for word in sys.argv[1:])]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for (name, _), future in [(job, pool.submit(job[1])) for job in picked]:
            complaint = future.exception() or future.result()
            failed += bool(complaint)
            print(f'{"FAIL" if complaint else "ok":5} {name}' + f': {complaint}' * bool(complaint),
                  flush=True)
    print(f'{len(picked) - failed} passed, {failed} failed')
    return 1 if failed or not picked else 0


if __name__ == '__main__':
    sys.exit(main())
