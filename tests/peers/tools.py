#!/usr/bin/python3 -B
"""tools.py - what lsof, netstat, /proc, ls, gdb and strace say of ./server.

Run by `make tools`. One test: PROGRAMS=. tests/peers/tools.py -k lsof

For the default build: where code is optimized, gdb shows something else.
"""

import ctypes
import json
import os
import re
import socket
import struct
import subprocess

import outside
from outside import Server, program, until


def rows(*command):
    """What a tool prints, row by row, cut into columns."""
    # lsof's exit status is 1 when nothing was found, which is an answer too.
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.DEVNULL, check=False,
                            timeout=outside.LIMIT).stdout
    return [line.split() for line in output.splitlines()]


def descriptors(pid):
    """/proc/PID/fd: each descriptor, and what it is."""
    directory = f'/proc/{pid}/fd'
    return {int(name): os.readlink(os.path.join(directory, name))
            for name in os.listdir(directory)}


def threads(pid):
    return len(os.listdir(f'/proc/{pid}/task'))


def all_asleep(pid):
    """True if no thread is on its way: each waits in a system call."""
    states = []
    for thread in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{thread}/stat', encoding='ascii') as file:
            states.append(file.read().rpartition(') ')[2][0])
    return set(states) == {'S'}


class Lsof(outside.Case):
    """Columns: COMMAND PID USER FD TYPE DEVICE SIZE/OFF NODE NAME (STATE)"""

    def setUp(self):
        super().setUp()
        self.lsof = self.need('lsof', 'lsof')

    def test_lsof_one_row_becomes_three(self):
        server = Server(self, '-p', '0')
        look = (self.lsof, '-nP', '-i', f':{server.port}')
        heading, *before = rows(*look)
        self.assertEqual(heading[-1], 'NAME')
        self.assertEqual(len(before), 1, before)
        listening = before[0]
        self.assertEqual(listening[:2] + listening[3:5],
                         ['server', str(server.pid), '3u', 'IPv6'])
        self.assertEqual(listening[7:],
                         ['TCP', f'*:{server.port}', '(LISTEN)'])

        client = self.client_with_quiet_chat('127.0.0.1', server.port)
        client.sendline('ping')
        client.expect_exact('pong\n')
        _, *during = rows(*look)
        self.assertEqual(len(during), 3, during)
        self.assertIn(listening, during)
        during.remove(listening)
        during.sort(key=lambda row: row[0])  # client, server
        its, servers = during
        self.assertEqual(its[:2] + its[4:5],
                         ['client', str(client.pid), 'IPv4'])
        own_port = self.assert_whole(
            ' '.join(its[7:]), r'TCP 127\.0\.0\.1:(\d+)->127\.0\.0\.1:'
            rf'{server.port} \(ESTABLISHED\)')[1]
        # The listening socket's process and port; accept() made a new socket
        # and no new port. It is of type IPv6, too, even for an IPv4 peer.
        self.assertEqual(servers[:2] + servers[3:5],
                         ['server', str(server.pid), '4u', 'IPv6'])
        self.assertEqual(servers[7:],
                         ['TCP', f'127.0.0.1:{server.port}->'
                          f'127.0.0.1:{own_port}', '(ESTABLISHED)'])

        client.sendline('quit')
        self.assertEqual(self.see_end(client), ('', 0))
        server.expect_log(r'Connection from .* opened: .*')
        server.expect_log(r'Connection from .* closed\.')
        self.assertEqual(rows(*look), [heading, listening])

    def test_lsof_finds_unix_peers_by_the_log(self):
        path = self.path('socket')
        server = Server(self, '-U', path)
        for number in 4, 5:
            server.connect()
            name = server.expect_log(
                r'Connection from (socket:\[(\d+)\]) '
                rf'opened: fd {number}, \[unix, {re.escape(path)}\]')
            self.assertEqual(descriptors(server.pid)[number], name[1])
            found = [row for row in rows(self.lsof, '-nP', '-a', '-U', '-p',
                                         str(server.pid))
                     if row[7] == name[2]]
            self.assertEqual(len(found), 1, found)
            self.assertEqual(found[0][3:5] + found[0][8:9],
                             [f'{number}u', 'unix', path])


