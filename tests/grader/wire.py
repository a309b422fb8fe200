"""wire.py - how grade.py talks to a server, and what it can see of its process."""

import collections
import contextlib
import fcntl
import glob
import hashlib
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

END = None          # end of file; sending it half-closes the connection
SECONDS = 75        # for all checks together
START_SECONDS = 10  # until the server listens
ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Skip(Exception):
    """The check does not apply to this server, or can't be made from here."""


class Failure(Exception):
    """Lines that tell what was seen."""


def c_string(data, width=64):
    """Bytes as C writes them, cut in the middle if that is wider."""
    special = {9: '\\t', 10: '\\n', 13: '\\r', 34: '\\"', 92: '\\\\'}
    shown = [special.get(byte) or (chr(byte) if 31 < byte < 127 else f'\\{byte:03o}')
             for byte in data[:width] + data[width:][-width:]]
    if len(''.join(shown)) <= width:
        return '"' + ''.join(shown) + '"'
    ends = next(count for count in range(width, -1, -1)
                if len(''.join(shown[:count] + shown[len(shown) - count:])) <= width - 16)
    begin, end = ''.join(shown[:ends]), ''.join(shown[len(shown) - ends:])
    return f'"{begin}" ({len(data) - 2 * ends:,} more) "{end}"'


def receive_queue(local, remote, family=socket.AF_INET):
    """Recv-Q of the TCP socket with these two ends: bytes that its program has not read. If only a
    listening socket is there: how many clients it has not accepted. We ask sock_diag(7), as ss(8)
    does. 0 if the socket is on another machine, or this one is not Linux."""
    if not hasattr(socket, 'AF_NETLINK'):
        return 0
    ends = [socket.inet_pton(family, host.partition('%')[0]) for host, port in (local, remote)]
    question = struct.pack('=IHHII BBBBI', 72, 20, 1, 0, 0, family, socket.IPPROTO_TCP, 0, 0, 0xfff)
    question += struct.pack('!HH16s16s', local[1], remote[1], *ends) + bytes(4) + b'\xff' * 8
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:
        kernel.send(question)
        answer = kernel.recv(4096)
    return struct.unpack_from('=I', answer, 72)[0] if len(answer) > 76 else 0


