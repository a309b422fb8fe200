#!/usr/bin/env python3
"""Does every lab as a student would: types what it prints, in real terminals.

    tests/labs/labs.py                  all of lab-notes/NN-*.md
    tests/labs/labs.py 03 07            two of them
    tests/labs/labs.py --show 03        print the transcripts as they come out now
    tests/labs/labs.py --lines          rewrite the sources' line numbers in them
    tests/labs/labs.py --typed          rewrite their blocks of what is typed
    tests/labs/labs.py FILE.md          a lab somewhere else

THE FORM OF A TRANSCRIPT

A fenced `console` block. What stands in front of a line says what it is:

    server$ ./server        type this at the prompt of the terminal `server`
    wire# tcpdump -i lo     the same, in a terminal of root
    client> ping            type this into the program that runs in `client`
    server> ^C              press this key: ^C ^D ^Z ^] or ^\\
    server| Connection ...  this appears in `server` now, while nobody types there
    client$                 nothing to type: the prompt is back

Every other line is output: of the terminal that was typed into last. After a
`NAME|` line, output needs its `NAME|` too. A terminal is a pty with bash; it
opens when it is first named, in the top directory of a fresh copy of the
sources, and lives as long as the lab. A command that ends in a backslash goes
on in the next line, behind `> `. A prompt of the program's own, `(gdb) ` or
`telnet> `, is left out.

HOW OUTPUT IS COMPARED

All of it, to the letter. Nothing may come that the lab does not show, and at
the end each terminal must be back at its prompt with nothing left running. But
  - a line `...` matches any lines, also none. At the end of the output of a
    program that runs on it stands for all that comes until the next line is
    typed there, and is not waited for: let the line that the next step needs,
    "Listening on", say, stand in the lab;
  - a number matches any number. Of four digits and more, the same number must
    stand for the same number all through the lab, and in a command it is
    replaced by the number that it stood for: the student types his own, too.
    Addresses (127.0.0.1, ::1), digits within a word (tcp6) and 1208 are no
    such numbers, nor are those named in the line "Fixed numbers: 3, 4.";
  - a line number of server.c, handler.c or client.c (`server.c:171`, and the 171
    at the beginning of gdb's next line) must be the one of the sources now;
  - a month matches a month, `root` also your own name, eight or more
    hexadecimal digits match as many or more;
  - where an output has numbers, columns may be wider or narrower;
  - white space at the end of a line does not count.

LINES THAT THE RUNNER READS

    Tools: `cc`, `make`, `tcpdump`, root.     programs that must be there; the
                                              plain words root and namespaces:
                                              be root, be allowed to unshare(1)
    Fixed numbers: 3, 4.                      they match themselves only
    Isolation: none, since ...                do not use namespaces
    <!-- wait: COMMAND -->                    between two blocks: go on when this
                                              shell command succeeds
    <!-- holds: 20031 < 32768 -->             a relation of numbers that the lab
                                              prints; also <= = >= >
    <!-- edit: DIRECTORY -->                  what the `diff` block below this
                                              line says is typed there

A person sees when a program is ready, and waits. The runner has to be told: it
tries the COMMAND again and again. The numbers in it are replaced as they are in
a command of the lab. The other lines may stand in a comment, too, if a reader
of the lab does not need them.

A block tagged `typed` shows what a reader types before he unfolds what comes: the
typed lines of the console blocks below it in "<details><summary>What comes", and
nothing else. Other folds, a solution's, say, are run, but are no part of it.

`Tools:` before the first `##` heading is for the whole lab, below a heading for
that part alone. What is missing skips the lab, or the part, by name; with
CI=true in the environment that is a failure.

A block that is not run is tagged `text`, and the line before it says "not run"
and why. Other tags (mermaid, c, go, diff) are for diagrams and sources.

Each lab runs in network, process and mount namespaces of its own where the
system allows it, so labs that all use port 1208 can run at the same time; where
not, it runs plainly. LABS_BOUND is the most seconds to wait for one output (60).
"""
import argparse
import contextlib
import difflib
import fcntl
import getpass
import importlib.util
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
NOTES = os.path.join(ROOT, "lab-notes")
BOUND = float(os.environ.get("LABS_BOUND", "60"))
START_BOUND = 60  # for a terminal's shell, which no lab is about
LAB_BOUND = 600
EXIT_SKIPPED_PARTS = 3
EXIT_SKIPPED = 4

