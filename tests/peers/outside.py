"""outside.py - what peers.py, tools.py and datagrams.py share.

They look at the programs from outside, as a person at two terminals does.
Nothing here sleeps to wait: each wait ends when the thing itself is seen, or
fails after LIMIT seconds. What a test started ends with it, also when it fails
or is interrupted.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unittest

CI = os.environ.get('CI') == 'true'

try:
    import pexpect
    from pexpect.popen_spawn import PopenSpawn
except ImportError:
    print('SKIPPED: pexpect is not installed: apt-get install python3-pexpect')
    print('0 passed, 1 failed, 0 skipped' if CI else '0 passed, 0 failed, 1 skipped')
    sys.exit(1 if CI else 0)

LIMIT = 20  # seconds; ordinary waits take milliseconds

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))


def program(name):
    """The path of ./server or ./client, in the build that make has chosen."""
    return os.path.join(ROOT, os.environ.get('PROGRAMS', '.'), name)


def until(condition):
    """True as soon as the condition is, False if it is not within LIMIT."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Case(unittest.TestCase):
    """One test, with what it starts and the directory that it works in."""

    maxDiff = None

    def run(self, result=None):
        # unittest leaves the cleanups out when it is interrupted.
        try:
            return super().run(result)
        except KeyboardInterrupt:
            self.doCleanups()
            raise

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix='outside-')
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def lack(self, reason):
        """Something that the test needs is missing here."""
        if CI:
            self.fail(reason)
        self.skipTest(reason)

    def assert_whole(self, text, pattern):
        """Like assertRegex, for a pattern that describes all of the text."""
        match = re.fullmatch(pattern, text)
        self.assertIsNotNone(match, f'{text!r} does not match {pattern!r}')
        return match

    def need(self, package, *names):
        """The path of the first program of these names that there is."""
        for name in names:
            path = shutil.which(name)
            if path:
                return path
        return self.lack(f'{" or ".join(names)} is not installed: '
                         f'apt-get install {package}')

    def start(self, *command, **environment):
        """Starts a program on pipes, its standard error with the output, and
        everything that it starts in one process group."""
        child = PopenSpawn(list(command), timeout=LIMIT, encoding='latin-1',
                           preexec_fn=os.setsid,
                           env={**os.environ, **environment})
        self.addCleanup(self._end, child)
        return child

    @staticmethod
    def _end(child):
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        # The thread that reads for pexpect ends here. If it did not, it might
        # read on from the next pipe of the same number.
        child.expect(pexpect.EOF)
        child.proc.stdin.close()
        child.proc.stdout.close()

    def start_in_terminal(self, *command, **environment):
        """Starts a program on a terminal of its own."""
        child = pexpect.spawn(command[0], list(command[1:]), timeout=LIMIT,
                              encoding='latin-1',
                              env={**os.environ, 'TERM': 'dumb',
                                   **environment})
        child.delaybeforesend = None
        self.addCleanup(child.close, force=True)
        return child

    def see_end(self, child):
        """Waits until the program has ended. Returns what it still had to say
        and its exit status."""
        child.expect(pexpect.EOF)
        rest = child.before
        status = child.wait()
        return rest, status


class Server:
    """A ./server that listens already."""

    def __init__(self, test, *options):
        self.test = test
        self.child = test.start(program('server'), *options)
        self.child.expect(r'^Server Started \.\.\.\n'
                          r'Listening on (.+), pid (\d+), fd 3, '
                          r'at most \d+ clients\n')
        self.port = self.child.match[1].rpartition(':')[2]
        self.pid = int(self.child.match[2])

    def stop(self):
        """The orderly stop. Returns the rest of the log."""
        os.kill(self.pid, signal.SIGTERM)
        rest, status = self.test.see_end(self.child)
        self.test.assertEqual(status, 0)
        return self.test.assert_whole(rest, r'((?:.*\n)*)Server Stopped\.\n')[1]


def main():
    """Runs the tests of the calling program, or those named on its command
    line, and counts them."""
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, signal.default_int_handler)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, descriptions=False)
    result = unittest.main(exit=False, testRunner=runner).result
    failed = {test.id() for test, _ in result.failures + result.errors}
    skipped = {test.id() for test, _ in result.skipped} - failed
    passed = result.testsRun - len(failed) - len(skipped)
    print(f'{passed} passed, {len(failed)} failed, {len(skipped)} skipped')
    sys.exit(1 if failed or passed + len(skipped) == 0 else 0)
