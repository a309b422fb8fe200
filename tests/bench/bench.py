#!/usr/bin/python3
"""How fast, how many: one service in several designs, and its peers, in one run.

    bench.py [--quick] [--verbose] [--only test] --server ... --bare ... (make bench)
    bench.py --tables LAB.md ...      rewrite the tables in labs, and the plots,
                                      from the CSV in --out (make bench-tables)

What is compared takes turns, A B A B, so that what else the machine does meets
all of them alike. A figure is the median of the rounds; beside it stand the
least and the most of them. A ratio is taken in each round, too.

Server and load generator share one processor, and "a second" is a second of
their processor time. What is measured is the work that a request takes, all of
it, on both sides. On a machine with nothing else to do it is the time on the
wall; on a busy one it hardly changes.
"""
import argparse
import contextlib
import csv
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from plot import plot

WAIT_SECONDS = 20  # for a server to start, to let go of its clients, to end
SIZES = [1, 16, 64, 256, 2000]
GROWTH = [10, 100, 1000, 10000, 19000]
DEPTH = 64
# The order of the tables' rows. A design's program is build/designs/NAME.
NAMES = {"iterative": "one at a time", "fork": "fork", "prefork": "prefork",
         "ours": "threads (server.c)", "release": "threads, optimized",
         "bare": "threads, bare loop", "pool": "thread pool", "poll": "poll", "epoll": "epoll",
         "twin": "goroutines (Go)", "redis": "redis (epoll)"}
DESIGNS = ["iterative", "fork", "prefork", "pool", "poll", "epoll"]
# The most clients that can talk at the same time.
MOST = {"iterative": 1, "prefork": 8, "pool": 8}
STEPS = {"alone": "no thread: one client after the other", "bare": "bare loop",
         "names": "bare loop + names", "log": "bare loop + two lines of log",
         "end": "bare loop + orderly end", "all": "bare loop + all three",
         "ours": "server.c"}
GROWING = ["fork", "ours", "epoll", "twin"]


def say(words=""):
    print(words, flush=True)