KEYS = {"^C": "\x03", "^D": "\x04", "^Z": "\x1a", "^]": "\x1d", "^\\": "\x1c"}
OTHER_BLOCKS = ("typed", "text", "mermaid", "c", "go", "diff", "json")
SOURCES_ONLY = ("server", "client", "build", ".git")


class LabError(Exception):
    """The lab is wrong, or did not come out as printed."""


# ---- Reading a lab -----------------------------------------------------------


class Step:
    """One thing to type, or to wait for, and the output that follows it."""

    def __init__(self, where, terminal, kind, text):
        self.where = where  # line number in the lab
        self.terminal = terminal
        self.kind = kind  # one of $ # > |, or wait, holds, edit
        self.text = text
        self.output = []
        self.next = None  # the next step in the same terminal

    def typed(self):
        """The lines of it that are typed, as the lab prints them."""
        if self.terminal is None or self.kind == "|":
            return []
        return [(f"{self.terminal}{self.kind} {line}" if not i else "> " + line).rstrip()
                for i, line in enumerate(self.text.split("\n"))]

    def shown(self):
        """The lines of the step as the lab prints them."""
        if self.kind == "|":
            return [f"{self.terminal}| {line}".rstrip() for line in self.output]
        return self.typed() + self.output


class Part:
    """The preamble, or what stands below one heading."""

    def __init__(self, title, level):
        self.title = title
        self.level = level
        self.tools = ""
        self.blocks = []


def parse_transcript(lines, first, terminals):
    """The steps of one console block. `terminals` are the names so far."""
    steps = []
    bare = False  # the last line was NAME|
    for where, line in enumerate(lines, first):
        line = line.rstrip()
        marked = re.match(r"([a-z][a-z0-9]*)([$#>|])(?: (.*)|$)", line)
        if marked and (marked[2] in "$#" or marked[1] in terminals):
            name, kind, text = marked[1], marked[2], marked[3] or ""
            if kind == "|":
                last = steps[-1] if steps else None
                if not (last and last.kind == "|" and last.terminal == name):
                    steps.append(Step(where, name, "|", ""))
                steps[-1].output.append(text)
            else:
                terminals.add(name)
                steps.append(Step(where, name, kind, text))
            bare = kind == "|"
        elif not steps:
            raise LabError(f"line {where}: output before anything was typed")
        elif bare:
            raise LabError(f"line {where}: whose output is this? After a "
                           f"`{steps[-1].terminal}|` line it needs its name")
        elif (line.startswith("> ") and steps[-1].text.endswith("\\") and not steps[-1].output):
            steps[-1].text += "\n" + line[2:]
        else:
            steps[-1].output.append(line)
    return steps


