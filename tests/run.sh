#!/bin/sh
# Runs the CUnit suites side by side, and says at the end what has failed.
# `make test` calls it:
#
#     tests/run.sh DIRECTORY 'SUITE ...' 'TEST ...' 'make test'
#
# The directory has the suites' programs. With names of tests only those are run,
# each in the suites that have it. The last word is the command to be repeated.
set -u
directory=$1 suites=$2 tests=$3 command=$4
logs=$(mktemp -d) || exit 1
pids=
trap 'rm -rf "$logs"' EXIT
trap 'kill $pids 2>/dev/null; wait; exit 130' HUP INT TERM

for suite in $suites; do
    "$directory/test_$suite" --list >"$logs/$suite.list" || exit 1
done

# The names that are most like a wrong one: a name with it inside, or the fewest
# letters to be changed (Levenshtein).
nearest() {
    cat "$logs"/*.list | sort -u | awk -v wrong="$1" '
        function least(a, b, c) { return a < b ? (a < c ? a : c) : (b < c ? b : c) }
        {
            for (j = 0; j <= length(wrong); j++) row[j] = j
            for (i = 1; i <= length($0); i++) {
                above = row[0]; row[0] = i
                for (j = 1; j <= length(wrong); j++) {
                    here = least(row[j] + 1, row[j - 1] + 1, \
                        above + (substr($0, i, 1) != substr(wrong, j, 1)))
                    above = row[j]; row[j] = here
                }
            }
            print(index($0, wrong) ? 0 : row[length(wrong)]), $0
        }' | sort -n | head -3 | sed 's/^[0-9]* /    /'
}

wrong=0
for test in $tests; do
    grep -qxF -e "$test" "$logs"/*.list && continue
    printf "no test is called '%s'; the nearest names:\n" "$test" >&2
    nearest "$test" >&2
    wrong=1
done
[ $wrong = 0 ] || exit 2

# In the background, each with its own log. `failed` gets a line for each that
# has not ended well.
started=
for suite in $suites; do
    names=
    for test in $tests; do
        ! grep -qxF -e "$test" "$logs/$suite.list" || names="$names $test"
    done
    [ -z "$tests" ] || [ -n "$names" ] || continue
    # shellcheck disable=SC2086 # both are lists of words
    { ${TEST_WRAPPER-} "$directory/test_$suite" $names >"$logs/$suite.log" 2>&1 ||
        echo "FAILED  $suite" >"$logs/$suite.failed"; } &
    pids="$pids $!" started="$started $suite"
done

# In the order of the list. Of the tests that have passed only the number is
# shown, unless they were asked for by name, and of those that have failed the
# first three.
# shellcheck disable=SC2086
set -- $pids
for suite in $started; do
    wait "$1"
    shift
    awk -v all="$tests" '/^FAILED / { failed++ }
        /^[a-z]*: / || (failed < 4 && (all || !/^passed /))' "$logs/$suite.log"
    # A suite that names no failed test was itself ended.
    [ ! -f "$logs/$suite.failed" ] || grep -q '^FAILED ' "$logs/$suite.log" ||
        cat "$logs/$suite.failed" >>"$logs/$suite.log"
    cat "$logs/$suite.log" >>"$logs/all"
done

sed -n -e 's/,.*//' -e "s|^FAILED  *[a-z]* \(..*\)|failed: $command TESTS=\1|p" \
    -e "s|^FAILED  *\([a-z]*\)\$|failed: $command SUITES=\1 (it did not end by itself)|p" "$logs/all"
awk -v command="$command" '
    /^passed / { passed++ }
    /^FAILED / { failed++ }
    /^skipped / { skipped++ }
    END {
        printf "%d passed, %d failed", passed, failed
        print(skipped ? ", " skipped " skipped" : "")
        exit failed > 0 || passed + skipped == 0
    }' "$logs/all"
