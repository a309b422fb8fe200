#!/usr/bin/env python3
"""Plays a lab on the projector, live, in tmux: `make play LAB=08`.

    tests/labs/play.py LAB [--part N] [--delay SECONDS]

The lab's text is in the upper pane, its terminals are below. Enter shows the next
text, or types the next command into the terminal that the lab names; what comes is
real. `n` does the rest of the part quickly. `p` starts all anew (terminals, copy of
the sources, namespaces), and does quickly what comes before the part. `q` ends all
that was started. Who clicks on a terminal can type there, at any time.

The lab is read, typed and compared by the runner, labs.py. A terminal is its pty, 100
columns wide; the pane in tmux shows what comes from it and sends it the keys. What
comes otherwise than printed is told in the text pane and at the end. Each time that a
key is waited for, the tmux options @at and @numbers say so, for play_test.py.
"""
import argparse
import fcntl
import functools
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
import tty

import labs

WIDTH, HEIGHT = 100, 28  # what a room can read
CARD = 10  # lines of text that are shown at once
SMALL = 3  # lines that each terminal keeps
PATIENCE = 5  # seconds of waiting after which Enter goes on without the output
AGAIN = 100  # exit status: start anew, and add the number of the part
KEYS = {b"\r": "enter", b" ": "enter", b"\x1b[6~": "enter", b"n": "n", b"p": "p", b"q": "q"}
LABEL = r"\*\*(?:Predict|Observe|Explain)\.\*\*"


class End(Exception):
    """The teacher ends the lab, with this exit status."""


# ---- The lab's text ----------------------------------------------------------


class Card:
    """Some lines of text to show at once. `typed` is shown below them until the
    first of it is typed."""

    def __init__(self):
        self.lines = []
        self.typed = []


