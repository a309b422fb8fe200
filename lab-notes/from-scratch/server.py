#!/usr/bin/env python3
"""server.py - the server of step 8 in Python: server.py [PORT] (1208)."""
import socket
import socketserver
import sys
import time


def reply(line):
    """The reply to one request, or None after quit."""
    line = line.strip()
    word, _, text = line.partition(b' ')
    if word == b'quit':
        return None
    if word in (b'', b'ping'):
        return b'pong\n' if word else b''
    if word == b'echo':
        return text + b'\n'
    shown = ''.join(chr(byte) if 32 < byte < 127 else f'\\x{byte:02x}'
                    for byte in word[:64]) + '...' * (len(word) > 64)
    return f'Unsupported command: {shown}\n'.encode()


class Conversation(socketserver.StreamRequestHandler):
    """One client. rfile gathers what recv() brings, wfile sends all."""

    def handle(self):
        skipping, answer = False, b''
        while answer is not None and (line := self.rfile.readline(4096)):
            too_long = len(line) == 4096 and not line.endswith(b'\n')
            if skipping or too_long:
                answer = b'' if skipping else b'Line too long, limit 4096 bytes\n'
            else:
                answer = reply(line)
            skipping = too_long or (skipping and not line.endswith(b'\n'))
            self.wfile.write(answer or b'')
        self.connection.shutdown(socket.SHUT_WR)  # and read, or close() resets
        self.connection.settimeout(1)
        end = time.monotonic() + 2
        while self.connection.recv(4096) and time.monotonic() < end:
            pass


class Server(socketserver.ThreadingTCPServer):
    """A thread for each client."""
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        """A client that has vanished is none of our errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


port = int(sys.argv[1]) if len(sys.argv) > 1 else 1208
with Server(('', port), Conversation) as server:
    print('Server Started ...')
    server.serve_forever()