class Server:
    """One server, in a process group of its own, on a port of its own."""

    def __init__(self, bench, name):
        self.bench, self.name = bench, name
        with socket.socket() as probe:
            probe.bind(("", 0))
            self.port = str(probe.getsockname()[1])
        self.process = subprocess.Popen(
            [part.replace("PORT", self.port) for part in bench.commands[name]],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0,
            stderr=subprocess.DEVNULL, preexec_fn=bench.place)
        try:
            self.wait_until(self.answers, "does not answer")
        except BaseException:
            self.stop()
            raise
        time.sleep(0.05)  # prefork: all its children are there
        self.held = self.holds()

    def wait_until(self, condition, complaint):
        end = time.monotonic() + WAIT_SECONDS
        while not condition():
            if self.process.poll() is not None:
                raise SystemExit(f"bench: {self.name} has ended, status {self.process.returncode}")
            if time.monotonic() > end:
                raise SystemExit(f"bench: {self.name} {complaint}")
            time.sleep(0.005)

    def answers(self):
        with socket.socket() as client:
            client.settimeout(WAIT_SECONDS)
            try:
                client.connect(("127.0.0.1", int(self.port)))
                client.sendall(b"ping\n")
                return b"o" in client.recv(16).lower()
            except OSError:
                return False

    def holds(self):
        """Its processes, and the descriptors of the first one."""
        group = 0
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(ProcessLookupError):
                group += os.getpgid(int(process)) == self.process.pid
        return group + len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def measure(self, mode, *arguments):
        """One run of the load generator; its CSV line as a dictionary."""
        command = [self.bench.options.load, "-c", "-P", str(self.process.pid),
                   *map(str, arguments), *["-r"] * (self.name == "redis"),
                   mode, "127.0.0.1", self.port]
        ended = self.ended_children()
        run = subprocess.run(command, capture_output=True, text=True, preexec_fn=self.bench.place)
        if run.returncode != 0:
            raise SystemExit(f"bench: {self.name}: {run.stderr.strip()}")
        row = next(csv.DictReader(run.stdout.splitlines()))
        # Its clients' end must not disturb the one who is measured next.
        self.wait_until(lambda: self.holds() <= self.held, "does not let go of its clients")
        if mode == "churn":
            # fork: the load generator sees the time of live processes only.
            replies = float(row["replies"])
            seconds = replies / float(row["per_cpu_second"]) + self.ended_children() - ended
            row["per_cpu_second"] = f"{replies / seconds:.1f}"
        return row

    def ended_children(self):
        """Seconds of processor time (proc(5): cutime, cstime)."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text("utf-8")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(WAIT_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # nobody is left, most likely
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Results:
    """Every single measurement, and what follows from them."""

    def __init__(self, rows=()):
        self.rows = list(rows)

    def values(self, test, server, column="per_cpu_second"):
        """One number for each round."""
        return [float(row[column]) for row in self.rows
                if (row["test"], row["server"]) == (test, server)]

    def servers(self, test, order):
        return [name for name in order if self.values(test, name)]

    def ratios(self, test, server, other, column="per_cpu_second"):
        return [one / two for one, two in zip(self.values(test, server, column),
                                              self.values(test, other, column))]

    def read(self, path):
        with open(path, encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))

    def write(self, path):
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    # ---- Tables: a list of rows, each a list of cells --------------------

    def designs(self, spread=True, names=tuple(NAMES), talk_only=False):
        """The one table: what each design makes of the same work."""
        tests = [(f"{size:,}", f"rr {size}", "per_cpu_second", 1000, 0 if spread else 1)
                 for size in SIZES]
        if not talk_only:
            tests += [("visits", "churn 16", "per_cpu_second", 1000, 1),
                      ("memory, KB", "idle 1000", "whole_kb", 1, 1)]
        rows = [[f"{len(self.values('rr 1', 'ours'))} rounds", *(test[0] for test in tests)]]
        for name in self.servers("rr 1", names):
            if name != "release":
                rows.append([NAMES[name]] + [
                    cell([value / scale for value in self.values(test, name, column)],
                         digits, spread) for _, test, column, scale, digits in tests])
        return rows

    def steps(self):
        rows = [["what is done for a client", "us", "more than the bare loop",
                 "by the clock, both sides"]]
        bare = self.values("visit", "bare", "us_per_reply")
        for name in self.servers("visit", STEPS):
            mine = self.values("visit", name, "us_per_reply")
            more = [one - two for one, two in zip(mine, bare)]
            clock = [1e6 / each for each in self.values("visit", name, "per_second")]
            rows.append([STEPS[name], cell(mine), "" if name == "bare" else cell(more),
                         cell(clock)])
        return rows

    def turns(self):
        """What a reply costs, by who asks."""
        tests = {"1 alone": "1, nobody beside it",
                 "1 beside 1936": "1, beside 1,936 silent ones",
                 "64 alone": "64, nobody beside them",
                 "64 beside 1936": "64, beside 1,936 silent ones",
                 "64 of 2000": "64 at a time, 2,000 in turn"}
        names = self.servers("64 of 2000", NAMES)
        return [["who asks"] + [NAMES[name] for name in names]] + [
            [words] + [cell(self.values(test, name, "us_per_reply")) for name in names]
            for test, words in tests.items()]

    def next_client(self, name):
        """(clients, KB for each more since the size before) for each round."""
        before = 0, [0.0] * 99
        for size in GROWTH:
            whole = [size * each for each in self.values(f"grow {size}", name, "whole_kb")]
            if whole:
                yield size, [(now - then) / (size - before[0])
                             for now, then in zip(whole, before[1])]
                before = size, whole

    def growth(self, kind):
        """What the next client costs: kind is `memory` or `time`."""
        names = self.servers("grow 100", GROWING)
        rows = [["clients"] + [NAMES[name] for name in names]]
        memory = {name: dict(self.next_client(name)) for name in names}
        for size in GROWTH:
            rows.append([f"{size:,}"] + [
                cell(memory[name].get(size, []) if kind == "memory" else
                     self.values(f"grow {size}", name, "us_per_reply")) for name in names])
        return rows

    def table(self, name):
        some = ("ours", "bare", "twin", "epoll", "redis")
        return {"designs": self.designs, "steps": self.steps, "turns": self.turns,
                "crossing": lambda: self.designs(names=some, talk_only=True),
                "memory": lambda: self.growth("memory"), "time": lambda: self.growth("time"),
                "batch": lambda: [
                    ["64 clients, replies a second", "ratio"],
                    ["batch / as usual", cell(self.ratios("batch", "batch", "ours"), 2)]],
                "aims": self.aims}[name]()

    def aims(self):
        """Ours and the optimized build against the design's own limit, and a
        fair peer. A negative aim is a most, not a least."""
        rows = [["ratio", "aim", "server.c", "", "optimized", ""]]
        aims = [(f"rr {size} / bare loop", f"rr {size}", "bare", 0.97) for size in SIZES]
        aims += [(f"churn {size} / bare loop", f"churn {size}", "bare", 0.95)
                 for size in (1, 16, 64)]
        aims += [("connect 19,000 / bare loop", "idle 19000", "bare", 0.97),
                 (f"pipe {DEPTH} / bare loop", "pipe", "bare", 0.92),
                 (f"pipe {DEPTH} / redis", "pipe", "redis", 2),
                 ("rr 256 p99 / goroutines", "rr 256", "twin", -0.75),
                 ("KB a client, 19,000 silent", "idle 19000", None, -12.5)]
        for words, test, other, aim in aims:
            row = [words, f"{'<=' if aim < 0 else '>='} {abs(aim)}"]
            for name in ("ours", "release"):
                if other is None:
                    values = self.values(test, name, "memory_kb")
                else:
                    values = self.ratios(test, name, other,
                                         "p99_us" if aim < 0 else "per_cpu_second")
                met = values and statistics.median(values) * (1 if aim > 0 else -1) >= aim
                row += [cell(values, 2), ("met" if met else "NOT met") if values else ""]
            rows.append(row)
        return rows

    # ---- Plots -----------------------------------------------------------

    def plots(self, directory):
        """Throughput, and what the next client costs."""
        def line(name, values):
            return NAMES[name].split(" (")[0], [
                (size, statistics.median(each), min(each), max(each))
                for size, each in values if each]

        names = self.servers("rr 2000", ("fork", "ours", "poll", "epoll", "twin", "redis"))
        if names:
            plot(directory, "throughput", "One request in flight for each client, one core",
                 "clients", "thousand replies a second", SIZES,
                 [line(name, ((size, [each / 1000 for each in self.values(f"rr {size}", name)])
                              for size in SIZES)) for name in names])
        names = self.servers("grow 100", GROWING)
        if names:
            plot(directory, "next-memory", "Memory for the next client", "clients", "KB", GROWTH,
                 [line(name, self.next_client(name)) for name in names], logarithmic=True)
            plot(directory, "next-time", "Processor time for a reply, 64 in flight",
                 "clients", "microseconds", GROWTH,
                 [line(name, ((size, self.values(f"grow {size}", name, "us_per_reply"))
                              for size in GROWTH)) for name in names])


def cell(values, digits=1, spread=True):
    if not values:
        return "-"
    least, middle, most = (f"{each:,.{digits}f}" for each in
                           (min(values), statistics.median(values), max(values)))
    return f"{middle} ({least} to {most})" if spread and len(values) > 1 else middle


def aligned(table):
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  " + row[0].ljust(widths[0]) + "".join(
        "  " + each.rjust(width) for each, width in zip(row[1:], widths[1:])) for row in table)


def rewritten(text, results):
    """A lab's text, with each table below a line `<!-- bench: NAME -->` anew."""
    def markdown(match):
        head, *rows = results.table(match[2])
        lines = [head, ["---"] * len(head), *rows]
        return match[1] + "".join(f"| {' | '.join(row)} |\n" for row in lines) + "\n"

    return re.sub(r"(<!-- bench: (\w+) -->\n\n)(?:\|.*\n)*\n?", markdown, text)


