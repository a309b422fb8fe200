#!/usr/bin/python3 -B
"""Peers of build/datagrams, friendly and not: `make datagrams-check`.

Lab 11 types into nc, socat and bash, and shows the one peer against which there
is no help. That something is *not* answered is shown without waiting. Datagrams on one host
arrive in order: a ping is sent behind it, and its pong must come first.
"""

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys

import outside

PROGRAM = os.path.abspath(os.environ.get('DATAGRAMS', 'build/datagrams'))
EMPTY = 'empty, or quit: there is no connection'
UNANSWERED = 'Fail to answer, sendto: Resource temporarily unavailable\n'

with open('/proc/sys/net/unix/max_dgram_qlen', encoding='ascii') as setting:
    QUEUE = int(setting.read()) + 1  # datagrams for a peer without connect()


class Case(outside.Case):
    def serve(self, *options, under=()):
        self.server = self.start(*under, PROGRAM, *(options or ('-p', '0')),
                                 ASAN_OPTIONS='detect_leaks=0')
        self.server.expect(r'^Server Started \.\.\.\nListening on (?:\*:(\d+)'
                           r'/udp|(\S+) \(datagrams\)), pid (\d+), fd 3\n')
        port, self.where, pid = self.server.match.groups()
        self.port, self.pid = int(port or 0), int(pid)

    def serve_path(self, **under):
        self.serve('-U', self.path('socket'), **under)

    def peer(self, own='own', connected=True, host='127.0.0.1'):
        """A socket that talks to it, on a port from `host`. Without an `own` path
        nobody can answer it there; if it is not connected its queue has a limit."""
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        made = socket.socket(family if self.port else socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.settimeout(outside.LIMIT)
        if own and not self.port:
            made.bind(self.path(own))
        if connected:
            made.connect((host, self.port) if self.port else self.where)
        return made

    def answered(self, peer, request, reply):
        peer.send(request)
        self.assertEqual(peer.recv(65536), reply)

    def only_pong(self, peer):
        """Nothing was sent here before the reply to a ping that goes now."""
        self.answered(peer, b'ping', b'pong\n')

    def logs(self, sender, words):
        """The next line of the log, to the letter."""
        self.server.expect(r'([^\n]*\n)')
        self.assertEqual(self.server.match[1], f'Datagram from {sender}: {words}\n')

    def stop(self, left='', number=signal.SIGTERM):
        """The orderly end. `left` is what the log still had to say."""
        os.kill(self.pid, number)
        rest, status = self.see_end(self.server)
        self.assertEqual((rest, status), (left + 'Server Stopped.\n', 0))

    @contextlib.contextmanager
    def frozen(self):
        """What is sent meanwhile has arrived before the server can look."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)
        yield
        os.kill(self.pid, signal.SIGCONT)


class Requests(Case):

    def test_one_datagram_is_one_request(self):
        self.serve()
        six, peer = self.peer(host='::1'), self.peer()
        six.send(b'foo')
        self.logs(f'[::1]:{six.getsockname()[1]}', 'Unsupported command: foo')
        for request, reply in (
                (b'ping\n', b'pong\n'), (b' \t ping  pong \r\n', b'pong\n'),
                (b'echo', b'\n'), (b'echo a  b', b'a  b\n'),
                (b'echo a\nb\n', b'a\nb\n'), (b'echo a\0b\n', b'a\0b\n'),
                (b'echo ' + b'x' * 4091, b'x' * 4091 + b'\n')):
            self.answered(peer, request, reply)
        for request in (b'ping\nping\n', b'PING', b'\033[2J\a', b'y' * 4096,
                        b'', b'\n', b'quit\n', b'echo ' + b'x' * 4092,
                        b'echo ' + b'x' * 65502):
            peer.send(request)
        self.only_pong(peer)
        for words in [f'Unsupported command: {word}' for word in (
                'ping\\x0aping', 'PING', '\\x1b[2J\\x07', 'y' * 64 + '...')
                ] + [EMPTY] * 3 + ['longer than 4096 bytes'] * 2:
            self.logs(f'127.0.0.1:{peer.getsockname()[1]}', words)
        self.stop()

    def test_no_reply_is_longer_than_its_request(self):
        """Random bytes. Others than ping and echo get a printable log line."""
        self.serve()
        peer, others = self.peer(), 0
        chance = random.Random(seed := random.randrange(1 << 32))
        for _ in range(2000):
            request = b''.join(chance.choice((
                b'ping', b'echo', b'quit', b' ', b'\n', b'\0', b'~' * 1000,
                chance.randbytes(9))) for _ in range(chance.randrange(6)))
            line = request[:-1] if request.endswith(b'\n') else request
            peer.send(request)
            peer.send(b'echo end')
            word = line.strip(b' \t\r\v\f').split(b' ')[0]
            if word in (b'ping', b'echo') and len(request) <= 4096:
                self.assertLessEqual(len(peer.recv(65536)), len(request) + 1, seed)
            else:
                others += 1
            self.assertEqual(peer.recv(65536), b'end\n', (seed, request))
        os.kill(self.pid, signal.SIGTERM)
        log, _ = self.see_end(self.server)
        self.assert_whole(log, r'(Datagram from 127\.0\.0\.1:\d+: [ -~]+\n){%d}'
                               r'Server Stopped\.\n' % others)

    def test_two_servers_cannot_be_set_on_each_other(self):
        if os.geteuid() != 0:
            self.lack('a forged sender needs root')
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self.addCleanup(raw.close)

        def forge(port, to, text):
            raw.sendto(struct.pack('!4H', port, to, 8 + len(text), 0) + text, ('127.0.0.1', 0))

        self.serve()
        first = self.server, self.port, self.pid
        self.serve()
        one, two = first[1], self.port
        forge(one, two, b'echo echo ping')  # a word is lost each time
        # It may be another host's server, whose port is the same as ours.
        forge(two, two, b'echo echo echo')
        self.logs(f'127.0.0.1:{two}', "from our own port, perhaps another server's")
        self.stop()
        self.server, self.port, self.pid = first
        self.logs(f'127.0.0.1:{two}', 'Unsupported command: pong')
        self.stop()


class StartAndStop(Case):

    def fails(self, status, errors, *options):
        done = subprocess.run([PROGRAM, *options], check=False, text=True,
                              capture_output=True, timeout=outside.LIMIT)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (status, '', errors))

    def test_a_port_and_a_path_have_one_server(self):
        in_use = 'Fail to start server, bind {}: Address already in use\n'.format
        self.serve()
        self.fails(1, in_use(self.port), '-p', str(self.port))
        self.stop()
        self.serve_path()
        self.fails(1, in_use(self.where), '-U', self.where)
        self.fails(1, in_use(self.directory), '-U', self.directory)
        self.stop()

    def test_bad_usage(self):
        for words in ('-p', '-p ', '-p 12x8', '-p 65536', '-p -1', '-x', '1208',
                      '-p ' + '9' * 30, '-U', '-U ', '-U ' + 'x' * 108, '-p 1 -U x'):
            self.fails(2, 'usage: build/datagrams [-p port | -U path]\n',
                       *words.split(' '))

    def test_the_socket_file(self):
        """Its mode is right from its birth. It goes, unless it is another's."""
        for number in signal.SIGINT, signal.SIGTERM:
            self.serve_path()
            self.assertEqual(os.stat(self.where).st_mode & 0o777, 0o660)
            self.stop(number=number)
            self.assertFalse(os.path.exists(self.where))
        self.serve_path()
        first = self.server, self.pid
        os.rename(self.where, self.path('away'))
        self.serve_path()
        second = self.server, self.pid
        for self.server, self.pid in first, second:
            self.only_pong(self.peer(f'own{self.pid}'))
            self.stop()

    def test_what_has_arrived_is_answered(self):
        self.serve()
        peer = self.peer()
        with self.frozen():
            for _ in range(200):
                peer.send(b'ping')
            os.kill(self.pid, signal.SIGTERM)
        for _ in range(200):
            self.assertEqual(peer.recv(9), b'pong\n')
        self.stop()

    def test_a_reply_waits_for_a_full_queue(self):
        """Also at the stop. It waits for a moment, and we may be late."""
        for number in range(3):
            self.serve_path()
            peer = self.peer(f'peer{number}', connected=False)
            for _ in range(QUEUE):
                peer.sendto(b'ping', self.where)
            self.only_pong(self.peer(f'other{number}'))
            with self.frozen():
                for _ in range(5):
                    peer.sendto(b'ping', self.where)
                os.kill(self.pid, signal.SIGTERM)
            with open(f'/proc/{self.pid}/stat', encoding='ascii') as stat:
                outside.until(lambda: stat.seek(0) or stat.read().split()[2] in 'SZ')
            os.kill(self.pid, signal.SIGINT)  # it waits in sendto()
            for _ in range(QUEUE):
                peer.recv(9)
            rest, _ = self.see_end(self.server)
            if rest == 'Server Stopped.\n':
                for _ in range(5):
                    self.assertEqual(peer.recv(9), b'pong\n')
                return
        self.fail(rest)


class Deaf(Case):
    """Peers that never read, that are gone, or that have no address."""

    def test_a_full_queue_silences_nobody(self):
        """The server waits once in each row of replies that nobody takes."""
        self.serve_path()
        peer, deaf = self.peer(), self.peer('d', connected=False)
        for _ in range(QUEUE):
            deaf.sendto(b'ping', self.where)
        for _ in range(3):
            self.only_pong(peer)
            for _ in range(5):
                deaf.sendto(b'ping', self.where)
        self.only_pong(peer)
        self.stop(UNANSWERED * 3)

    def test_peers_that_are_gone_or_have_no_address(self):
        self.serve()
        with self.frozen(), self.peer() as gone:
            gone.send(b'ping')
        self.only_pong(self.peer())
        self.stop()
        self.serve_path()
        self.peer(own=None).send(b'ping')
        self.only_pong(self.peer())
        self.stop('Fail to answer, sendto: Transport endpoint is not connected\n')


if __name__ == '__main__':
    if 'QUEUE' not in os.environ and not subprocess.call(
            ['unshare', '--net', 'true'], stderr=subprocess.DEVNULL):
        # As systemd sets it. Replies that nobody reads lie in our send buffer.
        os.execvp('unshare', ['unshare', '--net', 'sh', '-c', """ip link set lo up
            export QUEUE=512
            echo $QUEUE > /proc/sys/net/unix/max_dgram_qlen
            exec "$0" -B "$@" """, sys.executable, *sys.argv])
    outside.main()
