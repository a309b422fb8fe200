#!/usr/bin/env python3
"""Prints each lab twice: a worksheet for students, and the teacher's edition.

    tests/labs/handouts.py              all of lab-notes/NN-*.md
    tests/labs/handouts.py FILE.md ...  only these

build/handouts/student/NN-topic.pdf shows what to type, and has ruled space for what the
reader predicts, sees and explains. Of a fold it has no word, but for hints and drawings:
they stand at the end. build/handouts/teacher/NN-topic.pdf has everything, and what
lab-notes/TEACHING.md says of the lab.

Then it reads the PDFs. The student's has no line of output that only a transcript has, all
that is typed, and lines to write on for each **Predict**. The teacher's has each line of
output. Each page has its number, the smallest type has more than 7 pt, and no lab is longer
than PAGES allows. Each edition is also checked as the other one, and must fail as that.

pandoc reads the Markdown, chromium prints, poppler-utils read; the diagrams are those
that tests/labs/diagrams.py has drawn before. Where a program is missing all are skipped;
with CI=true in the environment that is a failure.
"""

import concurrent.futures
import glob
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile

import diagrams
import labs

NOTES = os.path.join(diagrams.ROOT, "lab-notes")
HANDOUTS = os.path.join(diagrams.ROOT, "build", "handouts")
EDITIONS = {"student": "worksheet", "teacher": "teacher's edition"}
PAGES_MOST = (2, 3)  # of the student's; of the teacher's, with half a page of TEACHING.md
PAGES = {"01": (3, 3),  # its drawing fills half a page
         "11": (3, 3), "12": (3, 4),  # a connection, segment by segment
         "14": (3, 3), "16": (4, 5), "17": (3, 4), "19": (3, 4), "20": (4, 6), "21": (3, 4),
         "15": (3, 6),  # five reports, whole
         "18": (8, 18)}  # it takes eight sessions; the teacher's has all the programs
# Height of a line to write on, and type: the largest that the number of pages allows.
SIZES = (("7mm", "9.4pt"), ("6.2mm", "9pt"), ("5.5mm", "8.6pt"))
TYPE_LEAST = 7  # points
DRAWING_SCALE = 0.62  # Mermaid's type has 16 px: 7.4 pt on paper
SECRET = 8  # a line of output with fewer characters is not looked for
PRINT_SECONDS = 60  # about 2
PACKAGES = {"pandoc": "pandoc", "pdftotext": "poppler-utils"}  # and fonts-dejavu

NOTATION = ("*Terminals, all in the project's directory: {}. `name$`: type this at the shell there; "
            "`name#`: as root; `name>`: into the program that runs there; `^C`: press Ctrl-C. Numbers of "
            "processes and ports: type your own.*")

STYLE = """<style>
@page { size: A4; margin: 13mm 13mm 12mm; font: 7.5pt "DejaVu Sans Condensed", sans-serif;
        @top-left { content: "TITLE"; } @top-right { content: "EDITION"; }
        @bottom-right { content: counter(page) " / " counter(pages); } }
html, body { margin: 0 !important; padding: 0 !important; max-width: none !important;
             background: #fff !important; }
body { font: TYPE/1.25 "DejaVu Sans Condensed", "DejaVu Sans", sans-serif; }
h1 { font-size: 14pt; margin: 0 0 1mm; }
h2, h3 { font-size: 11pt; margin: 2.5mm 0 1mm; break-after: avoid; }
h2 + p { break-after: avoid; }
h4 { font-size: inherit; margin: 1mm 0; break-after: avoid; }
p, ul, ol, table { margin: 1.2mm 0; orphans: 2; widows: 2; }
ul, ol { padding-left: 6mm; }
a { color: inherit; text-decoration: none; }
code { font: 8pt "DejaVu Sans Mono", monospace; }
pre, pre code { font: 7.5pt/1.15 "DejaVu Sans Mono", monospace; }
pre { margin: 1.2mm 0; padding: 1mm 2mm; background: #f2f2f2; white-space: pre-wrap;
      overflow-wrap: anywhere; break-inside: avoid; }
table { border-collapse: collapse; }
td, th { border-bottom: .2mm solid #bbb; padding: .3mm 2mm; text-align: left; }
img { display: block; margin: 1mm auto; max-width: 100%; break-inside: avoid; }
.lines { break-inside: avoid; break-before: avoid; margin-bottom: 1.5mm; font-size: 8pt; }
.lines div { height: RULE; border-bottom: .2mm solid #888; display: flex; align-items: end; }
.lines b { flex: 1; font-weight: normal; }
.answer { border-left: .8mm solid #999; padding-left: 2.5mm; margin: 1.2mm 0; }
.teaching { border: .3mm solid #999; padding: 0 2.5mm; }
</style>"""


