#!/usr/bin/python3 -B
"""peers.py - other people's programs talk to ./server, and ./client to others.

Run by `make peers`. One test: PROGRAMS=. tests/peers/peers.py -k article
"""

import http.server
import io
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading

import outside
from outside import Server, pexpect, program

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
        log = self.assert_whole(server.stop(),
                                log_of('127.0.0.1', server.port))
        return (screen.getvalue().replace('\r\n', '\n'), status,
                (log[1], server.port))

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

    def test_our_client_chats_on_standard_error(self):
        server = Server(self, '-p', '0')
        chat = self.path('chat')
        child = self.start_in_terminal(
            'sh', '-c', 'exec "$@" 2>' + chat, 'sh', program('client'),
            *localhost(server.port))
        child.sendline('ping')
        child.expect_exact('pong\r\n')
        screen = child.before + child.after
        child.sendline('quit')
        child.expect(pexpect.EOF)
        self.assertEqual(screen + child.before, 'ping\r\npong\r\nquit\r\n')
        with open(chat, encoding='ascii') as file:
            self.assert_whole(file.read(), r'Trying 127\.0\.0\.1\.\.\.\n'
                              r'Connected to localhost: '
                              r'\[tcp, 127\.0\.0\.1, \d+, 127\.0\.0\.1, '
                              rf'{server.port}\]\n'
                              r'Connection closed by foreign host\.\n')


class Telnets(outside.Case):
    """Both telnets with addresses. They end each line with CR LF themselves."""

    def check(self, telnet, host):
        server = Server(self, '-p', '0')
        child = self.start_in_terminal(telnet, host, server.port)
        child.expect_exact("Escape character is '^]'.\r\n")
        child.sendline('ping')
        child.expect_exact('ping\r\npong\r\n')
        child.sendline('echo  two  spaces ')
        child.expect_exact('echo  two  spaces \r\n two  spaces\r\n')
        child.sendline('quit')
        child.expect(pexpect.EOF)
        self.assertEqual(child.before,
                         'quit\r\nConnection closed by foreign host.\r\n')
        self.assert_whole(server.stop(), log_of(host, server.port))


class Peers(outside.Case):
    """Each of the others with ping, echo and quit, on pipes."""

    def converse(self, peer, end):
        for request, reply in (('ping', 'pong\n'),
                               ('echo  Hello,  socket ', ' Hello,  socket\n')):
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
                self.check_tcp(lambda *where: [path, *over_tcp(*where)],
                               host, end)
            setattr(Peers, f'test_{name}_{host_name}_{end_name}', test_tcp)

        def test_unix(self, end=end):
            path = self.need(package, peer)
            self.check_unix(lambda *where: [path, *over_unix(*where)], end)
        if over_unix:
            setattr(Peers, f'test_{name}_unix_{end_name}', test_unix)


def add_telnet(name, package, *programs):
    for host_name, host in HOSTS.items():
        def test(self, host=host):
            self.check(self.need(package, *programs), host)
        setattr(Telnets, f'test_{name}_{host_name}', test)


for entry in PEERS:
    add_peer(*entry)
add_telnet('inetutils_telnet', 'inetutils-telnet', 'inetutils-telnet')
add_telnet('netkit_telnet', 'telnet-ssl', *NETKIT)


