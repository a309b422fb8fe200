#!/usr/bin/env python3
"""server.py PORT [FAULT] - a right server in Python, or one that is wrong in one way.

The faults are named in FAULTS, with the check that each of them fails and the others that fail
with it. selftest.py holds grade.py to that table.
"""

import contextlib
import os
import re
import resource
import select
import signal
import socket
import sys
import threading

# fault: the check that finds it, and what may fail as a consequence
FAULTS = {
    'never-listens': ('accepts', ''),
    'dies-at-once': ('accepts', ''),
    'never-accepts': ('accepts', ''),
    'accepts-one-client': ('next-client', '*'),
    'mute': ('ping', ''),
    'answers-ping-alone': ('echo', '*'),  # each check waits: the worst for the clock
    'keeps-cr': ('ping-crlf', 'echo-spaces empty-lines glued torn-in-two byte-by-byte'
                 ' random-conversations'),
    'says-bye-at-end-of-file': ('nothing-more', 'half-close unfinished-line sigterm'),
    'sends-nul': ('nothing-more', '*'),
    'strlen-of-the-buffer': ('nothing-more', '*'),
    'fifty-requests': ('many-requests', 'own-replies read-late half-close quit-unread sigterm'),
    'echo-alone-is-silent': ('echo', 'random-conversations'),
    'squeezes-spaces': ('echo-spaces', 'torn-in-two random-conversations'),
    'c-strings': ('echo-bytes', 'random-conversations'),
    'utf-8': ('echo-bytes', 'random-conversations'),
    'unsupported-is-silent': ('unsupported', 'unprintable-word long-word random-conversations'),
    'raw-word': ('unprintable-word', 'random-conversations'),
    'whole-word': ('long-word', ''),
    'empty-line-is-answered': ('empty-lines', 'glued random-conversations'),
    'any-case': ('case-counts', ''),
    'says-goodbye': ('quit', 'others-stay glued quit-unread after-quit restart'),
    'one-at-a-time': ('silent-client', 'full-house sigterm'),
    'one-thread-and-blocking-send': ('flooding-client', 'full-house sigterm'),
    'hundred-places': ('two-hundred', 'full-house'),
    'closes-the-latest': ('others-stay', '*'),
    'one-request-per-read': ('glued', 'random-conversations read-late too-long-line half-close'
                             ' unfinished-line quit-unread after-quit sigterm'),
    'read-is-a-line': ('torn-in-two', 'byte-by-byte random-conversations read-late too-long-line'
                       ' half-close unfinished-line quit-unread sigterm'),
    'line-is-two-reads': ('byte-by-byte', 'random-conversations too-long-line'),
    'loses-the-tail': ('random-conversations', 'read-late too-long-line half-close'
                       ' unfinished-line quit-unread sigterm'),
    'send-is-whole': ('read-late', ''),
    'dies-of-sigpipe': ('client-vanishes', 'client-resets'),
    'dies-of-a-reset': ('client-resets', 'client-vanishes full-house'),
    'short-buffer': ('longest-line', ''),
    'any-length': ('too-long-line', 'unfinished-line'),
    'resets-at-end-of-file': ('half-close', 'nothing-more unfinished-line sigterm'),
    'forgets-the-last-line': ('unfinished-line', ''),
    'forgets-what-it-skips': ('unfinished-line', ''),
    'closes-with-unread-input': ('quit-unread', 'after-quit'),
    'answers-after-quit': ('after-quit glued', 'quit-unread'),
    'keeps-a-descriptor': ('descriptors', ''),
    'keeps-a-thread': ('threads', 'memory'),
    'keeps-memory': ('memory', ''),
    'spins': ('idle', 'full-house'),
    'spins-without-descriptors': ('full-house', ''),
    'throws-out-the-first': ('full-house', ''),
    'dies-of-sigterm': ('sigterm', ''),
    'ipv4-alone': ('ipv6', ''),
    'no-reuseaddr': ('restart', ''),
}
UNLIMITED = {'spins-without-descriptors'}
LIMIT = 250
TOO_LONG = b'Line too long, limit 4096 bytes\n'

