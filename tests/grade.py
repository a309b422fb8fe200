#!/usr/bin/env python3
"""grade.py - marks a server that answers ping, echo and quit, in whatever language it is written.

    tests/grade.py [options] -- ./mine PORT          starts it, and talks to it
    tests/grade.py [options] --address host:port     talks to one that runs already

PORT, as a word of the command and in its environment, is the port to listen at. The grader sees
what a client can see: bytes, and how a connection ends. It also looks at the process, if it is
the one that started it. The checks come first; each begins with what it asks, and why.
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import sys
import threading
import time
from xml.etree import ElementTree

sys.dont_write_bytecode = True
from grader.wire import END, ENDING, Failure, Server, Skip  # noqa: E402

STAGES, CHECKS = [], []
Check = collections.namedtuple('Check', 'stage name points says run gate')

def stage(title):
    STAGES.append(title)

def check(points, gate=''):
    """Makes a function a check of this stage. A failure ends with what its first line says.
    When a gate fails, the checks behind it would tell nothing new, and are not run."""
    def add(run):
        name = run.__name__.replace('_', '-')
        CHECKS.append(Check(STAGES[-1], name, points, run.__doc__, run, gate))
    return add

def dialogue(points, name, says, *exchanges):
    """A check that sends and reads on one connection. An exchange is what to send, in one segment
    or in several, and then the reply."""
    def run(server):
        client = server.client()
        for *pieces, reply in exchanges:
            client.say(*pieces).expect(reply)
    CHECKS.append(Check(STAGES[-1], name, points, says, run, ''))

stage('1: it listens')

@check(3, gate='everything')
def accepts(server):
    """A client connects, and accept() takes it out of the queue that listen() made: lab 06."""
    server.client().must_be_accepted()

@check(3)
def next_client(server):
    """When recv() returns 0 a client has left: close its socket, and accept the next: lab 06."""
    server.client().leave()
    server.client().must_be_accepted()

stage('2: one request')

@check(4, gate='everything')
def ping(server):
    """A client sends the line `ping`, and waits for the reply `pong`: lab 01."""
    server.client().say(b'ping\n').expect(b'pong', more=True)

@check(3)
def nothing_more(server):
    """No \\0 ends what recv() brings: use its count. A reply ends in \\n, without \\0: lab 08."""
    server.client().say(b'x' * 60 + b'\n', END).read()  # strlen() would find what this one left
    server.client().say(b'ping\n').expect(b'pong\n').say(END).expect(b'')

@check(2)
def ping_crlf(server):
    """telnet ends a line with \\r\\n, others with \\n: drop white space at its end: lab 01."""
    server.client().say(b'ping\r\n').expect(b'pong', more=True)

stage('3: a conversation')

dialogue(3, 'many-requests', 'A conversation is a loop: receive, answer, receive again: lab 06.',
         *[(b'ping\n', b'pong\n')] * 100)
dialogue(2, 'echo', 'The reply to echo is what follows the first space, and \\n: lab 01.',
         (b'echo Hello,socket\n', b'Hello,socket\n'), (b'echo\n', b'\n'))
dialogue(2, 'echo-spaces', 'Spaces inside the text stay. Those at both ends of the line go: lab 01.',
         (b'echo one  two   three\n', b'one  two   three\n'), (b' \t echo  four \t \r\n', b' four\n'))
BYTES = b'<' + bytes(byte for byte in range(256) if byte not in b'\n') + b'>\n'
dialogue(2, 'echo-bytes', 'Count bytes: a C string ends at its first NUL, char may be signed: lab 08.',
         (b'echo ' + BYTES, BYTES))
dialogue(2, 'unsupported', 'A client waits for a reply: say which word was not understood: lab 01.',
         (b'foo\n', b'Unsupported command: foo\n'), (b' pings x\n', b'Unsupported command: pings\n'))
dialogue(1, 'unprintable-word', 'Bytes that are not printable become \\xNN: they could repaint a '
         'terminal: lab 18.', (b'a\x1b[2J\0\xe4~\n', b'Unsupported command: a\\x1b[2J\\x00\\xe4~\n'))
dialogue(1, 'long-word', 'An unknown word is cut at 64 bytes: limit what strangers make you write: '
         'lab 18.', (b'w' * 64 + b'\n', b'Unsupported command: ' + b'w' * 64 + b'\n'),
         (b'w' * 65 + b'\n', b'Unsupported command: ' + b'w' * 64 + b'...\n'))
dialogue(1, 'empty-lines', 'An empty line asks for nothing and gets nothing: lab 01.',
         (b'\n', b'\r\n', b'  \t \n', b'ping\n', b'pong\n'))

@check(1)
def case_counts(server):
    """Commands are compared byte by byte: PING, Echo and QUIT are not commands: lab 01."""
    client = server.client().say(b'PING\n', b'Echo no\n', b'QUIT\n', b'echo end\n')
    while not client.read().endswith(b'end\n') and not client.ending:
        pass
    client.expect(b''.join(re.findall(b'Unsupported.*\n', client.came)) + b'end\n')

dialogue(3, 'quit', 'At quit the server closes the connection and sends no reply: lab 01.',
         (b'ping\n', b'pong\n'), (b'quit\n', END))

stage('4: many clients')

@check(4, gate='its stage')
def silent_client(server):
    """While recv() waits for a silent client, others are served: a thread for each: lab 04."""
    server.client()
    server.client().say(b'ec', b'ho hal')
    server.client().say(b'ping\n').expect(b'pong\n')

@check(3)
def flooding_client(server):
    """When a client does not read, send() waits for it. Nobody else should have to: lab 10."""
    server.client().flood(b'echo ' + b'flood ' * 10 + b'\n', 200000)
    server.client().say(b'ping\n').expect(b'pong\n')
    server.stop()  # stage 6 asks what happens when such a client leaves

@check(3)
def others_stay(server):
    """One client left, another lost its connection: two threads shared a variable: lab 15."""
    for _ in range(10):
        clients = [client.say(b'ping\n').expect(b'pong\n') for client in server.crowd(5)]
        clients.pop(0).say(b'quit\n').expect(END)
        clients.pop(1).leave()
        for client in clients:
            client.say(b'ping\n').expect(b'pong\n')

@check(3)
def own_replies(server):
    """Each of 20 clients gets its own replies: a buffer that threads share mixes them: lab 15."""
    with server.at_once():
        clients = server.crowd(20)
    for turn in range(400):
        texts = [b'%d %d ' % (turn, number) * 300 for number in range(len(clients))]
        with server.at_once():
            for client, text in zip(clients, texts):
                client.say(b'echo ' + text + b'end\n')
        for client, text in zip(clients, texts):
            client.expect(text + b'end\n')

@check(3)
def two_hundred(server):
    """200 clients at once are served: the limit is what the system has: lab 09."""
    for number, client in list(enumerate(server.crowd(200))) * 2:
        client.say(b'echo %d\n' % number).expect(b'%d\n' % number)

stage('5: a stream has no messages')

dialogue(4, 'glued', 'Two commands came in one segment. TCP keeps no message boundaries: lab 08.',
         (b'ping\nping\n', b'pong\npong\n'), (b'echo a\r\n\nping\necho b\n', b'a\npong\nb\n'),
         (b'quit\nping\n', b''))
dialogue(5, 'torn-in-two', 'One command came in two segments. TCP keeps no message boundaries: lab 08.',
         *[(b'ping\r\n'[:cut], b'ping\r\n'[cut:], b'pong\n') for cut in range(1, 6)],
         *[(b'echo a  b\n'[:cut], b'echo a  b\n'[cut:], b'a  b\n') for cut in range(1, 10)])
dialogue(3, 'byte-by-byte', 'Each byte came in its own segment. Only \\n ends a request: lab 08.',
         [*map(bytes, zip(b'ping\necho slow\nping\r\n')), b'pong\nslow\npong\n'])

@check(4)
def random_conversations(server):
    """However the same bytes are cut into segments, the same replies come: lab 08."""
    for seed in range(60):
        chance = random.Random(seed)
        requests = [random_request(chance) for _ in range(20)]
        text = b''.join(requests)
        cuts = [0, *sorted(chance.sample(range(1, len(text)), 6)), len(text)]
        pieces = [text[start:end] for start, end in zip(cuts, cuts[1:])]
        server.client().say(*pieces).expect(b''.join(map(answer, requests))).leave()

def random_request(chance):
    word = chance.choice([b'ping', b'echo', b'echo', b'foo', b'', b'\xfc\0'])
    text = bytes(chance.choices(b'abc \t\0\x80\xff', k=chance.randrange(20)))
    return chance.choice([b'', b' ']) + word + b' ' + text + chance.choice([b'\n', b'\r\n'])

def answer(request):
    """What the protocol answers to this line."""
    word, _, text = request.strip(b' \t\r\n\v\f').partition(b' ')
    safe = ''.join(chr(byte) if 32 < byte < 127 else f'\\x{byte:02x}' for byte in word[:64])
    known = {b'': b'', b'ping': b'pong\n', b'echo': text + b'\n'}
    return known.get(word, b'Unsupported command: ' + safe.encode() + b'\n')

stage('6: all of it arrives')

@check(4)
def read_late(server):
    """The client reads late, so send() takes a part or nothing: go on with the rest: lab 10."""
    client, text = server.client(), b'0123456789' * 4 + b'\n'
    send_the_rest = client.flood(b'echo ' + text, 200000)
    threading.Thread(target=send_the_rest, daemon=True).start()
    client.expect(text * 200000)

@check(3)
def client_vanishes(server):
    """Sending to a client that is gone raises SIGPIPE, which ends the process: lab 18."""
    server.client().flood(b'echo ' + b'vanish ' * 10 + b'\n', 200000)
    server.clients[-1].leave()
    for _ in range(30):
        server.client().say(b'ping\n' * 5000, END).leave()
    server.client().say(b'ping\n').expect(b'pong\n')

@check(2)
def client_resets(server):
    """A client's reset makes recv() fail. That ends its conversation, not the server: lab 10."""
    for _ in range(10):
        server.client().say(b'echo ha', b'lf').taken().leave(reset=True)
        server.client().leave(reset=True)
    server.client().say(b'ping\n').expect(b'pong\n')