class Lab:
    """A lab-notes file, cut into what the runner needs."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)[: -len(".md")]
        self.parts = [Part("", 1)]
        self.fixed = {"1208"}
        self.isolated = True
        self.lines = {}  # line number of a source -> names of such sources
        self.typed = []  # of each such block: its first line, what it has, what it should
        self.file = pathlib.Path(path)
        self.read(self.file.read_text("utf-8").expandtabs(8).split("\n"))

    def read(self, lines):
        terminals = set()
        fence = None
        folded = False  # below a typed block, in a "What comes"
        before = above = ""
        for number, line in enumerate(lines, 1):
            part = self.parts[-1]
            for source, its_line in re.findall(SOURCE_LINE, line):
                self.lines.setdefault(its_line, set()).add(source)
            if fence is not None:
                if line.rstrip() == "```":
                    tag, start = fence
                    if tag == "console":
                        part.blocks.append(parse_transcript(
                            lines[start: number - 1], start + 1, terminals))
                        if folded:
                            self.typed[-1][2].extend(
                                line for step in part.blocks[-1]
                                if step.text or step.kind == ">"
                                for line in step.typed())
                    if tag == "typed":
                        self.typed.append((start, lines[start: number - 1], []))
                    edit = re.fullmatch(r"<!-- edit: (.*) -->", above.strip())
                    if tag == "diff" and edit:
                        part.blocks.append([Step(start, None, "edit", edit[1])])
                        part.blocks[-1][0].output = lines[start: number - 1]
                    fence = None
            elif line.startswith("```"):
                fence = (line[3:].strip(), number)
                above = before
                self.check_tag(fence[0], number, before)
            elif re.match(r"##+ ", line):
                level = len(line.split()[0])
                self.parts.append(Part(line.lstrip("# "), level))
            else:
                self.read_header(number, line, part)
                folded = (folded or bool(self.typed) and "<summary>What comes" in line
                          ) and "</details" not in line
            if line.strip():
                before = line
        if fence is not None:
            raise LabError(f"line {fence[1]}: this block has no end")

    @staticmethod
    def check_tag(tag, number, before):
        if tag == "text" and "not run" not in before.lower():
            raise LabError(f"line {number}: a text block is not run, and the "
                           "line before it must say so (\"not run\") and why")
        if tag != "console" and tag not in OTHER_BLOCKS:
            raise LabError(f"line {number}: a block tagged {tag!r} would "
                           "never be run; use console or text")

    def read_header(self, number, line, part):
        tools = re.match(r"\W*Tools:[*\s]*(.*)", line)
        fixed = re.match(r"\W*Fixed numbers[^:]*:(.*)", line)
        hidden = re.fullmatch(r"<!-- (wait|holds): (.*) -->", line.strip())
        if hidden:
            part.blocks.append([Step(number, None, hidden[1], hidden[2])])
        elif tools:
            part.tools += " " + tools[1]
        elif fixed:
            self.fixed.update(re.findall(r"\d+", fixed[1]))
        elif re.match(r"\W*Isolation\W+none\b", line):
            self.isolated = False

    def check_typed(self):
        """The blocks of what is typed are those lines of the transcripts below."""
        for first, now, right in self.typed:
            if now != right:
                raise LabError(f"line {first}: not what is typed in the transcript "
                               "below. `tests/labs/labs.py --typed` rewrites it")

    def rewrite_typed(self):
        """Writes the blocks of what is typed anew."""
        lines = self.file.read_text("utf-8").split("\n")
        for first, now, right in reversed(self.typed):
            lines[first: first + len(now)] = right
        self.file.write_text("\n".join(lines), "utf-8")

    def rewrite_lines(self, moved):
        """Puts new line numbers of the sources into the file."""
        def new(found):
            files = ({found["file"]} if found["file"] else self.lines.get(found["line"], set()))
            name = f"{min(files)}:{found['line']}" if len(files) == 1 else ""
            return found["before"] + moved.get(name, found["line"])
        text = re.sub(r"(?P<before>\b(?P<file>\w+\.c)(?::|, line )"
                      r"|^(?:\w+\| )?)(?P<line>\d+)\b", new, self.file.read_text("utf-8"),
                      flags=re.M)
        self.file.write_text(text, "utf-8")

    def missing(self, part):
        """The tools that a part names and that are not there."""
        names = re.findall(r"`([^`]+)`", part.tools)
        absent = [name for name in names if shutil.which(name) is None]
        plain = re.sub(r"`[^`]*`", "", part.tools)
        if re.search(r"\broot\b", plain) and not is_root():
            absent.append("root")
        if re.search(r"\bnamespaces\b", plain) and not isolation():
            absent.append("namespaces")
        return absent

    def plan(self):
        """The blocks to run, and the titles of parts to skip, with reasons."""
        blocks, skipped = [], []
        inside = None  # the level of a part that is skipped
        for part in self.parts:
            if inside is not None and part.level > inside:
                continue
            inside = None
            absent = self.missing(part)
            if absent:
                skipped.append((part.title, ", ".join(absent)))
                inside = part.level
                if part is self.parts[0]:
                    return [], skipped
            else:
                blocks += part.blocks
        last = {}
        for step in (step for block in blocks for step in block):
            if step.terminal in last:
                last[step.terminal].next = step
            last[step.terminal] = step
        return blocks, skipped


# ---- Comparing ---------------------------------------------------------------

SOURCE_LINE = r"\b((?:server|handler|client)\.c)(?::|, line )(\d+)"
MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
TOKEN = re.compile(
    r"(?P<address>\b\d+(?:\.\d+){3}\b|::(?:[0-9a-f]+(?![\w.]))?)"
    r"|(?P<pointer>\b0x[0-9a-fA-F]+\b)"
    r"|(?P<id>\b(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{8,}\b)"
    r"|(?P<line>(?:^|(?<=\.c:)|(?<=\.c, line ))\d+\b)"
    r"|(?P<number>(?<![A-Za-z_\d])\d+)"
    rf"|(?P<month>\b(?:{MONTHS})\b)"
    r"|(?P<user>\broot\b)")
ANY_LINES = "..."


class Numbers:
    """What the lab's numbers of four digits and more stand for, so far."""

    def __init__(self, fixed, lines):
        self.fixed = fixed
        self.lines = lines
        self.known = {}

    def is_free(self, token):
        return (token.lastgroup in ("pointer", "id", "line", "number")
                and token[0] not in self.fixed)

    def name(self, token):
        """Numbers of the same name are the same number: "server.c:171" for a
        line of a source, "51090" for a long number, and "" for a short one."""
        if token.lastgroup == "line":
            ours = re.search(SOURCE_LINE + r"\Z", token.string[: token.end()])
            files = {ours[1]} if ours else self.lines.get(token[0], set())
            if len(files) == 1:
                return f"{min(files)}:{token[0]}"
        return token[0] if len(token[0]) >= 4 else ""

    def moved(self):
        """The lines of the sources that have another number now."""
        return {name: now for name, now in self.known.items()
                if ".c:" in name and name.split(":")[1] != now}

    def pattern(self, line, groups):
        """A regular expression for one line. `groups` (number -> name) grows:
        a number that comes twice must match the same both times."""
        out, end = "", 0
        for token in TOKEN.finditer(line):
            out += re.escape(line[end: token.start()])
            end = token.end()
            text, name = token[0], self.name(token)
            if token.lastgroup == "month":
                out += f"(?:{MONTHS})"
            elif token.lastgroup == "user":
                out += f"(?:root|{re.escape(getpass.getuser())})"
            elif not self.is_free(token):
                out += re.escape(text)
                if token.lastgroup in ("line", "number"):
                    out += r"(?!\d)"
            elif name in self.known:
                out += re.escape(self.known[name]) + r"(?![0-9a-fA-F])"
            elif name in groups:
                out += f"(?P={groups[name]})" + r"(?![0-9a-fA-F])"
            else:
                any_such = {"pointer": "0x[0-9a-fA-F]+", "id": "[0-9a-fA-F]{8,}"
                            }.get(token.lastgroup, r"\d+")
                if name:
                    groups[name] = f"n{len(groups)}"
                    out += f"(?P<{groups[name]}>{any_such})"
                else:
                    out += f"(?:{any_such})"
        return out + re.escape(line[end:])

    @staticmethod
    def plain(expected):
        """How to make lines comparable: where numbers are, columns may move."""
        if any(token.lastgroup not in ("month", "user") for line in expected
               for token in TOKEN.finditer(line)):
            return lambda line: " ".join(line.split())
        return str.rstrip

    def match(self, expected, text, whole):
        """Matches lines against the beginning of a text, or all of it. Returns
        the length matched, or None, and remembers the numbers."""
        plain = self.plain(expected)
        expected = [plain(line) for line in expected]
        lines = text.split("\n")
        groups = {}
        parts = [r"(?:.*\n)*?" if line == ANY_LINES
                 else self.pattern(line, groups) + r"\n" for line in expected]
        found = re.match("".join(parts) + (r"\Z" if whole else ""), "\n".join(map(plain, lines)))
        if found is None:
            return None
        for number, group in groups.items():
            self.known[number] = found[group]
        count = found[0].count("\n")
        return len("\n".join(lines[:count])) + (1 if count else 0)

    def in_command(self, text):
        """A command as the student types it: with his own numbers."""
        return TOKEN.sub(lambda token: self.known.get(self.name(token), token[0])
                         if self.is_free(token) else token[0], text)

    def difference(self, expected, actual):
        """A diff in which lines that match are not shown as different."""
        plain = self.plain(expected)
        shown = []
        rest = list(expected)
        for line in actual:
            line = line.rstrip()
            for index, wanted in enumerate(rest):
                if wanted != ANY_LINES and re.fullmatch(
                        self.pattern(plain(wanted), {}), plain(line)):
                    line = wanted
                    del rest[: index + 1]
                    break
            shown.append(line)
        diff = list(difflib.unified_diff(expected, shown, "printed", "happened",
                                         lineterm="", n=100))
        if not diff:
            here = {token[0] for line in expected
                    for token in TOKEN.finditer(line)} & set(self.known)
            diff = ["(no line differs by itself; from before: " + ", ".join(
                f"{number} is {self.known[number]}" for number in sorted(here))
                + ")"] + actual
        return "\n".join("    " + line for line in diff)


