#!/usr/bin/env python3
"""Holds lab-notes/TEACHING.md and GLOSSARY.md against the labs: `make lessons`.

Each lab has a section for its teacher, with the lab's minutes and a vote that a line of
its transcripts decides. In the labs, read in their order, each term of the glossary is a
link to it where it comes first.
"""
import pathlib
import re
import sys

NOTES = pathlib.Path(__file__).parents[2] / "lab-notes"
LABS = {path.name: path.read_text("utf-8") for path in sorted(NOTES.glob("[0-9][0-9]-*.md"))}
PARTS = ["Objective", "Misconception", "Minutes", "Vote", "Short of time", "What breaks live"]
FENCED = r"^```(\w*)\n(.*?)^```$"
WIDTH = 100
NOT_PROSE = FENCED + r"|^(?:#|\W*Tools:)[^\n]*|<!--.*?-->|`[^`]*`"
faults = []


def check(right, *words):
    if not right:
        faults.append(": ".join(words))


def plain(line):
    """Line numbers of the sources move, and columns may be wider."""
    return " ".join(re.sub(r"\.c:\d+", ".c", line).split())


def check_teaching(teaching, table):
    sections = dict(re.findall(r"^## (\d\d .*)\n((?:(?!## ).*\n)*)", teaching, re.M))
    titles = {name: lab[2:lab.index("\n")].replace(" · ", " ") for name, lab in LABS.items()}
    check(list(sections) == list(titles.values()), "TEACHING.md", "its sections are not the labs",
          *sections.keys() ^ set(titles.values()))
    for name, title in titles.items():
        text = sections.get(title, "")
        check(re.findall(r"^\*\*(.*)\.\*\* \S", text, re.M) == PARTS, title, "not all parts")
        minutes = re.search(r"Minutes: (.*)", LABS[name])[1]
        check(f"**Minutes.** {minutes}\n" in text, title, "other minutes than the lab", minutes)
        check(f"]({name}) | {minutes.split(',')[0]} |" in table, "README.md", name, minutes)
        shown = {plain(line) for tag, block in re.findall(FENCED, LABS[name], re.M | re.S)
                 if tag == "console" for line in block.split("\n")}
        for letter, line in re.findall("^([a-d]) is right: `(.*)`$", text, re.M) or [("?", "?")]:
            check(f"\n- {letter}) " in text and plain(line) in shown, title, "vote", letter, line)


def check_glossary(glossary):
    entries = re.findall(r'^- <a id="(.+)"></a>\*\*(.+?)\*\*', glossary, re.M)
    prose = re.sub(NOT_PROSE, "", "\n".join(LABS.values()), flags=re.M | re.S)
    unknown = set(re.findall(r"GLOSSARY\.md#([\w-]+)", prose)) - {anchor for anchor, _ in entries}
    check(not unknown, "GLOSSARY.md", "a lab links to what it does not explain", *unknown)
    for anchor, names in entries:
        words = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names.split(", "))
        first = re.search(rf"(?<![\w-])({words})(e?s)?(?![\w-])", prose,
                          0 if names.isupper() else re.I)
        link = re.search(rf"\[[^]]*\]\(GLOSSARY\.md#{anchor}\)", prose)
        check(first, "GLOSSARY.md", "no lab uses", names)
        check(not first or link and link.start() < first.start() < link.end(), "GLOSSARY.md",
              names, "no link where it comes first", first and plain(prose[first.start() - 30:][:70]))


def check_width():
    for name, lab in LABS.items():
        blocks = (block for tag, block in re.findall(FENCED, lab, re.M | re.S) if tag == "console")
        for line in "".join(blocks).split("\n"):
            check(len(re.sub(r"^\w+\| ", "", line.expandtabs(8))) <= WIDTH, name, "too wide", line)


check_width()
check_teaching(*((NOTES / name).read_text("utf-8") for name in ("TEACHING.md", "README.md")))
check_glossary((NOTES / "GLOSSARY.md").read_text("utf-8"))
print("\n".join([*faults, f"lessons: {len(LABS)} labs, {len(faults)} faults"]))
sys.exit(bool(faults) or not LABS)
