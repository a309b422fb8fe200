#!/usr/bin/env python3
"""Prints the labs: a PDF for each, and none longer than two pages, lab 15 four.

    tests/labs/handouts.py              all of lab-notes/NN-*.md
    tests/labs/handouts.py FILE.md ...  only these

build/handouts/NN-topic.pdf is what an instructor hands out: A4, the diagrams
drawn, the answers left out. A lab of three pages is not done
in the time that it promises, so it fails.

pandoc reads the Markdown, chromium prints, and pdfinfo counts; the diagrams are
those that tests/labs/diagrams.py has drawn before. Where a program is missing all are
skipped; with CI=true in the environment that is a failure.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

import diagrams

HANDOUTS = os.path.join(diagrams.ROOT, "build", "handouts")
PAGES_MOST = 2
MORE_PAGES = {"15-find-the-race.md": 4,          # five reports, whole
              "18-write-your-own-server.md": 8}  # it takes several sessions
PRINT_SECONDS = 60  # about 2
PACKAGES = {"pandoc": "pandoc", "pdfinfo": "poppler-utils"}  # and fonts-dejavu

STYLE = """
<style>
@page { size: A4; margin: 12mm 16mm; }
body { font: 9.6pt/1.27 "DejaVu Sans Condensed", "DejaVu Sans", sans-serif;
       margin: 0 !important; padding: 0 !important; max-width: none !important; }
h1 { font-size: 14pt; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 2.5mm 0 1mm; break-after: avoid; }
p, ul, ol, table { margin: 1.2mm 0; }
ul, ol { padding-left: 6mm; }
code { font: 8.3pt "DejaVu Sans Mono", monospace; }
pre { line-height: 1.15; margin: 1.2mm 0; padding: 1mm 2mm; background: #f2f2f2;
      white-space: pre-wrap; overflow-wrap: anywhere; }
pre code { font-size: 7.6pt; }
table { border-collapse: collapse; }
td, th { border-bottom: .2mm solid #bbb; padding: .3mm 2mm; text-align: left; }
details { display: none; }
img { display: block; margin: 1mm auto; max-width: 100%; max-height: 72mm; }
</style>
"""


def programs():
    """chromium's path, if all is there that printing takes."""
    for program, package in PACKAGES.items():
        if not shutil.which(program):
            raise diagrams.Missing(f"{program}: apt-get install {package}")
    return diagrams.chromium()


def with_drawings(path):
    """The document's Markdown, with a drawing for each diagram."""
    if diagrams.has_diagrams(path):
        path = diagrams.drawn(path)
        if not os.path.exists(path):
            raise diagrams.Missing(f"{path}: make diagrams")
    with open(path, encoding="utf-8") as document:
        return document.read()


def pages(path, browser, directory):
    """Prints a document, and counts."""
    name = os.path.splitext(os.path.basename(path))[0]
    page = os.path.join(directory, name + ".html")
    pdf = os.path.join(HANDOUTS, name + ".pdf")
    style = os.path.join(directory, "style.html")
    with open(style, "w", encoding="utf-8") as file:
        file.write(STYLE)
    subprocess.run(
        ["pandoc", "--from=gfm", "--to=html5", "--self-contained",
         "--metadata", "pagetitle=" + name, "--include-in-header", style,
         "--resource-path", f"{os.path.dirname(path)}:{diagrams.DRAWN}", "--output", page],
        input=with_drawings(path), text=True, check=True, timeout=PRINT_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    subprocess.run(
        [browser, "--headless", *sandbox, "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-quic",
         "--user-data-dir=" + os.path.join(directory, "browser"),
         "--no-pdf-header-footer", "--print-to-pdf=" + pdf, "file://" + page],
        check=True, timeout=PRINT_SECONDS, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = subprocess.run(["pdfinfo", pdf], check=True, text=True,
                          stdout=subprocess.PIPE, timeout=PRINT_SECONDS).stdout
    return int(re.search(r"^Pages: *(\d+)", told, re.M)[1])


def print_all(paths):
    """Returns how many passed and failed."""
    browser = programs()
    os.makedirs(HANDOUTS, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="handouts-",
                                     ignore_cleanup_errors=True) as directory:
        # A check that can't fail is none: three pages must be counted as three.
        long = os.path.join(directory, "three-pages.md")
        with open(long, "w", encoding="utf-8") as file:
            file.write("line\n\n" * 120)
        for path in [long, *paths]:
            name = os.path.basename(path)
            try:
                count = pages(path, browser, directory)
            except subprocess.SubprocessError as error:
                print(f"FAIL {name}: {error}\n{getattr(error, 'output', '')}")
                failed += 1
                continue
            right = count > PAGES_MOST if path == long else \
                count <= MORE_PAGES.get(name, PAGES_MOST)
            print(f"{'ok  ' if right else 'FAIL'} {name}: {count} pages", flush=True)
            failed += not right
    os.remove(os.path.join(HANDOUTS, "three-pages.pdf"))
    return len(paths) + 1 - failed, failed


def main():
    """Returns the exit status."""
    paths = [os.path.abspath(path) for path in sys.argv[1:]] or sorted(glob.glob(
        os.path.join(diagrams.ROOT, "lab-notes", "[0-9][0-9]-*.md")))
    return diagrams.report(len(paths), "labs", lambda: print_all(paths))


if __name__ == "__main__":
    sys.exit(main())