port = int(sys.argv[1])
fault = sys.argv[2] if len(sys.argv) > 2 else ''
most = 100 if fault == 'hundred-places' else 10000 if fault in UNLIMITED else LIMIT
longest = {'short-buffer': 4000, 'any-length': 1 << 30}.get(fault, 4095)
clients, threads, kept = [], set(), []
buffer = bytearray(4096)  # for all clients


def strip(line):
    return line.strip(b' \t\v\f' if fault == 'keeps-cr' else b' \t\v\f\r')


def answer(line):
    word, space, text = strip(line).partition(b' ')
    command = word.lower() if fault == 'any-case' else word
    if fault == 'mute' or fault == 'answers-ping-alone' and line != b'ping':
        return b''
    if not word:
        return b'\n' if fault == 'empty-line-is-answered' else b''
    if command == b'ping':
        return b'pong\n\0' if fault == 'sends-nul' else b'pong\n'
    if command == b'echo':
        if fault == 'squeezes-spaces':
            text = re.sub(b' +', b' ', text)
        elif fault == 'c-strings':
            text = text.partition(b'\0')[0]
        elif fault == 'utf-8':
            text = text.decode(errors='replace').encode()
        return b'' if fault == 'echo-alone-is-silent' and not space else text + b'\n'
    if fault == 'unsupported-is-silent':
        return b''
    shown = word if fault == 'whole-word' else word[:64]
    if fault != 'raw-word':
        shown = ''.join(chr(byte) if 32 < byte < 127 else f'\\x{byte:02x}' for byte in shown).encode()
    return b'Unsupported command: ' + shown + b'...' * (len(word) > len(shown) // 4 and
                                                       len(word) > 64 and fault != 'whole-word') + b'\n'


def is_quit(line):
    word = strip(line).partition(b' ')[0]
    return word == b'quit' or fault == 'any-case' and word.lower() == b'quit'


class Conversation:
    """What has come without its newline, and how the line goes on."""

    def __init__(self):
        self.rest, self.skipping, self.reads, self.requests, self.over = b'', False, 0, 0, False

    def answers(self, data):
        """The replies to what one recv() brought."""
        self.reads += 1
        if fault == 'read-is-a-line' and not data.endswith(b'\n'):
            data += b'\n'
        elif fault == 'line-is-two-reads' and self.reads == 3 and b'\n' not in data:
            self.rest, self.reads = b'', 1
        *lines, self.rest = (self.rest + data).split(b'\n')
        if lines:
            self.reads = 0
            if fault == 'one-request-per-read':
                lines, self.rest = lines[:1], b''
            elif fault == 'loses-the-tail':
                self.rest = b''
        replies = b''.join(map(self.reply, lines))
        if len(self.rest) > longest:
            replies += b'' if self.skipping else TOO_LONG
            self.rest, self.skipping = b'', True
        return replies

    def reply(self, line):
        if self.over and fault != 'answers-after-quit':
            return b''
        if self.skipping:
            self.skipping = False
            return b''
        self.requests += 1
        if is_quit(line) or fault == 'fifty-requests' and self.requests > 50:
            self.over = True
            return b'Goodbye\n' if fault == 'says-goodbye' else b''
        return TOO_LONG if len(line) > longest else answer(line)


def send(client, replies):
    if fault == 'send-is-whole':
        with contextlib.suppress(BlockingIOError):
            client.send(replies, socket.MSG_DONTWAIT)
    elif fault == 'dies-of-sigpipe':
        with contextlib.suppress(OSError):
            client.sendall(replies)
    else:
        client.sendall(replies)


