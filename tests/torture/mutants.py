#!/usr/bin/python3
"""Puts small faults into the sources, one at a time: `make test` must notice each.

    tests/torture/mutants.py [WORD ...]      only faults whose line has one of the words

A fault is a text that the source has exactly once, and what stands there instead.
If the text is not found, the list is out of date, and that is an error. Each fault
is built in a copy of its own, in build/mutants/, and only the suite of its file is
run. The test that is named first must be the one that is named here,
or one of two where chance decides.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

BOUND = 180  # seconds for one fault: none may make the suites hang
ENVIRONMENT = {**os.environ, "PATIENCE": "6", "MAKEFLAGS": ""}
OUT = "build/mutants"
COPIED = ("server.c", "handler.c", "handler.h", "client.c", "Makefile", "tests", "lab-notes")

# (the test that notices, the text, what stands there instead)
HANDLER = [
    ("compose_replies", '"pong", 4', '"Pong", 4'),
    ("compose_replies", "length = 4;", "length = 5;"),
    ("parse_commands", 'return "quit"', 'return "exit"'),
    ("parse_white_space", "byte == '\\v' ||", ""),
    ("parse_white_space", "while (line < end && is_white_space(end[-1]))\n        end--;", ""),
    ("parse_near_misses", "word != strlen(known) ||", ""),
    ("compose_replies", "byte <= '~'", "byte < '~'"),
    ("compose_replies", "i < WORD_LIMIT", "i <= WORD_LIMIT"),
    ("compose_replies", "length > WORD_LIMIT", "length >= WORD_LIMIT"),
    ("compose_replies", "case QUIT_COMMAND:\n        return 0;", "case QUIT_COMMAND:\n        break;"),
    ("a_flood_does_not_fill_the_screen", "> SHOWN_LIMIT", ">= SHOWN_LIMIT"),
    ("a_flood_does_not_fill_the_screen", "++talk->unsupported > SHOWN_LIMIT ||", ""),
    ("a_line_that_the_screen_loses_is_counted", "screen) != length", "screen) == 0 && 0"),
    ("each_row_of_the_protocol", "talk->unshown > 0", "talk->terms->screen"),
    ("without_a_screen_the_client_is_told", "screen != NULL && (++", "(++"),
    ("the_dearest_requests", "if (talk->output_length > OUTPUT_LIMIT - REPLY_LIMIT)\n        deliver(talk);", ""),
    ("lines_beyond_the_limit", "if (!talk->skipping)\n            answer", "answer"),
    ("lines_up_to_the_limit", "talk->input_length == LINE_LIMIT &&", "talk->input_length >= LINE_LIMIT - 1 &&"),
    ("each_row_of_the_protocol", "memmove(talk->buffer, line, talk->input_length);", ";"),
    ("each_row_of_the_protocol", "while (talk->state == OPEN &&\n           (newline", "while ((newline"),
    ("each_row_of_the_protocol", "talk->state = QUIT;", ";"),
    ("each_row_of_the_protocol", "talk->terms->stopping != NULL && ", ""),
    ("the_stop_is_bounded", "    if (grace_is_over(talk)) {\n        talk->state = STOPPED;\n        return;\n    }\n", ""),
    ("each_row_of_the_protocol", "talk->state = END_OF_FILE;", "talk->state = LOST;"),
    ("a_signal_alone_does_not_stop", "else if (errno == EINTR) {", "else if (0) {"),
    ("the_stop_answers_what_comes_with_the_signal", " && !has_arrived(talk->socket)", ""),
    ("a_signal_alone_does_not_stop", "if (is_stopping(talk) && !has", "if (!has"),
    ("a_silent_client_times_out", "errno == EAGAIN ? TIMED_OUT : LOST", "LOST"),
    ("a_signal_during_send_loses_nothing", "else if (errno != EINTR)\n            talk->state = LOST", "else\n            talk->state = LOST"),
    ("a_client_that_never_reads_times_out", "else if (errno != EINTR)\n            talk->state = LOST;", ";"),
    ("the_stop_gives_up_who_never_reads", "if (sent < talk->output_length && grace_is_over(talk))\n            talk->state = LOST;", ""),
    ("a_client_that_never_closes_is_let_go", "shutdown(socket, SHUT_WR) < 0 ||\n        ", ""),
    ("a_client_that_never_closes_is_let_go", " ||\n        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) < 0)", ")"),
    ("a_client_that_never_stops_sending_is_let_go", "total < most_bytes && ", ""),
    ("a_client_that_sends_slowly_is_let_go|the_stop_answers_what_has_arrived",
     " && milliseconds() < deadline", ""),
    ("a_client_that_never_closes_is_let_go", "    if (talk.state == QUIT || talk.state == TIMED_OUT || talk.state == STOPPED)\n        hang_up(socket, HANG_UP_BYTES);\n", ""),
    ("a_client_that_never_closes_is_let_go", "talk.state == QUIT || ", ""),
    ("a_silent_client_times_out", "talk.state == TIMED_OUT || ", ""),
    ("refuse_with_words", "fcntl(socket, F_SETFL, O_NONBLOCK) >= 0 &&\n        ", ""),
    ("a_silent_client_times_out", "!setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle) &&", ""),
    ("a_client_that_never_reads_times_out", " &&\n           !setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle)", ""),
    ("each_row_of_the_protocol", "talk->state == END_OF_FILE && talk->input_length > 0", "0"),
]
SERVER = [
    ("a_client_leaves_nothing_behind", "    close(client->socket);\n", ""),
    ("a_crowd_is_turned_away", "    close(socket);\n", ""),
    ("stop_refuses_new_clients", "    close(listening_socket);\n    while", "    while"),
    ("path_stale_is_replaced", "        close(probe);\n", ""),
    ("path_stale_is_replaced", "error = errno;\n    close(listening_socket);", "error = errno;"),
    ("closed_standard_descriptors", "while (descriptor >= 0 && descriptor <= STDERR_FILENO);", "while (0);"),
    ("the_log_to_the_letter", "<= STDERR_FILENO);\n    close(descriptor);", "<= STDERR_FILENO);"),
    ("the_log_to_the_letter", "(errno == EAGAIN || stop_rounds >= STOP_ROUNDS)", "(stop_rounds >= STOP_ROUNDS)"),
    ("out_of_descriptors", "if (!failing)\n", ""),
    ("out_of_descriptors", "failing = true;\n            wait_for_clients();", "failing = true;"),
    ("at_most_two_clients", "connected >= limit", "connected > limit"),
    ("each_thread_gives_its_stack_back", "PTHREAD_CREATE_DETACHED", "PTHREAD_CREATE_JOINABLE"),
    ("a_thousand_clients_at_once", "pthread_attr_setstacksize(&thread_attributes, THREAD_STACK_BYTES) ||", ""),
    ("both_families_on_one_socket|a_client_leaves_nothing_behind",
     "    client->next->previous = client->previous;\n", ""),
    ("at_most_two_clients", "    connected--;\n", ""),
    ("the_log_to_the_letter", "fcntl(listening_socket, F_SETFL, O_NONBLOCK);", ""),
    ("stop_with_idle_clients", "pthread_kill(each->thread, SIGURG);", ";"),
    ("a_second_ctrl_c_ends_it_at_once", "if (number == SIGINT)\n        sigaction(SIGINT, &by_default, NULL);", "(void)number, (void)by_default;"),
    ("a_second_ctrl_c_ends_it_at_once", "if (number == SIGINT)\n        sigaction(SIGINT,", "(void)number;\n    sigaction(SIGTERM,"),
    ("a_signal_that_was_ignored_stays_ignored", "if (before.sa_handler != SIG_IGN)\n        sigaction(SIGINT,", "sigaction(SIGINT,"),
    ("a_signal_that_was_ignored_stays_ignored", "if (before.sa_handler != SIG_IGN)\n        sigaction(SIGTERM,", "sigaction(SIGTERM,"),
    ("signals_that_were_blocked_are_not", "pthread_sigmask(SIG_SETMASK, &none, NULL);", ""),
    ("clients_that_vanish", "signal(SIGPIPE, SIG_IGN);", ""),
    ("the_log_to_the_letter", "setvbuf(stdout, NULL, _IOLBF, BUFSIZ);", ""),
    ("quiet_logs_only_errors", 'quiet && freopen("/dev/null", "w", stdout) == NULL', "0"),
    ("port_used_a_moment_ago", "setsockopt(listening_socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);", ""),
    ("ipv6_only", "six_only = family == AF_INET6", "six_only = 0"),
    ("the_log_to_the_letter", "six_only = family == AF_INET6", "six_only = 1"),
    ("the_log_to_the_letter", 'strncmp(host, "::ffff:", 7) == 0', "0"),
    ("path_fresh_and_removed", "umask(0117)", "umask(0)"),
    ("path_fresh_and_removed", "    unlink_path();\n    close(listening", "    close(listening"),
    ("path_replaced_is_left_alone", "now.st_ino == socket_file.st_ino &&", ""),
    ("path_that_is_no_socket", "lstat(path, &file) == 0 && !S_ISSOCK(file.st_mode)", "0"),
    ("path_of_a_live_server", "answer == ECONNREFUSED", "answer != 0"),
    ("path_up_to_the_limit", "strlen(path) >= sizeof", "strlen(path) > sizeof"),
    ("too_few_descriptors", "descriptors <= RESERVED_DESCRIPTORS", "descriptors < RESERVED_DESCRIPTORS"),
    ("the_log_to_the_letter", "limit > (size_t)descriptors - RESERVED_DESCRIPTORS", "0"),
    ("the_descriptor_limit_sets_the_client_limit", "number > most", "number >= most"),
    ("server_usage_errors", "number < least ||", ""),
    ("server_usage_errors", "!digits ||", ""),
    ("server_usage_errors", "optind < argc", "0"),
    ("the_log_to_the_letter", '"Connection from %s closed.\\n"', '"Connection from %s ended.\\n"'),
]
# A lock that is missing shows itself by luck: to ThreadSanitizer it does at once.
LOCKS = [
    ("WARNING: ThreadSanitizer", "static void leave(struct client *client)\n{\n    pthread_mutex_lock(&lock);", "static void leave(struct client *client)\n{\n"),
    ("WARNING: ThreadSanitizer", "int error = ENOMEM;\n\n    pthread_mutex_lock(&lock);", "int error = ENOMEM;\n\n"),
    ("WARNING: ThreadSanitizer", "%= 1000000000;\n\n    pthread_mutex_lock(&lock);", "%= 1000000000;\n\n"),
]
CLIENT = [
    ("input_and_output_that_do_not_block", "errno == EAGAIN || errno == EINTR;", "errno == EINTR;"),
    ("the_session", "QUIT_COMMAND)\n            return true;", "QUIT_COMMAND)\n            return false;"),
    ("quit_in_every_shape", "bytes = line_end + 1;", "bytes = end;"),
    ("the_session", "newline != NULL ? newline : end", "end"),
    ("end_of_input_is_a_half_close", "shutdown(socket, SHUT_WR);", ""),
    ("end_of_input_is_a_half_close", "    all_said = true;\n    shutdown", "    shutdown"),
    ("the_server_is_gone", "return all_said ? EXIT_SUCCESS : EXIT_FAILURE", "return EXIT_SUCCESS"),
    ("a_server_that_reads_no_more", "errno == EPIPE || ", ""),
    ("a_server_that_reads_no_more", "            all_said = false;\n", ""),
    ("stopped_and_continued", "else if (errno != EINTR)\n            fail(", "else\n            fail("),
    ("silence_has_a_limit", "error == EINPROGRESS ||", ""),
    ("silence_has_a_limit", "error == EINPROGRESS || error == EAGAIN", "error == EINPROGRESS"),
    ("silence_has_a_limit", "    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);\n", ""),
    ("silence_has_a_limit", "    setsockopt(candidate, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);\n", ""),
    ("input_that_fails", "while (descriptor >= 0 && descriptor <= STDERR_FILENO);", "while (0);"),
    ("a_server_that_reads_no_more|output_that_fails", "signal(SIGPIPE, SIG_IGN);", ""),
    ("a_path_too_long", "strlen(path) >= sizeof", "strlen(path) > sizeof"),
    ("client_usage_errors", "number < 1 ||", ""),
    ("client_usage_errors", "|| number > most", ""),
    ("client_usage_errors", "if (*operands != NULL)\n        misuse(", "if (0)\n        misuse("),
    ("two_hundred_thousand_lines", "write_output(buffer, (size_t)count);", "write_output(buffer, strlen(buffer));"),
]


def build(directory, words=(), bound=BOUND):
    """Returns the exit status of make, and what it has said."""
    process = subprocess.Popen(["make", "--no-print-directory", "-s", *words], cwd=directory,
                               env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, errors="replace",
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said = process.communicate(timeout=bound)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        return None, process.communicate()[0]
    return process.returncode, said


def copy(name):
    target = os.path.join(OUT, name)
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for each in COPIED:
        subprocess.run(["cp", "-a", each, target], check=True)
    return target


def try_fault(number, name, suite, words, expected, text, instead):
    """A line for the table, and whether it is as it should be."""
    sound = pathlib.Path(f"{name}.c").read_text("utf-8")
    label = f"{name}.c: {' '.join(text.split())[:60]} -> {' '.join(instead.split())[:40]}"
    if sound.count(text) != 1:
        return f"OUT OF DATE, {sound.count(text)} times in the source: {label}", False
    target = os.path.join(OUT, str(number))
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", os.path.join(OUT, "sound" + "".join(words)), target], check=True)
    pathlib.Path(target, f"{name}.c").write_text(sound.replace(text, instead), "utf-8")
    since = time.monotonic()
    status, said = build(target, [*words, "CFLAGS=-w", f"SUITES={suite}", "test"])
    took = f"{time.monotonic() - since:5.1f} s"
    named = re.findall(r"^failed: .*?(?:TESTS|SUITES)=(\w+)", said, re.MULTILINE)
    if status is None:
        verdict = "DID NOT END"
    elif status == 0:
        verdict = "SURVIVED"
    elif not named:
        verdict = "DID NOT BUILD\n" + said[-2000:]
    elif named[0] not in expected.split("|") and not (" " in expected and expected in said):
        verdict = f"NOTICED BY {' '.join(named[:4])} instead of {expected}"
    else:
        shutil.rmtree(target)
        return f"noticed {took}  {named[0]:44} {label}", True
    return f"{verdict} {took}: {label}", False


def main(wanted):
    faults = [("handler", "handler", [], *fault) for fault in HANDLER]
    faults += [("server", "server", [], *fault) for fault in SERVER]
    faults += [("client", "client", [], *fault) for fault in CLIENT]
    faults += [("server", "server", ["SANITIZE=thread"], *fault) for fault in LOCKS]
    faults = [fault for fault in faults if not wanted or any(word in str(fault) for word in wanted)]
    for words in {tuple(fault[2]) for fault in faults}:
        status, said = build(copy("sound" + "".join(words)), [*words, "CFLAGS=-w", "test"])
        if status != 0:
            sys.exit(f"mutants: the sources themselves fail\n{said}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(try_fault, number, *fault) for number, fault in enumerate(faults)]
        for job in jobs:
            line, good = job.result()
            failed += not good
            print(line, flush=True)
    print(f"mutants: {len(faults) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
