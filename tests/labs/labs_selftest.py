#!/usr/bin/env python3
"""Tests the lab runner: a right transcript passes, a wrong one fails.

Each test writes a small lab, gives it to labs.py and looks at the exit status
and at the words. Most need no more than bash, so this takes seconds.
"""
import os
import signal
import subprocess
import sys
import tempfile
import unittest

RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "labs.py")


def run(*labs, bound, ci="false", show=False):
    """Runs labs, given as texts. Returns the exit status and all words."""
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for number, text in enumerate(labs, 1):
            files.append(os.path.join(directory, f"{number:02}-test.md"))
            with open(files[-1], "w", encoding="utf-8") as file:
                file.write(text)
        done = subprocess.run(
            [sys.executable, RUNNER] + ["--show"] * show + files, check=False,
            env=dict(os.environ, LABS_BOUND=bound, CI=ci), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120)
        return done.returncode, done.stdout


def console(*lines):
    """A lab of one block."""
    return "\n".join(["# A lab", "", "```console", *lines, "```", ""])


class RunnerTest(unittest.TestCase):
    def lab_passes(self, *labs, count="1 passed, 0 failed, 0 skipped", bound="20", **options):
        """The labs, given as texts, pass. Returns what was said."""
        status, words = run(*labs, bound=bound, **options)
        self.assertEqual(status, 0, words)
        self.assertTrue(words.endswith(count + "\n"), words)
        return words

    def lab_fails(self, lab, *said, bound="5", **options):
        """The lab fails, and says all of this."""
        status, words = run(lab, bound=bound, **options)
        self.assertEqual(status, 1, words)
        for each in ("0 passed, 1 failed, 0 skipped", *said):
            self.assertIn(each, words)

    def passes(self, *lines, **options):
        return self.lab_passes(console(*lines), **options)

    def fails(self, *lines, said=(), **options):
        self.lab_fails(console(*lines), *said, **options)


class Typed(RunnerTest):
    """What a reader types stands above the fold; what comes stands in it."""

    LAB = """# A lab

```typed
a$ echo 10001
{}
```

<details><summary>What comes</summary>

```console
a$ echo 10001
10001
a$ cat
a> ^D
```
<!-- holds: 10001 {} 20002 -->

</details>
"""

    def test_the_same_lines_pass(self):
        self.lab_passes(self.LAB.format("a$ cat\na> ^D", "<"))

    def test_another_line_fails(self):
        self.lab_fails(self.LAB.format("a$ cat", "<"), "line 3: not what is typed")

    def test_a_relation_fails(self):
        self.lab_fails(self.LAB.format("a$ cat\na> ^D", "="), "10001 = 20002 does not hold")


class Output(RunnerTest):
    def test_right_output_passes(self):
        self.passes("a$ echo one; echo two", "one", "two")

    def test_no_output_passes(self):
        self.passes("a$ true", "a$ true")

    def test_wrong_output_fails_with_a_diff(self):
        self.fails("a$ echo one; echo two", "one", "three", said=(
            "    -three\n    +two\n", "     one\n", "line 4, terminal a: `a$ echo one; echo two`"))

    def test_missing_output_fails(self):
        self.fails("a$ echo one", "one", "two")

    def test_the_prompt_may_come_with_the_output_before_it(self):
        self.passes("a$ mkfifo pipe", "a$ read line < pipe; echo $line",
                    "b$ echo told > pipe", "a| told", "a$", "b$ true")

    def test_output_that_the_lab_does_not_show_fails(self):
        self.fails("a$ echo one", said=["+one"])
        self.fails("a$ echo one; echo two", "one", said=["+two"])

    def test_output_in_another_order_fails(self):
        self.fails("a$ echo one; echo two", "two", "one")

    def test_letters_and_case_count(self):
        self.fails("a$ echo pong", "Pong")
        self.fails("a$ echo pong", "pong.")
        self.fails("a$ echo pong.", "pong!")

    def test_a_special_character_means_itself(self):
        self.passes("a$ echo '*.[a](b)+'", "*.[a](b)+")
        self.fails("a$ echo ab", "a.")

    def test_spaces_count_where_there_is_no_number(self):
        self.passes("a$ echo 'a   b'", "a   b")
        self.fails("a$ echo 'a   b'", "a b")

    def test_columns_may_move_where_numbers_are(self):
        self.passes("a$ printf 'PID  CMD\\n   7  x\\n'", "PID CMD", "12345 x")

    def test_an_output_without_an_end_of_line(self):
        self.passes("a$ printf abc", "abc", "a$ echo x", "x")