dialogue(2, 'longest-line', 'A line has up to 4,095 bytes and \\n; the buffer needs room for it: lab 08.',
         *[(b'echo ' + b'x' * length + b'\n', b'x' * length + b'\n') for length in (4089, 4090)])
TOO_LONG = b'Line too long, limit 4096 bytes\n'
dialogue(2, 'too-long-line', 'A line is longer than the buffer: say so once, skip it, go on: lab 08.',
         *[(b'x' * length + b'\nping\n', TOO_LONG + b'pong\n') for length in (4096, 4097, 1000000)])

stage('7: the end')

dialogue(3, 'half-close', 'End of file: the client sends no more, but it reads all replies: lab 10.',
         (b'echo to the end\n' * 2000, END, b'to the end\n' * 2000), (END,))

@check(2)
def unfinished_line(server):
    """At end of file a line without \\n is a request, too: lab 10."""
    for *pieces, reply in (b'ping\necho the last', b'pong\nthe last\n'), (b'x' * 5000, b'x', TOO_LONG):
        server.client().say(*pieces, END).expect(reply).expect(END)

dialogue(3, 'quit-unread', 'close() with unread input sends RST: first shutdown(), and read on: lab 10.',
         (b'echo reply\n' * 1000 + b'quit\n' + b'unread\n' * 30000, b'reply\n' * 1000), (END,))
