#!/bin/sh
# Keeps the sources short enough for one lesson. `make budgets` runs it.
#
#     tests/budgets.sh            check the tree
#     tests/budgets.sh FILE.c     list the functions of a file, with their lines
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
passed=0

# check WHAT NUMBER MOST
check() {
    if [ "$2" -le "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "budgets: $1: $2, and the budget is $3"
    fi
}

# A definition begins at the left margin, ends with a '}' there, and has its
# name before the first '('. The form is clang-format's, so this is enough.
functions() {
    awk '/^[a-z_].*\(/ && !/;$/ && !/=/ { start = NR
             name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
         /;$/ && start == NR - 1 && !/^ .*[{}]/ && /^ / && /\);$/ { start = 0 }
         /^}/ { if (start) print name, NR - start + 1; start = 0 }' "$1"
}

if [ $# -gt 0 ]; then
    functions "$1"
    exit
fi

for budget in server.c:620 handler.c:400 handler.h:100 client.c:420; do
    file=${budget%:*}
    check "lines of $file" "$(wc -l < "$file")" "${budget#*:}"
done
for file in server.c handler.c client.c; do
    longest=$(functions "$file" | sort -k2 -rn | head -1)
    check "lines of ${longest% *}() in $file" "${longest#* }" 40
done
check 'functions of server.c' "$(functions server.c | wc -l)" 36

# The story first: main() stands above what it calls.
story='main accept_clients admit serve leave'
order=$(functions server.c | awk 'NR <= 5 { printf "%s%s", s, $1; s = " " }')
[ "$order" = "$story" ]
check "order of server.c: begins with '$order', not with '$story'" $? 0

lines=$(find tests -type f ! -path '*/corpus/*' ! -name '*.pyc' -exec cat {} + | wc -l)
check 'lines of tests/, the fuzzing corpus apart' "$lines" 15400

echo "budgets: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
