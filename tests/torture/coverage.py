#!/usr/bin/python3
"""What all tests together reached of the three sources, by gcov's counts.

Fails if less than so many percent of a file's lines were run, or if the table in
tests/README.md, "What no test reaches", and the branches that were never taken
are not the same: one row for each of them, with the function, and in backticks
a piece of the line that the branch is in.

    tests/torture/coverage.py COUNTS PERCENT      COUNTS is what gcovr --json wrote
"""

import json
import pathlib
import re
import sys

README = "tests/README.md"
FILES = ("server.c", "handler.c", "client.c")
ROW = re.compile(r"^\| `(\w+\.c)` \| `(\w+)\(\)` \| `([^`]+)`", re.MULTILINE)


def read_rows():
    return ROW.findall(pathlib.Path(README).read_text("utf-8"))


class Source:
    def __init__(self, counts):
        self.name = counts["file"]
        self.lines = [line for line in counts["lines"] if not line.get("gcovr/noncode")]
        self.starts = sorted((function["lineno"], function["name"])
                             for function in counts["functions"])
        self.text = pathlib.Path(self.name).read_text("utf-8").splitlines()

    def place(self, line):
        """The function that a line is in, its number, and its text."""
        number = line["line_number"]
        function = [name for start, name in self.starts if start <= number][-1]
        return function, number, self.text[number - 1].strip()

    def percent_of_lines(self):
        return 100 * sum(line["count"] > 0 for line in self.lines) / len(self.lines)

    def percent_of_branches(self):
        branches = [branch for line in self.lines for branch in line["branches"]]
        return 100 * sum(branch["count"] > 0 for branch in branches) / len(branches)

    def never_run(self):
        return [self.place(line) for line in self.lines if line["count"] == 0]

    def never_taken(self):
        """The place of each such branch: twice, where a line has two."""
        return [self.place(line) for line in self.lines for branch in line["branches"]
                if branch["count"] == 0]


def main(path, least):
    files = json.loads(pathlib.Path(path).read_text("utf-8"))["files"]
    sources = {counts["file"]: Source(counts) for counts in files}
    failures = [f"no counts of {name}" for name in FILES if name not in sources]
    rows = read_rows()
    for source in sources.values():
        print(f"{source.name}: {source.percent_of_lines():.1f} % of lines, "
              f"{source.percent_of_branches():.1f} % of branches")
        if source.percent_of_lines() < least:
            failures.append(f"{source.name}: less than {least} % of lines")
        for function, number, text in source.never_run():
            print(f"  never run: {source.name}:{function}:{number}: {text}")
        for function, number, text in source.never_taken():
            where = f"{source.name}:{function}:{number}: {text}"
            print(f"  never taken: {where}")
            row = next((row for row in rows
                        if row[:2] == (source.name, function) and row[2] in text), None)
            if row:
                rows.remove(row)
            else:
                failures.append(f"never taken, and not in {README}: {where}")
    failures += [f"in {README}, but taken: {name}:{function}: {piece}"
                 for name, function, piece in rows]
    for failure in failures:
        print(f"coverage: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
