#!/usr/bin/python3
"""Does the load generator notice what is wrong? Rubbish must fail, not be fast.
Are the labs' figures those that were measured?

    load_selftest.py path/to/load path/to/server
"""
import csv
import glob
import os
import signal
import socket
import subprocess
import sys
import threading
import unittest

import bench

LOAD, SERVER = [os.path.abspath(path) for path in sys.argv[1:3]]
BOUND = 60


class Liar:
    """Takes one connection and answers each request with the next reply."""

    def __init__(self, *replies):
        self.replies = replies
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(BOUND)
        self.port = str(self.socket.getsockname()[1])
        self.thread = threading.Thread(target=self.answer)

    def answer(self):
        with self.socket.accept()[0] as client:
            for reply in self.replies:
                client.recv(65536)
                client.sendall(reply)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.socket.close()


def load(*arguments):
    return subprocess.run([LOAD, "-t", "0.2", *arguments], text=True,
                          capture_output=True, timeout=BOUND)


class WrongServers(unittest.TestCase):
    def fails(self, run, words):
        self.assertEqual(run.returncode, 1, run)
        self.assertEqual(run.stdout, "")
        self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)
        self.assertIn(words, run.stderr)

    def test_wrong_replies(self):
        for words, mode, *replies in (
                ("wrong reply on connection 0, at byte 0: pung", "rr",
                 b"pong\n", b"pong\n", b"pung\n"),
                ("10 bytes, 5 due", "rr", b"pong\n", b"pong\npong\n"),
                ("wrong reply", "pipe", b"pong\n", b"pong\n" * 63 + b"pong "),
                ("no reply for 5 seconds", "rr", b"pong\n", b"po", b"ng\n"),
                ("the server hung up on connection 0", "rr", b"po")):
            with self.subTest(words=words), Liar(*replies) as liar:
                # Long enough for a slow liar: the first lie ends it.
                self.fails(load("-t", str(BOUND // 2), "-n", "1", mode,
                                "127.0.0.1", liar.port), words)

    def test_nobody_there(self):
        # Bound and not listening: nobody else can be there.
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = str(nobody.getsockname()[1])
            self.fails(load("rr", "127.0.0.1", port), "Connection refused")


class OurServer(unittest.TestCase):
    def run_mode(self, mode, *options, server_options=(), wrapper=()):
        with subprocess.Popen([*wrapper, SERVER, "-p", "0", *server_options], text=True,
                              stdout=subprocess.PIPE, process_group=0) as server:
            try:
                server.stdout.readline()
                listening = server.stdout.readline()
                port = listening.split(",")[0].split(":")[1].split("/")[0]
                drain = threading.Thread(target=server.stdout.read)
                drain.start()
                run = load("-c", "-P", str(server.pid), *options, mode, "127.0.0.1", port)
            finally:
                os.killpg(server.pid, signal.SIGTERM)
                drain.join()
        self.assertEqual(run.returncode, 0, run)
        (row,) = csv.DictReader(run.stdout.splitlines())
        self.assertNotIn(None, row.values(), "fewer values than columns")
        self.assertNotIn(None, row, "more values than columns")
        return row

    def test_each_mode(self):
        for mode, *options in (
                ["rr", "-n", "4"], ["rr", "-n", "8", "-f", "3"],
                ["rr", "-n", "4", "-i", "4"], ["pipe", "-d", "1000"],
                ["churn", "-n", "3"], ["idle", "-n", "20"]):
            with self.subTest(mode=mode, options=options):
                row = self.run_mode(mode, *options)
                self.assertGreater(int(row["replies"]), 1)
                times = [float(row[name]) for name in ("p50_us", "p99_us", "p999_us")]
                self.assertEqual(times, sorted(times))
                self.assertGreater(times[0], 0)

    def test_replies_come_in_whole_segments(self):
        row = self.run_mode("pipe", "-d", "7")
        self.assertEqual(int(row["replies"]) % 7, 0)

    def test_idle_sees_a_thread_for_each_client(self):
        row = self.run_mode("idle", "-n", "20")
        self.assertEqual(row["threads"], "21")
        self.assertGreater(float(row["memory_kb"]), 8)
        self.assertLess(float(row["memory_kb"]), 16)

    def test_a_server_that_has_forked(self):
        row = self.run_mode("rr", "-n", "20", wrapper=["sh", "-c", '"$0" "$@"; true'])
        self.assertEqual(row["threads"], "22")
        self.assertGreater(float(row["us_per_reply"]), 1)

    def test_a_full_server_is_no_success(self):
        with self.assertRaises(AssertionError) as failure:
            self.run_mode("rr", "-n", "3", server_options=["-m", "2"])
        self.assertIn("Too many clients, limit 2", str(failure.exception))


class Usage(unittest.TestCase):
    def test_misuse(self):
        for arguments in ([], ["fast"], ["-n", "0", "rr"], ["-n", "1x", "rr"],
                          ["-t", "x", "rr"], ["-d", "1001", "pipe"], ["-x"],
                          ["-n"], ["-f", "2", "churn"], ["-i", "2", "idle"],
                          ["-n", "2", "-f", "3", "rr"], ["rr", "a", "1", "b"]):
            with self.subTest(arguments=arguments):
                run = subprocess.run([LOAD, *arguments], text=True,
                                     capture_output=True, timeout=BOUND)
                self.assertEqual(run.returncode, 2, run)
                self.assertTrue(run.stderr.startswith("load: "), run.stderr)
                self.assertIn("usage: load", run.stderr)

    def test_more_connections_than_descriptors(self):
        run = subprocess.run(
            ["sh", "-c", "ulimit -n 64; exec \"$0\" -n 100 rr", LOAD],
            text=True, capture_output=True, timeout=BOUND)
        self.assertEqual(run.returncode, 1)
        self.assertIn("ulimit -Hn", run.stderr)


class Labs(unittest.TestCase):
    def test_their_tables(self):
        results = bench.Results()
        results.read("lab-notes/bench/bench.csv")
        for path in glob.glob("lab-notes/*.md"):
            with self.subTest(lab=path), open(path, encoding="utf-8") as file:
                text = file.read()
                self.assertEqual(text, bench.rewritten(text, results), "make bench-tables")


if __name__ == "__main__":
    result = unittest.main(argv=sys.argv[:1], exit=False).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed, "
          f"{len(result.skipped)} skipped")
    sys.exit(failed != 0)