class Netstat(outside.Case):
    """What netstat shows before anybody comes."""

    def test_netstat_listening_row(self):
        netstat = self.need('net-tools', 'netstat')
        for options, protocol, local, remote in (
                ((), 'tcp6', ':::', ':::*'),
                (('-6',), 'tcp6', ':::', ':::*'),
                (('-4',), 'tcp', '0.0.0.0:', '0.0.0.0:*')):
            server = Server(self, '-p', '0', *options)
            found = [row for row in rows(netstat, '-tln')
                     if row[3:4] == [local + server.port]]
            self.assertEqual(len(found), 1, found)
            self.assertEqual([found[0][0], *found[0][4:]],
                             [protocol, remote, 'LISTEN'])
            server.stop()


class Proc(outside.Case):
    """/proc/PID and the socket file."""

    def test_descriptors_and_threads(self):
        server = Server(self, '-p', '0')
        before = descriptors(server.pid)
        self.assertEqual(sorted(before), [0, 1, 2, 3])
        self.assertRegex(before[3], r'^socket:\[\d+\]$')
        threads_before = threads(server.pid)

        clients = []
        for count in range(1, 11):
            clients.append(server.connect('::1' if count % 2 else '127.0.0.1'))
            server.expect_log(rf'Connection from .* opened: fd {3 + count}, .*')
            during = descriptors(server.pid)
            self.assertEqual(sorted(during), list(range(4 + count)))
            self.assertEqual({**during, **before}, during)
            self.assertRegex(during[3 + count], r'^socket:\[\d+\]$')
            self.assertEqual(threads(server.pid), threads_before + count)
        for client in clients:
            client.sendall(b'quit\n')
            self.assertEqual(client.recv(1), b'')
            client.close()
        for _ in clients:
            server.expect_log(r'Connection from .* closed\.')
        self.assertEqual(descriptors(server.pid), before)
        self.assertTrue(until(lambda: threads(server.pid) == threads_before))

    def test_nothing_grows_over_fifty_connections(self):
        for where in (('-p', '0'), ('-U', self.path('socket'))):
            server = Server(self, *where)
            before = descriptors(server.pid)
            threads_before = threads(server.pid)
            for count in range(50):
                client = server.connect()
                # 4 and 5 take turns: Linux reserves the new descriptor when
                # accept() is called, and the client before has the other then.
                server.expect_log('Connection from .* opened: fd [45], .*')
                if count % 2:
                    client.sendall(b'quit\n')
                    self.assertEqual(client.recv(1), b'')
                client.close()
                server.expect_log(r'Connection from .* closed\.')
            self.assertEqual(descriptors(server.pid), before)
            self.assertTrue(until(
                lambda: threads(server.pid) == threads_before))
            server.stop()

    def test_mode_of_the_socket_file(self):
        path = self.path('socket')
        for mask in '000', '022', '077':
            server = Server(self, '-U', path,
                            under=('sh', '-c', f'umask {mask}; exec "$@"', '-'))
            self.assertEqual(rows('ls', '-l', path)[0][0], 'srw-rw----')
            server.stop()
            self.assertFalse(os.path.lexists(path))


class SocketOptions(outside.Case):
    """What setsockopt() has set: seen through a descriptor of our own for the
    server's socket, pidfd_getfd(2)."""

    PIDFD_GETFD = 438  # on every kind of processor; Python has no name for it

    def options(self, pid, descriptor):
        process = os.pidfd_open(pid)
        try:
            own = ctypes.CDLL(None, use_errno=True).syscall(
                self.PIDFD_GETFD, process, descriptor, 0)
        finally:
            os.close(process)
        if own < 0:
            self.lack('pidfd_getfd: ' + os.strerror(ctypes.get_errno()))
        with socket.socket(fileno=own) as theirs:
            names = {'SO_REUSEADDR': socket.SOL_SOCKET,
                     'SO_KEEPALIVE': socket.SOL_SOCKET}
            if theirs.family != socket.AF_UNIX:
                names['TCP_NODELAY'] = socket.IPPROTO_TCP
            return {name for name, level in names.items()
                    if theirs.getsockopt(level, getattr(socket, name))}

    def test_socket_options(self):
        for family in (), ('-4',), ('-6',):
            server = Server(self, '-p', '0', *family)
            server.connect('127.0.0.1' if '-4' in family else '::1')
            self.assertIn('SO_REUSEADDR', self.options(server.pid, 3))
            self.assertLessEqual({'SO_KEEPALIVE', 'TCP_NODELAY'},
                                 self.options(server.pid, 4))