dialogue(2, 'after-quit', 'Replies to what came before quit are owed; none to what follows: lab 10.',
         (b'ping\necho last\nquit\nping\necho no\n', b'pong\nlast\n'), (END,))

stage('8: for a long time')

@check(3)
def descriptors(server):
    """Each accept() makes a descriptor, and only close() gives it back: lab 02."""
    server.must_be_as_before('descriptors', 50)

@check(2)
def threads(server):
    """A client's thread ends when the client leaves, and a child is waited for: lab 04."""
    server.must_be_as_before('threads and processes', 50)

@check(3)
def memory(server):
    """A thread keeps its stack until it is joined or detached; malloc() wants free(): lab 15."""
    server.must_be_as_before('KB of memory', 4096)

@check(2)
def idle(server):
    """recv() and accept() sleep until there is something to do. Nothing should spin: lab 06."""
    server.client().say(b'ping\n').expect(b'pong\n')
    server.must_rest()

@check(2)
def full_house(server):
    """A client that finds no place waits or is sent away. The others do not notice: lab 09."""
    if not server.limit:
        server.start_with_few_descriptors(20)
    elif server.process:
        server.stop()  # who has just left may not have given his place back
        server.start()
    inside = [client.say(b'ping\n').expect(b'pong\n') for client in server.crowd(server.limit or 3)]
    outside = [server.client().say(b'ping\n') for _ in range(30)]
    if server.process:
        server.must_rest()
    for client in inside:
        client.say(b'ping\n').expect(b'pong\n')
    if server.limit and any(client.read() == b'pong\n' for client in outside[:3]):
        raise Failure(f'{server.limit} clients were inside, and one more was served.')
    for client in outside + [inside.pop()]:
        client.leave()
    if not server.until(lambda: server.client().say(b'ping\n').read() == b'pong\n'):
        raise Failure('All places were taken. When a client left, the next one was not served.')
    server.stop()

