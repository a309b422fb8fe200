#!/usr/bin/python3
"""How fast, how many: our server beside its peers, in one run.

    bench.py [--quick] [--cores one|free|both] [--only test] programs

`make bench` calls it. What is compared takes turns, A B A B, so that what else
the machine does meets all of them alike, and the result is a ratio of medians.

Placement decides more than any server does, so it is part of the experiment:
  one   server and load generator share one processor. What is measured is the
        work that a request takes, all of it, on both sides. It repeats within
        a few percent.
  free  the kernel places the threads as it likes. That is how programs run,
        and it is a lottery: waking a thread on an idle processor takes up to
        ten times as long as on a busy one, above all in a virtual machine.
"""
import argparse
import contextlib
import csv
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

WAIT_SECONDS = 20  # for a server to start, to let go of its clients, to end
RR_SIZES = [1, 16, 64, 256, 2000]
CHURN_SIZES = [1, 16, 64]
DEPTH = 64
PIPE_SIZE = 16
ORDER = ["ours", "release", "batch", "twin", "bare", "redis"]


def say(words):
    print(words, flush=True)


class Server:
    """One server process, started on a port of its own."""

    def __init__(self, bench, name, command):
        self.bench, self.name = bench, name
        self.redis = name == "redis"
        self.port = free_port()
        self.process = subprocess.Popen(
            [part.replace("PORT", str(self.port)) for part in command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=bench.place)
        try:
            self.wait_until(self.answers, "does not answer")
        except BaseException:
            self.stop()
            raise
        self.descriptors = self.count_descriptors()

    def wait_until(self, condition, complaint):
        end = time.monotonic() + WAIT_SECONDS
        while not condition():
            if self.process.poll() is not None:
                raise SystemExit(f"bench: {self.name} has ended, "
                                 f"status {self.process.returncode}")
            if time.monotonic() > end:
                raise SystemExit(f"bench: {self.name} {complaint}")
            time.sleep(0.005)

    def answers(self):
        with socket.socket() as client:
            client.settimeout(WAIT_SECONDS)
            try:
                client.connect(("127.0.0.1", self.port))
                client.sendall(b"ping\n")
                return b"o" in client.recv(16).lower()
            except OSError:
                return False

    def count_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def settle(self):
        """The clients of the last measurement have left."""
        self.wait_until(lambda: self.count_descriptors() <= self.descriptors,
                        "does not let go of its clients")

    def measure(self, mode, *arguments):
        """One run of the load generator; its CSV line as a dictionary."""
        command = [self.bench.programs.load, "-c",
                   "-P", str(self.process.pid), *map(str, arguments)]
        if self.redis:
            command.append("-r")
        command += [mode, "127.0.0.1", str(self.port)]
        run = subprocess.run(command, capture_output=True, text=True,
                             preexec_fn=self.bench.place)
        if run.returncode != 0:
            raise SystemExit(f"bench: {self.name}: {run.stderr.strip()}")
        # Its threads' end must not disturb the one who is measured next.
        self.settle()
        return next(csv.DictReader(run.stdout.splitlines()))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, programs):
        self.programs = programs
        self.seconds = 0.15 if programs.quick else 0.5
        self.rounds = 5
        self.rows = []      # every single measurement
        self.medians = {}   # (cores, test, server) -> column -> median
        self.cores = None
        self.processors = sorted(os.sched_getaffinity(0))
        self.left_out = []
        self.commands = self.find_peers()

    def find_peers(self):
        """Server name -> command. A peer that is not here is named."""
        programs = self.programs
        commands = {
            "ours": [programs.server, "-4", "-p", "PORT"],
            "release": [programs.release, "-4", "-p", "PORT"],
            "bare": [programs.bare, "PORT"],
        }
        if programs.twin and os.path.exists(programs.twin):
            commands["twin"] = [programs.twin, "PORT"]
        else:
            self.left_out.append("twin (no go, or no lab-notes/programs/twin.go)")
        if shutil.which("redis-server"):
            commands["redis"] = ["redis-server", "--port", "PORT", "--bind",
                                 "127.0.0.1", "--protected-mode", "no",
                                 "--save", "", "--appendonly",
                                 "no", "--daemonize", "no"]
        else:
            self.left_out.append("redis (package redis-server)")
        if shutil.which("chrt"):
            commands["batch"] = ["chrt", "-b", "0"] + commands["ours"]
        else:
            self.left_out.append("batch (chrt, package util-linux)")
        return commands

    def place(self):
        """Runs in each child before its program starts."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self.cores == "one":
            os.sched_setaffinity(0, self.processors[-1:])

    @contextlib.contextmanager
    def started(self, names):
        """Those of the servers that are here. They end with the block."""
        servers = []
        try:
            for name in names:
                if name in self.commands:
                    servers.append(Server(self, name, self.commands[name]))
            yield servers
        finally:
            for server in servers:
                server.stop()

    def record(self, test, server, number, row):
        row.update(cores=self.cores, test=test, server=server, round=number)
        row["us_per_reply"] = float(row["user_us"]) + float(row["system_us"])
        row["waits_per_reply"] = (float(row["waits"]) /
                                  max(1, int(row["replies"])))
        row["memory_mb"] = (float(row["rss_kb"]) +
                            float(row["kernel_stack_kb_per_client"]) *
                            int(row["connections"])) / 1024
        self.rows.append(row)

    def alternate(self, test, servers, mode, *arguments):
        """A B A B: every server once in each round."""
        for number in range(1, self.rounds + 1):
            # Another one begins each round: nobody always follows the same.
            first = number % len(servers)
            for server in servers[first:] + servers[:first]:
                progress(f"{self.cores} {test}, round {number}, {server.name}")
                self.record(test, server.name, number,
                            server.measure(mode, *arguments))
        self.summarize(test)

    def summarize(self, test):
        """The medians of one test, as a table, the fastest scale first."""
        progress("")
        rows = [row for row in self.rows
                if row["test"] == test and row["cores"] == self.cores]
        names = [name for name in ORDER
                 if any(row["server"] == name for row in rows)]
        say(f"\n{test}, cores: {self.cores}")
        say(f"  {'server':10}{'per second':>12}{'least':>10}{'most':>10}"
            f"{'p50 us':>10}{'p99 us':>10}{'p99.9 us':>10}"
            f"{'cpu us':>8}{'waits':>7}")
        for name in names:
            median = {}
            mine = [row for row in rows if row["server"] == name]
            for column in ("per_second", "p50_us", "p90_us", "p99_us",
                           "p999_us", "max_us", "seconds", "rss_kb_per_client",
                           "kernel_stack_kb_per_client", "threads", "memory_mb",
                           "us_per_reply", "waits_per_reply"):
                median[column] = statistics.median(
                    float(row[column]) for row in mine)
            median.update(mode=mine[0]["mode"],
                          connections=mine[0]["connections"])
            self.medians[self.cores, test, name] = median
            speeds = [float(row["per_second"]) for row in mine]
            say(f"  {name:10}{median['per_second']:12.0f}{min(speeds):10.0f}"
                f"{max(speeds):10.0f}{median['p50_us']:10.1f}"
                f"{median['p99_us']:10.1f}{median['p999_us']:10.1f}"
                f"{median['us_per_reply']:8.2f}"
                f"{median['waits_per_reply']:7.2f}")

    # ---- The tests -------------------------------------------------------

    def request_and_reply(self):
        with self.started(["ours", "release", "batch", "twin", "bare",
                          "redis"]) as servers:
            for size in RR_SIZES:
                self.alternate(f"rr {size}", servers, "rr", "-n", size, "-t",
                               self.seconds)

    def which_threads(self):
        """64 requests in flight, always. What differs is who sends them: the
        same 64 while 1,936 are silent, or all 2,000 in turn."""
        with self.started(["ours", "twin", "bare"]) as servers:
            for words, *arguments in (
                    ("rr 64 of 2000, the same", "-n", 64, "-i", 1936),
                    ("rr 64 of 2000, in turn", "-n", 2000, "-f", 64)):
                self.alternate(words, servers, "rr", *arguments, "-t",
                               self.seconds)

    def pipelining(self):
        with self.started(["ours", "release", "bare", "redis"]) as servers:
            self.alternate(f"pipe {DEPTH} deep", servers, "pipe", "-d", DEPTH,
                           "-n", PIPE_SIZE, "-t", self.seconds)

    def churn(self):
        with self.started(["ours", "release", "twin", "bare"]) as servers:
            for size in CHURN_SIZES:
                self.alternate(f"churn {size}", servers, "churn", "-n", size,
                               "-t", self.seconds)

    def idle(self):
        sizes = {1000: 1, 5000: 1 if self.programs.quick else 3}
        if not self.programs.quick:
            sizes[19000] = self.rounds
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for size, rounds in sizes.items():
            if hard < size + 64:
                say(f"\nLeft out: idle {size} (ulimit -Hn is {hard})")
            else:
                self.idle_clients(size, rounds)

    def idle_clients(self, size, rounds):
        """Each time a fresh server: one that had clients keeps their pages."""
        test = f"idle {size}"
        for number in range(1, rounds + 1):
            for name in ("ours", "release", "twin", "bare"):
                if name not in self.commands:
                    continue
                progress(f"{self.cores} {test}, round {number}, {name}")
                with self.started([name]) as (server,):
                    self.record(test, name, number,
                                server.measure("idle", "-n", size, "-t", 0.1))
        self.summarize(test)
        say(f"  {'server':10}{'RSS KB per client':>20}"
            f"{'kernel stack KB per client':>28}{'threads':>9}")
        for (cores, key, name), median in self.medians.items():
            if key == test and cores == self.cores:
                say(f"  {name:10}{median['rss_kb_per_client']:20.2f}"
                    f"{median['kernel_stack_kb_per_client']:28.2f}"
                    f"{median['threads']:9.0f}")

    # ---- The result ------------------------------------------------------

    def ratio(self, cores, test, server, other, column="per_second"):
        try:
            return (self.medians[cores, test, server][column] /
                    self.medians[cores, test, other][column])
        except (KeyError, ZeroDivisionError):
            return None

    def aims(self):
        """What is compared, where to find it, and what we aim at. What the bare
        loop, with nothing to do but the design itself, makes of the same stands
        below it, with no aim."""
        for size in (1, 16, 64):
            yield f"rr {size}, ours / twin", (f"rr {size}", "ours", "twin"), 1.0
            yield "    bare / twin", (f"rr {size}", "bare", "twin"), None
        for size in RR_SIZES:
            yield (f"rr {size}, ours / bare", (f"rr {size}", "ours", "bare"),
                   0.97)
        yield ("rr 256, p99, ours / twin",
               ("rr 256", "ours", "twin", "p99_us"), -0.75)
        yield (f"pipe {DEPTH} deep, ours / redis",
               (f"pipe {DEPTH} deep", "ours", "redis"), 2.2)
        for size in CHURN_SIZES:
            yield (f"churn {size}, ours / twin",
                   (f"churn {size}", "ours", "twin"), 1.0)
            yield "    bare / twin", (f"churn {size}", "bare", "twin"), None
        yield ("connect 19,000, ours / bare", ("idle 19000", "ours", "bare"),
               1.0)

    def print_aims(self):
        """A negative aim is a most, not a least."""
        places = list(dict.fromkeys(key[0] for key in self.medians))
        say("\nRatios of medians" + 16 * " " + "aim" +
            "".join(f"{place:>16}" for place in places))
        for words, key, aim in self.aims():
            if all(self.ratio(place, *key) is None for place in places):
                continue
            line = f"  {words:32}" + ("       " if aim is None else
                                      f"{'<=' if aim < 0 else '>='} {abs(aim):.2f}")
            for place in places:
                ratio = self.ratio(place, *key)
                if ratio is None:
                    line += f"{'-':>16}"
                    continue
                ratio = round(ratio, 2)
                verdict = ""
                if aim is not None:
                    reached = ratio <= -aim if aim < 0 else ratio >= aim
                    verdict = "yes" if reached else "no"
                line += f"{ratio:9.2f} {verdict:6}"
            say(line)
        sizes = [self.medians[place, "idle 5000", "ours"]["rss_kb_per_client"]
                 for place in places
                 if (place, "idle 5000", "ours") in self.medians]
        if sizes:
            say(f"  {'RSS KB per idle client, 5,000':32}<= 12.5" +
                "".join(f"{size:9.2f} {'yes' if size <= 12.5 else 'no':6}"
                        for size in sizes))

    def write(self):
        directory = self.programs.out
        os.makedirs(directory, exist_ok=True)
        if not self.rows:
            return
        with open(os.path.join(directory, "bench.csv"), "w",
                  encoding="utf-8", newline="") as file:
            first = ["cores", "test", "server", "round"]
            columns = first + [name for name in self.rows[0]
                               if name not in first]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({name: f"{value:.4f}"
                                 if isinstance(value, float) else value
                                 for name, value in row.items()})
        with open(os.path.join(directory, "medians.csv"), "w",
                  encoding="utf-8", newline="") as file:
            columns = ["cores", "test", "mode", "connections", "server",
                       "per_second",
                       "p50_us", "p90_us", "p99_us", "p999_us", "us_per_reply",
                       "waits_per_reply", "memory_mb", "rss_kb_per_client",
                       "kernel_stack_kb_per_client"]
            writer = csv.DictWriter(file, columns, lineterminator="\n",
                                    extrasaction="ignore")
            writer.writeheader()
            for (cores, test, server), median in self.medians.items():
                row = {name: f"{value:.3f}" if isinstance(value, float)
                       else value for name, value in median.items()}
                row.update(cores=cores, server=server, test=test)
                writer.writerow(row)
        if not shutil.which("gnuplot"):
            say("\nNo plots: gnuplot is missing (package gnuplot-nox)")
            return
        script = os.path.join(os.path.dirname(__file__), "bench.gnuplot")
        for cores in dict.fromkeys(key[0] for key in self.medians):
            subprocess.run(["gnuplot", "-e", f"directory='{directory}'; "
                            f"cores='{cores}'", script], check=True)
        say(f"\n{directory}: bench.csv (every run), medians.csv, and *.svg")


TESTS = {
    "rr": Bench.request_and_reply,
    "which": Bench.which_threads,
    "pipe": Bench.pipelining,
    "churn": Bench.churn,
    "idle": Bench.idle,
}


def progress(words):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{words}\033[K")
        sys.stderr.flush()


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true",
                        help="short runs on one core; ends within two minutes")
    parser.add_argument("--cores", choices=["one", "free", "both"],
                        help="placement (both; with --quick: one)")
    parser.add_argument("--only", choices=TESTS, action="append",
                        help="only this test; may be given again")
    parser.add_argument("--out", default="build/bench", metavar="directory")
    for name in ("server", "release", "load", "bare"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--twin")
    return parser.parse_args()


def main():
    # Ctrl-C and `timeout` end the servers too, by way of `finally`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    programs = read_arguments()
    bench = Bench(programs)
    begin = time.monotonic()
    say(f"{os.cpu_count()} processors, {os.uname().sysname} "
        f"{os.uname().release}, {bench.rounds} rounds, medians; "
        f"load average {os.getloadavg()[0]:.2f}")
    for peer in bench.left_out:
        say(f"Left out: {peer}")
    placement = programs.cores or ("one" if programs.quick else "both")
    for cores in ["one", "free"] if placement == "both" else [placement]:
        bench.cores = cores
        for name in programs.only or TESTS:
            TESTS[name](bench)
    bench.print_aims()
    bench.write()
    say(f"{time.monotonic() - begin:.0f} seconds; "
        f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
