#!/usr/bin/python3
"""The ping server as a class would write it in Python: a peer for the benchmark.

    threading_server.py [port]      (1208; 0 lets the kernel pick)

socketserver.ThreadingTCPServer is the design of server.c, a thread for each
connection, in ten lines. The threads are real ones, but only one of them runs
Python at a time (the global interpreter lock).
"""
import socketserver
import sys


class PingHandler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        for line in self.rfile:
            command, _, text = line.strip().partition(b" ")
            if command == b"ping":
                self.wfile.write(b"pong\n")
            elif command == b"echo":
                self.wfile.write(text + b"\n")
            elif command == b"quit":
                return
            elif command:
                self.wfile.write(b"Unsupported command: " + command + b"\n")


class PingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096  # the backlog: 5 by default


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 1208
    with PingServer(("", port), PingHandler) as server:
        print(f"Listening on *:{server.server_address[1]}", flush=True)
        server.serve_forever()