def receive(client):
    try:
        if fault == 'strlen-of-the-buffer':
            return bytes(buffer).partition(b'\0')[0] if client.recv_into(buffer) else b''
        return client.recv(4096)
    except ConnectionError:
        if fault == 'dies-of-a-reset':
            os._exit(1)
        raise


def converse(client):
    talk = Conversation()
    while not talk.over:
        data = receive(client)
        if not data:
            break
        send(client, talk.answers(data))
    if talk.over:
        if fault != 'closes-with-unread-input':
            client.shutdown(socket.SHUT_WR)
            client.settimeout(1)
            while client.recv(65536):
                pass
    elif fault == 'resets-at-end-of-file':
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    elif fault == 'says-bye-at-end-of-file':
        send(client, b'bye\n')
    elif talk.rest and fault != 'forgets-the-last-line':
        talk.skipping = talk.skipping and fault != 'forgets-what-it-skips'
        send(client, talk.answers(b'\n'))


def serve(client):
    with contextlib.suppress(OSError):
        converse(client)
    victim = clients[-1] if fault == 'closes-the-latest' else client
    if fault == 'keeps-a-descriptor':
        kept.append(os.dup(victim.fileno()))
    elif fault == 'keeps-memory':
        kept.append(bytearray(os.urandom(8192)))
    if fault != 'resets-at-end-of-file':
        with contextlib.suppress(OSError):
            victim.shutdown(socket.SHUT_WR)
    clients.remove(client)
    victim.close()
    threads.discard(threading.current_thread())
    if fault == 'keeps-a-thread':
        threading.Event().wait()


def admit(client):
    if len(clients) >= most:
        if fault != 'throws-out-the-first':
            with contextlib.suppress(OSError):
                client.sendall(b'Too many clients\n')
            client.close()
            return
        clients[0].shutdown(socket.SHUT_RDWR)
    clients.append(client)
    thread = threading.Thread(target=serve, args=[client], daemon=True)
    threads.add(thread)
    if fault == 'one-at-a-time':
        serve(client)
    else:
        thread.start()


def serve_all_in_one_thread(listener):
    talks = {listener: None}
    while True:
        for ready in select.select(list(talks), [], [])[0]:
            if ready is listener:
                talks[listener.accept()[0]] = Conversation()
                continue
            with contextlib.suppress(OSError):
                data = ready.recv(65536)
                ready.sendall(talks[ready].answers(data or b'\n' * bool(talks[ready].rest)))
                if data and not talks[ready].over:
                    continue
                ready.shutdown(socket.SHUT_WR)
                ready.settimeout(1)
                while talks[ready].over and ready.recv(65536):
                    pass
            del talks[ready]
            ready.close()


def stop(*_):
    """Answers what has arrived: after shutdown(SHUT_RD), recv() brings that, and then b''."""
    for client in list(clients):
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RD)
    for thread in list(threads):
        thread.join(3)
    os._exit(0)


def main():
    if fault == 'dies-at-once':
        sys.exit('no luck today')
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if fault == 'dies-of-sigpipe':
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if fault != 'dies-of-sigterm':
        signal.signal(signal.SIGTERM, stop)
    listener = socket.socket(socket.AF_INET if fault == 'ipv4-alone' else socket.AF_INET6)
    if fault != 'no-reuseaddr':
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(('', port))
    while fault == 'never-listens':
        signal.pause()
    listener.listen(1000)
    while fault == 'never-accepts':
        signal.pause()
    if fault == 'one-thread-and-blocking-send':
        serve_all_in_one_thread(listener)
    if fault == 'spins':
        sys.setswitchinterval(0.0005)
        listener.setblocking(False)
    while True:
        try:
            client = listener.accept()[0]
        except OSError:
            if not fault.startswith('spins'):
                select.select([], [], [], 0.1)
            continue
        client.setblocking(True)
        admit(client)
        while fault == 'accepts-one-client':
            signal.pause()


if __name__ == '__main__':
    main()