stage('bonus')

@check(2)
def sigterm(server):
    """At SIGTERM a server answers what has arrived, and ends with exit status 0: lab 10."""
    server.must_be_ours()
    client = server.client().say(b'ping\n').expect(b'pong\n').say(b'echo owed\n' * 1000)
    os.killpg(server.process.pid, signal.SIGTERM)
    client.expect(b'owed\n' * 1000).expect(END)
    if not server.until(lambda: server.process.poll() is not None) or server.process.returncode:
        raise Failure('After SIGTERM it did not end with exit status 0.')
    server.stop()
    server.start()

@check(1)
def ipv6(server):
    """An IPv6 socket without IPV6_V6ONLY serves clients at ::1 and at 127.0.0.1: lab 02."""
    server.must_be_ours()
    server.client('::1').say(b'ping\n').expect(b'pong\n')

@check(2)
def restart(server):
    """Its old connections are in TIME_WAIT: bind() the same port with SO_REUSEADDR: lab 07."""
    server.must_be_ours()
    server.client().say(b'ping\n').expect(b'pong\n').say(b'quit\n').expect(END).leave()
    server.stop()
    server.start(server.port)


def run(check, server):
    """Makes one check. Returns how it ended, and the lines that tell why."""
    try:
        if not server.up:
            server.start()
        check.run(server)
        return 'ok', []
    except Skip as why:
        return 'skip', [str(why)]
    except Failure as failure:
        lines = [*failure.args, *server.death(), check.says]
        server.stop()  # the next check starts a new one: what went wrong stays here
        return 'FAIL', lines
    finally:
        for client in server.clients:
            client.leave()
        server.clients.clear()


def grade(checks, server):
    """Makes the checks and prints how each ends. Returns that as a list of dictionaries."""
    results, title, closed = [], '', ''
    for number, check in enumerate(checks):
        if check.stage != title:
            title = check.stage
            print('Stage ' * title[0].isdigit() + title)
        server.checks_left = len(checks) - number
        if server.gone or closed in ('everything', title) or time.monotonic() > server.end:
            result, lines = 'not run', []
        else:
            result, lines = run(check, server)
        if result == 'FAIL' and check.gate:
            closed = title if check.gate == 'its stage' else check.gate
        reason = f': {lines.pop()}' if result == 'skip' else ''
        print(f'  {result:7} {check.points}  {check.name}{reason}', *lines, sep='\n          ', flush=True)
        results.append({'stage': title, 'name': check.name, 'points': check.points,
                        'result': result, 'lines': lines})
    return results


