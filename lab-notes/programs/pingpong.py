#!/usr/bin/env python3
"""Asks, waits for the answer, asks again: how long does one round take?

    pingpong.py ROUNDS PATH             over a Unix domain socket
    pingpong.py ROUNDS HOST PORT        over TCP

Prints the median of so many rounds, and the fastest. The median does not mind
the few rounds in which another program had the processor.
"""
import socket
import statistics
import sys
import time

rounds = int(sys.argv[1])
if len(sys.argv) == 3:
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[2])
else:
    client = socket.create_connection((sys.argv[2], int(sys.argv[3])))

times = []
for _ in range(rounds):
    start = time.perf_counter()
    client.sendall(b"ping\n")
    # Five bytes never come in two parts on one machine; elsewhere they might.
    if client.recv(5) != b"pong\n":
        sys.exit("that is not pong")
    times.append(1e6 * (time.perf_counter() - start))
print(f"median {statistics.median(times):.1f} us, fastest {min(times):.1f} us")