def without_marks(text):
    """Markdown's marks become bold and green; each counts as one column."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*(.+?)\*\*", "\x01\\1\x02", text)
    text = re.sub(r"(?<!\w)\*(\w[^*]*)\*", "\x01\\1\x02", text)
    return re.sub(r"`([^`]+)`", "\x03\\1\x04", text)


def as_shown(line):
    for mark, escape in zip("\x01\x02\x03\x04", (1, 22, 32, 39)):
        line = line.replace(mark, f"\x1b[{escape}m")
    return line


class Part:
    """What stands below one heading: cards and steps in the order of the lab."""

    def __init__(self, title):
        self.title = title
        self.items = []
        self.fresh = True  # the next text begins a card

    def steps(self):
        return [item for item in self.items if isinstance(item, labs.Step)]

    def terminals(self):
        return list(dict.fromkeys(step.terminal for step in self.steps()
                                  if step.terminal))

    def card(self, height):
        """The card to which so many lines are added."""
        if self.fresh or len(self.items[-1].lines) + height > CARD:
            self.items.append(Card())
        self.fresh = False
        return self.items[-1]

    def say(self, paragraph):
        if not paragraph:
            return
        text = without_marks(" ".join(paragraph))
        item = re.match(r"(?:- |\d+\. )", text)
        lines = textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False,
                              subsequent_indent=" " * len(item[0]) if item else "")
        self.fresh = self.fresh or bool(re.match(LABEL, paragraph[0]))
        card = self.card(len(lines) + 1)
        card.lines += ([""] if card.lines and not item else []) + lines
        del paragraph[:]

    def block(self, lines):
        for start in range(0, len(lines), CARD):
            some = ["  " + line for line in lines[start: start + CARD]]
            self.card(len(some)).lines += some

    def do(self, step):
        self.items.append(step)
        self.fresh = True


def read_script(path, steps):
    """The parts of a lab. `steps` are those that can be done here."""
    by_line = {step.where: step for step in steps}
    parts, fence, block, paragraph = [], None, [], []
    with open(path, encoding="utf-8") as file:
        lines = file.read().expandtabs(8).split("\n")
    for number, line in enumerate(lines, 1):
        if re.match(r"#+ ", line) and fence is None:
            if parts:
                parts[-1].say(paragraph)
            parts.append(Part(line.lstrip("# ")))
            continue
        if not parts:
            continue
        part, step = parts[-1], by_line.get(number)
        if step:
            part.say(paragraph)
            if step.kind == "edit":
                part.block(step.output)
            part.do(step)
        if line.startswith("```") and fence is None:
            part.say(paragraph)
            fence, block = line[3:].strip(), []
        elif line.rstrip() == "```":
            if fence == "mermaid":
                kind = re.match(r"[a-z]+", block[0])[0]
                part.say([f"[figure: {kind.replace('sequence', 'sequence diagram')}]"])
            elif fence == "typed":
                part.card(0).typed += block
            elif fence != "console" and not isinstance(part.items[-1], labs.Step):
                part.block(block)
            fence = None
        elif fence is not None:
            block.append(line)
        elif re.match(r"</?details|<!--", line):
            part.say(paragraph)
            part.fresh = part.fresh or line.startswith("<details")
        elif not line.strip() or re.match(r"\W*(Tools|Minutes|Isolation)\b.*:", line):
            part.say(paragraph)
        else:
            if re.match(r"\s*(- |\d+\. |\|)", line):
                part.say(paragraph)
            paragraph.append(line.strip())
    parts[-1].say(paragraph)
    return parts


# ---- tmux --------------------------------------------------------------------


class Pane:
    """A pane in which only we write and read. It does not know of lines."""

    def __init__(self, found, title):
        self.id, path = found.split()
        self.file = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.file)
        self.write(f"\x1b]2;{title}\x07")

    def write(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.file, data):]

    def keys(self):
        try:
            return os.read(self.file, 4096) if select.select([self.file], [], [], 0)[0] \
                else b""
        except OSError:
            raise End(0) from None  # tmux is gone


class Screen:
    """A tmux server of our own, which reads nobody's configuration."""

    def __init__(self, directory):
        self.socket = os.path.join(directory, "tmux")
        self.client = None
        self.new = ["-PF", "#{pane_id} #{pane_tty}", "exec sleep infinity"]
        os.environ.pop("TMUX", None)
        os.environ["SHELL"] = "/bin/sh"
        self.text = Pane(self.tmux("new-session", "-d", "-x", str(WIDTH), "-y",
                                   str(HEIGHT), *self.new), "")
        for option in ("mouse on", "history-limit 20000", "pane-border-status top",
                       "pane-border-format  #[bold]#{pane_title}#[default] ",
                       "status-left  ", "status-right  ", "window-status-format ",
                       "status-style reverse"):
            self.tmux("set", "-g", *option.split(" ", 1))
        self.tmux("set", "-g", "window-status-current-format", "Enter: go on   n, p: next, "
                  "previous part   q: end   A click on a terminal: type there")

    def tmux(self, *words):
        try:
            return subprocess.run(
                ["tmux", "-S", self.socket, "-f", "/dev/null", "-u", *words], check=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
        except subprocess.CalledProcessError:
            raise End(0) from None

    def attach(self):
        self.client = subprocess.Popen(["tmux", "-S", self.socket, "-u", "attach"])

    def attached(self):
        return self.client.poll() is None

    def ask(self, form):
        """Numbers of the text's pane and its window."""
        return map(int, self.tmux("display", "-p", "-t", self.text.id, form).split())

    def size(self):
        """The pane's, as its programs know it: tmux tells them a moment later."""
        size = fcntl.ioctl(self.text.file, termios.TIOCGWINSZ, bytes(8))
        return struct.unpack("HHHH", size)[:2]

    def stack(self, panes):
        """Shows these panes below the text, and no others."""
        for pane in self.tmux("list-panes", "-F", "#{pane_id}").split():
            if pane != self.text.id:
                self.tmux("break-pane", "-d", "-s", pane)
        above = self.text.id
        for pane in panes:
            self.tmux("join-pane", "-d", "-v", "-s", pane.id, "-t", above)
            self.tmux("select-layout", "-E")
            above = pane.id

    def end(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False,
                       stderr=subprocess.DEVNULL)
        if self.client:
            self.client.wait()


# ---- Playing -----------------------------------------------------------------


class Terminal(labs.Terminal):
    """A terminal of the runner that a pane shows."""

    def __init__(self, player, name, directory):
        super().__init__(name, directory)
        self.player = player
        self.directory = directory
        self.held = ""  # may be the beginning of a prompt
        self.pane = Pane(player.screen.tmux("new-window", "-d", *player.screen.new), name)

    def read(self, seconds):
        keys = self.pane.keys()
        if keys:
            self.child.send(keys.decode(errors="replace"))
            for terminal in self.player.terminals.values():
                terminal.loose = True  # what comes now is not of the lab alone
        length = len(self.pending)
        try:
            came = super().read(seconds)
        except labs.LabError:  # the teacher has left the shell: here is a new one
            super().__init__(self.name, self.directory)
            return False
        shown = (self.held + self.pending[length:]).replace(
            self.prompt, f"{self.name}{self.player.marks[self.name]} ").replace(self.more, "> ")
        held = shown.rfind("\x02")
        held = len(shown) if held < 0 or len(shown) - held > len(self.prompt) else held
        self.held = shown[held:]
        self.pane.write(shown[:held])
        return came

    def send(self, text):
        for letter in text if self.player.delay else [text]:
            self.player.pause(10 if letter == "\r" else 1)
            super().send(letter)


class Player(labs.Session):
    """A lab under way, on a screen."""

    def __init__(self, lab, directory, screen, delay):
        super().__init__(lab, directory, False, False)
        self.screen = screen
        self.delay = delay
        self.hurry = False  # do the rest of the part without waiting for Enter
        self.terminal_class = functools.partial(Terminal, self)
        steps, skipped = lab.plan()
        self.parts = read_script(lab.path, [step for block in steps for step in block])
        self.skipped = dict(skipped)
        self.names = list(dict.fromkeys(
            name for part in self.parts for name in part.terminals()))
        self.marks = {}  # of the prompts: $ or #
        self.part = None
        self.number = 0  # of the part
        self.begun = False  # Enter was pressed in this part
        self.card = Card()
        self.stacked = []  # the names of the terminals that are seen
        self.heights = None
        self.note = ""
        self.notes = []

    # -- What is seen --

    def arrange(self, step=None):
        """Gives the text and the terminals their lines: the one that is typed into
        first, then those in which this part shows most."""
        shown = [self.terminals[name].pane for name in self.stacked]
        window, = self.screen.ask("#{window_height}")
        rows = window - 1 - len(shown)
        text = rows
        need = {name: SMALL for name in self.stacked}
        if shown:
            wanted = len(self.card.lines) + len(self.card.typed) + 2 + bool(self.note)
            text = max(3, min(wanted, rows - SMALL * len(shown)))
            left = rows - text - SMALL * len(shown)
            wants = [(step.terminal, len(step.shown()) + 2)] if step else []
            for name in self.stacked:
                wants.append((name, 2 + sum(len(each.shown()) for each in self.part.steps()
                                            if each.terminal == name)))
            wants += [(name, rows // len(shown)) for name in self.stacked]
            wants.append((self.stacked[-1], rows))
            for name, lines in wants:
                more = max(0, min(left, lines - need[name]))
                need[name] += more
                left -= more
        heights = [window, text, *need.values()]
        if heights != self.heights:
            self.heights = heights
            for pane, height in zip([self.screen.text, *shown[:-1]], heights[1:]):
                self.screen.tmux("resize-pane", "-t", pane.id, "-y", str(height))

    def draw(self, hint):
        rows, columns = self.screen.ask("#{pane_height} #{pane_width}")
        below = ["\x1b[31m" + self.note + "\x1b[39m"] if self.note else []
        if columns < WIDTH:
            below.append(f"(This window has {columns} columns; {WIDTH} are wanted.)")
        below.append("\x1b[1;7m " + hint[: columns - 2] + " \x1b[0m")
        lines = self.card.lines + ["  " + line for line in self.card.typed]
        lines = lines[: rows - len(below)]
        lines += [""] * (rows - len(below) - len(lines)) + below
        self.screen.text.write("\x1b[?25l\x1b[0m\x1b[H\x1b[2J" + "\r\n".join(
            " " + as_shown(line) for line in lines))

    def tell(self, note):
        """Something came otherwise than printed."""
        self.notes.append(note)
        self.note = note.split("\n", 1)[0][: WIDTH - 30] + " ... not as printed."

    def begin(self, number):
        self.number, self.part, self.begun = number, self.parts[number], False
        self.note = ""
        for step in self.part.steps():
            if step.kind in "$#":
                self.marks[step.terminal] = step.kind
        names = [name for name in self.names if name in self.part.terminals()]
        for name in names:
            self.open(name)
        if names and names != self.stacked:
            self.stacked, self.heights = names, None
            self.screen.stack([self.terminals[name].pane for name in names])
        if self.part.title in self.skipped:
            self.note = f"This part is not played: {self.skipped[self.part.title]} is missing."
        titles = dict.fromkeys([self.parts[0].title, self.part.title])
        self.screen.text.write(f"\x1b]2;{': '.join(titles)} "
                               f"({number + 1} of {len(self.parts)})\x07")

    # -- Keys --

    def pump(self, seconds):
        """Waits so long at most, for a key or for something to show."""
        files = [self.screen.text.file]
        for terminal in self.terminals.values():
            files += [terminal.pane.file, terminal.child.child_fd]
        select.select(files, [], [], seconds)
        for terminal in self.terminals.values():
            terminal.read(0)
        if not self.screen.attached():
            raise End(0)

    def key(self):
        """The key that was pressed in the text, if any. Obeys q and p."""
        key = KEYS.get(self.screen.text.keys(), "")
        if key == "q":
            raise End(bool(self.notes))
        if key == "p":
            raise End(AGAIN + max(0, self.number - (not self.begun)))
        self.hurry = self.hurry or key == "n"
        return key

    def pause(self, letters):
        end = time.monotonic() + letters * self.delay
        while not self.hurry and (left := end - time.monotonic()) > 0:
            self.key()
            self.pump(left)

    def wait(self, terminal, done, *bounds):
        since = time.monotonic()

        def done_or_key():
            if self.key() == "enter" and time.monotonic() - since > PATIENCE:
                raise labs.LabError("not waited for to the end")
            return done()
        return super().wait(terminal, done_or_key, *bounds)

    def enter(self, hint, at):
        """Shows the card and waits for Enter, except in a part that is done quickly."""
        if self.hurry:
            return
        self.screen.tmux("set", "-g", "@at", at, ";", "set", "-g", "@numbers", json.dumps(
            self.numbers.known), ";", "wait-for", "-S", "ready")
        size = None
        while self.key() != "enter" and not self.hurry:
            if size != self.screen.size():
                self.arrange()
                size = self.screen.size()
                self.draw(hint)
            self.pump(0.5)
        self.begun = True

    # -- Steps --

    def type(self, terminal, step):
        terminal.read(0)
        if terminal.at_prompt():
            terminal.running = ""  # the teacher may have ended it
        late = terminal.output()
        if late and not terminal.loose:
            self.tell(str(self.mismatch(step, [], late)))
            terminal.loose = True
        super().type(terminal, step)

    def act(self, step):
        if step.text and step.kind in "$#>":
            self.card.typed = []
            self.arrange(step)
            self.draw("...")
        try:
            self.do(step)
        except labs.LabError as error:
            self.tell(str(error))

    def play(self, first):
        for number in range(len(self.parts)):
            self.begin(number)
            self.hurry = number < first
            for index, item in enumerate(self.part.items):
                if isinstance(item, Card):
                    if index:
                        self.enter("Enter: read on", "text")
                    self.card = item
                    self.arrange()
                    continue
                if item.kind == "edit":
                    self.enter("Enter makes this edit", "edit")
                elif item.text and item.kind in "$#>":
                    verb = "presses" if item.text in labs.KEYS else "types"
                    text = self.numbers.in_command(item.typed()[0])
                    self.enter(f"Enter {verb}  {text}", "type")
                self.act(item)
            last = number == len(self.parts) - 1
            self.enter("The end" if last else f"Enter: next part, "
                       f"\"{self.parts[number + 1].title}\"", "end" if last else "part")
        while True:
            self.hurry = False
            self.enter("The end.  q ends, p does the last part again", "end")


# ---- Starting and ending -----------------------------------------------------


def inside(lab, options):
    """The player itself, in its namespaces."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    copy = os.path.join(options.directory, "lab")
    labs.copy_sources(copy)
    screen = Screen(options.directory)
    player = Player(lab, copy, screen, options.delay)
    try:
        screen.attach()
        player.play(options.part - 1)
    except End as end:
        return end.args[0]
    finally:
        for terminal in player.terminals.values():
            terminal.end()
        screen.end()
        for note in player.notes:
            print(f"{lab.name}, {note}")


def run(command, directory):
    """Runs it, and has it end in order when we are to end."""
    def end(number, _):
        subprocess.run(["tmux", "-S", os.path.join(directory, "tmux"), "kill-server"],
                       check=False, stderr=subprocess.DEVNULL)
        try:
            child.wait(labs.BOUND)
        except subprocess.TimeoutExpired:
            child.kill()
        sys.exit(128 + number)
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return child.wait()


def main():
    parser = argparse.ArgumentParser(description="Play a lab, live, in tmux.")
    parser.add_argument("lab", help="01, 02 ... or a file")
    parser.add_argument("--part", type=int, default=1, help="begin with this part")
    parser.add_argument("--delay", type=float, default=0.03,
                        help="seconds between two letters (0.03)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    lab = labs.Lab(labs.find_labs([options.lab])[0])
    if options.inside:
        if options.inside == "namespaces":
            labs.bring_loopback_up()
        sys.exit(inside(lab, options))

    missing = lab.missing(lab.parts[0])
    missing += [] if shutil.which("tmux") else ["tmux"]
    missing += [] if importlib.util.find_spec("pexpect") else ["python3-pexpect"]
    if missing:
        print(f"SKIP {lab.name}: missing {', '.join(missing)} (lab-notes/README.md "
              "has the command that installs all)")
        sys.exit(labs.EXIT_SKIPPED)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.exit("play: this wants a terminal")
    namespaces = labs.isolation() if lab.isolated else []
    status = AGAIN + options.part - 1
    while status >= AGAIN:
        with tempfile.TemporaryDirectory(prefix="play.") as directory:
            status = run(namespaces + [
                sys.executable, "-B", os.path.abspath(__file__), lab.path, "--delay",
                str(options.delay), "--part", str(status - AGAIN + 1), "--inside",
                "namespaces" if namespaces else "machine", "--directory", directory], directory)
    sys.exit(status)


if __name__ == "__main__":
    main()