class Dots(RunnerTest):
    def test_any_lines_and_none(self):
        self.passes("a$ seq 100 120", "100", "...", "120")
        self.passes("a$ echo one; echo two", "one", "...", "two")
        self.passes("a$ echo one; echo two", "...")
        self.passes("a$ true", "...")

    def test_what_stands_around_them_counts(self):
        self.fails("a$ printf 'a\\nb\\nc\\n'", "a", "...", "d")
        self.fails("a$ printf 'a\\nb\\nc\\n'", "b", "...", "c")

    def test_of_a_program_that_runs_on(self):
        self.passes("a$ sh -c 'echo b; echo c; cat'", "...", "c", "a> x", "x", "a> ^D")
        self.passes("a$ sh -c 'echo b; echo c; echo d; cat'", "b", "...",
                    "b$ true", "a| d", "a> ^D")


class Figures(RunnerTest):
    def test_a_number_matches_a_number(self):
        self.passes("a$ echo port 40001, fd 7", "port 51090, fd 4")

    def test_a_word_is_no_number(self):
        self.fails("a$ echo port any", "port 51090")
        self.fails("a$ echo port 51090x", "port 51090")

    def test_1208_is_always_1208(self):
        self.passes("a$ echo port 1208", "port 1208")
        self.fails("a$ echo port 1209", "port 1208")
        self.fails("a$ echo port 12080", "port 1208")

    def test_a_number_that_the_lab_fixes(self):
        lab = "Fixed numbers in this lab: 3, 64.\n"
        self.lab_passes(lab + console("a$ echo 3 64 9", "3 64 8"))
        self.lab_fails(lab + console("a$ echo 4 64 9", "3 64 8"))
        self.lab_fails(lab + console("a$ echo 3 65 9", "3 64 8"))

    def test_addresses_and_digits_in_words_are_no_numbers(self):
        self.fails("a$ echo 127.0.0.2", "127.0.0.1")
        self.fails("a$ echo ::2", "::1")
        self.fails("a$ echo '[::2]:40000'", "[::1]:51090")
        self.passes("a$ echo '[::1]:40000'", "[::1]:51090")
        self.fails("a$ echo tcp", "tcp6")
        self.fails("a$ echo IPv4", "IPv6")

    def test_the_same_number_is_the_same_all_through_the_lab(self):
        self.passes("a$ echo 40001 40001", "51090 51090")
        self.fails("a$ echo 40001 40002", "51090 51090")
        self.passes("a$ echo 40001", "51090", "a$ echo 40001", "51090")
        self.fails("a$ echo 40001", "51090", "a$ echo 40002", "51090", said=["40002"])

    def test_a_number_in_a_command_is_the_one_that_was_seen(self):
        self.passes("a$ echo 40001", "51090", "a$ echo 'is 51090' | tr 0 o", "is 4ooo1")
        self.passes("a$ echo 20007 1208", "20007 1208")

    def test_hexadecimal(self):
        self.passes("a$ echo at 0x7fff12", "at 0x5555aa")
        self.fails("a$ echo at 7fff12", "at 0x5555aa")
        self.passes("a$ echo 0123456789abcdef", "67bfc390d58f")
        self.fails("a$ echo 01234zzzz", "67bfc390d58f")


class SourceLines(RunnerTest):
    LAB = console("a$ echo 'at server.c:171, at handler.c:9'; echo '171  x 5'",
                  "at server.c:170, at handler.c:9", "170  x 5")

    def test_a_line_of_a_source_that_moved_fails(self):
        self.lab_fails(self.LAB, "server.c:170 is line 171.")
        self.lab_passes(self.LAB.replace("170", "171"))
        self.passes("a$ echo elsewhere.c:7", "elsewhere.c:8")

    def test_both_numbers_of_a_line_are_the_same(self):
        self.fails("a$ echo 'server.c, line 171'; echo 172", "server.c, line 171", "171")

    def test_they_are_rewritten(self):
        with tempfile.NamedTemporaryFile("w+", suffix=".md") as file:
            file.write(self.LAB)
            file.flush()
            subprocess.run([sys.executable, RUNNER, "--lines", file.name], check=True,
                           stdout=subprocess.DEVNULL, timeout=60)
            with open(file.name, encoding="utf-8") as now:
                self.assertEqual(now.read(), self.LAB.replace("170", "171"))