class Editor(outside.Case):
    """The launch configurations of .vscode, as far as they go without the
    editor: what it hands to gdb, in gdb's machine interface, stops in main()."""

    def read(self, name):
        """JSON, and whole lines of comment, which the editor allows."""
        with open(os.path.join('.vscode', name), encoding='utf-8') as file:
            return json.loads(re.sub(r'^\s*//.*$', '', file.read(), flags=re.M))

    def test_launch_configurations(self):
        gdb = self.need('gdb', 'gdb')
        tasks = {task['label']: task for task in self.read('tasks.json')['tasks']}
        launches = self.read('launch.json')['configurations']
        self.assertEqual([launch['program'] for launch in launches],
                         ['${workspaceFolder}/server', '${workspaceFolder}/client'])
        for launch in launches:
            task = tasks[launch['preLaunchTask']]
            subprocess.run([task['command'], *task.get('args', [])], check=True,
                           stdout=subprocess.DEVNULL, timeout=outside.LIMIT)
            self.assertEqual([launch['type'], launch['MIMode'],
                              launch['stopAtEntry']], ['cppdbg', 'gdb', True])
            path, folder = (launch[key].replace('${workspaceFolder}', os.getcwd())
                            for key in ('program', 'cwd'))
            child = self.start(gdb, '-nx', '-q', '-i=mi', DEBUGINFOD_URLS='')
            for command in (f'-file-exec-and-symbols "{path}"',
                            f'-environment-cd "{folder}"',
                            '-exec-arguments ' + ' '.join(launch['args']),
                            '-break-insert main', '-exec-run'):
                child.expect(r'\(gdb\) ?\n')
                child.sendline(command)
            child.expect(r'\*stopped,reason="breakpoint-hit".*func="main"')