class DockerLike(http.server.BaseHTTPRequestHandler):
    """Answers the one question that Docker's daemon is asked first."""

    def do_GET(self):
        body = b'OK' if self.path == '/_ping' else b'what?'
        self.send_response(200 if body == b'OK' else 404)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: the test has the answer itself."""


class Client(outside.Case):
    """Our client with other programs around it."""

    def shell(self, script, *arguments):
        """Runs a shell script, which finds the client in $0. Returns its exit
        status, standard output and standard error."""
        child = subprocess.Popen(
            ['bash', '-c', script, program('client'), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding='latin-1',
            start_new_session=True)
        try:
            output, errors = child.communicate(timeout=outside.LIMIT)
            return child.returncode, output, errors
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()

    def test_http_over_a_unix_domain_socket(self):
        path = self.path('docker.sock')
        # A file, whose end is there from the beginning: a pipe's may come after
        # the answer, and then it is the server who hung up.
        with open(self.path('request'), 'wb') as request:
            request.write(b'GET /_ping HTTP/1.0\r\n\r\n')
        with socketserver.UnixStreamServer(path, DockerLike) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                status, output, errors = self.shell(
                    '"$0" -U "$1" <"$2" | tr -d "\\r"; exit "${PIPESTATUS[0]}"',
                    path, self.path('request'))
            finally:
                server.shutdown()
                thread.join()
        self.assertEqual(errors, f'Connected to {path}: [unix, {path}]\n'
                         'Connection closed by foreign host.\n')
        self.assert_whole(output, r'HTTP/1\.0 200 OK\n(.+: .+\n)+\nOK')
        self.assertEqual(status, 0)

    def with_two_addresses(self, port, request):
        """The client, where the name both.test is ::1 and 127.0.0.1. It sees
        an /etc/hosts of ours, in a mount namespace that ends with it."""
        unshare = ' '.join(self.unshare('--mount'))
        with open(self.path('hosts'), 'w', encoding='ascii') as hosts:
            hosts.write('::1 both.test\n127.0.0.1 both.test\n')
        return self.shell(
            f"printf '{request}' | {unshare} sh -c "
            '\'mount --bind "$1" /etc/hosts && exec "$0" both.test "$2"\' '
            '"$0" "$1" "$2"', self.path('hosts'), port)

    def test_ipv6_then_ipv4(self):
        server = Server(self, '-4', '-p', '0')
        status, output, errors = self.with_two_addresses(server.port,
                                                         r'ping\nquit\n')
        self.assert_whole(errors, r'Trying ::1\.\.\.\n'
                          r'Trying 127\.0\.0\.1\.\.\.\n'
                          r'Connected to both\.test: \[tcp, 127\.0\.0\.1, '
                          rf'\d+, 127\.0\.0\.1, {server.port}\]\n'
                          r'Connection closed by foreign host\.\n')
        self.assertEqual((status, output), (0, 'pong\n'))

    def test_ipv6_suffices(self):
        server = Server(self, '-6', '-p', '0')
        status, output, errors = self.with_two_addresses(server.port,
                                                         r'ping\nquit\n')
        self.assert_whole(errors, r'Trying ::1\.\.\.\n'
                          r'Connected to both\.test: '
                          rf'\[tcp, ::1, \d+, ::1, {server.port}\]\n'
                          r'Connection closed by foreign host\.\n')
        self.assertEqual((status, output), (0, 'pong\n'))

    def test_both_addresses_refused(self):
        # Bound and not listening: nobody else can be there.
        with socket.socket(socket.AF_INET6) as nobody:
            nobody.bind(('::', 0))
            port = str(nobody.getsockname()[1])
            self.assertEqual(
                self.with_two_addresses(port, r'ping\n'),
                (1, '', 'Trying ::1...\nTrying 127.0.0.1...\n'
                 f'Fail to connect, both.test:{port}: Connection refused\n'))

    def test_pipe_that_closes(self):
        server = Server(self, '-p', '0')
        status, output, errors = self.shell(
            'yes ping | "$0" 127.0.0.1 "$1" | head -1; '
            'exit "${PIPESTATUS[1]}"', server.port)
        self.assertEqual(output, 'pong\n')
        self.assert_whole(errors, r'Trying 127\.0\.0\.1\.\.\.\n'
                          r'Connected to 127\.0\.0\.1: \[.*\]\n'
                          r'Fail to write, standard output: Broken pipe\n')
        self.assertEqual(status, 1)

    def test_end_of_input_at_the_terminal(self):
        server = Server(self, '-p', '0')
        child = self.start_in_terminal(program('client'), '127.0.0.1',
                                       server.port)
        child.sendline('echo last words')
        child.expect_exact('\r\nlast words\r\n')
        child.sendeof()
        rest, status = self.see_end(child)
        self.assertIn('Connection closed by foreign host.\r\n', rest)
        self.assertEqual(status, 0)

    def test_server_killed_while_a_person_types(self):
        server = Server(self, '-p', '0')
        child = self.start_in_terminal(program('client'), '127.0.0.1',
                                       server.port)
        child.sendline('ping')
        child.expect_exact('\r\npong\r\n')
        os.kill(server.pid, signal.SIGKILL)
        self.assertEqual(self.see_end(child),
                         ('Connection closed by foreign host.\r\n', 1))


class NoIPv6(outside.Case):
    """The server where there is no IPv6."""

    def test_kernel_without_ipv6(self):
        strace = self.need('strace', 'strace')
        trace = self.path('trace')
        server = Server(self, '-p', '0', under=(
            strace, '-f', '-o', trace, '-e', 'trace=socket',
            '-e', 'inject=socket:error=EAFNOSUPPORT:when=1'))
        self.assertEqual(server.where, f'*:{server.port}')
        server.connect('127.0.0.1').close()
        self.assert_whole(server.stop(), log_of('127.0.0.1', server.port))
        with open(trace, encoding='latin-1') as file:
            calls = re.findall(r'socket\((AF_INET6?), .* = (.*)', file.read())
        self.assertEqual([family for family, _ in calls],
                         ['AF_INET6', 'AF_INET'])
        self.assertRegex(calls[0][1], 'EAFNOSUPPORT .*INJECTED')

    def test_ipv6_switched_off(self):
        """As in many containers: the kernel has IPv6, and no address for it.
        The server is in a network namespace of its own, our client too."""
        self.need('iproute2', 'ip')
        server = Server(self, '-p', '0', under=(
            *self.unshare('--net'), 'sh', '-c',
            'ip link set lo up && '
            'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && exec "$@"',
            'sh'))
        self.assertEqual(server.where, f'*:{server.port}')
        enter = ['nsenter', '--target', str(server.pid), '--net']
        if os.geteuid() != 0:
            enter += ['--user', '--preserve-credentials']
        for host, status, says in (('::1', 1, ''), ('127.0.0.1', 0, 'pong\n')):
            client = self.start(*enter, 'sh', '-c',
                                r'printf "ping\nquit\n" | "$@" 2>/dev/null',
                                'sh', program('client'), host, server.port)
            self.assertEqual(self.see_end(client), (says, status))
        self.assert_whole(server.stop(), log_of('127.0.0.1', server.port))


if __name__ == '__main__':
    outside.main()
