#!/usr/bin/env python3
"""Plays a lab on the projector, live, in tmux: `make play LAB=08`.

The lab's text is in the upper pane, its terminals are below. Enter shows the next text,
or types the next command into the terminal that the lab names; what comes is real. `n`
does the rest of the part quickly. `p` starts all anew (terminals, copy of the sources,
namespaces), and does quickly what comes before the part. `q` ends all that was started.
Who clicks on a terminal can type there, at any time.

The lab is read, typed and compared by the runner, labs.py. A terminal is its pty, 100
columns wide; a pane of tmux shows what comes from it, and the keys pressed in the pane
go to it. What comes otherwise than printed is told in the text, and again at the end.
play_test.py reads the tmux options @at (for what a key is waited) and @numbers.
"""
import argparse
import functools
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import tty
from types import SimpleNamespace

import labs

WIDTH, HEIGHT = 100, 28  # what the back of a room can read
CARD = 7  # lines of text that are shown at once
SMALL = 3  # lines that each pane keeps
PATIENCE = 5  # seconds of waiting after which Enter goes on without the output
AGAIN = 100  # exit status: start anew, and add the number of the part
KEYS = {b"\r": "enter", b" ": "enter", b"\x1b[6~": "enter", b"n": "n", b"p": "p", b"q": "q"}
HELP = " Enter: go on   n, p: next, previous part   q: end   A click on a terminal: type there"


class End(Exception):
    """The lab is to end, with this exit status."""


# ---- The lab's text ----------------------------------------------------------

PIECE = re.compile(
    r"^(?:```(?P<tag>\w*)\n(?P<block>(?s:.*?))^```$|#+ (?P<title>.*)$|(?P<fold></?details.*)$"
    r"|(?s:<!--.*?-->)|(?P<text>\S.*(?:\n(?!\s*$|```|[#|<]|- |\d+\. ).*)*))", re.M)
MARKS = ((r"!\[([^]]*)\]\([^)]*\)", r"[figure: \1]"), (r"\[([^]]*)\]\([^)]*\)", r"\1"),
         (r"\*\*(.+?)\*\*", "\x01\\1\x02"), (r"(?<!\w)\*(\w[^*]*)\*", "\x01\\1\x02"),
         (r"`([^`]+)`", "\x03\\1\x04"), (r"^\| (.*) \|$", r"\1"))
ESCAPES = {"\x01": "\x1b[1m", "\x02": "\x1b[22m", "\x03": "\x1b[32m", "\x04": "\x1b[39m"}


class Part:
    """What stands below one heading: steps, and cards of text to show at once, in
    the order of the lab. A card shows what is typed until the first of it is typed."""

    def __init__(self, title):
        self.title = title
        self.items = []
        self.fresh = True  # the next text begins a card

    def steps(self):
        return [item for item in self.items if isinstance(item, labs.Step)]

    def card(self, height=0):
        """The card to which so many lines are added."""
        if self.fresh or len(self.items[-1].lines) + height > CARD:
            self.items.append(SimpleNamespace(lines=[], typed=[]))
        self.fresh = False
        return self.items[-1]

    def say(self, text):
        """Adds a paragraph. Bold and code are marked in it, by one column each."""
        text = " ".join(text.split())
        item = re.match(r"- |\d+\. |\||", text)[0]
        for mark, plain in MARKS:
            text = re.sub(mark, plain, text)
        lines = textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False,
                              subsequent_indent=" " * len(item))
        card = self.card(len(lines) + 1)
        card.lines += ([""] if card.lines and not item else []) + lines

    def show(self, block):
        for start in range(0, len(block), 2 * CARD):
            some = ["  " + line for line in block[start: start + 2 * CARD]]
            self.card(len(some)).lines += some