class Terminals(RunnerTest):
    def test_a_terminal_lives_as_long_as_the_lab(self):
        self.passes("a$ here=5", "b$ echo \"$here\"", "", "a$ echo \"x$here\"", "x5")

    def test_typing_into_a_program(self):
        self.passes("a$ cat", "a> ping", "ping", "a> pong", "pong", "a> ^D",
                    "a$ echo done", "done")
        self.fails("a$ cat", "a> ping", "pong", "a> ^D")

    def test_typing_into_no_program_fails(self):
        self.fails("a$ true", "a> ping", said=["nothing runs in terminal a"])

    def test_a_command_while_a_program_runs_fails(self):
        self.fails("a$ cat", "a$ echo x", "x", bound="2")

    def test_keys(self):
        self.passes("a$ sleep 100", "a> ^C", "a$ echo $?", "130")
        self.passes("a$ sh -c 'trap \"echo caught; exit\" INT; echo go; "
                    "while :; do sleep 0.1; done'",
                    "go", "a> ^C", "caught")

    def test_keys_work_though_the_runner_was_started_in_the_background(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.passes("a$ sleep 100", "a> ^C", bound="5")
        finally:
            signal.signal(signal.SIGINT, before)

    def test_what_another_terminal_shows_later(self):
        self.passes("a$ mkfifo a.pipe", "a$ cat a.pipe", "b$ echo hello > a.pipe", "a| hello")
        self.fails("a$ mkfifo a.pipe", "a$ cat a.pipe", "b$ echo hello > a.pipe", "a| goodbye")

    def test_later_output_that_is_not_shown_fails(self):
        self.fails("a$ mkfifo a.pipe", "a$ cat a.pipe", "b$ echo hello > a.pipe",
                   "a$ echo next", "next", bound="1", said=["not over after 1 s"])
        self.fails("a$ mkfifo a.pipe", "a$ cat - a.pipe", "b$ echo late > a.pipe &", "[1] 1234",
                   "a> x", "x", "a> ^D", said=["+late"])

    def test_the_prompt_that_comes_back_later(self):
        self.passes("a$ mkfifo a.pipe", "a$ read x < a.pipe", "b$ true",
                    "b$ echo > a.pipe", "a$", "a$ echo x", "x")

    def test_a_command_of_two_lines(self):
        self.passes("a$ echo one \\", "> two", "one two")
        self.passes("a$ cat <<< 'x'", "x")

    def test_output_of_nobody_is_an_error(self):
        self.fails("a$ cat", "b$ true", "a| x", "y", said=["whose output is this"])

    def test_sources_are_there_and_fresh(self):
        self.passes("a$ ls server.c; ls server", "server.c",
                    "ls: cannot access 'server': No such file or directory")

    def test_a_broken_pipe_ends_a_program_as_in_any_terminal(self):
        self.passes("a$ yes | head -1; echo ${PIPESTATUS[0]}", "y", "141")


class End(RunnerTest):
    def test_missing_output_is_waited_for_within_the_bound(self):
        self.fails("a$ cat", "a> ping", "pong", "ping", bound="1", said=["-pong"])

    def test_a_program_that_runs_on_at_the_end_fails_and_is_ended(self):
        name = f"sleep 98{os.getpid()}"
        self.fails(f"a$ {name}", bound="1", said=["terminal a"])
        self.fails(f"a$ (trap '' HUP TERM; {name}) &", "[1] 1234", bound="1")
        self.assertNotIn(name, self.processes())

    def test_without_namespaces_it_is_ended_too(self):
        name = f"sleep 96{os.getpid()}"
        self.lab_fails("Isolation: none, since this is to test the cleaning up.\n"
                       + console(f"a$ (trap '' HUP TERM; {name}) &", "[1] 1234", f"b$ {name}"),
                       bound="1")
        self.assertNotIn(name, self.processes())

    @staticmethod
    def processes():
        return subprocess.run(["ps", "-A", "-o", "args="], check=True,
                              capture_output=True, text=True).stdout

    def test_a_program_left_in_the_background_fails(self):
        self.fails("a$ sleep 97 &", "[1] 1234", bound="1", said=["left running: sleep 97"])


class Waiting(RunnerTest):
    def test_a_wait_is_for_the_command_to_succeed(self):
        lab = (console("a$ echo 40001", "51090", "a$ sh -c 'sleep 1; > 51090; cat'")
               + "<!-- wait: test -e 51090 -->\n"
               + console("b$ ls 51090", "51090", "a> ^D"))
        self.lab_passes(lab)
        self.lab_passes(lab, show=True)

    def test_a_wait_in_vain_fails_and_says_for_what(self):
        self.lab_fails(console("a$ echo 40001", "51090") + "<!-- wait: test -e 51090 -->\n",
                       "line 7: waited 1 s in vain for: test -e 40001", bound="1")

    def test_what_the_runner_reads_may_stand_in_comments(self):
        lab = "<!-- Fixed numbers: 3. -->\n"
        self.lab_passes(lab + console("a$ echo 3", "3"))
        self.lab_fails(lab + console("a$ echo 4", "3"))


class Editing(RunnerTest):
    DIFF = "\n".join(["<!-- edit: notes -->", "```diff", "--- a/file",
                      "+++ b/file", "@@ -1 +1 @@", "-one", "+two", "```", ""])

    def test_a_diff_is_typed_into_the_file(self):
        first = console("a$ mkdir notes; echo one > notes/file")
        second = console("a$ cat notes/file", "two")
        self.lab_passes(first + self.DIFF + second)
        self.lab_fails(first + self.DIFF.replace("<!-- edit: notes -->", "") + second)

    def test_a_diff_that_does_not_fit_fails(self):
        self.lab_fails(console("a$ mkdir notes; echo 1 > notes/file") + self.DIFF,
                       "line 7: the diff does not fit")


class Form(RunnerTest):
    def test_a_block_that_would_not_be_run_is_an_error(self):
        for tag in ("", "sh", "bash"):
            self.lab_fails(f"```{tag}\necho x\n```\n", "would never be run")

    def test_a_text_block_says_why(self):
        block = "```text\necho x\n```\n"
        self.lab_fails("For example:\n\n" + block + console("a$ true"))
        self.lab_passes("This is not run: it needs Docker.\n\n" + block + console("a$ true"))

    def test_a_lab_without_a_transcript_is_an_error(self):
        self.lab_fails("# Nothing to do\n")

    def test_a_block_without_an_end_is_an_error(self):
        self.lab_fails("```console\na$ true\n")

    def test_folded_answers_are_run_too(self):
        self.lab_fails("<details>\n\n" + console("a$ echo x", "y") + "</details>\n")


class Tools(RunnerTest):
    LAB = "Tools: `sh`, `no-such-tool`.\n" + console("a$ true")
    PART = (console("a$ echo one", "one")
            + "\n## The other\n\nTools: `no-such-tool`.\n\n"
            + console("b$ no-such-tool") + "\n### Below\n\n"
            + console("b$ no-such-tool")
            + "\n## The last\n\n" + console("a$ echo three", "three"))

    def test_a_missing_tool_skips_the_lab_by_name(self):
        words = self.lab_passes(self.LAB, console("a$ true"), count="1 passed, 0 failed, 1 skipped")
        self.assertIn("SKIP 01-test: missing no-such-tool\n", words)

    def test_in_ci_it_is_a_failure(self):
        self.lab_fails(self.LAB, ci="true")

    def test_a_part_is_skipped_alone(self):
        words = self.lab_passes(self.PART, count="1 passed, 0 failed, 1 skipped")
        self.assertIn('SKIP 01-test, part "The other": missing no-such-tool', words)
        self.lab_fails(self.PART, ci="true")

    def test_the_rest_of_a_lab_with_a_skipped_part_is_done(self):
        self.assertEqual(run(self.PART.replace("\nthree", "\nfour"), bound="5")[0], 1)

    def test_tools_that_are_there_skip_nothing(self):
        self.lab_passes("**Tools:** `sh`, `bash`.\n" + console("a$ true"))


class Showing(RunnerTest):
    def test_show_prints_what_happened(self):
        self.assertIn("a$ echo 77\n77\n", self.passes("a$ echo 77", "five", show=True))


if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, "
          f"{skipped} skipped")
    sys.exit(failed > 0)
