#!/usr/bin/python3 -B
"""peers.py - other people's programs talk to ./server.

Run by `make peers`. One test: PROGRAMS=. tests/peers/peers.py -k article
"""

import io
import re
import socket

import outside
from outside import Server, program

HOSTS = {'ipv4': '127.0.0.1', 'ipv6': '::1'}
# netkit's telnet, as Debian and as Ubuntu up to 22.04 call it.
NETKIT = ('telnet-ssl', 'telnet.netkit')
ENDS = {'lf': '\n', 'crlf': '\r\n'}

# What the article shows on its screen, to the letter.
ARTICLE = """\
Trying 127.0.0.1...
Connected to localhost.
Escape character is '^]'.
ping
pong
echo Hello,socket
Hello,socket
quit
Connection closed by foreign host.
"""

# Our client says more about the connection, and knows no escape character.
OUR_ARTICLE = ARTICLE.replace(
    "Connected to localhost.\nEscape character is '^]'.\n",
    'Connected to localhost: [tcp, 127.0.0.1, %s, 127.0.0.1, %s]\n')


def localhost(port):
    """The article's operands, where `localhost` had one address. Where it has
    an IPv6 address too, -4 makes it so."""
    found = socket.getaddrinfo('localhost', port, type=socket.SOCK_STREAM)
    only_four = all(entry[0] == socket.AF_INET for entry in found)
    return ['localhost', port] if only_four else ['-4', 'localhost', port]


def bracket(host):
    return f'[{host}]' if ':' in host else host


def log_of(host, port):
    """The log lines of one connection, as patterns."""
    here = re.escape(host)
    name = re.escape(bracket(host))
    return (rf'Connection from {name}:(\d+) opened: fd 4, '
            rf'\[tcp, {here}, {port}, {here}, \1\]\n'
            rf'Connection from {name}:\1 closed\.\n')


class Article(outside.Case):
    """The article's session, typed at a terminal."""

    def play(self, program_path, ready):
        """Plays the part of the person: types a line when the reply to the
        one before is on the screen. Returns the screen, the exit status,
        and the ports of both ends, as the server logged them."""
        server = Server(self, '-p', '0')
        child = self.start_in_terminal(program_path, *localhost(server.port))
        screen = child.logfile_read = io.StringIO()
        child.expect_exact(ready)
        child.expect_exact('\r\n')
        child.sendline('ping')
        child.expect_exact('\npong\r\n')
        child.sendline('echo Hello,socket')
        child.expect_exact('\nHello,socket\r\n')
        child.sendline('quit')
        _, status = self.see_end(child)
        log = self.assert_whole(server.stop(), log_of('127.0.0.1', server.port))
        return (screen.getvalue().replace('\r\n', '\n'), status, (log[1], server.port))

    def check_telnet(self, telnet):
        screen, _, _ = self.play(telnet, "Escape character is '^]'.")
        self.assertEqual(screen, ARTICLE)

    def test_article_in_inetutils_telnet(self):
        self.check_telnet(self.need('inetutils-telnet', 'inetutils-telnet'))

    def test_article_in_netkit_telnet(self):
        self.check_telnet(self.need('telnet-ssl', *NETKIT))

    def test_article_in_our_client(self):
        screen, status, ports = self.play(program('client'), 'Connected to')
        self.assertEqual(screen, OUR_ARTICLE % ports)
        self.assertEqual(status, 0)


class Peers(outside.Case):
    """Each of the others with ping, echo and quit, on pipes."""

    def converse(self, peer, end):
        for request, reply in (('ping', 'pong\n'), ('echo  Hello,  socket ', ' Hello,  socket\n')):
            peer.send(request + end)
            peer.expect_exact(reply)
            self.assertEqual(peer.before, '')
        # Most of them do not end before their own input does. What is behind
        # the quit shows that it was the quit that ended the conversation.
        peer.send('quit' + end + 'ping' + end)
        peer.sendeof()
        self.assertEqual(self.see_end(peer), ('', 0))

    def check_tcp(self, command, host, end):
        server = Server(self, '-p', '0')
        self.converse(self.start(*command(host, server.port)), end)
        self.assert_whole(server.stop(), log_of(host, server.port))

    def check_unix(self, command, end):
        server = Server(self, '-U', self.path('socket'))
        self.converse(self.start(*command(self.path('socket'))), end)
        self.assert_whole(server.stop(),
                          r'Connection from (socket:\[\d+\]) opened: fd 4, '
                          rf'\[unix, {re.escape(self.path("socket"))}\]\n'
                          r'Connection from \1 closed\.\n')


CURL = ['-sN', '-T.', '--stderr', '/dev/null']
BASH = 'exec 3<>"/dev/tcp/$0/$1"; cat <&3 & cat >&3; wait'

# Name, Debian package, program, its arguments for TCP, and for a Unix domain
# socket where it knows them.
PEERS = (
    ('nc', 'netcat-openbsd', 'nc.openbsd',
     lambda host, port: ['-N', host, port],
     lambda path: ['-N', '-U', path]),
    ('ncat', 'ncat', 'ncat',
     lambda host, port: [host, port],
     lambda path: ['-U', path]),
    ('socat', 'socat', 'socat',
     lambda host, port: ['-', f'TCP:{bracket(host)}:{port}'],
     lambda path: ['-', f'UNIX-CONNECT:{path}']),
    # -T . lets curl wait for a reply and for its input at once, and show its
    # progress in spite of -s. Without it curl waits for its input alone, when a
    # reply has not come within 100 ms.
    ('curl', 'curl', 'curl',
     lambda host, port: [*CURL, f'telnet://{bracket(host)}:{port}'],
     lambda path: [*CURL, '--unix-socket', path, 'telnet://localhost']),
    ('busybox_nc', 'busybox', 'busybox',
     lambda host, port: ['nc', host, port],
     None),
    ('bash', 'bash', 'bash',
     lambda host, port: ['-c', BASH, host, port],
     None),
)


def add_peer(name, package, peer, over_tcp, over_unix):
    """One test for each way and each line end, so that each is counted."""
    for end_name, end in ENDS.items():
        for host_name, host in HOSTS.items():
            def test_tcp(self, host=host, end=end):
                path = self.need(package, peer)
                self.check_tcp(lambda *where: [path, *over_tcp(*where)], host, end)
            setattr(Peers, f'test_{name}_{host_name}_{end_name}', test_tcp)

        def test_unix(self, end=end):
            path = self.need(package, peer)
            self.check_unix(lambda *where: [path, *over_unix(*where)], end)
        if over_unix:
            setattr(Peers, f'test_{name}_unix_{end_name}', test_unix)


for entry in PEERS:
    add_peer(*entry)


if __name__ == '__main__':
    outside.main()