# ---- Terminals ---------------------------------------------------------------

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>]")
OWN_PROMPT = re.compile(r"(?:^|(?<=\n))(?:\(gdb\) |telnet> )\Z")


def reset_signals():
    """As a terminal starts its shell. What is ignored stays ignored in all that
    is started: Python ignores SIGPIPE, and a shell script SIGINT for its jobs
    in the background, so ^C would do nothing there."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT,
                   signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Terminal:
    """A pty with bash in it."""

    def __init__(self, name, directory):
        import pexpect  # here, so that a missing one can be told in words
        self.pexpect = pexpect
        self.name = name
        self.prompt = f"\x02{secrets.token_hex(8)}\x03"
        self.more = f"\x02{secrets.token_hex(8)}\x03"
        self.pending = ""  # came, and not compared yet
        self.loose = False  # the last output ended with "..."
        self.after_key = False  # the shell may end the line of a ^C
        self.running = ""  # the command, while it runs
        path = os.environ.get("PATH", "/usr/bin:/bin")
        environment = {
            "PATH": path + ":/usr/sbin:/sbin", "HOME": directory,
            "TERM": "dumb", "LC_ALL": "C.UTF-8", "USER": getpass.getuser(),
            "PS1": self.prompt, "PS2": self.more, "GOCACHE": os.path.join(
                os.path.expanduser("~"), ".cache", "go-build")}
        self.child = pexpect.spawn(
            "bash", ["--norc", "--noprofile", "--noediting", "-i"],
            cwd=directory, env=environment, dimensions=(50, 100),
            encoding="utf-8", codec_errors="replace",
            preexec_fn=reset_signals)
        self.child.delaybeforesend = None

    def send(self, text):
        self.child.send(text)

    def read(self, seconds):
        try:
            self.pending += self.child.read_nonblocking(65536, seconds)
        except self.pexpect.TIMEOUT:
            return False
        except self.pexpect.EOF:
            raise LabError(f"terminal {self.name} has ended") from None
        return True

    def text(self):
        """What is pending, as it stands on the screen."""
        text = ESCAPES.sub("", self.pending).replace("\r\n", "\n")
        text = re.sub(r"\r+", "", text).expandtabs(8)
        return text[1:] if self.after_key and text[:1] == "\n" else text

    def in_foreground(self):
        """True if a program reads the keys, and the shell does not."""
        return os.tcgetpgrp(self.child.child_fd) != self.child.pid

    def has_begun(self):
        """False between fork and exec, when the program in the foreground is a
        copy of the shell still, which would lose a ^C."""
        def words(pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    return file.read()
            except OSError:
                return None
        return words(os.tcgetpgrp(self.child.child_fd)) != words(self.child.pid)

    def at_prompt(self):
        return self.pending.endswith(self.prompt)

    def output(self):
        """The pending text without prompts, and with its last line ended if
        that is a question, which has no end."""
        text = self.text()
        if text.endswith(self.prompt):
            text = text[: -len(self.prompt)]
            if text and not text.endswith("\n"):
                text += "\n"  # output without an end: the prompt follows it
        text = OWN_PROMPT.sub("", text)
        return text + "\n" if text.endswith("(y or n) ") else text

    def processes(self):
        """The processes that were started here and are not over yet."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,sess=,stat=,args="],
                                check=False, capture_output=True, text=True)
        rows = (line.split(None, 3) for line in listed.stdout.splitlines())
        return {int(row[0]): row[3] for row in rows if len(row) == 4
                and row[1] == str(self.child.pid)
                and int(row[0]) != self.child.pid and row[2][0] != "Z"}

    def end(self):
        """Ends all that runs here, also what ignores the hang-up."""
        for pid in list(self.processes()) + [self.child.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Where it fails the child is ending: SIGKILL takes no refusal, only time.
        with contextlib.suppress(self.pexpect.ExceptionPexpect):
            self.child.close(force=True)


# ---- Doing a lab -------------------------------------------------------------


class Session:
    """One lab under way: its terminals and its numbers."""

    def __init__(self, lab, directory, show, rewrite):
        self.lab = lab
        self.directory = directory
        self.show = show
        self.rewrite = rewrite
        self.terminals = {}
        self.terminal_class = Terminal
        self.numbers = Numbers(lab.fixed, lab.lines)

    def wait(self, terminal, done, quiet=BOUND, bound=BOUND):
        """Reads until done() or the bound; the other terminals are read too,
        so that nothing blocks on a full pty. Returns whether it is done. With
        no terminal it only waits."""
        deadline = time.monotonic() + bound
        quiet_since = time.monotonic()
        while not done():
            if terminal is None:
                time.sleep(0.05)
            elif terminal.read(0.05):
                quiet_since = time.monotonic()
            for other in self.terminals.values():
                if other is not terminal:
                    other.read(0)
            now = time.monotonic()
            if now > deadline or now - quiet_since > quiet:
                return False
        return True

    def open(self, name):
        if name not in self.terminals:
            self.terminals[name] = self.terminal_class(name, self.directory)
            if not self.wait(self.terminals[name],
                             self.terminals[name].at_prompt,
                             START_BOUND, START_BOUND):
                raise LabError(f"terminal {name} does not start")
            self.terminals[name].pending = ""
        return self.terminals[name]

    def type(self, terminal, step):
        """Types, and takes the echo off the screen."""
        if step.kind in "$#":
            if terminal.running:
                raise LabError(f"line {step.where}: `{terminal.running}` still "
                               f"runs in terminal {step.terminal}")
        else:
            # Typed in the moment before the program starts, or after its end,
            # the shell would get it.
            self.wait(terminal, lambda: terminal.in_foreground() or terminal.at_prompt())
            if not terminal.in_foreground():
                raise LabError(f"line {step.where}: nothing runs in terminal "
                               f"{step.terminal} that could read this")
            if step.text in KEYS:  # a subshell stays a copy, so not for long
                self.wait(terminal, terminal.has_begun, 2)
        terminal.read(0)
        if terminal.output() and not terminal.loose and not self.show:
            raise self.mismatch(step, [], terminal.output())
        terminal.pending = ""
        terminal.after_key = False

        if step.kind == ">" and step.text in KEYS:
            terminal.send(KEYS[step.text])
            if step.text != "^D":
                self.wait_for_echo(terminal, step, step.text)
                terminal.after_key = True
            return
        lines = self.numbers.in_command(step.text).split("\n")
        for line in lines:
            terminal.send(line + "\r")
            self.wait_for_echo(terminal, step, line + "\n")
            if line is not lines[-1]:
                self.wait_for_echo(terminal, step, terminal.more)
        if step.kind in "$#":
            terminal.running = step.text

    def wait_for_echo(self, terminal, step, echo):
        def comes():
            return echo in terminal.text()
        if not self.wait(terminal, comes):
            raise self.mismatch(step, [echo.rstrip()], terminal.output())
        before, after = terminal.text().split(echo, 1)
        if before and not terminal.loose and not self.show:
            raise self.mismatch(step, [], before)
        terminal.loose = False
        terminal.pending = after

    def compare(self, terminal, step):
        """Waits for the step's output. Is the program over after it? What comes
        next in this terminal tells: a command, or nothing more."""
        expected = list(step.output)
        if step.kind == "|" and terminal.loose:
            expected.insert(0, ANY_LINES)
        after = step.next
        must_end = after is None or (after.kind in "$#" and after.text != "")
        # Before the next line is typed gdb must have its prompt out, and telnet
        # its own after ^].
        prompts = step.text == "^]" or (
            terminal.running.split(" ")[0] == "gdb" and after is not None
            and after.kind == ">" and after.text not in KEYS)
        found = []

        def done():
            text = terminal.output()
            ended = terminal.at_prompt()
            ready = re.search(r"(?:\(gdb\)|\(y or n\)|telnet>) \Z", terminal.text())
            if ended or (prompts and ready):
                found.append(self.numbers.match(expected, text, True))
                return True
            if must_end or prompts or self.show:
                return False
            length = self.numbers.match(expected, text, False)
            if length is not None:
                found.append(length)
                return True
            # A complete line that is wrong stays wrong.
            return (ANY_LINES not in expected and text.count("\n") >= max(len(expected), 1))

        # To show what comes when nobody knows what comes: until it is quiet.
        quiet = 2 if self.show and not must_end else BOUND
        in_time = self.wait(terminal, done, quiet)
        actual = terminal.output()
        if terminal.at_prompt():
            terminal.running = ""
        if not found or found[-1] is None:
            if not self.show:
                raise self.mismatch(step, expected, actual, in_time)
            terminal.pending = ""
        elif terminal.at_prompt() and after and after.kind in "$#" and not after.text:
            terminal.pending = terminal.prompt  # that is what comes next
        elif terminal.at_prompt() or prompts or self.show:
            terminal.pending = ""
        else:
            terminal.pending = terminal.text()[found[-1]:]
        if self.show:
            step.output = actual.rstrip("\n").split("\n") if actual else []
        terminal.loose = expected[-1:] == [ANY_LINES]

    def mismatch(self, step, expected, actual, in_time=True):
        lines = actual.replace("\x02", "").replace("\x03", "").split("\n")
        if lines and not lines[-1]:
            lines.pop()
        return LabError(
            f"line {step.where}, terminal {step.terminal}: "
            f"`{step.shown()[0]}`"
            + ("" if in_time else f", not over after {BOUND:g} s") + "\n"
            + self.numbers.difference(expected, lines))

    def wait_until(self, step):
        """Tries a step's command until it succeeds."""
        command = self.numbers.in_command(step.text)

        def succeeds():
            return subprocess.run(
                ["bash", "-c", command], cwd=self.directory, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=BOUND).returncode == 0
        if not self.wait(None, succeeds):
            raise LabError(f"line {step.where}: waited {BOUND:g} s in vain "
                           f"for: {command}")

    def edit(self, step):
        """Does to the files what a person does who types a diff."""
        done = subprocess.run(
            ["patch", "-p1", "-F0", "--no-backup-if-mismatch"],
            cwd=os.path.join(self.directory, step.text), input="\n".join(step.output) + "\n",
            check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND)
        if done.returncode != 0:
            raise LabError(f"line {step.where}: the diff does not fit:\n" + done.stdout)

    def holds(self, step):
        """Compares two numbers that the lab has printed, as they came."""
        now = self.numbers.in_command(step.text)
        left, relation, right = re.fullmatch(r"(\d+) (<|<=|=|>=|>) (\d+)", now).groups()
        true = {"<": int.__lt__, "<=": int.__le__, "=": int.__eq__, ">=": int.__ge__,
                ">": int.__gt__}[relation](int(left), int(right))
        if not true:
            raise LabError(f"line {step.where}: {step.text} does not hold: {now}")

    def do(self, step):
        if step.terminal is None:
            {"wait": self.wait_until, "edit": self.edit, "holds": self.holds}[step.kind](step)
            return
        if step.kind in "$#":
            terminal = self.open(step.terminal)
            if step.kind == "#" and not is_root():
                raise LabError(f"line {step.where}: say root in the Tools line")
        else:
            terminal = self.terminals[step.terminal]
        if step.kind != "|" and not (step.kind in "$#" and step.text == ""):
            self.type(terminal, step)
        self.compare(terminal, step)

    def show_pending(self, step):
        """What came in a terminal since it was last looked at."""
        for name, terminal in self.terminals.items():
            late = terminal.output()
            if late and not (step.kind == "|" and step.terminal == name):
                print("\n".join(f"{name}| {line}" for line in late.rstrip("\n").split("\n")))
                terminal.pending = terminal.prompt if terminal.at_prompt() else ""

    def finish(self):
        """The end: every terminal at its prompt, nothing more said or left."""
        for name, terminal in self.terminals.items():
            terminal.read(0)
            if terminal.running:
                raise LabError(f"terminal {name}: at the end of the lab "
                               f"`{terminal.running}` still runs")
            if terminal.output() and not terminal.loose:
                raise LabError(f"terminal {name}: at the end of the lab more "
                               "came than it shows\n"
                               + self.numbers.difference(
                                   [], terminal.output().splitlines()))
            deadline = time.monotonic() + BOUND
            left = terminal.processes()
            while left and time.monotonic() < deadline:
                terminal.read(0.05)
                left = terminal.processes()
            if left:
                raise LabError(f"terminal {name}: left running: " + ", ".join(left.values()))

    def check_lines(self):
        """The lines of the sources that the lab prints are those of now."""
        moved = self.numbers.moved()
        if moved and self.rewrite:
            self.lab.rewrite_lines(moved)
        elif moved:
            raise LabError("the sources have moved: " + ", ".join(
                f"{name} is line {now}" for name, now in moved.items())
                + ". `tests/labs/labs.py --lines` rewrites the numbers")

    def run(self, blocks):
        try:
            for block in blocks:
                for step in block:
                    if self.show:
                        self.show_pending(step)
                    self.do(step)
                    if self.show and step.terminal is not None:
                        print("\n".join(step.shown()))
                if self.show:
                    print()
            self.finish()
            self.check_lines()
        finally:
            for terminal in self.terminals.values():
                terminal.end()


def copy_sources(to):
    """The sources as they are now, without what is built from them."""
    listed = None
    if shutil.which("git"):
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z", "-c", "-o", "--exclude-standard"],
            check=False, capture_output=True, text=True)
    if listed is None or listed.returncode != 0:  # no git, or an unpacked archive
        shutil.copytree(ROOT, to, symlinks=True, dirs_exist_ok=True,
                        ignore=lambda where, names: [
                            name for name in names
                            if where == ROOT and name in SOURCES_ONLY])
        return
    for name in filter(None, listed.stdout.split("\0")):
        source, target = os.path.join(ROOT, name), os.path.join(to, name)
        if os.path.isfile(source):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)