class Client:
    """One connection: what was sent, and what came, since the last reply that was right."""

    def __init__(self, server, host):
        self.server, self.sent, self.answered = server, [], False
        self.came, self.ending, self.reset = bytearray(), '', False
        try:
            self.socket = socket.create_connection((host, server.port), server.patience())
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.here, self.there = self.socket.getsockname()[:2], self.socket.getpeername()[:2]
        except OSError as error:  # ENOTCONN: reset already, since the server has just died
            raise Failure(f'No connection to {host}, port {server.port}: {error}') from None

    def queue_is_empty(self):
        """True if the server has accepted all its clients."""
        nobody = '::' if ':' in self.here[0] else '0.0.0.0', 0
        return not receive_queue(self.there, nobody, self.socket.family)

    def must_be_accepted(self):
        if not self.server.until(self.queue_is_empty):
            raise Failure('A client has connected, and the server does not accept() it.')

    def say(self, *pieces):
        """Sends each piece when the server has read the one before, so that they come apart."""
        if self.answered:
            self.sent, self.answered = [], False
        for piece in pieces:
            if self.sent:
                self.taken()
            self.sent.append('(end of file)' if piece is END else c_string(piece, 40))
            self.send(piece)
        return self

    def send(self, data):
        try:
            if data is END:
                self.socket.shutdown(socket.SHUT_WR)
            for start in range(0, len(data or b''), 50000):
                self.socket.settimeout(self.server.patience())
                self.socket.sendall(data[start:start + 50000])
        except socket.timeout:
            pass  # what can be read tells why
        except OSError:
            self.reset = True

    def flood(self, request, count):
        """Sends and does not read, until the server has read all, or takes no more. Returns a
        function that sends the rest."""
        self.sent.append(f'{count:,} times {c_string(request, 40)}')
        rest = memoryview(request * count)
        self.socket.settimeout(0.3)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[self.socket.send(rest):]
            self.taken()
        return lambda: self.send(rest)

    def taken(self):
        """Waits, a second at most, until the server's kernel has acknowledged all that was sent
        (as far as our kernel can tell), and its program has read it."""
        self.server.until(lambda: not any(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))) and
                          not receive_queue(self.there, self.here, self.socket.family), seconds=1)
        return self

    def read(self):
        """Reads what comes next. Returns all that has come since the last right reply."""
        self.socket.settimeout(self.server.patience())
        try:
            data = self.socket.recv(1 << 20)
            self.came += data
            self.ending = '' if data else 'RST' if self.reset else 'end of file'
        except socket.timeout:
            self.ending = f'nothing for {self.socket.gettimeout():.1f} s'
        except OSError as error:
            self.ending = f'RST ({error.strerror})'
        return bytes(self.came)

    def expect(self, reply, more=False):
        """Reads the reply, or END. Anything else is a failure (with `more`, not what follows).
        An empty reply means: nothing comes any more, however the connection ends."""
        wanted, right = reply or b'', True
        while right and not self.ending and (not wanted or len(self.came) < len(wanted)):
            start = len(self.came)
            self.read()
            right = self.came[start:len(wanted)] == wanted[start:len(self.came)]
        if reply is END and self.ending == 'end of file':
            self.taken()  # a server that closes now, with something unread, sends RST
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.ending = 'end of file, and RST'
        if self.came[:len(wanted) if more else None] != wanted or \
                reply is END and self.ending != 'end of file':
            raise self.difference(wanted, reply is END)
        self.came, self.answered = bytearray(), True
        return self

    def difference(self, wanted, end):
        pairs = enumerate(zip(self.came, wanted))
        at = next((at for at, (came, want) in pairs if came != want), len(self.came[:len(wanted)]))
        sent = ' '.join(self.sent)
        lines = [f'sent      {sent if len(sent) < 90 else sent[:43] + " ... " + sent[-43:]}',
                 f'expected  {"end of file" if end else c_string(wanted)}',
                 f'came      {c_string(self.came) if self.came else ""}'
                 f'{", then " if self.came and self.ending else ""}{self.ending}']
        if 'RST' in self.ending:
            lines += ['RST: it closed the socket, or ended, while it had not read all our bytes.']
        elif self.ending.startswith('nothing') and not self.came and not self.queue_is_empty():
            lines += ['The server has not accepted this client: it still serves one that came before.'
                      if len(self.server.clients) > 1 else 'The server has not accepted this client. '
                      'When the one before left, recv() returned 0: lab 06.']
        elif self.came and at < len(wanted):
            lines += [f'They differ at byte {at}, where {c_string(wanted[at:at + 10])} was expected.']
        elif self.came and wanted:
            lines += [f'They differ at byte {at}, where the reply should end.']
        return Failure(*lines[not sent:])

    def leave(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.socket.close()


class Server:
    """The server that is graded: what was started, or what runs at an address."""

    def __init__(self, command, address, limit):
        host, _, port = address.rpartition(':')
        self.command, self.host, self.port = command, host or '127.0.0.1', int(port or 0)
        self.limit, self.process, self.first, self.clients = limit, None, None, []
        self.up, self.gone, self.deaths, self.before = False, False, set(), None
        self.end, self.checks_left = time.monotonic() + SECONDS, 1

    def patience(self):
        """How long to wait for the next byte: the check's share of the time that is left."""
        left = self.end - time.monotonic()
        return max(0.01, min(5, left, max(1, left / self.checks_left)))

    def until(self, condition, seconds=None):
        """Waits until the condition is true. Returns False if that takes too long."""
        end = time.monotonic() + (seconds or self.patience())
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def client(self, host=None):
        """A new client. The first one has connected already, to see whether the server listens."""
        client = self.first if self.first and not host else Client(self, host or self.host)
        self.first = None
        self.clients.append(client)
        return client

    def crowd(self, count):
        return [self.client() for _ in range(min(count, self.limit or count))]

    def start(self, port=None, most_descriptors=0):
        self.up, self.before = True, None
        for turn in range(2):
            if self.command:
                self.port = port or free_port()
                self.start_process(most_descriptors)
            self.until(self.listens_or_is_dead, START_SECONDS)
            if turn or port or self.first or not self.command or self.process.poll() is None:
                break
            self.stop()  # it is dead: perhaps another program took the port before it
            self.up = True
        if not self.first:
            self.gone = True
            raise Failure(f'No client can connect to port {self.port}.', *self.listens_elsewhere())

    def start_process(self, most_descriptors):
        def prepare():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            if most_descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most_descriptors, most_descriptors))
        # A signal between fork() and `self.process =` would leave a server behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            self.process = subprocess.Popen(
                [str(self.port) if word == 'PORT' else word for word in self.command],
                env={**os.environ, 'PORT': str(self.port)}, start_new_session=True,
                preexec_fn=prepare,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        self.words = []
        self.reader = threading.Thread(target=self.hear, args=[self.words, self.process.stderr],
                                       daemon=True)
        self.reader.start()

    @staticmethod
    def hear(words, stream):
        """Keeps the first line that has words, and the last one: one of them tells why it died."""
        for line in stream:
            if re.search(rb'\w', line):
                words[1:] = [line]

    def listens_elsewhere(self):
        """What a server that nobody can reach does instead, as far as /proc can tell."""
        if not self.process or self.process.poll() is not None:
            return []
        sockets = {os.readlink(f'/proc/{pid}/fd/{number}')
                   for pid, _ in self.processes() for number in descriptors(pid)}
        rows = []
        for table in glob.glob('/proc/net/tcp*'):
            with open(table, encoding='ascii') as lines:
                rows += [line.split() for line in lines]
        ports = [int(row[1].rpartition(':')[2], 16) for row in rows
                 if row[3] == '0A' and f'socket:[{row[9]}]' in sockets]
        swapped = self.port % 256 * 256 + self.port // 256
        if not ports:
            return ['It runs, but it does not listen: after socket() and bind() comes listen().']
        if swapped in ports:
            return [f'It listens at port {swapped}: {self.port} with its bytes swapped, see htons(3).']
        return [f'It listens at port {ports[0]}: bind() it to the port of the command line.']

    def listens_or_is_dead(self):
        with contextlib.suppress(Failure):
            self.first = Client(self, self.host)
        return self.first or self.process and self.process.poll() is not None

    def stop(self):
        """Ends all processes of the server's session, if it was started here."""
        for client in self.clients + [self.first] * bool(self.first):
            client.leave()
        self.clients, self.first, self.up = [], None, False
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def death(self):
        """Lines about a server that is dead. A second death of the same kind takes one line."""
        if not self.process or not self.until(lambda: self.process.poll() is not None, 0.2):
            return []
        status = self.process.returncode
        how = f'exit status {status}' if status >= 0 else f'killed by {signal.Signals(-status).name}'
        if how in self.deaths:
            return [f'The server is dead again: {how}.']
        self.deaths.add(how)
        self.reader.join(1)
        words = [line.decode('latin-1').strip() for line in self.words]
        return [f'The server is dead: {how}.'] + [f'  {c_string(word.encode(), 90)}' for word in words]

    @contextlib.contextmanager
    def at_once(self):
        """The server stands still while its clients do what is inside, and then finds it all at
        the same time. So its threads run side by side, and a race shows."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGSTOP)
        yield
        if self.process:
            os.killpg(self.process.pid, signal.SIGCONT)

    def must_be_ours(self):
        if not self.process or not os.path.exists('/proc/self/stat'):
            raise Skip('needs a process that was started here, and /proc')

    def processes(self):
        """PID and the fields of /proc/PID/stat, from the third, of each process of the session."""
        self.must_be_ours()
        for path in glob.glob('/proc/[0-9]*/stat'):
            with contextlib.suppress(OSError), open(path, encoding='latin-1') as line:
                fields = line.read().rpartition(')')[2].split()
                if int(fields[3]) == self.process.pid:
                    yield int(path.split('/')[2]), fields

    def footprint(self):
        """What all its processes use together."""
        sums = collections.Counter()
        for pid, fields in self.processes():
            sums['processor seconds'] += sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')
            sums['threads and processes'] += int(fields[17])
            sums['KB of memory'] += int(fields[21]) * resource.getpagesize() // 1024
            sums['descriptors'] += len(descriptors(pid))
        return sums

    def must_be_as_before(self, what, slack):
        """Lets 500 clients come and go, then 1,000, and compares what is used before and after."""
        if not self.before:
            self.visits(500)
            self.before = self.footprint()
            self.visits(1000)
        most = self.before[what] + slack
        if not self.until(lambda: self.footprint()[what] <= most):
            raise Failure(f'When 1,000 more clients had left there were {self.footprint()[what]:,} '
                          f'{what}; before there were {self.before[what]:,}.')

    def visits(self, count):
        for turn in range(count // 20):
            clients = self.crowd(20)
            for client in clients:
                client.say(b'ping\n')
            for client in clients:
                client.expect(b'pong\n')
                if turn % 2:
                    client.say(b'quit\n').read()
                client.leave()
                self.clients.remove(client)

    def must_rest(self):
        """Nobody asks it for anything, so it should not work. This program works meanwhile, to measure
        how much time a busy machine gives to one program."""
        before, start = self.footprint()['processor seconds'], time.thread_time()
        while (worked := time.thread_time() - start) < 0.4:
            hashlib.pbkdf2_hmac('sha256', b'nothing', b'', 10000)
        used = self.footprint()['processor seconds'] - before
        if used > 0.06:
            raise Failure(f'With nothing to do it used {used:.2f} s of processor time, as long as '
                          f'this program used {worked:.2f} s.')

    def start_with_few_descriptors(self, count):
        """Starts it again, with a limit that is `count` above what it has open now."""
        self.must_be_ours()
        most = 1 + count + max([2] + [int(open_one) for pid, _ in self.processes()
                                      for open_one in descriptors(pid)])
        self.stop()
        self.start(most_descriptors=most)


def descriptors(pid):
    try:
        return os.listdir(f'/proc/{pid}/fd')
    except PermissionError:
        raise Skip('needs the right to look into /proc/PID/fd') from None
    except OSError:
        return []  # it has just ended


def free_port():
    """A free port below those that the kernel gives to clients."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(('', port))
            return port