def read_script(path, steps):
    """The parts of a lab. `steps` are those that can be done here. What a fold says
    before its first step, the answer, comes after its steps."""
    with open(path, encoding="utf-8") as file:
        text = file.read().expandtabs(8)
    parts, held, holding = [], [], False
    for piece in PIECE.finditer(text):
        if piece["title"]:
            parts.append(Part(piece["title"]))
            continue
        part, fold, block = parts[-1], piece["fold"], (piece["block"] or "").splitlines()
        first = text.count("\n", 0, piece.start()) + 1
        here = [step for step in steps if first <= step.where <= first + piece[0].count("\n")]
        what = []
        if piece["tag"] == "typed":
            part.card().typed += block
        elif piece["tag"] == "mermaid":
            what = [(part.say, f"[figure: {re.sub('([A-Z]).*| .*', '', block[0])} diagram]")]
        elif piece["tag"] not in (None, "console"):
            what = [(part.show, block)]
        elif piece["text"] and not re.match(r"\W*(Tools|Minutes)\b|\|[- |]*$", piece["text"]):
            what = [(part.say, piece["text"])]
        if fold or here:
            holding = bool(fold) and fold != "</details>"
        if holding:
            held, what = held + what, []
        elif (fold or what) and not here:
            held, what = [], held + what
        for add, argument in what:
            add(argument)
        part.items += here
        part.fresh = part.fresh or bool(fold or here)
    return parts


# ---- tmux --------------------------------------------------------------------


class Pane:
    """A pane in which only we read and write."""

    def __init__(self, found, title):
        self.id, path = found.split()
        self.file = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.file)
        self.title(title)

    def title(self, title):
        self.write(f"\x1b]2;{title}\x07")

    def write(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.file, data):]

    def keys(self):
        return os.read(self.file, 4096) if select.select([self.file], [], [], 0)[0] else b""


class Screen:
    """A tmux server of our own, which reads nobody's configuration."""

    NEW = ("-d", "-PF", "#{pane_id} #{pane_tty}", "exec sleep infinity")

    def __init__(self, directory):
        os.environ.pop("TMUX", None)
        os.environ["SHELL"] = "/bin/sh"
        self.command = ["tmux", "-S", os.path.join(directory, "tmux"), "-f", "/dev/null", "-u"]
        self.client = None
        self.text = Pane(self.tmux("new-session", "-x", str(WIDTH), "-y", str(HEIGHT), *self.NEW),
                         "")
        for option, value in (
                ("mouse", "on"), ("history-limit", "20000"), ("status-left", HELP),
                ("status-left-length", str(WIDTH)), ("status-right", ""),
                ("window-status-format", ""), ("window-status-current-format", ""),
                ("status-style", "reverse"), ("pane-border-status", "top"),
                ("pane-border-format", " #[bold]#{pane_title}#[nobold] ")):
            self.tmux("set", "-g", option, value)

    def tmux(self, *words):
        return subprocess.run([*self.command, *words], check=True, capture_output=True,
                              text=True).stdout.strip()

    def stack(self, panes):
        """Shows these panes below the text, and no others."""
        for pane in self.tmux("list-panes", "-F", "#{pane_id}").split()[1:]:
            self.tmux("break-pane", "-d", "-s", pane)
        for above, pane in zip([self.text, *panes], panes):
            self.tmux("join-pane", "-d", "-v", "-s", pane.id, "-t", above.id)
            self.tmux("select-layout", "-E")

    def attach(self):
        self.client = subprocess.Popen([*self.command, "attach"])
        while not self.tmux("list-clients") and not self.is_over(0.05):
            pass  # keys that are pressed before would be lost

    def is_over(self, seconds):
        """Whether the client has ended, and with it what a person sees."""
        try:
            return self.client is not None and self.client.wait(seconds) is not None
        except subprocess.TimeoutExpired:
            return False

    def end(self):
        subprocess.run([*self.command, "kill-server"], check=False, stderr=subprocess.DEVNULL)
        self.is_over(labs.BOUND)


# ---- Playing -----------------------------------------------------------------