def pieces(text):
    """Cuts a lab: ("fold", summary, pieces), ("words", "", lines of a paragraph or of one
    question) and (tag of a block, the block in Markdown, its lines)."""
    found = all_of_it = []
    lines = iter(re.sub(r"<!--.*?-->\n?", "", text, flags=re.S).split("\n"))
    for line in lines:
        fold = re.match(r"<details><summary>(.*)</summary>", line)
        if line.startswith("```"):
            inside = list(iter(lambda: next(lines), "```"))
            found.append((line[3:].strip(), "\n".join(["", line, *inside, "```", ""]), inside))
        elif fold:
            found = []
            all_of_it.append(("fold", fold[1], found))
        elif line == "</details>":
            found = all_of_it
        else:
            if not found or found[-1][0] != "words" or re.match(r"#|\d+\. |$", line):
                found.append(("words", "", []))
            found[-1][2].extend([line] * bool(line))
    return all_of_it


def ruled(*labels):
    """Lines to write on, each with its label, or with one for each of its parts."""
    rows = ("".join(f"<b>{half}</b>" for half in label.split("|")) for label in labels)
    return '\n<div class="lines">' + "".join(f"<div>{row}</div>" for row in rows) + "</div>\n"


def listing(lines):
    """Pairs: a line, and whether it is typed. Then it is bold, but for its prompt."""
    shown = []
    for line, typed in lines:
        prompt, space, rest = line.partition(" ") if typed else (line, "", "")
        shown.append(html.escape(prompt, False) +
                     (space and f" <b>{html.escape(rest, False)}</b>"))
    return "\n<pre>" + "\n".join(shown) + "</pre>\n"


def transcript(lines, terminals, output):
    """A transcript, with its output or without."""
    shown = []
    for step in labs.parse_transcript(lines, 1, terminals):
        typed = step.typed()
        came = step.shown()[len(typed):] if output else []
        shown += [(line, True) for line in typed] + [(line, False) for line in came]
    return listing(shown)


def sized(paragraph):
    """The paragraph, with its drawings as large as their type has to be. Plots that stand
    side by side stand one below the other on paper."""
    def image(found):
        room = diagrams.DRAWN if found[0].startswith("![diagram]") else NOTES
        with open(os.path.join(room, found[1]), encoding="utf-8") as file:
            width = float(re.search(r'viewBox="\S+ \S+ (\S+)', file.read())[1])
        return f'<img src="{found[1]}" style="width: {width * DRAWING_SCALE}px">'
    text = "\n".join(line.strip("| -") if "![" in "".join(paragraph) else line
                     for line in paragraph)
    return re.sub(r"!\[[^]]*\]\(([^)]*\.svg)\)(?: \|)?", image, text) + "\n"