def read_options():
    parser = argparse.ArgumentParser(usage=__doc__.partition('\n\n')[2])
    for name, says in (('address', 'HOST:PORT: grade the server that runs there'),
                       ('stage', "only these stages: '5', or '1 2 bonus'"),
                       ('only', "only these checks: 'glued torn-in-two'"),
                       ('limit', 'how many clients the server lets in'),
                       ('json', 'a file for the results'),
                       ('junit', 'a file for the results, in the form that CI systems read')):
        parser.add_argument('--' + name, default='', help=says, metavar=name.upper())
    parser.add_argument('--list', action='store_true', help='say what is asked, and end')
    parser.add_argument('command', nargs='*', help='how to start the server, with the word PORT')
    options = parser.parse_args()
    stages, names = options.stage.split(), options.only.split()
    known = {name for check in CHECKS for name in (check.name, check.stage.partition(':')[0])}
    for name in stages + names:
        if name not in known:
            parser.error(f'there is no {name}: --list shows what there is')
    checks = [check for check in CHECKS if (not names or check.name in names)
              and (not stages or check.stage.partition(':')[0] in stages)]
    if not checks:
        parser.error('no check is in this stage and has this name')
    if not re.fullmatch(r'([1-9]\d*)?', options.limit):
        parser.error(f'{options.limit} is not a number of clients')
    if options.address and not re.fullmatch(r'.+:\d+', options.address):
        parser.error(f'{options.address} is not HOST:PORT')
    if not options.list and bool(options.command) == bool(options.address):
        parser.error("say what to grade: -- ./mine PORT, or --address; with make, SERVER='./mine PORT'")
    return options, checks


def report(results, options):
    """Prints the points, and writes the files. Returns the exit status."""
    picked = options.stage or options.only
    counts = [result for result in results if result['result'] != 'skip'
              and (picked or result['stage'] != 'bonus')]
    most = sum(result['points'] for result in counts)
    reached = sum(result['points'] for result in counts if result['result'] == 'ok')
    bonus = sum(result['points'] for result in results if result['result'] == 'ok') - reached
    kinds = collections.Counter(result['result'] for result in results)
    print(f'{reached} of {most} points' + f', and {bonus} more' * bool(bonus))
    print(f'{kinds["ok"]} passed, {kinds["FAIL"] + kinds["not run"]} failed'
          + f', {kinds["skip"]} skipped' * bool(kinds['skip']))
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as file:
            json.dump({'points': reached, 'of': most, 'bonus': bonus, 'checks': results}, file, indent=1)
    if options.junit:
        ElementTree.ElementTree(junit(results)).write(options.junit, encoding='utf-8')
    return 0 if reached == most else 1


def junit(results):
    suite = ElementTree.Element('testsuite', name='grade')
    for result in results:
        case = ElementTree.SubElement(suite, 'testcase', name=result['name'], classname=result['stage'])
        if result['result'] != 'ok':
            kind = 'skipped' if result['result'] == 'skip' else 'failure'
            ElementTree.SubElement(case, kind).text = '\n'.join(result['lines'])
    return suite


def main():
    options, checks = read_options()
    if options.list:
        for check in checks:
            print(f'{check.stage.partition(":")[0]:5} {check.points}  {check.name:20} {check.says}')
        return 0
    for number in ENDING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    server = Server(options.command, options.address, int(options.limit or 0))
    try:
        return report(grade(checks, server), options)
    except OSError as error:  # the command, or a file
        print(f'grade: {error}', file=sys.stderr)
        return 2
    finally:
        server.stop()


if __name__ == '__main__':
    sys.exit(main())