class Bench:
    def __init__(self, options):
        self.options = options
        self.seconds = 0.15 if options.quick else options.seconds
        self.rounds = 3 if options.quick else options.rounds
        self.results = Results()
        self.processors = sorted(os.sched_getaffinity(0))
        self.commands = {}
        self.left_out = []
        self.find_servers()

    def find_servers(self):
        """Name -> command. What is not here is named."""
        options = self.options
        ours = [options.server, "-4", "-p", "PORT"]
        wanted = {"ours": ours, "release": [options.release, *ours[1:]],
                  "twin": [options.twin, "PORT"],
                  "redis": ["redis-server", "--port", "PORT", "--bind", "127.0.0.1", "--save", "",
                            "--protected-mode", "no", "--daemonize", "no"],
                  "batch": ["chrt", "-b", "0", *ours], "bare": [options.bare, "PORT"],
                  "all": [options.bare, "PORT", "names", "log", "end"]}
        wanted.update({step: [options.bare, "PORT", step]
                       for step in ("alone", "names", "log", "end")})
        wanted.update({name: [f"build/designs/{name}", "PORT"] for name in DESIGNS})
        for name, command in wanted.items():
            if command[0] and shutil.which(command[0]):
                self.commands[name] = command
            else:
                self.left_out.append(NAMES.get(name, name))

    def place(self):
        """Runs in each child before its program starts."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.sched_setaffinity(0, self.processors[-1:])

    @contextlib.contextmanager
    def started(self, names):
        """Those of the servers that are here. They end with the block."""
        servers = []
        try:
            for name in names:
                if name in self.commands:
                    servers.append(Server(self, name))
            yield servers
        finally:
            for server in servers:
                server.stop()

    def record(self, test, name, number, row):
        kb = sum(float(row[column]) for column in ("memory_kb", "stack_kb", "table_kb"))
        self.results.rows.append({"test": test, "server": name, "round": number, **row,
                                  "whole_kb": f"{kb:.2f}"})
        if self.options.verbose:
            say(f"  {test:16}{number:3} {name:10}{row['per_second']:>12}/s  p50 {row['p50_us']}"
                f"  p99 {row['p99_us']}  p99.9 {row['p999_us']}  {row['us_per_reply']} us")
        elif sys.stderr.isatty():
            sys.stderr.write(f"\r{test}, round {number}, {name}\033[K")

    def alternate(self, test, servers, mode, *arguments, rounds=None):
        """A B A B: every server once in each round."""
        for number in range(rounds or self.rounds):
            # Another one begins each round: nobody always follows the same.
            first = number % len(servers)
            for server in servers[first:] + servers[:first]:
                self.record(test, server.name, number + 1,
                            server.measure(mode, *arguments, "-t", self.seconds))

    def afresh(self, test, names, mode, *arguments, rounds=None):
        """The same for memory, each time with a new server: one that had
        clients keeps their pages."""
        for number in range(rounds or self.rounds):
            for name in names:
                with self.started([name]) as servers:
                    for server in servers:
                        self.record(test, name, number + 1, server.measure(mode, *arguments))

    # ---- The tests -------------------------------------------------------

    def possible(self, size):
        """So many descriptors are allowed. If not, we say so."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard < size + 64:
            say(f"Left out: {size} clients (ulimit -Hn is {hard})")
        return hard >= size + 64

    def taking_part(self):
        return [name for name in NAMES if name != "release" or not self.options.quick]

    def rr(self):
        with self.started(self.taking_part()) as servers:
            for size in SIZES:
                able = [each for each in servers if size <= MOST.get(each.name, size)]
                self.alternate(f"rr {size}", able, "rr", "-n", size)

    def churn(self):
        with self.started(self.taking_part()) as servers:
            self.alternate("churn 16", servers, "churn", "-n", 16)
            some = [each for each in servers if each.name in ("ours", "release", "bare", "twin")]
            for size in () if self.options.quick else (1, 64):
                self.alternate(f"churn {size}", some, "churn", "-n", size)

    def idle(self):
        able = [name for name in self.taking_part() if name not in MOST]
        self.afresh("idle 1000", able, "idle", "-n", 1000, "-t", 0.1)

    def connect(self):
        if self.possible(19000):
            self.afresh("idle 19000", ["ours", "release", "bare"], "idle", "-n", 19000, "-t", 0.1)

    def turns(self):
        """What differs is who asks: the same few while 1,936 are silent, or all
        2,000 in turn."""
        with self.started(["ours", "poll", "epoll", "twin"]) as servers:
            for size in (1, 64):
                self.alternate(f"{size} alone", servers, "rr", "-n", size)
                self.alternate(f"{size} beside 1936", servers, "rr", "-n", size, "-i", 1936)
            self.alternate("64 of 2000", servers, "rr", "-n", 2000, "-f", 64)

    def grow(self):
        for size in filter(self.possible, GROWTH):
            self.afresh(f"grow {size}", GROWING, "rr", "-n", size, "-f", min(size, 64),
                        "-t", self.seconds, rounds=min(self.rounds, 5))

    def pipe(self):
        with self.started(["ours", "release", "bare", "redis"]) as servers:
            self.alternate("pipe", servers, "pipe", "-d", DEPTH, "-n", 16)

    def visit(self):
        with self.started(STEPS) as servers:
            self.alternate("visit", servers, "churn", "-n", 16)

    def batch(self):
        with self.started(["ours", "batch"]) as servers:
            self.alternate("batch", servers, "rr", "-n", 64, rounds=3 * self.rounds)


