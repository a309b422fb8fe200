#!/usr/bin/env python3
"""grade_class.py - grades each file of a folder: *.c is compiled, another file runs by its #! line.

    tests/grader/grade_class.py [options] DIR

Each server is called with the port as its only argument (it is in the environment, too, as PORT),
in namespaces of its own: it sees no network but its own loopback, and no process but its own. All
of its processes end when its time is up. Root's graders run the servers as users that own
nothing. Anybody else's run them as that person, who should have no files to lose.
"""

import argparse
import concurrent.futures
import fcntl
import json
import os
import resource
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

GRADE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'grade.py')
NAMESPACES = ['--net', '--pid', '--mount-proc', '--fork', '--kill-child']
UNSHARE = ['unshare', *NAMESPACES] if os.geteuid() == 0 else \
    ['unshare', '--user', '--map-current-user', '--keep-caps', *NAMESPACES]
FIRST_USER = 61000  # root runs each server as a user of its own, from here
LIMITS = {
    resource.RLIMIT_NPROC: 1000,  # threads are counted, too, and 200 clients come at once
    # A server that forgets 2,000 threads should lose the points for that, and no others. So a
    # thread has a smaller stack than at home, and a process has room for so many.
    resource.RLIMIT_STACK: 2 << 20,
    resource.RLIMIT_DATA: 5 << 30,
    resource.RLIMIT_FSIZE: 64 << 20,
    resource.RLIMIT_CORE: 0,
}


def inside(arguments):
    """Goes on as grade.py, once the loopback is up and the limits are set."""
    with socket.socket() as any_socket:
        up = struct.pack('16sh', b'lo', 0x41)  # IFF_UP and IFF_RUNNING: netdevice(7)
        fcntl.ioctl(any_socket, 0x8914, up.ljust(40, b'\0'))  # SIOCSIFFLAGS
    limit_and_go_on(arguments)


def limit_and_go_on(arguments):
    for limit, most in LIMITS.items():
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    with open('/proc/self/oom_score_adj', 'w', encoding='ascii') as file:
        file.write('1000')  # if memory runs out, these are the processes to end
    os.execv(sys.executable, [sys.executable, GRADE, *arguments])


def as_nobody(number):
    """The command that takes from a server what it does not need."""
    if os.geteuid() != 0:
        return ['setpriv', '--no-new-privs', '--inh-caps=-all', '--ambient-caps=-all']
    user = str(FIRST_USER + number)
    return ['setpriv', '--reuid', user, '--regid', user, '--clear-groups', '--no-new-privs']


def build(path, folder, compiler):
    """Puts a program into the folder. Returns its path, or None and the reason."""
    program = os.path.join(folder, 'server')
    if path.endswith('.c'):
        run = subprocess.run([*compiler, '-w', '-o', program, path, '-pthread'], text=True,
                             stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        reasons = [line for line in run.stderr.splitlines() if 'error' in line] or [run.stderr.strip()]
        return (program, '') if run.returncode == 0 else (None, f'does not compile: {reasons[0]}')
    with open(path, 'rb') as file:
        if file.read(2) != b'#!':
            return None, 'is not *.c and has no #! line'
    shutil.copyfile(path, program)
    os.chmod(program, 0o755)
    return program, ''


def grade(number, path, options):
    """Returns a line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        try:
            program, reason = build(path, folder, shlex.split(options.compile))
            if not program:
                return reason
            results = os.path.join(folder, 'results')
            command = [sys.executable, os.path.abspath(__file__), '--inside', '--json', results,
                       *(['--limit', options.limit] if options.limit else [])]
            if options.no_namespace:
                command[2] = '--limited'
            else:
                command = [*UNSHARE, '--', *command]
            subprocess.run([*command, '--', *as_nobody(number), program, 'PORT'],
                           cwd=folder, env={'PATH': '/usr/local/bin:/usr/bin:/bin', 'LANG': 'C.UTF-8'},
                           stdin=subprocess.DEVNULL, capture_output=True, check=False,
                           timeout=options.seconds)
            with open(results, encoding='utf-8') as file:
                results = json.load(file)
        except subprocess.TimeoutExpired:
            return f'not ready after {options.seconds} s'
        except (OSError, ValueError):
            return 'the grader was ended'
    failed = [check['name'] for check in results['checks']
              if check['result'] == 'FAIL' and check['stage'] != 'bonus']
    return f'{results["points"]:3} of {results["of"]}  ' + ('fails ' + ' '.join(failed)) * bool(failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folder', metavar='DIR')
    parser.add_argument('--compile', default='cc -std=c11 -D_POSIX_C_SOURCE=200809L -pthread',
                        help='how *.c is compiled')
    parser.add_argument('--limit', default='', help='how many clients each server lets in')
    parser.add_argument('--seconds', type=int, default=120, help='for each server')
    parser.add_argument('--no-namespace', action='store_true', help='run them in the open')
    options = parser.parse_args()
    if not os.path.isdir(options.folder):
        parser.error(f'{options.folder} is not a folder')
    files = sorted(entry.path for entry in os.scandir(options.folder) if entry.is_file())
    if not files:
        parser.error(f'{options.folder} has no files')
    if not options.no_namespace:
        trial = subprocess.run([*UNSHARE, '--', 'true'], capture_output=True, text=True, check=False)
        if trial.returncode != 0:
            print(f'grade-class: no namespaces here ({trial.stderr.strip()}); --no-namespace (with make:'
                  ' NAMESPACE=no) runs strangers\' programs in the open', file=sys.stderr)
            return 2
    width = max(len(os.path.basename(path)) for path in files)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, line in zip(files, pool.map(lambda job: grade(*job, options), enumerate(files))):
            print(f'{os.path.basename(path):{width}}  {line}', flush=True)
    return 0


if __name__ == '__main__':
    modes = {'--inside': inside, '--limited': limit_and_go_on}
    sys.exit(modes[sys.argv[1]](sys.argv[2:]) if sys.argv[1:2] and sys.argv[1] in modes else main())