def do_lab(path, directory, show, rewrite):
    """Does one lab in this process, in an empty directory. Returns the exit
    status for it."""
    try:
        lab = Lab(path)
        lab.check_typed()
        blocks, skipped = lab.plan()
        for title, absent in skipped:
            part = f", part \"{title}\"" if title else ""
            print(f"SKIP {lab.name}{part}: missing {absent}")
        if not blocks and skipped:
            return EXIT_SKIPPED
        if not blocks:
            raise LabError("no console block: nothing to do")
        copy_sources(directory)
        Session(lab, directory, show, rewrite).run(blocks)
    except LabError as error:
        print(f"FAIL {os.path.basename(path)}, {error}")
        return 1
    return EXIT_SKIPPED_PARTS if skipped else 0


# ---- Namespaces --------------------------------------------------------------


def is_root():
    """Real root, not the one that a user namespace gives to everybody: that one
    may not do all that programs for root expect (tcpdump changes its user)."""
    everybody = ["0", "0", "4294967295"]
    with contextlib.suppress(OSError):
        everybody = pathlib.Path("/proc/self/uid_map").read_text("ascii").split()
    return os.geteuid() == 0 and everybody == ["0", "0", "4294967295"]


def isolation():
    """The words before a command that give it namespaces of its own; none where
    the system does not allow it."""
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        words.insert(1, "--map-root-user")
    try:
        subprocess.run(words + ["true"], check=True, timeout=20, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return words


def bring_loopback_up():
    """A new network namespace has a loopback interface that is down."""
    up_and_running, get_flags, set_flags = 0x41, 0x8913, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, get_flags, request))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", flags | up_and_running))
    # Process numbers as long as on a machine that has run for a while.
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text("20000", "ascii")