TESTS = [Bench.rr, Bench.churn, Bench.idle, Bench.turns, Bench.pipe, Bench.visit,
         Bench.batch, Bench.connect, Bench.grow]
QUICK = TESTS[:3]


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ends within two minutes")
    parser.add_argument("--verbose", action="store_true", help="each round, and the aims")
    parser.add_argument("--only", choices=[test.__name__ for test in TESTS], action="append",
                        help="only this test; may be given again")
    parser.add_argument("--out", default="build/bench", metavar="directory")
    parser.add_argument("--tables", nargs="+", metavar="LAB.md")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    for name in ("server", "release", "load", "bare", "twin"):
        parser.add_argument(f"--{name}")
    return parser.parse_args()


def rewrite(options):
    results = Results()
    results.read(os.path.join(options.out, "bench.csv"))
    for path in map(pathlib.Path, options.tables):
        path.write_text(rewritten(path.read_text("utf-8"), results), "utf-8")
    results.plots(options.out)


def report(bench, options):
    results = bench.results
    if results.values("rr 1", "ours"):
        say("\nThousand replies a second to so many clients; thousand visits a second (connect,\n"
            "ping, quit; 16 at a time); memory for a silent client, of the server and the kernel.\n")
        say(aligned(results.designs(spread=False)))
        apart = [100 * (max(each) - min(each)) / statistics.median(each)
                 for size in SIZES for name in NAMES
                 if (each := results.values(f"rr {size}", name))]
        say(f"\nA number is the median of its rounds. They lay {statistics.median(apart):.0f} % "
            f"apart, at worst {max(apart):.0f} %.\n"
            "Go along the rows of threads and epoll: where do they cross? Is server.c slower than\n"
            "the bare loop, which has threads and does nothing else? Who pays most for a visit?")
    if options.verbose:
        say("\n" + aligned(results.aims()))
    if not results.rows:
        return
    os.makedirs(options.out, exist_ok=True)
    results.write(os.path.join(options.out, "bench.csv"))
    if shutil.which("gnuplot"):
        results.plots(options.out)
        say(f"\nEvery measurement: {options.out}/bench.csv; the plots: {options.out}/*.svg")
    else:
        say(f"\nEvery measurement: {options.out}/bench.csv; no plots without gnuplot-nox")


def main():
    # Ctrl-C and `timeout` end the servers too, by way of `finally`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    options = read_arguments()
    if options.tables:
        rewrite(options)
        return
    bench = Bench(options)
    begin = time.monotonic()
    say(f"{os.cpu_count()} processors, Linux {os.uname().release}, {bench.rounds} rounds of "
        f"{bench.seconds} s; load average {os.getloadavg()[0]:.2f}")
    if bench.left_out:
        say(f"Left out, not installed: {', '.join(bench.left_out)}")
    for test in QUICK if options.quick else TESTS:
        if not options.only or test.__name__ in options.only:
            test(bench)
    report(bench, options)
    say(f"{time.monotonic() - begin:.0f} seconds; load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