def saw(inside):
    """Lines for what is seen and why: more for a longer answer."""
    came = sum(len(lines) for kind, _, lines in inside if kind == "console")
    words = sum(len(line) for kind, _, lines in inside if kind == "words" for line in lines)
    return ruled("I saw", *[""] * min(came // 15, 2), "because", *[""] * min(words // 500, 2))


def student(cut, terminals):
    """A lab as a worksheet."""
    out, last, heading, due = [], [], "", False  # due: "I saw" has to follow
    for kind, tag, inside in [*cut, ("words", "", ["##"])]:
        text = sized(inside) if kind == "words" else ""
        if due and (kind == "fold" and tag != "Hint" or re.match(r"##|\*\*Predict", text)):
            out.append(saw(inside if kind == "fold" else []))
            due = False
        if kind == "fold":
            what = "hint" if tag == "Hint" else "drawing"
            kept = [sized(part[2]) for part in inside if part[0] == "words" and
                    (tag == "Hint" or "![" in "".join(part[2]))]
            if kept:
                out.append(f"\n*The {what} is at the end.*\n")
                last += [f"\n#### {heading}\n", *kept]
        elif kind == "console":
            out += [transcript(inside, terminals, False), ruled("", "")]
        elif kind == "typed":
            out.append(listing([(line, True) for line in inside]))
        else:
            out.append(tag or text)
            if text.startswith("##"):
                heading = text.strip("# \n")
            elif re.match(r"\d+\. ", text):
                out.append(ruled("", ""))
            elif "**Predict" in text:
                out.append(ruled("I predict", "because"))
                due = True
    return out[:-1] + ["\n## To look at later\n", *last] * bool(last)


def teacher(cut, terminals):
    """A lab with all that it says."""
    out = []
    for kind, tag, inside in cut:
        if kind == "fold":
            title = "" if tag.startswith("What comes") else f"**{tag}**\n"
            out += ['\n<div class="answer">\n', title, *teacher(inside, terminals), "\n</div>\n"]
        elif kind == "console":
            out.append(transcript(inside, terminals, True))
        elif kind != "typed":  # that is in the transcript
            out.append(tag or sized(inside))
    return out


def document(path, edition):
    """An edition of a lab, as Markdown with HTML, and its title."""
    drawn = diagrams.drawn(path) if diagrams.has_diagrams(path) else path
    if not os.path.exists(drawn):
        raise diagrams.Missing(f"{drawn}: make diagrams")
    with open(drawn, encoding="utf-8") as file:
        title, _, text = file.read().partition("\n")
    teaching = ""
    if os.path.exists(os.path.join(NOTES, "TEACHING.md")):
        with open(os.path.join(NOTES, "TEACHING.md"), encoding="utf-8") as file:
            teaching = "".join(re.findall(rf"^## {os.path.basename(path)[:2]}\b.*\n([^\0]*?)"
                                          r"(?=^## |\Z)", file.read(), re.M))
    names = list(dict.fromkeys(step.terminal for part in labs.Lab(path).parts
                               for block in part.blocks for step in block if step.terminal))
    terminals = set(names)
    if edition == "student":
        aim = re.findall(r"^\*\*Objective\.\*\*[^\0]*?(?=\n\n|\Z)", teaching, re.M)
        parts = [ruled("Name|Date"), *aim, "", NOTATION.format(", ".join(names)), "", *student(pieces(text), terminals)]
    else:
        parts = [f'\n<div class="teaching">\n\n{teaching}\n\n</div>\n' * bool(teaching),
                 *teacher(pieces(text), terminals)]
    return "\n".join([title, *parts]), title.strip("# ")


def said(command, **more):
    """What a program prints; it must not fail."""
    return subprocess.run(command, check=True, text=True, timeout=PRINT_SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more).stdout


def printed(path, edition, browser, directory):
    """Prints an edition. Returns the text of each page, and its smallest type in points."""
    name = os.path.basename(path)[: -len(".md")]
    pdf = os.path.join(HANDOUTS, edition, name + ".pdf")
    work = os.path.join(directory, edition + name)
    text, title = document(path, edition)
    most = PAGES.get(name[:2], PAGES_MOST)[edition == "teacher"]
    for rule, size in SIZES:
        style = STYLE.replace("TITLE", title).replace("EDITION", EDITIONS[edition])
        with open(work + ".style", "w", encoding="utf-8") as file:
            file.write(style.replace("RULE", rule).replace("TYPE", size))
        said(["pandoc", "--from=gfm", "--to=html5", "--self-contained", "--no-highlight",
              "--metadata", "pagetitle=" + title, "--include-in-header", work + ".style",
              "--resource-path", f"{os.path.dirname(path)}:{diagrams.DRAWN}",
              "--output", work + ".html"], input=text)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        said([browser, "--headless", *sandbox, "--disable-gpu", "--no-first-run",
              "--disable-background-networking", "--disable-quic", "--user-data-dir=" + work,
              "--no-pdf-header-footer", "--print-to-pdf=" + pdf, f"file://{work}.html"],
             stdin=subprocess.DEVNULL)
        pages = said(["pdftotext", "-raw", pdf, "-"]).split("\f")[:-1]
        if len(pages) <= most:
            break
    sizes = re.findall(r'<fontspec [^>]*size="(\d+)"',
                       said(["pdftohtml", "-xml", "-i", "-stdout", "-zoom", "3", pdf]))
    return pages, min(map(int, sizes)) / 3


def flat(text):
    """Without white space: where a line was broken it is another one."""
    return "".join(text.split())


def faults(path, edition, pages, least):
    """What is wrong with a printed edition."""
    lab = labs.Lab(path)
    with open(path, encoding="utf-8") as file:
        source = file.read()
    steps = [step for part in lab.parts for block in part.blocks for step in block
             if step.terminal]
    output = {flat(line) for step in steps for line in step.output} - {"..."}
    typed = {flat(line) for step in steps for line in step.typed()}
    # What all may see: the text outside of the folds, the drawings, what is typed.
    seen = re.sub(r"<details><summary>(?!Hint)[^\0]*?</details>", "", source)
    shown = "\n".join(re.findall(r"```(?:console|typed)\n([^\0]*?)```", seen)).split("\n")
    seen = flat(re.sub(r"```console\n[^\0]*?```", "", seen) + "".join(
        re.findall(r"```mermaid[^\0]*?```", source))) + "".join(typed)
    secret = {line for line in output if len(line) >= SECRET and line not in seen}
    text = flat("\n".join(re.sub(rf"^(\d\d · .*|\d+ / \d+|{EDITIONS[edition]})\n", "", page,
                                 flags=re.M) for page in pages))
    most = PAGES.get(os.path.basename(path)[:2], PAGES_MOST)[edition == "teacher"]
    found = [f"page {number} has no number" for number, page in enumerate(pages, 1)
             if f"\n{number} / {len(pages)}\n" not in page]
    found += [f"{len(pages)} pages, and {most} is the most"] * (len(pages) > most)
    found += [f"type of {least:.1f} pt"] * (least <= TYPE_LEAST)
    found += ["no line of output to look for"] * (not secret)
    if edition == "teacher":
        return found + [f"lacks the output {line}" for line in output if line not in text]
    asked = source.count("**Predict")
    found += [f"{asked} to predict, and {text.count(label)} times {label}"
              for label in ("Ipredict", "Isaw") if text.count(label) != asked]
    found += [f"lacks {line}, to be typed" for line in map(flat, shown)
              if line in typed and line not in text]
    return found + [f"shows the output {line}" for line in secret if line in text]


def print_all(paths):
    """Prints and reads all. Returns how many editions passed and failed."""
    for program, package in PACKAGES.items():
        if not shutil.which(program):
            raise diagrams.Missing(f"{program}: apt-get install {package}")
    browser = diagrams.chromium()
    shutil.rmtree(HANDOUTS, ignore_errors=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="handouts-", ignore_cleanup_errors=True) \
            as directory, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for edition in EDITIONS:
            os.makedirs(os.path.join(HANDOUTS, edition))
        tasks = {(path, edition): pool.submit(printed, path, edition, browser, directory)
                 for path in paths for edition in EDITIONS}
        for (path, edition), task in tasks.items():
            try:
                pages, least = task.result()
                found = faults(path, edition, pages, least)
                # A check that can't fail is none.
                other, = EDITIONS.keys() - {edition}
                if not any("output" in fault for fault in faults(path, other, pages, least)):
                    found.append(f"passes as the {other}'s, too")
            except (subprocess.SubprocessError, labs.LabError, OSError) as error:
                pages, found = [], [f"{error}\n{getattr(error, 'output', '')}"]
            print("\n    ".join([f"{'FAIL' if found else 'ok  '} {edition}/"
                                 f"{os.path.basename(path)}: {len(pages)} pages", *found]),
                  flush=True)
            failed += bool(found)
    return len(tasks) - failed, failed


def main():
    """Returns the exit status."""
    paths = [os.path.abspath(path) for path in sys.argv[1:]] or \
        sorted(glob.glob(os.path.join(NOTES, "[0-9][0-9]-*.md")))
    return diagrams.report(2 * len(paths), "editions of labs", lambda: print_all(paths))


if __name__ == "__main__":
    sys.exit(main())