class Terminal(labs.Terminal):
    """A terminal of the runner that a pane shows."""

    def __init__(self, player, name, directory):
        super().__init__(name, directory)
        self.player = player
        self.held = ""  # may be the beginning of a prompt
        self.pane = Pane(player.screen.tmux("new-window", *player.screen.NEW), name)

    def read(self, seconds):
        keys = self.pane.keys()
        if keys:
            self.child.send(keys.decode(errors="replace"))
            for terminal in self.player.terminals.values():
                terminal.loose = True  # what comes now is not of the lab alone
        length = len(self.pending)
        try:
            came = super().read(seconds)
        except labs.LabError:  # somebody has left the shell: here is a new one
            super().__init__(self.name, self.player.directory)
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
        self.terminal_class = functools.partial(Terminal, self)
        blocks, skipped = lab.plan()
        self.parts = read_script(lab.path, sum(blocks, []))
        self.skipped = dict(skipped)
        self.names = list(dict.fromkeys(step.terminal for part in self.parts
                                        for step in part.steps() if step.terminal))
        self.marks = {}  # of the prompts: $ or #
        self.part = self.parts[0]
        self.begun = False  # Enter was pressed in this part
        self.hurry = False  # do the rest of the part without waiting for Enter
        self.card = self.part.card()
        self.stacked = []  # the names of the terminals that are seen
        self.rows = []
        self.note = ""
        self.notes = []

    def arrange(self, step=None):
        """Gives lines to the text, then to the terminal that is typed into, then to
        those that show something in this part, in turns, and what is left to all."""
        panes = [self.screen.text] + [self.terminals[name].pane for name in self.stacked]
        text = len(self.card.lines) + len(self.card.typed) + bool(self.note) + 1
        part = {1 + index: 2 + sum(len(each.shown()) for each in self.part.steps()
                                   if each.terminal == name)
                for index, name in enumerate(self.stacked)}
        active = {1 + self.stacked.index(step.terminal): 2 + len(step.shown())} if step else {}
        window = int(self.screen.tmux("display", "-p", "#{window_height}"))
        rows = [SMALL] * len(panes)
        left = window - sum(rows) - len(panes)
        for wanted in ({0: text}, active, part, dict.fromkeys(part or [0], window)):
            while left > 0 and (few := [pane for pane in wanted if rows[pane] < wanted[pane]]):
                for pane in few[:left]:
                    rows[pane] += 1
                    left -= 1
        if [window, *rows] != self.rows:
            self.rows = [window, *rows]
            for pane, lines in zip(panes[:-1], rows):
                self.screen.tmux("resize-pane", "-t", pane.id, "-y", str(lines))

    def draw(self, hint):
        width = os.get_terminal_size(self.screen.text.file).columns
        below = ["\x1b[31m" + self.note + "\x1b[39m"] if self.note else []
        if width < WIDTH:
            hint = f"(Too narrow: {width} columns instead of {WIDTH}.)  {hint}"
        below.append("\x1b[1;7m " + hint[: width - 3] + " \x1b[0m")
        lines = self.card.lines + ["  " + line for line in self.card.typed]
        lines = lines[: self.rows[1] - len(below)] + below
        text = "\r\n ".join(lines)
        for mark, escape in ESCAPES.items():
            text = text.replace(mark, escape)
        self.screen.text.write("\x1b[?25l\x1b[0m\x1b[H\x1b[2J " + text)

    def tell(self, error):
        """Something came otherwise than printed."""
        self.notes.append(str(error))
        self.note = self.notes[-1].split("\n")[0][: WIDTH - 25] + ": not as printed."

    def begin(self, number):
        self.part, self.begun, self.note = self.parts[number], False, ""
        steps = self.part.steps()
        self.marks.update((step.terminal, step.kind) for step in steps if step.kind in "$#")
        names = [name for name in self.names if name in (step.terminal for step in steps)]
        for name in names:
            self.open(name)
        if names and names != self.stacked:
            self.stacked, self.rows = names, []
            self.screen.stack([self.terminals[name].pane for name in names])
        if self.part.title in self.skipped:
            self.note = f"This part is not played: {self.skipped[self.part.title]} is missing."
        titles = dict.fromkeys([self.parts[0].title, self.part.title])
        self.screen.text.title(f"{': '.join(titles)} ({number + 1} of {len(self.parts)})")

    def pump(self, seconds):
        """Waits so long at most, for a key or for something to show."""
        files = [self.screen.text.file]
        for terminal in self.terminals.values():
            files += [terminal.pane.file, terminal.child.child_fd]
        select.select(files, [], [], seconds)
        for terminal in self.terminals.values():
            terminal.read(0)
        if self.screen.is_over(0):
            raise End(0)

    def key(self):
        """The key that was pressed in the text, if any. Obeys q, p and n."""
        keys = self.screen.text.keys()
        key = KEYS.get(keys) or KEYS.get(keys[-1:], "")
        if key == "q":
            raise End(bool(self.notes))
        if key == "p":
            raise End(AGAIN + max(0, self.parts.index(self.part) - (not self.begun)))
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

    def enter(self, at, hint):
        """Waits for Enter, except in a part that is done quickly."""
        if self.hurry:
            return
        self.screen.tmux("set", "-g", "@at", at, ";", "set", "-g", "@numbers", json.dumps(
            self.numbers.known), ";", "wait-for", "-S", "ready")
        size = None
        while self.key() != "enter" and not self.hurry:
            if size != (size := os.get_terminal_size(self.screen.text.file)):
                self.arrange()
                self.draw(hint)
            self.pump(0.5)
        self.begun = True

    def type(self, terminal, step):
        terminal.read(0)
        if terminal.at_prompt():
            terminal.running = ""  # somebody may have ended it
        if terminal.output() and not terminal.loose:
            self.tell(self.mismatch(step, [], terminal.output()))
            terminal.loose = True
        super().type(terminal, step)

    def act(self, step):
        """Does a step, after Enter if a person would do something."""
        if step.kind == "edit":
            self.enter("edit", "Enter makes this edit")
        elif step.text and step.kind in "$#>":
            verb = "presses" if step.text in labs.KEYS else "types"
            self.enter("type", f"Enter {verb}  {self.numbers.in_command(step.typed()[0])}")
            self.card.typed = []
            self.arrange(step)
            self.draw("...")
        try:
            self.do(step)
        except labs.LabError as error:
            self.tell(error)
            if step.terminal in self.terminals:
                self.terminals[step.terminal].loose = True  # told once is enough

    def play(self, first):
        for number, part in enumerate(self.parts):
            self.begin(number)
            self.hurry = number < first
            if number == first > 0:
                self.note = "All terminals and files are new. The parts before were done again."
            for index, item in enumerate(part.items):
                if isinstance(item, labs.Step):
                    self.act(item)
                    continue
                if index:
                    self.enter("text", "Enter: read on")
                self.card = item
            if part is not self.parts[-1]:
                self.enter("part", f"Enter: next part, \"{self.parts[number + 1].title}\"")
        while True:
            self.hurry = False
            self.enter("end", "The end.  q: end   p: the last part again")