class Gdb(outside.Case):
    """The server under gdb, at a terminal."""

    def command(self, line):
        """Types a command and returns what gdb says to it."""
        self.gdb.sendline(line)
        return self.answer()

    def answer(self):
        """What is said up to gdb's next prompt."""
        self.gdb.expect_exact('(gdb) ')
        said = self.gdb.before.replace('\r\n', '\n')
        # The C library is not ours, and is optimized.
        for row in said.splitlines():
            if re.search(r'(server|handler)\.[ch]:\d+', row):
                self.assertNotIn('optimized out', row)
        return said

    def setUp(self):
        super().setUp()
        gdb = self.need('gdb', 'gdb')
        self.gdb = self.start_in_terminal(gdb, '-nx', '-q', program('server'),
                                          DEBUGINFOD_URLS='')
        self.answer()
        for setting in 'pagination off', 'confirm off', 'width 0':
            self.command('set ' + setting)

    def run_server(self):
        """Types run. Returns a client whose connection is in the backlog, and
        the server's process number."""
        self.gdb.sendline('run -p 0')
        self.gdb.expect(r'Listening on \*:(\d+), pid (\d+), fd 3')
        client = socket.create_connection(('127.0.0.1', self.gdb.match[1]))
        self.addCleanup(client.close)
        client.settimeout(outside.LIMIT)
        return client, self.gdb.match[2]

    def interrupt(self):
        """Ctrl-C at gdb's terminal, while the server runs."""
        self.gdb.sendintr()
        said = self.answer()
        self.assertRegex(said, r'received signal SIGINT, Interrupt\.')
        return said

    def test_gdb_steps_through_a_ping(self):
        for function in 'converse', 'parse':
            self.assertRegex(self.command('break ' + function),
                             r'^.*\nBreakpoint \d+ at .* file handler\.c')
        client, _ = self.run_server()
        self.assertRegex(self.answer(),
                         r'hit Breakpoint 1, converse \(socket=4, terms=')

        self.gdb.sendline('continue')
        self.gdb.expect_exact('Continuing.')
        client.sendall(b'ping\n')
        self.assertRegex(self.answer(),
                         r'hit Breakpoint \S+ parse \(line=\S+ "ping\\n", '
                         r'length=4\)')
        said = self.command('info threads')
        self.assertRegex(said, r'\n  1 +Thread .*"server"')
        self.assertRegex(said, r'\n\* 2 .*"server" +parse \(')
        self.assertEqual(re.findall(r'^#\d+ .*? ?(\w+) \(.* at \S*handler\.c',
                                    self.command('backtrace'), re.M),
                         ['parse', 'answer', 'answer_lines', 'converse'])

        # Line by line from parse() to the send(): each step stays in this
        # thread and shows a line of ours, and the pong comes at deliver().
        for _ in range(40):
            said = self.command('next')
            self.assertRegex(said, r'\n\d+\t')
            if re.search(r'\n\d+\t +deliver\(&talk\)', said):
                break
        else:
            self.fail('40 lines, and not yet at deliver(): ' + said)
        self.assertRegex(self.command('print talk.output_length'), r'\$\d+ = 5')
        client.setblocking(False)
        self.assertRaises(BlockingIOError, client.recv, 1)
        client.settimeout(outside.LIMIT)
        self.command('next')
        self.assertEqual(client.recv(5), b'pong\n')

        said = self.command('info locals')
        self.assertIn('talk = {socket = 4, state = OPEN,', said)
        self.assertNotIn('optimized out', said)

    def ping(self, client, pid):
        """Pings, and waits until all threads wait for more."""
        client.sendall(b'ping\n')
        self.assertEqual(client.recv(5), b'pong\n')
        self.assertTrue(until(lambda: all_asleep(pid)))

    def test_gdb_ctrl_c_stops_in_gdb(self):
        client, pid = self.run_server()
        self.ping(client, pid)
        for _ in range(2):
            self.interrupt()
            self.assertEqual(len(re.findall(r'^[* ] \d+ +Thread .*"server"',
                                            self.command('info threads'),
                                            re.M)), 2)
            self.command('thread 1')
            said = self.command('backtrace')
            self.assertRegex(said, r'accept_clients \(.* at \S*server\.c:\d+')
            self.assertRegex(said, r'main \(argc=3, .* at \S*server\.c:\d+')
            self.command('thread 2')
            said = self.command('backtrace')
            self.assertRegex(said, r'receive \(.* at \S*handler\.c:\d+')
            self.assertRegex(said, r'serve \(.* at \S*server\.c:\d+')

            self.gdb.sendline('continue')
            self.gdb.expect_exact('Continuing.')
            self.ping(client, pid)

    def test_gdb_sees_the_orderly_stop_through(self):
        client, pid = self.run_server()
        self.ping(client, pid)
        self.interrupt()
        # What Ctrl-C would have done without gdb. The client's thread waits
        # in recv(): it is woken by SIGURG, and gdb does not stop at that.
        self.gdb.sendline('signal SIGINT')
        self.gdb.expect_exact('Continuing with signal SIGINT.')
        self.assertEqual(client.recv(1), b'')
        client.close()
        said = self.answer()
        # gdb writes on the same terminal, so the line may begin anywhere.
        self.assertIn('Server Stopped.\n', said)
        self.assertIn(f'(process {pid}) exited normally]', said)
        self.assertNotIn('received signal', said)


class Strace(outside.Case):
    """Which calls the server makes."""

    def test_64_pings_are_one_recv_and_one_send(self):
        strace = self.need('strace', 'strace')
        prefix = self.path('trace')
        server = Server(self, '-p', '0', under=(
            strace, '-ff', '-o', prefix, '-e', 'trace=recvfrom,sendto'))
        client = socket.create_connection(('127.0.0.1', server.port))
        self.addCleanup(client.close)
        client.settimeout(outside.LIMIT)
        client.sendall(64 * b'ping\n')
        self.assertEqual(client.recv(4096), 64 * b'pong\n')

        # Segments with data, in and out: tcp(7), TCP_INFO.
        information = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO,
                                        160)
        self.assertEqual(struct.unpack_from('=II', information, 152), (1, 1))

        client.close()
        server.stop()
        # A file for each thread; the main thread has no such call.
        calls = []
        for name in os.listdir(self.directory):
            with open(self.path(name), encoding='latin-1') as file:
                calls += re.findall(r'^(\w+)\((\d+), .*, 0, NULL, (?:NULL|0)\)'
                                    r' += (-?\d+)', file.read(), re.M)
        self.assertEqual(calls, [('recvfrom', '4', '320'),
                                 ('sendto', '4', '320'),
                                 ('recvfrom', '4', '0')])


if __name__ == '__main__':
    outside.main()