# ---- All labs ----------------------------------------------------------------


def find_labs(names):
    every = sorted(os.path.join(NOTES, name) for name in os.listdir(NOTES)
                   if re.fullmatch(r"\d\d-.*\.md", name))
    found = []
    for name in names:
        some = [name] if name.endswith(".md") and os.path.exists(name) else \
            [path for path in every
             if os.path.basename(path).startswith(name.zfill(2))]
        if not some:
            sys.exit(f"labs: no lab {name} in lab-notes/")
        found += some
    return found if names else every


def main():
    parser = argparse.ArgumentParser(
        description="Do the labs: type what they print, compare what comes.")
    parser.add_argument("labs", nargs="*", help="01, 02 ... or a file")
    parser.add_argument("--show", action="store_true",
                        help="print the transcripts as they come out")
    parser.add_argument("--lines", action="store_true", help="rewrite the line "
                        "numbers of the sources in the labs")
    parser.add_argument("--typed", action="store_true",
                        help="rewrite their blocks of what is typed")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)

    if options.typed:
        for path in find_labs(options.labs):
            Lab(path).rewrite_typed()
        return
    if options.inside:
        if options.inside == "namespaces":
            bring_loopback_up()
        sys.exit(do_lab(*options.labs, options.show, options.lines))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and clean up
    in_ci = os.environ.get("CI") == "true"
    if importlib.util.find_spec("pexpect") is None:
        print("SKIP all labs: missing python3-pexpect")
        print(f"0 passed, {int(in_ci)} failed, {int(not in_ci)} skipped")
        sys.exit(in_ci)

    namespaces = isolation()
    if not namespaces:
        print("labs: no namespaces to be had, so port 1208 must be free")
    passed = failed = skipped = 0
    for path in find_labs(options.labs):
        try:
            isolated = namespaces and Lab(path).isolated
        except LabError:
            isolated = False  # do_lab() will say what is wrong with it
        start = time.monotonic()
        # The directory is ours, since the lab's process may have to be killed.
        with tempfile.TemporaryDirectory(prefix="lab.") as directory:
            command = (namespaces if isolated else []) + [
                sys.executable, os.path.abspath(__file__), "--inside",
                "namespaces" if isolated else "machine", path, directory]
            command += ["--show"] * options.show + ["--lines"] * options.lines
            try:
                status = subprocess.run(command, check=False, timeout=LAB_BOUND).returncode
            except subprocess.TimeoutExpired:
                print(f"FAIL {os.path.basename(path)}: not done in {LAB_BOUND} s")
                status = 1
        lacks = status in (EXIT_SKIPPED, EXIT_SKIPPED_PARTS)
        failed += status != 0 and (in_ci or not lacks)
        skipped += lacks and not in_ci
        passed += status == 0 or (status == EXIT_SKIPPED_PARTS and not in_ci)
        if status in (0, EXIT_SKIPPED_PARTS):
            print(f"done {os.path.basename(path)} in "
                  f"{time.monotonic() - start:.1f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