# ---- Starting and ending -----------------------------------------------------


def inside(lab, options):
    """Plays the lab, in its namespaces. Returns the exit status."""
    labs.copy_sources(os.path.join(options.directory, "lab"))
    screen = Screen(options.directory)
    player = Player(lab, os.path.join(options.directory, "lab"), screen, options.delay)
    try:
        screen.attach()
        player.play(options.part - 1)
    except End as end:
        return end.args[0]
    except (OSError, subprocess.CalledProcessError):
        if not screen.is_over(5):
            raise
        return 0  # somebody has ended tmux
    finally:
        for terminal in player.terminals.values():
            terminal.end()
        screen.end()
        for note in player.notes:
            print(f"{lab.name}, {note}")


def run(command, directory):
    with subprocess.Popen(command) as child:
        try:
            return child.wait()
        finally:
            if child.poll() is None:  # we are to end: it ends in order, without tmux
                subprocess.run(["tmux", "-S", os.path.join(directory, "tmux"), "kill-server"],
                               check=False, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description="Play a lab, live, in tmux.")
    parser.add_argument("lab", help="01, 02 ... or a file")
    parser.add_argument("--part", type=int, default=1, help="begin with this part")
    parser.add_argument("--delay", type=float, default=0.03,
                        help="seconds between two letters (0.03)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    lab = labs.Lab(labs.find_labs([options.lab])[0])
    if options.inside:
        if options.inside == "namespaces":
            labs.bring_loopback_up()
        sys.exit(inside(lab, options))

    missing = lab.missing(lab.parts[0])
    missing += [] if shutil.which("tmux") else ["tmux"]
    missing += [] if importlib.util.find_spec("pexpect") else ["python3-pexpect"]
    if missing:
        print(f"SKIP {lab.name}: missing {', '.join(missing)}")
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
